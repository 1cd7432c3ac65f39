from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import SIZE, part
from tinyunet_deploy.backends.base import Run
from tinyunet_deploy.backends.onnxruntime import ONNXRuntimeBackend
from tinyunet_deploy.cli import run, tinyunet
from tinyunet_deploy.contract import Batch
from tinyunet_deploy.data.encoding import write_png
from tinyunet_deploy.errors import DataError, TinyUNetError
from tinyunet_deploy.inspection.trace import STAGES, Trace
from tinyunet_deploy.quality.parity_limits import read_limits
from tinyunet_deploy.speed import benchmark as module
from tinyunet_deploy.speed.benchmark import run_benchmark
from tinyunet_deploy.speed.benchmark_file import benchmark_json, read_benchmark
from tinyunet_deploy.speed.benchmark_result import Benchmark, Ceiling
from tinyunet_deploy.speed.peaks import cpu_ceilings
from tinyunet_deploy.speed.row import Effort


def small_ceilings(_device: str = "cpu") -> Iterator[tuple[str, Ceiling | TinyUNetError]]:
    return cpu_ceilings(size=64, layers=1, megabytes=1)


def measure(
    model: Path, *sources: Path, batch_sizes: tuple[int, ...] = (1,), samples: int = 2
) -> tuple[Benchmark, list[tuple[str, Trace]]]:
    """Measure the tiny network in ONNX Runtime, checked against itself in OpenVINO."""
    return run_benchmark(
        [model],
        sources,
        limits=read_limits(),
        command="test",
        reference=model,
        backends=["onnxruntime"],
        batch_sizes=batch_sizes,
        effort=Effort(samples=samples),
        images=8,
        ceilings=small_ceilings,
    )


@pytest.fixture(scope="module")
def measured(
    tiny_onnx: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Benchmark, list[tuple[str, Trace]]]:
    folder = tmp_path_factory.mktemp("station")
    for seed in range(5):
        write_png(folder / f"{seed}.png", part(seed))
    (folder / "broken.png").write_bytes(b"no image")
    return measure(tiny_onnx, folder, batch_sizes=(1, 2), samples=20)


def test_each_batch_size_has_every_sample(measured: tuple[Benchmark, object]) -> None:
    result, _ = measured
    assert [row.batch_size for row in result.measurements] == [1, 2]
    for row in result.measurements:
        for series in (row.device_time, row.call, row.end_to_end):
            assert len(series.samples_ms) == 20
        for device, call, whole in zip(
            row.device_time.samples_ms, row.call.samples_ms, row.end_to_end.samples_ms, strict=True
        ):
            assert 0 < device <= call <= whole
        assert row.load_ms > 0 and row.first_inference_ms > 0
        assert row.throughput.images == 5 * 4 * row.batch_size
        assert row.versions["onnxruntime"] and row.threads and row.synchronization
        assert row.roofline is not None and row.roofline.latency_percent > 0


def test_the_answers_of_all_images_are_checked(measured: tuple[Benchmark, object]) -> None:
    result, _ = measured
    for row in result.measurements:
        assert row.check.outcome == "green"
        assert row.check.images == 5
        assert row.check.figures["largest_steps"] <= 1
        requests = 1 + row.warmup_n + 20 + 5  # the first, and the last of each throughput window
        assert row.check.answers == requests * row.batch_size


def test_images_are_those_of_the_folder(measured: tuple[Benchmark, object]) -> None:
    images = measured[0].images
    assert (images.source, images.images, images.image_px) == ("files", 5, (SIZE, SIZE))
    pixels = np.stack([part(seed) for seed in range(5)])
    assert images.mean == pytest.approx(pixels.mean())
    assert images.standard_deviation == pytest.approx(pixels.std())
    assert len(images.skipped) == 1 and "broken.png" in images.skipped[0]


def test_the_stage_rows_add_up(measured: tuple[Benchmark, object]) -> None:
    result, _ = measured
    assert [(t.mode, t.batch_size) for t in result.stages] == [
        ("serial", 1),
        ("pipelined", 1),
        ("serial", 2),
        ("pipelined", 2),
    ]
    for table in result.stages:
        assert tuple(row.stage for row in table.rows) == STAGES
        assert table.images == 5
        assert sum(row.ms_per_image for row in table.rows) == pytest.approx(
            table.total_ms_per_image
        )
        if table.mode == "serial":
            assert table.total_ms_per_image * 5 == pytest.approx(table.wall_s * 1e3)


def test_the_result_survives_json(measured: tuple[Benchmark, object], tmp_path: Path) -> None:
    result, _ = measured
    path = tmp_path / "result.json"
    path.write_text(benchmark_json(result))
    assert benchmark_json(read_benchmark(path)) == benchmark_json(result)
    row = json.loads(benchmark_json(result))["measurements"][0]
    assert row["end_to_end"]["p99_9_ms"] is None  # 20 samples say nothing of it
    assert row["end_to_end"]["p95_ms"] == sorted(row["end_to_end"]["samples_ms"])[18]


@pytest.mark.parametrize(
    "answer",
    [np.zeros_like, lambda image: image.copy()],
    ids=["nothing anywhere", "the image itself"],
)
def test_a_fast_wrong_engine_is_caught(
    answer: Callable[[Batch], Batch],
    tiny_onnx: Path,
    station: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(ONNXRuntimeBackend, "_run", lambda _self, image: Run(answer(image), 0.01))
    monkeypatch.setattr(module, "measure_ceilings", small_ceilings)
    output, trace = tmp_path / "result.json", tmp_path / "trace.json"
    arguments = ["benchmark", str(station), "--model", str(tiny_onnx), "--samples", "2"]
    arguments += ["--reference", str(tiny_onnx), "--images", "2", "--backend", "onnxruntime"]
    assert run(tinyunet, [*arguments, "-o", str(output), "--trace", str(trace)]) == 6
    output_text = capsys.readouterr()
    assert "WRONG" in output_text.out
    assert "gives wrong scores on onnxruntime: " in output_text.err
    (row,) = read_benchmark(output).red
    assert row.check.broken[0].figure in ("flips", "agreement", "largest_steps")
    assert json.loads(trace.read_text())["traceEvents"]


def test_wrong_scores_on_synthetic_images_ask_for_images_of_the_model_s_parts(
    tiny_onnx: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ONNXRuntimeBackend, "_run", lambda _self, image: Run(image.copy(), 0.01))
    monkeypatch.setattr(module, "measure_ceilings", small_ceilings)
    arguments = ["benchmark", "--model", str(tiny_onnx), "--samples", "2", "--images", "2"]
    arguments += ["--reference", str(tiny_onnx), "--backend", "onnxruntime"]
    assert run(tinyunet, arguments) == 6
    error = capsys.readouterr().err
    assert "gives wrong scores on synthetic images on onnxruntime: " in error
    assert error.rstrip().endswith("for a model of other parts give IMAGES of these)")


def test_an_engine_that_is_right_until_it_is_measured_is_caught(
    tiny_onnx: Path, station: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0
    honest = ONNXRuntimeBackend._run

    def lazy(self: ONNXRuntimeBackend, image: Batch) -> Run:
        nonlocal calls
        calls += 1
        warm = 1 + 8  # the first one, and two images more than there are
        return honest(self, image) if calls <= warm else Run(np.zeros_like(image), 0.01)

    monkeypatch.setattr(ONNXRuntimeBackend, "_run", lazy)
    (row,) = measure(tiny_onnx, station)[0].measurements
    assert row.check.outcome == "red"


def test_images_of_one_grey_value_are_refused(tiny_onnx: Path, tmp_path: Path) -> None:
    write_png(tmp_path / "black.png", np.zeros((SIZE, SIZE), np.uint8))
    with pytest.raises(DataError, match="has the grey value 0 throughout"):
        measure(tiny_onnx, tmp_path)


def test_without_a_folder_images_are_made_and_are_not_zeros(
    tiny_onnx: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Batch] = []
    honest = ONNXRuntimeBackend._run

    def watching(self: ONNXRuntimeBackend, image: Batch) -> Run:
        seen.append(image.copy())
        return honest(self, image)

    monkeypatch.setattr(ONNXRuntimeBackend, "_run", watching)
    monkeypatch.setattr(f"{__name__}.small_ceilings", lambda _device: iter(()))  # other images
    result, _ = measure(tiny_onnx, batch_sizes=(2,))
    assert result.images.source == "synthetic"
    assert result.images.images == 8
    assert len({image.tobytes() for batch in seen for image in batch}) == 8
    assert all(image.std() > 1 for batch in seen for image in batch)


def test_a_row_that_cannot_run_is_skipped_with_its_reason(
    tiny_onnx: Path, station: Path, tmp_path: Path
) -> None:
    model = tmp_path / tiny_onnx.name
    for suffix in ("", ".json"):
        shutil.copy(f"{tiny_onnx}{suffix}", f"{model}{suffix}")
    result, _ = run_benchmark(
        [model],
        [station],
        limits=read_limits(),
        command="test",
        reference=model,
        backends=["onnxruntime-tensorrt"],
        devices=["cuda:0"],
        batch_sizes=(1, 8),
        effort=Effort(samples=2),
        ceilings=lambda device: iter([(device, TinyUNetError(device, "is missing"))]),
    )
    assert not result.measurements
    (skipped,) = result.skipped  # one line for all batch sizes
    assert (skipped.backend, skipped.batch_size) == ("onnxruntime-tensorrt", None)
    assert "TensorRT" in skipped.reason
    assert result.notes == ("no ceiling cuda:0: cuda:0: is missing",)


def test_images_of_any_size_are_measured_and_the_tiles_are_said(
    tiny_onnx: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(module, "measure_ceilings", small_ceilings)
    for seed, (height, width) in enumerate([(SIZE, SIZE), (50, 60), (100, SIZE)]):
        write_png(tmp_path / f"{seed}.png", part(seed, height=height, width=width))
    output = tmp_path / "result.json"
    command = ["benchmark", str(tmp_path), "--model", str(tiny_onnx), "--samples", "3"]
    command += ["--backend", "onnxruntime", "-o", str(output)]
    assert run(tinyunet, command) == 0
    text = capsys.readouterr().out
    assert "the model takes 64x64, so an image is " in text and "tiles/s" in text
    assert ", not all 64x64; " in text
    assert "1 padded by mirroring, 1 inspected in tiles" in text
    result = read_benchmark(output)
    (row,) = result.measurements
    assert result.images.inputs is not None and result.images.inputs > 3
    assert len(row.end_to_end.samples_ms) == 3, "every image once"
    assert len(row.call.samples_ms) == result.images.inputs
    assert row.throughput.inputs_per_s == pytest.approx(
        row.throughput.images_per_s * result.images.inputs / 3
    )
    assert row.check.images == 3
    for table in result.stages:
        assert table.images == 3
        assert all(stage.ms_per_image >= 0 for stage in table.rows[:-1])
        assert table.unaccounted_share > -1e-9
    assert run(tinyunet, [*command, "--no-tile"]) == 3
    assert "tiles/s" not in capsys.readouterr().out
    result = read_benchmark(output)
    assert result.images.images == 1 and len(result.images.skipped) == 2
    assert result.command.endswith("--no-tile")
