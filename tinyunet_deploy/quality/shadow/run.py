"""Run a challenger beside a leader: the leader never waits for it while it has a deadline."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, deque
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from tinyunet_deploy.artifacts.sidecar import Decision
from tinyunet_deploy.backends.base import Backend
from tinyunet_deploy.contract import Image, Score
from tinyunet_deploy.files import json_value, write_atomic
from tinyunet_deploy.inspection.defects import Verdict
from tinyunet_deploy.inspection.report_line import ReportLine
from tinyunet_deploy.quality.scored_by import ScoredBy
from tinyunet_deploy.quality.shadow.frames import read_frame, write_frame
from tinyunet_deploy.quality.shadow.report import ShadowReport
from tinyunet_deploy.quality.shadow.tally import ShadowTally

__all__ = ["SHADOW", "Challenger", "ShadowRun"]

log = logging.getLogger(__name__)

SHADOW: Final = "shadow"
"""Folder below the output folder: ``shadow.json`` and ``flips/``."""
_WAITING_BYTES: Final = 512 * 1024**2
"""Most pixels and scores that wait for the challenger: a thousand parts of 512x512."""
_LOADING_S: Final = 600.0
"""How long a challenger may load: TensorRT may build an engine for minutes."""
_SILENT_S: Final = 120.0
"""How long a challenger may be silent while the leader waits for it and leaves it the machine."""
# -P: do not import a numpy.py that lies in the current folder
_COMMAND: Final = [sys.executable, "-P", "-m", "tinyunet_deploy.quality.shadow.process"]
_ENDED: Final = "the challenger had ended"


@dataclass(frozen=True)
class Challenger:
    """The model that runs in the shadow, and where."""

    model: Path
    backend: str | None = None
    device: str | None = None
    trust_engine: bool = False


class _Part(NamedTuple):
    name: str
    change: int
    verdict: Verdict
    image: Image
    score: Score


class ShadowRun:
    """A challenger in a process of its own that judges the leader's parts.

    Use it as a context manager around the leader's run: :meth:`observe` is the observer of the
    leader's inspection, and :meth:`reported` takes its report lines. Neither raises for the
    challenger's sake. The report is written when the block ends.

    Args:
        challenger: its threshold and min_area are those of its own sidecar.
        leader: the loaded leader.
        decision: the leader's threshold and min_area.
        output: the leader's output folder.
        patient: wait for a challenger that is behind, as where there is no deadline; else the parts
            that it has no room for are unseen.
        drain_s: longest wait for the last parts at the end, seconds; None waits as long as answers
            come.
    """

    def __init__(
        self,
        challenger: Challenger,
        leader: Backend,
        decision: Decision,
        output: Path,
        *,
        patient: bool,
        drain_s: float | None = None,
    ) -> None:
        self._challenger = challenger
        self._leader = ScoredBy.of(leader)
        self._decision = decision
        self._folder = output / SHADOW
        self._patient = patient
        self._drain_s = drain_s
        self._changed = threading.Condition()
        # All below is guarded by it.
        self._observed: dict[str, tuple[Image, Score]] = {}
        self._waiting: deque[_Part] = deque()
        self._waiting_bytes = 0
        self._sent: deque[_Part] = deque()
        self._closing = False
        self._failure: str | None = None
        self._ready: dict[str, Any] | None = None
        self._answered_s = time.monotonic()
        self._offered = 0
        self._unseen: Counter[str] = Counter()
        self._tally = ShadowTally()

    def observe(self, name: str, image: Image, score: Score) -> None:
        """Remember the pixels of a part until its report line comes."""
        with self._changed:
            if self._failure is None:
                self._observed[name] = image, score

    def reported(self, line: ReportLine) -> None:
        """Offer the part of a report line to the challenger."""
        with self._changed:
            observed = self._observed.pop(line["path"], None)
            if line["status"] != "inspected":
                return
            self._offered += 1
            if self._failure is not None or observed is None:
                self._unseen[_ENDED] += 1
                return
            part = _Part(line["path"], line.get("change", 0), line["verdict"], *observed)
            size = 2 * part.image.size
            while self._waiting and self._waiting_bytes + size > _WAITING_BYTES:
                if not self._patient:
                    self._unseen["the challenger was too far behind"] += 1
                    return
                if not self._wait_for_answer():
                    self._unseen[_ENDED] += 1
                    return
            self._waiting.append(part)
            self._waiting_bytes += size
            self._changed.notify_all()

    def __enter__(self) -> Self:
        self._process = _start()
        self._threads = [
            threading.Thread(target=target, name=f"shadow {name}", daemon=True)
            for name, target in (("send", self._send), ("receive", self._receive))
        ]
        for thread in self._threads:
            thread.start()
        deadline = time.monotonic() + _LOADING_S
        with self._changed:
            while self._ready is None and self._failure is None:
                if not self._changed.wait(max(0.0, deadline - time.monotonic())):
                    self._fail(f"did not load within {_LOADING_S:g} s")
        if self._failure is not None:
            log.warning("%s: the challenger %s; the leader runs alone", self._name, self._failure)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._changed:
            began = time.monotonic()
            while kind is None and self._waiting_or_sent and self._failure is None:
                left = None if self._drain_s is None else began + self._drain_s - time.monotonic()
                if left is not None and left <= 0:
                    break
                self._wait_for_answer(left)
            rest = len(self._waiting) + len(self._sent)
            if rest:
                self._unseen["the run ended before its turn"] += rest
                self._waiting.clear()
                self._sent.clear()
            self._closing = True
            self._changed.notify_all()
        self._process.kill()
        self._process.wait()
        for thread in self._threads:
            thread.join(timeout=5)
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):  # the rest of a frame has no reader
                    stream.close()

    @property
    def report(self) -> ShadowReport:
        """The figures up to now."""
        with self._changed:
            ready, tally = self._ready, self._tally
            challenger = None if ready is None else ScoredBy.from_fields(ready["ready"])
            rule = Decision(0.0, 0)
            if ready is not None:
                rule = Decision(ready["threshold"], ready["min_area"])
            return ShadowReport(
                leader=self._leader,
                leader_threshold=self._decision.threshold,
                leader_min_area_px=self._decision.min_area,
                challenger=challenger,
                challenger_threshold=rule.threshold,
                challenger_min_area_px=rule.min_area,
                offered=self._offered,
                seen=len(tally),
                new_rejects=tally.new_rejects,
                new_passes=tally.new_passes,
                flips=tuple(tally.flips),
                unseen=dict(self._unseen),
                failure=self._failure,
                latency=tally.latency,
                leader_plateau=tally.leader_plateau(self._leader, self._decision),
                challenger_plateau=(
                    None if challenger is None else tally.challenger_plateau(challenger, rule)
                ),
            )

    def write_report(self) -> Path:
        """Write the report beside those of earlier runs, and return its path.

        Raises:
            RuntimeUnavailable: the disk is full or read-only.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        number, path = 1, self._folder / "shadow.json"
        while path.exists():
            number += 1
            path = self._folder / f"shadow-{number}.json"
        text = json.dumps(json_value(self.report.as_fields()), indent=2, allow_nan=False)
        write_atomic(path, f"{text}\n".encode(), durable=True)
        return path

    @property
    def _name(self) -> str:
        return self._challenger.model.name

    @property
    def _waiting_or_sent(self) -> bool:
        return bool(self._waiting or self._sent)

    def _wait_for_answer(self, most_s: float | None = None) -> bool:
        """Wait for a change; give a silent challenger up. Return whether it still runs."""
        self._changed.wait(1.0 if most_s is None else min(1.0, most_s))
        silent_s = time.monotonic() - self._answered_s
        if self._failure is None and silent_s > _SILENT_S:
            self._fail(f"gave no answer for {_SILENT_S:g} s")
            self._process.kill()
        return self._failure is None

    def _fail(self, failure: str) -> None:
        """Give the challenger up; what waits for it stays unseen."""
        if self._failure is not None or self._closing:
            return
        self._failure = failure
        self._unseen[_ENDED] += len(self._waiting) + len(self._sent)
        self._waiting.clear()
        self._sent.clear()
        self._waiting_bytes = 0
        self._observed.clear()
        self._changed.notify_all()

    def _send(self) -> None:
        """Thread: hand parts over, no faster than the challenger reads them."""
        stream = self._process.stdin
        assert stream is not None
        try:
            write_frame(
                stream,
                {
                    "model": str(self._challenger.model),
                    "backend": self._challenger.backend,
                    "device": self._challenger.device,
                    "trust_engine": self._challenger.trust_engine,
                    "leader_threshold": self._decision.threshold,
                    "leader_min_area": self._decision.min_area,
                    "pictures": str(self._folder / "flips"),
                },
            )
            while True:
                with self._changed:
                    while not self._waiting and not self._closing and self._failure is None:
                        self._changed.wait()
                    if self._closing or self._failure is not None:
                        return
                    part = self._waiting.popleft()
                    self._waiting_bytes -= 2 * part.image.size
                    if not self._sent:  # it was idle, not silent
                        self._answered_s = time.monotonic()
                    self._sent.append(part)
                    self._changed.notify_all()
                header = {"name": part.name, "change": part.change, "verdict": part.verdict}
                write_frame(stream, header, part.image, part.score)
        except (OSError, ValueError):  # it ended; the thread that receives says how
            return

    def _receive(self) -> None:
        """Thread: take the answers."""
        stream = self._process.stdout
        assert stream is not None
        error = None
        while (frame := read_frame(stream)) is not None:
            answer = frame[0]
            with self._changed:
                self._answered_s = time.monotonic()
                if "ready" in answer:
                    self._ready = answer
                elif "error" in answer:
                    error = answer["error"]
                elif self._sent:
                    part = self._sent.popleft()
                    self._tally.add(part.name, part.verdict, answer)
                self._changed.notify_all()
        code = self._process.wait()
        with self._changed:
            self._fail(_how_it_ended(code, error))


def _start() -> subprocess.Popen[bytes]:
    library = str(Path(__file__).resolve().parents[3])
    return subprocess.Popen(
        _COMMAND,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": library},
        start_new_session=True,  # Ctrl-C is for the leader, which ends its challenger itself
    )


def _how_it_ended(code: int, error: str | None) -> str:
    if error is not None:
        return f"failed: {error}"
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"ended by itself with exit code {code}"
