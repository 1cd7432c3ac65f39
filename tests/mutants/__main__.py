"""Change the core modules in many small ways and print the changes that no test notices.

    make mutants                  every module of modules.toml
    make mutants ROOM=contract    one room, or one module of it

The mutants are Cosmic Ray's. Each exists in memory only (see :mod:`tests.mutants.runner`), so the
tree is never changed, and each meets only the tests that modules.toml names for its module.

Verdicts are kept in .cache/mutants, one Cosmic Ray session per module: an interrupted run is
resumed. A module that has changed starts anew; when only its tests have changed, the survivors are
tried again, and with ``--fresh`` all.

A survivor that changes nothing a user could see stands in modules.toml with the reason.
"""

from __future__ import annotations

import argparse
import ast
import concurrent.futures
import contextlib
import difflib
import functools
import hashlib
import json
import os
import queue
import re
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cosmic_ray.commands
import cosmic_ray.plugins
from cosmic_ray.mutating import mutate_code
from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import MutationSpec, TestOutcome, WorkerOutcome, WorkItem, WorkResult

REPOSITORY = Path(__file__).resolve().parents[2]
CACHE = REPOSITORY / ".cache" / "mutants"
MOST_SURVIVORS = 0.10
"""Share of a room's mutants that may survive, those with a reason included."""

# Cosmic Ray replaces each operator by every other one: "a + b" gives eleven mutants that the same
# test notices. One of each kind is kept, the ones that are hardest to notice.
OPERATORS = re.compile(
    r"""core/( (?!ReplaceBinaryOperator|ReplaceComparisonOperator) .*
    | ReplaceBinaryOperator_(Add_Sub|Sub_Add|Mul_Div|Div_Mul|FloorDiv_Div|Mod_Mul|Pow_Mul
        |BitOr_BitAnd|BitAnd_BitOr|BitXor_BitAnd|LShift_RShift|RShift_LShift)
    | ReplaceComparisonOperator_(Lt_LtE|Lt_Gt|LtE_Lt|LtE_GtE|Gt_GtE|Gt_Lt|GtE_Gt|GtE_LtE|Eq_NotEq
        |NotEq_Eq|Is_IsNot|IsNot_Is))""",
    re.VERBOSE,
)


@dataclass
class Module:
    """One module under test."""

    key: str
    """Its name in modules.toml."""
    path: str
    """From the repository's root."""
    tests: list[str]
    """Files, folders or node ids, from the repository's root."""
    room: str
    """Modules of one room are judged together."""
    accepted: list[dict[str, str]] = field(default_factory=list)
    """Survivors with a reason: ``was`` and ``becomes`` are the changed line, stripped."""

    @property
    def name(self) -> str:
        """Dotted name of the module."""
        return self.path.removesuffix(".py").replace("/", ".")

    @functools.cached_property
    def source(self) -> str:
        """The module's text when it was first read: an edit during a run changes no mutant."""
        return (REPOSITORY / self.path).read_text()

    @property
    def files(self) -> list[Path]:
        """What the verdicts of the tests rest on, apart from the module."""
        files = [REPOSITORY / "tests" / "conftest.py"]
        for test in self.tests:
            path = REPOSITORY / test.partition("::")[0]
            files += sorted(path.rglob("*.py")) if path.is_dir() else [path]
        return files


@dataclass
class Survivor:
    """A change that the tests did not notice."""

    line: int
    was: str
    becomes: str
    reason: str | None


def read_modules() -> list[Module]:
    """Return the modules of modules.toml in its order."""
    with (Path(__file__).parent / "modules.toml").open("rb") as file:
        tables = tomllib.load(file)
    return [Module(key, **{"room": key, **table}) for key, table in tables.items()]


class Runner:
    """A process that runs a module's tests against mutants (:mod:`tests.mutants.runner`)."""

    def __init__(self, module: Module) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="mutants-")
        python = REPOSITORY / ".venv" / "bin" / "python"
        script = Path(__file__).with_name("runner.py")
        self._process = subprocess.Popen(
            [python, script, module.name, self._folder.name, *module.tests],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
        )
        self._limit_s = 600.0
        for _ in range(2):  # the first run finds what to import beforehand, the second is timed
            killed, cpu_s = self._ask(None)
            if killed:
                print((Path(self._folder.name) / "output.txt").read_text(), file=sys.stderr)
                self.close()
                raise SystemExit(f"{module.path}: its tests fail without a mutant")
        self._limit_s = 5 + 5 * cpu_s

    def kills(self, source: str) -> bool:
        """Return whether a test fails on this text of the module."""
        return self._ask(source)[0]

    def _ask(self, source: str | None) -> tuple[bool, float]:
        assert self._process.stdin is not None and self._process.stdout is not None
        print(
            json.dumps({"source": source, "cpu_s": self._limit_s}),
            file=self._process.stdin,
            flush=True,
        )
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer["killed"], answer["cpu_s"]

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        self._folder.cleanup()


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


@contextlib.contextmanager
def open_session(module: Module, fresh: bool) -> Iterator[WorkDB]:
    """Open the module's session; begin it anew if the module has changed."""
    path = CACHE / f"{module.key}.sqlite"
    CACHE.mkdir(parents=True, exist_ok=True)
    stamp = path.with_suffix(".json")
    now = {
        "module": _digest(module.source, OPERATORS.pattern),
        "tests": _digest(*(file.read_text() for file in module.files), *module.tests),
    }
    before = json.loads(stamp.read_text()) if stamp.exists() and path.exists() else {}
    with use_db(path) as session:
        if fresh or before.get("module") != now["module"]:
            stamp.unlink(missing_ok=True)
            _begin(module, session)
        elif before["tests"] != now["tests"]:
            _forget_survivors(session)
        stamp.write_text(json.dumps(now))
        yield session


def _begin(module: Module, session: WorkDB) -> None:
    """Fill a session with the module's mutants."""
    cosmic_ray.commands.init([REPOSITORY / module.path], session, {})
    evaluated = _evaluated(module.source)
    items = [item for item in session.work_items if _wanted(item.mutations[0], evaluated)]
    session.clear()
    session.add_work_items(items)


def _evaluated(source: str) -> Callable[[tuple[int, int]], bool]:
    """Return whether a position (line, column) of a module may change what it does.

    Annotations are never evaluated (``int | None`` computes nothing), and Cosmic Ray takes the
    ``*`` before keyword arguments for a product.
    """
    spans = []
    for node in ast.walk(ast.parse(source)):
        for name in ("annotation", "returns"):
            annotation = getattr(node, name, None)
            if annotation is not None:
                end = (annotation.end_lineno, annotation.end_col_offset)
                spans.append(((annotation.lineno, annotation.col_offset), end))
    lines = source.splitlines()

    def evaluated(position: tuple[int, int]) -> bool:
        line, column = position
        keyword_only = lines[line - 1][column : column + 2] == "*,"
        return not keyword_only and not any(first <= position < end for first, end in spans)

    return evaluated


def _wanted(mutation: MutationSpec, evaluated: Callable[[tuple[int, int]], bool]) -> bool:
    return OPERATORS.fullmatch(mutation.operator_name) is not None and evaluated(mutation.start_pos)


def _forget_survivors(session: WorkDB) -> None:
    """Have the survivors tried again by tests that have changed since."""
    done = {item.job_id: (item, result) for item, result in session.completed_work_items}
    items = session.work_items
    session.clear()
    session.add_work_items(items)
    for job, (_, result) in done.items():
        if result.is_killed:
            session.set_result(job, result)


def mutant(module: Module, item: WorkItem) -> str | None:
    """Return the module's text with one change, None where it would be the same or no Python."""
    (mutation,) = item.mutations
    operator = cosmic_ray.plugins.get_operator(mutation.operator_name)
    try:
        source = mutate_code(module.source, operator(), mutation.occurrence)
    except AttributeError:  # Cosmic Ray 8.7 cannot exchange a dotted name, as in (struct.error,)
        return None
    if source is None or source == module.source:
        return None
    try:
        # Not ast.parse: in Python 3.11 it fails at random when several threads call it
        # (github.com/python/cpython/issues/106905).
        compile(source, module.path, "exec", dont_inherit=True)
    except SyntaxError:
        return None
    return str(source)


def _attempt(module: Module, item: WorkItem, runners: queue.Queue[Runner]) -> WorkResult:
    source = mutant(module, item)
    if source is None:
        return WorkResult(WorkerOutcome.NO_TEST)
    runner = runners.get()
    try:
        killed = runner.kills(source)
    finally:
        runners.put(runner)
    outcome = TestOutcome.KILLED if killed else TestOutcome.SURVIVED
    diff = "\n".join(difflib.unified_diff(module.source.splitlines(), source.splitlines(), n=0))
    return WorkResult(WorkerOutcome.NORMAL, test_outcome=outcome, diff=diff)


def try_mutants(module: Module, session: WorkDB, jobs: int) -> None:
    """Give every pending mutant its verdict."""
    pending = session.pending_work_items
    if not pending:
        return
    runners: queue.Queue[Runner] = queue.Queue()
    with contextlib.ExitStack() as stack:
        for _ in range(min(jobs, len(pending))):
            runner = Runner(module)
            stack.callback(runner.close)
            runners.put(runner)
        pool = stack.enter_context(concurrent.futures.ThreadPoolExecutor(jobs))
        futures = {pool.submit(_attempt, module, item, runners): item for item in pending}
        try:
            _collect(module, session, futures)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _collect(
    module: Module,
    session: WorkDB,
    futures: dict[concurrent.futures.Future[WorkResult], WorkItem],
) -> None:
    shown = time.monotonic()
    for done, future in enumerate(concurrent.futures.as_completed(futures), 1):
        session.set_result(futures[future].job_id, future.result())
        if time.monotonic() - shown > 10:
            shown = time.monotonic()
            print(f"{module.key}: {done} of {len(futures)} mutants tried", file=sys.stderr)


def survivors(module: Module, session: WorkDB) -> tuple[int, list[Survivor]]:
    """Return the number of mutants that were tried, and those that survived."""
    reasons = {(entry["was"], entry["becomes"]): entry["reason"] for entry in module.accepted}
    tried, found = 0, []
    for item, result in session.completed_work_items:
        if result.worker_outcome is not WorkerOutcome.NORMAL:
            continue
        tried += 1
        if not result.is_killed:
            lines = [
                line for line in (result.diff or "").splitlines() if line[:3] not in {"---", "+++"}
            ]
            was = " ".join(line[1:].strip() for line in lines if line.startswith("-")).strip()
            becomes = " ".join(line[1:].strip() for line in lines if line.startswith("+")).strip()
            reason = reasons.get((was, becomes))
            found.append(Survivor(item.mutations[0].start_pos[0], was, becomes, reason))
    return tried, sorted(found, key=lambda survivor: (survivor.line, survivor.becomes))


def report(module: Module, tried: int, survived: list[Survivor]) -> None:
    """Print a module's survivors that have no reason, and its counts."""
    for survivor in survived:
        if survivor.reason is None:
            print(f"{module.path}:{survivor.line}\n  - {survivor.was}\n  + {survivor.becomes}")
    seen = {(survivor.was, survivor.becomes) for survivor in survived}
    for entry in module.accepted:
        if (entry["was"], entry["becomes"]) not in seen:
            print(f"modules.toml, {module.key}: does not survive any more: {entry['becomes']}")
    explained = sum(survivor.reason is not None for survivor in survived)
    print(f"{module.path}: {_share(tried, len(survived))}, {explained} of them with a reason")


def _share(tried: int, survived: int) -> str:
    return f"{tried} mutants, {survived} survived ({survived / max(tried, 1):.1%})"


def main() -> int:
    """Try the mutants; return 1 if too many survive in any room."""
    modules = read_modules()
    names = {name for module in modules for name in (module.room, module.key)}
    parser = argparse.ArgumentParser(prog="python -m tests.mutants")
    parser.add_argument("rooms", nargs="*", metavar="ROOM", help=", ".join(sorted(names)))
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes at a time")
    parser.add_argument("--fresh", action="store_true", help="keep no earlier verdict")
    options = parser.parse_args()
    if unknown := set(options.rooms) - names:
        parser.error(f"no room or module {', '.join(sorted(unknown))}")
    counts: dict[str, tuple[int, int]] = {}
    for module in modules:
        if options.rooms and not {module.room, module.key} & set(options.rooms):
            continue
        with open_session(module, options.fresh) as session:
            try_mutants(module, session, options.jobs)
            tried, survived = survivors(module, session)
        report(module, tried, survived)
        before = counts.get(module.room, (0, 0))
        counts[module.room] = before[0] + tried, before[1] + len(survived)
    for room, (total, alive) in counts.items():
        print(f"{room}: {_share(total, alive)}")
    return int(any(alive > MOST_SURVIVORS * total for total, alive in counts.values()))


if __name__ == "__main__":
    sys.exit(main())
