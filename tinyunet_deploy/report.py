"""What a run of ``infer`` leaves beside its masks: ``run.json`` and ``report.jsonl``.

``run.json`` says which model and options the folder belongs to. ``report.jsonl`` has one line per
image, in the order of the input tree, and a summary as its last line; a report without a summary
is of a run that has not finished, and is gone on with.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePath
from types import TracebackType
from typing import Any, Final, Self

from tinyunet_deploy.errors import RefusedError, RuntimeUnavailable
from tinyunet_deploy.files import PART, write_atomic

SCHEMA_VERSION: Final = 1
REPORT: Final = "report.jsonl"
RUN: Final = "run.json"
SHARDS: Final = "shards"
"""Folder of the reports of shards that have not all finished."""

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
            claim(folder, options)
            sweep(folder)
            self._resumed = path.exists()
            if self._resumed:
                kept = [line for line in _lines(path) if line["status"] == "ok"]
                write_atomic(path, b"".join(map(_encode, kept)))
                for line in kept:
                    self._done.add(line["path"])
                    self.summary.count(line)
            self._file = path.open("ab")
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
        self._append(line)
        self.summary.count(line)

    def finish(self, *, sort: bool = False) -> None:
        """Put the summary under the lines: the folder is complete.

        Args:
            sort: the lines were not added in the order of the input tree.
        """
        if self._resumed or sort:
            lines = in_order(_lines(self.folder / REPORT))
            write_atomic(self.folder / REPORT, b"".join(map(_encode, lines)))
            self._file.close()
            self._file = (self.folder / REPORT).open("ab")
        self._append({"schema_version": SCHEMA_VERSION, "summary": asdict(self.summary)})

    def close(self) -> None:
        """Let the folder go."""
        with contextlib.suppress(OSError):  # of a line that was told of as it was added
            self._file.close()
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

    def _append(self, line: Line) -> None:
        try:
            self._file.write(_encode(line))
            self._file.flush()
        except OSError as error:
            where = self.folder / REPORT
            raise RuntimeUnavailable(where, f"cannot write: {error.strerror}") from error


def sweep(folder: Path) -> None:
    """Remove what writers that were killed have left in a folder and below; nobody may write."""
    for leftover in folder.rglob(f".*{PART}"):
        leftover.unlink()


def claim(folder: Path, options: dict[str, Any]) -> None:
    """Make a folder belong to a run with these options, or see that it does.

    Raises:
        RefusedError: it belongs to another model or other options, or holds something else.
    """
    run = {"schema_version": SCHEMA_VERSION, **options}
    record = folder / RUN
    if not record.exists():
        if any(entry.suffix != PART and entry.name != SHARDS for entry in folder.iterdir()):
            raise RefusedError(folder, "is not empty and not ours", "give another -o")
        write_atomic(record, json.dumps(run, indent=2).encode() + b"\n")
        return
    try:
        earlier = json.loads(record.read_bytes())
        changed = [key for key in run if earlier.get(key) != run[key]]
    except (OSError, ValueError, AttributeError) as error:
        raise RefusedError(record, f"is not readable: {error}", "give another -o") from error
    if changed:
        raise RefusedError(folder, f"was made with another {', '.join(changed)}", "give another -o")


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


def in_order(lines: Iterable[Line]) -> list[Line]:
    """Lines in the order of the input tree."""
    return sorted(lines, key=lambda line: PurePath(line["path"]).parts)
