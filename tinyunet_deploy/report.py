"""What a run of ``infer`` leaves beside its masks: run.json, report.jsonl, defects.csv.

``run.json`` says which model and options the folder belongs to. ``report.jsonl`` has one line per
image, in the order of the input tree, and a summary as its last line; a report without a summary
is of a run that has not finished, and is gone on with. ``defects.csv`` has one row per defect and
follows from the report.
"""

from __future__ import annotations

import contextlib
import csv
import fcntl
import io
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from io import BufferedWriter
from pathlib import Path, PurePath
from types import TracebackType
from typing import Any, Final, Self

from tinyunet_deploy.errors import RefusedError, RuntimeUnavailable
from tinyunet_deploy.files import PART, write_atomic

SCHEMA_VERSION: Final = 1
REPORT: Final = "report.jsonl"
RUN: Final = "run.json"
DEFECTS: Final = "defects.csv"
COLUMNS: Final = (
    *("path", "defect", "x", "y", "width", "height"),
    *("area_px", "area_mm2", "max_score", "mean_score"),
)
"""Of defects.csv; ``defect`` counts from 1 in each image, ``area_mm2`` may be empty."""

Line = dict[str, Any]


@dataclass
class Summary:
    """Counts over all images of a folder."""

    images: int = 0
    ok: int = 0
    """Images with a mask."""
    skipped: int = 0
    ng: int = 0
    """Images whose verdict is NG."""
    reasons: dict[str, int] = field(default_factory=dict)
    """Reason -> images skipped for it."""

    def count(self, line: Line) -> None:
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
        self.summary = Summary()
        self._done: set[str] = set()
        path = folder / REPORT
        run = {"schema_version": SCHEMA_VERSION, **options}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise RuntimeUnavailable(folder, f"cannot be written: {error.strerror}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            if isinstance(error, BlockingIOError):
                raise RefusedError(folder, "is in use by another process") from None
            raise RuntimeUnavailable(folder, f"cannot be locked: {error.strerror}") from error
        try:
            self._claim(run)
            for leftover in folder.rglob(f".*{PART}"):
                leftover.unlink()
            self._resumed = path.exists()
            if self._resumed:
                kept = [line for line in _lines(path) if line["status"] == "ok"]
                write_atomic(path, b"".join(map(_encode, kept)))
                for line in kept:
                    self._done.add(line["path"])
                    self.summary.count(line)
            else:
                kept = []
            self._write_defects(kept)
            self._file = path.open("ab")
            self._defects = (folder / DEFECTS).open("ab")
        except BaseException:
            os.close(self._lock)
            raise

    def __contains__(self, name: str) -> bool:
        """Whether the image has its mask already."""
        return name in self._done

    def add(self, line: Line) -> None:
        """Append one image's line; its files must be in place already.

        Raises:
            RuntimeUnavailable: the disk is full or failing.
        """
        self._append(self._defects, _rows([line]))  # first: a report line says that all is there
        self._append(self._file, _encode(line))
        self.summary.count(line)

    def finish(self) -> None:
        """Put the summary under the lines: the folder is complete."""
        if self._resumed:
            lines = sorted(_lines(self.folder / REPORT), key=lambda line: _order(line["path"]))
            self._write_defects(lines)
            write_atomic(self.folder / REPORT, b"".join(map(_encode, lines)))
            self._file.close()
            self._file = (self.folder / REPORT).open("ab")
        end = {"schema_version": SCHEMA_VERSION, "summary": asdict(self.summary)}
        self._append(self._file, _encode(end))

    def close(self) -> None:
        """Let the folder go."""
        for file in (self._file, self._defects):
            with contextlib.suppress(OSError):  # of a line that was told of as it was added
                file.close()
        os.close(self._lock)

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
        try:
            file.write(data)
            file.flush()
        except OSError as error:
            raise RuntimeUnavailable(file.name, f"cannot write: {error.strerror}") from error

    def _write_defects(self, lines: Iterable[Line]) -> None:
        header = ",".join(COLUMNS).encode() + b"\n"
        write_atomic(self.folder / DEFECTS, header + _rows(lines))

    def _claim(self, run: dict[str, Any]) -> None:
        record = self.folder / RUN
        if not record.exists():
            if any(entry.suffix != PART for entry in self.folder.iterdir()):
                raise RefusedError(self.folder, "is not empty and not ours", "give another -o")
            write_atomic(record, json.dumps(run, indent=2).encode() + b"\n")
            return
        try:
            earlier = json.loads(record.read_bytes())
            changed = [key for key in run if earlier.get(key) != run[key]]
        except (OSError, ValueError, AttributeError) as error:
            raise RefusedError(record, f"is not readable: {error}", "give another -o") from error
        if changed:
            raise RefusedError(
                self.folder, f"was made with another {', '.join(changed)}", "give another -o"
            )


def read_report(path: Path) -> tuple[list[Line], Summary | None]:
    """The lines of a report, and its summary if the run finished."""
    lines = list(_lines(path))
    last = path.read_bytes().rstrip(b"\n").rpartition(b"\n")[2]
    try:
        return lines, Summary(**json.loads(last)["summary"])
    except (ValueError, KeyError, TypeError):
        return lines, None


def _lines(path: Path) -> Iterator[Line]:
    """Image lines up to the summary or the first torn line."""
    with path.open("rb") as file:
        for raw in file:
            try:
                line = json.loads(raw)
            except ValueError:
                return
            if "path" not in line:
                return
            yield line


def _encode(line: Line) -> bytes:
    return json.dumps(line, separators=(",", ":")).encode() + b"\n"


def _rows(lines: Iterable[Line]) -> bytes:
    """The defects of report lines, a row for each; what is no UTF-8 in a path is escaped."""
    text = io.StringIO()
    rows = csv.DictWriter(text, COLUMNS, restval="", extrasaction="ignore", lineterminator="\n")
    for line in lines:
        for number, defect in enumerate(line.get("defects", ()), start=1):
            place = dict(zip(("x", "y", "width", "height"), defect["bbox"], strict=True))
            rows.writerow({"path": line["path"], "defect": number, **place, **defect})
    return text.getvalue().encode("utf-8", "backslashreplace")


def _order(name: str) -> tuple[str, ...]:
    return PurePath(name).parts
