"""The two kinds of lines in report.jsonl: one for each image, and the summary at the end."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, Required, TypedDict

from tinyunet_deploy.inspection.defects import Verdict

__all__ = ["ReportLine", "RunSummary", "passed_over_text"]


class ReportLine(TypedDict, total=False):
    """One line of the report: the verdict on one image, or the reason why it was skipped."""

    path: Required[str]
    """Name of the image: its path below the input folder, with slashes."""
    change: int
    """``watch`` only: number of the change of this file, from 1, if it had a verdict before."""
    status: Required[Literal["inspected", "skipped"]]
    size_bytes: int
    """Size of the file; missing if it could not be read, as are ``mtime_ns`` and ``sha256``."""
    mtime_ns: int
    """Time of the file's last change, nanoseconds since 1970."""
    ctime_ns: int
    """``watch`` only, as is ``inode``: fact of the file by which a later watch knows it again
    (:class:`~tinyunet_deploy.inspection.identity.FileState`)."""
    inode: int
    sha256: str
    """Hash of the bytes on which the verdict rests."""
    verdict: Verdict
    """Present if the status is inspected, as are the fields from here to ``output_bytes``."""
    max_score: int
    """Largest score in the image, 0..255."""
    fit: Literal["padded", "tiled"]
    """Way in which the image was fitted: padded by mirroring, or inspected in overlapping tiles;
    present if it does not have the network's size."""
    approximate: bool
    """True if the image was inspected in tiles whose scores only approximate those of the whole
    image; missing otherwise."""
    defects: list[dict[str, Any]]
    """Fields of :class:`~tinyunet_deploy.inspection.defects.Defect`, the largest defect first."""
    statistics: dict[str, float]
    """Statistics by which ``tinyunet drift`` compares reports."""
    output_bytes: dict[str, int]
    """Folder (``masks``, ``scores``, ``overlays``) -> size of the file written there."""
    reason: str
    """Stable code of the reason why the image was skipped; present if the status is skipped."""
    what: str
    """The reason in words; present if the status is skipped."""
    latency_ms: float | None
    """``watch`` only: time from the file to its mask, None if the file was there before."""
    late: bool
    """``watch --deadline-ms`` only: whether ``latency_ms`` exceeds the deadline."""


@dataclass
class RunSummary:
    """Counts over all images of an output folder."""

    images: int = 0
    inspected: int = 0
    """Images with a mask and a verdict."""
    skipped: int = 0
    """Images that could not be used."""
    ok: int = 0
    """Images whose verdict is OK."""
    ng: int = 0
    """Images whose verdict is NG."""
    max_score: int = 0
    """Largest score of all images, 0..255."""
    padded: int = 0
    """Number of images smaller than the network's, padded by mirroring."""
    tiled: int = 0
    """Number of images larger than the network's, inspected in overlapping tiles."""
    approximate: int = 0
    """Images inspected in tiles whose scores only approximate those of the whole image."""
    notes: list[str] = field(default_factory=list)
    """Sentences of :func:`~tinyunet_deploy.inspection.notes.run_notes`, once the run finished."""
    reasons: dict[str, int] = field(default_factory=dict)
    """Reason -> images skipped for it."""
    passed_over: dict[str, int] = field(default_factory=dict)
    """Kind of :data:`~tinyunet_deploy.inspection.walk.PassedOver`, or ``suffix .gif`` -> entries of
    the input folders that were not inspected."""

    def count(self, line: ReportLine) -> None:
        """Add one image's line."""
        self.images += 1
        if line["status"] == "inspected":
            self.inspected += 1
            self.ok += line["verdict"] == "OK"
            self.ng += line["verdict"] == "NG"
            self.max_score = max(self.max_score, line.get("max_score", 0))
            self.padded += line.get("fit") == "padded"
            self.tiled += line.get("fit") == "tiled"
            self.approximate += line.get("approximate", False)
        else:
            self.skipped += 1
            self.reasons[line["reason"]] = self.reasons.get(line["reason"], 0) + 1


def passed_over_text(summary: RunSummary) -> str:
    """Return the counts of passed-over entries as the end of a printed line; empty without any."""
    counts = [f"{count} {kind}" for kind, count in summary.passed_over.items()]
    return f"; passed over: {', '.join(counts)}" if counts else ""
