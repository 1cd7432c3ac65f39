"""The option ``--shadow`` of ``infer`` and ``watch``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from tinyunet_deploy.artifacts.sidecar import Decision
    from tinyunet_deploy.backends.base import Backend
    from tinyunet_deploy.quality.shadow.report import ShadowReport
    from tinyunet_deploy.quality.shadow.run import ShadowRun

__all__ = ["run_shadow", "shadow_option"]

_LISTED: Final = 10
"""Largest number of disagreements that are printed."""

shadow_option = click.option(
    "--shadow",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="CHALLENGER",
    help="A second model judges every part, too, and decides nothing: OUTPUT/shadow/ says where it "
    "differs.",
)
"""The option, whose value is None without it."""


@contextlib.contextmanager
def run_shadow(
    challenger: Path | None,
    leader: Backend,
    decision: Decision,
    output: Path,
    *,
    trust_engine: bool,
    has_deadline: bool,
) -> Iterator[ShadowRun | None]:
    """Run a challenger beside a leader for the time of the block, then write and say its report.

    Args:
        challenger: path of the model; None yields None and does nothing.
        decision: the leader's threshold and min_area.
        output: the leader's output folder.
        has_deadline: the leader never waits for the challenger, also not at its end for more than
            half a minute.
    """
    if challenger is None:
        yield None
        return
    from tinyunet_deploy.quality.shadow.run import Challenger, ShadowRun

    shadow = ShadowRun(
        Challenger(challenger, trust_engine=trust_engine),
        leader,
        decision,
        output,
        patient=not has_deadline,
        drain_s=30.0 if has_deadline else None,
    )
    refused = True
    try:
        with shadow:
            yield shadow
        refused = False
    finally:
        # A leader that refuses its output folder has no place for a report.
        if not refused or shadow.report.offered:
            path = shadow.write_report()
            _say(shadow.report, path)


def _say(report: ShadowReport, path: Path) -> None:
    different = report.new_rejects + report.new_passes
    click.echo(
        f"shadow: {report.seen} of {report.offered} parts seen, {different} judged otherwise "
        f"({report.new_rejects} only rejected, {report.new_passes} only passed by the challenger); "
        f"report: {click.format_filename(path)}",
        err=True,
    )
    for flip in report.flips[:_LISTED]:
        click.echo(f"shadow: {flip.name}: {flip.leader} -> {flip.challenger}", err=True)
    if report.failure is not None:
        click.echo(f"shadow: the challenger {report.failure}", err=True)
    for reason, count in report.unseen.items():
        click.echo(f"shadow: {count} parts not seen: {reason}", err=True)
