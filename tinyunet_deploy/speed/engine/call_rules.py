"""Rules on whole calls: launches, copies, steadiness, clocks, memory and energy.

The limits of launches, transfers and steadiness are those of trtexec.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from typing import Final

from tinyunet_deploy.speed.engine.finding import Finding, mib_text, ms_text
from tinyunet_deploy.speed.engine.report import CallTimes, EngineReport

__all__ = ["CALL_RULES"]

LAUNCH_SHARE: Final = 0.8
"""Enqueue time over computing time above which the CPU holds the GPU back."""
UNSTEADY: Final = 0.025
"""Coefficient of variation above which computing times are unsteady."""
DISTORTION: Final = 0.15
"""Difference of profiled and timed run above which only shares count."""
_HARMLESS: Final = frozenset({"GpuIdle", "ApplicationsClocksSetting", "None"})
"""Reasons of a clock below the highest that are no fault."""


def _median(calls: CallTimes) -> tuple[float, float, float, float]:
    series = (calls.enqueue, calls.copy_in, calls.compute, calls.copy_out)
    medians = [statistics.median(part.samples_ms) for part in series]
    return medians[0], medians[1], medians[2], medians[3]


def _main_calls(report: EngineReport) -> CallTimes | None:
    """Return the calls with a graph, as they are what runs; else any."""
    return report.call_times(True) or (report.calls[0] if report.calls else None)


def _not_hardware(report: EngineReport) -> Finding | None:
    if report.origin != "example":
        return None
    text = "These figures are made up to show the page: not yet run on hardware."
    return Finding("example", "warning", text)


def _throttled(report: EngineReport) -> Finding | None:
    reasons = sorted(
        {
            reason
            for clocks in (report.clocks_before, report.clocks_after)
            if clocks is not None
            for reason in clocks.gpu_throttle_reasons or ()
        }
        - _HARMLESS
    )
    if not reasons:
        return None
    text = f"The GPU lowered its clocks ({', '.join(reasons)}), so these times are too long."
    return Finding("throttled", "limit", text)


def _transfer_bound(report: EngineReport) -> Finding | None:
    calls = _main_calls(report)
    if calls is None:
        return None
    _, copy_in, compute, copy_out = _median(calls)
    name, longest = ("in", copy_in) if copy_in >= copy_out else ("out", copy_out)
    if longest < compute:
        return None
    return Finding(
        "transfer-bound",
        "limit",
        f"Copies bound it: copying {name} takes {ms_text(longest)}, computing {ms_text(compute)}.",
    )


def _launch_bound(report: EngineReport) -> Finding | None:
    calls = report.call_times(False) or report.call_times(True)
    if calls is None and report.calls and report.calls[0].graph is None:
        calls = report.calls[0]
    if calls is None:
        return None
    enqueue, _, compute, _ = _median(calls)
    share = enqueue / compute if compute else math.inf
    where = {True: " with a CUDA graph", False: " without a CUDA graph", None: ""}[calls.graph]
    if share <= LAUNCH_SHARE:
        return Finding(
            "launch",
            "fact",
            f"It is not bound by launches{where}: the CPU takes {ms_text(enqueue)} to hand over "
            f"work that takes the GPU {ms_text(compute)}.",
        )
    advice = " A CUDA graph or a larger batch hands over more work at once."
    return Finding(
        "launch",
        "limit" if calls.graph is not False or report.call_times(True) is None else "fact",
        f"Launches bound it{where}: the CPU takes {ms_text(enqueue)} to hand over work that takes "
        f"the GPU {ms_text(compute)}.{'' if calls.graph else advice}",
    )


def _graph_gain(report: EngineReport) -> Finding | None:
    with_graph, without = report.call_times(True), report.call_times(False)
    if with_graph is None or without is None:
        return None
    fast, slow = (sum(_median(calls)[1:]) for calls in (with_graph, without))
    change = 100 * (1 - fast / slow) if slow else 0.0
    words = "shorter" if change >= 0 else "longer"
    return Finding(
        "graph",
        "fact",
        f"With a CUDA graph a batch takes {ms_text(fast)}, without {ms_text(slow)}: "
        f"{abs(change):.0f} % {words} with it.",
    )


def _no_transfers(report: EngineReport) -> Finding | None:
    if not report.calls or any(
        any(part.samples_ms) for calls in report.calls for part in (calls.copy_in, calls.copy_out)
    ):
        return None
    return Finding(
        "no-transfers",
        "warning",
        "No call copied images or scores, so these times are of computing alone. Since TensorRT "
        "11 trtexec copies only with --includeDataTransfers.",
    )


def _unsteady(report: EngineReport) -> Finding | None:
    calls = _main_calls(report)
    samples = calls.compute.samples_ms if calls else ()
    if len(samples) < 2 or not (mean := statistics.fmean(samples)):
        return None
    variation = statistics.stdev(samples) / mean
    if variation <= UNSTEADY:
        return None
    return Finding(
        "unsteady",
        "warning",
        f"Computing times vary by {100 * variation:.1f} % (standard deviation over mean), more "
        f"than {100 * UNSTEADY:.1f} %: other work on the GPU, or changing clocks.",
    )


def _distortion(report: EngineReport) -> Finding | None:
    calls = report.call_times(False) or _main_calls(report)
    if calls is None or not report.profiled_ms:
        return None
    compute = _median(calls)[2]
    change = report.profiled_ms / compute - 1 if compute else 0.0
    if abs(change) <= DISTORTION:
        return None
    return Finding(
        "distortion",
        "warning",
        f"The layers sum to {ms_text(report.profiled_ms)}, but a batch computes in "
        f"{ms_text(compute)}: read the shares of the layers, not their times.",
    )


def _memory(report: EngineReport) -> Finding | None:
    memory = report.memory
    if memory is None:
        return None
    weights = "not reported" if memory.weights is None else mib_text(memory.weights)
    return Finding(
        "memory",
        "fact",
        f"GPU memory: {mib_text(memory.taken)} taken since loading; activations "
        f"{mib_text(memory.activations)}, weights {weights}, images and scores "
        f"{mib_text(memory.buffers)}. The file has {mib_text(memory.plan)}.",
    )


def _energy(report: EngineReport) -> Finding | None:
    if report.energy_j_per_image is None:
        return None
    text = f"One image takes {report.energy_j_per_image * 1e3:.3g} mJ of the GPU's energy."
    return Finding("energy", "fact", text)


CALL_RULES: Final[dict[str, Callable[[EngineReport], Finding | None]]] = {
    "example": _not_hardware,
    "throttled": _throttled,
    "transfer-bound": _transfer_bound,
    "launch": _launch_bound,
    "graph": _graph_gain,
    "no-transfers": _no_transfers,
    "unsteady": _unsteady,
    "distortion": _distortion,
    "memory": _memory,
    "energy": _energy,
}
"""Name -> rule: a function that returns a finding, or None if it has nothing to say."""
