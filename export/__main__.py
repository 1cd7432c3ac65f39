"""``python -m export CHECKPOINT --output engines/NAME.onnx``: parse, call and print."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from tinyunet_deploy.artifacts.precision import PRECISIONS, Precision, precision_facts
from tinyunet_deploy.artifacts.speed_facts import MIN_SPEEDUP
from tinyunet_deploy.cli import run
from tinyunet_deploy.cli.options import (
    ImageSize,
    ModelPath,
    PrecisionList,
    bits_option,
    debug_option,
)
from tinyunet_deploy.cli.progress import Progress


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("checkpoint", type=ModelPath(checkpoint=True, dir_okay=False))
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="File to write, NAME.onnx. With several precisions, fp32 gets this name, the others "
    "NAME.fp16.onnx, NAME.int8.onnx and NAME.int8-cpu.onnx.",
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
    help="Data set of the model. Its training images compare every file with the checkpoint, and "
    "calibrate and choose an int8 file. Can be repeated. Default: synthetic images.",
)
@click.option(
    "--iou-budget",
    type=click.FloatRange(min=0.0),
    help="int8: largest accepted loss of iou_defective, such as 0.005. As few convolutions as "
    "possible stay in float32 to meet it without changing a verdict.",
)
@click.option(
    "--size",
    type=ImageSize(),
    help="Size of the images, HEIGHTxWIDTH, or one number for both, in multiples of 16. Default: "
    "the checkpoint's.",
)
@click.option(
    "--min-speedup",
    type=click.FloatRange(min=0.0),
    default=MIN_SPEEDUP,
    show_default=True,
    help="How many times as fast as fp32 a file must be on a runtime to count as faster there. "
    "0 skips the timing.",
)
@click.option(
    "--images",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder of images for the comparison. Default: those of --data.",
)
@bits_option
@debug_option
def export(
    checkpoint: Path,
    output: Path,
    precisions: list[Precision],
    folders: tuple[Path, ...],
    iou_budget: float | None,
    size: tuple[int, int] | None,
    min_speedup: float,
    images: Path | None,
    bits: int | None,
) -> None:
    """Turn CHECKPOINT into ONNX files: uint8 image in, uint8 score out.

    Each file is checked for faults that NVIDIA's parser refuses, and compared with the checkpoint
    in PyTorch. Either all files are written, each with its sidecar, or none. fp16 and int8 are
    timed against fp32 on every runtime here; the sidecar says where they are faster.
    """
    if output.suffix != ".onnx":
        raise click.UsageError(f"--output {output} must end in .onnx")
    quantized = any(precision_facts(precision).quantized for precision in precisions)
    if not quantized and iou_budget is not None:
        raise click.UsageError("--iou-budget is for --precision int8")
    from export.exporter import export_checkpoint, output_paths

    paths = output_paths(output, precisions)
    with Progress("exporting", len(paths), "files") as progress:
        for path in export_checkpoint(
            checkpoint,
            paths,
            size=size,
            folders=folders,
            images=images,
            iou_budget=iou_budget,
            bits=bits,
            min_speedup=min_speedup,
            log=lambda line: click.echo(line, err=True),
        ):
            click.echo(path)
            progress.advance(int(path in paths.values()))
    first = next(iter(paths.values()))
    click.echo(f"next: tinyunet-infer IMAGES -m {first} -o OUT", err=True)


if __name__ == "__main__":
    sys.exit(run(export))
