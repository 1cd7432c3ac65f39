"""Inspect the images of a folder as a camera drops them.

The folder is polled: that also works on network shares, where the kernel does not notice what other
machines write. An image is inspected when it has its final name (hidden files and other suffixes
are passed over, so a camera may write ``x.tmp`` and rename it), when its size, time and content
have not changed for a while, and when it decodes; a file that does not decode is read again when it
has changed, and is given up on after some seconds.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from tinyunet_deploy.backends.base import Backend
from tinyunet_deploy.clock import SYSTEM_CLOCK, Clock
from tinyunet_deploy.data.description_file import described_bits
from tinyunet_deploy.errors import RefusedError, TinyUNetError
from tinyunet_deploy.inspection.identity import FileState, file_state
from tinyunet_deploy.inspection.infer import inspect_images
from tinyunet_deploy.inspection.notes import log_notes
from tinyunet_deploy.inspection.outputs import Inspection, Observer, Outputs
from tinyunet_deploy.inspection.report_line import ReportLine, RunSummary
from tinyunet_deploy.inspection.run_report import Report
from tinyunet_deploy.inspection.walk import walk_images
from tinyunet_deploy.inspection.watch_verdicts import WatchVerdicts, content_hash

__all__ = ["Watched", "watch"]

log = logging.getLogger(__name__)

_FINAL: Final = frozenset({"name-taken", "name-too-long", "not-a-file", "too-large", "wrong-size"})
"""Reasons that stay valid even if the rest of the file has yet to arrive."""
_STOPPED_S: Final = 1.0
"""Files are not observed during a wait that takes this much longer than requested, or a poll that
takes this long, seconds: the process was stopped, or a share did not answer."""


@dataclass(frozen=True)
class Watched:
    """Counts of one watch."""

    summary: RunSummary
    """Counts over the whole output folder, including parts of earlier watches."""
    timed: int
    """Number of images that arrived while the folder was watched."""
    late: int
    """Number of timed images whose verdict came after the deadline."""


@dataclass
class _File:
    """A file in a state that has no verdict yet."""

    state: FileState
    """State when its size and time were first seen."""
    since: float
    """Time at which they were first seen, seconds."""
    not_before: float | None
    """Time of the last poll that did not see them, seconds; None if the file was there before."""
    sha256: str | None = None
    """Hash of the content; empty if it could not be read, None if it was not read yet."""
    hashed: float = 0.0
    """Time at which the content was hashed, seconds."""
    tried: bool = False
    """True if this state was inspected and could not be decoded."""


def watch(
    folder: Path,
    output: Path,
    backend: Backend,
    *,
    threshold: float | None = None,
    min_area: int | None = None,
    batch_size: int,
    workers: int,
    stop: threading.Event,
    outputs: Outputs,
    observer: Observer | None = None,
    tile: bool = True,
    bits: int | None = None,
    max_pixels: int | None = None,
    deadline_ms: float | None = None,
    settle_ms: float = 50.0,
    patience_s: float = 5.0,
    away_s: float = 60.0,
    on_line: Callable[[ReportLine], None] | None = None,
    clock: Clock = SYSTEM_CLOCK,
) -> Watched:
    """Inspect the images of a folder as they come, until ``stop`` is set.

    Masks and report are those of ``infer``, and a stopped watch can be resumed. A file whose
    content changes after its verdict is another part: it gets its own line and mask, with the
    number of the ``change``. A verdict stays in the report when its file is gone: the part has
    passed.

    Each line also has ``latency_ms``: the time from the last poll that did not see the file in its
    final state until its mask was in place. It is never less than the true latency. It is null for
    images that were there when the watch began; those have no deadline.

    Args:
        folder: the folder to watch, with its subfolders.
        output: as for ``infer``.
        threshold: probability in [0, 1].
        min_area: smallest defect that makes a part NG, pixels.
        batch_size: largest number of waiting images per call of the backend.
        tile: take images of any size; False skips those that are not of the network's size.
        bits: depth of 16-bit files, 8..16; None takes the one that a ``dataset.toml`` in the folder
            or above it states, else the one in the sidecar.
        max_pixels: largest accepted height x width of an image; None is 64 megapixels.
        stop: ends the watch; the image at hand is finished and the report completed.
        observer: takes the name, image and score of each inspected image, on any thread; a file
            that was still changing is inspected, and observed, again before its line is reported.
        deadline_ms: lines of later images have ``"late": true``.
        settle_ms: how long size, time and content of a file must not have changed.
        patience_s: how long a file that does not decode may stay as it is. The time in which the
            process is stopped does not count.
        away_s: how long to wait for a folder that has disappeared, such as a network share that
            reconnects.
        on_line: called with the report line of each image.
        clock: measures all durations; the clock of the wall may jump.

    Raises:
        RefusedError: the output folder belongs to another run, or the folder cannot be listed.
        RuntimeUnavailable: the disk is full or read-only; files that were written stay valid.
    """
    bits = described_bits([folder], bits, backend.artifact.sidecar.bits)
    root = folder.resolve()
    inspection = Inspection.for_backend(
        backend, root, output, threshold, min_area, tile, outputs, bits, max_pixels, observer
    )
    verdicts = WatchVerdicts(inspection)
    files: dict[Path, _File] = {}
    timed = late = 0
    polled: float | None = None
    away_since: float | None = None
    late_s = 0.0
    passed_over = Counter[str]()
    with Report(output, inspection.options(backend, "watch"), verdicts.keep) as report:
        while not stop.is_set():
            report.require_present()
            began = clock.now_s()
            try:
                states, passed_over = _poll(inspection, verdicts)
            except (OSError, RefusedError):
                if polled is None:
                    raise
                if away_since is None:
                    away_since = began
                    notice = f"has disappeared; waiting {away_s:g} s for it to return"
                    log.warning("%s", TinyUNetError(folder, notice))
                if began - away_since > away_s:
                    raise
                clock.wait(stop, settle_ms / 2e3)
                continue
            if away_since is not None:
                away_since = None
                log.warning("%s", TinyUNetError(folder, "is back"))
            files = {
                path: known
                if (known := files.get(path)) and known.state.size_and_time == state.size_and_time
                else _File(state, began, polled)
                for path, state in states.items()
            }
            polled = began
            queue = sorted(
                files,
                key=lambda path: (
                    files[path].not_before is None,
                    verdicts.change(inspection.name(path)) > 0,  # a backup touches all of them
                    files[path].since,
                ),
            )
            for path in [path for path in queue if files[path].sha256 is None][: 16 * batch_size]:
                file, name = files[path], inspection.name(path)
                file.sha256, file.hashed = content_hash(path), clock.now_s()
                if verdicts.touched(name, file.state, file.sha256):
                    del files[path]
            now = clock.now_s()
            _pass_over(files, now - began, now)
            ready = [
                path
                for path in queue
                if path in files and _is_ready(files[path], now, settle_ms, patience_s)
            ][: 4 * batch_size]
            numbers = {name: verdicts.change(name) for name in map(inspection.name, ready)}
            changes = {name: number for name, number in numbers.items() if number}
            lines = inspect_images(
                ready,
                backend,
                replace(inspection, changes=changes, clashes=verdicts.clashes(numbers)),
                batch_size=batch_size,
                workers=workers,
            )
            with contextlib.closing(lines):
                for path, line in zip(ready, lines, strict=False):
                    file, now = files[path], clock.now_s()
                    settled = file_state(path).size_and_time == file.state.size_and_time
                    if settled and line.get("sha256", file.sha256) != file.sha256:
                        file.sha256, file.since, file.tried = None, now, False
                        settled = False
                    if not settled:  # it changed or vanished in the meantime
                        if line["status"] == "inspected":
                            inspection.remove_files(line)
                        continue
                    final = line["status"] == "inspected" or line["reason"] in _FINAL
                    if not final and now - file.since < patience_s:
                        file.tried = True
                        continue
                    latency_ms = None
                    if file.not_before is not None:
                        latency_ms = round((now - file.not_before) * 1e3, 1)
                        timed += 1
                    line["latency_ms"] = latency_ms
                    if deadline_ms is not None:
                        line["late"] = latency_ms is not None and latency_ms > deadline_ms
                        late += line["late"]
                    if line.get("change"):
                        what = f"changed after its verdict: another part, change {line['change']}"
                        log.warning("%s", TinyUNetError(line["path"], what))
                    line["ctime_ns"], line["inode"] = file.state.ctime_ns, file.state.inode
                    report.add(line)
                    verdicts.add(line, file.state)
                    del files[path]
                    if on_line:
                        on_line(line)
                    if stop.is_set():
                        break
            if not ready:
                before = clock.now_s()
                wait_s = max(settle_ms / 2e3, min(max(before - began, late_s), _STOPPED_S))
                clock.wait(stop, wait_s)
                now = clock.now_s()
                # on a machine where every wait is late, longer ones let the files age all the same
                late_s = now - before - wait_s
                _pass_over(files, late_s, now)
        report.finish(passed_over, sort=True)
        log_notes(report.summary.notes)
        return Watched(report.summary, timed, late)


def _poll(
    inspection: Inspection, verdicts: WatchVerdicts
) -> tuple[dict[Path, FileState], Counter[str]]:
    """Return the states of the files without a verdict, and the counts of passed-over entries.

    Raises:
        RefusedError: the folder does not exist or cannot be listed.
        OSError: the file system does not answer.
    """
    if not inspection.root.is_dir():
        raise RefusedError(inspection.root, "does not exist")
    passed_over = Counter[str]()
    states = {}
    for path in walk_images([inspection.root], inspection.output, passed_over):
        state = file_state(path)
        if state != FileState() and verdicts.lacks(inspection.name(path), state):
            states[path] = state
    return states, passed_over


def _pass_over(files: Mapping[Path, _File], seconds: float, now: float) -> None:
    """Subtract from the files' age a long time in which they were not observed."""
    if seconds > _STOPPED_S:
        for file in files.values():
            file.since = min(file.since + seconds, now)
            file.hashed = min(file.hashed + seconds, now)


def _is_ready(file: _File, now: float, settle_ms: float, patience_s: float) -> bool:
    """Return whether to inspect a file now: once settled, and a last time after patience_s."""
    if file.sha256 is None:
        return False
    if file.tried:
        return now - file.since >= patience_s
    return min(now - file.since, now - file.hashed) >= settle_ms / 1e3
