"""What a machine does to a run: no disk, no descriptors, no memory, no GPU, no network, signals."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import REPOSITORY
from tests.faults import Forge, tree
from tinyunet_deploy.cli import run as run_command
from tinyunet_deploy.cli.infer import infer
from tinyunet_deploy.contract import Batch, Contract
from tinyunet_deploy.data.encoding import write_png
from tinyunet_deploy.errors import OutOfMemory, RuntimeUnavailable
from tinyunet_deploy.inspection import scoring
from tinyunet_deploy.inspection.infer import infer as infer_images
from tinyunet_deploy.inspection.outputs import Inspection
from tinyunet_deploy.inspection.report_line import ReportLine, RunSummary
from tinyunet_deploy.inspection.run_report import read_report
from tinyunet_deploy.inspection.scoring import Scored
from tinyunet_deploy.inspection.trace import Trace
from tinyunet_deploy.testing.fake_backend import FakeBackend

IMAGES = 40


@pytest.fixture(scope="module")
def forge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forge]:
    with Forge("infer", tmp_path_factory.mktemp("forge")) as forge:
        yield forge


@pytest.fixture(scope="module")
def station(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty images of noise in two folders."""
    folder = tmp_path_factory.mktemp("forty")
    random = np.random.default_rng(0)
    for number in range(IMAGES):
        path = folder / f"day {number % 2}" / f"{number:02}.png"
        path.parent.mkdir(exist_ok=True)
        write_png(path, random.integers(0, 255, (64, 64), np.uint8))
    return folder


@pytest.fixture(scope="module")
def words(station: Path, tiny_onnx: Path) -> list[object]:
    model = ["-m", tiny_onnx, "--backend", "onnxruntime", "--threshold", 0.55]
    return [station, *model, "-b", 3, "--workers", 2]


@pytest.fixture(scope="module")
def reference(
    forge: Forge, words: list[object], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    """The output of an undisturbed run."""
    output = tmp_path_factory.mktemp("reference") / "out"
    assert forge.run(*words, "-o", output).code == 0
    return tree(output)


def masks_are_whole(output: Path, reference: dict[str, bytes]) -> None:
    for path, data in tree(output).items():
        if path.endswith(".png"):
            assert data == reference[path]


# Disk


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS])
@pytest.mark.parametrize("at", [1, 30, 151])
def test_a_disk_that_fails_from_some_change_on(
    forge: Forge,
    words: list[object],
    reference: dict[str, bytes],
    tmp_path: Path,
    at: int,
    code: int,
) -> None:
    """Even what it does to tidy up fails then."""
    output = tmp_path / "out"
    outcome = forge.run(*words, "-o", output, folder=output, fail_at=(at, code))
    assert outcome.code == 5
    assert outcome.out == ""
    assert outcome.err.startswith(f"error: {output}")
    assert outcome.err.endswith(f": {os.strerror(code)}\n")
    assert outcome.err.count("\n") == 1
    masks_are_whole(output, reference)
    assert forge.run(*words, "-o", output).code == 0
    assert tree(output) == reference


def fill_and_enlarge(
    forge: Forge, words: list[object], reference: dict[str, bytes], output: Path, size: str
) -> None:
    output.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", output]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        outcome = forge.run(*words, "-o", output)
        assert outcome.code == 5
        assert outcome.err.startswith(f"error: {output}")
        assert outcome.err.endswith(": cannot write: No space left on device\n")
        assert outcome.err.count("\n") == 1
        masks_are_whole(output, reference)
        subprocess.run(["mount", "-o", "remount,size=1g", output], check=True)
        assert forge.run(*words, "-o", output).code == 0
        assert tree(output) == reference
    finally:
        subprocess.run(["umount", output], check=True)


def test_a_full_disk_is_gone_on_with_once_it_is_larger(
    forge: Forge, words: list[object], reference: dict[str, bytes], tmp_path: Path
) -> None:
    fill_and_enlarge(forge, words, reference, tmp_path / "out", "96k")


@pytest.mark.nightly
def test_a_full_disk_of_8_mb(
    forge: Forge, station: Path, words: list[object], tmp_path: Path
) -> None:
    many = tmp_path / "many"
    many.mkdir()
    for number in range(3000):
        os.link(station / "day 0" / "00.png", many / f"{number:04}.png")
    words = [many, *words[1:]]
    assert forge.run(*words, "-o", tmp_path / "reference").code == 0
    fill_and_enlarge(forge, words, tree(tmp_path / "reference"), tmp_path / "out", "8m")


# Descriptors and memory


def test_too_few_descriptors_never_cost_an_image(
    forge: Forge, words: list[object], reference: dict[str, bytes], tmp_path: Path
) -> None:
    codes = set()
    for limit in range(6, 16):
        output = tmp_path / f"{limit}"
        outcome = forge.run(*words, "-o", output, limits={"RLIMIT_NOFILE": limit})
        codes.add(outcome.code)
        assert outcome.err.count("\n") == 1
        if outcome.code:
            assert outcome.code == 5, outcome
            assert "Too many open files" in outcome.err
            masks_are_whole(output, reference)
        else:
            assert tree(output) == reference
    assert codes == {0, 5}


def inspect(station: Path, output: Path, backend: FakeBackend, batch_size: int = 4) -> RunSummary:
    return infer_images(
        [station], output, backend, threshold=0.5, min_area=4, batch_size=batch_size, workers=2
    )


def fake(score: Callable[[Batch], Batch] | None = None) -> FakeBackend:
    return FakeBackend(score, contract=Contract(64, 64))


def holds(most: int) -> Callable[[Batch], Batch]:
    """A score function for which ``most`` images are all that memory holds."""

    def score(batch: Batch) -> Batch:
        if len(batch) > most:
            raise OutOfMemory("cuda:0", "cuMemAlloc failed: out of memory")
        return batch.copy()

    return score


def test_without_memory_for_a_batch_smaller_ones_give_the_same(
    station: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    inspect(station, tmp_path / "whole", fake())
    backend = fake(holds(3))
    inspect(station, tmp_path / "out", backend, batch_size=16)
    assert backend.batches[:4] == [16, 8, 4, 2]
    assert set(backend.batches[4:]) == {2}
    assert [record.getMessage() for record in caplog.records] == [
        f"cuda:0: cuMemAlloc failed: out of memory; continuing with batches of {most}"
        for most in (8, 4, 2)
    ]
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


@given(batch_size=st.integers(1, 20), most=st.integers(1, 20), broken=st.lists(st.booleans()))
@settings(max_examples=30)
def test_any_batch_that_memory_does_not_hold_is_halved(
    station: Path, batch_size: int, most: int, broken: list[bool]
) -> None:
    paths = [station / "missing.png" if bad else station / "day 0" / "00.png" for bad in broken]
    results = list(scoring.score_images(paths, fake(holds(most)), batch_size=batch_size, workers=2))
    assert [result.path for result in results] == paths
    assert [result.score is None for result in results] == broken


def test_a_single_image_that_memory_does_not_hold_stops_the_run(
    station: Path, tmp_path: Path
) -> None:
    with pytest.raises(RuntimeUnavailable, match="out of memory"):
        inspect(station, tmp_path / "out", fake(holds(0)))
    inspect(station, tmp_path / "out", fake())
    inspect(station, tmp_path / "whole", fake())
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


def test_no_part_is_reported_past_one_that_could_not_be_written(
    station: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish = Inspection.finish

    def full(inspection: Inspection, scored: Scored, trace: Trace | None = None) -> ReportLine:
        if scored.index == 2:
            raise RuntimeUnavailable(inspection.output, "disk full")
        return finish(inspection, scored, trace)

    monkeypatch.setattr(Inspection, "finish", full)
    with pytest.raises(RuntimeUnavailable, match="disk full"):
        inspect(station, tmp_path / "out", fake())
    done, summary = read_report(tmp_path / "out" / "report.jsonl")
    assert (len(done), summary) == (2, None)


def test_a_gpu_that_is_lost_stops_the_run_which_goes_on_with_another(
    station: Path, tmp_path: Path
) -> None:
    def lost(batch: Batch) -> Batch:
        if len(backend.batches) > 4:
            raise RuntimeError("CUDA error: unspecified launch failure\nmore about it")
        return batch.copy()

    def on_gpu(score: Callable[[Batch], Batch] | None = None) -> FakeBackend:
        backend = fake(score)
        backend.device = "cuda:0"
        return backend

    backend = on_gpu(lost)
    with pytest.raises(RuntimeUnavailable) as caught:
        inspect(station, tmp_path / "out", backend)
    assert str(caught.value) == "cuda:0: fake failed: CUDA error: unspecified launch failure"
    assert caught.value.exit_code == 5
    done, summary = read_report(tmp_path / "out" / "report.jsonl")
    assert summary is None
    assert 1 <= len(done) < IMAGES
    rest = on_gpu()
    inspect(station, tmp_path / "out", rest)
    assert sum(rest.batches) == IMAGES - len(done)
    inspect(station, tmp_path / "whole", on_gpu())
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


def test_no_memory_to_decode_is_not_the_image_s_fault(
    station: Path, tiny_onnx: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(scoring, "decode_image", fail)
    arguments = [str(station), "-o", str(tmp_path / "out"), "-m", str(tiny_onnx)]
    assert run_command(infer, arguments) == 5
    assert capsys.readouterr().err == "error: out of memory\n"


# The clock, the network, signals


def test_a_clock_that_jumps_changes_nothing(
    station: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inspect(station, tmp_path / "whole", fake())
    now = [2e9]

    def jump() -> float:
        now[0] = -now[0] / 2
        return now[0]

    monkeypatch.setattr(time, "time", jump)
    monkeypatch.setattr(time, "time_ns", lambda: int(jump()))
    inspect(station, tmp_path / "out", fake())
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


@pytest.mark.parametrize("folder", ["tinyunet_deploy", "training", "export", "benchmarks"])
def test_no_duration_is_taken_from_the_clock_of_the_wall(folder: str) -> None:
    """Curves and benchmarks say when they were made, and temporary files how old they are."""
    using = {
        path.name
        for path in (REPOSITORY / folder).rglob("*.py")
        if "time.time(" in path.read_text() or "datetime.now" in path.read_text()
    }
    assert using <= {"curves.py", "benchmark.py", "files.py", "result_file.py"}


def test_neither_network_nor_shared_memory_is_needed(
    words: list[object], reference: dict[str, bytes], tmp_path: Path
) -> None:
    apart = ["unshare", "--mount", "--net", "sh", "-c"]
    tiny = "mount -t tmpfs -o size=4k tmpfs /dev/shm"
    if shutil.which("unshare") is None or subprocess.run([*apart, tiny]).returncode:
        pytest.skip("nothing can be taken from a process here")
    entry = "from tinyunet_deploy.cli import infer_main; infer_main()"
    command = [sys.executable, "-c", entry, *map(str, words), "-o", str(tmp_path / "out")]
    subprocess.run(
        [*apart, f'{tiny} && exec "$@"', "sh", *command],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        check=True,
    )
    assert tree(tmp_path / "out") == reference


RUN = """
import signal
import sys
from pathlib import Path
import click
from tinyunet_deploy.testing.fake_backend import FakeBackend
from tinyunet_deploy.cli import run
from tinyunet_deploy.cli.stopping import safe_place
from tinyunet_deploy.contract import Contract
from tinyunet_deploy.inspection.infer import infer

# said either way: the tests may run under nohup themselves
ignored = sys.argv.pop(1) == "nohup"
signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)

@click.command()
@click.argument("station", type=Path)
@click.argument("output", type=Path)
def command(station, output):
    backend = FakeBackend(contract=Contract(64, 64), delay_s=0.05)
    options = {"threshold": 0.5, "min_area": 4, "batch_size": 4, "workers": 2}

    def on_line(line):
        safe_place()  # first: whoever reads the line may send a signal at once
        click.echo(line["path"])

    infer([station], output, backend, on_line=on_line, **options)

sys.exit(run(command))
"""


def start(station: Path, output: Path, how: str = "") -> subprocess.Popen[str]:
    """A run in a process of its own that prints the name of each image."""
    return subprocess.Popen(
        [sys.executable, "-c", RUN, how, station, output],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_run_that_can_be_gone_on_with(
    station: Path, tmp_path: Path, number: signal.Signals
) -> None:
    with start(station, tmp_path / "out") as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(number)
        _, told = process.communicate(timeout=600)
    assert process.returncode == 128 + number
    assert told == "interrupted; run the same command again to resume\n"
    assert read_report(tmp_path / "out" / "report.jsonl")[1] is None
    inspect(station, tmp_path / "out", fake())
    inspect(station, tmp_path / "whole", fake())
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


def test_a_reader_that_is_gone_ends_a_run_that_can_be_gone_on_with(
    station: Path, tmp_path: Path
) -> None:
    with start(station, tmp_path / "out") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        told = process.stderr.read()
    assert (process.returncode, told) == (128 + signal.SIGPIPE, "")
    inspect(station, tmp_path / "out", fake())
    inspect(station, tmp_path / "whole", fake())
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


def test_under_nohup_a_run_outlives_its_terminal(station: Path, tmp_path: Path) -> None:
    with start(station, tmp_path / "out", "nohup") as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGHUP)
        process.communicate(timeout=600)
    assert process.returncode == 0


# The same bytes however it is run


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino", "torch"])
def test_batches_workers_listing_and_working_folder_change_no_byte(
    backend: str, station: Path, tiny_onnx: Path, tiny_checkpoint: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    model = tiny_checkpoint if backend == "torch" else tiny_onnx
    scandir = os.scandir

    class Backwards:
        def __init__(self, folder: Any) -> None:
            with scandir(folder) as entries:
                self._entries = list(entries)[::-1]

        def __enter__(self) -> list[os.DirEntry[str]]:
            return self._entries

        def __exit__(self, *_: object) -> None:
            pass

    def call(source: object, name: str, batch_size: int, workers: int) -> dict[str, bytes]:
        words = ["-m", model, "--backend", backend, "--threshold", 0.55, "--scores"]
        words += ["-b", batch_size, "--workers", workers, "-o", tmp_path / name]
        assert run_command(infer, [str(word) for word in [source, *words]]) == 0
        return tree(tmp_path / name)

    one = call(station, "1", 1, 1)
    assert len(one) == 2 * IMAGES + 3
    monkeypatch.chdir(station)
    assert call(".", "7", 7, 4) == one
    monkeypatch.setattr(os, "scandir", Backwards)
    monkeypatch.chdir(tmp_path)
    assert call(os.path.relpath(station), "32", 32, 1) == one
