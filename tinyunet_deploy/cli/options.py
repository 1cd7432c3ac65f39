"""Options, and types of options, that more than one verb takes."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem


class BackendName(click.ParamType):  # type: ignore[type-arg]  # not subscriptable before click 8.4
    """Name of a backend of the table, those of other packages included.

    They are looked up when they are needed: finding those of other packages reads the list of all
    that is installed.
    """

    name = "backend"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str | None:
        return self._choice().get_metavar(param, ctx)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return str(self._choice().convert(value, param, ctx))

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        return self._choice().shell_complete(ctx, param, incomplete)

    @staticmethod
    def _choice() -> click.Choice[str]:
        from tinyunet_deploy.backends.table import backend_names

        return click.Choice(backend_names())


class NumberList(click.ParamType):  # type: ignore[type-arg]  # not subscriptable before click 8.4
    """Numbers as ``1,3-5``, which becomes ``(1, 3, 4, 5)``: sorted, each once, 1..9999.

    Args:
        name: what they are, for messages.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return "1,3-5"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        numbers: set[int] = set()
        for part in str(value).split(","):
            match = re.fullmatch(r"\s*([0-9]{1,4})\s*(?:-\s*([0-9]{1,4})\s*)?", part)
            first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
            if not 1 <= first <= last:
                self.fail(f"{value!r} is not a list of {self.name} such as 1,3-5", param, ctx)
            numbers.update(range(first, last + 1))
        return tuple(sorted(numbers))


def ClassList() -> NumberList:  # noqa: N802  stands for a type
    """Classes as ``1,3-5``."""
    return NumberList("classes")


class ShardType(click.ParamType):  # type: ignore[type-arg]  # not subscriptable before click 8.4
    """One of several shards as ``1/4``: the first of four."""

    name = "shard"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return "I/N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from tinyunet_deploy.inspection.shards import Shard

        try:
            return value if isinstance(value, Shard) else Shard.parse(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def _together(*options: Decorator) -> Decorator:
    """Several options as one decorator, in the order of ``--help``."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


workers_option = click.option(
    "--workers",
    type=click.IntRange(min=1),
    default=None,
    help="Threads for reading and writing; one per processor if not given.",
)
classes_option = click.option("--classes", type=ClassList(), help="Only these classes.")
bits_option = click.option(
    "--bits",
    type=click.IntRange(8, 16),
    help="Depth of the camera whose values 16-bit files contain, such as 12. Default: the model's, "
    "else the one stated in the file, else 16.",
)
tile_option = click.option(
    "--tile",
    is_flag=True,
    help="Take images larger than the model's, too, in overlapping tiles without a seam.",
)
format_option = click.option(
    "--format",
    "style",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="How results are printed.",
)
debug_option = click.option(
    "--debug", is_flag=True, expose_value=False, help="Show the traceback of an error."
)

artifact_options = _together(
    click.option(
        "-m",
        "--model",
        type=click.Path(path_type=Path, dir_okay=False),
        help="A .onnx, .plan or .safetensors file; the one of the package if not given.",
    ),
    click.option(
        "--backend",
        type=BackendName(),
        help="What runs it; the first that is installed and fits if not given.",
    ),
    click.option(
        "--device",
        help="cpu or cuda:0; the GPU for a TensorRT plan, else cpu, if not given.",
    ),
    click.option(
        "--trust-engine",
        is_flag=True,
        help="Load a model without a sidecar: a TensorRT plan, which is a program, or an "
        "ONNX file, which is tried in a process of its own first.",
    ),
)
"""Which artifact runs and where."""

model_options = _together(
    artifact_options,
    click.option(
        "-b",
        "--batch-size",
        type=click.IntRange(min=1),
        default=4,
        show_default=True,
        help="Images per call of the backend.",
    ),
    workers_option,
)
"""Which artifact runs, where and in what batches."""

comparison_options = _together(
    click.option(
        "-m",
        "--model",
        "models",
        multiple=True,
        type=click.Path(path_type=Path, exists=True),
        help="An artifact, or a folder of them; may be given again. The package's model if not "
        "given.",
    ),
    click.option(
        "--reference",
        type=click.Path(path_type=Path, exists=True, dir_okay=False),
        help="Whose answers are right; the checkpoint of the first model if not given.",
    ),
    click.option(
        "--backend",
        "backends",
        multiple=True,
        type=BackendName(),
        help="Only on this one; may be given again.",
    ),
    click.option(
        "--device",
        "devices",
        multiple=True,
        default=("cpu",),
        show_default=True,
        help="cpu or cuda:0; may be given again.",
    ),
    click.option(
        "--limits",
        "limits_file",
        type=click.Path(path_type=Path, exists=True, dir_okay=False),
        help="TOML file of limits instead of the package's.",
    ),
)
"""Which artifacts run, where, and what their answers are held against."""

operating_options = _together(
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
"""What counts as a defect; the artifact's own values if not given."""

picture_options = _together(
    click.option("--overlays", is_flag=True, help="Write pictures with the defects outlined."),
    click.option("--scores", is_flag=True, help="Write the scores as grey PNGs."),
)
"""What is written beside the masks."""
