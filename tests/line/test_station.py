"""A station in this process and in several. Deadlines are out of reach of a busy machine."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import SIZE, part
from tinyunet_deploy.contract import Contract
from tinyunet_deploy.data.encoding import write_png
from tinyunet_deploy.errors import ImageError, RefusedError, RuntimeUnavailable
from tinyunet_deploy.host import processors
from tinyunet_deploy.line import station as module
from tinyunet_deploy.line.belt import Belt
from tinyunet_deploy.line.live import run_live
from tinyunet_deploy.line.station import MOST_IMAGES, WARM_UP, open_station
from tinyunet_deploy.testing.fake_backend import FakeBackend

FAR = Belt(3000, deadline_ms=600_000, cameras=2, processes=2, buffer=1000)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeBackend:
    """Scores are the image itself: a bright rectangle is a defect."""
    backend = FakeBackend(contract=Contract(SIZE, SIZE))
    monkeypatch.setattr(module, "open_backend", lambda *_, **__: backend)
    return backend


def ignore(_: ImageError) -> None:
    """Skip an image without a word."""


def test_images_are_shown_in_turn_to_a_warm_model(tmp_path: Path, fake: FakeBackend) -> None:
    for seed in range(3):  # those of odd seeds have defects
        write_png(tmp_path / f"{seed}.png", part(seed))
    with open_station([tmp_path], 1, skipped=ignore) as ready:
        assert fake.batches == [1] * WARM_UP
        (inspect,) = ready.inspectors
        verdicts = [inspect(number) for number in range(6)]
        assert verdicts[:3] == verdicts[3:] == ["OK", "NG", "NG"]
        assert ready.facts["images"] == 3
        assert (ready.facts["model"], ready.facts["backend"]) == ("fake.onnx", "fake")


def test_unusable_images_are_skipped_and_memory_is_bounded(
    tmp_path: Path, fake: FakeBackend
) -> None:
    write_png(tmp_path / "a large one.png", np.zeros((80, 80), np.uint8))
    skipped: list[ImageError] = []
    with (
        pytest.raises(RefusedError, match="contains no usable image"),
        open_station([tmp_path], 1, tile=False, skipped=skipped.append),
    ):
        pass
    assert [error.reason for error in skipped] == ["wrong-size"]
    for number in range(MOST_IMAGES + 5):
        write_png(tmp_path / f"{number:03}.png", part(1))
    (tmp_path / "0 broken.png").write_bytes(b"no image")
    skipped.clear()
    with open_station([tmp_path], 1, tile=False, skipped=skipped.append) as ready:
        assert ready.facts["images"] == MOST_IMAGES
    assert [error.reason for error in skipped] == ["not-an-image"]


def test_a_part_in_tiles_costs_a_call_for_each(
    tmp_path: Path, fake: FakeBackend, caplog: pytest.LogCaptureFixture
) -> None:
    """Whole, padded and tiled; the last has its only defect in its last tile."""
    tiled = np.zeros((SIZE, 3 * SIZE), np.uint8)
    tiled[40:50, -9:] = 200
    for name, image in (("0", part(1)), ("1", part(2, height=40)), ("2", tiled)):
        write_png(tmp_path / f"{name}.png", image)
    write_png(tmp_path / "3.png", part(1)[:15])
    skipped: list[ImageError] = []
    with open_station([tmp_path], 1, skipped=skipped.append) as ready:
        tiles = fake.artifact.sidecar.tiling.tile_count(tiled.shape)
        assert tiles > 3
        facts = ready.facts
        assert (facts["images"], facts["padded"], facts["tiled"]) == (3, 1, 1)
        assert facts["inputs_per_image"] == (1 + 1 + tiles) / 3
        assert facts["approximate"] == 1, "64 pixels are too few for this reach"
        calls = []
        for number in range(3):
            fake.batches.clear()
            assert ready.inspectors[0](number) == "NG"
            calls.append(fake.batches[:])
        assert calls == [[1], [1], [1] * tiles]
    assert [error.reason for error in skipped] == ["wrong-size"], "fewer than 16 pixels"
    assert "note: images of another size than the model's: 1 padded" in caplog.text


def test_processes_inspect_and_one_that_dies_ends_the_run(station: Path, tiny_onnx: Path) -> None:
    opened = open_station([station], 2, model=tiny_onnx, backend="onnxruntime", skipped=ignore)
    with opened as ready:
        children = multiprocessing.active_children()
        assert len(children) == len(ready.inspectors) == 2
        shares = sorted(sorted(os.sched_getaffinity(child.pid or 0)) for child in children)
        usable = processors()
        assert shares == sorted(list(usable[first::2] or usable) for first in range(2))
        live = run_live(FAR, ready.inspectors, parts=10, seed=0)
        assert (live.outcome.missed, live.outcome.dropped) == (0, 0)
        multiprocessing.active_children()[0].kill()
        with pytest.raises(RuntimeUnavailable, match="an inspecting process: ended"):
            run_live(FAR, ready.inspectors, parts=100, seed=0)
    assert multiprocessing.active_children() == []


def test_a_process_that_cannot_load_says_why(station: Path, fake: FakeBackend) -> None:
    """The parent's backend is a fake, which the processes do not find in the table."""
    with (
        pytest.raises(RuntimeUnavailable, match="an inspecting process: fake: is not a backend"),
        open_station([station], 2, skipped=ignore),
    ):
        pass
