"""Each sentence of a report follows from its numbers: one case that gives it, one that does not."""

import dataclasses
import math
from typing import Any

import pytest

from benchmarks.example_engine import example_report
from tinyunet_deploy.speed.benchmark_result import ClockRates
from tinyunet_deploy.speed.engine.finding import Finding, ms_text
from tinyunet_deploy.speed.engine.findings import findings, headline
from tinyunet_deploy.speed.engine.report import CallTimes, EngineReport, LayerRow
from tinyunet_deploy.speed.time_samples import TimeSamples

REPORT = example_report("fp16").report


def finding(report: EngineReport, rule: str) -> Finding | None:
    return next((part for part in findings(report) if part.rule == rule), None)


def said(report: EngineReport, rule: str, kind: str) -> str:
    """Return the sentence of a rule, which must be of this kind."""
    part = finding(report, rule)
    assert part is not None and part.kind == kind, part
    return part.text


def calls(
    graph: bool | None, enqueue: float, copy_in: float, compute: float, copy_out: float
) -> CallTimes:
    times = (TimeSamples((value,) * 3) for value in (enqueue, copy_in, compute, copy_out))
    return CallTimes(graph, *times)


def changed(**fields: Any) -> EngineReport:
    return dataclasses.replace(REPORT, **fields)


def rows(*edits: dict[str, Any]) -> EngineReport:
    """Return a report of the first layers with other fields."""
    layers = [dataclasses.replace(REPORT.layers[at], **edit) for at, edit in enumerate(edits)]
    return changed(layers=tuple(layers), calls=())


def test_launches_bound_an_engine_whose_cpu_is_slower_than_its_gpu() -> None:
    slow = calls(False, 0.9, 0.1, 1.0, 0.1)
    text = said(changed(calls=(slow,)), "launch", "limit")
    assert text.startswith("Launches bound it without a CUDA graph: the CPU takes 0.9 ms")
    assert "A CUDA graph or a larger batch" in text
    fast = calls(False, 0.79, 0.1, 1.0, 0.1)
    assert said(changed(calls=(fast,)), "launch", "fact").startswith("It is not bound by launches")
    with_graph = calls(True, 0.05, 0.1, 1.0, 0.1)  # a graph cures it
    assert said(changed(calls=(slow, with_graph)), "launch", "fact").startswith("Launches bound")
    only_graph = calls(True, 0.9, 0.1, 1.0, 0.1)
    assert "with a CUDA graph" in said(changed(calls=(only_graph,)), "launch", "limit")
    unknown = calls(None, 0.9, 0.1, 1.0, 0.1)
    assert said(changed(calls=(unknown,)), "launch", "limit").startswith("Launches bound it: ")


def test_copies_bound_an_engine_whose_transfers_take_longer() -> None:
    text = said(changed(calls=(calls(True, 0.1, 0.5, 1.0, 1.0),)), "transfer-bound", "limit")
    assert text == "Copies bound it: copying out takes 1 ms, computing 1 ms."
    text = said(changed(calls=(calls(True, 0.1, 2.0, 1.0, 1.0),)), "transfer-bound", "limit")
    assert text.startswith("Copies bound it: copying in takes 2 ms")
    assert finding(changed(calls=(calls(True, 0.1, 0.99, 1.0, 0.1),)), "transfer-bound") is None


def test_what_a_graph_saves() -> None:
    pair = (calls(False, 0.1, 0.0, 2.0, 0.0), calls(True, 0.1, 0.0, 1.5, 0.0))
    text = said(changed(calls=pair), "graph", "fact")
    assert text == "With a CUDA graph a batch takes 1.5 ms, without 2 ms: 25 % shorter with it."
    assert finding(changed(calls=pair[:1]), "graph") is None
    worse = (calls(False, 0.1, 0.0, 1.0, 0.0), calls(True, 0.1, 0.0, 1.1, 0.0))
    assert said(changed(calls=worse), "graph", "fact").endswith("10 % longer with it.")


def test_times_without_copies_are_said_to_be_of_computing_alone() -> None:
    text = said(changed(calls=(calls(True, 0.1, 0.0, 1.0, 0.0),)), "no-transfers", "warning")
    assert "computing alone" in text and "--includeDataTransfers" in text
    assert finding(changed(calls=(calls(True, 0.1, 0.1, 1.0, 0.0),)), "no-transfers") is None


def test_unsteady_times_are_warned_of() -> None:
    def with_compute(*samples: float) -> EngineReport:
        series = dataclasses.replace(calls(True, 0.1, 0.1, 1.0, 0.1), compute=TimeSamples(samples))
        return changed(calls=(series,))

    assert "vary by 5.0 %" in said(with_compute(1.0, 1.05, 0.95), "unsteady", "warning")
    assert finding(with_compute(1.0, 1.02, 0.98), "unsteady") is None
    assert finding(with_compute(1.0), "unsteady") is None


def test_a_profile_far_from_the_timed_run_gives_only_shares() -> None:
    total = REPORT.profiled_ms
    near = changed(calls=(calls(False, 0.1, 0.1, total / 1.14, 0.1),))
    assert finding(near, "distortion") is None
    far = changed(calls=(calls(False, 0.1, 0.1, total / 1.2, 0.1),))
    assert "read the shares" in said(far, "distortion", "warning")


@pytest.mark.parametrize("when", ["clocks_before", "clocks_after"])
def test_lowered_clocks_are_the_first_limit(when: str) -> None:
    def clocks(*reasons: str) -> ClockRates:
        return ClockRates((), None, 900, 900, 80, 700.0, reasons)

    report = changed(**{when: clocks("SwPowerCap", "GpuIdle")})
    text = said(report, "throttled", "limit")
    assert text == "The GPU lowered its clocks (SwPowerCap), so these times are too long."
    assert headline(findings(report)) == text
    assert finding(changed(**{when: clocks("GpuIdle")}), "throttled") is None


def test_copy_layers_are_counted_with_their_share() -> None:
    conv, copy = REPORT.layers[1], REPORT.layers[0]
    report = rows({"share": 0.05}, {"share": 0.95})
    text = said(report, "copies", "limit")
    assert text == (
        "1 of 2 layers only copy or change format or type; they take 5 % of the profiled time, "
        "most of it before or after encoder.0.0 (UInt8 to Half)."
    )
    assert said(rows({"share": 0.04}, {"share": 0.96}), "copies", "fact")
    assert said(changed(layers=(conv,)), "copies", "fact").startswith("No layer only copies")
    same = dataclasses.replace(copy, inputs=conv.outputs, outputs=conv.inputs)
    assert "format stay the same" in said(changed(layers=(same, conv)), "copies", "fact")
    linear = (dataclasses.replace(conv.inputs[0], format="linear"),)
    other = dataclasses.replace(same, outputs=linear)
    assert "(kVECTORIZED) to linear)" in said(changed(layers=(other, conv)), "copies", "fact")
    untimed = dataclasses.replace(copy, share=math.nan, inputs=(), outputs=())
    assert said(changed(layers=(untimed, conv)), "copies", "fact").endswith(
        "0 % of the profiled time."
    )


def test_convolutions_in_another_precision_are_named() -> None:
    assert said(REPORT, "precision", "fact") == "Convolutions compute in: 23 Half."
    first = {"share": 0.1}
    text = said(rows(first, {"share": 0.2, "computed_type": "Float"}, {}), "precision", "fact")
    assert text.startswith("Convolutions compute in: 1 Float, 1 Half. Not in fp16: encoder.0.0")
    assert said(rows(first, {"share": 0.25, "computed_type": "Float"}), "precision", "limit")
    int8 = example_report("int8").report
    assert "Not in int8: encoder.0.0, logit" in said(int8, "precision", "fact")


def test_kernels_that_name_no_tensor_core_are_named() -> None:
    assert "encoder.0.0, logit" in said(REPORT, "matrix-unit", "fact")
    slow = {"share": 0.25, "tactic": "direct"}
    assert said(rows({}, slow), "matrix-unit", "limit")
    assert finding(rows({}, {**slow, "tactic": "sm90_xmma_x"}), "matrix-unit") is None
    assert finding(rows({}, {**slow, "tactic": ""}), "matrix-unit") is None
    assert finding(rows({}, {**slow, "computed_type": "Float"}), "matrix-unit") is None


def test_many_small_layers_are_a_limit() -> None:
    small = {"median_ms": 0.009, "share": 0.3}
    assert "start of kernels" in said(rows(small, {"median_ms": 1.0}), "small", "limit")
    assert finding(rows({**small, "share": 0.29}, {"median_ms": 1.0}), "small") is None
    assert finding(rows({**small, "median_ms": 0.011}, {"median_ms": 1.0}), "small") is None


def test_the_machines_peaks_say_what_is_left() -> None:
    def roof(by: str, bound_ms: float) -> EngineReport:
        edit = {"bound_ms": bound_ms, "bound_by": by, "median_ms": 1.0, "share": 0.5}
        return rows(edit, edit)

    assert said(roof("compute", 0.6), "roof", "limit").startswith("The GPU itself is the limit.")
    assert said(roof("memory", 0.5), "roof", "limit").startswith("Memory traffic is the limit.")
    text = said(roof("compute", 0.5), "roof", "fact")
    assert text.startswith(
        "By the measured peaks of this GPU the layers could take 1 ms; they take 2"
    )
    assert finding(rows({"bound_ms": None}), "roof") is None


def test_a_layer_with_a_quarter_of_the_time_is_named() -> None:
    assert "decoder.3.0, takes" in said(REPORT, "hot", "fact")
    other = {"network_layer": "other", "share": 0.25}
    layers = [dataclasses.replace(row, share=0.02) for row in REPORT.layers]
    layers[4] = dataclasses.replace(layers[4], **other)
    report = changed(layers=tuple(layers))
    assert said(report, "hot", "limit") == (
        "One layer of the network, other, takes 25 % of the profiled time."
    )


def test_what_is_missing_or_made_up_is_said() -> None:
    assert said(REPORT, "example", "warning").endswith("not yet run on hardware.")
    assert finding(changed(origin="measured"), "example") is None
    assert "--profilingVerbosity=detailed" in said(changed(detailed=False), "names-only", "warning")
    assert finding(REPORT, "names-only") is None


def test_memory_and_energy_are_said_where_known() -> None:
    assert said(REPORT, "memory", "fact").startswith("GPU memory: 760 MiB taken since loading")
    assert said(changed(energy_j_per_image=0.05), "energy", "fact") == (
        "One image takes 50 mJ of the GPU's energy."
    )
    for rule in ("memory", "energy"):
        assert finding(changed(memory=None, energy_j_per_image=None), rule) is None


def test_limits_come_first_and_an_engine_without_one_says_so() -> None:
    kinds = [part.kind for part in findings(REPORT)]
    assert kinds == sorted(kinds, key=["limit", "warning", "fact"].index)
    assert headline([]) == "No rule names a single limit of this engine."
    empty: tuple[LayerRow, ...] = ()
    assert headline(findings(changed(layers=empty, calls=()))).startswith("No rule")


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0 ms"), (0.0042, "4.2 us"), (12.345, "12.3 ms")]
)
def test_times_have_three_digits(value: float, text: str) -> None:
    assert ms_text(value) == text
