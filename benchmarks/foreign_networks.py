"""``python -m benchmarks.foreign_networks``: trained networks of another project, adopted.

The networks find the person in a photo. They come as ONNX files of three frameworks and three ages,
which says more of ``tinyunet adopt`` than networks that we would export. The photos are of a second
project and have masks; each is scaled to the size that a network takes, in grey. In both folders
lies what the projects publish::

    NETWORKS  a clone of github.com/anilsathyan7/Portrait-Segmentation, MIT licence
    PHOTOS    a clone of github.com/VikramShenoy97/Human-Segmentation-Dataset, no licence stated
"""

from __future__ import annotations

import shlex
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click
import cv2
import numpy as np

from benchmarks.options import HELP, output_option, progress_lines, write_result
from tinyunet_deploy import api
from tinyunet_deploy.artifacts.adoption.form import NORMALIZATIONS, Normalization
from tinyunet_deploy.artifacts.facts import Activation
from tinyunet_deploy.artifacts.precision import Precision
from tinyunet_deploy.cli import run
from tinyunet_deploy.cli.options import PrecisionList
from tinyunet_deploy.data.encoding import write_png
from tinyunet_deploy.errors import DataError
from tinyunet_deploy.files import json_value
from tinyunet_deploy.quality.adoption import AdoptionOptions, adopt
from tinyunet_deploy.quality.adoption_precisions import convert_precisions

__all__ = ["NETWORKS", "Network", "foreign_networks", "write_photos"]

CALIBRATING: Final = 20
"""Photos that calibrate int8; those after them are evaluated."""


@dataclass(frozen=True)
class Network:
    """A trained network, and what its own program does with an image."""

    name: str
    file: str
    """Path of the ONNX file below the folder of the networks."""
    side: int
    """Height and width of its images, pixels."""
    normalization: Normalization
    activation: Activation | None
    """None where the graph shows it."""
    exporter: str


NETWORKS: Final = (
    Network(
        "SINet",
        "SINet/SINet.onnx",
        320,
        # its program divides by 255 after the standard deviation, and takes blue first
        Normalization(
            (102.890434, 111.25247, 126.91212), (255 * 62.93292, 255 * 62.82138, 255 * 66.355705)
        ),
        "softmax",
        "PyTorch 1.6, opset 12",
    ),
    Network(
        "Prisma-net",
        "models/prisma_seg/prisma_nchw.onnx",
        256,
        NORMALIZATIONS["unit"],
        None,
        "Keras by OnnxMLTools 1.7, opset 7",
    ),
    Network(
        "DeepLab v3+ (MobileNet v2)",
        "models/deeplab_dm05_513/deeplab_nchw.onnx",
        513,
        NORMALIZATIONS["symmetric"],
        "softmax",
        "TensorFlow by tf2onnx 1.5, opset 8",
    ),
)


@click.command(context_settings=HELP)
@click.argument("networks", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("photos", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option(
    "--evaluated",
    default=60,
    show_default=True,
    type=click.IntRange(min=1),
    help="Photos on which each network is evaluated.",
)
@click.option(
    "--precision",
    "precisions",
    type=PrecisionList(),
    default="fp32,fp16,int8",
    show_default=True,
    help="Files to make; int8 of all three takes an hour.",
)
@output_option("foreign-networks.json")
def foreign_networks(
    networks: Path, photos: Path, evaluated: int, precisions: list[Precision], output: Path
) -> None:
    """Adopt three trained networks, and evaluate them on photos with masks."""
    words = ["python", "-m", "benchmarks.foreign_networks", "NETWORKS", "PHOTOS"]
    words += ["--evaluated", str(evaluated), "--precision", ",".join(precisions)]
    rows = []
    with (
        progress_lines(len(NETWORKS)) as progress,
        tempfile.TemporaryDirectory(prefix="foreign-networks-") as scratch,
    ):
        for network in NETWORKS:
            progress.describe(network.name)
            file = networks / network.file
            row = _measured(network, file, photos, Path(scratch), evaluated, precisions)
            click.echo(f"{network.name}: {row['files']}")
            rows.append(row)
            progress.advance()
    fields = {
        "kind": "foreign-networks",
        "command": shlex.join(words),
        "networks_source": "https://github.com/anilsathyan7/Portrait-Segmentation",
        "networks_licence": "MIT",
        "photos_source": "https://github.com/VikramShenoy97/Human-Segmentation-Dataset",
        "photos_licence": "none stated",
        "photos": f"numbers upwards, image and mask of one aspect ratio: {CALIBRATING} calibrate, "
        f"the next {evaluated} are evaluated",
        "networks": rows,
    }
    write_result(output, fields)


def _measured(
    network: Network,
    file: Path,
    photos: Path,
    scratch: Path,
    evaluated: int,
    precisions: Sequence[Precision],
) -> dict[str, Any]:
    folder = scratch / network.name.split()[0]
    data = folder / "photos"
    write_photos(photos, data, network.side, evaluated)
    options = AdoptionOptions(network.normalization, activation=network.activation)
    adoption = adopt(file, folder / "network.onnx", options, images=data)
    converted, refused = convert_precisions(adoption.path, precisions, calibrate=data, images=data)
    facts = adoption.sidecar.adoption
    assert facts is not None
    files = {}
    for precision, path in [("fp32", adoption.path), *((f.precision, f.path) for f in converted)]:
        figures = api.evaluate(data, path).all
        files[precision] = {
            "iou_defective": figures.iou_defective,
            "escapes": figures.escapes,
            "images": figures.images,
            "bytes": path.stat().st_size,
        }
    return {
        "name": network.name,
        "file": network.file,
        "original_sha256": facts.original_sha256,
        "exporter": network.exporter,
        "side": network.side,
        "batch": facts.batch,
        "proof_steps": facts.proof_steps,
        "proof_images": facts.proof_images,
        "files": json_value(files),
        "refused": {
            precision: str(error.what)
            for error in refused
            for precision in precisions
            if f".{precision}." in str(error.where)
        },
    }


def write_photos(source: Path, folder: Path, side: int, evaluated: int) -> None:
    """Write the photos as a data set: train/ for calibration, test/ for evaluation.

    Photos whose masks have another aspect ratio are left out: some are turned by 90 degrees.

    Args:
        side: height and width that the photos are scaled to, pixels.
        evaluated: number of photos in test/.

    Raises:
        DataError: there are too few.
    """
    fitting = []
    for path in sorted((source / "Ground_Truth").glob("*.png"), key=lambda path: int(path.stem)):
        pair = source / "Training_Images" / f"{path.stem}.jpg", path
        if not pair[0].exists():
            continue
        photo, mask = (
            cv2.imdecode(np.fromfile(file, np.uint8), cv2.IMREAD_GRAYSCALE) for file in pair
        )
        if photo is None or mask is None:
            continue
        aspects = [one.shape[1] / one.shape[0] for one in (photo, mask)]
        if abs(aspects[0] / aspects[1] - 1) < 0.01:
            fitting.append((path.stem, photo, mask))
        if len(fitting) == CALIBRATING + evaluated:
            break
    else:
        raise DataError(source, f"has {len(fitting)} photos with masks", "expected more")
    for number, (stem, photo, mask) in enumerate(fitting):
        split = folder / ("train" if number < CALIBRATING else "test")
        label = np.where(mask > 127, 255, 0).astype(np.uint8)
        for kind, pixels, how in (
            ("images", photo, cv2.INTER_AREA),
            ("masks", label, cv2.INTER_NEAREST),
        ):
            (split / kind).mkdir(parents=True, exist_ok=True)
            scaled = cv2.resize(pixels, (side, side), interpolation=how)
            write_png(split / kind / f"{stem}.png", scaled.astype(np.uint8))


if __name__ == "__main__":
    sys.exit(run(foreign_networks))
