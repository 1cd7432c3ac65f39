"""``python -m training.curve_picture RUN -o curve.svg``: the curves of a run as a picture."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import click
import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tinyunet_deploy.cli import run
from tinyunet_deploy.cli.options import debug_option
from tinyunet_deploy.errors import DataError
from tinyunet_deploy.files import write_atomic
from tinyunet_deploy.inspection.drawing import draw_png, draw_svg
from training.commands import HELP
from training.curves import EVENTS, VALIDATION

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_curves", "read_curve"]

_SMOOTH: Final = 20
"""Number of parts of a run over which the thick line averages, to smooth the luck of batches."""


def read_curve(run_folder: Path, name: str) -> tuple[list[int], list[float]]:
    """Return steps and values of a curve that training wrote: ``loss``, ``dice`` and others.

    Of a step that a resumed run did again, the last value counts.

    Raises:
        DataError: the folder contains no such curve.
    """
    return _curve(_events(run_folder), run_folder, name)


def _curve(events: EventAccumulator, run_folder: Path, name: str) -> tuple[list[int], list[float]]:
    if name not in events.Tags()["scalars"]:
        raise DataError(run_folder, f"contains no curve {name}", "give the folder of a run")
    values = {point.step: point.value for point in events.Scalars(name)}
    return list(values), list(values.values())


def _events(run_folder: Path) -> EventAccumulator:
    folder = run_folder / EVENTS
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    if folder.is_dir():
        events.Reload()
    return events


def draw_curves(run_folder: Path, style: Literal["svg", "png"] = "svg") -> bytes:
    """Draw loss and Dice of every step of a run, thin, and their means, thick.

    If the run validated, its figures on the validation images are drawn below.

    Returns:
        An SVG or PNG file.

    Raises:
        DataError: the folder contains no curves.
    """
    events = _events(run_folder)
    curves = {name: _curve(events, run_folder, name) for name in ("loss", "dice")}
    validated = set(VALIDATION) <= set(events.Tags()["scalars"])
    names = VALIDATION if validated else ()
    reached = {name: _curve(events, run_folder, name) for name in names}

    def draw(figure: Figure) -> None:
        grid = figure.subplots(1 + validated, 2, squeeze=False)
        for axes, name in zip(grid[0], curves, strict=True):
            _draw_curve(axes, name, *curves[name])
        if validated:
            _draw_validation(grid[1][0], grid[1][1], reached)

    drawing = draw_png if style == "png" else draw_svg
    return drawing(9.0, 3.2 * (1 + validated), draw)


def _draw_validation(
    quality: Axes, mistakes: Axes, reached: dict[str, tuple[list[int], list[float]]]
) -> None:
    iou, *counts = VALIDATION
    quality.plot(*reached[iou], color="#1f5c99", marker="o", markersize=3)
    quality.set_title("iou_defective, validation images", loc="left")
    quality.set_ylim(0, 1)
    for name, color in zip(counts, ("#b3261e", "#c77700"), strict=True):
        label = name.removeprefix("validation/")
        mistakes.plot(*reached[name], color=color, marker="o", markersize=3, label=label)
    mistakes.set_title("Mistakes, validation images", loc="left")
    mistakes.set_ylim(0, None)
    mistakes.legend(frameon=False)
    for axes in (quality, mistakes):
        axes.set_xlabel("step")
        axes.set_xlim(0, reached[iou][0][-1])
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)


def _draw_curve(axes: Axes, name: str, steps: Sequence[int], values: Sequence[float]) -> None:
    width = max(1, len(values) // _SMOOTH)
    sums = np.cumsum([0.0, *values])
    means = (sums[width:] - sums[:-width]) / width
    axes.plot(steps, values, color="#9bb7d4", linewidth=0.8, label="one batch")
    axes.plot(steps[width - 1 :], means, color="#1f5c99", label=f"mean of {width} batches")
    axes.set_xlabel("step")
    axes.set_title({"loss": "Loss", "dice": "Dice of the batch, 1 is perfect"}[name], loc="left")
    axes.set_xlim(0, steps[-1])
    axes.set_ylim(0, 1 if name == "dice" else None)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)


@click.command(context_settings=HELP)
@click.argument(
    "run_folder", metavar="RUN", type=click.Path(path_type=Path, exists=True, file_okay=False)
)
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="SVG file to write.",
)
@debug_option
def curve_picture(run_folder: Path, output: Path) -> None:
    """Draw loss, Dice and validation over the steps of RUN, the folder of a training run."""
    write_atomic(output, draw_curves(run_folder))
    click.echo(output)


if __name__ == "__main__":
    sys.exit(run(curve_picture))
