"""``infer --shard``: what several processes leave is what one leaves."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import REPOSITORY, SIZE
from tinyunet_deploy.cli import run, tinyunet
from tinyunet_deploy.contract import Batch, Contract
from tinyunet_deploy.data.encoding import write_png
from tinyunet_deploy.errors import RefusedError, RuntimeUnavailable
from tinyunet_deploy.inspection import shards
from tinyunet_deploy.inspection.infer import infer
from tinyunet_deploy.inspection.report_line import RunSummary
from tinyunet_deploy.inspection.run_report import read_report
from tinyunet_deploy.inspection.shards import Shard
from tinyunet_deploy.testing.fake_backend import FakeBackend


def tree(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def inspect(
    station: Path,
    output: Path,
    shard: Shard | None = None,
    backend: FakeBackend | None = None,
    threshold: float = 0.5,
) -> RunSummary:
    return infer(
        [station],
        output,
        backend or FakeBackend(contract=Contract(SIZE, SIZE)),
        threshold=threshold,
        min_area=4,
        batch_size=2,
        workers=2,
        shard=shard,
    )


@given(name=st.text(min_size=1), count=st.integers(1, 50))
def test_every_name_is_in_one_shard_and_always_the_same(name: str, count: int) -> None:
    having = [index for index in range(1, count + 1) if name in Shard(index, count)]
    assert len(having) == 1
    assert name in Shard.parse(f"{having[0]}/{count}")


def test_shards_are_the_ones_that_are_written_down() -> None:
    """A job array that goes on after an update must find its own images."""
    names = ["a.png", "day 1/a.png", "検査.png", "broken-\udcff.png"]
    assert [[index for index in range(1, 8) if name in Shard(index, 7)] for name in names] == [
        [2],
        [2],
        [4],
        [6],
    ]


def test_shards_are_about_equal() -> None:
    sizes = [sum(f"{number:06}.png" in Shard(i, 4) for number in range(4000)) for i in range(1, 5)]
    assert sum(sizes) == 4000
    assert all(900 < size < 1100 for size in sizes)


@pytest.mark.parametrize("text", ["0/4", "5/4", "1", "1/0", "a/b", "1/4/2", "-1/4", "1.0/2", ""])
def test_what_is_no_shard_is_a_usage_error(
    station: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    assert run(tinyunet, ["infer", str(station), "-o", str(tmp_path / "out"), "--shard", text]) == 2
    assert "--shard" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2)])
def test_all_shards_leave_the_tree_of_one_process(
    station: Path, tmp_path: Path, order: tuple[int, ...]
) -> None:
    (station / "day 2" / "cut.png").touch()
    write_png(station / "a-thin.png", np.zeros((8, 2 * SIZE), np.uint8))
    whole = inspect(station, tmp_path / "one")
    parts = []
    for index in order:
        assert not (tmp_path / "out" / "report.jsonl").exists()
        parts.append(inspect(station, tmp_path / "out", Shard(index, 3)))
    assert tree(tmp_path / "out") == tree(tmp_path / "one")
    for count in ("images", "inspected", "skipped", "ok", "ng"):
        assert sum(getattr(part, count) for part in parts) == getattr(whole, count)
    assert whole.skipped == 2


def test_a_shard_without_images_is_done_at_once(station: Path, tmp_path: Path) -> None:
    inspect(station, tmp_path / "one")
    parts = [inspect(station, tmp_path / "out", Shard(index, 40)) for index in range(1, 41)]
    assert RunSummary() in parts
    assert tree(tmp_path / "out") == tree(tmp_path / "one")


def test_a_shard_that_stopped_goes_on_and_one_that_is_done_does_nothing(
    station: Path, tmp_path: Path
) -> None:
    inspect(station, tmp_path / "one")

    def gone(batch: Batch) -> Batch:
        raise RuntimeUnavailable("cuda:0", "is gone")

    out = tmp_path / "out"
    with pytest.raises(RuntimeUnavailable):
        inspect(station, out, Shard(1, 2), FakeBackend(gone, contract=Contract(SIZE, SIZE)))
    inspect(station, out, Shard(2, 2))
    again = FakeBackend(contract=Contract(SIZE, SIZE))
    inspect(station, out, Shard(2, 2), again)
    assert again.batches == []
    assert not (out / "report.jsonl").exists()
    inspect(station, out, Shard(1, 2))
    assert tree(out) == tree(tmp_path / "one")
    assert inspect(station, out, Shard(1, 2), again).images == 7
    assert inspect(station, out, None, again).images == 7
    assert again.batches == []
    assert tree(out) == tree(tmp_path / "one")


def test_folders_of_others_are_refused(station: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    inspect(station, out, Shard(1, 2))
    with pytest.raises(RefusedError, match="has shards that have not all finished"):
        inspect(station, out)
    with pytest.raises(RefusedError, match="has other shards: 1-of-2"):
        inspect(station, out, Shard(1, 3))
    with pytest.raises(RefusedError, match="was made with another threshold"):
        inspect(station, out, Shard(2, 2), threshold=0.6)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.txt").touch()
    with pytest.raises(RefusedError, match="not empty and was not written by tinyunet"):
        inspect(station, foreign, Shard(1, 2))
    assert [path.name for path in foreign.iterdir()] == ["thesis.txt"]
    inspect(station, tmp_path / "whole")
    report = tmp_path / "whole" / "report.jsonl"
    report.write_bytes(report.read_bytes().splitlines(keepends=True)[0])
    with pytest.raises(RefusedError, match="has an unfinished run without --shard"):
        inspect(station, tmp_path / "whole", Shard(1, 2))


@pytest.mark.parametrize("lines", [0, 3, 7, 8])
def test_shards_whose_merging_was_killed_are_merged_by_the_next(
    station: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: int
) -> None:
    """However many lines the whole report had by then; 8 is all of it."""
    inspect(station, tmp_path / "one")
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(shards, "_merge", lambda *_: None)
        inspect(station, out, Shard(1, 2))
        inspect(station, out, Shard(2, 2))
    whole = (tmp_path / "one" / "report.jsonl").read_bytes().splitlines(keepends=True)
    (out / "report.jsonl").write_bytes(b"".join(whole[:lines]))
    shutil.copy(tmp_path / "one" / "defects.csv", out)  # is written before the line it belongs to
    inspect(station, out, Shard(2, 2))
    assert tree(out) == tree(tmp_path / "one")


def test_processes_at_once_with_one_killed(station: Path, tmp_path: Path, tiny_onnx: Path) -> None:
    (station / "more").mkdir()
    for number in range(60):
        write_png(station / "more" / f"{number}.png", np.full((SIZE, SIZE), number, np.uint8))
    command = [sys.executable, "-c", "from tinyunet_deploy.cli import infer_main; infer_main()"]
    command += [str(station), "--model", str(tiny_onnx), "--backend", "onnxruntime", "-b", "1"]

    def start(output: str, *more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*command, "-o", str(tmp_path / output), *more],
            cwd=REPOSITORY,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    with start("one") as one:
        one.wait()
    processes = [start("out", "--shard", f"{index}/3") for index in (1, 2, 3)]
    report = tmp_path / "out" / "shards" / "2-of-3" / "report.jsonl"
    while not report.exists() or report.stat().st_size == 0:
        time.sleep(0.002)
    processes[1].send_signal(signal.SIGKILL)
    outcomes = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, -signal.SIGKILL, 0]
    assert "report: when all 3 shards are done" in outcomes[0][0]
    assert not (tmp_path / "out" / "report.jsonl").exists()
    with start("out", "--shard", "2/3") as last:
        told, _ = last.communicate()
    assert last.returncode == 0
    assert f"  report: {tmp_path / 'out' / 'report.jsonl'} (67 images)  " in told
    assert tree(tmp_path / "out") == tree(tmp_path / "one")
    lines, summary = read_report(tmp_path / "out" / "report.jsonl")
    assert summary is not None
    assert summary.images == len(lines) == 67
