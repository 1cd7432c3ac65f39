"""Inspect one input tree with several processes, on one machine or many, into one output folder.

The name of an image alone decides which shard it belongs to, so the processes need not know of each
other. Each writes its own report in ``shards/``; the one that finishes last merges them, and the
folder is then the one that a single process would have written.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tinyunet_deploy.errors import RefusedError, RuntimeUnavailable
from tinyunet_deploy.files import sweep_tree
from tinyunet_deploy.inspection.folder_lock import alone
from tinyunet_deploy.inspection.run_report import (
    REPORT,
    SHARDS,
    Report,
    RunSummary,
    claim,
    in_order,
    read_summary,
)

__all__ = ["Shard", "in_shards", "refuse_shards"]


@dataclass(frozen=True)
class Shard:
    """A share of an input tree: the images whose names have the shard's remainder.

    The remainder is ``int(sha256(name)[:8], big-endian) % count + 1``, where ``name`` is the path
    below the common input folder, with slashes, in the bytes of the file system. The sizes of
    shards vary as random draws do: by about the square root of their number of images.
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
        """Whether the image of this name belongs to the shard."""
        number = int.from_bytes(hashlib.sha256(os.fsencode(name)).digest()[:8])
        return number % self.count + 1 == self.index

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


def in_shards(
    output: Path, options: dict[str, Any], shard: Shard, fill: Callable[[Report], RunSummary]
) -> RunSummary:
    """Fill the report of one shard, and merge all reports if it was the last one.

    A shard that is run again resumes where it stopped. When all are finished, nothing is done.

    Args:
        output: the folder that all shards share.
        options: everything on which the masks depend, the same for all shards.
        fill: inspects the images of the shard that its report lacks, and finishes the report.

    Returns:
        Counts over the shard, or over all shards if all had finished before.

    Raises:
        RefusedError: the folder belongs to another run, to another number of shards, or to a run
            without shards.
    """
    with _alone(output):
        claim(output, options)
        summary = _finished(output)
        if summary is not None:
            return summary
        others = sorted(path.name for path in _folders(output))
        if not all(name.endswith(f"-of-{shard.count}") for name in others):
            raise RefusedError(output, f"has other shards: {', '.join(others)}", "give another -o")
        report = Report(_folder(output, shard.index, shard.count), options)
    with report:
        summary = fill(report)
    with _alone(output):
        _merge(output, options, shard.count)
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


def _folder(output: Path, index: int, count: int) -> Path:
    return output / SHARDS / f"{index}-of-{count}"


def _folders(output: Path) -> list[Path]:
    return [path for path in (output / SHARDS).iterdir() if path.is_dir()]


def _finished(output: Path) -> RunSummary | None:
    """Return the counts over all shards if their reports were merged, None if they were not."""
    if not (output / REPORT).exists():
        return None
    summary = read_summary(output / REPORT)
    if summary is not None:
        _remove_shards(output)
    elif not _folders(output):
        raise RefusedError(
            output, "has an unfinished run without --shard", "finish it so, or give another -o"
        )
    return summary


def _remove_shards(output: Path) -> None:
    for folder in _folders(output):
        shutil.rmtree(folder)


def _merge(output: Path, options: dict[str, Any], count: int) -> None:
    """Merge the reports of all shards, if all have finished."""
    reports = [_folder(output, index, count) / REPORT for index in range(1, count + 1)]
    if not all(report.exists() and read_summary(report) for report in reports):
        return
    sweep_tree(output)
    with Report(output, options) as whole:
        for line in in_order(*reports):
            if line["path"] not in whole:
                whole.add(line)
        whole.finish()
    _remove_shards(output)


@contextlib.contextmanager
def _alone(output: Path) -> Iterator[None]:
    """Hold the lock that lets one process at a time begin or end a shard in this folder."""
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
