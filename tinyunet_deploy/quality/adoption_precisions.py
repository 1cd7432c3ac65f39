"""fp16 and int8 files of an adopted network: written only if they keep the limits of parity.

A candidate is compared with the adopted float32 file as ``tinyunet parity`` does: on every backend
that takes it, with the limits of its precision, on images that did not calibrate it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import assert_never

from tinyunet_deploy.artifacts.golden import inherit_golden, write_golden
from tinyunet_deploy.artifacts.lineage import parent_place
from tinyunet_deploy.artifacts.onnx_guard import check_onnx_file
from tinyunet_deploy.artifacts.onnx_reader import read_graph
from tinyunet_deploy.artifacts.precision import Precision
from tinyunet_deploy.artifacts.sidecar import Artifact, digest, read_artifact, write_artifact
from tinyunet_deploy.backends.registry import open_backend
from tinyunet_deploy.data.bit_depth import BitDepth
from tinyunet_deploy.data.description_file import described_bits
from tinyunet_deploy.errors import ArtifactError, DataError, GateFailed, RefusedError
from tinyunet_deploy.files import json_value, scratch_folder
from tinyunet_deploy.quality.adoption_converters import (
    fewer_quantized,
    float16,
    int8,
    with_node_names,
)
from tinyunet_deploy.quality.adoption_images import (
    calibration_paths,
    calibration_tiles,
    require_apart,
    write_synthetic,
)
from tinyunet_deploy.quality.parity import Parity, run_parity
from tinyunet_deploy.quality.parity_inputs import find_images
from tinyunet_deploy.quality.parity_limits import Limit, Limits, read_limits
from tinyunet_deploy.quality.stored_scores import StoredScores

__all__ = ["ConvertedFile", "convert_adopted", "convert_precisions", "precision_path"]


@dataclass(frozen=True)
class ConvertedFile:
    """A file of another precision that keeps the limits."""

    path: Path
    precision: Precision
    kept_in_float32: tuple[str, ...]
    """Convolutions of an int8 file that compute in float32."""
    figures: dict[str, dict[str, float]]
    """Backend -> figures of the comparison with the float32 file."""

    def __str__(self) -> str:
        agreement = min(figures["agreement"] for figures in self.figures.values())
        flips = max(figures["flips"] for figures in self.figures.values())
        count = len(self.kept_in_float32)
        kept = f", {count} convolution{'s' * (count > 1)} in float32" if count else ""
        return (
            f"masks overlap with float32 by {agreement:.4f} or more, "
            f"at most {flips:g} verdicts flipped{kept}"
        )


@dataclass(frozen=True)
class _Candidate:
    """A converted file that is still to be compared."""

    data: bytes
    kept: tuple[str, ...] = ()


def precision_path(path: Path, precision: Precision) -> Path:
    """Return ``NAME.fp16.onnx`` for ``NAME.onnx``."""
    return path.with_suffix(f".{precision}.onnx")


def convert_precisions(
    adopted: Path,
    precisions: Sequence[Precision],
    *,
    calibrate: Path | None = None,
    images: Path | None = None,
    bits: int | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> tuple[list[ConvertedFile], list[GateFailed | RefusedError]]:
    """Write the files of several precisions, as :func:`convert_adopted` does.

    Args:
        precisions: ``fp32`` among them is passed over: it is ``adopted`` itself.

    Returns:
        The files that were written, and the errors of those that were not.
    """
    converted: list[ConvertedFile] = []
    refused: list[GateFailed | RefusedError] = []
    for precision in precisions:
        if precision == "fp32":
            continue
        try:
            file = convert_adopted(
                adopted, precision, calibrate=calibrate, images=images, bits=bits, report=report
            )
        except (GateFailed, RefusedError) as error:
            refused.append(error)
        else:
            converted.append(file)
    return converted, refused


def convert_adopted(
    adopted: Path,
    precision: Precision,
    *,
    calibrate: Path | None = None,
    images: Path | None = None,
    bits: int | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> ConvertedFile:
    """Write the fp16 or int8 file of an adopted network beside it, with sidecar and golden images.

    An int8 file that breaks a limit is tried again with fewer quantised convolutions.

    Args:
        adopted: the float32 file; it becomes the parent and the reference.
        calibrate: int8: a data set, whose training images are used, or a folder of images.
        images: data set, whose held-out images are used, or folder on which the files are compared;
            None takes ``calibrate``, or synthetic images if that is None, too.
        bits: depth of 16-bit files, 8..16; None takes the one that a ``dataset.toml`` states, else
            the one in the sidecar, else those of the files.

    Raises:
        ArtifactError: the file is not a float32 file, or cannot be converted.
        DataError: there is no usable image, or the same images would calibrate and test.
        GateFailed: no candidate keeps the limits; nothing is written.
    """
    source = read_artifact(adopted)
    sidecar = source.sidecar
    if sidecar.precision != "fp32" or sidecar.kind != "onnx":
        raise ArtifactError(adopted, f"is {sidecar.precision}, but must be fp32 to be converted")
    depth = BitDepth(described_bits([calibrate] if calibrate else [], bits, sidecar.bits))
    calibration = None if calibrate is None else calibration_paths(calibrate)
    if precision == "int8" and calibration is None:
        raise DataError(adopted, "needs images to calibrate int8", "--calibrate FOLDER")
    folder = images or calibrate
    if folder is not None and calibration is not None and precision == "int8":
        require_apart(calibration, folder)
    path = precision_path(adopted, precision)
    failed = None
    with scratch_folder() as scratch:
        if folder is None:
            folder = write_synthetic(scratch / "images", source.sidecar.contract)
        try:
            for candidate in _candidates(source, precision, calibration or [], depth):
                report(f"comparing {path.name} with float32")
                made = _described(source, path, precision, candidate)
                parity = _compared(source, replace(made, path=scratch / path.name), folder, bits)
                if _keeps_limits(parity):
                    return _written(source, made, parity, calibration or [])
                failed = parity
        except ValueError as error:
            raise ArtifactError(adopted, str(error)) from error
    assert failed is not None
    raise _refusal(path, failed)


def _candidates(
    source: Artifact, precision: Precision, calibration: Sequence[Path], depth: BitDepth
) -> Iterator[_Candidate]:
    model = with_node_names(source.data)
    match precision:
        case "fp16":
            data = float16(model)
            if read_graph(data).precision() == "fp32":
                raise ValueError("cannot be converted to fp16: its convolutions stay in float32")
            yield _Candidate(data)
        case "int8":
            tiles = calibration_tiles(source.sidecar.tiling, calibration, depth)
            for keep in fewer_quantized(model):
                yield _Candidate(*int8(model, tiles, keep))
        case "fp32":
            raise ValueError("is the fp32 file")
        case _:
            assert_never(precision)


def _described(
    source: Artifact, path: Path, precision: Precision, candidate: _Candidate
) -> Artifact:
    """Return a candidate with the sidecar of the float32 file, as its child."""
    check_onnx_file(candidate.data, path)
    sidecar = replace(
        source.sidecar,
        precision=precision,
        sha256=digest(candidate.data),
        parent=source.sidecar.sha256,
        parent_place=parent_place(source.path, path),
        golden=None,
        verified_batch=None,
        kept_in_float32=candidate.kept,
        origin={},
    )
    return Artifact(path, candidate.data, sidecar)


def _compared(source: Artifact, candidate: Artifact, folder: Path, bits: int | None) -> Parity:
    """Compare a candidate with the float32 file on every backend."""
    write_artifact(candidate.path, candidate.data, candidate.sidecar)
    with StoredScores() as scores:
        return run_parity(
            [candidate.path],
            folder,
            scores,
            limits=_limits(folder),
            reference=source.path,
            bits=bits,
        )


def _limits(folder: Path) -> Limits:
    """Return the limits of parity; without truth, int8 may flip no verdict at all.

    The package's limits of int8 count flips on defective and on good parts, which only truth tells
    apart.
    """
    limits = read_limits()
    if any(image.item is not None for image in find_images(folder)):
        return limits
    reason = "without truth, a flipped verdict may be a missed defect"
    return Limits((*limits.limits, Limit("int8", "flips", 0.0, reason)))


def _keeps_limits(parity: Parity) -> bool:
    """Return whether a file was compared on some backend and breaks no limit on any."""
    outcomes = {artifact.outcome for artifact in parity.artifacts}
    return "green" in outcomes and not outcomes & {"red", "no limits"}


def _written(
    source: Artifact, made: Artifact, parity: Parity, calibration: Sequence[Path]
) -> ConvertedFile:
    """Write a file that keeps the limits, with its figures and golden images."""
    figures = {
        artifact.backend: artifact.figures
        for artifact in parity.artifacts
        if artifact.outcome == "green"
    }
    origin = {"compared_images": len(parity.images), "figures": figures}
    precision = made.sidecar.precision
    assert precision != "unknown"
    if precision == "int8":
        origin["calibration"] = {"images": len(calibration), "sha256": _digest_of(calibration)}
    sidecar = replace(made.sidecar, origin=json_value(origin))
    write_artifact(made.path, made.data, sidecar)
    if precision == "int8":
        with open_backend(made.path) as backend:
            write_golden(made.path, backend.score_alone)
    else:
        inherit_golden(made.path, source.path)
    return ConvertedFile(made.path, precision, sidecar.kept_in_float32, figures)


def _refusal(path: Path, parity: Parity) -> GateFailed | ArtifactError:
    """Return the error of a file that breaks a limit, or that no backend runs."""
    if not parity.broken:
        # they ran in a scratch folder, which is gone
        reasons = "; ".join(
            (artifact.skipped or "").replace(str(artifact.model), path.name)
            for artifact in parity.artifacts
        )
        return ArtifactError(path, f"is not written: no backend runs it ({reasons})")
    broken = [
        f"{check.limit.figure} on {artifact.backend} is {check.value:.6g}, but must be "
        f"{check.limit}"
        for artifact, check in parity.broken
    ]
    return GateFailed(
        path, f"is not written, as it would differ too much from float32: {'; '.join(broken)}"
    )


def _digest_of(paths: Sequence[Path]) -> str:
    """Return one sha256 of the bytes of several files, in order."""
    whole = hashlib.sha256()
    for path in paths:
        whole.update(path.read_bytes())
    return whole.hexdigest()
