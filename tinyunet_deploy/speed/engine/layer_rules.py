"""Rules on layers: copies, precision, kernels, and the limit of the machine."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Final

from tinyunet_deploy.speed.engine.finding import Finding, ms_text, percent_text
from tinyunet_deploy.speed.engine.report import EngineReport, LayerRow

__all__ = ["LAYER_RULES"]

COPY_SHARE: Final = 0.05
"""Share of the profiled time from which copies are a limit."""
HOT_SHARE: Final = 0.25
"""Share of the profiled time from which one layer of the network is named."""
SMALL_MS: Final = 0.01
"""Layers shorter than this are mostly the start of a kernel, milliseconds."""
SMALL_SHARE: Final = 0.3
"""Share of the profiled time from which small layers are a limit."""
NEAR_ROOF: Final = 0.6
"""Share of the least time in the profiled time from which the machine is the limit."""
MEMORY_SHARE: Final = 0.5
"""Share of the profiled time from which layers bound by memory are a limit."""
_MATRIX_UNIT: Final = ("xmma", "tensor", "mma", "cudnn", "h884", "i8816", "h16816")
"""Parts of the names of kernels that use tensor cores."""


def _copies(report: EngineReport) -> Finding | None:
    copies = [row for row in report.copies if not math.isnan(row.share)]
    if not report.copies:
        return Finding("copies", "fact", "No layer only copies or changes a format.")
    share = math.fsum(row.share for row in copies)
    text = (
        f"{len(report.copies)} of {len(report.layers)} layers only copy or change format or type; "
        f"they take {percent_text(share)} of the profiled time"
    )
    if copies:
        largest = max(copies, key=lambda row: row.share)
        text += f", most of it before or after {largest.network_layer} ({_change(largest)})"
    return Finding("copies", "limit" if share >= COPY_SHARE else "fact", f"{text}.")


def _change(row: LayerRow) -> str:
    if not (row.inputs and row.outputs):
        return "formats not reported"
    before, after = row.inputs[0], row.outputs[0]
    if before.type != after.type:
        return f"{before.type or '?'} to {after.type or '?'}"
    if before.format == after.format:
        return "type and format stay the same"
    return f"{before.format or '?'} to {after.format or '?'}"


def _precision(report: EngineReport) -> Finding | None:
    types = Counter(row.computed_type or "unknown" for row in report.convolutions)
    if not types:
        return None
    mix = ", ".join(f"{count} {name}" for name, count in types.most_common())
    wanted = {"fp32": "Float", "fp16": "Half", "int8": "Int8"}.get(report.precision or "")
    others = [
        row
        for row in report.convolutions
        if wanted is not None and row.computed_type not in (wanted, None)
    ]
    if not others:
        return Finding("precision", "fact", f"Convolutions compute in: {mix}.")
    share = math.fsum(row.share for row in others if not math.isnan(row.share))
    names = ", ".join(dict.fromkeys(row.network_layer for row in others[:4]))
    more = " ..." if len(others) > 4 else ""
    return Finding(
        "precision",
        "limit" if share >= HOT_SHARE else "fact",
        f"Convolutions compute in: {mix}. Not in {report.precision}: {names}{more}, with "
        f"{percent_text(share)} of the profiled time.",
    )


def _matrix_unit(report: EngineReport) -> Finding | None:
    half = [row for row in report.convolutions if row.computed_type in ("Half", "Int8")]
    without = [
        row
        for row in half
        if row.tactic and not any(part in row.tactic.lower() for part in _MATRIX_UNIT)
    ]
    if not without:
        return None
    share = math.fsum(row.share for row in without if not math.isnan(row.share))
    names = ", ".join(dict.fromkeys(row.network_layer for row in without[:4]))
    return Finding(
        "matrix-unit",
        "limit" if share >= HOT_SHARE else "fact",
        f"The kernels of {len(without)} Half or Int8 convolutions ({names}) do not name a tensor "
        f"core; they take {percent_text(share)} of the profiled time.",
    )


def _small(report: EngineReport) -> Finding | None:
    small = [row for row in report.layers if row.median_ms < SMALL_MS]
    share = math.fsum(row.share for row in small if not math.isnan(row.share))
    if share < SMALL_SHARE:
        return None
    return Finding(
        "small",
        "limit",
        f"{len(small)} of {len(report.layers)} layers take less than {SMALL_MS * 1e3:g} us each "
        f"and together {percent_text(share)} of the profiled time: the start of kernels "
        "counts. A larger batch fills them.",
    )


def _roof(report: EngineReport) -> Finding | None:
    rows = [row for row in report.layers if row.bound_ms and not math.isnan(row.median_ms)]
    if not rows:
        return None
    bound = math.fsum(row.bound_ms or 0.0 for row in rows)
    total = math.fsum(row.median_ms for row in rows)
    by_memory = math.fsum(row.share for row in rows if row.bound_by == "memory")
    text = (
        f"By the measured peaks of this GPU the layers could take {ms_text(bound)}; they take "
        f"{ms_text(total)}. Layers whose limit is memory, not computing, have "
        f"{percent_text(by_memory)} of the profiled time."
    )
    if total and bound / total >= NEAR_ROOF:
        return Finding("roof", "limit", f"The GPU itself is the limit. {text}")
    if by_memory >= MEMORY_SHARE:
        return Finding("roof", "limit", f"Memory traffic is the limit. {text}")
    return Finding("roof", "fact", text)


def _hot(report: EngineReport) -> Finding | None:
    layers = [layer for layer in report.network_layers() if layer.share > 0]
    if len(layers) < 2:
        return None
    largest = max(layers, key=lambda layer: layer.share)
    if largest.share < HOT_SHARE:
        return Finding(
            "hot",
            "fact",
            f"No layer stands out: the longest, {largest.name}, takes "
            f"{percent_text(largest.share)} of the profiled time.",
        )
    return Finding(
        "hot",
        "limit",
        f"One layer of the network, {largest.name}, takes {percent_text(largest.share)} of the "
        "profiled time.",
    )


def _names_only(report: EngineReport) -> Finding | None:
    if report.detailed:
        return None
    return Finding(
        "names-only",
        "warning",
        "The engine was built without detailed verbosity, so formats, types and kernels are not "
        "known. trtexec --profilingVerbosity=detailed, or tinyunet build, keeps them.",
    )


LAYER_RULES: Final[dict[str, Callable[[EngineReport], Finding | None]]] = {
    "copies": _copies,
    "precision": _precision,
    "matrix-unit": _matrix_unit,
    "small": _small,
    "roof": _roof,
    "hot": _hot,
    "names-only": _names_only,
}
"""Name -> rule: a function that returns a finding, or None if it has nothing to say."""
