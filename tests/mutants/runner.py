"""Run one module's tests against one mutant after another, each in a forked process.

The tests' third-party packages are imported once, before the first fork; the library, the tests and
the mutant are imported in the fork. A mutant exists in memory only: an import hook compiles its
text in place of the module's file. Requests and answers are lines of JSON on standard input and
output, and :mod:`tests.mutants.__main__` is the one that writes them:

    {"source": null or the mutant's text, "cpu_s": limit}    ->    {"killed": true, "cpu_s": 0.8}
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.abc
import importlib.machinery
import json
import os
import resource
import signal
import sys
import time
import traceback
import warnings
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import Any

OURS = {"tinyunet_deploy", "training", "export", "benchmarks", "tests", "conftest", "__main__"}
"""Packages that are imported in the fork only: any of them may import the mutant."""
WALL_FACTOR = 10
"""A mutant that waits for ever uses no processor time: it is stopped after its limit times this."""


class _MutantLoader(SourceFileLoader):
    source = ""

    def get_code(self, fullname: str) -> CodeType:
        code: CodeType = compile(self.source, self.path, "exec", dont_inherit=True)
        return code


class _MutantFinder(importlib.abc.MetaPathFinder):
    """Load one module from a text instead of its file."""

    def __init__(self, module: str, source: str) -> None:
        self._module = module
        self._source = source

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        if fullname != self._module:
            return None
        spec = PathFinder.find_spec(fullname, path)
        assert spec is not None and spec.origin is not None
        spec.loader = loader = _MutantLoader(fullname, spec.origin)
        loader.source = self._source
        return spec


def _run_tests(module: str, source: str | None, tests: list[str], folder: Path) -> int:
    """Run the tests in this process; return pytest's exit code."""
    import pytest
    from hypothesis import Phase, settings

    if source is not None:
        sys.meta_path.insert(0, _MutantFinder(module, source))
    # The same examples every time, none remembered from another mutant, and none made smaller.
    phases = (Phase.explicit, Phase.generate)
    settings.register_profile("mutants", derandomize=True, database=None, phases=phases)
    settings.load_profile("mutants")
    options = ["-x", "--no-header", "-p", "no:cacheprovider", f"--basetemp={folder / 'tmp'}"]
    options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # plugins are imported already
    return int(pytest.main([*options, *tests]))


def _fork(module: str, request: dict[str, Any], tests: list[str], folder: Path) -> dict[str, Any]:
    log = folder / "output.txt"
    started = resource.getrusage(resource.RUSAGE_CHILDREN)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setsid()
            limit = int(request["cpu_s"])
            resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 1))
            output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(output, 1)
            os.dup2(output, 2)
            result = _run_tests(module, request["source"], tests, folder)
            if request["source"] is None:
                names = [name for name in sys.modules if name.partition(".")[0] not in OURS]
                (folder / "imported.json").write_text(json.dumps(names))
            code = result
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    status = _wait(child, request["cpu_s"] * WALL_FACTOR)
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = ended.ru_utime + ended.ru_stime - started.ru_utime - started.ru_stime
    return {"killed": status != 0, "cpu_s": cpu_s}


def _wait(child: int, seconds: float) -> int:
    """Return a process's status, 0 if it passed; end whatever it has left running."""
    end = time.monotonic() + seconds
    done, status = os.waitpid(child, os.WNOHANG)
    while not done and time.monotonic() < end:
        time.sleep(0.005)
        done, status = os.waitpid(child, os.WNOHANG)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    if not done:
        _, status = os.waitpid(child, 0)
    return status


def _preload(folder: Path) -> None:
    """Import what the tests imported, so that the forks need not."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in json.loads((folder / "imported.json").read_text()):
            with contextlib.suppress(Exception):  # a fork then fails as a test would
                importlib.import_module(name)


def main(module: str, folder: str, *tests: str) -> None:
    """Answer the requests on standard input: without a mutant at first, which also preloads."""
    for line in sys.stdin:
        request = json.loads(line)
        answer = _fork(module, request, list(tests), Path(folder))
        if request["source"] is None and not answer["killed"]:
            _preload(Path(folder))
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
