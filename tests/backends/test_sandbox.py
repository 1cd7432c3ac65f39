"""The process in which a model of unknown origin is tried: what it may not do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ATTEMPT = """
import sys
from tinyunet_deploy.backends import sandbox_process
def run_once(artifact, backend):
    {attempt}
sandbox_process.run_once = run_once
sys.exit(sandbox_process.main("onnxruntime", "16", "16", "2048", "5"))
"""


def tried(attempt: str, folder: Path) -> subprocess.CompletedProcess[bytes]:
    """Run some code where the trial of a model would run it."""
    code = ATTEMPT.format(attempt=attempt)
    return subprocess.run(
        [sys.executable, "-c", code], input=b"a model", capture_output=True, cwd=folder, check=False
    )


def test_what_a_model_does_within_its_limits_is_let_be(tmp_path: Path) -> None:
    done = tried("assert artifact.data == b'a model' and bytearray(1 << 20)", tmp_path)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize(
    "attempt",
    [
        "open('planted', 'wb', buffering=0).write(b'a')",
        "import os; os.truncate(os.open('planted', os.O_CREAT | os.O_RDWR), 4096)",
    ],
)
def test_a_model_cannot_write_a_byte_to_a_file(attempt: str, tmp_path: Path) -> None:
    done = tried(attempt, tmp_path)
    assert done.returncode != 0
    assert b"File too large" in done.stderr or done.returncode < 0
    assert (tmp_path / "planted").stat().st_size == 0


def test_a_model_cannot_lengthen_a_file_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "kept").write_bytes(b"kept")
    assert tried("open('kept', 'ab', buffering=0).write(b'a')", tmp_path).returncode != 0
    assert (tmp_path / "kept").read_bytes() == b"kept"


def test_a_model_cannot_take_more_memory_than_it_was_given(tmp_path: Path) -> None:
    done = tried("bytearray(3 << 30)", tmp_path)
    assert done.returncode != 0
    assert b"MemoryError" in done.stderr


def test_a_crash_leaves_no_core_file_and_time_is_bounded(tmp_path: Path) -> None:
    limits = "import resource as r; print(*(r.getrlimit(l) for l in (r.RLIMIT_CORE, r.RLIMIT_CPU)))"
    assert tried(limits, tmp_path).stdout.split(b"\n")[0] == b"(0, 0) (20, 20)"
