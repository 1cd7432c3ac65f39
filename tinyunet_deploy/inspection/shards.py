"""Inspect one input tree with several processes, on one machine or many, into one output folder.

The name of an image alone decides which shard it belongs to, so the processes need not know about
each other. Each process writes its own report in ``shards/``; the last to finish merges them, and
the folder is then what a single process would have written.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from tinyunet_deploy.errors import RefusedError, RuntimeUnavailable, TinyUNetError
from tinyunet_deploy.files import sweep_tree
from tinyunet_deploy.inspection.folder_lock import alone, lock_folder
from tinyunet_deploy.inspection.report_line import RunSummary
from tinyunet_deploy.inspection.resume import Resume
from tinyunet_deploy.inspection.run_json import SHARDS, claim
from tinyunet_deploy.inspection.run_report import (
    REPORT,
    Report,
    in_order,
    read_summary,
    write_lines,
)

__all__ = ["Shard", "in_shards", "refuse_shards"]

log = logging.getLogger(__name__)

_CHANGED: Final = "images came, changed or vanished after their shard had finished"


@dataclass(frozen=True)
class Shard:
    """A share of an input tree: the images whose names have the shard's remainder.

    The remainder is ``int(sha256(name)[:8], big-endian) % count + 1``, where ``name`` is the path
    below the common input folder, with slashes, encoded as on the file system. The sizes of shards
    vary as random draws do: by about the square root of their number of images.
    """

    index: int
    """Number of this shard, 1..count."""
    count: int
    """Number of shards."""

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.count:
            raise ValueError(f"shard {self.index} of {self.count} is not one of 1..{self.count}")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the shard that ``i/n`` names, such as ``1/4`` for the first of four.

        Raises:
            ValueError: the text is not of this form, or not 1 <= i <= n.
        """
        match = re.fullmatch("([0-9]{1,6})/([0-9]{1,6})", text)
        if not match:
            raise ValueError(f"{text!r} is not a shard such as 1/4")
        return cls(int(match[1]), int(match[2]))

    def __contains__(self, name: str) -> bool:
        """Return whether the image of this name belongs to the shard."""
        number = int.from_bytes(hashlib.sha256(os.fsencode(name)).digest()[:8])
        return number % self.count + 1 == self.index

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


def in_shards(
    output: Path,
    options: dict[str, Any],
    shard: Shard,
    resume: Resume,
    fill: Callable[[Report], RunSummary],
) -> RunSummary:
    """Fill the report of one shard, and merge all reports if it was the last one.

    A shard that is run again resumes where it stopped. When all are finished and every verdict
    still holds, nothing is done; if one does not, all shards have to be run again.

    Args:
        output: the folder that all shards share.
        options: everything on which the masks depend, the same for all shards.
        resume: decides which lines of an earlier run still hold.
        fill: inspects the images of the shard that its report lacks, and finishes the report.

    Returns:
        Counts over the shard, or over all shards if all had finished before.

    Raises:
        RefusedError: the folder belongs to another run, to another number of shards, or to a run
            without shards.
    """
    with _alone(output):
        lock_folder(output).close()  # a run without shards would hold it
        claim(output, options)
        summary = _finished(output, options, shard.count, resume)
        if summary is not None:
            return summary
        others = sorted(path.name for path in _folders(output))
        if not all(name.endswith(f"-of-{shard.count}") for name in others):
            raise RefusedError(output, f"has other shards: {', '.join(others)}", "give another -o")
        report = Report(_folder(output, shard), options, resume.keep)
    with report:
        summary = fill(report)
    with _alone(output):
        _merge(output, options, shard.count, resume)
    return summary


def refuse_shards(output: Path) -> None:
    """Refuse a folder of unfinished shards to a run without shards.

    Raises:
        RefusedError: not all shards have finished.
    """
    if (output / SHARDS).exists():
        raise RefusedError(
            output, "has shards that have not all finished", "run them again, or give another -o"
        )


def _folder(output: Path, shard: Shard) -> Path:
    return output / SHARDS / f"{shard.index}-of-{shard.count}"


def _folders(output: Path) -> list[Path]:
    return [path for path in (output / SHARDS).iterdir() if path.is_dir()]


def _all(count: int) -> list[Shard]:
    return [Shard(index, count) for index in range(1, count + 1)]


def _finished(
    output: Path, options: dict[str, Any], count: int, resume: Resume
) -> RunSummary | None:
    """Return the counts over all shards if their reports were merged, else None.

    A merged report with verdicts that no longer hold is split into reports of unfinished shards
    again.
    """
    whole = output / REPORT
    if not whole.exists():
        return None
    summary = read_summary(whole)
    if summary is None:
        if _folders(output):
            return None
        raise RefusedError(
            output,
            "has an unfinished run without --shard",
            "finish it without --shard, or give another -o",
        )
    if resume.all_hold(in_order(whole)):
        _remove_shards(output)
        return summary
    log.warning("%s", TinyUNetError(output, _CHANGED, "run all shards again"))
    _remove_shards(output)
    for shard in _all(count):
        folder = _folder(output, shard)
        folder.mkdir()
        claim(folder, options)
        write_lines(folder / REPORT, (line for line in in_order(whole) if line["path"] in shard))
    whole.unlink()
    return None


def _remove_shards(output: Path) -> None:
    for folder in _folders(output):
        shutil.rmtree(folder)


def _merge(output: Path, options: dict[str, Any], count: int, resume: Resume) -> None:
    """Merge the reports of all shards, if all have finished and every verdict still holds."""
    reports = [_folder(output, shard) / REPORT for shard in _all(count)]
    summaries = [read_summary(report) if report.exists() else None for report in reports]
    if None in summaries:
        return
    if not resume.all_hold(in_order(*reports)):
        log.warning("%s", TinyUNetError(output, _CHANGED, "run all shards again"))
        return
    sweep_tree(output)
    (output / REPORT).unlink(missing_ok=True)  # the file of an earlier merge that was killed
    passed_over = Counter[str]()
    for summary in summaries:  # each shard has walked the whole input
        passed_over |= Counter(summary.passed_over if summary else {})
    with Report(output, options) as whole:
        for line in in_order(*reports):
            whole.add(line)
        whole.finish(passed_over)
    _remove_shards(output)


@contextlib.contextmanager
def _alone(output: Path) -> Iterator[None]:
    """Hold the lock with which only one process at a time begins or ends a shard in this folder."""
    folder = output / SHARDS
    try:
        with alone(folder, "lock"):
            try:
                yield
            finally:
                if not _folders(output):
                    (folder / "lock").unlink()
    except OSError as error:
        raise RuntimeUnavailable(output, f"cannot be written: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):  # not empty
            folder.rmdir()
