"""Options and option types that several verbs share."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from tinyunet_deploy.backends.compute_choice import computing
from tinyunet_deploy.backends.table import COMPUTES, Compute

if TYPE_CHECKING:
    from tinyunet_deploy.artifacts.precision import Precision


class ImageSize(click.ParamType):  # type: ignore[type-arg]  # not subscriptable before click 8.4
    """Height and width, such as ``384x640``, or one number for both; becomes a pair of pixels."""

    name = "size"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return "HEIGHTxWIDTH"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        """Parse a size; the network, once loaded, checks whether it takes the size."""
        match = re.fullmatch("([0-9]{1,5})(?:x([0-9]{1,5}))?", str(value))
        if match is None:
            self.fail(f"{value!r} is not a size such as 256 or 384x640", param, ctx)
        height, width = int(match[1]), int(match[2] or match[1])
        return height, width


class Threshold(click.FloatRange):
    """Probability above which a pixel is a defect; one that no score exceeds is refused."""

    def __init__(self) -> None:
        super().__init__(0.0, 1.0)

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Parse a probability."""
        from tinyunet_deploy.contract import HIGHEST_SCORE, score_threshold

        threshold = float(super().convert(value, param, ctx))
        if score_threshold(threshold) >= HIGHEST_SCORE:
            self.fail(
                f"{threshold:g} lets every part pass, as no score is above {HIGHEST_SCORE} of "
                f"{HIGHEST_SCORE}: 0.998 is the largest that can find a defect",
                param,
                ctx,
            )
        return threshold


class MinArea(click.IntRange):
    """Smallest defect that makes a part NG, pixels; one larger than any image is refused."""

    def __init__(self) -> None:
        super().__init__(min=1)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Parse a number of pixels."""
        from tinyunet_deploy.data.decoding import MAX_PIXELS

        area = int(super().convert(value, param, ctx))
        if area > MAX_PIXELS:
            self.fail(
                f"{area} lets every part pass, as an image has at most {MAX_PIXELS} pixels",
                param,
                ctx,
            )
        return area


class ModelPath(click.Path):
    """File of a model, or the name of one in the package, such as ``slim``, which becomes its file.

    Args:
        checkpoint: True takes the checkpoint of a model that is named.
        more: arguments of ``click.Path``.
    """

    def __init__(self, *, checkpoint: bool = False, **more: Any) -> None:
        super().__init__(path_type=Path, **more)
        self._checkpoint = checkpoint

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from tinyunet_deploy.artifacts.packaged import checkpoint_of, named_model

        model = named_model(value)
        if self._checkpoint and model != Path(value):
            model = checkpoint_of(model) or model
        return super().convert(model, param, ctx)


class BackendName(click.ParamType):  # type: ignore[type-arg]  # not subscriptable before click 8.4
    """Name of a backend in the table, or of one that another package provides.

    The names are looked up only when an option is read: finding the backends of other packages
    means reading the metadata of every installed package.
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
    """List of numbers such as ``1,3-5``, which becomes ``(1, 3, 4, 5)``: sorted, unique,
    up to 9999.

    Args:
        name: what the numbers stand for, such as ``classes``; used in messages.
        least: smallest number.
    """

    def __init__(self, name: str, least: int = 1) -> None:
        self.name = name
        self._least = least

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
            first, last = (int(match[1]), int(match[2] or match[1])) if match else (-1, -1)
            if not self._least <= first <= last:
                self.fail(f"{value!r} is not a list of {self.name} such as 1,3-5", param, ctx)
            numbers.update(range(first, last + 1))
        return tuple(sorted(numbers))


class PrecisionList(click.ParamType):  # type: ignore[type-arg]  # not subscriptable before click 8.4
    """List of precisions, such as ``fp32,int8``."""

    name = "list"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> list[Precision]:
        """Parse a comma-separated list; the result is in the order in which files are made."""
        from tinyunet_deploy.artifacts.precision import PRECISIONS

        given = str(value).split(",")
        for name in given:
            if name not in PRECISIONS:
                self.fail(f"{name!r} is not one of {', '.join(PRECISIONS)}", param, ctx)
        return [name for name in PRECISIONS if name in given]


def ClassList() -> NumberList:  # noqa: N802  stands for a type
    """Return the type of a list of classes such as ``1,3-5``."""
    return NumberList("classes")


class ShardType(click.ParamType):  # type: ignore[type-arg]  # not subscriptable before click 8.4
    """Shard such as ``1/4``, the first of four."""

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
    """Return one decorator that adds several options, which ``--help`` lists in this order."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


workers_option = click.option(
    "--workers",
    type=click.IntRange(min=1),
    default=None,
    help="Threads that read and write files. Default: one per processor.",
)
classes_option = click.option("--classes", type=ClassList(), help="Use only these classes.")
bits_option = click.option(
    "--bits",
    type=click.IntRange(8, 16),
    help="Bits per pixel of the camera that took 16-bit images, such as 12. Default: the one in "
    "dataset.toml, else the model's, else the one stated in the file, else 16.",
)
search_option = click.option(
    "--search",
    "folders",
    multiple=True,
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Also look for parents of a model in this folder; can be repeated.",
)
format_option = click.option(
    "--format",
    "style",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="Format of the printed results.",
)
trust_option = click.option(
    "--trust-engine",
    is_flag=True,
    help="Load a model that has no sidecar. A TensorRT plan can run any code; an ONNX file "
    "is first tried in a separate process.",
)
debug_option = click.option(
    "--debug", is_flag=True, expose_value=False, help="Show the traceback of an error."
)


def _compute_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--compute``, which turns the backend that the command gets into one that computes in
    this number type; the command itself has no parameter for it."""

    @functools.wraps(command)
    def with_backend(*args: Any, compute: Compute | None, **options: Any) -> Any:
        if compute is not None:
            from tinyunet_deploy.artifacts.sidecar import KINDS

            if "backends" in options:
                kinds = [KINDS.get(model.suffix) for model in options["models"]] or [None]
                devices = options["devices"] or (None,)
                options["backends"] = tuple(
                    dict.fromkeys(
                        computing(name, compute, kind, device)
                        for name in options["backends"] or (None,)
                        for kind in kinds
                        for device in devices
                    )
                )
            else:
                model = options["model"]
                kind = None if model is None else KINDS.get(model.suffix)
                chosen = computing(options["backend"], compute, kind, options["device"])
                options["backend"] = chosen
        return command(*args, **options)

    return click.option(
        "--compute",
        type=click.Choice(COMPUTES),
        help="Compute a float32 file in bfloat16 or half precision: an ONNX file on a CPU that "
        "has it (OpenVINO), a checkpoint on a GPU (PyTorch). Default: the file's own precision.",
    )(with_backend)


artifact_options = _together(
    click.option(
        "-m",
        "--model",
        type=ModelPath(dir_okay=False),
        help="Model to run: a .onnx, .plan or .safetensors file, or the name of a model in the "
        "package. Default: tiny.",
    ),
    click.option(
        "--backend",
        type=BackendName(),
        help="Backend that runs the model. Default: the first installed one that can.",
    ),
    click.option(
        "--device",
        help="cpu, cuda or cuda:1. Default: cuda:0 for a TensorRT plan, else cpu.",
    ),
    _compute_option,
    trust_option,
)
"""Options that choose the artifact, its backend and its device."""

size_options = _together(
    click.option(
        "--tile/--no-tile",
        default=True,
        show_default=True,
        help="Pad images smaller than the model's by mirroring and take larger ones in overlapping "
        "tiles; --no-tile skips both.",
    ),
    click.option(
        "--max-pixels",
        type=click.IntRange(min=1),
        help="Skip images of more pixels, height x width. Default: 67108864 (64 megapixels).",
    ),
)
"""Options that say which sizes of images are taken."""

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
"""Options that choose the artifact, its backend and device, the batch size and the threads."""

comparison_options = _together(
    click.option(
        "-m",
        "--model",
        "models",
        multiple=True,
        type=ModelPath(exists=True),
        help="An artifact, a folder of artifacts, or the name of a model in the package; can be "
        "repeated. Default: tiny.",
    ),
    click.option(
        "--reference",
        type=ModelPath(exists=True, dir_okay=False),
        help="Model whose scores are taken as correct. Default: the first model's checkpoint, or "
        "its substitute if that does not run.",
    ),
    search_option,
    click.option(
        "--backend",
        "backends",
        multiple=True,
        type=BackendName(),
        help="Compare only on this backend; can be repeated. Default: every backend that runs "
        "the model and computes in its precision, except onnxruntime-tensorrt.",
    ),
    click.option(
        "--device",
        "devices",
        multiple=True,
        help="cpu, cuda or cuda:1; can be repeated. Default: cuda:0 for a TensorRT plan, else cpu.",
    ),
    _compute_option,
    click.option(
        "--limits",
        "limits_file",
        type=click.Path(path_type=Path, exists=True, dir_okay=False),
        help="TOML file of limits that replaces the package's.",
    ),
    trust_option,
)
"""Options that choose the artifacts, backends and devices to compare, the reference and limits."""

operating_options = _together(
    click.option(
        "--threshold",
        type=Threshold(),
        help="Probability above which a pixel is a defect. Default: the model's.",
    ),
    click.option(
        "--min-area",
        type=MinArea(),
        help="Smallest defect, in pixels, that makes a part NG. Default: the model's.",
    ),
)
"""Options that set what counts as a defect; the artifact's own values are the defaults."""

picture_options = _together(
    click.option("--overlays", is_flag=True, help="Write pictures with the defects outlined."),
    click.option("--scores", is_flag=True, help="Write the scores as grey PNGs."),
)
"""Options for the files that are written beside the masks."""
