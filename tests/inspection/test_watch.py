"""``tinyunet watch``: parts as a camera drops them."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import REPOSITORY, SIZE, part
from tinyunet_deploy.contract import Batch, Contract
from tinyunet_deploy.data.decoding import read_image
from tinyunet_deploy.data.encoding import encode_png, write_png
from tinyunet_deploy.errors import RefusedError, RuntimeUnavailable
from tinyunet_deploy.inspection import watch_verdicts
from tinyunet_deploy.inspection.infer import infer
from tinyunet_deploy.inspection.outputs import Inspection, Outputs
from tinyunet_deploy.inspection.report_line import ReportLine
from tinyunet_deploy.inspection.run_report import read_report
from tinyunet_deploy.inspection.watch import Watched, watch
from tinyunet_deploy.testing.fake_backend import FakeBackend


class Watch:
    """A watch in a thread; ``line()`` is the next verdict."""

    def __init__(self, folder: Path, output: Path, backend: FakeBackend, **options: Any) -> None:
        self.lines: queue.Queue[ReportLine | BaseException] = queue.Queue()
        self.stop = threading.Event()
        self.watched: Watched | None = None

        def work() -> None:
            try:
                self.watched = watch(
                    folder,
                    output,
                    backend,
                    threshold=0.5,
                    min_area=4,
                    workers=2,
                    stop=self.stop,
                    on_line=self.lines.put,
                    **{"batch_size": 2, "outputs": Outputs(), "settle_ms": 40, **options},
                )
            except BaseException as error:
                self.lines.put(error)

        self.thread = threading.Thread(target=work)
        self.thread.start()

    def line(self) -> ReportLine:
        line = self.lines.get(timeout=600)
        if isinstance(line, BaseException):
            raise line
        return line

    def silent(self, seconds: float) -> bool:
        try:
            self.lines.get(timeout=seconds)
        except queue.Empty:
            return True
        return False

    def end(self) -> Watched:
        self.stop.set()
        self.thread.join()
        assert self.watched is not None
        return self.watched


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Any]:
    """Start a watch of ``in`` into ``out``."""
    (tmp_path / "in").mkdir()
    watches = []

    def start(backend: FakeBackend | None = None, **options: Any) -> Watch:
        backend = backend or FakeBackend(contract=Contract(SIZE, SIZE))
        watches.append(Watch(tmp_path / "in", tmp_path / "out", backend, **options))
        return watches[-1]

    yield start
    for each in watches:
        each.stop.set()
        each.thread.join()


def bare(lines: list[ReportLine]) -> list[ReportLine]:
    """Lines as ``infer`` writes them."""
    own = {"latency_ms", "late", "ctime_ns", "inode"}
    return [{key: line[key] for key in line if key not in own} for line in lines]


def test_an_observer_has_the_pixels_of_a_part_before_its_line(start: Any, tmp_path: Path) -> None:
    observed: dict[str, tuple[Any, Any]] = {}

    def observe(name: str, image: Any, score: Any) -> None:
        observed[name] = image, score

    watching = start(observer=observe)
    (tmp_path / "in" / "0-broken.png").write_bytes(b"no image")
    write_png(tmp_path / "in" / "1.png", part(1))
    line = watching.line()
    assert (line["path"], line["verdict"]) == ("1.png", "NG")
    assert list(observed) == ["1.png"], "a skipped image is not observed"
    image, score = observed["1.png"]
    assert np.array_equal(image, part(1))
    assert np.array_equal(score, part(1)), "the fake's scores are its images"
    watching.end()


def test_parts_get_their_verdicts_as_they_come(start: Any, tmp_path: Path) -> None:
    write_png(tmp_path / "in" / "z-before.png", part(1))
    watching = start()
    first = watching.line()
    assert (first["path"], first["verdict"], first["latency_ms"]) == ("z-before.png", "NG", None)
    for seed in range(5):
        path = tmp_path / "in" / "lot 1" / f"{seed}.png"
        path.parent.mkdir(exist_ok=True)
        write_png(path, part(seed))
        line = watching.line()
        assert line["path"] == f"lot 1/{seed}.png"
        assert line["verdict"] == ("NG" if seed % 3 else "OK")
        assert line["latency_ms"] >= 40
        mask = read_image(tmp_path / "out" / "masks" / line["path"])
        assert np.array_equal(mask == 255, part(seed) > 128), "in place before it is told"
    watched = watching.end()
    assert (watched.summary.images, watched.timed, watched.late) == (6, 5, 0)
    infer(
        [tmp_path / "in"],
        tmp_path / "infer",
        FakeBackend(contract=Contract(SIZE, SIZE)),
        threshold=0.5,
        min_area=4,
        batch_size=2,
        workers=2,
    )
    lines, summary = read_report(tmp_path / "out" / "report.jsonl")
    wanted, told = read_report(tmp_path / "infer" / "report.jsonl")
    assert bare(lines) == wanted
    assert summary == told == watched.summary


def test_half_a_file_is_waited_for(start: Any, tmp_path: Path) -> None:
    data = encode_png(part(1))
    watching = start()
    with (tmp_path / "in" / "slow.png").open("wb") as file:
        for piece in (data[:10], data[10:-20]):
            file.write(piece)
            file.flush()
            assert watching.silent(0.2), "stable, but not an image yet"
        file.write(data[-20:])
    assert watching.line()["status"] == "inspected"
    assert watching.end().summary.skipped == 0


def test_a_file_is_taken_when_it_has_its_name(start: Any, tmp_path: Path) -> None:
    watching = start()
    for name in ("a.png.tmp", ".b.png"):
        (tmp_path / "in" / name).write_bytes(encode_png(part(1)))
    assert watching.silent(0.2)
    (tmp_path / "in" / "a.png.tmp").rename(tmp_path / "in" / "a.png")
    assert watching.line()["path"] == "a.png"
    (tmp_path / "in" / ".b.png").rename(tmp_path / "in" / "b.png")
    assert watching.line()["path"] == "b.png"


def test_what_stays_broken_is_given_up_on_and_reported(start: Any, tmp_path: Path) -> None:
    write_png(tmp_path / "in" / "before.png", part(0))
    watching = start(patience_s=0.3)
    watching.line()
    (tmp_path / "in" / "cut.png").write_bytes(encode_png(part(1))[:-20])
    write_png(tmp_path / "in" / "thin.png", np.zeros((SIZE, 8), np.uint8))
    lines = sorted([watching.line(), watching.line()], key=lambda line: line["path"])
    assert [line["reason"] for line in lines] == ["truncated", "wrong-size"]
    assert lines[0]["latency_ms"] >= 300
    assert watching.end().summary.reasons == {"wrong-size": 1, "truncated": 1}


def test_a_file_that_changes_while_it_is_inspected_is_inspected_again(
    start: Any, tmp_path: Path
) -> None:
    path = tmp_path / "in" / "a.png"
    calls = []

    def rewrite(batch: Batch) -> Batch:
        calls.append(batch)
        if len(calls) == 1:
            write_png(path, np.full((SIZE, SIZE), 255, np.uint8))
        return batch

    watching = start(FakeBackend(rewrite, contract=Contract(SIZE, SIZE)))
    write_png(path, np.zeros((SIZE, SIZE), np.uint8))
    assert watching.line()["verdict"] == "NG"
    assert watching.end().summary.images == 1
    assert read_image(tmp_path / "out" / "masks" / "a.png").min() == 255


def test_a_file_that_changes_after_its_verdict_is_another_part(
    start: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "in" / "a.png"
    watching = start(outputs=Outputs(overlays=True))
    write_png(path, np.zeros((SIZE, SIZE), np.uint8))
    assert watching.line()["verdict"] == "OK"
    write_png(path, np.full((SIZE, SIZE), 255, np.uint8))
    changed = watching.line()
    assert (changed["path"], changed["change"], changed["verdict"]) == ("a.png", 1, "NG")
    assert "a.png: changed after its verdict: another part, change 1" in caplog.text
    path.touch()
    assert watching.silent(0.2), "the same bytes are the same part"
    assert watching.end().summary.images == 2
    assert read_image(tmp_path / "out" / "masks" / "a.png").max() == 0
    assert read_image(tmp_path / "out" / "masks" / "a-change1.png").min() == 255
    lines, _ = read_report(tmp_path / "out" / "report.jsonl")
    assert [line["verdict"] for line in lines] == ["OK", "NG"]
    write_png(path, np.zeros((SIZE, SIZE), np.uint8))
    again = start(outputs=Outputs(overlays=True))
    assert again.line()["change"] == 2, "also while nobody watched"
    assert again.end().summary.images == 3
    path.unlink()
    assert start(outputs=Outputs(overlays=True)).end().summary.images == 3, "parts that passed"


def arrives(path: Path, grey: int, how: str) -> None:
    """A part of one size and one time, as a camera with a stopped clock writes it."""
    new = path.with_suffix(".tmp") if how == "renamed" else path
    new.write_bytes(b"P5 %d %d 255\n" % (SIZE, SIZE) + bytes([grey]) * (SIZE * SIZE))
    os.utime(new, ns=(10**18, 10**18))
    if new != path:
        new.rename(path)


@pytest.mark.parametrize("how", ["renamed", "copied"])
def test_another_part_may_have_the_name_size_and_time_of_the_one_before(
    start: Any, tmp_path: Path, how: str
) -> None:
    path = tmp_path / "in" / "current.pgm"
    watching = start()
    arrives(path, 0, how)
    assert watching.line()["verdict"] == "OK"
    arrives(path, 255, how)
    line = watching.line()
    assert (line["path"], line["change"], line["verdict"]) == ("current.pgm", 1, "NG")
    arrives(path, 255, how)
    assert watching.silent(0.2), "the same bytes are the same part"
    watching.end()
    known = start()
    assert known.silent(0.2), "known to the next watch"
    known.end()
    arrives(path, 0, how)
    again = start()
    assert again.line()["change"] == 2, "also while nobody watched"
    assert again.end().summary.images == 3


def test_files_that_nobody_changed_are_not_read_again_by_the_next_watch(
    start: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "in" / "a.png"
    write_png(path, part(1))
    watching = start()
    watching.line()
    watching.end()
    report = tmp_path / "out" / "report.jsonl"
    line, summary = report.read_text().splitlines()
    old = {
        key: value for key, value in json.loads(line).items() if key not in ("ctime_ns", "inode")
    }
    report.write_text(f"{json.dumps(old)}\n{summary}\n")
    read: list[Path] = []
    hash_of = watch_verdicts.content_hash
    monkeypatch.setattr(
        watch_verdicts, "content_hash", lambda path: read.append(path) or hash_of(path)
    )
    for _ in range(2):
        start().end()
        assert read == [path], "once, as an earlier version did not write down all of its state"
    path.chmod(0o600)
    start().end()
    assert read == [path] * 2
    assert [line["path"] for line in read_report(report)[0]] == ["a.png"]


def test_a_file_too_large_to_be_read_is_reported_once(start: Any, tmp_path: Path) -> None:
    watching = start(tile=False)
    with (tmp_path / "in" / "a.bmp").open("wb") as file:
        file.truncate(32 << 20)
    assert watching.line()["reason"] == "too-large"
    assert watching.silent(0.3)
    watching.end()


def test_a_preallocated_file_is_not_judged_before_it_is_filled(start: Any, tmp_path: Path) -> None:
    """Its size and time stay, as where it is written through memory, or on a coarse clock."""
    path = tmp_path / "in" / "a.pgm"
    header = b"P5 %d %d 255\n" % (SIZE, SIZE)
    watching = start(settle_ms=300)
    for filled in range(0, SIZE * SIZE, SIZE * SIZE // 8):
        path.write_bytes(header + bytes([200]) * filled + bytes(SIZE * SIZE - filled))
        os.utime(path, ns=(10**18, 10**18))
        assert watching.silent(0.1)
    path.write_bytes(header + bytes([200]) * (SIZE * SIZE))
    os.utime(path, ns=(10**18, 10**18))
    line = watching.line()
    assert line["defects"][0]["area_px"] == SIZE * SIZE
    assert watching.end().summary.images == 1


def test_a_missing_mask_is_made_again_by_the_next_watch(start: Any, tmp_path: Path) -> None:
    write_png(tmp_path / "in" / "a.png", part(1))
    watching = start()
    watching.line()
    watching.end()
    mask = tmp_path / "out" / "masks" / "a.png"
    before = mask.read_bytes()
    mask.unlink()
    again = start()
    again.line()
    assert again.end().summary.images == 1
    assert mask.read_bytes() == before


@pytest.mark.parametrize("how", ["deleted", "replaced"])
def test_a_watch_whose_output_is_deleted_ends_with_an_error(
    start: Any, tmp_path: Path, how: str
) -> None:
    watching = start()
    write_png(tmp_path / "in" / "a.png", part(1))
    watching.line()
    (tmp_path / "out").rename(tmp_path / "aside")
    if how == "replaced":
        (tmp_path / "other").mkdir()
        (tmp_path / "out").symlink_to("other")
    with pytest.raises(RuntimeUnavailable, match="was deleted or replaced while it was written"):
        watching.line()
    if how == "deleted":
        assert not (tmp_path / "out").exists(), "nothing is left that the next watch would refuse"
        assert start().line()["path"] == "a.png"


def test_files_that_are_taken_away_in_time_were_never_there(start: Any, tmp_path: Path) -> None:
    watching = start()
    (tmp_path / "in" / "cut.png").write_bytes(b"half")
    assert watching.silent(0.15)
    (tmp_path / "in" / "cut.png").unlink()
    write_png(tmp_path / "in" / "a.png", part(0))
    assert watching.line()["path"] == "a.png"
    assert watching.end().summary.images == 1


def test_late_verdicts_are_marked_and_counted(start: Any, tmp_path: Path) -> None:
    write_png(tmp_path / "in" / "a.png", part(0))
    watching = start(deadline_ms=1, outputs=Outputs(overlays=True))
    assert watching.line()["late"] is False, "it lay there"
    write_png(tmp_path / "in" / "b.png", part(0))
    assert watching.line()["late"] is True
    watched = watching.end()
    assert (watched.timed, watched.late) == (1, 1)
    assert (tmp_path / "out" / "overlays" / "b.jpg").exists()


def test_a_stopped_watch_is_gone_on_with_and_tells_nothing_twice(
    start: Any, tmp_path: Path
) -> None:
    for seed in range(20):
        write_png(tmp_path / "in" / f"{seed:02}.png", part(seed))
    watching = start(FakeBackend(contract=Contract(SIZE, SIZE), delay_s=0.02))
    told = [watching.line()["path"] for _ in range(3)]
    early = watching.end().summary
    assert 3 <= early.images < 20, "it does not finish the heap first"
    while not watching.lines.empty():
        told.append(watching.line()["path"])
    assert len(told) == early.images
    again = start()
    told += [again.line()["path"] for _ in range(20 - early.images)]
    assert sorted(told) == [f"{seed:02}.png" for seed in range(20)]
    assert again.end().summary.images == 20
    lines, summary = read_report(tmp_path / "out" / "report.jsonl")
    assert [line["path"] for line in lines] == sorted(told)
    assert summary is not None


def test_the_folder_may_be_away_for_a_while_but_not_for_good(start: Any, tmp_path: Path) -> None:
    watching = start()
    write_png(tmp_path / "in" / "a.png", part(0))
    watching.line()
    (tmp_path / "in").rename(tmp_path / "away")
    assert watching.silent(0.15)
    write_png(tmp_path / "away" / "b.png", part(0))
    (tmp_path / "away").rename(tmp_path / "in")
    assert watching.line()["path"] == "b.png"
    watching.end()
    impatient = start(away_s=0.1)
    assert impatient.silent(0.1)
    (tmp_path / "in").rename(tmp_path / "away")
    with pytest.raises(RefusedError, match="in: does not exist"):
        impatient.line()


# Time that the test drives

Act = Callable[["ScriptedClock"], object]
"""Happens at an instant; takes the clock, which it may set forward."""


class ScriptedClock:
    """Time that passes only in waits; at given instants something happens, in the same thread."""

    def __init__(self, *script: tuple[float, Act], late_s: float = 0.0) -> None:
        self.now = 0.0
        self._late_s = late_s
        self._script = sorted(script, key=lambda entry: entry[0])

    def now_s(self) -> float:
        return self.now

    def condition(self) -> threading.Condition:
        raise NotImplementedError

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        self.now += timeout_s + self._late_s
        while self._script and self._script[0][0] <= self.now:
            self._script.pop(0)[1](self)
        return event.is_set()


def scripted(
    folder: Path, *script: tuple[float, Act], end_s: float, late_s: float = 0.0, **options: Any
) -> tuple[list[tuple[float, str, str]], Watched]:
    """Watch ``in`` until ``end_s``; the seconds, name and reason, or verdict, of each line.

    Args:
        late_s: how much longer than requested every wait takes.
    """
    (folder / "in").mkdir(exist_ok=True)
    stop = threading.Event()
    clock = ScriptedClock(*script, (end_s, lambda _: stop.set()), late_s=late_s)
    lines: list[tuple[float, str, str]] = []

    def keep(line: ReportLine) -> None:
        told = line["verdict"] if line["status"] == "inspected" else line["reason"]
        lines.append((round(clock.now, 3), line["path"], told))

    watched = watch(
        folder / "in",
        folder / "out",
        FakeBackend(contract=Contract(SIZE, SIZE)),
        threshold=0.5,
        min_area=4,
        batch_size=2,
        workers=0,
        stop=stop,
        **{"outputs": Outputs(), "settle_ms": 100, "on_line": keep, "clock": clock, **options},
    )
    return lines, watched


def test_a_file_is_judged_once_it_has_settled(tmp_path: Path) -> None:
    path = tmp_path / "in" / "a.png"
    data = encode_png(part(1))
    script = [
        (1.0, lambda _: path.write_bytes(data[:50])),
        (1.05, lambda _: path.write_bytes(data)),
    ]
    (line,), _ = scripted(tmp_path, *script, end_s=3.0)
    assert line == (1.15, "a.png", "NG")


def test_a_broken_file_is_given_up_on_after_its_patience(tmp_path: Path) -> None:
    path = tmp_path / "in" / "cut.png"
    script = (1.0, lambda _: path.write_bytes(encode_png(part(1))[:-20]))
    lines, _ = scripted(tmp_path, script, end_s=5.9)
    assert lines == [], "five seconds are not over"
    lines, _ = scripted(tmp_path, end_s=6.0)
    ((at_s, *line),) = lines
    assert line == ["cut.png", "truncated"]
    assert 5.0 <= at_s < 5.1


@pytest.mark.parametrize("hours", [0.01, 100])
def test_the_time_in_which_the_process_was_stopped_is_not_patience(
    tmp_path: Path, hours: float
) -> None:
    """Its writer was stopped as well: a whole machine was."""
    path = tmp_path / "in" / "slow.png"
    data = encode_png(part(1))
    after = hours * 3600

    def suspend(clock: ScriptedClock) -> None:
        clock.now += after

    lines, watched = scripted(
        tmp_path,
        (1.0, lambda _: path.write_bytes(data[:-20])),
        (2.0, suspend),
        (after + 4.0, lambda _: path.write_bytes(data)),
        end_s=after + 9.0,
    )
    ((_, name, verdict),) = lines
    assert (name, verdict) == ("slow.png", "NG")
    assert watched.summary.skipped == 0


def test_on_a_machine_where_every_wait_is_late_files_settle_all_the_same(tmp_path: Path) -> None:
    data = encode_png(part(1))

    def arrive(_: object = None) -> None:
        for name, length in (("cut.png", -20), ("whole.png", None)):
            (tmp_path / "in" / name).write_bytes(data[:length])

    lines, _ = scripted(tmp_path, (1.0, arrive), end_s=200.0, late_s=2.0)
    times = {name: at_s for at_s, name, _ in lines}
    assert times["whole.png"] < 12.0
    assert times["cut.png"] < 32.0, "five seconds of patience"


def test_a_folder_is_away_by_the_clock_of_the_watch(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()

    def leave(_: object = None) -> None:
        (tmp_path / "in").rename(tmp_path / "away")

    def back(_: object = None) -> None:
        (tmp_path / "away").rename(tmp_path / "in")

    scripted(tmp_path, (1.0, leave), (60.9, back), end_s=62.0)
    with pytest.raises(RefusedError, match="in: does not exist"):
        scripted(tmp_path, (1.0, leave), (61.2, back), end_s=62.0)


def test_images_from_a_clock_that_jumps_are_judged_once_each(tmp_path: Path) -> None:
    """Cameras and servers set their clocks: times of files say nothing about their order."""
    years = [0, 10**18, 4 * 10**18, 2**62]
    paths = [tmp_path / "in" / f"{number}.png" for number in range(len(years))]

    def arrive(_: object = None) -> None:
        for path, time_ns in zip(paths, years, strict=True):
            write_png(path, part(1))
            os.utime(path, ns=(time_ns, time_ns))

    def touch(_: object = None) -> None:
        for path in paths:
            os.utime(path, ns=(5, 5))

    script = (1.0, arrive), (2.0, touch)
    lines, _ = scripted(tmp_path, *script, end_s=4.0)
    assert [name for _, name, _ in lines] == [path.name for path in paths]
    assert scripted(tmp_path, end_s=4.0)[0] == [], "known to the next watch"
    touch()
    assert scripted(tmp_path, end_s=4.0)[0] == []


# The command


@pytest.fixture
def watching(tmp_path: Path, tiny_onnx: Path) -> Iterator[subprocess.Popen[str]]:
    """The command, watching ``in``."""
    (tmp_path / "in").mkdir()
    program = "import sys; from tinyunet_deploy.cli import main; sys.exit(main())"
    words = [str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--model", str(tiny_onnx)]
    with subprocess.Popen(
        [sys.executable, "-c", program, "watch", *words, "--backend", "onnxruntime"],
        cwd=REPOSITORY,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stderr is not None
        assert "Ctrl-C ends it" in process.stderr.readline()
        yield process
        process.kill()


def test_parts_that_come_while_the_process_is_stopped_are_judged_once_each(
    tmp_path: Path, watching: subprocess.Popen[str]
) -> None:
    assert watching.stdout is not None
    data = encode_png(part(1))
    names = []
    for turn in range(3):
        watching.send_signal(signal.SIGSTOP)
        for number in range(4):
            names.append(f"{turn}{number}.png")
            write_png(tmp_path / "in" / names[-1], part(number))
        names.append(f"{turn}-slow.png")
        slow = tmp_path / "in" / names[-1]
        slow.write_bytes(data[:100])
        time.sleep(1.5)
        watching.send_signal(signal.SIGCONT)
        time.sleep(0.3)
        slow.write_bytes(data)
        for _ in range(5):
            assert watching.stdout.readline()
    watching.terminate()
    assert watching.wait(60) == 0
    lines, summary = read_report(tmp_path / "out" / "report.jsonl")
    assert [line["path"] for line in lines] == sorted(names)
    assert {line["status"] for line in lines} == {"inspected"}
    assert not any(line.get("change") for line in lines)
    assert summary is not None and summary.images == len(names)


@pytest.mark.parametrize("how", ["deleted", "a link"])
def test_without_its_output_folder_the_command_ends_with_one_line(
    tmp_path: Path, watching: subprocess.Popen[str], how: str
) -> None:
    write_png(tmp_path / "in" / "a.png", part(1))
    assert watching.stdout is not None
    assert watching.stdout.readline()
    (tmp_path / "out").rename(tmp_path / "aside")
    if how == "a link":
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "out").symlink_to("elsewhere")
    _, err = watching.communicate(timeout=60)
    assert watching.returncode == 5
    report = tmp_path / "out" / "report.jsonl"
    assert err.startswith(f"error: {report}: was deleted or replaced while it was written")
    assert err.count("\n") == 1
    if how == "a link":
        assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_ends_gracefully(tmp_path: Path, tiny_onnx: Path, number: int) -> None:
    (tmp_path / "in").mkdir()
    write_png(tmp_path / "in" / "before.png", part(0))
    program = "import sys; from tinyunet_deploy.cli import main; sys.exit(main())"
    words = [str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--model", str(tiny_onnx)]
    words += ["--backend", "onnxruntime", "--deadline-ms", "0.001"]
    words += ["--format", "json"] if number == signal.SIGINT else []
    with subprocess.Popen(
        [sys.executable, "-c", program, "watch", *words],
        cwd=REPOSITORY,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert "Ctrl-C ends it" in process.stderr.readline()
        assert "before.png" in process.stdout.readline()
        write_png(tmp_path / "in" / "line\nbreak.png", part(0))
        line = process.stdout.readline()
        process.send_signal(number)
        rest, told = process.communicate()
    assert rest == ""
    if number == signal.SIGINT:
        assert json.loads(line)["path"] == "line\nbreak.png"
    else:
        assert line.split()[0] in {"OK", "NG"}
        assert "LATE  line\\nbreak.png: " in line
    lines, summary = read_report(tmp_path / "out" / "report.jsonl")
    assert summary is not None
    assert summary.images == 2
    assert [line["late"] for line in lines] == [False, True]
    assert process.returncode == 6
    assert "1 of 1 verdicts came later than 0.001 ms" in told


def test_a_watch_of_two_hundred_files_that_changed_gives_the_lines_of_a_fresh_one(
    tmp_path: Path,
) -> None:
    """Overwritten, renamed, duplicated and new files; of those that are gone the verdicts stay."""
    folder = tmp_path / "in"
    options: dict[str, Any] = {"outputs": Outputs(overlays=True, scores=True), "batch_size": 16}
    folder.mkdir()
    for number in range(200):
        write_png(folder / f"{number:03}.png", part(number))

    def verdicts(output: Path, count: int) -> dict[str, ReportLine]:
        backend = FakeBackend(contract=Contract(SIZE, SIZE))
        watching = Watch(folder, output, backend, **options)
        for _ in range(count):
            watching.line()
        watching.end()
        lines, summary = read_report(output / "report.jsonl")
        assert summary is not None and summary.images == len(lines)
        return {f"{line['path']} {line.get('change', 0)}": line for line in lines}

    before = verdicts(tmp_path / "out", 200)
    for number in range(3):
        write_png(folder / f"{number:03}.png", part(number + 301))
    for number in range(10, 50):
        (folder / f"{number:03}.png").unlink()
    (folder / "060.png").rename(folder / "renamed.png")
    (folder / "copied.png").write_bytes((folder / "061.png").read_bytes())
    os.utime(folder / "070.png")
    now = verdicts(tmp_path / "out", 5)
    assert now.keys() - before.keys() == {
        "000.png 1", "001.png 1", "002.png 1", "copied.png 0", "renamed.png 0"
    }  # fmt: skip
    fresh = verdicts(tmp_path / "fresh", 161)
    for name, line in fresh.items():
        path = line["path"]
        same = now.get(f"{path} 1") or now[name]
        for field in ("verdict", "defects", "max_score", "sha256", "output_bytes"):
            assert same[field] == line[field], path
        inspection = Inspection(folder, tmp_path, 0.5, 4, outputs=options["outputs"])
        for kind, file in inspection.files(path, same.get("change", 0)).items():
            written = (tmp_path / "out" / file).read_bytes()
            assert written == (tmp_path / "fresh" / inspection.files(path, 0)[kind]).read_bytes()
