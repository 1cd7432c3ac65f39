"""``python -m training.average RUN RUN -o FILE``: the mean of the weights of finished runs.

Runs that end near each other, as those that began with the same checkpoint do, have a mean that is
often better than each (Wortsman et al. 2022, Model soups, arXiv:2203.05482). The mean of runs that
began apart is worthless; its figures on the images held out show that.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path

import click
import torch

from tinyunet_deploy.artifacts.checkpoint import network_of, save_checkpoint
from tinyunet_deploy.artifacts.golden import write_golden
from tinyunet_deploy.artifacts.sidecar import Artifact, read_artifact
from tinyunet_deploy.backends.torch import TorchBackend
from tinyunet_deploy.cli import run
from tinyunet_deploy.cli.options import debug_option
from tinyunet_deploy.errors import RefusedError
from training.commands import HELP, end_process, log_to_stderr, tune_malloc
from training.finish import read_run
from training.run_folder import CHECKPOINT, is_finished, read_record
from training.sources import validation_images
from training.used_images import validated_on
from training.validation import OperatingPoint, choose_operating_point

__all__ = ["average", "write_average"]

log = logging.getLogger("training")


def write_average(runs: Sequence[Path], output: Path) -> OperatingPoint:
    """Write the checkpoint whose weights are the mean of those of finished runs.

    Threshold and min_area are chosen for it on the images that the runs held out. Its sidecar names
    what it is the mean of, and all images that trained one of them.

    Args:
        runs: two or more folders of runs of one network on the same images; their order does not
            matter.
        output: file to write, ``NAME.safetensors``.

    Returns:
        What the mean reaches on the images held out.

    Raises:
        ArtifactError: a checkpoint is damaged.
        DataError: a folder is not that of a run, or its images have changed.
        RefusedError: a run is not finished, or two have the same weights, or differ in network,
            size or images.
        RuntimeUnavailable: the disk is full, read-only or failing.
    """
    artifacts = sorted((_finished(folder) for folder in runs), key=_sha256)
    _require_alike(artifacts)
    first = artifacts[0]
    _, contract, sources = read_run(first.path.parent)
    networks = [network_of(artifact) for artifact in artifacts]
    states = [network.state_dict() for network in networks]
    mean = {
        name: torch.stack([state[name].double() for state in states]).mean(0).to(value.dtype)
        for name, value in states[0].items()
    }
    network = networks[0]
    network.load_state_dict(mean)
    examples = validation_images(sources)
    log.info("validating the mean of %d runs on %d images", len(runs), len(examples))
    point = choose_operating_point(network, contract, examples)
    sidecars = [artifact.sidecar for artifact in artifacts]
    teachers = {sidecar.teacher for sidecar in sidecars}
    output.parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(
        output,
        network,
        contract,
        threshold=point.threshold,
        min_area=point.min_area,
        bits=first.sidecar.bits,
        tuned_on=validated_on(sources),
        trained_on=tuple(sorted({image for sidecar in sidecars for image in sidecar.trained_on})),
        teacher=teachers.pop() if len(teachers) == 1 else None,
        origin={
            "mean_of": [sidecar.origin for sidecar in sidecars],
            "operating_point": point.as_dict(),
        },
    )
    with TorchBackend(read_artifact(output)) as backend:
        write_golden(output, backend.score_alone)
    return point


def _finished(folder: Path) -> Artifact:
    read_record(folder)
    checkpoint = folder / CHECKPOINT
    if not is_finished(checkpoint):
        raise RefusedError(folder, "is not finished", f"python -m training finish {folder}")
    return read_artifact(checkpoint)


def _sha256(artifact: Artifact) -> str:
    return artifact.sidecar.sha256


def _require_alike(artifacts: Sequence[Artifact]) -> None:
    """Check that checkpoints are of one kind, but not the same.

    Raises:
        RefusedError: they are not; the line names the folders of two of them.
    """
    first, *others = artifacts
    for before, artifact in zip(artifacts, others, strict=False):
        if _sha256(before) == _sha256(artifact):
            raise RefusedError(
                artifact.path.parent, f"has the same weights as {before.path.parent}"
            )
    data = read_record(first.path.parent).get("data_sha256")
    for artifact in others:
        folder = artifact.path.parent
        for name, one, other in (
            ("network", first.sidecar.network, artifact.sidecar.network),
            ("size", first.sidecar.contract, artifact.sidecar.contract),
            ("set of images", data, read_record(folder).get("data_sha256")),
        ):
            if one != other:
                raise RefusedError(
                    folder,
                    f"has another {name} than {first.path.parent}",
                    "give runs that began with the same checkpoint",
                )


@click.command(context_settings=HELP)
@click.argument(
    "runs",
    nargs=-1,
    required=True,
    metavar="RUN RUN...",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
)
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="File of the mean, NAME.safetensors.",
)
@debug_option
def average(runs: tuple[Path, ...], output: Path) -> None:
    """Write the mean of the weights of two or more finished runs that began with one checkpoint.

    They differ in seed or recipe, not in images. Threshold and min_area are chosen on the images
    that they held out; the figures printed are of these images.
    """
    log_to_stderr()
    if len(runs) < 2:
        raise click.UsageError("give two runs or more")
    if output.resolve() in {(folder / CHECKPOINT).resolve() for folder in runs}:
        raise click.UsageError(f"{output} is of one of the runs; give another --output")
    point = write_average(runs, output)
    click.echo(json.dumps(point.as_dict(), indent=2))


if __name__ == "__main__":
    tune_malloc()
    end_process(run(average))
