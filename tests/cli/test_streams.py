"""Programs whose standard streams are closed or full, or that may start no thread."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import REPOSITORY
from tinyunet_deploy.data.encoding import write_png

ENTRY = "from tinyunet_deploy.cli import infer_main; infer_main()"


def shell(line: str, folder: Path, model: Path) -> subprocess.CompletedProcess[str]:
    """Run ``$infer`` and what the line adds to it, on one image, into ``out``."""
    write_png(folder / "a.png", np.zeros((64, 64), np.uint8))
    words = [sys.executable, "-c", ENTRY, "a.png", "-m", str(model), "--backend", "onnxruntime"]
    infer = f"{shlex.join(words)} --threshold 0.9 -o out"
    return subprocess.run(
        ["sh", "-c", line.replace("$infer", infer)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("streams", ["2>/dev/full", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_without_a_place_for_messages_the_work_is_done(
    streams: str, tmp_path: Path, tiny_onnx: Path
) -> None:
    assert shell(f"$infer {streams}", tmp_path, tiny_onnx).returncode == 0
    assert '"summary"' in (tmp_path / "out" / "report.jsonl").read_text()
    written = [path.read_bytes() for path in (tmp_path / "out").iterdir() if path.is_file()]
    assert not any(b"images in" in data for data in written)


@pytest.mark.parametrize("streams", ["2>/dev/full", ">&- 2>&-"])
def test_an_error_keeps_its_exit_code(streams: str, tmp_path: Path, tiny_onnx: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").touch()
    assert shell(f"$infer {streams}", tmp_path, tiny_onnx).returncode == 4


def test_results_that_stdout_does_not_take_are_an_error(tmp_path: Path, tiny_onnx: Path) -> None:
    done = shell("$infer >/dev/full", tmp_path, tiny_onnx)
    assert done.returncode == 5
    assert done.stderr.splitlines()[-1] == "error: [Errno 28] No space left on device"


@pytest.mark.parametrize("kib", [400_000, 700_000])
def test_a_limit_of_address_space_is_one_line(kib: int, tmp_path: Path, tiny_onnx: Path) -> None:
    done = shell(f"ulimit -v {kib}; $infer", tmp_path, tiny_onnx)
    assert done.returncode in {0, 5}, done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: " if done.returncode else "1 images in")


def test_a_limit_of_processes_is_one_line(tmp_path: Path, tiny_onnx: Path) -> None:
    line = "setpriv --reuid=54327 --inh-caps=+dac_override --ambient-caps=+dac_override true"
    if os.geteuid() or shell(line, tmp_path, tiny_onnx).returncode:
        pytest.skip("no process can become another user here")
    done = shell(f"prlimit --nproc=1 {line.removesuffix('true')} $infer", tmp_path, tiny_onnx)
    assert done.returncode == 5, done.stderr
    assert done.stderr == (
        "error: can't start new thread (the limit of processes or of memory is reached)\n"
    )
