from __future__ import annotations

import csv
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import REPOSITORY
from tinyunet_deploy.artifacts.sidecar import Artifact
from tinyunet_deploy.contract import Contract
from tinyunet_deploy.data.encoding import write_png
from tinyunet_deploy.errors import RefusedError, RuntimeUnavailable
from tinyunet_deploy.inspection.defects_csv import COLUMNS
from tinyunet_deploy.inspection.infer import infer
from tinyunet_deploy.inspection.outputs import Outputs
from tinyunet_deploy.inspection.report_line import RunSummary
from tinyunet_deploy.inspection.run_report import Report, read_report
from tinyunet_deploy.testing.fake_backend import FakeBackend

OPTIONS = {"model_sha256": "0" * 64, "threshold": 0.5}


def fake(delay_s: float = 0.0) -> FakeBackend:
    return FakeBackend(contract=Contract(64, 64), delay_s=delay_s)


def run(
    station: Path, output: Path, backend: FakeBackend | None = None, **changes: Any
) -> RunSummary:
    options: dict[str, Any] = {"threshold": 0.5, "min_area": 4, "batch_size": 2, "workers": 2}
    return infer([station], output, backend or fake(), **{**options, **changes})


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def ok(path: str, verdict: str = "OK") -> dict[str, Any]:
    return {"path": path, "status": "inspected", "verdict": verdict, "max_score": 3, "defects": []}


def skipped(path: str, reason: str = "empty") -> dict[str, Any]:
    return {"path": path, "status": "skipped", "reason": reason, "what": "is an empty file"}


def test_a_finished_report_is_lines_and_a_summary(tmp_path: Path) -> None:
    lines = [ok("a.png"), skipped("b.png"), ok("c.png", "NG"), skipped("d.png"), ok("e.png")]
    with Report(tmp_path / "out", OPTIONS) as report:
        for line in lines:
            report.add(line)
        assert read_report(tmp_path / "out" / "report.jsonl") == (lines, None), "not finished"
        report.finish()
    wanted = RunSummary(
        images=5, inspected=3, skipped=2, ok=2, ng=1, max_score=3, reasons={"empty": 2}
    )
    assert report.summary == wanted
    assert read_report(tmp_path / "out" / "report.jsonl") == (lines, wanted)
    assert json.loads((tmp_path / "out" / "run.json").read_text()) == {
        "schema_version": 3,
        **OPTIONS,
    }


def test_defects_have_a_row_each(tmp_path: Path) -> None:
    defect = {"bbox": [1, 2, 3, 4], "area_px": 12, "max_score": 200, "mean_score": 150.5}
    line = {**ok('a, "b".png', "NG"), "defects": [{**defect, "area_mm2": 0.5}, defect]}
    with Report(tmp_path / "out", OPTIONS) as report:
        report.add(line)
        report.add(skipped("b.png"))
        report.add({**ok("\udcff.png", "NG"), "defects": [defect]})
        lines = (tmp_path / "out" / "defects.csv").read_text().splitlines()
    with (tmp_path / "out" / "defects.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert lines[0] == "path,defect,x,y,width,height,area_px,area_mm2,max_score,mean_score"
    wanted = ['a, "b".png', "1", "1", "2", "3", "4", "12", "0.5", "200", "150.5"]
    assert rows[0] == dict(zip(COLUMNS, wanted, strict=True))
    assert (rows[1]["defect"], rows[1]["area_mm2"]) == ("2", "")
    assert [row["path"] for row in rows] == ['a, "b".png', 'a, "b".png', "\\udcff.png"]


def test_each_line_is_on_disk_before_the_next_image(tmp_path: Path) -> None:
    with Report(tmp_path / "out", OPTIONS) as report:
        for number in range(3):
            report.add(ok(f"{number}.png"))
            assert len(read_report(tmp_path / "out" / "report.jsonl")[0]) == number + 1


def test_what_is_done_is_known_and_what_was_skipped_is_tried_again(tmp_path: Path) -> None:
    with Report(tmp_path / "out", OPTIONS) as report:
        for line in (ok("a.png"), skipped("b.png"), ok("c.png")):
            report.add(line)
        report.finish()
    with Report(tmp_path / "out", OPTIONS) as report:
        assert ["a.png" in report, "b.png" in report, "c.png" in report] == [True, False, True]
        assert report.summary == RunSummary(images=2, inspected=2, ok=2, max_score=3)
        report.add(ok("b.png", "NG"))
        report.finish()
    lines, summary = read_report(tmp_path / "out" / "report.jsonl")
    assert lines == [ok("a.png"), ok("b.png", "NG"), ok("c.png")]
    assert summary == RunSummary(images=3, inspected=3, ok=2, ng=1, max_score=3)


names = st.lists(st.sampled_from(["a", "b", "a.png", "b-1", "z"]), min_size=1, max_size=3)


@given(
    paths=st.lists(names.map("/".join), unique=True, max_size=12),
    cut=st.floats(0, 1),
    bad=st.sets(st.integers(0, 11)),
)
@settings(max_examples=60)
def test_a_report_cut_off_anywhere_is_finished_to_the_same_bytes(
    tmp_path_factory: pytest.TempPathFactory, paths: list[str], cut: float, bad: set[int]
) -> None:
    folder = tmp_path_factory.mktemp("report") / "out"
    paths.sort(key=lambda path: path.split("/"))
    lines = [skipped(p) if n in bad else ok(p, "NG") for n, p in enumerate(paths)]

    def write() -> None:
        with Report(folder, OPTIONS) as report:
            for line in lines:
                if line["path"] not in report:
                    report.add(line)
            report.finish()

    write()
    whole = (folder / "report.jsonl").read_bytes()
    (folder / "report.jsonl").write_bytes(whole[: int(cut * len(whole))])
    write()
    assert (folder / "report.jsonl").read_bytes() == whole
    write()
    assert (folder / "report.jsonl").read_bytes() == whole


def cut_a_line(report: Path) -> None:
    lines = report.read_bytes().splitlines(keepends=True)
    report.write_bytes(b"".join([*lines[:4], lines[4][:7] + b"\n", *lines[5:]]))


def lose_a_line(report: Path) -> None:
    lines = report.read_bytes().splitlines(keepends=True)
    report.write_bytes(b"".join(lines[:4] + lines[5:]))


def blank_three_lines(report: Path) -> None:
    lines = report.read_bytes().splitlines(keepends=True)
    report.write_bytes(b"".join([*lines[:4], bytes(len(lines[4] + lines[5])), *lines[6:]]))


@pytest.mark.parametrize("damage", [cut_a_line, lose_a_line, blank_three_lines])
@pytest.mark.parametrize("finished", [True, False])
def test_a_damaged_report_is_not_read_as_a_shorter_one(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[Path], None],
    finished: bool,
) -> None:
    path = tmp_path / "report.jsonl"
    lines = [ok(f"{number}.png") for number in range(9)]
    with Report(tmp_path, OPTIONS) as report:
        for line in lines:
            report.add(line)
        if finished:
            report.finish()
    whole = path.read_bytes()
    damage(path)
    if damage is lose_a_line:
        wanted = "has lines of 8 images, but its summary counts 9"
    else:
        wanted = "has a damaged line 5"
    if finished or damage is not lose_a_line:
        with pytest.raises(RefusedError, match=f"{path}: {wanted} .*again to repair it"):
            read_report(path)
    assert caplog.text == ""
    with Report(tmp_path, OPTIONS) as report:
        lost = [line for line in lines if line["path"] not in report]
        assert lost == (lines[4:7] if damage is blank_three_lines else lines[4:5])
        for line in lost:
            report.add(line)
        report.finish()
    assert ("line 5 is damaged: its verdict is lost" in caplog.text) == (damage is not lose_a_line)
    if finished:
        assert path.read_bytes() == whole


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    with Report(tmp_path / "out", OPTIONS) as report:
        report.add(ok("a.png"))
        with pytest.raises(RefusedError) as caught:
            Report(tmp_path / "out", OPTIONS)
        holder = f"process {os.getpid()} on {socket.gethostname()}"
        assert str(caught.value).startswith(f"{tmp_path}/out: is in use by {holder}")
    assert len(read_report(tmp_path / "out" / "report.jsonl")[0]) == 1
    with Report(tmp_path / "out", OPTIONS) as report:
        assert "a.png" in report


def test_a_folder_that_another_process_holds_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    with Report(folder, OPTIONS):
        pass
    hold = "import fcntl, os, sys; fcntl.flock(os.open(sys.argv[1], 0), 2); print(1); input()"
    other = subprocess.Popen(
        [sys.executable, "-c", hold, folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with other:
        assert other.stdout is not None
        assert other.stdin is not None
        other.stdout.readline()
        before = tree(folder)
        with pytest.raises(RefusedError, match="is in use by another process"):
            Report(folder, OPTIONS)
        assert tree(folder) == before
        other.stdin.close()
    with Report(folder, OPTIONS):
        pass


def test_a_foreign_folder_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    (tmp_path / ".x.part").write_text("not ours either")
    before = tree(tmp_path)
    with pytest.raises(
        RefusedError, match=r"is not empty and was not written by tinyunet \(give another -o\)"
    ):
        Report(tmp_path, OPTIONS)
    assert tree(tmp_path) == before


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    with Report(tmp_path, OPTIONS) as report:
        report.finish()
    assert read_report(tmp_path / "report.jsonl") == ([], RunSummary())


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\xff"])
def test_a_damaged_run_json_is_refused(tmp_path: Path, text: str) -> None:
    with Report(tmp_path, OPTIONS):
        pass
    (tmp_path / "run.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(RefusedError, match=r"run.json: is not readable"):
        Report(tmp_path, OPTIONS)


def test_another_model_or_option_is_named_and_nothing_changes(tmp_path: Path) -> None:
    with Report(tmp_path, OPTIONS) as report:
        report.add(ok("a.png"))
        report.finish()
    before = tree(tmp_path)
    changed = {"model_sha256": "1" * 64, "threshold": 0.6}
    for options, told in [
        ({**OPTIONS, "threshold": 0.6}, "made with another threshold (give another -o)"),
        ({**OPTIONS, "model_sha256": "1" * 64}, "made with another model_sha256 ("),
        (changed, "made with another model_sha256, threshold ("),
        ({**OPTIONS, "new option": 1}, "whose run.json has no new option ("),
    ]:
        with pytest.raises(RefusedError) as caught:
            Report(tmp_path, options)
        assert told in str(caught.value)
        assert tree(tmp_path) == before


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RuntimeUnavailable, match="cannot be written"):
        Report(tmp_path / "file" / "out", OPTIONS)


# Resuming


def test_a_second_run_has_nothing_to_do(station: Path, tmp_path: Path) -> None:
    first = run(station, tmp_path / "out")
    before = tree(tmp_path / "out")
    backend = fake()
    assert run(station, tmp_path / "out", backend) == first
    assert backend.batches == []
    assert tree(tmp_path / "out") == before


def test_only_what_is_missing_is_run(station: Path, tmp_path: Path) -> None:
    run(station, tmp_path / "out", batch_size=1)
    report = tmp_path / "out" / "report.jsonl"
    whole = tree(tmp_path / "out")
    lines = report.read_bytes().splitlines(keepends=True)
    report.write_bytes(b"".join(lines[:4]) + lines[4][:20])  # killed in the middle of a line
    (tmp_path / "out" / "masks" / "z" / "y" / "x.png").unlink()
    backend = fake()
    run(station, tmp_path / "out", backend, batch_size=1)
    assert backend.batches == [1, 1, 1]
    assert tree(tmp_path / "out") == whole


def test_a_new_image_is_added_in_its_place(station: Path, tmp_path: Path) -> None:
    run(station, tmp_path / "out")
    write_png(station / "day 1" / "late.png", np.zeros((64, 64), np.uint8))
    backend = fake()
    assert run(station, tmp_path / "out", backend).images == 8
    assert backend.batches == [1]
    run(station, tmp_path / "fresh")
    assert tree(tmp_path / "out") == tree(tmp_path / "fresh")


def test_a_skipped_image_that_was_repaired_is_done(station: Path, tmp_path: Path) -> None:
    path = station / "day 2" / "a.png"
    data = path.read_bytes()
    path.write_bytes(data[:-10])
    assert run(station, tmp_path / "out").skipped == 1
    assert not (tmp_path / "out" / "masks" / "day 2" / "a.png").exists()
    path.write_bytes(data)
    backend = fake()
    summary = run(station, tmp_path / "out", backend)
    assert (summary.images, summary.inspected, summary.skipped, summary.reasons) == (7, 7, 0, {})
    assert backend.batches == [1]
    run(station, tmp_path / "fresh")
    assert tree(tmp_path / "out") == tree(tmp_path / "fresh")


def test_a_skipped_image_that_is_gone_leaves_the_report(station: Path, tmp_path: Path) -> None:
    (station / "zero.png").touch()
    assert run(station, tmp_path / "out").skipped == 1
    (station / "zero.png").unlink()
    assert run(station, tmp_path / "out").images == 7


def other_model() -> FakeBackend:
    backend = fake()
    sidecar = backend.artifact.sidecar
    fields = {**vars(sidecar), "sha256": "1" * 64}
    backend.artifact = Artifact(backend.artifact.path, b"", type(sidecar)(**fields))
    return backend


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"threshold": 0.6}, "threshold"),
        ({"min_area": 5}, "min_area"),
        ({"outputs": Outputs(scores=True)}, "scores"),
        ({"outputs": Outputs(overlays=True)}, "overlays"),
        ({"backend": other_model()}, "model_sha256"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_another_run_is_never_mixed_into_a_folder(
    station: Path, tmp_path: Path, changes: dict[str, Any], name: str
) -> None:
    run(station, tmp_path / "out")
    before = tree(tmp_path / "out")
    with pytest.raises(RefusedError, match=f"was made with another {name} "):
        run(station, tmp_path / "out", **changes)
    assert tree(tmp_path / "out") == before


def test_images_of_another_folder_are_never_taken_for_done(station: Path, tmp_path: Path) -> None:
    """Cameras give the same names every day."""
    run(station / "day 1", tmp_path / "out")
    before = tree(tmp_path / "out")
    with pytest.raises(RefusedError, match="was made with another input_root"):
        run(station / "day 2", tmp_path / "out")
    assert tree(tmp_path / "out") == before


def test_batch_size_and_workers_may_change_between_runs(station: Path, tmp_path: Path) -> None:
    run(station, tmp_path / "out", batch_size=1, workers=1)
    run(station, tmp_path / "out", batch_size=8, workers=4)


RUN = """
import resource
import sys
from pathlib import Path
from tinyunet_deploy.testing.fake_backend import FakeBackend
from tinyunet_deploy.cli import run
from tinyunet_deploy.contract import Contract
from tinyunet_deploy.inspection.infer import infer
import click

@click.command()
@click.argument("station", type=Path)
@click.argument("output", type=Path)
@click.argument("limit", type=int)
def command(station, output, limit):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    backend = FakeBackend(contract=Contract(64, 64), delay_s=0.02)
    infer([station], output, backend, threshold=0.5, min_area=4, batch_size=2, workers=2)

sys.exit(run(command))
"""


def start(station: Path, output: Path, largest_file: int = -1) -> subprocess.Popen[str]:
    """The run of ``run`` in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", RUN, station, output, "--", str(largest_file)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def long_station(tmp_path: Path) -> Path:
    """Forty images, one of them broken."""
    station = tmp_path / "station"
    station.mkdir()
    for number in range(40):
        image = np.full((64, 64), number, np.uint8)
        image[number, : number + 1] = 255
        write_png(station / f"{number:02}.png", image)
    (station / "05.png").write_bytes(b"")
    return station


@pytest.mark.parametrize("lines", [1, 7])
def test_a_killed_run_is_gone_on_with_to_the_same_bytes(
    long_station: Path, tmp_path: Path, lines: int
) -> None:
    report = tmp_path / "out" / "report.jsonl"
    with start(long_station, tmp_path / "out") as process:
        deadline = time.monotonic() + 600
        while not (report.exists() and report.read_bytes().count(b"\n") >= lines):
            assert process.poll() is None, "it ended by itself"
            assert time.monotonic() < deadline
            time.sleep(0.002)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    done, unfinished = read_report(report)
    assert unfinished is None
    assert lines <= len(done) < 40
    for line in done:
        if line["status"] == "inspected":
            assert (tmp_path / "out" / "masks" / line["path"]).exists()

    backend = fake()
    summary = run(long_station, tmp_path / "out", backend)
    assert (summary.images, summary.skipped) == (40, 1)
    assert sum(backend.batches) == 39 - sum(line["status"] == "inspected" for line in done)
    run(long_station, tmp_path / "undisturbed")
    assert tree(tmp_path / "out") == tree(tmp_path / "undisturbed")


def test_a_report_that_cannot_grow_stops_the_run_and_is_gone_on_with(
    long_station: Path, tmp_path: Path
) -> None:
    """The disk takes the first half of a line."""
    with start(long_station, tmp_path / "out", largest_file=1000) as process:
        _, told = process.communicate(timeout=600)
    assert told == f"error: {tmp_path}/out/report.jsonl: cannot write: File too large\n"
    assert process.returncode == 5
    assert (tmp_path / "out" / "report.jsonl").stat().st_size == 1000
    assert read_report(tmp_path / "out" / "report.jsonl")[1] is None
    run(long_station, tmp_path / "out")
    run(long_station, tmp_path / "undisturbed")
    assert tree(tmp_path / "out") == tree(tmp_path / "undisturbed")


def test_the_half_written_files_of_a_killed_run_are_cleared_away(
    station: Path, tmp_path: Path
) -> None:
    run(station, tmp_path / "undisturbed")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".tinyunet-0123456789abcdef.part").touch()  # of run.json
    run(station, tmp_path / "out")
    assert tree(tmp_path / "out") == tree(tmp_path / "undisturbed")
    report = tmp_path / "out" / "report.jsonl"
    report.write_bytes(b"".join(report.read_bytes().splitlines(keepends=True)[:-1]))
    (tmp_path / "out" / "masks" / "day 1" / ".tinyunet-00000000000000ff.part").touch()
    run(station, tmp_path / "out")
    assert tree(tmp_path / "out") == tree(tmp_path / "undisturbed")
