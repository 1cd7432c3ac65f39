"""The report of an output folder: report.jsonl and defects.csv.

``report.jsonl`` has one line per image, in the order of the input tree, and a summary as its last
line; a report without a summary belongs to a run that has not finished, and is resumed. Only the
last line of such a report may be torn; any other line that cannot be read is damage.
``defects.csv`` has one row per defect and follows from the report.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from io import BufferedWriter
from pathlib import Path
from typing import Any, Final, Self, cast

from tinyunet_deploy.errors import RefusedError, RuntimeUnavailable, TinyUNetError
from tinyunet_deploy.files import sweep, sweep_tree, sync, sync_folder, write_atomic, writing
from tinyunet_deploy.inspection.defects_csv import HEADER, defect_rows
from tinyunet_deploy.inspection.folder_lock import lock_folder
from tinyunet_deploy.inspection.notes import run_notes
from tinyunet_deploy.inspection.report_line import ReportLine, RunSummary
from tinyunet_deploy.inspection.run_json import SCHEMA_VERSION, claim

__all__ = ["DEFECTS", "REPORT", "Report", "in_order", "read_report", "read_summary", "write_lines"]

log = logging.getLogger(__name__)

REPORT: Final = "report.jsonl"
DEFECTS: Final = "defects.csv"

_TAIL: Final = 1 << 16
"""Number of bytes at the end of a report that contain its last line."""
_REPAIR: Final = "run the command that wrote it again to repair it"

Check = Callable[[list[ReportLine]], ReportLine | None]
"""Takes all lines of one image, more than one if the report is damaged, and returns the line to
keep; None if the image has to be inspected again or is gone."""


def keep_verdicts(lines: list[ReportLine]) -> ReportLine | None:
    """Keep the only line of an image if it has a verdict: skipped images are tried again."""
    return lines[0] if len(lines) == 1 and lines[0]["status"] == "inspected" else None


class Report:
    """The report of an output folder, open for more lines by one process at a time.

    Args:
        folder: the output folder; created if missing.
        options: everything on which masks and report depend, plain JSON values.
        check: decides which lines of an earlier run are kept.

    Raises:
        RefusedError: the folder belongs to another model or other options, contains something
            else, or is in use by another process.
        RuntimeUnavailable: the folder cannot be written.
    """

    def __init__(self, folder: Path, options: dict[str, Any], check: Check = keep_verdicts) -> None:
        self.folder = folder
        self.summary = RunSummary()
        self._done: set[str] = set()
        self._path = folder / REPORT
        self._lock = lock_folder(folder)
        try:
            claim(folder, options)
            self._resumed = self._path.exists()
            sweep(folder, alone=True)
            if self._resumed:
                if read_summary(self._path) is None:
                    sweep_tree(folder, alone=True)
                if (number := _damaged(self._path)) is not None:
                    what = f"line {number} is damaged: its verdict is lost"
                    hint = "the image is inspected again if it is still there"
                    log.warning("%s", TinyUNetError(self._path, what, hint))
                write_atomic(self._path, self._kept(check), durable=True)
            self._write_defects(_lines(self._path) if self._resumed else ())
            self._file = self._path.open("ab")
            self._defects = (folder / DEFECTS).open("ab")
        except BaseException:
            self._lock.close()
            raise

    def __contains__(self, name: str) -> bool:
        """Return whether a verdict of an earlier run was kept for the image."""
        return name in self._done

    def add(self, line: ReportLine) -> None:
        """Append one image's line; its files must be in place already.

        Raises:
            RuntimeUnavailable: the disk is full or failing, or the report was deleted.
        """
        self.require_present()
        self._append(
            self._defects, b"".join(defect_rows([line]))
        )  # a report line promises that its files exist
        self._append(self._file, _encode(line))
        self.summary.count(line)

    def require_present(self) -> None:
        """Check that the report on the disk is still the file that this object writes.

        Raises:
            RuntimeUnavailable: it was deleted, moved or replaced, so that lines would be lost.
        """
        written = os.fstat(self._file.fileno())
        try:
            present = self._path.stat(follow_symlinks=False)
        except OSError:
            present = None
        if present is None or (present.st_dev, present.st_ino) != (written.st_dev, written.st_ino):
            raise RuntimeUnavailable(
                self._path, "was deleted or replaced while it was written", "run the command again"
            )

    def finish(self, passed_over: Mapping[str, int] | None = None, *, sort: bool = False) -> None:
        """Write the summary as the last line: the folder is complete.

        Args:
            passed_over: kind -> entries of the input folders that were not inspected.
            sort: the lines were added in any order; sort them in memory.

        Raises:
            RefusedError: the folder was replaced or taken over by another process.
            RuntimeUnavailable: the disk is full or failing, or the report was deleted.
        """
        self.require_present()
        self._lock.check()
        self.summary.passed_over = dict(sorted((passed_over or {}).items()))
        self.summary.notes = run_notes(
            self.summary.max_score,
            self.summary.padded,
            self.summary.tiled,
            self.summary.approximate,
        )
        if self._resumed or sort:
            lines = sorted(_lines(self._path), key=_order) if sort else in_order(self._path)
            write_atomic(self._path, map(_encode, lines), durable=True)
            self._write_defects(_lines(self._path))
            self._file.close()
            self._file = self._path.open("ab")
        end = {"schema_version": SCHEMA_VERSION, "summary": asdict(self.summary)}
        self._append(self._file, _encode(end))
        with writing(self._path):
            sync(self._defects.fileno(), self.folder)
            sync(self._file.fileno(), self.folder)
            sync_folder(self.folder)

    def close(self) -> None:
        """Release the folder."""
        with contextlib.suppress(OSError):  # add() has raised it already
            self._file.close()
            self._defects.close()
        self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _append(self, file: BufferedWriter, data: bytes) -> None:
        with writing(Path(file.name)):
            file.write(data)
            file.flush()

    def _write_defects(self, lines: Iterable[ReportLine]) -> None:
        rows = itertools.chain([HEADER], defect_rows(lines))
        write_atomic(self.folder / DEFECTS, rows, durable=True)

    def _kept(self, check: Check) -> Iterator[bytes]:
        for _, lines in itertools.groupby(in_order(self._path), key=_order):
            line = check(list(lines))
            if line is not None:
                self._done.add(line["path"])
                self.summary.count(line)
                yield _encode(line)


def read_report(path: Path) -> tuple[list[ReportLine], RunSummary | None]:
    """Return the lines of a report, and its summary if the run finished.

    Raises:
        RefusedError: a line is damaged or missing, or an image has two lines, so that it would be
            counted twice.
        OSError: the file cannot be read.
    """
    summary = read_summary(path)
    lines = list(_lines(path))
    number = _damaged(path)
    if number is not None:
        raise RefusedError(path, f"has a damaged line {number}", _REPAIR)
    if summary is not None and summary.images != len(lines):
        what = f"has lines of {len(lines)} images, but its summary counts {summary.images}"
        raise RefusedError(path, what, _REPAIR)
    seen = set()
    for line in lines:
        identity = line["path"], line.get("change")
        if identity in seen:
            raise RefusedError(path, f"has two lines for {line['path']}", _REPAIR)
        seen.add(identity)
    return lines, summary


def read_summary(path: Path) -> RunSummary | None:
    """Return the last line of a report if the run finished, else None."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL))
        last = file.read().rstrip(b"\n").rpartition(b"\n")[2]
    try:
        return RunSummary(**json.loads(last)["summary"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def in_order(*reports: Path) -> Iterator[ReportLine]:
    """Yield the image lines of reports in the order of the input tree, without holding them.

    Each run appends its lines in that order, so a file consists of a few ordered stretches, which
    are merged.
    """
    return heapq.merge(*itertools.chain.from_iterable(map(_ordered, reports)), key=_order)


def write_lines(path: Path, lines: Iterable[ReportLine]) -> None:
    """Write these lines as a report without a summary, like that of an unfinished run.

    Raises:
        RuntimeUnavailable: the disk is full or failing.
    """
    write_atomic(path, map(_encode, lines), durable=True)


def _lines(path: Path) -> Iterator[ReportLine]:
    """Yield the image lines up to the summary, without those that are torn or damaged."""
    return (line for _, line in _stretch(path, 0, None))


def _stretch(path: Path, start: int, end: int | None) -> Iterator[tuple[int, ReportLine]]:
    """Yield the image lines between two offsets in the file, each with its own offset."""
    with path.open("rb") as file:
        file.seek(start)
        for raw in file:
            line = _parsed(raw)
            if start == end or "summary" in line:
                return
            if _is_image_line(line):
                yield start, cast(ReportLine, line)
            start += len(raw)


def _damaged(path: Path) -> int | None:
    """Return the number of the first line up to the summary that is not an image's; None if there
    is none, or if it is the last line of the file, torn when the run was killed."""
    damaged = None
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            if damaged is not None:
                return damaged
            line = _parsed(raw)
            if "summary" in line:
                return None
            if not _is_image_line(line):
                damaged = number
    return None


def _parsed(raw: bytes) -> dict[str, Any]:
    """Return the values of a line, none if it is torn or damaged."""
    try:
        line = json.loads(raw)
    except (ValueError, RecursionError):
        return {}
    return line if isinstance(line, dict) else {}


def _is_image_line(line: dict[str, Any]) -> bool:
    if not isinstance(line.get("path"), str):
        return False
    if line.get("status") in ("inspected", "ok"):  # ok: schema 1
        return line.get("verdict") in ("OK", "NG")
    return line.get("status") == "skipped" and isinstance(line.get("reason"), str)


def _ordered(path: Path) -> list[Iterator[ReportLine]]:
    offsets = [0]
    previous: tuple[list[str], int] = ([], 0)
    for offset, line in _stretch(path, 0, None):
        if _order(line) < previous:
            offsets.append(offset)
        previous = _order(line)
    return [
        (line for _, line in _stretch(path, start, end))
        for start, end in zip(offsets, [*offsets[1:], None], strict=True)
    ]


def _encode(line: Mapping[str, object]) -> bytes:
    return json.dumps(line, separators=(",", ":")).encode() + b"\n"


def _order(line: ReportLine) -> tuple[list[str], int]:
    return line["path"].split("/"), line.get("change", 0)
