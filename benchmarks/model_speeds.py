"""``python -m benchmarks.model_speeds MODEL...``: one image through several models, in turn.

Every model runs on the backend that a user gets without naming one. Ratios are against the first,
which also runs a second time: the ratio of its two series is the noise floor.
"""

from __future__ import annotations

import contextlib
import functools
import shlex
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click

from benchmarks.options import HELP, output_option, write_result
from benchmarks.synthetic_images import draw_images
from tinyunet_deploy.backends.registry import open_backend
from tinyunet_deploy.cli import run
from tinyunet_deploy.errors import DataError
from tinyunet_deploy.host import describe_machine
from tinyunet_deploy.speed.ratio import STATISTICS, ratio_in_run
from tinyunet_deploy.speed.turns import ROUNDS, time_in_turns

__all__ = ["model_speeds"]

_CALLS_EACH: Final = 5
"""Images of each model in a round."""


@click.command(context_settings=HELP)
@click.argument(
    "models", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False)
)
@click.option("--rounds", default=ROUNDS, show_default=True, type=click.IntRange(min=2))
@output_option("model-speeds.json")
def model_speeds(models: tuple[Path, ...], rounds: int, output: Path) -> None:
    """Time one image through each of MODELS in turn, against the first."""
    with contextlib.ExitStack() as stack:
        backends = [stack.enter_context(open_backend(model)) for model in models]
        sizes = sorted({(one.contract.height, one.contract.width) for one in backends})
        if len(sizes) > 1:
            raise DataError(models[0], f"and the others have the sizes {sizes}", "name one size")
        image = draw_images(1, *sizes[0], defective_every=1)
        calls: dict[str, Callable[[], object]] = {
            str(number): functools.partial(backend.run, image)
            for number, backend in enumerate([*backends, backends[0]])
        }
        *series, again = time_in_turns(calls, rounds, _CALLS_EACH).values()
    rows: list[dict[str, Any]] = []
    for backend, times in zip(backends, series, strict=True):
        sidecar = backend.artifact.sidecar
        faster = ratio_in_run(series[0], times)
        rows.append(
            {
                "model": backend.artifact.path.name,
                "model_sha256": sidecar.sha256,
                "precision": sidecar.precision,
                "backend": backend.name,
                "versions": backend.versions,
                "median_ms": statistics.median(times),
                "times_as_fast": faster.as_dict(),
            }
        )
        click.echo(
            f"{rows[-1]['model']:28} {backend.name:12} {rows[-1]['median_ms']:8.2f} ms, "
            f"{faster.value:.2f} times as fast ({faster.low:.2f} to {faster.high:.2f})"
        )
    words = ["python", "-m", "benchmarks.model_speeds", *(model.name for model in models)]
    fields = {
        "kind": "model-speeds",
        "command": shlex.join([*words, "--rounds", str(rounds)]),
        "formula": "times_as_fast = median time of the first model / median time of this one",
        "statistics": STATISTICS,
        "machine": describe_machine(),
        "image_px": list(sizes[0]),
        "floor": ratio_in_run(again, series[0]).floor,
        "rows": rows,
    }
    write_result(output, fields)


if __name__ == "__main__":
    sys.exit(run(model_speeds))
