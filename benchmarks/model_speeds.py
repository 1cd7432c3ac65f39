"""``python -m benchmarks.model_speeds MODEL...``: one image through several models, in turn.

Every model runs on the backend that a user gets without naming one; ``MODEL@PEER`` runs it in a
peer of :mod:`benchmarks.peers`, such as ``pytorch-eager``. Ratios are against the first, which also
runs a second time: the ratio of its two series is the noise floor.
"""

from __future__ import annotations

import contextlib
import functools
import shlex
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from benchmarks.options import HELP, output_option, write_result
from benchmarks.peer_programs import PROGRAMS
from benchmarks.peers import PEERS, installed_versions, open_runner
from benchmarks.synthetic_images import draw_images
from tinyunet_deploy.artifacts.sidecar import Artifact, read_artifact
from tinyunet_deploy.backends.registry import open_backend
from tinyunet_deploy.cli import run
from tinyunet_deploy.contract import Batch
from tinyunet_deploy.errors import DataError
from tinyunet_deploy.host import describe_machine
from tinyunet_deploy.speed.ratio import STATISTICS, ratio_in_run
from tinyunet_deploy.speed.turns import ROUNDS, time_in_turns

__all__ = ["model_speeds"]

_CALLS_EACH: Final = 5
"""Images of each model in a round."""


@dataclass(frozen=True)
class _Model:
    artifact: Artifact
    runner: str
    versions: dict[str, str]
    call: Callable[[Batch], object]


class _ModelAtPeer(click.ParamType):  # type: ignore[type-arg]  # not subscriptable before click 8.4
    """Path of a model, and the peer that runs it, or None."""

    name = "model[@peer]"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[Path, str | None]:
        if isinstance(value, tuple):
            return value
        path, at, peer = str(value).rpartition("@")
        peers = [name for name in PEERS if name not in PROGRAMS]
        if not at or peer not in peers:
            path, peer = str(value), ""
        if not Path(path).is_file():
            self.fail(f"{path} is no file; peers after @ are {', '.join(peers)}", param, ctx)
        return Path(path), peer or None


@click.command(context_settings=HELP)
@click.argument("models", nargs=-1, required=True, type=_ModelAtPeer())
@click.option("--rounds", default=ROUNDS, show_default=True, type=click.IntRange(min=2))
@output_option("model-speeds.json")
def model_speeds(models: tuple[tuple[Path, str | None], ...], rounds: int, output: Path) -> None:
    """Time one image through each of MODELS in turn, against the first."""
    with contextlib.ExitStack() as stack:
        timed = [_opened(stack, *model) for model in models]
        contracts = [one.artifact.sidecar.contract for one in timed]
        sizes = sorted({(contract.height, contract.width) for contract in contracts})
        if len(sizes) > 1:
            raise DataError(models[0][0], f"and the others have the sizes {sizes}", "name one size")
        image = draw_images(1, *sizes[0], defective_every=1)
        calls: dict[str, Callable[[], object]] = {
            str(number): functools.partial(one.call, image)
            for number, one in enumerate([*timed, timed[0]])
        }
        *series, again = time_in_turns(calls, rounds, _CALLS_EACH).values()
    rows: list[dict[str, Any]] = []
    for one, times in zip(timed, series, strict=True):
        sidecar = one.artifact.sidecar
        faster = ratio_in_run(series[0], times)
        rows.append(
            {
                "model": one.artifact.path.name,
                "model_sha256": sidecar.sha256,
                "precision": sidecar.precision,
                "backend": one.runner,
                "versions": one.versions,
                "median_ms": statistics.median(times),
                "times_as_fast": faster.as_dict(),
            }
        )
        click.echo(
            f"{rows[-1]['model']:28} {one.runner:14} {rows[-1]['median_ms']:8.2f} ms, "
            f"{faster.value:.2f} times as fast ({faster.low:.2f} to {faster.high:.2f})"
        )
    words = [
        "python",
        "-m",
        "benchmarks.model_speeds",
        *(f"{path.name}@{peer}" if peer else path.name for path, peer in models),
    ]
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


def _opened(stack: contextlib.ExitStack, path: Path, peer: str | None) -> _Model:
    if peer is not None:
        call = open_runner(peer, path)
        return _Model(read_artifact(path), peer, installed_versions(peer), call)
    backend = stack.enter_context(open_backend(path))
    return _Model(backend.artifact, backend.name, backend.versions, backend.run)


if __name__ == "__main__":
    sys.exit(run(model_speeds))
