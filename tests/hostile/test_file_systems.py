"""File systems of a plant: no locks, no syncs, files that another client has open."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import REPOSITORY
from tests.faults import Forge, record, tree
from tinyunet_deploy.data.encoding import write_png
from tinyunet_deploy.errors import RefusedError
from tinyunet_deploy.files import LOCK
from tinyunet_deploy.inspection import folder_lock
from tinyunet_deploy.inspection.folder_lock import lock_folder

WORKING = (
    "dirsync-einval", "fsync-einval", "flock-enolck", "flock-enosys", "flock-ebadf",
    "flock-file-ebadf", "rename-ebusy", "rename-eacces", "chmod-eperm", "link-eperm",
    "dirsync-einval,fsync-einval,flock-enolck,rename-ebusy,chmod-eperm,link-eperm",
)  # fmt: skip
ELSEWHERE = "4711\nanother-station\n1\n"


@pytest.fixture(scope="module")
def forge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forge]:
    with Forge("infer", tmp_path_factory.mktemp("forge")) as forge:
        yield forge


@pytest.fixture(scope="module")
def words(tiny_onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    folder = tmp_path_factory.mktemp("station")
    random = np.random.default_rng(0)
    for number in range(8):
        write_png(folder / f"{number}.png", random.integers(0, 255, (64, 64), np.uint8))
    return [folder, "-m", tiny_onnx, "--backend", "onnxruntime", "--threshold", 0.55]


@pytest.fixture(scope="module")
def reference(
    forge: Forge, words: list[object], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    output = tmp_path_factory.mktemp("reference") / "out"
    assert forge.run(*words, "-o", output).code == 0
    return tree(output)


@pytest.mark.parametrize("modes", WORKING)
def test_a_run_is_the_same_with_one_warning_of_each_kind(
    modes: str, forge: Forge, words: list[object], reference: dict[str, bytes], tmp_path: Path
) -> None:
    output = tmp_path / "out"
    outcome = forge.run(*words, "-o", output, folder=output, modes=modes)
    assert outcome.code == 0, outcome.err
    assert tree(output) == reference
    warned = ("cannot sync" in outcome.err, "does not support locks" in outcome.err)
    assert warned == ("sync" in modes, any(m in modes for m in ("enolck", "enosys", "flock-ebadf")))
    assert outcome.err.count("\n") == 1 + sum(warned)


def test_a_file_that_stays_open_elsewhere_is_an_error_with_its_path(
    forge: Forge, words: list[object], tmp_path: Path
) -> None:
    output = tmp_path / "out"
    outcome = forge.run(*words, "-o", output, folder=output, modes="rename-always-ebusy")
    assert outcome.code == 5
    assert outcome.err == f"error: {output}/run.json: cannot write: Device or resource busy\n"


@pytest.mark.parametrize("modes", ["", "flock-enolck", "flock-ebadf"])
def test_a_folder_that_a_process_of_this_host_writes_is_refused(
    modes: str, forge: Forge, words: list[object], tmp_path: Path
) -> None:
    output = tmp_path / "out"
    lock = lock_folder(output)
    outcome = forge.run(*words, "-o", output, folder=output, modes=modes)
    holder = f"process {os.getpid()} on {socket.gethostname()}"
    assert outcome.code == 4
    assert f"error: {output}: is in use by {holder}" in outcome.err
    lock.check()
    lock.close()
    assert forge.run(*words, "-o", output, folder=output, modes=modes).code == 0


def test_without_locks_a_dead_process_of_this_host_holds_nothing(
    forge: Forge, words: list[object], reference: dict[str, bytes], tmp_path: Path
) -> None:
    output = tmp_path / "out"
    modes = "flock-enolck"
    assert forge.run(*words, "-o", output, folder=output, kill_at=20, modes=modes).code == 137
    assert (output / LOCK).exists()
    assert forge.run(*words, "-o", output, folder=output, modes=modes).code == 0
    assert tree(output) == reference, "no file that the dead process did not finish"


def test_without_locks_another_host_is_never_robbed(
    forge: Forge, words: list[object], tmp_path: Path
) -> None:
    output = tmp_path / "out"
    output.mkdir()
    (output / LOCK).write_text(ELSEWHERE)
    outcome = forge.run(*words, "-o", output, folder=output, modes="flock-enolck")
    assert outcome.code == 4
    assert outcome.err.splitlines()[-1] == (
        f"error: {output}: is in use by process 4711 on another-station "
        f"(if that process has ended, remove {output}/{LOCK})"
    )
    assert (output / LOCK).read_text() == ELSEWHERE
    assert [path.name for path in output.iterdir()] == [LOCK]


@pytest.mark.parametrize("modes", ["", "flock-enolck"])
def test_a_process_that_was_killed_while_it_wrote_its_lock_holds_nothing(
    modes: str, forge: Forge, words: list[object], reference: dict[str, bytes], tmp_path: Path
) -> None:
    output = tmp_path / "out"
    changes = forge.run(*words, "-o", tmp_path / "whole", folder=tmp_path / "whole").changes
    kill = changes.index("write") + 1
    assert forge.run(*words, "-o", output, folder=output, kill_at=kill, modes=modes).code == 137
    assert not (output / LOCK).read_bytes().endswith(b"\n")
    assert forge.run(*words, "-o", output, folder=output, modes=modes).code == 0
    assert tree(output) == reference


@pytest.mark.parametrize("kind", ["ext4", "nfs4"])
def test_a_container_that_was_killed_holds_a_folder_only_where_other_machines_see_it(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_lock, "mount_of", lambda _: ("/data", kind))
    (tmp_path / LOCK).write_text(ELSEWHERE)
    if kind == "nfs4":
        with pytest.raises(RefusedError, match="is in use by process 4711 on another-station"):
            lock_folder(tmp_path)
    else:
        lock_folder(tmp_path).close()
        assert list(tmp_path.iterdir()) == []


def test_a_lock_file_with_the_number_of_the_one_before_is_known(tmp_path: Path) -> None:
    """ext4 gives the inode of a file that was removed to the next one that is made."""
    lock = lock_folder(tmp_path / "out")
    (tmp_path / "out" / LOCK).write_text(ELSEWHERE)  # the same inode
    with pytest.raises(RefusedError, match="taken over by another process"):
        lock.check()
    lock.close()


RACE = Path(__file__).resolve().parent.parent / "writers.py"
ROUNDS = 4


def race(
    kinds: list[str], output: Path, forge: Forge, *, modes: str, hosts: int, rounds: int
) -> list[list[int]]:
    """Exit codes of processes that write one folder at once, of each round."""
    words = [*map(str, (output, rounds, hosts)), *kinds]
    environment = {"LD_PRELOAD": str(forge.library), "FAULT_FOLDER": str(output.parent)}
    done = subprocess.run(
        [sys.executable, RACE, *words],
        env={**os.environ, **environment, "FAULT_MODES": modes, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    codes: list[list[int]] = json.loads(done.stdout)
    assert len(codes) == rounds
    return codes


@pytest.mark.parametrize("modes", ["", "flock-enolck", "flock-ebadf"])
@pytest.mark.parametrize("hosts", [1, 3])
@pytest.mark.parametrize("stale", ["", "stale"])
def test_of_processes_that_begin_at_once_at_most_one_ends_well(
    forge: Forge, tmp_path: Path, modes: str, hosts: int, stale: str
) -> None:
    """infer and watch, all of one host or each of another, with or without a dead one's lock."""
    kinds = ["infer", "watch", "infer", *([stale] if stale else [])]
    for codes in race(kinds, tmp_path / "out", forge, modes=modes, hosts=hosts, rounds=ROUNDS):
        assert codes.count(0) <= 1, codes
        assert set(codes) <= {0, 4}
        if hosts == 1 and not stale:
            assert codes.count(0) == 1, codes


@pytest.mark.nightly
def test_a_thousand_races(forge: Forge, tmp_path: Path) -> None:
    counts = Counter[str]()
    for modes in ("", "flock-enolck"):
        for hosts in (1, 3):
            folder = tmp_path / f"{modes}{hosts}"
            folder.mkdir()
            kinds = ["infer", "watch", "infer", "stale"]
            ends = race(kinds, folder / "out", forge, modes=modes, hosts=hosts, rounds=250)
            counts.update(f"{codes.count(0)} ended well" for codes in ends)
    record("races", dict(sorted(counts.items())))
    assert counts.keys() <= {"0 ended well", "1 ended well"}


@pytest.mark.parametrize("way", ["taken over", "replaced", "removed"])
def test_of_two_writers_one_does_not_end_well(way: str, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    lock = lock_folder(folder)
    lock.check()
    if way == "taken over":
        (folder / LOCK).unlink()
        (tmp_path / "other").write_text(ELSEWHERE)  # not the number of the file that is gone
        (tmp_path / "other").rename(folder / LOCK)
    else:
        folder.rename(tmp_path / "away")
        if way == "replaced":
            folder.symlink_to(tmp_path)
    with pytest.raises(RefusedError, match="was replaced or taken over by another process"):
        lock.check()
    lock.close()


def test_the_lock_of_the_kernel_goes_with_the_descriptor(tmp_path: Path) -> None:
    lock_folder(tmp_path).close()
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(descriptor)
