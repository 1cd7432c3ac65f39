"""``python -m export CHECKPOINT --output engines/NAME.onnx``."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from tinyunet_deploy.artifacts.precision import PRECISIONS, Precision, precision_facts
from tinyunet_deploy.artifacts.sidecar import Artifact
from tinyunet_deploy.backends.base import Backend
from tinyunet_deploy.cli import run
from tinyunet_deploy.cli.options import debug_option


class PrecisionList(click.ParamType):  # type: ignore[type-arg]  # not subscriptable before click 8.4
    """Such as ``fp32,int8``."""

    name = "list"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> list[Precision]:
        """The precisions of a comma-separated list, in the order in which they are made."""
        given = str(value).split(",")
        for name in given:
            if name not in PRECISIONS:
                self.fail(f"{name!r} is none of {', '.join(PRECISIONS)}", param, ctx)
        return [name for name in PRECISIONS if name in given]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("checkpoint", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="NAME.onnx. One precision is written there; of several, fp32 is, and the others are "
    "NAME.fp16.onnx and NAME.int8.onnx.",
)
@click.option(
    "--precision",
    "precisions",
    type=PrecisionList(),
    default="fp32",
    show_default=True,
    help=f"One or more of {','.join(PRECISIONS)}.",
)
@click.option(
    "--data",
    "folders",
    multiple=True,
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="int8: data set whose training images calibrate and choose, again for several; "
    "synthetic images if not given.",
)
@click.option(
    "--iou-budget",
    type=click.FloatRange(min=0.0),
    help="int8: iou_defective that may be lost, such as 0.005. Keeps as few convolutions as "
    "possible in float32 to meet it without flipping a verdict.",
)
@click.option(
    "--size",
    type=click.IntRange(min=16),
    help="Height and width of the images, a multiple of 16; the checkpoint's own if not given.",
)
@click.option(
    "--images",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Compare on these images instead of synthetic ones.",
)
@debug_option
def export(
    checkpoint: Path,
    output: Path,
    precisions: list[Precision],
    folders: tuple[Path, ...],
    iou_budget: float | None,
    size: int | None,
    images: Path | None,
) -> None:
    """Turn CHECKPOINT into ONNX files: uint8 image in, uint8 score out.

    Each is checked for what NVIDIA's parser refuses and compared with the checkpoint in PyTorch.
    All are written, each with its sidecar, or none.
    """
    if output.suffix != ".onnx":
        raise click.UsageError(f"--output {output} must end in .onnx")
    if size is not None and size % 16:
        raise click.UsageError(f"--size {size} is not a multiple of 16")
    quantized = any(precision_facts(precision).quantized for precision in precisions)
    if not quantized and (folders or iou_budget is not None):
        raise click.UsageError("--data and --iou-budget are for --precision int8")
    from export.exporter import export_files, output_paths
    from tinyunet_deploy.artifacts.golden import write_golden
    from tinyunet_deploy.artifacts.sidecar import read_artifact, write_artifact
    from tinyunet_deploy.contract import Contract
    from tinyunet_deploy.files import write_atomic

    source = read_artifact(checkpoint)
    contract = source.sidecar.contract if size is None else Contract(size, size)
    exported = export_files(
        source,
        contract,
        output_paths(output, precisions),
        folders=folders,
        images=images,
        iou_budget=iou_budget,
        log=lambda line: click.echo(line, err=True),
    )
    for artifact in exported.artifacts:
        write_artifact(artifact.path, artifact.data, artifact.sidecar)
        with _judge(source, artifact) as judge:
            write_golden(artifact.path, judge.score_alone)
        click.echo(artifact.path)
    for path, data in exported.reports.items():
        write_atomic(path, data, durable=True)
        click.echo(path)
    first = exported.artifacts[0].path
    click.echo(f"next: tinyunet-infer IMAGES -m {first} -o OUT", err=True)


def _judge(checkpoint: Artifact, exported: Artifact) -> Backend:
    """What gives golden scores: the checkpoint, or the file itself if its rounding is its own."""
    from tinyunet_deploy.backends.registry import load, open_backend

    if exported.sidecar.precision != "fp32":
        return open_backend(exported.path, "onnxruntime")
    contract = exported.sidecar.contract
    return load(checkpoint, "torch", "cpu", size=(contract.height, contract.width))


if __name__ == "__main__":
    sys.exit(run(export))
