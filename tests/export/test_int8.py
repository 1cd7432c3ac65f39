from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import onnx
import pytest

from export import int8 as module
from export.calibrate import METHODS
from export.graph import onnx_graph
from export.int8 import Int8File, make_int8, sensitivity_reports
from export.likeness import runtimes
from export.quantize import convolutions
from tests.export.conftest import CONTRACT
from tinyunet_deploy.artifacts.checkpoint import load_checkpoint
from tinyunet_deploy.artifacts.sidecar import Artifact, Sidecar, digest
from tinyunet_deploy.errors import GateFailed
from tinyunet_deploy.quality.parity_limits import Limit, Limits


@pytest.fixture(scope="module")
def graph(checkpoint: Path) -> Artifact:
    """The float32 file of the checkpoint."""
    network, parent = load_checkpoint(checkpoint)
    data = onnx_graph(network, CONTRACT)
    sidecar = Sidecar("onnx", "fp32", digest(data), parent.sha256, CONTRACT, 0.4, 3)
    return Artifact(Path("net.int8.onnx"), data, sidecar)


def make(graph: Artifact, folder: Path, budget: float | None) -> tuple[Int8File, list[str]]:
    lines: list[str] = []
    return make_int8(graph, [folder], budget, lines.append), lines


def in_float32(int8: Int8File) -> set[str]:
    """Names of the convolutions whose weights the file holds in float32."""
    model = onnx.load_from_string(int8.data)
    weights = {t.name for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT}
    kept = {
        node.name
        for node in model.graph.node
        if node.op_type == "Conv" and node.input[1] in weights
    }
    return {name for name, node in convolutions(model).items() if node in kept}


@pytest.fixture(scope="module")
def plain(graph: Artifact, labelled_data: Path) -> tuple[Int8File, list[str]]:
    """An int8 file without a budget, and what was logged."""
    return make(graph, labelled_data, None)


@pytest.fixture
def one_calibration(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure one calibration on one runtime: all 18 on both take long."""
    fastest = runtimes()[:1]
    monkeypatch.setattr(module, "runtimes", lambda: fastest)
    monkeypatch.setattr(module, "ALPHAS", (0.5,))
    monkeypatch.setattr(module, "METHODS", {"minmax": METHODS["minmax"]})


def test_without_a_budget_nothing_stays_in_float32(
    graph: Artifact, plain: tuple[Int8File, list[str]]
) -> None:
    int8, lines = plain
    assert int8.mixed is None
    assert int8.origin["kept_in_float32"] == []
    assert not {"iou_budget", "chosen", "gate"} & int8.origin.keys()
    assert sensitivity_reports(graph.path, int8) == {}
    assert len(lines) == 1
    assert "of 18 calibrations, on 6 training images: iou_defective" in lines[0]


def test_the_calibration_with_the_best_figures_on_all_runtimes_is_taken(
    plain: tuple[Int8File, list[str]],
) -> None:
    origin = plain[0].origin
    assert len(origin["candidates"]) == 18
    chosen = f"{origin['method']}, alpha {origin['equalization_alpha']}"
    taken = origin["candidates"][chosen]
    for figures in origin["candidates"].values():
        assert (taken["flips"], -taken["agreement"]) <= (figures["flips"], -figures["agreement"])


@pytest.mark.usefixtures("one_calibration")
def test_a_budget_keeps_convolutions_and_reports_them(
    graph: Artifact, labelled_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A limit that all in int8 just misses."""
    plain = make(graph, labelled_data, None)[0]
    figures = plain.origin["candidates"]
    agreement = max(row["agreement"] for row in figures.values())
    only = Limits((Limit("int8", "agreement", agreement + 1e-4, "just missed"),))
    monkeypatch.setattr("export.budget.read_limits", lambda: only)
    monkeypatch.setattr(module, "meets", lambda *_: True)  # the gate is tested below
    int8, lines = make(graph, labelled_data, 0.005)
    assert int8.mixed is not None
    assert int8.mixed.kept
    assert int8.origin["kept_in_float32"] == list(int8.mixed.kept)
    assert int8.origin["chosen"]["agreement"] >= agreement + 1e-4
    assert int8.origin["gate"]["images"] == 6
    assert in_float32(plain) == set()
    assert in_float32(int8) == set(int8.mixed.kept)
    assert f"kept in float32: {int8.mixed.kept[0]}" in lines[1]
    reports = sensitivity_reports(graph.path, int8)
    assert [path.name for path in reports] == [
        "net.int8.sensitivity.json",
        "net.int8.sensitivity.svg",
    ]
    table = json.loads(reports[Path("net.int8.sensitivity.json")])
    assert table["sha256"] == digest(int8.data)
    assert len(table["alone_in_float32"]) == 23


@pytest.mark.usefixtures("one_calibration")
def test_int8_that_fails_on_the_gate_images_is_refused(
    graph: Artifact, labelled_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only_the_budget = Limits((Limit("int8", "iou_drop", 0.005, "as in the table"),))
    monkeypatch.setattr("export.budget.read_limits", lambda: only_the_budget)
    int8, _ = make(graph, labelled_data, 1.0)
    assert int8.mixed is not None and not int8.mixed.kept, "all in int8 is within a budget of 1"
    chosen = replace(int8.mixed, iou_budget=-1.0)
    monkeypatch.setattr(module, "choose", lambda *_: chosen)
    with pytest.raises(GateFailed, match="on the 6 gate images: iou_defective"):
        make(graph, labelled_data, -1.0)


@pytest.mark.usefixtures("one_calibration")
def test_a_file_that_is_too_large_is_reported(
    graph: Artifact, labelled_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 1_000_000)
    _, lines = make(graph, labelled_data, None)
    assert "bytes exceed the target of 1000000" in lines[-1]
