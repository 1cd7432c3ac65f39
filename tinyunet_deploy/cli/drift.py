"""``tinyunet drift``: compare the images of a report with those of an earlier one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tinyunet_deploy.cli.options import debug_option, format_option

if TYPE_CHECKING:
    from tinyunet_deploy.inspection.drift import Drift


@click.command()
@click.argument("report", type=click.Path(path_type=Path, exists=True))
@click.option(
    "--against",
    "before",
    required=True,
    type=click.Path(path_type=Path, exists=True),
    help="Report of an earlier run that had no problems.",
)
@click.option(
    "--alpha",
    type=click.FloatRange(0.0, 0.5, min_open=True),
    default=0.01,
    show_default=True,
    help="Probability of a false alarm.",
)
@format_option
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Draw the distributions, before and now, into this SVG file.",
)
@debug_option
def drift(report: Path, before: Path, alpha: float, style: str, output: Path | None) -> None:
    """Test whether camera, light or parts have changed.

    REPORT is a report.jsonl that tinyunet infer wrote, or its folder; no labels are needed. Exits
    with 6 if a statistic of its images has drifted.
    """
    import json

    from tinyunet_deploy.errors import GateFailed
    from tinyunet_deploy.files import write_atomic
    from tinyunet_deploy.inspection.drawing import require_matplotlib
    from tinyunet_deploy.inspection.drift import compare_reports, draw_distributions

    if output is not None:
        require_matplotlib()
    comparison = compare_reports(report, before, alpha)
    if style == "json":
        fields = {"schema_version": 1, **comparison.as_fields()}
        click.echo(json.dumps(fields, indent=2, allow_nan=False))
    else:
        _print_table(comparison)
    if output is not None:
        drawing = draw_distributions(report, before, comparison)
        output.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(output, drawing)
        click.echo(f"picture: {click.format_filename(output)}", err=True)
    if comparison.note:
        click.echo(f"note: {comparison.note}", err=True)
    if comparison.drifted:
        raise GateFailed(
            report,
            f"has drifted from {click.format_filename(before)}: {', '.join(comparison.drifted)}",
            comparison.hint,
        )


def _print_table(comparison: Drift) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(
        title=f"{comparison.images} images against {comparison.images_before}",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 0, 0, 1),
    )
    table.add_column("statistic", no_wrap=True)
    for column in ("before", "now", "shift", "distance", "critical", ""):
        table.add_column(column, justify="right", no_wrap=True)
    for shift in comparison.shifts:
        table.add_row(
            shift.statistic,
            f"{shift.mean_before:.4g}",
            f"{shift.mean:.4g}",
            f"{shift.shift:+.2f}",
            f"{shift.distance:.3f}",
            f"{shift.critical:.3f}",
            "drift" if shift.drift else "no drift",
        )
    Console().print(table)
