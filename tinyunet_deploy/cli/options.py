"""Types of options that more than one verb takes."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

BACKENDS = ("openvino", "onnxruntime", "torch", "tensorrt", "onnxruntime-tensorrt")
"""The names in ``tinyunet_deploy.backends.BACKENDS``, which is slow to import."""


class ClassList(click.ParamType):  # type: ignore[type-arg]  # not subscriptable before click 8.4
    """Classes as ``1,3-5``, which becomes ``(1, 3, 4, 5)``: sorted, each once, 1..9999."""

    name = "classes"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return "1,3-5"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        classes: set[int] = set()
        for part in str(value).split(","):
            match = re.fullmatch(r"\s*([0-9]{1,4})\s*(?:-\s*([0-9]{1,4})\s*)?", part)
            first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
            if not 1 <= first <= last:
                self.fail(f"{value!r} is no list of classes such as 1,3-5", param, ctx)
            classes.update(range(first, last + 1))
        return tuple(sorted(classes))


def model_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say which artifact runs, where and in what batches."""
    for option in reversed(
        (
            click.option(
                "-m",
                "--model",
                type=click.Path(path_type=Path, dir_okay=False),
                help="A .onnx, .plan or .safetensors file; the one of the package if not given.",
            ),
            click.option(
                "--backend",
                type=click.Choice(BACKENDS),
                help="What runs it; the first that is installed and fits if not given.",
            ),
            click.option(
                "--device",
                help="cpu or cuda:0; the GPU for a TensorRT plan, else cpu, if not given.",
            ),
            click.option(
                "--trust-engine",
                is_flag=True,
                help="Load a TensorRT plan without a sidecar: a plan is a program.",
            ),
            click.option(
                "-b",
                "--batch-size",
                type=click.IntRange(min=1),
                default=4,
                show_default=True,
                help="Images per call of the backend.",
            ),
            click.option(
                "--workers",
                type=click.IntRange(min=1),
                default=None,
                help="Threads that decode and write; one per processor if not given.",
            ),
        )
    ):
        command = option(command)
    return command


def operating_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say what counts as a defect; the artifact's own values if not given."""
    for option in reversed(
        (
            click.option(
                "--threshold",
                type=click.FloatRange(0.0, 1.0),
                help="Probability over which a pixel is a defect.",
            ),
            click.option(
                "--min-area",
                type=click.IntRange(min=1),
                help="Pixels that a defect must have to make a part NG.",
            ),
        )
    ):
        command = option(command)
    return command


tile_option = click.option(
    "--tile",
    is_flag=True,
    help="Take images larger than the model's, too, in overlapping tiles without a seam.",
)
debug_option = click.option(
    "--debug", is_flag=True, expose_value=False, help="Show the traceback of an error."
)
