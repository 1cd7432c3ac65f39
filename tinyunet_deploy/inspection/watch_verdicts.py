"""The verdicts of a watched folder: which files have one, and for which content."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from tinyunet_deploy.errors import ImageError
from tinyunet_deploy.inspection.identity import FileState, file_state, read_identified
from tinyunet_deploy.inspection.output_names import folded_name, ignores_case, mask_name
from tinyunet_deploy.inspection.outputs import Inspection
from tinyunet_deploy.inspection.report_line import ReportLine

__all__ = ["WatchVerdicts", "content_hash"]


@dataclass
class _Verdict:
    state: FileState
    """State of the file when it had the bytes of the verdict."""
    sha256: str
    change: int
    """Number of the change of the file that the verdict belongs to."""


class WatchVerdicts:
    """Remembers the last verdict on each file, including those of earlier watches.

    In a watched folder a part has passed whether its file is still there or not, so a verdict is
    never dropped; a file that changes after its verdict is another part.
    """

    def __init__(self, inspection: Inspection) -> None:
        self._inspection = inspection
        self._verdicts: dict[str, _Verdict] = {}
        self._redo: dict[str, int] = {}
        self._by_folded_name: dict[str, str] = {}

    def keep(self, lines: list[ReportLine]) -> ReportLine | None:
        """Keep a line of an earlier watch, unless its file exists and must be inspected again.

        A file must be inspected again if it was skipped, or if its mask, score or overlay is
        missing. A file whose state is not that in its line is read.

        Args:
            lines: all lines of one image and change; the gravest of several is kept.
        """
        line = max(
            lines, key=lambda line: (line["status"] == "inspected", line.get("verdict") == "NG")
        )
        path = self._inspection.root / line["path"]
        judged, present = _state(line), file_state(path)
        exists = present != FileState()
        same = exists and (present == judged or content_hash(path) == line.get("sha256", ""))
        lost = line["status"] == "skipped" or not self._inspection.has_files(line)
        if same and lost:
            self._redo[line["path"]] = line.get("change", 0)
            return None
        if same:
            judged = present
            line = cast(ReportLine, {**line, **judged._asdict()})
        self.add(line, judged)
        return line

    def add(self, line: ReportLine, state: FileState) -> None:
        """Remember the verdict of a line, and the state that the file had before it was read."""
        name = line["path"]
        self._verdicts[name] = _Verdict(state, line.get("sha256", ""), line.get("change", 0))
        self._redo.pop(name, None)

    def lacks(self, name: str, state: FileState) -> bool:
        """Return whether a file in this state has no verdict yet."""
        return (
            name in self._redo
            or name not in self._verdicts
            or (self._verdicts[name].state != state)
        )

    def touched(self, name: str, state: FileState, sha256: str) -> bool:
        """Return whether a file has the bytes of its verdict; if so, keep that for this state."""
        verdict = self._verdicts.get(name)
        if verdict is None or name in self._redo or not sha256 or verdict.sha256 != sha256:
            return False
        verdict.state = state
        return True

    def change(self, name: str) -> int:
        """Return the number of the change that the next verdict on a file belongs to."""
        if name in self._redo:
            return self._redo[name]
        return self._verdicts[name].change + 1 if name in self._verdicts else 0

    def clashes(self, names: Iterable[str]) -> frozenset[str]:
        """Return the images whose mask would overwrite the mask of an earlier image.

        This happens only if the file system of the output ignores case.
        """
        if not ignores_case(self._inspection.output):
            return frozenset()
        owners = self._by_folded_name
        for name in self._verdicts:
            owners.setdefault(folded_name(mask_name(name)), name)
        return frozenset(
            name for name in names if owners.setdefault(folded_name(mask_name(name)), name) != name
        )


def content_hash(path: Path) -> str:
    """Return the sha256 of a file's bytes, empty if they cannot be read."""
    try:
        return read_identified(path)[1].sha256
    except ImageError:
        return ""


def _state(line: ReportLine) -> FileState:
    """Return the state of the file that a line has; one of an earlier version is incomplete."""
    return FileState(
        line.get("size_bytes", -1),
        line.get("mtime_ns", -1),
        line.get("ctime_ns", -1),
        line.get("inode", -1),
    )
