"""Make the int8 file of a network: calibrate, choose, quantise, and test the result."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import onnx

from export.budget import MixedPrecision, chart, choose, meets, rank_calibrations
from export.calibrate import METHODS, Histogram, histograms, ranges
from export.calibration_images import Labelled, read_image_sets
from export.equalize import ALPHAS, channel_peaks, equalize, in_steps
from export.likeness import Likeness, runtimes, score_with_float32
from export.quantize import RECIPE, UNSIGNED, quantize, weight_counts
from tinyunet_deploy.artifacts.sidecar import Artifact, Sidecar, digest
from tinyunet_deploy.errors import GateFailed
from tinyunet_deploy.files import json_value

__all__ = ["Calibration", "Int8File", "make_int8", "sensitivity_reports"]

SCHEMA_VERSION: Final = 1
"""Version of the fields of the sensitivity table."""
MAX_BYTES: Final = 2_200_000
"""Largest size that an int8 file should have: a little over one byte per weight of ``tiny``."""


@dataclass(frozen=True, order=True)
class Calibration:
    """One way to calibrate an int8 file."""

    alpha: float
    """Strength of the equalisation; 0 for none."""
    method: str
    """A key of :data:`export.calibrate.METHODS`."""

    def __str__(self) -> str:
        return f"{self.method}, alpha {self.alpha}"


@dataclass(frozen=True)
class Int8File:
    """An int8 file and its origin."""

    data: bytes
    origin: dict[str, Any]
    """Details of the quantisation, for the sidecar."""
    mixed: MixedPrecision | None
    """Choice of the convolutions in float32; None without an IoU budget."""
    unsigned: Int8File | None = None
    """The same numbers with unsigned activations, for CPUs; None if that file breaks a limit."""


def make_int8(
    float32: Artifact,
    folders: Sequence[Path],
    iou_budget: float | None,
    log: Callable[[str], None],
    bits: int | None = None,
) -> Int8File:
    """Quantise a float32 file with the calibration that measures best.

    Every calibration is measured on one runtime and the best ones on all. With a budget, as few
    convolutions as possible stay in float32. The choice is made on the selection images and tested
    on the gate images.

    Args:
        float32: the float32 file, with the path of the int8 file for messages.
        folders: labelled data sets whose training images calibrate; synthetic images if empty.
        iou_budget: iou_defective that int8 may lose; None sets no limit.
        log: function that takes one line of text about each finding.
        bits: depth of 16-bit files, 8..16; None leaves it to the files.

    Raises:
        DataError: the images are unusable or too few.
        GateFailed: the choice meets the budget on the selection images, but not on the gate images.
    """
    sets = read_image_sets(folders, float32.sidecar.contract, bits)
    model = onnx.load_from_string(float32.data)
    equalized = _equalize(model, sets.calibration)
    selection = score_with_float32(float32, sets.selection)
    installed = runtimes()

    def file(
        calibration: Calibration, kept: Sequence[str] = (), *, unsigned: bool = False
    ) -> bytes:
        network = equalized[calibration.alpha]
        reaches = ranges(network.histograms, calibration.method)
        return quantize(in_steps(network.model, reaches), kept, unsigned=unsigned)

    def measure(calibration: Calibration, kept: Sequence[str] = ()) -> Likeness:
        return selection.measure(_candidate(float32, file(calibration, kept)), installed)

    calibrations = [Calibration(alpha, method) for alpha in ALPHAS for method in METHODS]
    quick = {
        c: selection.measure(_candidate(float32, file(c)), installed[:1]) for c in calibrations
    }
    full = rank_calibrations(quick, measure)
    chosen, plain = next(iter(full.items()))
    log(
        f"int8: {chosen}, of {len(calibrations)} calibrations, on "
        f"{len(sets.selection)} {sets.source}: {plain}"
    )
    mixed, gate = None, None
    judged = selection
    data = file(chosen)
    if iou_budget is not None:
        weights = weight_counts(model)
        mixed = choose(weights, lambda kept: measure(chosen, kept), plain, iou_budget)
        log(f"int8: {_summary(mixed)}")
        data = file(chosen, mixed.kept)
        judged = score_with_float32(float32, sets.gate)
        gate = judged.measure(_candidate(float32, data), installed)
        if not meets(gate, iou_budget):
            raise GateFailed(
                float32.path,
                f"int8 met the IoU budget of {iou_budget} on the selection images but not on the "
                f"{gate.images} gate images: {gate}",
                "nothing was written; give more --data, or a larger --iou-budget",
            )
    if len(data) > MAX_BYTES:
        log(f"int8: {len(data)} bytes exceed the target of {MAX_BYTES}")
    origin: dict[str, Any] = {
        "recipe": RECIPE,
        "equalization_alpha": chosen.alpha,
        "method": chosen.method,
        "data": sets.as_dict(),
        "evaluated_with": {
            name: version
            for runtime in installed
            for name, version in runtime(float32).versions.items()
        },
        "candidates": {str(candidate): row.as_dict() for candidate, row in (quick | full).items()},
        "kept_in_float32": [] if mixed is None else list(mixed.kept),
    }
    if mixed is not None and gate is not None:
        origin["iou_budget"] = mixed.iou_budget
        origin["chosen"] = mixed.chosen.as_dict()
        origin["gate"] = gate.as_dict()
    kept = () if mixed is None else mixed.kept
    other = file(chosen, kept, unsigned=True)
    figures = judged.measure(_candidate(float32, other), installed)
    if iou_budget is not None and not meets(figures, iou_budget):
        log(f"int8 for CPUs is left out, it breaks the IoU budget of {iou_budget}: {figures}")
        return Int8File(data, origin, mixed)
    unsigned_origin = {**origin, "recipe": UNSIGNED, "gate": figures.as_dict()}
    return Int8File(data, origin, mixed, Int8File(other, unsigned_origin, mixed))


def sensitivity_reports(path: Path, int8: Int8File) -> Mapping[Path, bytes]:
    """Return path -> content of the sensitivity table and its chart, if convolutions were
    measured."""
    if int8.mixed is None or not int8.mixed.alone:
        return {}
    table = {
        "schema_version": SCHEMA_VERSION,
        "sha256": digest(int8.data),
        **int8.mixed.as_dict(),
    }
    text = json.dumps(json_value(table), indent=2, allow_nan=False) + "\n"
    return {
        path.with_suffix(".sensitivity.json"): text.encode(),
        path.with_suffix(".sensitivity.svg"): chart(int8.mixed),
    }


@dataclass(frozen=True)
class _Equalized:
    model: onnx.ModelProto
    histograms: dict[str, Histogram]


def _equalize(model: onnx.ModelProto, images: Sequence[Labelled]) -> dict[float, _Equalized]:
    """Equalise the network with each alpha and measure its activations on the images."""
    pixels = [labelled.image for labelled in images]
    peaks = channel_peaks(model, pixels)
    models = {alpha: equalize(model, peaks, alpha) for alpha in ALPHAS}
    return {
        alpha: _Equalized(network, histograms(network, pixels)) for alpha, network in models.items()
    }


def _candidate(float32: Artifact, data: bytes) -> Artifact:
    """Return an int8 file for measurements only, with the operating point of the float32 file."""
    sidecar = float32.sidecar
    return Artifact(
        float32.path,
        data,
        Sidecar(
            kind="onnx",
            precision="int8",
            sha256=digest(data),
            parent=sidecar.parent,
            contract=sidecar.contract,
            threshold=sidecar.threshold,
            min_area=sidecar.min_area,
        ),
    )


def _summary(mixed: MixedPrecision) -> str:
    if not mixed.alone:
        return f"meets the budget of {mixed.iou_budget} with every convolution in int8"
    return f"kept in float32: {', '.join(mixed.kept)}: {mixed.chosen}"
