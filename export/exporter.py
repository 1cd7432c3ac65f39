"""The files of one checkpoint, each with the sidecar that says how it was made and answers."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, assert_never

import onnx

from export.budget import MAX_BYTES, Choice, best_of, chart, choose, meets
from export.calibrate import METHODS, histograms, largest, ranges
from export.calibration_images import Labelled, read_lots
from export.equalize import ALPHAS, channel_peaks, equalize, in_steps
from export.graph import OPSET, onnx_graph
from export.likeness import (
    MAX_ACTIVATION,
    Likeness,
    checkpoint_scores,
    compare,
    comparison_images,
    likeness,
    runtimes,
    scores,
    worst,
)
from export.quantize import RECIPE, quantize, weight_counts
from tinyunet_deploy import __version__
from tinyunet_deploy.artifacts.checkpoint import network_of
from tinyunet_deploy.artifacts.precision import Precision, precision_facts
from tinyunet_deploy.artifacts.sidecar import Artifact, Sidecar, digest
from tinyunet_deploy.artifacts.tensorrt_preflight import check_onnx
from tinyunet_deploy.backends.base import Backend
from tinyunet_deploy.contract import Batch, Contract, Image
from tinyunet_deploy.errors import GateFailed
from tinyunet_deploy.files import json_value

SCHEMA_VERSION: Final = 1
"""Of the sensitivity table."""


@dataclass
class Exported:
    """All that is to be written."""

    artifacts: list[Artifact] = field(default_factory=list)
    reports: dict[Path, bytes] = field(default_factory=dict)
    """The sensitivity table and its chart."""


def output_paths(output: Path, precisions: Sequence[Precision]) -> dict[Precision, Path]:
    """Where each precision goes: a single one, or fp32 of several, to ``output`` itself."""
    return {
        precision: output
        if precision == "fp32" or len(precisions) == 1
        else output.with_name(f"{output.stem}.{precision}.onnx")
        for precision in precisions
    }


def export_files(
    checkpoint: Artifact,
    contract: Contract,
    paths: Mapping[Precision, Path],
    *,
    folders: Sequence[Path] = (),
    images: Path | None = None,
    iou_budget: float | None = None,
    log: Callable[[str], None],
) -> Exported:
    """Make the files of a checkpoint, compared with it, and write none.

    Args:
        paths: precision -> file that it will be.
        folders: data sets whose training images calibrate int8; synthetic images when empty.
        images: folder of images to compare on; synthetic ones when None.
        iou_budget: iou_defective that int8 may lose; None reports the loss without a limit.
        log: takes one line on what was found.

    Raises:
        ArtifactError: no checkpoint, or a graph that NVIDIA's parser would refuse.
        DataError: unusable data.
        GateFailed: a file does not answer as the checkpoint does.
    """
    network = network_of(checkpoint)
    pictures = comparison_images(contract, images)
    wanted = checkpoint_scores(checkpoint, pictures)
    float32 = onnx_graph(network, contract)
    exported = Exported()

    def add(precision: Precision, data: bytes, origin: Mapping[str, Any]) -> None:
        artifact = _artifact(checkpoint, contract, paths[precision], precision, data, origin)
        check_onnx(onnx.load_from_string(data), artifact.path)
        figures = compare(wanted, artifact, pictures)
        artifact.sidecar.origin["parity_with_checkpoint"] = figures
        exported.artifacts.append(artifact)
        log(
            f"{artifact.path.name}: scores differ from the checkpoint's by up to "
            f"{figures['largest_steps']} of 255, masks overlap by "
            f"{figures['agreement']:.4f}, {figures['flips']} verdicts flipped "
            f"on {figures['images']} images"
        )

    for precision, path in paths.items():
        match precision:
            case "fp32":
                add(precision, float32, {})
            case "fp16":
                reach = _largest_activation(float32, pictures, path)
                add(precision, onnx_graph(network, contract, "fp16"), {"largest_activation": reach})
            case "int8":
                reference = _artifact(checkpoint, contract, path, "fp32", float32, {})
                int8 = Calibrated(reference, folders, log)
                choice = int8.choose(iou_budget)
                kept = () if choice is None else choice.kept
                data = int8.file(int8.calibration, kept)
                if len(data) > MAX_BYTES:
                    log(f"int8: {len(data)} bytes are more than the {MAX_BYTES} wanted")
                add(precision, data, {"quantization": int8.origin(choice)})
                if choice is not None and choice.alone:
                    table = {
                        "schema_version": SCHEMA_VERSION,
                        "sha256": digest(data),
                        **choice.as_dict(),
                    }
                    text = json.dumps(json_value(table), indent=2, allow_nan=False) + "\n"
                    exported.reports[path.with_suffix(".sensitivity.json")] = text.encode()
                    exported.reports[path.with_suffix(".sensitivity.svg")] = chart(choice)
            case _:
                assert_never(precision)
    return exported


@dataclass(frozen=True, order=True)
class Calibration:
    """One way to the scales of an int8 file."""

    alpha: float
    """Of the equalisation; 0 for none."""
    method: str
    """A key of :data:`export.calibrate.METHODS`."""

    def __str__(self) -> str:
        return f"{self.method}, alpha {self.alpha}"


class Calibrated:
    """An int8 file in the making: equalised and calibrated in the way that measures best.

    Args:
        reference: the float32 file.
    """

    def __init__(
        self, reference: Artifact, folders: Sequence[Path], log: Callable[[str], None]
    ) -> None:
        self._reference = reference
        self._log = log
        self._lots = read_lots(folders, reference.sidecar.contract)
        model = onnx.load_from_string(reference.data)
        self._weights = weight_counts(model)
        images = [one.image for one in self._lots.calibration]
        peaks = channel_peaks(model, images)
        self._models = {alpha: equalize(model, peaks, alpha) for alpha in ALPHAS}
        self._counts = {
            alpha: histograms(equalized, images) for alpha, equalized in self._models.items()
        }
        self._wanted: dict[str, Batch] = {}
        self._gate: Likeness | None = None
        quick = {
            calibration: self.measure(calibration, "selection", on=runtimes()[:1])
            for calibration in (Calibration(a, method) for a in ALPHAS for method in METHODS)
        }
        full = best_of(quick, lambda calibration: self.measure(calibration, "selection"))
        self.candidates = quick | full
        self.calibration, self.plain = next(iter(full.items()))
        log(
            f"int8: {self.calibration}, of {len(self.candidates)} calibrations, on "
            f"{len(self._lots.selection)} {self._lots.source}: {_line(self.plain)}"
        )

    def file(self, calibration: Calibration, kept: Sequence[str] | frozenset[str] = ()) -> bytes:
        """The int8 file by a calibration and with convolutions kept in float32."""
        alpha = calibration.alpha
        reaches = ranges(self._counts[alpha], calibration.method)
        return quantize(in_steps(self._models[alpha], reaches), kept)

    def measure(
        self,
        calibration: Calibration,
        lot: str,
        kept: Sequence[str] | frozenset[str] = (),
        on: Sequence[type[Backend]] | None = None,
    ) -> Likeness:
        """Figures of such a file beside the float32 file on the selection or the gate images.

        Args:
            on: runtimes, of which the worst counts; all that are here if None.
        """
        images: tuple[Labelled, ...] = getattr(self._lots, lot)
        pixels = [one.image for one in images]
        if lot not in self._wanted:
            self._wanted[lot] = scores(runtimes()[0](self._reference), pixels)
        data = self.file(calibration, kept)
        candidate = _candidate(self._reference.path, data, self._reference.sidecar)
        truths = [(one.truth, one.defective) for one in images]
        return worst(
            [
                likeness(self._wanted[lot], scores(runtime(candidate), pixels), candidate, truths)
                for runtime in on or runtimes()
            ]
        )

    def choose(self, iou_budget: float | None) -> Choice | None:
        """Meet the budget on the selection images, and pass the gate on others.

        Raises:
            GateFailed: what met the budget on the selection images breaks it on the gate's.
        """
        if iou_budget is None:
            return None
        choice = choose(
            self._weights,
            lambda kept: self.measure(self.calibration, "selection", kept),
            self.plain,
            iou_budget,
        )
        if not choice.alone:
            self._log(f"int8: meets the budget of {iou_budget} with every convolution in int8")
        else:
            kept = ", ".join(choice.kept)
            self._log(f"int8: kept in float32: {kept}: {_line(choice.chosen)}")
        self._gate = self.measure(self.calibration, "gate", choice.kept)
        if not meets(self._gate, iou_budget):
            raise GateFailed(
                self._reference.path,
                f"int8 met the IoU budget of {iou_budget} on the selection images but not on the "
                f"{self._gate.images} gate images: {_line(self._gate)}",
                "nothing was written; give more --data, or a larger --iou-budget",
            )
        return choice

    def origin(self, choice: Choice | None) -> dict[str, Any]:
        """How it was made, for the sidecar."""
        fields: dict[str, Any] = {
            "recipe": RECIPE,
            "equalization_alpha": self.calibration.alpha,
            "method": self.calibration.method,
            "data": self._lots.as_dict(),
            "evaluated_with": {
                name: version
                for runtime in runtimes()
                for name, version in runtime(self._reference).versions.items()
            },
            "candidates": {
                str(calibration): row.as_dict() for calibration, row in self.candidates.items()
            },
            "kept_in_float32": [] if choice is None else list(choice.kept),
        }
        if choice is not None and self._gate is not None:
            fields["iou_budget"] = choice.iou_budget
            fields["chosen"] = choice.chosen.as_dict()
            fields["gate"] = self._gate.as_dict()
        return fields


def _artifact(
    checkpoint: Artifact,
    contract: Contract,
    path: Path,
    precision: Precision,
    data: bytes,
    origin: Mapping[str, Any],
) -> Artifact:
    packages = ["torch", "onnx", "onnxscript"] + ["onnxruntime"] * precision_facts(
        precision
    ).quantized
    sidecar = Sidecar(
        kind="onnx",
        precision=precision,
        sha256=digest(data),
        parent=checkpoint.sidecar.sha256,
        contract=contract,
        threshold=checkpoint.sidecar.threshold,
        min_area=checkpoint.sidecar.min_area,
        origin=json_value(
            {
                "checkpoint": checkpoint.path.name,
                "opset": OPSET,
                **checkpoint.sidecar.inherited,
                **origin,
                "versions": {
                    "tinyunet_deploy": __version__,
                    **{name: importlib.metadata.version(name) for name in packages},
                },
            }
        ),
    )
    return Artifact(path, data, sidecar)


def _candidate(path: Path, data: bytes, like: Sidecar) -> Artifact:
    sidecar = Sidecar(
        kind="onnx",
        precision="int8",
        sha256=digest(data),
        parent=like.parent,
        contract=like.contract,
        threshold=like.threshold,
        min_area=like.min_area,
    )
    return Artifact(path, data, sidecar)


def _largest_activation(float32: bytes, images: Sequence[Image], path: Path) -> float:
    counts = histograms(onnx.load_from_string(float32), images)
    reach = max(map(largest, counts.values()))
    if reach > MAX_ACTIVATION:
        raise GateFailed(
            path,
            f"activations reach {reach:.0f}, too near the 65504 of half precision",
            "nothing was written; export fp32 or int8",
        )
    return reach


def _line(likeness: Likeness) -> str:
    return (
        f"iou_defective {likeness.iou_defective_reference:.4f} -> {likeness.iou_defective:.4f}, "
        f"masks overlap by {likeness.figures['agreement']:.4f}, "
        f"{likeness.figures['flips']} of {likeness.images} verdicts flipped"
    )
