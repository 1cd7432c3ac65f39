"""Decide which verdicts of an earlier run still hold, so that a resumed run equals a fresh one."""

from __future__ import annotations

import functools
import itertools
import logging
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Final, Literal

from tinyunet_deploy.data.description_file import description_above
from tinyunet_deploy.data.layouts.label_names import in_a_mask_folder
from tinyunet_deploy.errors import RuntimeUnavailable, TinyUNetError
from tinyunet_deploy.inspection.identity import FileIdentity, identity_now
from tinyunet_deploy.inspection.output_names import clashing_names, ignores_case
from tinyunet_deploy.inspection.outputs import Inspection
from tinyunet_deploy.inspection.report_line import ReportLine
from tinyunet_deploy.inspection.run_json import RUN
from tinyunet_deploy.inspection.walk import label_files_in, looks_like_a_label

__all__ = ["Resume"]

log = logging.getLogger(__name__)

Fault = Literal["changed", "gone", "output", "twice", "damaged", "clash"]

_NOTICES: Final[dict[Fault, str]] = {
    "changed": "{} changed after the verdict: inspected again",
    "gone": "{} in the report but no longer in the input: dropped from the report",
    "output": "{} without the mask, score or overlay that the report names: inspected again",
    "twice": "{} with two lines in the report: inspected again",
    "damaged": "{} with a damaged line in the report: inspected again",
    "clash": "{} with a mask that now belongs to two images: skipped",
}


class Resume:
    """Checks the lines of a report against the images and the files that were written for them.

    A verdict holds while the image contains the bytes that it was given for, and while the files
    written with it exist with their original sizes. Their contents are not read: a file appears
    under its name complete or not at all, so the size of a torn or replaced file gives it away, and
    reading every mask of a large folder would take too long.

    Args:
        inspection: the rules and folders of the run.
        names: yields the names of all images of the run; called to find images without a line, and
            those that would share a mask where the file system of the output ignores case.
    """

    def __init__(self, inspection: Inspection, names: Callable[[], Iterable[str]]) -> None:
        self._given = inspection
        self._names = names
        self.faults: Counter[Fault] = Counter()
        """Fault -> lines that were dropped for it."""
        self._labels: dict[Path, set[str]] = {}
        """Folder -> masks among its images."""
        self._described: dict[Path, bool] = {}
        """Folder -> whether a dataset.toml says which of its files are masks."""

    @functools.cached_property
    def inspection(self) -> Inspection:
        """The inspection, with its clashes; claim the output folder first."""
        if not ignores_case(self._given.output):
            return self._given
        return replace(self._given, clashes=clashing_names(self._names()))

    @functools.cached_property
    def _walked(self) -> frozenset[str]:
        """Names of all images of the run."""
        return frozenset(self._names())

    @functools.cached_property
    def _began_ns(self) -> int:
        """Time at which the output folder was claimed; no image was read before it."""
        return (self._given.output / RUN).stat().st_mtime_ns

    def _became_a_label(self, name: str) -> bool:
        """Return whether a file is now known as a mask: by an image that came to lie beside it, by
        a folder of images beside its own, or by a ``dataset.toml``."""
        path = self.inspection.root / name
        if in_a_mask_folder(name) or self._is_described(path.parent):
            return name not in self._walked
        if not looks_like_a_label(path.name):
            return False
        if path.parent not in self._labels:
            self._labels[path.parent] = label_files_in(path.parent)
        return path.name in self._labels[path.parent] and name not in self._walked

    def _is_described(self, folder: Path) -> bool:
        if folder not in self._described:
            self._described[folder] = description_above(folder) is not None
        return self._described[folder]

    def keep(self, lines: list[ReportLine]) -> ReportLine | None:
        """Return the line of an image if its verdict holds; else remove its files.

        Skipped images are tried again: their lines are never kept.

        Args:
            lines: all lines of one image, more than one if the report is damaged.
        """
        if len(lines) == 1 and lines[0]["status"] == "skipped":
            return None
        line, fault = self.check(lines)
        if fault is not None:
            self.faults[fault] += 1
            if fault not in ("output", "damaged"):
                self.inspection.remove_files(lines[0])
        return line

    def check(self, lines: list[ReportLine]) -> tuple[ReportLine | None, Fault | None]:
        """Return a line that still holds, with its time updated, or the reason why it does not.

        Raises:
            RuntimeUnavailable: the input cannot be read now, which says nothing about its images.
        """
        line = lines[0]
        if not _is_inside(line["path"]):
            return None, "damaged"
        if len(lines) > 1:
            return None, "twice"
        ok = line["status"] == "inspected"
        if ok and line["path"] in self.inspection.clashes:
            return None, "clash"
        try:
            known = FileIdentity(line["size_bytes"], line["mtime_ns"], line["sha256"])
        except KeyError:
            return (None, "damaged") if ok else (line, None)
        path = self.inspection.root / line["path"]
        try:
            identity = identity_now(path, known, self._began_ns)
        except (FileNotFoundError, NotADirectoryError):
            return None, "gone"
        except PermissionError:
            return None, "changed"
        except OSError as error:
            raise RuntimeUnavailable(path, f"cannot be read: {error.strerror}") from error
        if self._became_a_label(line["path"]):
            return None, "gone"
        if identity is None:
            return None, "changed"
        if ok and not self.inspection.has_files(line):
            return None, "output"
        return {**line, "mtime_ns": identity.mtime_ns}, None

    def all_hold(self, lines: Iterable[ReportLine]) -> bool:
        """Return whether every image of the run has a line and every line still holds.

        Args:
            lines: report lines of all images of the run, in order, including skipped images.
        """
        reported = set()
        for name, group in itertools.groupby(lines, lambda line: line["path"]):
            _, fault = self.check(list(group))
            if fault is not None:
                return False
            reported.add(name)
        return all(name in reported for name in self._names())

    def log_faults(self) -> None:
        """Log one line for each kind of fault."""
        for fault, count in self.faults.items():
            images = f"{count} image" if count == 1 else f"{count} images"
            log.warning("%s", TinyUNetError(self._given.output, _NOTICES[fault].format(images)))


def _is_inside(name: str) -> bool:
    """Return whether a relative path stays inside its folder."""
    return not {"", ".", ".."} & set(name.split("/")) and "\0" not in name
