"""Export a checkpoint: load it, make and compare the file of each precision, write them all."""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, assert_never

import numpy as np
import onnx

from export.calibrate import histograms, largest
from export.checkpoint_comparison import (
    ComparisonImages,
    compare_with_checkpoint,
    comparison_images,
)
from export.graph import OPSET, onnx_graph
from export.int8 import Int8File, make_int8, sensitivity_reports
from export.speedup import measure_speedup
from tinyunet_deploy import __version__
from tinyunet_deploy.artifacts.checkpoint import network_of
from tinyunet_deploy.artifacts.golden import write_golden
from tinyunet_deploy.artifacts.lineage import parent_place
from tinyunet_deploy.artifacts.precision import Precision, precision_facts
from tinyunet_deploy.artifacts.sidecar import (
    Artifact,
    Sidecar,
    digest,
    read_artifact,
    write_artifact,
)
from tinyunet_deploy.artifacts.speed_facts import MIN_SPEEDUP
from tinyunet_deploy.artifacts.tensorrt_preflight import check_onnx
from tinyunet_deploy.backends.base import Backend
from tinyunet_deploy.backends.onnxruntime import ONNXRuntimeBackend
from tinyunet_deploy.backends.registry import load
from tinyunet_deploy.contract import Batch, Contract, Image
from tinyunet_deploy.errors import GateFailed
from tinyunet_deploy.files import json_value, write_atomic

__all__ = ["export_checkpoint", "largest_activation", "output_paths", "unsigned_path"]

MAX_ACTIVATION: Final = 65504.0 / 2
"""Largest accepted activation of an fp16 file: half of half precision's largest number, to leave
room for other images than those tried. A CPU runs these files in float32 and shows no overflow."""

Log = Callable[[str], None]
"""Function that takes one line of text about a result."""


@dataclass(frozen=True)
class _Made:
    """The graph of one precision."""

    data: bytes
    origin: dict[str, Any] = field(default_factory=dict)
    """Details of how the graph was made, for the sidecar."""
    kept_in_float32: tuple[str, ...] = ()
    """Convolutions that int8 did not quantise."""
    reports: Mapping[Path, bytes] = field(default_factory=dict)
    """Path -> content of the files that explain the choice."""
    unsigned: bool = False
    """True for the int8 file for CPUs."""


def unsigned_path(path: Path) -> Path:
    """Return the path of the int8 file for CPUs beside the int8 file ``NAME.int8.onnx``."""
    return path.with_name(f"{path.stem}-cpu{path.suffix}")


def output_paths(output: Path, precisions: Sequence[Precision]) -> dict[Precision, Path]:
    """Return precision -> path: ``output`` for fp32 or a single one, else ``NAME.int8.onnx``."""
    return {
        precision: output
        if precision == "fp32" or len(precisions) == 1
        else output.with_name(f"{output.stem}.{precision}.onnx")
        for precision in precisions
    }


def export_checkpoint(
    checkpoint: Path,
    paths: Mapping[Precision, Path],
    *,
    size: tuple[int, int] | None = None,
    folders: Sequence[Path] = (),
    images: Path | None = None,
    iou_budget: float | None = None,
    bits: int | None = None,
    min_speedup: float = MIN_SPEEDUP,
    log: Log,
) -> Iterator[Path]:
    """Make the files of a checkpoint, compare all of them with it, time them, then write them.

    Beside an int8 file, one with unsigned activations is written for CPUs.

    Args:
        checkpoint: a ``.safetensors`` file with its sidecar.
        paths: precision -> file to write.
        size: height and width of the images, pixels; the checkpoint's own if None.
        folders: labelled data sets whose training images calibrate int8 and compare every file;
            synthetic images if empty.
        images: folder of images for the comparison; None takes ``folders``.
        iou_budget: iou_defective that int8 may lose; None reports the loss without a limit.
        bits: depth of 16-bit files, 8..16, which the files keep; the checkpoint's own if None.
        min_speedup: how many times as fast as fp32 a file must be to count as faster; 0 skips the
            timing.

    Yields:
        Path of each file as soon as it is written with its sidecar; all files are made and compared
        before the first one is written.

    Raises:
        ArtifactError: the file is not a checkpoint, or NVIDIA's parser would refuse a graph.
        DataError: the images are unusable.
        GateFailed: the scores of a file differ too much from the checkpoint's.
        RefusedError: the network does not take images of this size.
    """
    source = read_artifact(checkpoint)
    bits = source.sidecar.bit_depth(bits)
    network = network_of(source)
    with load(source, "torch", "cpu", size=size) as reference:
        contract = reference.contract
        source = dataclasses.replace(source, sidecar=dataclasses.replace(source.sidecar, bits=bits))
        float32 = _artifact(
            source, contract, checkpoint, "fp32", _Made(onnx_graph(network, contract))
        )
        pictures = comparison_images(contract, images, folders, bits)
        expected = reference.score_alone(np.stack(pictures.images)[:, None])
        compared = []
        for precision, path in paths.items():
            files: dict[Path, _Made]
            match precision:
                case "fp32":
                    files = {path: _Made(float32.data)}
                case "fp16":
                    reach = largest_activation(float32.data, pictures.images, path)
                    data = onnx_graph(network, contract, "fp16")
                    files = {path: _Made(data, {"largest_activation": reach})}
                case "int8":
                    int8 = make_int8(
                        dataclasses.replace(float32, path=path), folders, iou_budget, log, bits
                    )
                    files = _int8_files(path, int8)
                case _:
                    assert_never(precision)
            for place, made in files.items():
                artifact = _artifact(source, contract, place, precision, made)
                _compare(artifact, expected, pictures, log)
                if min_speedup and precision != "fp32":
                    speed = measure_speedup(artifact, float32, pictures.images[0], min_speedup, log)
                    sidecar = dataclasses.replace(artifact.sidecar, speed=speed)
                    artifact = dataclasses.replace(artifact, sidecar=sidecar)
                compared.append((artifact, made.reports))
        for artifact, _ in compared:
            _write(artifact, reference)
            yield artifact.path
    for _, reports in compared:
        for path, content in reports.items():
            write_atomic(path, content, durable=True)
            yield path


def _int8_files(path: Path, int8: Int8File) -> dict[Path, _Made]:
    """Return path -> graph of an int8 file and of its twin for CPUs."""
    kept = () if int8.mixed is None else int8.mixed.kept
    reports = sensitivity_reports(path, int8)
    files = {path: _Made(int8.data, {"quantization": int8.origin}, kept, reports)}
    twin = int8.unsigned
    if twin is not None:
        origin = {"quantization": twin.origin}
        files[unsigned_path(path)] = _Made(twin.data, origin, kept, unsigned=True)
    return files


def largest_activation(float32: bytes, images: Sequence[Image], path: Path) -> float:
    """Return the largest activation of a float32 graph on images.

    Args:
        images: uint8 [H, W] each.
        path: the fp16 file, for the message.

    Raises:
        GateFailed: half precision could overflow on other images.
    """
    counts = histograms(onnx.load_from_string(float32), images)
    reach = max(map(largest, counts.values()))
    if reach > MAX_ACTIVATION:
        raise GateFailed(
            path,
            f"activations reach {reach:.0f}, too near the 65504 of half precision",
            "nothing was written; export fp32 or int8",
        )
    return reach


def _compare(artifact: Artifact, expected: Batch, pictures: ComparisonImages, log: Log) -> None:
    """Check the graph and its scores, and record the figures in the sidecar."""
    if not artifact.sidecar.unsigned_activations:
        check_onnx(onnx.load_from_string(artifact.data), artifact.path)
    figures = compare_with_checkpoint(expected, artifact, pictures)
    artifact.sidecar.origin["parity_with_checkpoint"] = {"source": pictures.source, **figures}
    log(
        f"{artifact.path.name}: scores differ from the checkpoint's by up to "
        f"{figures['largest_steps']} of 255, masks overlap by "
        f"{figures['agreement']:.4f} of {figures['union_px']} pixels, "
        f"{figures['flips']} verdicts flipped on {figures['images']} {pictures.source}"
    )


def _write(artifact: Artifact, reference: Backend) -> None:
    """Write a file, its sidecar and its golden images.

    The golden scores of a float32 file come from the checkpoint; those of a file that rounds
    differently come from the file itself.
    """
    write_artifact(artifact.path, artifact.data, artifact.sidecar)
    if artifact.sidecar.precision == "fp32":
        write_golden(artifact.path, reference.score_alone)
    else:
        with ONNXRuntimeBackend(artifact) as backend:
            write_golden(artifact.path, backend.score_alone)


def _artifact(
    source: Artifact,
    contract: Contract,
    path: Path,
    precision: Precision,
    made: _Made,
) -> Artifact:
    """Describe a file that was made from a checkpoint."""
    packages = ["torch", "onnx", "onnxscript"]
    if precision_facts(precision).quantized:
        packages.append("onnxruntime")
    sidecar = Sidecar(
        kind="onnx",
        precision=precision,
        sha256=digest(made.data),
        parent=source.sidecar.sha256,
        parent_place=parent_place(source.path, path),
        contract=contract,
        threshold=source.sidecar.threshold,
        min_area=source.sidecar.min_area,
        network=source.sidecar.network,
        tuned_on=source.sidecar.tuned_on,
        trained_on=source.sidecar.trained_on,
        kept_in_float32=made.kept_in_float32,
        unsigned_activations=made.unsigned,
        teacher=source.sidecar.teacher,
        bits=source.sidecar.bits,
        origin=json_value(
            {
                "checkpoint": source.path.name,
                "opset": OPSET,
                **made.origin,
                "versions": {
                    "tinyunet_deploy": __version__,
                    **{name: importlib.metadata.version(name) for name in packages},
                },
            }
        ),
    )
    return Artifact(path, made.data, sidecar)
