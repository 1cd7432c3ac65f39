"""Take the report of a shadow run as evidence: the accepted model must be its challenger."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tinyunet_deploy.artifacts.strict_json import read_json
from tinyunet_deploy.errors import DataError
from tinyunet_deploy.files import read_regular
from tinyunet_deploy.quality.acceptance.evidence import FlippedPart, ModelFacts, ShadowFigures
from tinyunet_deploy.quality.shadow.report import ShadowReport

__all__ = ["read_shadow", "require_challenger", "shadow_evidence"]

MAX_BYTES: Final = 16 << 20
"""Largest report that is read: a thousand disagreements take about 300 kB."""
_MOST_FLIPS: Final = 50
"""Most disagreements that the page lists one by one."""


def read_shadow(path: Path) -> ShadowReport:
    """Read ``shadow.json``, as ``tinyunet infer`` and ``tinyunet watch`` write it.

    Raises:
        DataError: it cannot be read, is not such a file, or its counts contradict each other.
    """
    try:
        report = ShadowReport.from_fields(read_json(read_regular(path, limit=MAX_BYTES)))
        _require_counts(report)
    except OSError as error:
        raise DataError(path, f"cannot be read: {error.strerror}") from error
    except (TypeError, ValueError) as error:
        hint = "give OUT/shadow/shadow.json of tinyunet-infer --shadow MODEL -o OUT"
        raise DataError(path, f"is not a valid shadow report: {error}", hint) from error
    return report


def require_challenger(path: Path, report: ShadowReport, model: ModelFacts) -> None:
    """Check by its sha256 that the model is the challenger of a report.

    Args:
        path: the report's file, for the message.

    Raises:
        DataError: the challenger is another model, or was never loaded.
    """
    hint = f"tinyunet-infer IMAGES -m LEADER --shadow {model.name} -o OUT"
    if report.challenger is None:
        raise DataError(path, f"has no challenger: it {report.failure or 'was not loaded'}", hint)
    challenger = report.challenger.model_sha256
    if challenger != model.sha256:
        raise DataError(
            path,
            f"has the challenger {report.challenger.model} ({challenger[:12]}...), "
            f"but the model to accept is {model.name} ({model.sha256[:12]}...)",
            hint,
        )


def shadow_evidence(name: str, report: ShadowReport, model: ModelFacts) -> ShadowFigures:
    """Return what a shadow run shows of the model that is to run.

    Args:
        name: name of the report's file.
        model: the accepted model as it is loaded; :func:`require_challenger` holds for it.
    """
    assert report.challenger is not None
    pairs = {
        "another backend": (model.backend, report.challenger.backend),
        "another device": (model.device, report.challenger.device),
        "another threshold": (model.threshold, report.challenger_threshold),
        "another min_area": (model.min_area_px, report.challenger_min_area_px),
    }
    latency = report.latency
    return ShadowFigures(
        name=name,
        leader=str(report.leader),
        leader_sha256=report.leader.model_sha256,
        offered=report.offered,
        seen=report.seen,
        new_rejects=report.new_rejects,
        new_passes=report.new_passes,
        flips=tuple(
            FlippedPart(
                *(flip.name, flip.leader, flip.challenger),
                *(flip.leader_score, flip.challenger_score),
            )
            for flip in report.flips[:_MOST_FLIPS]
        ),
        unseen=report.unseen,
        failure=report.failure,
        p50_ms=None if latency is None else latency.p50_ms,
        p99_ms=None if latency is None else latency.p99_ms,
        max_ms=None if latency is None else latency.max_ms,
        mismatch=next((what for what, (one, other) in pairs.items() if one != other), None),
    )


def _require_counts(report: ShadowReport) -> None:
    """Check that the counts agree.

    Raises:
        ValueError: they do not.
    """
    flips = report.new_rejects + report.new_passes
    counts = (report.new_rejects, report.new_passes, report.seen, *report.unseen.values())
    if min(counts) < 0 or not len(report.flips) <= flips <= report.seen:
        raise ValueError(
            f"{report.new_rejects} new rejects and {report.new_passes} new passes of "
            f"{report.seen} parts, with {len(report.flips)} listed, cannot be"
        )
    if report.seen + sum(report.unseen.values()) != report.offered:
        raise ValueError(
            f"{report.seen} parts were seen and {sum(report.unseen.values())} were not, "
            f"but {report.offered} were offered"
        )
