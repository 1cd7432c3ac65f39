"""Commands in processes of their own, killed or failed at a chosen change of their files.

Importing a runtime takes longer than a command on small images. So one process imports all that is
needed and forks for each command: real processes, whose locks and descriptors the kernel takes back
when they are killed. ``faults.c``, preloaded into them, counts the changes and strikes.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import pytest

from tinyunet_deploy.files import write_atomic

HERE = Path(__file__).resolve().parent
RESULTS = HERE.parent / "benchmarks" / "results" / "robustness.json"
COMMANDS = {
    "infer": ("tinyunet_deploy.cli.infer", "tinyunet_deploy.inspection.infer", "onnxruntime"),
    "training": (
        *("training.__main__", "training.loop", "training.run_pictures"),
        *("torch._dynamo", "matplotlib.figure", "matplotlib.backends.backend_svg"),
    ),
    "export": ("export.__main__", "export.exporter", "tinyunet_deploy.backends.torch"),
}
"""Command -> the module that has it, and others that it will import."""


class Outcome(NamedTuple):
    code: int
    """As a shell shows it: 128 + signal if a signal ended it."""
    out: str
    err: str
    changes: list[str]
    """What it did to files of the folder, as ``faults.c`` names it."""


class Forge:
    """Where processes of one command are made."""

    def __init__(self, command: str, scratch: Path) -> None:
        self._scratch = scratch
        temporary, drawing = scratch / "tmp", scratch / "matplotlib"
        for folder in (temporary, drawing):
            folder.mkdir(exist_ok=True)
        library = self.library = scratch / "faults.so"
        compiler = shutil.which("cc")
        if compiler is None or sys.platform != "linux":
            pytest.skip("no C compiler, or not Linux")
        subprocess.run(
            [compiler, "-shared", "-fPIC", "-o", library, HERE / "faults.c", "-ldl"], check=True
        )
        self._process = subprocess.Popen(
            [sys.executable, __file__, command],
            env={
                **os.environ,
                "PYTHONPATH": str(HERE.parent),
                "LD_PRELOAD": str(library),
                "OMP_NUM_THREADS": "1",
                "OPENBLAS_NUM_THREADS": "1",
                "TMPDIR": str(temporary),  # what is killed leaves its temporary folder
                "MPLCONFIGDIR": str(drawing),  # fonts are listed once, not by every process
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(
        self,
        *words: object,
        folder: Path | None = None,
        kill_at: int = 0,
        fail_at: tuple[int, int] = (0, 0),
        modes: str = "",
        limits: dict[str, int] | None = None,
        environment: dict[str, str] | None = None,
        working_directory: Path | None = None,
    ) -> Outcome:
        """Run the command to its end.

        Args:
            words: its arguments.
            folder: where changes of files are counted.
            kill_at: number of the change at which it is killed, from 1.
            modes: how the file system of ``folder`` falls short, as ``faults.c`` names it.
            fail_at: number of the change from which on all fail, and their errno.
            limits: of :mod:`resource`, such as RLIMIT_NOFILE.
        """
        at, code = (kill_at, 0) if kill_at else fail_at
        log = self._scratch / "changes"
        log.unlink(missing_ok=True)
        request = {
            "words": [str(word) for word in words],
            "environment": {
                "FAULT_FOLDER": str(folder or "/nowhere"),
                "FAULT_AT": str(at),
                "FAULT_ERRNO": str(code),
                "FAULT_MODES": modes,
                "FAULT_LOG": str(log),
                **(environment or {}),
            },
            "limits": limits or {},
            "working_directory": str(working_directory or self._scratch),
            "out": str(self._scratch / "out"),
            "err": str(self._scratch / "err"),
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(request), file=self._process.stdin, flush=True)
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        assert not answer["orphans"]
        texts = [(self._scratch / name).read_text("utf-8", "replace") for name in ("out", "err")]
        changes = log.read_text().split() if log.exists() else []
        return Outcome(answer["code"], *texts, changes)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too, but the curves of a training run."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.parent.name != "tensorboard"
    }


def record(family: str, counts: dict[str, Any]) -> None:
    """Put what a nightly test counted among the results."""
    known = json.loads(RESULTS.read_bytes()) if RESULTS.exists() else {"schema_version": 1}
    known[family] = counts
    write_atomic(
        RESULTS, json.dumps(known, indent=2, sort_keys=True).encode() + b"\n", durable=True
    )


def _serve(name: str) -> None:
    module, *others = COMMANDS[name]
    command = getattr(importlib.import_module(module), name)
    for other in others:
        importlib.import_module(other)
    for line in sys.stdin:
        request = json.loads(line)
        pid = os.fork()
        if not pid:
            _become(command, request)
        _, status = os.waitpid(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        orphans = True
        try:
            os.killpg(pid, 0)
        except ProcessLookupError:
            orphans = False
        answer = {"code": code if code >= 0 else 128 - code, "orphans": orphans}
        print(json.dumps(answer), flush=True)


def _become(command: Any, request: dict[str, Any]) -> None:
    from tinyunet_deploy.cli import run

    code = 99
    try:
        os.setsid()
        os.chdir(request["working_directory"])
        os.environ.update(request["environment"])
        for descriptor, name in ((1, "out"), (2, "err")):
            file = os.open(request[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
            os.dup2(file, descriptor)
            os.close(file)
        for name, limit in request["limits"].items():
            resource.setrlimit(getattr(resource, name), (limit, limit))
        code = run(command, request["words"])
        with contextlib.suppress(OSError):
            sys.stdout.flush()
    finally:
        os._exit(code)


if __name__ == "__main__":
    _serve(sys.argv[1])
