"""A folder that a camera fills: each image is inspected as it comes.

The folder is polled, not subscribed to: that also works on network shares, where the kernel hears
nothing of what other machines write. An image is taken when it has its final name (hidden files and
other suffixes are passed over, so a camera may write ``x.tmp`` and rename it), when its size and
time have not changed for a while, and when it decodes; what does not decode is looked at again when
it has changed, and is given up on after some seconds.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tinyunet_deploy.backends.base import Backend
from tinyunet_deploy.errors import RefusedError
from tinyunet_deploy.inspection.infer import inspect_images
from tinyunet_deploy.inspection.outputs import Inspection, Outputs
from tinyunet_deploy.inspection.report_line import ReportLine, RunSummary
from tinyunet_deploy.inspection.run_report import Report
from tinyunet_deploy.inspection.walk import walk_images

__all__ = ["Watched", "watch"]

_UNFINISHED: Final = frozenset({"corrupt", "empty", "missing", "not-an-image", "truncated"})
"""Reasons that the rest of a file, which is still to come, may take away."""


@dataclass(frozen=True)
class Watched:
    """What was seen while a folder was watched."""

    summary: RunSummary
    """Counts over the whole output folder, what earlier watches did included."""
    timed: int
    """Images that came while it was watched."""
    late: int
    """Those of them whose verdict came after the deadline."""


@dataclass
class _File:
    """One that is there and has no line yet."""

    state: tuple[int, int]
    """Size in bytes and time of change in nanoseconds."""
    since: float
    """When this state was first seen, seconds."""
    not_before: float | None
    """The last time when it was not in this state, seconds; None for one that lay there."""
    tried: bool = False
    """Whether this state was read and did not decode."""


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
    deadline_ms: float | None = None,
    settle_ms: float = 50.0,
    patience_s: float = 5.0,
    on_line: Callable[[ReportLine], None] | None = None,
) -> Watched:
    """Inspect the images of a folder as they come, until told to stop.

    Masks and report are those of ``infer``, and a stopped watch is
    gone on with. A name is a part: a file that is overwritten after its verdict has no second one.

    Each line has ``latency_ms`` on top, from the last poll that did not see the file as it finally
    was until its mask was in place: never less than the true one. It is null for images that lay
    there when the watch began; those have no deadline.

    Args:
        folder: with its subfolders.
        output: as for ``infer``.
        threshold: probability in [0, 1].
        min_area: pixels that a defect must have to make a part NG.
        batch_size: images that are run at once where several are waiting.
        stop: ends the watch; the image at hand is finished and the report completed.
        deadline_ms: lines of later images have ``"late": true``.
        settle_ms: how long size and time of a file must not have changed.
        patience_s: how long a file that does not decode may stay as it is, and the folder away.
        on_line: called with the report line of each image.

    Raises:
        RefusedError: the output folder belongs to another run, or the folder cannot be listed.
        RuntimeUnavailable: the disk is full or read-only; what was written stays valid.
    """
    inspection = Inspection.for_backend(
        backend, folder.resolve(), output, threshold, min_area, outputs=outputs
    )
    files: dict[Path, _File] = {}
    reported: set[str] = set()
    timed = late = 0
    polled: float | None = None
    with Report(output, inspection.options(backend, "watch")) as report:

        def is_new(path: Path) -> bool:
            name = inspection.name(path)
            return name not in report and name not in reported

        while not stop.is_set():
            began = time.monotonic()
            try:
                states = _poll(inspection.root, output, is_new)
            except RefusedError:
                if polled is None or began - polled > patience_s:
                    raise
                stop.wait(settle_ms / 2e3)
                continue
            files = {
                path: known
                if (known := files.get(path)) and known.state == state
                else _File(state, began, polled)
                for path, state in states.items()
            }
            polled = began
            ready = [path for path, file in files.items() if _is_ready(file, settle_ms, patience_s)]
            ready.sort(key=lambda path: (files[path].not_before is None, files[path].since))
            lines = inspect_images(
                ready[: 4 * batch_size],
                backend,
                inspection,
                batch_size=batch_size,
                workers=workers,
            )
            with contextlib.closing(lines):
                for path, line in zip(ready, lines, strict=False):
                    file, now = files[path], time.monotonic()
                    if line.get("reason") in _UNFINISHED and now - file.since < patience_s:
                        file.tried = True
                        continue
                    if _state(path) != file.state:  # it was changed or taken away meanwhile
                        continue
                    latency_ms = None
                    if file.not_before is not None:
                        latency_ms = round((now - file.not_before) * 1e3, 1)
                        timed += 1
                    line["latency_ms"] = latency_ms
                    if deadline_ms is not None:
                        line["late"] = latency_ms is not None and latency_ms > deadline_ms
                        late += line["late"]
                    report.add(line)
                    reported.add(line["path"])
                    if on_line:
                        on_line(line)
                    if stop.is_set():
                        break
            if not ready:
                stop.wait(max(settle_ms / 2e3, time.monotonic() - began))
        report.finish(sort=True)
        return Watched(report.summary, timed, late)


def _poll(
    folder: Path, output: Path, is_new: Callable[[Path], bool]
) -> dict[Path, tuple[int, int]]:
    """The images that have no line yet, and their states."""
    if not folder.is_dir():
        raise RefusedError(folder, "is not there")
    found = ((path, _state(path)) for path in walk_images([folder], output) if is_new(path))
    return {path: state for path, state in found if state is not None}


def _state(path: Path) -> tuple[int, int] | None:
    """Size in bytes and time of change in nanoseconds; None if the file is gone."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def _is_ready(file: _File, settle_ms: float, patience_s: float) -> bool:
    """Whether to read it: when it has settled, and once more before it is given up on."""
    rest_s = time.monotonic() - file.since
    return rest_s >= (patience_s if file.tried else settle_ms / 1e3)
