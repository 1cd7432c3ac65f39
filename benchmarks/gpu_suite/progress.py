"""Run steps one after the other within a time limit, and remember which are finished."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from benchmarks.gpu_suite.steps import Step
from tinyunet_deploy.errors import GateFailed
from tinyunet_deploy.files import read_regular, write_atomic

__all__ = ["Outcome", "RunCommand", "State", "run_command", "run_steps"]

State: TypeAlias = Literal["finished", "failed", "out of time", "not begun"]
RunCommand: TypeAlias = Callable[[Sequence[str], float], "tuple[int | None, str]"]
"""Function that runs a command for at most a number of seconds. It returns the exit code, None if
the time was over, and the last line of its output."""
LEAST_S: Final = 5.0
"""A step begins only if at least this much time is left, seconds."""


class Outcome(NamedTuple):
    """How a step ended."""

    step: str
    state: State
    seconds: float = 0.0
    why: str = ""
    """Last line of a failed command, or the limit that it broke."""


def run_command(words: Sequence[str], limit_s: float) -> tuple[int | None, str]:
    """Run a command in a process of its own."""
    try:
        process = subprocess.run(words, capture_output=True, text=True, timeout=limit_s)
    except subprocess.TimeoutExpired:
        return None, ""
    lines = (process.stderr.strip() or process.stdout.strip()).splitlines()
    return process.returncode, lines[-1] if lines else ""


def run_steps(
    steps: Sequence[Step],
    folder: Path,
    *,
    limit_s: float,
    say: Callable[[str], None],
    run: RunCommand = run_command,
    clock: Callable[[], float] = time.monotonic,
) -> list[Outcome]:
    """Run the steps that are not finished yet, until the time is over.

    Args:
        folder: folder of the run; ``steps.json`` in it has the finished steps.
        limit_s: seconds for all steps together.
        say: function that takes one line of text for each step.
        clock: seconds, from any start.

    Returns:
        The outcome of every step, also of those that an earlier run finished.
    """
    done = _read(folder / "steps.json")
    end = clock() + limit_s
    outcomes: list[Outcome] = []
    for step in steps:
        if step.name in done:
            outcomes.append(Outcome(step.name, "finished", *done[step.name]))
            continue
        missing = [name for name in step.needs if not _finished(outcomes, name)]
        left = min(step.limit_s, end - clock())
        if missing or left < LEAST_S:
            why = f"needs {missing[0]}" if missing else "no time was left"
            outcomes.append(Outcome(step.name, "not begun", 0.0, why))
            continue
        say(f"{step.name} ...")
        if step.result is not None:
            step.result.parent.mkdir(parents=True, exist_ok=True)
        began = clock()
        code, line = run(step.words, left)
        seconds = round(clock() - began, 1)
        outcome = _outcome(step, code, line, seconds)
        outcomes.append(outcome)
        say(f"{step.name}: {outcome.state} in {seconds:.0f} s{outcome.why and f': {outcome.why}'}")
        if outcome.state == "finished":
            done[step.name] = (outcome.seconds, outcome.why)
            write_atomic(folder / "steps.json", json.dumps(done, indent=1).encode() + b"\n")
    return outcomes


def _outcome(step: Step, code: int | None, line: str, seconds: float) -> Outcome:
    if code is None:
        return Outcome(step.name, "out of time", seconds, f"took longer than {seconds:.0f} s")
    if code == 0 or (step.gates and code == GateFailed.exit_code):
        if step.result is not None and not step.result.exists():
            return Outcome(step.name, "failed", seconds, f"did not write {step.result.name}")
        return Outcome(step.name, "finished", seconds, line if code else "")
    return Outcome(step.name, "failed", seconds, line or f"exit {code}")


def _finished(outcomes: Sequence[Outcome], name: str) -> bool:
    return any(outcome.step == name and outcome.state == "finished" for outcome in outcomes)


def _read(path: Path) -> dict[str, Any]:
    try:
        value: Mapping[str, Any] = json.loads(read_regular(path))
    except FileNotFoundError:
        return {}
    return dict(value)
