from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyunet_deploy.artifacts.facts import NetworkFacts
from tinyunet_deploy.artifacts.sidecar import digest
from tinyunet_deploy.backends.base import Run
from tinyunet_deploy.contract import Batch, Contract, Image
from tinyunet_deploy.data.bit_depth import BitDepth
from tinyunet_deploy.data.decoding import read_image
from tinyunet_deploy.data.encoding import encode_png, write_png
from tinyunet_deploy.data.tiles import Tiling
from tinyunet_deploy.errors import ImageError, OutOfMemory, RefusedError, RuntimeUnavailable
from tinyunet_deploy.inspection import scoring
from tinyunet_deploy.inspection.scoring import score_images
from tinyunet_deploy.inspection.trace import Trace
from tinyunet_deploy.testing.fake_backend import FakeBackend

CONTRACT = Contract(16, 32)
SHAPE = (CONTRACT.height, CONTRACT.width)


def numbered(number: int) -> Batch:
    """An image that knows its number."""
    return np.full(SHAPE, number % 256, np.uint8)


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty images with their number as grey value, and broken ones of the same numbers."""
    folder = tmp_path_factory.mktemp("shelf")
    for number in range(30):
        write_png(folder / f"{number:02}.png", numbered(number))
        (folder / f"{number:02}.broken.png").write_bytes(encode_png(numbered(number))[:-20])
    return folder


def good(shelf: Path, count: int) -> list[Path]:
    return [shelf / f"{number:02}.png" for number in range(count)]


def decoders_and_runners() -> list[str]:
    names = [thread.name for thread in threading.enumerate()]
    return [name for name in names if name.startswith(("decode", "run", "write"))]


def test_scores_come_in_the_order_of_the_paths(shelf: Path) -> None:
    paths = good(shelf, 30)[::-1]
    results = list(score_images(paths, FakeBackend(contract=CONTRACT), batch_size=4, workers=3))
    assert [result.path for result in results] == paths
    assert [result.index for result in results] == list(range(30))
    for path, result in zip(paths, results, strict=True):
        assert result.error is None
        assert result.image is not None
        assert result.score is not None
        assert np.array_equal(result.image, read_image(path))
        assert np.array_equal(result.score, read_image(path))


def test_a_broken_image_costs_itself_alone(shelf: Path) -> None:
    paths = good(shelf, 10)
    paths[3] = shelf / "03.broken.png"
    paths[9] = shelf / "missing.png"
    results = list(score_images(paths, FakeBackend(contract=CONTRACT), batch_size=4, workers=2))
    assert [result.path for result in results] == paths
    reasons = [result.error and result.error.reason for result in results]
    assert reasons == [None] * 3 + ["truncated"] + [None] * 5 + ["missing"]
    for result in results:
        assert (result.score is None) == (result.image is None) == (result.error is not None)
        if result.score is not None:
            assert result.score[0, 0] == result.index


def test_an_image_of_another_size_says_both(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", np.zeros((50, 33), np.uint8))
    write_png(tmp_path / "turned.png", np.zeros(SHAPE[::-1], np.uint8))
    paths = [tmp_path / "a.png", tmp_path / "turned.png"]
    backend = FakeBackend(contract=CONTRACT)
    results = list(score_images(paths, backend, batch_size=1, workers=1, tile=False))
    assert isinstance(results[0].error, ImageError)
    assert results[0].error.reason == "wrong-size"
    assert results[0].error.what == "has 33x50 pixels, but the model takes 32x16"
    assert results[1].error is not None
    assert all(r.error is None for r in score_images(paths, backend, batch_size=1, workers=1))


@pytest.mark.parametrize("shape", [(15, 99), (99, 15), (1, 1)])
def test_an_image_with_a_side_below_16_pixels_is_skipped(
    tmp_path: Path, shape: tuple[int, int]
) -> None:
    write_png(tmp_path / "thin.png", np.zeros(shape, np.uint8))
    write_png(tmp_path / "small.png", np.zeros((16, 16), np.uint8))
    paths = [tmp_path / "thin.png", tmp_path / "small.png"]
    thin, small = score_images(paths, FakeBackend(contract=CONTRACT), batch_size=1, workers=1)
    assert thin.error is not None and thin.error.reason == "wrong-size"
    assert thin.error.what == f"has {shape[1]}x{shape[0]} pixels, fewer than 16 on a side"
    assert small.error is None


@pytest.mark.parametrize(
    ("count", "batch_size", "wanted"),
    [(10, 4, [4, 4, 2]), (8, 4, [4, 4]), (3, 8, [3]), (3, 1, [1, 1, 1]), (0, 4, [])],
)
def test_batches_are_full_but_the_last(
    shelf: Path, count: int, batch_size: int, wanted: list[int]
) -> None:
    backend = FakeBackend(contract=CONTRACT)
    assert (
        len(list(score_images(good(shelf, count), backend, batch_size=batch_size, workers=2)))
        == count
    )
    assert backend.batches == wanted


def test_broken_images_do_not_make_batches_smaller(shelf: Path) -> None:
    backend = FakeBackend(contract=CONTRACT)
    paths = [path for image in good(shelf, 8) for path in (image, shelf / "00.broken.png")]
    list(score_images(paths, backend, batch_size=4, workers=2))
    assert backend.batches == [4, 4]


def test_batches_keep_to_what_the_backend_takes(shelf: Path) -> None:
    backend = FakeBackend(contract=Contract(*SHAPE, max_batch=3))
    results = list(score_images(good(shelf, 10), backend, batch_size=8, workers=2))
    assert len(results) == 10
    assert backend.batches == [3, 3, 3, 1]


@given(data=st.data())
@settings(max_examples=60)
def test_every_input_comes_out_once_and_in_its_place(data: st.DataObject, shelf: Path) -> None:
    broken = data.draw(st.lists(st.booleans(), max_size=30))
    paths = [
        shelf / (f"{number:02}.broken.png" if bad else f"{number:02}.png")
        for number, bad in enumerate(broken)
    ]
    contract = Contract(*SHAPE, max_batch=data.draw(st.none() | st.integers(1, 9)))
    backend = FakeBackend(contract=contract)
    batch_size, workers = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 5))
    results = list(score_images(paths, backend, batch_size=batch_size, workers=workers))
    assert [result.path for result in results] == paths
    assert [result.error is not None for result in results] == broken
    for number, result in enumerate(results):
        assert result.score is None or (result.score == number).all()
    assert sum(backend.batches) == broken.count(False)
    assert max(backend.batches, default=0) <= min(batch_size, contract.max_batch or batch_size)


@pytest.mark.parametrize("broken", [False, True])
def test_paths_are_taken_as_they_are_needed(shelf: Path, broken: bool) -> None:
    taken = 0

    def many() -> Iterator[Path]:
        nonlocal taken
        for _ in range(2000):
            taken += 1
            yield shelf / ("00.broken.png" if broken else "00.png")

    batch_size, workers = 4, 2
    bound = (batch_size + 2 * workers) + 4 * batch_size * (16 if broken else 1)
    results = score_images(
        many(), FakeBackend(contract=CONTRACT), batch_size=batch_size, workers=workers
    )
    for done in range(1, 300):
        next(results)
        assert taken - done <= bound
    results.close()


def test_memory_holds_images_of_a_few_batches_only(shelf: Path) -> None:
    """While the caller rests, decoding rests too."""
    backend = FakeBackend(contract=CONTRACT)
    results = score_images(good(shelf, 30), backend, batch_size=2, workers=1)
    next(results)
    time.sleep(0.3)
    assert sum(backend.batches) <= 6
    results.close()


def test_closing_early_ends_all_threads(shelf: Path) -> None:
    backend = FakeBackend(contract=CONTRACT, delay_s=0.01)
    results = score_images(good(shelf, 30), backend, batch_size=2, workers=3)
    next(results)
    assert decoders_and_runners()
    results.close()
    assert decoders_and_runners() == []
    run = len(backend.batches)
    time.sleep(0.1)
    assert len(backend.batches) == run < 15


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_an_error_of_the_backend_reaches_the_caller(shelf: Path, batch_size: int) -> None:
    def fail(batch: Batch) -> Batch:
        if batch.max() >= 7:
            raise RuntimeUnavailable("cuda:0", "is gone")
        return batch

    results = score_images(
        good(shelf, 30), FakeBackend(fail, contract=CONTRACT), batch_size=batch_size, workers=2
    )
    done = []
    with pytest.raises(RuntimeUnavailable, match="cuda:0: is gone"):
        done.extend(result.index for result in results)
    assert done == list(range(len(done)))
    assert decoders_and_runners() == []


def test_an_error_of_the_paths_reaches_the_caller(shelf: Path) -> None:
    def paths() -> Iterator[Path]:
        yield shelf / "00.png"
        raise RefusedError("station", "cannot be listed")

    with pytest.raises(RefusedError, match="station: cannot be listed"):
        list(score_images(paths(), FakeBackend(contract=CONTRACT), batch_size=1, workers=1))
    assert decoders_and_runners() == []


def test_decoding_and_running_overlap(shelf: Path) -> None:
    """The backend is called by one thread at a time, and never by the caller's."""
    callers, inside = set(), []

    def watch(batch: Batch) -> Batch:
        callers.add(threading.current_thread().name)
        inside.append(1)
        assert len(inside) == 1
        time.sleep(0.002)
        inside.pop()
        return batch

    backend = FakeBackend(watch, contract=CONTRACT)
    assert len(list(score_images(good(shelf, 20), backend, batch_size=2, workers=4))) == 20
    assert len(callers) == 1
    assert threading.current_thread().name not in callers


class RunsOutOfMemory(FakeBackend):
    """Takes ``ahead`` batches before it runs the first, and lacks memory for more than ``most``."""

    def __init__(self, ahead: int, most: int) -> None:
        super().__init__(contract=CONTRACT)
        self._ahead, self._most = ahead, most

    def run_many(self, images: Iterable[Batch]) -> Iterator[Run]:
        source, in_flight = iter(images), deque[Batch]()
        while in_flight.extend(islice(source, self._ahead - len(in_flight))) or in_flight:
            if len(in_flight[0]) > self._most:
                raise OutOfMemory("cuda:0", "cuMemAlloc failed: out of memory")
            yield self.run(in_flight.popleft())


@pytest.mark.parametrize("ahead", [1, 2, 3])
@pytest.mark.parametrize("most", [1, 2])
def test_batches_in_flight_when_memory_runs_out_are_run_again(
    shelf: Path, ahead: int, most: int
) -> None:
    paths = good(shelf, 12)
    paths[5:5] = [shelf / "05.broken.png"]
    results = list(score_images(paths, RunsOutOfMemory(ahead, most), batch_size=4, workers=2))
    assert [result.path for result in results] == paths
    for path, result in zip(paths, results, strict=True):
        assert (result.score is None) == ("broken" in path.name)
        assert result.score is None or (result.score == int(path.stem)).all()


def test_half_the_batch_is_tried_when_memory_runs_out(shelf: Path) -> None:
    backend = RunsOutOfMemory(ahead=1, most=3)
    results = list(score_images(good(shelf, 10), backend, batch_size=7, workers=1))
    assert len(results) == 10
    assert backend.batches == [3, 3, 3, 1]


def test_memory_that_does_not_hold_one_image_or_none_is_an_error(shelf: Path) -> None:
    class Full(FakeBackend):
        def run_many(self, images: Iterable[Batch]) -> Iterator[Run]:
            raise OutOfMemory("cuda:0", "out of memory")

    for backend in (RunsOutOfMemory(ahead=2, most=0), Full(contract=CONTRACT)):
        with pytest.raises(OutOfMemory, match="out of memory"):
            list(score_images(good(shelf, 3), backend, batch_size=4, workers=1))


class Counting:
    """Paths that know how many of them were taken when each batch was run."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._paths = paths
        self.taken = 0
        self.at_each_batch: list[int] = []
        self.backend = FakeBackend(self._run, contract=CONTRACT)

    def __iter__(self) -> Iterator[Path]:
        for path in self._paths:
            self.taken += 1
            yield path

    def _run(self, images: Batch) -> Batch:
        self.at_each_batch.append(self.taken)
        return images


@pytest.mark.parametrize(("batch_size", "workers"), [(1, 0), (4, 0), (4, 1), (2, 5)])
@pytest.mark.parametrize("tile", [False, True])
def test_images_are_decoded_ahead_by_a_batch_and_two_for_each_worker(
    shelf: Path, batch_size: int, workers: int, tile: bool
) -> None:
    paths = Counting(good(shelf, 30))
    options = {"batch_size": batch_size, "workers": workers, "tile": tile}
    list(score_images(paths, paths.backend, **options))
    ahead = batch_size + 2 * workers
    run = [min(end, 30) for end in range(batch_size, 30 + batch_size, batch_size)]
    assert paths.at_each_batch == [min(images + ahead, 30) for images in run]


def wide(folder: Path, factors: list[int]) -> list[Path]:
    """Images that are so many times as wide as the network's."""
    paths = []
    for number, factor in enumerate(factors):
        paths.append(folder / f"{number:02}.png")
        columns = np.arange(factor * SHAPE[1]) + 3 * number
        write_png(paths[-1], np.tile(columns.astype(np.uint8), (SHAPE[0], 1)))
    return paths


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("batch_size", [1, 3, 64])
@pytest.mark.parametrize(
    "factors", [[1], [3], [1, 1, 8, 1], [8, 1, 1, 1, 1, 1, 8], [20, 20, 20], [2, 3, 5, 7, 11]]
)
def test_a_batch_of_tiles_spans_images_and_each_gets_its_own_scores(
    tmp_path: Path, factors: list[int], batch_size: int, workers: int
) -> None:
    paths = wide(tmp_path, factors)
    (tmp_path / "broken.png").write_bytes(b"")
    paths[1:1] = [tmp_path / "broken.png"]
    backend = FakeBackend(contract=CONTRACT)
    results = list(score_images(paths, backend, batch_size=batch_size, workers=workers, tile=True))
    assert sorted(result.index for result in results) == list(range(len(paths)))
    for result in results:
        assert result.path == paths[result.index]
        if result.index == 1:
            assert result.error is not None and result.error.reason == "empty"
        else:
            assert result.image is not None and result.score is not None
            np.testing.assert_array_equal(result.image, read_image(result.path))
            np.testing.assert_array_equal(result.score, result.image)
    good_ones = [result.index for result in results if result.error is None]
    assert good_ones == sorted(good_ones)
    assert all(size == batch_size for size in backend.batches[:-1])


@pytest.mark.parametrize(
    ("factors", "wanted"),
    [
        # 1 + 2 * 2 images of the network's size fit: two of twice that size, one of any larger
        ([2] * 12, [3, 4, 5, 6]),
        ([8] * 12, [2, 3, 4, 5]),
    ],
)
def test_large_images_are_decoded_ahead_by_their_pixels(
    tmp_path: Path, factors: list[int], wanted: list[int]
) -> None:
    paths = Counting(wide(tmp_path, factors))
    list(score_images(paths, paths.backend, batch_size=1, workers=2, tile=True))
    first_batches = [taken for taken, _ in itertools.groupby(paths.at_each_batch)]
    assert first_batches[: len(wanted)] == wanted


def test_no_image_is_decoded_ahead_while_a_large_one_is_scored(tmp_path: Path) -> None:
    paths = Counting(wide(tmp_path, [1, 1, 1, 8, 1, 1, 1, 1, 1, 1, 1, 1]))
    list(score_images(paths, paths.backend, batch_size=1, workers=2, tile=True))
    assert paths.at_each_batch[:6] == [6, 7, 8, 8, 8, 8]


def test_an_image_file_of_many_bytes_is_read_for_tiles_only(tmp_path: Path) -> None:
    (path,) = wide(tmp_path, [2])
    with path.open("ab") as file:
        file.truncate(17 << 20)  # more than a file of the network's size can need
    for tile, reason in ((False, "too-large"), (True, None)):
        (result,) = score_images(
            [path], FakeBackend(contract=CONTRACT), batch_size=1, workers=0, tile=tile
        )
        assert (result.error and result.error.reason) == reason


def test_errors_alone_are_reported_after_16_times_a_batch(shelf: Path) -> None:
    paths = Counting([shelf / "00.broken.png"] * 1000)
    for batch_size in (1, 3):
        paths.taken = 0
        results = score_images(paths, paths.backend, batch_size=batch_size, workers=0)
        next(results)
        assert paths.taken == 16 * batch_size + 1
        results.close()


def test_a_backend_overlaps_batches_only_where_there_is_a_thread_for_it(shelf: Path) -> None:
    overlapped = []

    class Overlapping(FakeBackend):
        def run_many(self, images: Iterable[Batch]) -> Iterator[Run]:
            overlapped.append(True)
            return super().run_many(images)

    for workers in (0, 1):
        backend = Overlapping(contract=CONTRACT)
        assert len(list(score_images(good(shelf, 5), backend, batch_size=2, workers=workers))) == 5
        assert overlapped == [True] * workers


def test_two_more_batches_are_run_while_the_caller_has_the_first(shelf: Path) -> None:
    third = threading.Event()

    def run(images: Batch) -> Batch:
        if images.max() == 2:
            third.set()
        return images

    backend = FakeBackend(run, contract=CONTRACT)
    results = score_images(good(shelf, 30), backend, batch_size=1, workers=1)
    next(results)
    assert third.wait(600)
    results.close()


@pytest.mark.parametrize("ahead", [1, 2, 3])
def test_the_trace_has_each_image_in_the_batch_that_ran_it(shelf: Path, ahead: int) -> None:
    trace = Trace()
    backend = RunsOutOfMemory(ahead, most=9)
    list(score_images(good(shelf, 7), backend, batch_size=3, workers=1, trace=trace))
    for stage in ("run", "copy out"):
        batches = [span.images for span in trace.spans if span.stage == stage]
        assert batches == [(0, 1, 2), (3, 4, 5), (6,)]
    for stage in ("read", "decode"):
        images = [span.images for span in trace.spans if span.stage == stage]
        assert sorted(images) == [(index,) for index in range(7)]


def test_16_bit_files_are_read_by_the_sidecars_depth_unless_another_is_declared(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    values = np.linspace(0, 1000, 512).astype(np.uint16).reshape(SHAPE)
    ok, data = cv2.imencode(".png", values)
    assert ok
    paths = [tmp_path / f"{number}.png" for number in range(5)]
    for path in paths:
        path.write_bytes(data.tobytes())

    def largest(bits: int | None, declared: BitDepth | None = None) -> int:
        backend = FakeBackend(contract=CONTRACT)
        sidecar = replace(backend.artifact.sidecar, bits=bits)
        backend.artifact = replace(backend.artifact, sidecar=sidecar)
        results = list(score_images(paths, backend, batch_size=2, workers=2, depth=declared))
        assert all(result.error is None for result in results)
        return max(int(result.image.max()) for result in results if result.image is not None)

    assert largest(12) == round(1000 * 255 / 4095)
    assert largest(10, BitDepth(12)) == largest(12)
    assert not caplog.records
    assert largest(None) == 1000 >> 8
    assert len(caplog.records) == 1, "one line for five images"


def test_the_bytes_of_a_file_are_hashed_only_if_asked_for(shelf: Path) -> None:
    paths = good(shelf, 2)
    for options, hashed in (({}, False), ({"identify": True}, True)):
        backend = FakeBackend(contract=CONTRACT)
        for scored in score_images(paths, backend, batch_size=2, workers=1, **options):
            assert (scored.identity is not None) == hashed
            if scored.identity is not None:
                assert scored.identity.sha256 == digest(scored.path.read_bytes())


def test_tiles_start_on_the_grid_of_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_png(tmp_path / "wide.png", np.zeros((16, 100), np.uint8))
    grids = []

    class Recorded(scoring.Mosaic):
        def __init__(self, image: Image, tiling: Tiling) -> None:
            grids.append((tiling.size_multiple, tiling.reach))
            super().__init__(image, tiling)

    monkeypatch.setattr(scoring, "Mosaic", Recorded)
    for network in (NetworkFacts("near", 4, 2, 3), NetworkFacts("other")):
        backend = FakeBackend(contract=CONTRACT, network=network)
        list(score_images([tmp_path / "wide.png"], backend, batch_size=1, workers=1))
    assert grids == [(4, (2, 3)), (None, None)]


@given(st.lists(st.integers(0, 5), min_size=1, max_size=5), st.integers(1, 2))
def test_a_batch_has_the_pixels_of_its_images_wherever_they_lie(
    places: list[int], step: int
) -> None:
    memory = np.random.default_rng(0).integers(0, 256, (6, *SHAPE), np.uint8)
    images = [memory[place, :, ::step] for place in places]
    batch = scoring._stack(images)
    assert np.array_equal(batch, np.stack(images)[:, None])
    successive = places == list(range(places[0], places[0] + len(places)))
    assert np.shares_memory(batch, memory) == (successive and step == 1)


def test_images_of_different_arrays_are_copied() -> None:
    batch = scoring._stack([numbered(1)[:], numbered(2)[:]])
    assert batch[:, 0, 0, 0].tolist() == [1, 2]


def test_an_image_that_cannot_be_written_is_copied_into_its_batch() -> None:
    """OpenVINO refuses an array that cannot be written, such as one from the bytes of a message."""
    image = np.frombuffer(bytes(range(12)), np.uint8).reshape(3, 4)
    batch = scoring._stack([image])
    assert batch.flags.writeable
    assert np.array_equal(batch, image[None, None])
