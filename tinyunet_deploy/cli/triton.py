"""``tinyunet triton``: put a model into a model repository for NVIDIA's Triton."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click

from tinyunet_deploy.cli.options import ModelPath, debug_option, trust_option


class Device(click.ParamType):  # type: ignore[type-arg]  # not subscriptable before click 8.4
    """Name of a device: ``cpu``, ``cuda`` or ``cuda:N``."""

    name = "device"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from tinyunet_deploy.backends.device_name import full_name

        if not re.fullmatch("cpu|cuda(:[0-9]+)?", str(value)):
            self.fail(f"{value!r} is not a device such as cpu or cuda:0", param, ctx)
        return full_name(str(value))


@click.command()
@click.argument("model", required=False, type=ModelPath(dir_okay=False))
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Model repository; it may already contain other models.",
)
@click.option("--name", help="Model name for clients. Default: the file name up to its first dot.")
@click.option(
    "--device",
    type=Device(),
    help="cpu, cuda or cuda:1. Default: cuda:0 for a TensorRT plan, else cpu.",
)
@click.option(
    "--instances",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Number of instances that run in parallel.",
)
@trust_option
@debug_option
def triton(
    model: Path | None,
    output: Path,
    name: str | None,
    device: str | None,
    instances: int,
    trust_engine: bool,
) -> None:
    """Put MODEL into a model repository for NVIDIA's Triton.

    MODEL is an ONNX file or a TensorRT plan. Default: the package's model.
    """
    from tinyunet_deploy.artifacts.sidecar import DEFAULT_ONNX
    from tinyunet_deploy.backends.registry import read_tried
    from tinyunet_deploy.backends.triton_repository import UNVERIFIED_BATCH, write_repository
    from tinyunet_deploy.errors import RefusedError

    model = model or DEFAULT_ONNX
    if device == "cpu" and model.suffix == ".plan":
        raise RefusedError(model, "is a TensorRT plan, which does not run on the cpu")
    gpu = int(device.partition(":")[2]) if device and device != "cpu" else None
    artifact = read_tried(model, trust_engine=trust_engine)
    folder = write_repository(
        model, output, name=name, gpu=gpu, instances=instances, trust_engine=trust_engine
    )
    click.echo(folder)
    sidecar = artifact.sidecar
    if sidecar.max_batch is None:
        how = "; tinyunet parity --record verifies it" if artifact.has_sidecar else ""
        click.echo(
            f"takes batches up to {UNVERIFIED_BATCH}, which is not verified{how}",
            err=True,
        )
    if sidecar.plan is not None:
        click.echo(f"needs a Triton with TensorRT {sidecar.plan.version}", err=True)
    click.echo(
        f"tritonserver --model-repository {output}; then "
        f"tinyunet-infer IMAGES -o OUT --server http://localhost:8000/{folder.name}",
        err=True,
    )
