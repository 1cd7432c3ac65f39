"""Every verb where streams are closed or full, or threads and memory are limited.

One clear line and a documented exit code, never a signal or 70. ``infer`` is in
tests/cli/test_streams.py.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Final

import numpy as np
import pytest

from tests.conftest import REPOSITORY, part
from tinyunet_deploy.data.encoding import write_png

ENTRY: Final = "import sys; from tinyunet_deploy.cli import main; sys.exit(main())"
VERBS: Final = {
    "infer": "infer data/images -m model.onnx -o out",
    "evaluate": "evaluate data -m model.onnx",
    "tune": "tune data -m model.onnx -o out",
    "parity": "parity data -m model.onnx --reference model.safetensors",
    "benchmark": "benchmark data/images -m model.onnx --reference model.safetensors --samples 2",
    "watch": "watch data/images -m model.onnx -o out",
    "line-sim": "line-sim data/images -m model.onnx --parts-per-minute 600 --deadline-ms 60000 "
    "--seconds 0.3 --max-miss-rate 1",
    "verify": "verify model.onnx",
    "info": "info model.onnx",
    "data check": "data check data",
    "doctor": "doctor",
}
DOCUMENTED: Final = {0, 3, 4, 5, 6}
STREAMS: Final = ("2>/dev/full", "2>&-", ">&- 2>&-", "<&- >&- 2>&-")
ADDRESS_SPACE_KIB: Final = (150_000, 400_000, 700_000, 1_200_000)
OTHER_USER: Final = "setpriv --reuid=54327 --inh-caps=+dac_override --ambient-caps=+dac_override"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, tiny_onnx: Path, tiny_checkpoint: Path) -> Path:
    """A folder with a model, its checkpoint, and own images with masks."""
    folder = tmp_path_factory.mktemp("site")
    for number in range(6):
        mask = np.zeros((64, 64), np.uint8)
        mask[8:16, 8 : 8 + 8 * (number % 2)] = 255
        for name, image in (("images", part(number)), ("masks", mask)):
            path = folder / "data" / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_png(path, image)
    for model in (tiny_onnx, tiny_checkpoint):
        for path in model.parent.glob(f"{model.name}*"):
            (folder / path.name.replace("tiny", "model")).write_bytes(path.read_bytes())
    return folder


def run(
    verb: str, site: Path, tmp_path: Path, limit: str = "", prefix: str = "", behind: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run a verb in a folder of its own; ``watch`` is interrupted."""
    (tmp_path / "data").symlink_to(site / "data")
    for path in site.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    words = [sys.executable, "-c", ENTRY, *shlex.split(VERBS[verb])]
    end = "timeout --preserve-status -s INT 15" if verb == "watch" else ""
    return subprocess.run(
        ["sh", "-c", f"{limit} {end} {prefix} {shlex.join(words)} {behind}"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def is_clear(done: subprocess.CompletedProcess[str]) -> None:
    """Check the exit code, and that the last line says why."""
    assert done.returncode in DOCUMENTED, (done.returncode, done.stderr[-2000:])
    assert "Traceback" not in done.stderr
    if done.returncode > 3 and "doctor" not in done.args[2]:  # its table is on stdout
        assert done.stderr.splitlines()[-1].startswith("error: "), done.stderr[-2000:]


def some(values: tuple[object, ...], *, always: dict[str, int]) -> list[object]:
    """Pair every verb with every value; those that are not named run nightly only."""
    return [
        pytest.param(
            verb,
            value,
            marks=() if always.get(verb) == number else pytest.mark.nightly,
        )
        for verb in VERBS
        for number, value in enumerate(values)
    ]


@pytest.mark.parametrize(
    ("verb", "streams"),
    some(STREAMS, always={"evaluate": 0, "parity": 1, "info": 3, "doctor": 2}),
)
def test_without_a_place_for_messages_every_verb_works(
    verb: str, streams: str, site: Path, tmp_path: Path
) -> None:
    wanted = (0, 6) if verb in ("parity", "benchmark") else (0,)
    assert run(verb, site, tmp_path, behind=streams).returncode in wanted


@pytest.mark.parametrize(
    ("verb", "streams"),
    some((">/dev/full",), always=dict.fromkeys(("evaluate", "info", "data check"), 0)),
)
def test_results_that_stdout_does_not_take_are_an_error(
    verb: str, streams: str, site: Path, tmp_path: Path
) -> None:
    done = run(verb, site, tmp_path, behind=streams)
    assert done.returncode == 5, (done.returncode, done.stderr)
    assert done.stderr.splitlines()[-1] == "error: [Errno 28] No space left on device"


@pytest.mark.parametrize(
    ("verb", "kib"),
    some(ADDRESS_SPACE_KIB, always={"evaluate": 1, "parity": 2, "doctor": 2, "verify": 0}),
)
def test_a_limit_of_address_space_is_clear(verb: str, kib: int, site: Path, tmp_path: Path) -> None:
    if (verb, kib) == ("tune", 1_200_000):
        pytest.skip("the C library itself ends a process that has no memory for a thread's data")
    done = run(verb, site, tmp_path, limit=f"ulimit -v {kib};")
    is_clear(done)
    if kib < 512 << 10:  # before anything is imported that could end the process by itself
        wanted = f"an address space of {kib >> 10} MiB (ulimit -v 524288, or more)"
        assert done.stderr == f"error: tinyunet: does not work in {wanted}\n"


@pytest.mark.parametrize(
    ("verb", "processes"), some((1,), always=dict.fromkeys(("evaluate", "benchmark", "doctor"), 0))
)
def test_a_limit_of_processes_is_clear(
    verb: str, processes: int, site: Path, tmp_path: Path
) -> None:
    if os.geteuid() or subprocess.run(["sh", "-c", f"{OTHER_USER} true"], check=False).returncode:
        pytest.skip("no process can become another user here")
    is_clear(run(verb, site, tmp_path, prefix=f"prlimit --nproc={processes} {OTHER_USER}"))
