"""``python -m export CHECKPOINT --output engines/NAME.onnx``."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from tinyunet_deploy.cli import run
from tinyunet_deploy.cli.options import debug_option


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("checkpoint", type=click.Path(path_type=Path, dir_okay=False))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path, dir_okay=False))
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
def export(checkpoint: Path, output: Path, size: int | None, images: Path | None) -> None:
    """Turn CHECKPOINT into an ONNX file: uint8 image in, uint8 score out.

    The file is compared with the checkpoint in PyTorch before it is written, with its sidecar.
    """
    if output.suffix != ".onnx":
        raise click.UsageError(f"--output {output} must end in .onnx")
    if size is not None and size % 16:
        raise click.UsageError(f"--size {size} is not a multiple of 16")
    import onnx
    import onnxscript
    import torch

    from export.compare import compare, comparison_images
    from export.graph import OPSET, onnx_graph
    from tinyunet_deploy import __version__
    from tinyunet_deploy.artifact import Artifact, Sidecar, digest, read_artifact, write_artifact
    from tinyunet_deploy.checkpoint import network_of
    from tinyunet_deploy.contract import Contract

    source = read_artifact(checkpoint)
    contract = source.sidecar.contract if size is None else Contract(size, size)
    data = onnx_graph(network_of(source), contract)
    sidecar = Sidecar(
        kind="onnx",
        precision="fp32",
        sha256=digest(data),
        parent=source.sidecar.sha256,
        contract=contract,
        threshold=source.sidecar.threshold,
        min_area=source.sidecar.min_area,
        origin={
            "checkpoint": checkpoint.name,
            "opset": OPSET,
            "versions": {
                "tinyunet_deploy": __version__,
                "torch": torch.__version__,
                "onnx": onnx.__version__,
                "onnxscript": onnxscript.__version__,
            },
        },
    )
    figures = compare(
        Artifact(checkpoint, source.data, source.sidecar),
        Artifact(output, data, sidecar),
        comparison_images(contract, images),
    )
    sidecar.origin["parity_with_checkpoint"] = figures
    write_artifact(output, data, sidecar)
    click.echo(output)
    click.echo(
        f"largest score difference from the checkpoint: {figures['max_difference_steps']} of 255 "
        f"on {figures['images']} images; next: tinyunet-infer IMAGES -m {output} -o OUT",
        err=True,
    )


if __name__ == "__main__":
    sys.exit(run(export))
