"""``tinyunet adopt``: wrap a segmentation network of another origin so that every verb takes it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from tinyunet_deploy.cli.options import (
    ImageSize,
    NumberList,
    PrecisionList,
    bits_option,
    debug_option,
    format_option,
    operating_options,
)
from tinyunet_deploy.cli.progress import Progress

if TYPE_CHECKING:
    from tinyunet_deploy.artifacts.adoption.form import Normalization
    from tinyunet_deploy.artifacts.facts import Activation, Layout
    from tinyunet_deploy.artifacts.precision import Precision


class Numbers(click.ParamType):  # type: ignore[type-arg]  # not subscriptable before click 8.4
    """One number for all channels, or one for each, such as ``0.485,0.456,0.406``."""

    name = "numbers"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return "X[,X,X]"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:
        if isinstance(value, tuple):
            return value
        try:
            numbers = tuple(_number(part) for part in str(value).split(","))
        except ValueError:
            self.fail(
                f"{value!r} is not one number, or three such as 0.485,0.456,0.406", param, ctx
            )
        if len(numbers) not in (1, 3):
            self.fail(f"{value!r} has {len(numbers)} numbers; expected 1 or 3", param, ctx)
        return numbers


class Reach(click.ParamType):  # type: ignore[type-arg]  # not subscriptable before click 8.4
    """A number of pixels, or ``whole``."""

    name = "reach"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return "PIXELS|whole"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | Literal["whole"]:
        if str(value) == "whole":
            return "whole"
        if not re.fullmatch("[0-9]{1,5}", str(value)):
            self.fail(f"{value!r} is neither a number of pixels nor whole", param, ctx)
        return int(value)


@click.command()
@click.argument("model", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="File to write, NAME.onnx.",
)
@click.option(
    "--normalize",
    type=click.Choice(["raw", "unit", "symmetric", "imagenet"]),
    help="Normalisation that the network was trained with: raw 0..255, unit 0..1, symmetric -1..1, "
    "or that of ImageNet. Needed unless MODEL takes uint8.",
)
@click.option(
    "--scale",
    type=Numbers(),
    help="Instead of --normalize: factor of the grey values 0..255, before --mean and --std. "
    "Default: 1/255.",
)
@click.option("--mean", type=Numbers(), help="Mean that is subtracted. Default: 0.")
@click.option("--std", type=Numbers(), help="Standard deviation to divide by. Default: 1.")
@click.option(
    "--activation",
    type=click.Choice(["sigmoid", "softmax", "probability"]),
    help="What turns the output into a probability; probability: it is one. Default: what the "
    "graph or its values show.",
)
@click.option(
    "--defect",
    type=NumberList("output channels", least=0),
    help="Output channels that are defects, from 0. Default: all but 0, the background, where "
    "they exclude each other.",
)
@click.option("--layout", type=click.Choice(["NCHW", "NHWC"]), help="Axes of the input.")
@click.option("--output-name", help="Output to adopt, of several.")
@click.option(
    "--size",
    type=ImageSize(),
    help="Size of the images, if MODEL leaves it free. Default: 512.",
)
@click.option(
    "--reach",
    type=Reach(),
    help="How far a score depends on the image, in pixels; whole: on all of it. Default: measured.",
)
@click.option(
    "--images",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Also compare on up to ten of these images, a data set or a folder; fp16 and int8 on all.",
)
@click.option(
    "--precision",
    "precisions",
    type=PrecisionList(),
    default="fp32",
    show_default=True,
    help="Also write NAME.fp16.onnx and NAME.int8.onnx, if they keep the limits of parity.",
)
@click.option(
    "--calibrate",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="int8: data set, whose training images calibrate, or folder of images.",
)
@operating_options
@bits_option
@format_option
@debug_option
def adopt(
    model: Path,
    output: Path,
    normalize: str | None,
    scale: tuple[float, ...] | None,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    activation: Activation | None,
    defect: tuple[int, ...] | None,
    layout: Layout | None,
    output_name: str | None,
    size: tuple[int, int] | None,
    reach: int | Literal["whole"] | None,
    images: Path | None,
    precisions: list[Precision],
    calibrate: Path | None,
    threshold: float | None,
    min_area: int | None,
    bits: int | None,
    style: str,
) -> None:
    """Wrap the network MODEL so that every verb takes it.

    MODEL is the ONNX file of a segmentation network of any origin. The new file takes grey images
    of 0..255 and gives scores of 0..255, with normalisation, activation and the choice of the
    defect classes inside. It is compared with MODEL, whose normalisation and
    activation are computed a second time in numpy: exit code 6, and nothing is written, if a score
    differs by more than 1 of 255.

    fp16 and int8 files are made from the new file and compared with it, as parity does. One that
    breaks a limit is not written, and the exit code is 6; the float32 file is kept.
    """
    import json

    if ("int8" in precisions) != (calibrate is not None):
        raise click.UsageError("--precision int8 and --calibrate go together")
    from tinyunet_deploy.backends.install_hint import install_hint
    from tinyunet_deploy.errors import RuntimeUnavailable
    from tinyunet_deploy.files import json_value

    try:
        from tinyunet_deploy.quality.adoption import AdoptionOptions
        from tinyunet_deploy.quality.adoption import adopt as adopt_network
        from tinyunet_deploy.quality.adoption_precisions import convert_precisions
    except ModuleNotFoundError as error:
        name = error.name or "onnx"
        extra = "cpu" if name == "onnxruntime" else "adopt"
        raise RuntimeUnavailable(name, "is not installed", install_hint(name, extra)) from error
    options = AdoptionOptions(
        normalization=_normalization(normalize, scale, mean, std),
        layout=layout,
        output_name=output_name,
        activation=activation,
        defect=defect,
        size=size,
        reach=reach,
    )
    with Progress("adopting", unit="networks") as progress:
        adoption = adopt_network(
            model,
            output,
            options,
            images=images,
            threshold=threshold,
            min_area=min_area,
            bits=bits,
            report=progress.describe,
        )
        converted, refused = convert_precisions(
            output,
            precisions,
            calibrate=calibrate,
            images=images,
            bits=bits,
            report=progress.describe,
        )
    if style == "json":
        rows = [row._asdict() for row in adoption.rows]
        fields = json.loads(adoption.sidecar.as_json())["adoption"]
        files = [
            {"path": str(file.path), "precision": file.precision, "figures": file.figures}
            for file in converted
        ]
        document = {
            "schema_version": 1,
            "path": str(output),
            "rows": rows,
            "adoption": fields,
            "converted": json_value(files),
        }
        click.echo(json.dumps(document, indent=2))
        if refused:
            raise refused[0]
        return
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1))
    for column in ("", "found", "wanted", "done"):
        table.add_column(column, overflow="fold")
    for row in adoption.rows:
        table.add_row(*map(escape, row))
    Console().print(table)
    click.echo(output)
    for file in converted:
        click.echo(file.path)
        click.echo(f"{file.path.name}: {file}", err=True)
    for other in refused[1:]:
        click.echo(f"error: {other}", err=True)
    if refused:
        raise refused[0]
    click.echo(f"next: tinyunet-infer IMAGES -m {click.format_filename(output)} -o OUT", err=True)


def _normalization(
    name: str | None,
    scale: tuple[float, ...] | None,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
) -> Normalization | None:
    """Return what the options say; None if they say nothing."""
    from tinyunet_deploy.artifacts.adoption.form import NORMALIZATIONS, Normalization

    if name is not None:
        if (scale, mean, std) != (None, None, None):
            raise click.UsageError("--normalize and --scale, --mean, --std exclude each other")
        return NORMALIZATIONS[name]
    if (scale, mean, std) == (None, None, None):
        return None
    (factor,) = scale if scale is not None and len(scale) == 1 else (1 / 255,)
    if scale is not None and (len(scale) != 1 or factor <= 0):
        raise click.UsageError("--scale must be one number above 0")
    if std is not None and min(std) <= 0:
        raise click.UsageError("--std must be above 0")
    return Normalization.scaled(factor, mean or (0.0,), std or (1.0,))


def _number(text: str) -> float:
    """Return a number, which may be a fraction such as 1/255."""
    match = re.fullmatch(r"\s*(-?[0-9.]+(?:e-?[0-9]+)?)(?:/([0-9.]+))?\s*", text)
    if match is None:
        raise ValueError(text)
    return float(match[1]) / float(match[2] or 1)
