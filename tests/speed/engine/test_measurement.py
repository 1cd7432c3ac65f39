"""A plan is measured on the fake GPU and TensorRT, and its report is complete."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks.example_engine import example_files
from tests.fake_machine import PLAN, fake_machine, make_plan
from tinyunet_deploy.backends.tensorrt import TensorRTBackend
from tinyunet_deploy.cli.benchmark import benchmark
from tinyunet_deploy.contract import Batch
from tinyunet_deploy.errors import GateFailed, RuntimeUnavailable
from tinyunet_deploy.speed.benchmark_result import ClockRates
from tinyunet_deploy.speed.engine import measurement
from tinyunet_deploy.speed.engine.layer_info import Form
from tinyunet_deploy.speed.engine.measurement import (
    MeasuredEngine,
    measure_engine,
    write_engine_report,
)
from tinyunet_deploy.speed.engine.report_file import read_report
from tinyunet_deploy.testing.fake_cuda import FakeDevice
from tinyunet_deploy.testing.fake_tensorrt import FakeTensorRT


def measured(form: Form = "11", calls: int = 9, seed: int | None = None) -> MeasuredEngine:
    files = example_files("fp16", form, batch=2)
    times = [(entry["name"], entry["medianMs"]) for entry in json.loads(files.profile)[1:]]

    def load(artifact: object, device: str, graphs: bool) -> TensorRTBackend:
        gpu = FakeDevice(seed=seed)
        trt = FakeTensorRT(gpu, layers=times, information=files.layers)
        return TensorRTBackend(make_plan(), device, tensorrt=trt.library, gpu=gpu, graphs=graphs)

    images = np.zeros((2, 1, 16, 16), np.uint8)
    return measure_engine(make_plan(), "cuda:0", images, calls=calls, open_plan=load)


@pytest.fixture(autouse=True)
def clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    energies = iter(100.0 * step for step in range(1, 9))

    def read(device: str) -> ClockRates:
        return ClockRates((), None, 1755, 2619, 50, 300.0, (), next(energies))

    monkeypatch.setattr(measurement, "read_clock_rates", read)


@pytest.mark.parametrize("seed", [None, 3])
def test_the_report_has_layers_times_memory_and_build(seed: int | None) -> None:
    report = measured(seed=seed).report
    assert report.profiled_calls == 9
    assert [row.median_ms for row in report.layers][1] > 0
    assert [calls.graph for calls in report.calls] == [False, True]
    for calls in report.calls:
        assert len(calls.compute.samples_ms) == 12  # four turns of three
        assert min(calls.enqueue.samples_ms) > 0 and calls.images_per_s
    assert report.memory is not None
    assert report.memory.plan == len(PLAN) and report.memory.weights == 1024
    assert report.memory.activations == 512 and report.memory.taken >= 512
    assert report.memory.buffers == 2 * 2 * 4 * 256
    assert report.build is not None and report.build.version == "11.4.0.106"
    # 100 J: 2 images, 2 backends, 4 turns of 10 + 3 + 3 calls
    assert report.energy_j_per_image == pytest.approx(100 / (2 * 2 * 4 * 16))
    assert "names are not known" in report.notes[0]


def test_layers_of_equal_names_keep_their_own_times() -> None:
    device = FakeDevice()
    trt = FakeTensorRT(device, layers=[("a", 1.0), ("a", 2.0)])
    with TensorRTBackend(make_plan(), tensorrt=trt.library, gpu=device) as backend:
        layers = backend.profile_layers(np.zeros((1, 1, 16, 16), np.uint8), 3)
    assert [(layer.name, layer.samples_ms) for layer in layers] == [
        ("a", (1.0,) * 3),
        ("a #2", (2.0,) * 3),
    ]


def test_profiling_does_not_disturb_scores_or_batches_in_flight() -> None:
    device = FakeDevice(seed=5)
    trt = FakeTensorRT(device, lambda image: 255 - image)
    images = np.random.default_rng(0).integers(0, 256, (3, 2, 1, 16, 16), np.uint8)
    with TensorRTBackend(make_plan(), tensorrt=trt.library, gpu=device) as backend:
        runs = backend.run_many(images)
        first = next(runs)
        backend_busy = [next(runs)]
        backend.profile_layers(images[2], 2)  # one of two slots is free
        np.testing.assert_array_equal(first.score, 255 - images[0])
        np.testing.assert_array_equal(backend_busy[0].score, 255 - images[1])
        np.testing.assert_array_equal(next(runs).score, 255 - images[2])


def test_a_failing_profile_is_one_line() -> None:
    device = FakeDevice()
    trt = FakeTensorRT(device, enqueues=2)
    with (
        TensorRTBackend(make_plan(), tensorrt=trt.library, gpu=device) as backend,
        pytest.raises(RuntimeUnavailable, match="no executions left"),
    ):
        backend.profile_layers(np.zeros((1, 1, 16, 16), np.uint8), 5)


def test_a_graph_that_computes_something_else_is_refused() -> None:
    def load(artifact: object, device: str, graphs: bool) -> TensorRTBackend:
        gpu = FakeDevice()

        def score(image: Batch) -> Batch:
            return np.asarray(image + 2 * graphs, np.uint8)

        information = example_files("fp16", "11").layers
        trt = FakeTensorRT(gpu, score, information=information)
        return TensorRTBackend(make_plan(), device, tensorrt=trt.library, gpu=gpu, graphs=graphs)

    with pytest.raises(GateFailed, match="2 apart of 255 with and without CUDA graphs"):
        measure_engine(make_plan(), "cuda:0", np.zeros((1, 1, 16, 16), np.uint8), open_plan=load)


@pytest.mark.parametrize("form", ["10", "11"])
def test_nvidias_analysis_passes_what_is_written(form: Form, tmp_path: Path) -> None:
    """Set TINYUNET_TRT_ANALYZER to analyze_trt_perf.py of NVIDIA's skill trt-perf-analysis."""
    analyzer = os.environ.get("TINYUNET_TRT_ANALYZER")
    files = write_engine_report(measured(form), tmp_path / "report")
    assert {path.suffix for path in files} == {".html", ".md", ".json"}
    layers = tmp_path / "report" / "layers_tinyunet.fp32-batch2.json"
    assert isinstance(json.loads(layers.read_text()), list)
    whole = json.loads((tmp_path / "report" / "tinyunet.fp32-batch2.layer-info.json").read_text())
    assert ("Bindings" in whole) == (form == "10")
    if not analyzer:
        pytest.skip("TINYUNET_TRT_ANALYZER is not set")
    output = tmp_path / "analysis.json"
    command = [sys.executable, analyzer, tmp_path / "report", "--output", output]
    subprocess.run(command, check=True, cwd=Path(analyzer).parent)
    analysis = json.loads(output.read_text())
    assert analysis["validation"]["status"] == "passed"
    (backend,) = analysis["results"]
    assert backend["validation"]["analysis_mode"] == "layer_profile"
    assert backend["validation"]["messages"] == []


def test_the_benchmark_writes_a_report_of_each_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    information = example_files("fp16", "11").layers
    plan = fake_machine(monkeypatch, tmp_path, information)
    arguments = [
        "-m", plan, "--reference", plan, "--samples", "2", "--images", "2", "-b", "1,2",
        "--engine-report", tmp_path / "report",
    ]  # fmt: skip
    result = CliRunner().invoke(benchmark, list(map(str, arguments)), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    for batch in (1, 2):
        name = f"tinyunet.fp32-batch{batch}"
        assert f"{name}.html" in result.stderr
        report = read_report(tmp_path / "report" / f"{name}.json")
        assert (report.batch_size, report.origin) == (batch, "measured")
