from __future__ import annotations

import errno
import fcntl
import os
import resource
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tinyunet_deploy.errors import RuntimeUnavailable
from tinyunet_deploy.files import read_regular, sweep_tree, write_atomic

OLD, NEW = b"the old content", b"the new content, which is longer"


def failing(code: int) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    return fail


def test_reads_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)))
    assert read_regular(path) == bytes(range(256))
    assert read_regular(path, limit=256) == bytes(range(256))


def test_a_file_over_the_limit_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(OSError) as caught:
        read_regular(path, limit=1 << 20)
    assert caught.value.errno == errno.EFBIG


def test_reading_a_fifo_neither_hangs_nor_takes_what_is_in_it(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    caught: list[OSError] = []

    def read() -> None:
        try:
            read_regular(fifo)
        except OSError as error:
            caught.append(error)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive(), "hangs"
    assert [error.errno for error in caught] == [errno.EINVAL]


def test_refused_files_are_closed(tmp_path: Path) -> None:
    descriptors = Path("/proc/self/fd")
    if not descriptors.is_dir():
        pytest.skip("no /proc here")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "large").write_bytes(bytes(100))
    before = len(list(descriptors.iterdir()))
    for name in ("", "fifo", "large"):
        with pytest.raises(OSError):
            read_regular(tmp_path / name, limit=10)
    assert len(list(descriptors.iterdir())) == before


@pytest.mark.parametrize("durable", [False, True])
def test_writes_the_whole_file_and_nothing_beside_it(tmp_path: Path, durable: bool) -> None:
    path = tmp_path / "file"
    write_atomic(path, OLD, durable=durable)
    write_atomic(path, memoryview(NEW), durable=durable)
    assert path.read_bytes() == NEW
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_others_may_read_what_is_written(tmp_path: Path) -> None:
    old = os.umask(0o022)
    try:
        write_atomic(tmp_path / "file", NEW)
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o644


@pytest.mark.parametrize("length", [85, 84])
def test_any_name_that_the_file_system_takes_can_be_written(tmp_path: Path, length: int) -> None:
    path = tmp_path / ("検" * length)  # three bytes each, of 255
    write_atomic(path, NEW)
    assert path.read_bytes() == NEW


@pytest.mark.parametrize(
    "code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG, errno.EACCES]
)
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failing_disk_leaves_the_old_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, call: str
) -> None:
    path = tmp_path / "file"
    path.write_bytes(OLD)
    monkeypatch.setattr(*((os, call)), failing(code))
    with pytest.raises(RuntimeUnavailable) as caught:
        write_atomic(path, NEW, durable=True)
    assert str(caught.value) == f"{path}: cannot write: {os.strerror(code)}"
    assert caught.value.exit_code == 5
    assert path.read_bytes() == OLD
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_disk_that_takes_no_more(tmp_path: Path) -> None:
    """With the limit on file sizes, which stands in for a full disk: a real write fails."""
    path = tmp_path / "file"
    path.write_bytes(OLD)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(RuntimeUnavailable, match="cannot write: File too large"):
            write_atomic(path, bytes(20_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == OLD
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_an_interrupt_leaves_the_old_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(OLD)

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(path, NEW, durable=True)
    assert path.read_bytes() == OLD
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_durable_syncs_the_file_before_its_name_appears_and_the_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    synced = []
    really_sync = os.fsync

    def sync(descriptor: int) -> None:
        folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        synced.append(("folder" if folder else "file", path.exists()))
        really_sync(descriptor)

    monkeypatch.setattr(os, "fsync", sync)
    write_atomic(path, NEW, durable=True)
    assert synced == [("file", False), ("folder", True)]


def test_a_missing_folder_is_told_from_a_failing_disk(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_atomic(tmp_path / "missing" / "file", NEW)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(RuntimeUnavailable, match="Permission denied"):
            write_atomic(tmp_path / "file", NEW)
    finally:
        tmp_path.chmod(0o755)


def test_a_durable_write_sweeps_what_the_dead_left_and_nothing_else(tmp_path: Path) -> None:
    dead = tmp_path / ".tinyunet-0123456789abcdef.part"
    busy = tmp_path / ".tinyunet-00000000000000ff.part"
    others = tmp_path / ".film.part"
    fifo = tmp_path / ".tinyunet-00000000000000fe.part"
    for path in (dead, busy, others):
        path.touch()
    os.mkfifo(fifo)
    with busy.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        write_atomic(tmp_path / "model", NEW, durable=True)
        assert not dead.exists()
        assert busy.exists()
        assert others.exists()
    write_atomic(tmp_path / "model", NEW, durable=True)
    assert not busy.exists()


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EBADF])
def test_without_locks_only_a_process_that_is_alone_sweeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    dead = tmp_path / "masks" / ".tinyunet-0123456789abcdef.part"
    dead.parent.mkdir()
    dead.touch()

    def flock(*_: object) -> None:
        raise OSError(code, "no locks")

    with dead.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        sweep_tree(tmp_path, alone=True)
        assert dead.exists(), "its writer lives"
    monkeypatch.setattr(fcntl, "flock", flock)
    sweep_tree(tmp_path)
    assert dead.exists(), "its writer may live"
    sweep_tree(tmp_path, alone=True)
    assert not dead.exists()


def test_threads_writing_side_by_side_never_mix(tmp_path: Path) -> None:
    contents = [bytes([letter]) * 100_000 for letter in b"abcd"]
    torn = []

    def write(content: bytes) -> None:
        for _ in range(20):
            write_atomic(tmp_path / "file", content)
            if (tmp_path / "file").read_bytes() not in contents:
                torn.append(content)

    threads = [threading.Thread(target=write, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not torn
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
