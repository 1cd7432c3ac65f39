"""One row of a benchmark in virtual time: each call of the backend takes what the test says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import SIZE, part
from tests.virtual_clock import VirtualClock
from tinyunet_deploy.artifacts.facts import NetworkFacts
from tinyunet_deploy.backends.base import Run
from tinyunet_deploy.backends.table import find_row
from tinyunet_deploy.contract import Batch, Contract
from tinyunet_deploy.data.encoding import write_png
from tinyunet_deploy.errors import RefusedError
from tinyunet_deploy.quality.parity_limits import read_limits
from tinyunet_deploy.speed import row as module
from tinyunet_deploy.speed.benchmark_images import BenchmarkImages, open_benchmark_images
from tinyunet_deploy.speed.benchmark_result import Ceiling, Measurement, StageTable
from tinyunet_deploy.speed.roofline import Work
from tinyunet_deploy.speed.row import Effort, Row
from tinyunet_deploy.testing.fake_backend import FakeBackend

IMAGES = 6
CALL_S = 0.25
"""Virtual time of every call but the first, whatever the batch."""
DEVICE_MS = 200.0
"""Part of it that the backend calls device time."""
WORK = Work({"float32": 1e9}, 0.0, 0.0, 1e6)


@pytest.fixture
def images(tmp_path: Path) -> Iterator[BenchmarkImages]:
    for seed in range(IMAGES):
        write_png(tmp_path / f"{seed}.png", part(seed))
    reference = FakeBackend(contract=Contract(SIZE, SIZE))
    with open_benchmark_images([tmp_path], reference, count=32) as opened:
        yield opened


class Bench:
    """Measures a row on a backend that answers as the reference, in virtual time."""

    def __init__(self, images: BenchmarkImages, monkeypatch: pytest.MonkeyPatch) -> None:
        self.images = images
        self.clock = VirtualClock()
        self.calls: list[Batch] = []

        class Backend(FakeBackend):
            def _run(backend, image: Batch) -> Run:  # noqa: N805
                self.calls.append(image.copy())
                self.clock.sleep(CALL_S if len(self.calls) > 1 else 3.0)
                return Run(image, DEVICE_MS)

        def open_backend(*_: object, trust_engine: bool = False) -> FakeBackend:
            self.clock.sleep(1.5)
            return Backend(contract=Contract(SIZE, SIZE, max_batch=4))

        monkeypatch.setattr(module, "open_backend", open_backend)

    def measure(
        self, batch_size: int, effort: Effort, work: Work | None = None, trust_engine: bool = False
    ) -> tuple[Measurement, list[StageTable]]:
        row = Row(
            self.images,
            Path("net.onnx"),
            find_row("onnxruntime"),
            "cpu",
            batch_size,
            effort,
            self.clock,
            trust_engine,
        )
        ceilings = [
            Ceiling(kind, kind, "cpu", value, "", "", "", ()) for kind, value in
            (("float32", 8.0), ("memory", 1.0))
        ]  # fmt: skip
        measurement, stages = row.measure(read_limits(), work, ceilings, workers=1)
        return measurement, [table for table, _ in stages]


@pytest.fixture
def bench(images: BenchmarkImages, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(images, monkeypatch)


def test_each_series_measures_what_its_name_says(bench: Bench) -> None:
    row, _ = bench.measure(2, Effort(samples=20))
    assert row.load_ms == pytest.approx(1500)
    assert row.first_inference_ms == pytest.approx(3000)
    assert row.device_time.samples_ms == (DEVICE_MS,) * 20
    assert row.call.samples_ms == pytest.approx([250] * 20)
    assert row.end_to_end.samples_ms == pytest.approx([250] * 20)
    assert row.throughput.images == 5 * 4 * 2
    assert row.throughput.seconds == pytest.approx(5)
    assert row.throughput.images_per_s == pytest.approx(8)
    assert row.throughput.window_images_per_s == pytest.approx([8] * 5)


def test_a_duration_is_kept_and_ten_requests_are_the_least(bench: Bench) -> None:
    row, _ = bench.measure(1, Effort(duration_s=5.1))
    assert len(row.call.samples_ms) == 21  # the first that ends after 5.1 s is the last
    assert row.throughput.images == 5 * 4  # 20.4 calls in five windows
    row, _ = bench.measure(1, Effort(duration_s=0.01))
    assert len(row.call.samples_ms) == 10
    assert row.throughput.images == 5 * 2


def test_every_image_is_in_the_warm_up_and_requests_go_round(bench: Bench) -> None:
    row, _ = bench.measure(4, Effort(samples=3))
    assert row.warmup_n == 5
    pixels = [part(seed).tobytes() for seed in range(IMAGES)]
    order = [pixels.index(image.tobytes()) for batch in bench.calls[1:4] for image in batch]
    assert order == [0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5]
    assert row.check.images == IMAGES
    row, _ = bench.measure(1, Effort(samples=3))
    assert row.warmup_n == IMAGES


def test_the_roofline_is_taken_of_latency_and_throughput(bench: Bench) -> None:
    """1 GFLOP at 8 GFLOP/s: 125 ms an image, 250 ms a batch of two, as long as a call."""
    row, _ = bench.measure(2, Effort(samples=10), WORK)
    assert row.roofline is not None
    assert row.roofline.bound_ms == pytest.approx(250)
    assert row.roofline.throughput_percent == pytest.approx(100)
    assert row.roofline.latency_percent == pytest.approx(125)
    assert bench.measure(2, Effort(samples=10))[0].roofline is None


def test_the_stage_tables_compare_the_pipeline_with_the_backend_alone(bench: Bench) -> None:
    row, (serial, pipelined) = bench.measure(2, Effort(samples=10))
    assert (serial.mode, serial.workers, pipelined.mode, pipelined.workers) == (
        "serial", 0, "pipelined", 1,
    )  # fmt: skip
    for table in (serial, pipelined):
        assert table.images == IMAGES
        assert table.wall_s == pytest.approx(3 * CALL_S)
        assert table.images_per_s == pytest.approx(8)
        assert table.share_of_raw == pytest.approx(8 / row.throughput.images_per_s)


def test_a_batch_that_the_backend_does_not_take_is_refused(bench: Bench) -> None:
    with pytest.raises(RefusedError, match="takes batches of 1 to 4, not "):
        bench.measure(5, Effort(samples=1))


@pytest.fixture
def tiled(tmp_path: Path) -> Iterator[BenchmarkImages]:
    """Three images, of which one needs several tiles."""
    for seed, width in enumerate((SIZE, 3 * SIZE, SIZE)):
        write_png(tmp_path / f"{seed}.png", part(seed, width=width))
    network = NetworkFacts("near", 16, 4, 4)
    reference = FakeBackend(contract=Contract(SIZE, SIZE), network=network)
    with open_benchmark_images([tmp_path], reference, count=32) as opened:
        yield opened


def test_a_request_of_an_image_in_tiles_takes_a_call_for_each(
    tiled: BenchmarkImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Latency is that of images, the times of a call are those of tiles."""
    tiles = len(tiled.inputs_of_image[1])
    assert (tiles, len(tiled.inputs)) == (4, 6)
    bench = Bench(tiled, monkeypatch)
    row, tables = bench.measure(1, Effort(samples=6), WORK)
    assert row.end_to_end.samples_ms == pytest.approx([250, 1000, 250] * 2)
    assert row.call.samples_ms == pytest.approx([250] * 12)
    assert row.throughput.inputs_per_s == pytest.approx(4)
    assert row.throughput.images_per_s == pytest.approx(4 * 3 / 6)
    assert row.throughput.window_images_per_s == pytest.approx([2] * 5)
    assert row.check.outcome == "green" and row.check.images == 3
    assert row.roofline is not None
    assert row.roofline.throughput_percent == pytest.approx(50), "125 ms an input at least"
    for table in tables:
        assert table.images == 3
        assert table.share_of_raw == pytest.approx(table.images_per_s / 2)


def test_the_last_call_of_a_request_is_filled(
    tiled: BenchmarkImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two images in turn are 1 + 4, 1 + 1, and 4 + 1 inputs: three calls, one, and three."""
    bench = Bench(tiled, monkeypatch)
    row, _ = bench.measure(2, Effort(samples=3))
    assert row.end_to_end.samples_ms == pytest.approx([750, 250, 750])
    assert len(row.call.samples_ms) == 7
    measured = bench.calls[1 : 1 + 7]
    assert {len(batch) for batch in measured} == {2}
    assert np.array_equal(measured[2][0], measured[2][1])
    assert row.check.outcome == "green"


def test_a_batch_is_the_pixels_of_its_files(images: BenchmarkImages) -> None:
    batch = images.batch([5, 0])
    assert batch.shape == (2, 1, SIZE, SIZE)
    assert np.array_equal(batch[0, 0], part(5)) and np.array_equal(batch[1, 0], part(0))


def test_the_trial_of_a_model_without_a_sidecar_is_no_part_of_loading(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "read_tried", lambda *_, **__: bench.clock.sleep(2.0))
    measurement, _ = bench.measure(1, Effort(samples=2), trust_engine=True)
    assert measurement.load_ms == pytest.approx(1500.0)
