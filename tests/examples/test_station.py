"""The example of a station: every part that may not pass is signalled, whatever happens."""

from __future__ import annotations

import runpy
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPOSITORY
from tinyunet_deploy.data import synthetic
from tinyunet_deploy.data.encoding import encode_png
from tinyunet_deploy.errors import ArtifactError

SCRIPT = REPOSITORY / "examples" / "station" / "station.py"
LIMIT_S = 120.0
"""Longest wait for anything; a busy machine is no failure."""


@pytest.fixture(scope="module")
def example() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT), run_name="station")


class Running:
    """A station that runs in a thread, and what it has signalled."""

    def __init__(self, example: dict[str, Any], camera: Path, output: Path) -> None:
        self.rejected: list[str] = []
        self.ready: list[bool] = []
        self.fails = False
        self.stop = threading.Event()
        self.thread = threading.Thread(
            target=example["run_station"],
            args=(camera, output, self._reject, self.ready.append),
            kwargs={"stop": self.stop, "away_s": 0.1, "retry_s": 0.05},
        )

    def _reject(self, name: str, reason: str) -> None:
        if self.fails:
            raise ConnectionError("the PLC does not answer")
        assert reason
        self.rejected.append(name)

    def until(self, condition: Callable[[], bool]) -> None:
        limit = time.monotonic() + LIMIT_S
        while not condition():
            assert self.thread.is_alive()
            assert time.monotonic() < limit, (self.rejected, self.ready)
            time.sleep(0.01)

    def __enter__(self) -> Running:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join()


def put(camera: Path, name: str, *, defective: bool) -> None:
    """Write an image as a careful camera does: under another name first."""
    image = synthetic.sample(4, 0 if defective else 1, defective=defective).image
    (camera / "writing.tmp").write_bytes(encode_png(image))
    (camera / "writing.tmp").rename(camera / name)


@pytest.fixture
def camera(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "camera"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def verdicts(output: Path, count: int) -> Callable[[], bool]:
    report = output / "report.jsonl"
    return lambda: report.exists() and report.read_text().count('"status"') == count


def test_defects_and_parts_without_a_verdict_are_rejected_once_over_restarts(
    example: dict[str, Any], camera: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    put(camera, "1.png", defective=True)
    put(camera, "2.png", defective=False)
    (camera / "3.png").write_bytes((camera / "2.png").read_bytes()[:5000])
    with Running(example, camera, output) as first:
        first.until(verdicts(output, 3))
        first.until(lambda: len(first.rejected) == 2)
    assert sorted(first.rejected) == ["1.png", "3.png"]
    assert first.ready == [True, False]
    with Running(example, camera, output) as second:
        put(camera, "4.png", defective=True)
        second.until(lambda: bool(second.rejected))
    assert second.rejected == ["4.png"]


def test_a_signal_that_failed_is_given_by_the_next_try(
    example: dict[str, Any], camera: Path, tmp_path: Path
) -> None:
    put(camera, "1.png", defective=True)
    with Running(example, camera, tmp_path / "out") as station:
        station.fails = True
        station.until(lambda: False in station.ready)
        station.fails = False
        station.until(lambda: station.rejected == ["1.png"])
        count = len(station.ready)
        station.until(lambda: station.ready[count:] != [] or station.ready[-1])
    assert station.rejected == ["1.png"]


def test_a_lost_folder_is_not_ready_and_is_waited_for(
    example: dict[str, Any], camera: Path, tmp_path: Path
) -> None:
    with Running(example, camera, tmp_path / "out") as station:
        station.until(lambda: station.ready == [True])
        put(camera, "1.png", defective=False)
        station.until(verdicts(tmp_path / "out", 1))
        camera.rename(tmp_path / "away")
        station.until(lambda: station.ready[-1] is False)
        (tmp_path / "away").rename(camera)
        station.until(lambda: station.ready[-1] is True)
        put(camera, "2.png", defective=True)
        station.until(lambda: station.rejected == ["2.png"])


def test_a_model_that_cannot_be_used_ends_it(
    example: dict[str, Any], camera: Path, tmp_path: Path
) -> None:
    ready: list[bool] = []
    with pytest.raises(ArtifactError, match="does not exist"):
        example["run_station"](
            camera,
            tmp_path / "out",
            lambda *_: None,
            ready.append,
            model=tmp_path / "no.onnx",
            stop=threading.Event(),
        )
    assert ready == [False]


def test_a_torn_report_is_read_up_to_the_tear(example: dict[str, Any], tmp_path: Path) -> None:
    report = tmp_path / "report.jsonl"
    assert list(example["written_lines"](report)) == []
    report.write_text('{"path": "1.png", "status": "inspected"}\n{"path": "2.p')
    assert [line["path"] for line in example["written_lines"](report)] == ["1.png"]
