"""``python -m training.average RUN RUN -o FILE``: the mean of the weights of finished runs.

Runs that end near each other, as those that began with the same checkpoint do, have a mean that is
often better than each (Wortsman et al. 2022, Model soups, arXiv:2203.05482). The mean of runs that
began apart is worthless; its figures on the images held out show that.
"""

from __future__ import annotations

import itertools
import json
import logging
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click
import torch

from tinyunet_deploy.artifacts.checkpoint import network_of, save_checkpoint
from tinyunet_deploy.artifacts.golden import write_golden
from tinyunet_deploy.artifacts.sidecar import Artifact, Sidecar, read_artifact
from tinyunet_deploy.backends.torch import TorchBackend
from tinyunet_deploy.cli import run
from tinyunet_deploy.cli.options import debug_option
from tinyunet_deploy.errors import RefusedError
from training.commands import HELP, log_to_stderr
from training.finish import read_run
from training.run_folder import CHECKPOINT, is_finished, read_record
from training.sources import validation_images
from training.used_images import validated_on
from training.validation import OperatingPoint, choose_operating_point

__all__ = ["average", "write_average"]

log = logging.getLogger("training")


class _Finished(NamedTuple):
    """A finished run: its folder, the fields of its run.json, and its checkpoint."""

    folder: Path
    record: dict[str, Any]
    artifact: Artifact

    @property
    def sidecar(self) -> Sidecar:
        return self.artifact.sidecar


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
    finished = sorted(map(_finished, runs), key=lambda one: one.sidecar.sha256)
    _require_alike(finished)
    first = finished[0]
    _, contract, sources = read_run(first.folder, first.record)
    networks = [network_of(one.artifact) for one in finished]
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
    sidecars = [one.sidecar for one in finished]
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


def _finished(folder: Path) -> _Finished:
    record = read_record(folder)
    checkpoint = folder / CHECKPOINT
    if not is_finished(checkpoint):
        command = shlex.join(["python", "-m", "training", "finish", str(folder)])
        raise RefusedError(folder, "is not finished", command)
    return _Finished(folder, record, read_artifact(checkpoint))


def _require_alike(runs: Sequence[_Finished]) -> None:
    """Check that runs are of one kind, but not the same.

    Raises:
        RefusedError: they are not; the line names the folders of two of them.
    """
    for before, after in itertools.pairwise(runs):
        if before.sidecar.sha256 == after.sidecar.sha256:
            raise RefusedError(after.folder, f"has the same weights as {before.folder}")
    first = runs[0]
    for later in runs[1:]:
        for name, one, other in (
            ("network", first.sidecar.network, later.sidecar.network),
            ("size", first.sidecar.contract, later.sidecar.contract),
            ("set of images", first.record.get("data_sha256"), later.record.get("data_sha256")),
        ):
            if one != other:
                raise RefusedError(
                    later.folder,
                    f"has another {name} than {first.folder}",
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
    sys.exit(run(average))
