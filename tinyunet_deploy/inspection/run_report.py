"""What a run of ``infer`` leaves beside its masks: run.json, report.jsonl, defects.csv.

``run.json`` says which model and options the folder belongs to. ``report.jsonl`` has one line per
image, in the order of the input tree, and a summary as its last line; a report without a summary
is of a run that has not finished, and is gone on with. ``defects.csv`` has one row per defect and
follows from the report.
"""

from __future__ import annotations

import contextlib
import csv
import heapq
import io
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from io import BufferedWriter
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Required, Self, TypedDict, cast

from tinyunet_deploy.errors import RefusedError
from tinyunet_deploy.files import (
    is_temporary,
    sweep_tree,
    sync,
    sync_folder,
    write_atomic,
    writing,
)
from tinyunet_deploy.inspection.defects import Verdict
from tinyunet_deploy.inspection.folder_lock import lock_folder

SCHEMA_VERSION: Final = 1
REPORT: Final = "report.jsonl"
RUN: Final = "run.json"
DEFECTS: Final = "defects.csv"
COLUMNS: Final = (
    *("path", "defect", "x", "y", "width", "height"),
    *("area_px", "area_mm2", "max_score", "mean_score"),
)
"""Of defects.csv; ``defect`` counts from 1 in each image, ``area_mm2`` may be empty."""
SHARDS: Final = "shards"
"""Folder of the reports of shards that have not all finished."""

_TAIL: Final = 1 << 16
"""Bytes at the end of a report among which its last line is."""


class ReportLine(TypedDict, total=False):
    """One line of the report: the verdict on one image, or why it was skipped."""

    path: Required[str]
    """Name of the image: its path below the input folder, with slashes."""
    status: Required[Literal["ok", "skipped"]]
    verdict: Verdict
    """Present if the status is ok, as are ``max_score``, ``defects`` and ``statistics``."""
    max_score: int
    """Largest score in the image, 0..255."""
    defects: list[dict[str, Any]]
    """Fields of :class:`~tinyunet_deploy.inspection.defects.Defect`, the largest defect first."""
    statistics: dict[str, float]
    """Statistics by which ``tinyunet drift`` compares reports."""
    reason: str
    """Stable code of why the image was skipped; present if the status is skipped."""
    what: str
    """The reason in words; present if the status is skipped."""
    latency_ms: float | None
    """``tinyunet watch`` only: time from the file to its mask, None if the file lay there."""
    late: bool
    """``tinyunet watch --deadline-ms`` only."""


@dataclass
class RunSummary:
    """Counts over all images of a folder."""

    images: int = 0
    ok: int = 0
    """Images with a mask."""
    skipped: int = 0
    ng: int = 0
    """Images whose verdict is NG."""
    reasons: dict[str, int] = field(default_factory=dict)
    """Reason -> images skipped for it."""

    def count(self, line: ReportLine) -> None:
        """Take in one image's line."""
        self.images += 1
        if line["status"] == "ok":
            self.ok += 1
            self.ng += line["verdict"] == "NG"
        else:
            self.skipped += 1
            self.reasons[line["reason"]] = self.reasons.get(line["reason"], 0) + 1


class Report:
    """The report of an output folder, open for more lines; one process at a time has it.

    Args:
        folder: the output folder; made if it is not there.
        options: everything on which the masks depend, plain JSON values.

    Raises:
        RefusedError: the folder belongs to another model or other options, holds something else,
            or is in use by another process.
        RuntimeUnavailable: the folder cannot be written.
    """

    def __init__(self, folder: Path, options: dict[str, Any]) -> None:
        self.folder = folder
        self.summary = RunSummary()
        self._done: set[str] = set()
        self._path = folder / REPORT
        self._lock = lock_folder(folder)
        try:
            claim(folder, options)
            self._resumed = self._path.exists()
            if self._resumed:
                if read_summary(self._path) is None:
                    sweep_tree(folder)
                write_atomic(self._path, self._take_up(), durable=True)
            self._write_defects(_lines(self._path) if self._resumed else ())
            self._file = self._path.open("ab")
            self._defects = (folder / DEFECTS).open("ab")
        except BaseException:
            self._lock.close()
            raise

    def __contains__(self, name: str) -> bool:
        """Whether the image has its mask already."""
        return name in self._done

    def add(self, line: ReportLine) -> None:
        """Append one image's line; its files must be in place already.

        Raises:
            RuntimeUnavailable: the disk is full or failing.
        """
        self._append(self._defects, _rows([line]))  # first: a report line says that all is there
        self._append(self._file, _encode(line))
        self.summary.count(line)

    def finish(self, *, sort: bool = False) -> None:
        """Put the summary under the lines: the folder is complete.

        Args:
            sort: the lines were added in no order at all; they are held in memory to be sorted.

        Raises:
            RefusedError: the folder was replaced or taken over by another process.
            RuntimeUnavailable: the disk is full or failing.
        """
        self._lock.check()
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
        """Let the folder go."""
        with contextlib.suppress(OSError):  # of a line that was told of as it was added
            self._file.close()
            self._defects.close()
        self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _append(self, file: BufferedWriter, data: bytes) -> None:
        with writing(Path(file.name)):
            file.write(data)
            file.flush()

    def _write_defects(self, lines: Iterable[ReportLine]) -> None:
        header = ",".join(COLUMNS).encode() + b"\n"
        rows = (_rows([line]) for line in lines)
        write_atomic(self.folder / DEFECTS, itertools.chain([header], rows), durable=True)

    def _take_up(self) -> Iterator[bytes]:
        """The lines of images that have their mask; what was skipped is tried again."""
        for line in in_order(self._path):
            if line["status"] == "ok":
                self._done.add(line["path"])
                self.summary.count(line)
                yield _encode(line)


def claim(folder: Path, options: dict[str, Any]) -> None:
    """Make a folder belong to a run with these options, or see that it does.

    Raises:
        RefusedError: it belongs to another model or other options, or holds something else.
    """
    run = {"schema_version": SCHEMA_VERSION, **options}
    record = folder / RUN
    if not record.exists():
        if not all(is_temporary(entry.name) or entry.name == SHARDS for entry in folder.iterdir()):
            raise RefusedError(folder, "is not empty and not ours", "give another -o")
        write_atomic(record, json.dumps(run, indent=2).encode() + b"\n", durable=True)
        return
    try:
        earlier = json.loads(record.read_bytes())
        changed = [key for key in run if earlier.get(key) != run[key]]
    except (OSError, ValueError, AttributeError) as error:
        raise RefusedError(record, f"is not readable: {error}", "give another -o") from error
    if changed:
        raise RefusedError(folder, f"was made with another {', '.join(changed)}", "give another -o")


def read_report(path: Path) -> tuple[list[ReportLine], RunSummary | None]:
    """The lines of a report, and its summary if the run finished."""
    return list(_lines(path)), read_summary(path)


def read_summary(path: Path) -> RunSummary | None:
    """The last line of a report, if the run finished."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL))
        last = file.read().rstrip(b"\n").rpartition(b"\n")[2]
    try:
        return RunSummary(**json.loads(last)["summary"])
    except (ValueError, KeyError, TypeError):
        return None


def _lines(path: Path) -> Iterator[ReportLine]:
    """Image lines up to the summary or the first torn line."""
    return (line for _, line in _stretch(path, 0, None))


def _stretch(path: Path, start: int, end: int | None) -> Iterator[tuple[int, ReportLine]]:
    """Image lines between two places in the file, each with the place where it begins."""
    with path.open("rb") as file:
        file.seek(start)
        for raw in file:
            try:
                line = json.loads(raw)
            except ValueError:
                return
            if start == end or not isinstance(line, dict) or not {"path", "status"} <= line.keys():
                return
            yield start, cast(ReportLine, line)
            start += len(raw)


def in_order(*reports: Path) -> Iterator[ReportLine]:
    """Image lines of reports in the order of the input tree, without holding them.

    Each run appends its own in that order, so a file is a few ordered stretches to be merged.
    """
    return heapq.merge(*itertools.chain.from_iterable(map(_ordered, reports)), key=_order)


def _ordered(path: Path) -> list[Iterator[ReportLine]]:
    places = [0]
    previous: list[str] = []
    for place, line in _stretch(path, 0, None):
        if _order(line) < previous:
            places.append(place)
        previous = _order(line)
    return [
        (line for _, line in _stretch(path, start, end))
        for start, end in zip(places, [*places[1:], None], strict=True)
    ]


def _encode(line: Mapping[str, object]) -> bytes:
    return json.dumps(line, separators=(",", ":")).encode() + b"\n"


def _rows(lines: Iterable[ReportLine]) -> bytes:
    """The defects of report lines, a row for each; what is no UTF-8 in a path is escaped."""
    text = io.StringIO()
    rows = csv.DictWriter(text, COLUMNS, restval="", extrasaction="ignore", lineterminator="\n")
    for line in lines:
        for number, defect in enumerate(line.get("defects", ()), start=1):
            place = dict(zip(("x", "y", "width", "height"), defect["bbox"], strict=True))
            rows.writerow({"path": line["path"], "defect": number, **place, **defect})
    return text.getvalue().encode("utf-8", "backslashreplace")


def _order(line: ReportLine) -> list[str]:
    parts: list[str] = line["path"].split("/")
    return parts
