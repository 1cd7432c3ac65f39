"""Processes that decode files and write masks: the bytes of threads, and an end for each death."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.conftest import REPOSITORY
from tinyunet_deploy import systems
from tinyunet_deploy.backends.base import Run
from tinyunet_deploy.contract import Batch, Contract
from tinyunet_deploy.data.encoding import write_png
from tinyunet_deploy.errors import RuntimeUnavailable
from tinyunet_deploy.inspection import file_processes
from tinyunet_deploy.inspection.file_processes import FileProcesses
from tinyunet_deploy.inspection.infer import infer
from tinyunet_deploy.inspection.outputs import Outputs
from tinyunet_deploy.inspection.report_line import ReportLine, RunSummary
from tinyunet_deploy.inspection.scoring import address
from tinyunet_deploy.testing.fake_backend import FakeBackend

pytestmark = pytest.mark.skipif(
    not systems.INHERITS_DESCRIPTORS, reason="this system runs threads only"
)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Images of each kind: whole, small, broken, 16 bits without a depth, one in a folder."""
    folder = tmp_path / "photos"
    (folder / "side").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(40):
        image = rng.integers(0, 100, (64, 64), np.uint8)
        image[8:20, 10 : 10 + number] = 250
        cv2.imwrite(str(folder / f"{number:03}.png"), image)
    cv2.imwrite(str(folder / "side" / "small.png"), rng.integers(0, 255, (40, 50), np.uint8))
    cv2.imwrite(str(folder / "last.png"), image)
    (folder / "last.png").rename(folder / os.fsdecode(b"\xff.png"))  # a name that is no text
    (folder / "010.png").write_bytes((folder / "010.png").read_bytes()[:-30])
    (folder / "011.png").write_bytes(b"")
    for number in (20, 21):
        deep = rng.integers(0, 4000, (64, 64)).astype(np.uint16)
        cv2.imwrite(str(folder / f"{number:03}.png"), deep)
    return folder


def starting_at_once(monkeypatch: pytest.MonkeyPatch) -> list[FileProcesses]:
    """Start the processes before the first image, not once threads are busy; list their runs."""
    runs: list[FileProcesses] = []
    initialise = FileProcesses.__init__

    def start(self: FileProcesses, *args: object, **options: object) -> None:
        initialise(self, *args, **options)  # type: ignore[arg-type]
        self._start()
        runs.append(self)

    monkeypatch.setattr(FileProcesses, "__init__", start)
    return runs


@pytest.fixture
def _from_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    starting_at_once(monkeypatch)


def inspect(photos: Path, output: Path, **options: object) -> tuple[RunSummary, list[ReportLine]]:
    lines: list[ReportLine] = []
    summary = infer(
        [photos],
        output,
        FakeBackend(contract=Contract(64, 64)),
        threshold=0.8,
        batch_size=3,
        on_line=lines.append,
        **{"workers": 2, **options},  # type: ignore[arg-type]
    )
    return summary, lines


def tree(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    messages = [record.getMessage() for record in caplog.records]
    caplog.clear()
    return messages


def test_every_byte_is_that_of_threads(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    outputs = Outputs(overlays=True, scores=True, contours=True, mm_per_px=0.1)
    threads = inspect(photos, tmp_path / "threads", outputs=outputs, workers=0)[0]
    said = warnings_of(caplog)
    started = starting_at_once(monkeypatch)
    processes = inspect(photos, tmp_path / "processes", outputs=outputs)[0]
    assert processes == threads
    assert tree(tmp_path / "processes") == tree(tmp_path / "threads")
    assert len(warnings_of(caplog)) == len(said) == 2  # shallow images once, and small ones
    (used,) = started
    assert not used._driver_of
    assert used._free == set(range(used._slot_count))
    assert all(process._popen.returncode == 0 for process in used._processes)


def test_a_batch_and_its_scores_stay_in_the_shared_memory(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = starting_at_once(monkeypatch)
    shared: list[bool] = []

    class Watching(FakeBackend):
        def _run(self, image: Batch) -> Run:
            scores = self._new_scores(image)
            scores[:] = image
            shared.append(np.shares_memory(image, started[0]._images))
            if shared[-1]:
                at = address(image) - address(started[0]._images)
                assert address(scores) - address(started[0]._scores) == at
            return Run(scores, 0.0)

    for name in ("010.png", "011.png"):
        (photos / name).unlink()  # without a slot of their own, each shifts the batches
    backend = Watching(contract=Contract(64, 64))
    infer([photos], tmp_path / "out", backend, threshold=0.8, batch_size=4, workers=2)
    assert shared[:9] == [True] * 9  # the last image is smaller than a slot
    inspect(photos, tmp_path / "threads", workers=0)
    masks = [tree(tmp_path / run / "masks") for run in ("out", "threads")]
    assert masks[0] == masks[1]


def test_an_observer_has_every_image(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = starting_at_once(monkeypatch)
    names: list[str] = []
    summary, _ = inspect(
        photos, tmp_path / "out", observer=lambda name, image, score: names.append(name)
    )
    assert not started
    assert len(set(names)) == len(names) == summary.inspected


@pytest.mark.skipif(sys.platform != "linux", reason="paths longer than other systems take")
def test_messages_longer_than_a_pipe_do_not_wait_for_each_other(tmp_path: Path) -> None:
    """Eight requests or eight answers with these names are twice as long as Linux's pipes."""
    long = "/".join(["\x01" * 240] * 13)
    folder, output = tmp_path / "photos" / long, tmp_path / "out"
    for made in (folder, output / "masks" / long):
        made.mkdir(parents=True)
    write_png(folder / "0.png", np.zeros((32, 32), np.uint8))
    paths = [folder / f"{number}.png" for number in range(64)]
    for path in paths[1:]:
        path.hardlink_to(paths[0])
    inspection = file_processes.Inspection(tmp_path / "photos", output, 0.5, 1)
    files = FileProcesses(inspection, Contract(32, 32), batch_size=8, workers=1)
    files._start()
    decoded = [files.decode(index, paths[index]).result(60) for index in range(40)]
    lines = [files.finish(replace(scored, score=scored.image)) for scored in decoded]
    images = [files.decode(index, paths[index]) for index in range(40, 64)]
    try:
        assert [line.result(60)["path"] for line in lines] == [
            f"{long}/{path.name}" for path in paths[:40]
        ]
        assert [image.result(60).path for image in images] == paths[40:]
    finally:
        if not all(future.done() for future in (*lines, *images)):
            files._processes[0].kill()
        files.close()


@pytest.mark.nightly
@pytest.mark.usefixtures("_from_the_start")
def test_images_larger_than_a_slot_go_to_threads(photos: Path, tmp_path: Path) -> None:
    for number in range(30, 34):
        image = np.random.default_rng(number).integers(0, 255, (200, 150), np.uint8)
        cv2.imwrite(str(photos / f"{number:03}.png"), image)
    summary = inspect(photos, tmp_path / "processes")[0]
    assert summary.tiled == 4
    assert summary == inspect(photos, tmp_path / "threads", workers=0)[0]
    assert tree(tmp_path / "processes") == tree(tmp_path / "threads")


@pytest.mark.usefixtures("_from_the_start")
@pytest.mark.parametrize("when", [0, pytest.param(12, marks=pytest.mark.nightly)])
def test_a_killed_process_ends_the_run_which_is_resumed(
    photos: Path, tmp_path: Path, when: int
) -> None:
    def kill(lines: list[ReportLine]) -> None:
        if len(lines) >= when:
            for child in systems.child_processes():
                os.kill(child, signal.SIGKILL)

    output = tmp_path / "out"
    seen: list[ReportLine] = []

    class Killing(FakeBackend):
        def _run(self, image):  # type: ignore[no-untyped-def]
            kill(seen)
            return super()._run(image)

    backend = Killing(contract=Contract(64, 64))
    with pytest.raises(RuntimeUnavailable, match="was killed") as caught:
        infer(
            [photos],
            output,
            backend,
            threshold=0.8,
            batch_size=1,
            workers=2,
            on_line=seen.append,
        )
    assert caught.value.exit_code == 5
    assert not systems.child_processes()
    inspect(photos, output)
    inspect(photos, tmp_path / "fresh", workers=0)
    assert {n: d for n, d in tree(output).items() if n != "run.json"} == {
        n: d for n, d in tree(tmp_path / "fresh").items() if n != "run.json"
    }


@pytest.mark.nightly
@pytest.mark.usefixtures("_from_the_start")
def test_an_error_of_the_disk_comes_through(photos: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"

    with pytest.raises(RuntimeUnavailable) as caught:
        infer(
            [photos],
            output,
            FakeBackend(contract=Contract(64, 64)),
            threshold=0.8,
            batch_size=1,
            workers=2,
            on_line=lambda _: output.exists() and output.rename(tmp_path / "aside"),
        )
    assert str(caught.value).startswith(str(output))
    assert not systems.child_processes()


def test_a_process_that_does_not_start_leaves_the_threads(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    starting_at_once(monkeypatch)
    with caplog.at_level(logging.WARNING):
        summary = inspect(photos, tmp_path / "out")[0]
    assert any("cannot be started" in line for line in warnings_of(caplog))
    assert summary == inspect(photos, tmp_path / "threads", workers=0)[0]


@pytest.mark.usefixtures("_from_the_start")
def test_a_limit_that_no_message_can_hold_leaves_the_threads(
    photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        summary = inspect(photos, tmp_path / "out", max_pixels=2**64)[0]
    assert any("cannot be started" in line for line in warnings_of(caplog))
    assert summary == inspect(photos, tmp_path / "threads", workers=0)[0]
    assert not systems.child_processes()


@pytest.mark.parametrize(
    ("busy_s", "files", "elapsed_s", "size", "wanted"),
    [
        (9.0, 300, 5.0, 512, True),
        (4.0, 300, 5.0, 512, False),  # the backend is slower than the threads
        (9.0, 200, 5.0, 512, False),
        (1.9, 300, 0.9, 512, False),
        (9.0, 300, 5.0, 4096, False),  # so large that threads do not wait for each other
    ],
)
def test_they_start_where_files_limit_the_rate(
    tmp_path: Path, busy_s: float, files: int, elapsed_s: float, size: int, wanted: bool
) -> None:
    inspection = file_processes.Inspection(tmp_path, tmp_path / "out", 0.5, 1)
    run = FileProcesses(inspection, Contract(size, size), batch_size=4, workers=2)
    run._busy_s, run._files = busy_s, files
    assert run._is_worth_it(elapsed_s) is wanted
    run.close()


PROGRAM = """
import sys
from pathlib import Path
from tinyunet_deploy.cli import stopping
from tinyunet_deploy.contract import Contract
from tinyunet_deploy.inspection.file_processes import FileProcesses
from tinyunet_deploy.inspection.infer import infer
from tinyunet_deploy.testing.fake_backend import FakeBackend

initialise = FileProcesses.__init__
def start(self, *args, **options):
    initialise(self, *args, **options)
    self._start()
    print(*[process._popen.pid for process in self._processes], flush=True)
FileProcesses.__init__ = start

with stopping.ended_by_signals():
    backend = FakeBackend(contract=Contract(64, 64), delay_s=0.2)
    infer([Path(sys.argv[1])], Path(sys.argv[2]), backend, threshold=0.8, batch_size=1, workers=2,
          on_line=lambda line: stopping.safe_place())
"""


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGINT,
        *(pytest.param(n, marks=pytest.mark.nightly) for n in (signal.SIGTERM, signal.SIGKILL)),
    ],
)
def test_signals_end_the_run_and_its_processes(
    photos: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """The signal goes to the whole group, as from a terminal; SIGKILL to the run alone."""
    command = [sys.executable, "-c", PROGRAM, str(photos), str(tmp_path / "out")]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=REPOSITORY, start_new_session=True)
    assert run.stdout is not None
    children = [int(pid) for pid in run.stdout.readline().split()]
    assert len(children) == 2
    while not list((tmp_path / "out").glob("masks/*.png")):
        assert run.poll() is None
        time.sleep(0.02)
    if number == signal.SIGKILL:
        run.kill()
    else:
        os.killpg(run.pid, number)
    code = run.wait(30)
    run.stdout.close()
    assert code == (-number if number == signal.SIGKILL else 128 + number)
    end = time.monotonic() + 30
    while any(Path(f"/proc/{child}/cmdline").exists() for child in children):
        assert time.monotonic() < end, "a process outlives its run"
        time.sleep(0.02)
    if number != signal.SIGKILL:
        assert not list((tmp_path / "out").rglob("*.part"))
