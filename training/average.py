"""``python -m training.average CHECKPOINT CHECKPOINT -o FILE``: the mean of the weights of runs.

Runs that end near each other, as those that began with the same checkpoint do, have a mean that is
often better than each (Wortsman et al. 2022, Model soups, arXiv:2203.05482). The mean of runs that
began apart is worthless, and nothing in the weights tells: evaluate it before it is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
import torch

from tinyunet_deploy.artifacts.checkpoint import network_of, save_checkpoint
from tinyunet_deploy.artifacts.sidecar import Artifact, read_artifact
from tinyunet_deploy.cli import run
from tinyunet_deploy.cli.options import ModelPath, debug_option
from tinyunet_deploy.errors import RefusedError
from training.commands import HELP, end_process, tune_malloc

__all__ = ["average", "write_average"]


def write_average(checkpoints: Sequence[Path], output: Path) -> None:
    """Write the checkpoint whose weights are the mean of those of ``checkpoints``.

    It has no threshold chosen for it. Its sidecar names what it is the mean of, and all images that
    trained one of them.

    Args:
        checkpoints: two or more files of one network, of one size and bit depth; their order does
            not matter.
        output: file to write, ``NAME.safetensors``.

    Raises:
        ArtifactError: a file is missing, damaged or not a checkpoint.
        RefusedError: two files have the same weights, or differ in network, size or bit depth.
        RuntimeUnavailable: the disk is full, read-only or failing.
    """
    artifacts = sorted((read_artifact(path) for path in checkpoints), key=_sha256)
    networks = [network_of(artifact) for artifact in artifacts]
    _require_alike(artifacts)
    states = [network.state_dict() for network in networks]
    mean = {
        name: torch.stack([state[name].double() for state in states]).mean(0).to(value.dtype)
        for name, value in states[0].items()
    }
    networks[0].load_state_dict(mean)
    sidecars = [artifact.sidecar for artifact in artifacts]
    teachers = {sidecar.teacher for sidecar in sidecars}
    output.parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(
        output,
        networks[0],
        sidecars[0].contract,
        bits=sidecars[0].bits,
        trained_on=tuple(sorted({image for sidecar in sidecars for image in sidecar.trained_on})),
        teacher=teachers.pop() if len(teachers) == 1 else None,
        origin={"mean_of": [sidecar.sha256 for sidecar in sidecars]},
    )


def _sha256(artifact: Artifact) -> str:
    return artifact.sidecar.sha256


def _require_alike(artifacts: Sequence[Artifact]) -> None:
    """Check that files are of one kind, but not the same.

    Raises:
        RefusedError: they are not; the line names two of them.
    """
    first, *others = artifacts
    for before, artifact in zip(artifacts, others, strict=False):
        if _sha256(before) == _sha256(artifact):
            raise RefusedError(artifact.path, f"has the same weights as {before.path}")
    for artifact in others:
        for name, one, other in (
            ("network", first.sidecar.network, artifact.sidecar.network),
            ("size", first.sidecar.contract, artifact.sidecar.contract),
            ("bit depth", first.sidecar.bits, artifact.sidecar.bits),
        ):
            if one != other:
                raise RefusedError(
                    artifact.path,
                    f"has another {name} than {first.path}",
                    "give checkpoints of runs that began with the same one",
                )


@click.command(context_settings=HELP)
@click.argument(
    "checkpoints",
    nargs=-1,
    required=True,
    metavar="CHECKPOINT CHECKPOINT...",
    type=ModelPath(checkpoint=True, exists=True, dir_okay=False),
)
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="File of the mean, NAME.safetensors.",
)
@debug_option
def average(checkpoints: tuple[Path, ...], output: Path) -> None:
    """Write the mean of the weights of two or more checkpoints whose runs began with the same one.

    No threshold is chosen for it: train on from it (--init), or choose one with tinyunet tune.
    """
    if len(checkpoints) < 2:
        raise click.UsageError("give two checkpoints or more")
    if output.resolve() in {path.resolve() for path in checkpoints}:
        raise click.UsageError(f"{output} is one of the checkpoints; give another --output")
    write_average(checkpoints, output)
    click.echo(f"tinyunet tune -m {output} DATA chooses its threshold", err=True)
    click.echo(output)


if __name__ == "__main__":
    tune_malloc()
    end_process(run(average))
