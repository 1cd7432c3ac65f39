"""Read a recipe, the TOML file that describes a training run."""

from __future__ import annotations

import dataclasses
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tinyunet_deploy.artifacts.architectures import NETWORKS, Architecture
from tinyunet_deploy.artifacts.sidecar import digest
from tinyunet_deploy.errors import DataError
from tinyunet_deploy.files import read_regular

__all__ = [
    "RECIPES",
    "AdamW",
    "Augment",
    "Data",
    "OneCycle",
    "RMSProp",
    "Recipe",
    "Staircase",
    "read_recipe",
    "recipe_of",
]  # fmt: skip

RECIPES = Path(__file__).parent / "recipes"
_MAX_BYTES = 1024 * 1024
_MAX_WHOLE = 2**31 - 1
"""Largest whole number in a recipe."""


@dataclass(frozen=True)
class Data:
    """Choice of the images and crops of a training step."""

    defect_free: float = 0.0
    """Share of defect-free images among those drawn; the reference draws none. A folder that has
    none trains with its defective images alone."""
    crop: int = 512
    """Side of the square crop, pixels; a multiple of the network's size multiple. 512 takes
    DAGM2007 images whole."""
    crop_on_defect: float = 0.0
    """Share of the crops of a defective image that are placed on a defect pixel."""
    defect_margin: int = 0
    """Smallest distance of that pixel from the crop's edges, pixels: few defects are cut then."""
    validation: float = 0.0
    """Share of the images that are held out of training, to choose threshold and min_area."""


@dataclass(frozen=True)
class Augment:
    """Random changes of a crop and its mask: probabilities, angles and ranges."""

    flip_horizontal: float = 0.5
    flip_vertical: float = 0.0
    rotations: tuple[int, ...] = (0, 90, 180)
    """Angles to draw from, degrees counter-clockwise."""
    warped: float = 0.0
    """Share of the crops that are also scaled and rotated freely, which keeps a network from
    learning a few images by heart. The others stay as sharp as the camera's."""
    scale: float = 0.0
    """Range of that scale: a factor between 1 / (1 + scale) and 1 + scale."""
    angle: float = 0.0
    """Largest angle of that rotation in either direction, degrees."""
    contrast: float = 0.0
    """Range of the contrast: grey values are scaled around 127.5 by a factor from
    [1 - contrast, 1 + contrast]."""
    brightness: float = 0.0
    """Largest shift of the grey values in either direction, steps of 255."""
    mixed: float = 0.0
    """Share of the crops that are blended with another one in a random proportion. Only a teacher
    of crops can say what is a defect in them."""


@dataclass(frozen=True)
class RMSProp:
    """TensorFlow's centered RMSProp."""

    name: Literal["rmsprop"] = "rmsprop"
    decay: float = 0.9
    momentum: float = 0.8
    epsilon: float = 1e-10
    """Constant that is added inside the square root."""
    l2: float = 1e-5
    """Weight of sum(w^2) / 2 over all variables in the loss."""


@dataclass(frozen=True)
class AdamW:
    """AdamW of torch (Loshchilov & Hutter 2019)."""

    name: Literal["adamw"] = "adamw"
    beta1: float = 0.9
    beta2: float = 0.999
    weight_decay: float = 0.01


@dataclass(frozen=True)
class Staircase:
    """Rate that falls in steps: rate * factor^floor(step / every)."""

    name: Literal["staircase"] = "staircase"
    rate: float = 1e-4
    factor: float = 0.8
    every: int = 500


@dataclass(frozen=True)
class OneCycle:
    """Cosine from rate / 25 up to rate, then cosine down to rate / 10,000 (Smith & Topin 2019)."""

    name: Literal["one-cycle"] = "one-cycle"
    rate: float = 1e-3
    rise: float = 0.25
    """Share of the steps spent on the way up."""


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a training run, except its data."""

    steps: int = 2500
    batch: int = 16
    """Images per optimizer step, over all processes."""
    seed: int = 0
    variant: str = "tiny"
    loss: Literal["adaptive", "adaptive-as-published", "bce", "dice", "every-image"] = "adaptive"
    """adaptive: BCE until the Dice loss is below 0.3, then Dice; decided at every step.
    adaptive-as-published: Dice until it is below 0.3, then BCE.
    every-image: Dice, plus the mean Dice of the defective images, plus BCE."""
    validate_every: int = 0
    """Steps between two validations. The step with the highest iou_defective minus the cost of
    wrong verdicts (:attr:`training.validation.OperatingPoint.merit`), of equal ones the latest,
    becomes the checkpoint. 0 takes the last step."""
    patience: int = 0
    """Number of validations in a row without a better one after which the run ends early. 0 never
    ends it early. A one-cycle schedule does its best near its end, so give it many."""
    start: Literal["random", "package"] = "random"
    """Weights of the first step: random ones, or those of the package's model with this network.
    ``--init`` and ``--from-scratch`` on the command line come first."""
    int8: float = 0.0
    """Share of the steps in which the input of every convolution is rounded to int8."""
    teacher: float = 0.0
    """Share of the loss that compares with the scores of a teacher (``--teacher``), 0..1; the
    labels have the rest. Images without a label have the teacher's loss alone. 0 takes no
    teacher."""
    teacher_of: Literal["images", "crops"] = "images"
    """images: the teacher scores every image once, before the first step, so that a step costs
    hardly more than without one.
    crops: it scores every crop as the network sees it, in every step."""
    batch_norm: bool = False
    """True to normalise the outputs of the convolutions over each batch, which lets a network learn
    in fewer steps; the checkpoint has the plain network. One process only."""
    network: Architecture | None = None
    """Widths of a network of its own, whose name is ``variant``; None takes the one that
    :data:`~tinyunet_deploy.artifacts.architectures.NETWORKS` has under that name."""
    data: Data = field(default_factory=Data)
    augment: Augment = field(default_factory=Augment)
    optimizer: RMSProp | AdamW = field(default_factory=RMSProp)
    schedule: Staircase | OneCycle = field(default_factory=Staircase)

    @property
    def architecture(self) -> Architecture:
        """Widths of the network."""
        return self.network or NETWORKS[self.variant]

    def digest(self) -> str:
        """Return the sha256 of the recipe's values: no run is resumed with another recipe."""
        return digest(repr(self).encode())

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return dataclasses.asdict(self)


def read_recipe(
    name: str, *, data: Mapping[str, object] | None = None, **changes: object
) -> Recipe:
    """Read a recipe: a TOML file, or the name of one in training/recipes such as ``reference``.

    Without a validation share, a change to ``data`` also ends ``validate_every`` and ``patience``.
    Another crop scales ``defect_margin``.

    Args:
        data: values that replace those of the file's [data]; None leaves the file's.
        changes: top-level values that replace the file's; None leaves the file's.

    Raises:
        DataError: the file is missing or not TOML, a key is unknown, or a value is out of range.
    """
    path = Path(name)
    if path.suffix != ".toml":
        path = RECIPES / f"{name}.toml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in RECIPES.glob("*.toml")))
        raise DataError(name, "is not a recipe", f"give a .toml file or one of: {known}")
    try:
        values = tomllib.loads(read_regular(path, limit=_MAX_BYTES).decode("utf-8"))
        recipe: Recipe = _build(Recipe, values, "")
        given = {key: value for key, value in changes.items() if value is not None}
        given_data = {key: value for key, value in (data or {}).items() if value is not None}
        if given or given_data:
            recipe = recipe_of(_changed(recipe, given, given_data))
    except OSError as error:
        raise DataError(path, f"cannot be read: {error.strerror}") from error
    except (ValueError, OverflowError, RecursionError) as error:
        raise DataError(path, f"is not a valid recipe: {error}") from error
    return recipe


def recipe_of(values: dict[str, Any]) -> Recipe:
    """Return the recipe of plain values, the inverse of :meth:`Recipe.as_dict`.

    Raises:
        ValueError: a key is unknown, or a value is out of range.
    """
    recipe: Recipe = _build(Recipe, values, "")
    return recipe


def _changed(recipe: Recipe, given: dict[str, Any], given_data: dict[str, Any]) -> dict[str, Any]:
    """Return the plain values of a recipe with those of the command line."""
    values = recipe.as_dict() | given
    before, values["data"] = recipe.data, values["data"] | given_data
    if "crop" in given_data:
        values["data"]["defect_margin"] = (
            before.defect_margin * values["data"]["crop"] // before.crop
        )
    if given_data.get("validation") == 0.0:
        values["validate_every"] = values["patience"] = 0
    return values


def _build(kind: type[Any], values: dict[str, Any], prefix: str) -> Any:
    hints = typing.get_type_hints(kind)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise ValueError(f"unknown key {prefix}{unknown[0]}; known: {', '.join(hints)}")
    fields = {key: _value(hints[key], value, prefix + key) for key, value in values.items()}
    missing = [f.name for f in dataclasses.fields(kind) if _is_required(f) and f.name not in fields]
    if missing:
        raise ValueError(f"{prefix}{missing[0]} is missing")
    built = kind(**fields)
    _check(built, prefix)
    return built


def _is_required(field: dataclasses.Field[Any]) -> bool:
    nothing = dataclasses.MISSING
    return field.default is nothing and field.default_factory is nothing


def _value(hint: Any, value: Any, key: str) -> Any:
    origin = typing.get_origin(hint)
    if origin is Literal:
        if value not in typing.get_args(hint):
            raise ValueError(f"{key} is {value!r}; known: {', '.join(typing.get_args(hint))}")
        return value
    if origin is types.UnionType or dataclasses.is_dataclass(hint):
        if value is None and types.NoneType in typing.get_args(hint):
            return None
        if not isinstance(value, dict):
            raise ValueError(f"{key} must be a table")
        choices = tuple(c for c in typing.get_args(hint) if c is not types.NoneType) or (hint,)
        if len(choices) > 1:
            by_name = {choice.name: choice for choice in choices}
            if not isinstance(value.get("name"), str) or value["name"] not in by_name:
                raise ValueError(f"{key}.name must be one of {', '.join(by_name)}")
            choices = (by_name[value["name"]],)
        return _build(choices[0], value, key + ".")
    if origin is tuple:
        if not isinstance(value, list | tuple) or not all(type(v) is int for v in value):
            raise ValueError(f"{key} must be a list of whole numbers")
        return tuple(value)
    if hint is float and type(value) is int:
        value = float(value)
    if type(value) is not hint:
        raise ValueError(f"{key} must be a {hint.__name__}, not {value!r}")
    return value


_SHARES = {
    "defect_free", "crop_on_defect", "validation", "flip_horizontal", "flip_vertical", "warped",
    "mixed", "scale", "contrast", "decay", "int8", "momentum", "factor", "rise", "beta1", "beta2",
    "teacher",
}  # fmt: skip


def _check(part: Any, prefix: str) -> None:
    for key, value in vars(part).items():
        if key in _SHARES and not 0.0 <= value <= 1.0:
            raise ValueError(f"{prefix}{key} is {value}, outside 0..1")
        if type(value) in (int, float) and not 0 <= value < float("inf"):
            raise ValueError(f"{prefix}{key} is {value}, not a number of at least 0")
        if type(value) is int and value > _MAX_WHOLE:
            raise ValueError(f"{prefix}{key} is above {_MAX_WHOLE}")
        if key in ("steps", "batch", "every", "crop") and value < 1:
            raise ValueError(f"{prefix}{key} must be at least 1")
    if isinstance(part, Data) and 2 * part.defect_margin >= part.crop:
        raise ValueError(
            f"{prefix}defect_margin is {part.defect_margin}, not less than half a crop"
        )
    if isinstance(part, Data) and max(part.validation, part.defect_free) == 1.0:
        raise ValueError(f"{prefix}validation and defect_free must leave something to train on")
    if isinstance(part, Augment) and set(part.rotations) - {0, 90, 180, 270}:
        raise ValueError(f"{prefix}rotations are {part.rotations}, not of 0, 90, 180, 270")
    if isinstance(part, Augment) and not part.rotations:
        raise ValueError(f"{prefix}rotations must contain at least one angle; 0 means no rotation")
    if isinstance(part, Augment) and part.angle > 180.0:
        raise ValueError(f"{prefix}angle is {part.angle}, outside 0..180")
    if isinstance(part, Augment) and bool(part.warped) != bool(part.scale or part.angle):
        raise ValueError(f"{prefix}warped is a share of crops, so it needs scale or angle")
    if isinstance(part, Recipe) and part.validate_every and not part.data.validation:
        raise ValueError(f"{prefix}validate_every needs a [data] validation share")
    if isinstance(part, Recipe) and part.teacher_of == "crops" and not part.teacher:
        raise ValueError(f'{prefix}teacher_of = "crops" needs a share for a teacher')
    if isinstance(part, Recipe) and part.augment.mixed and part.teacher_of != "crops":
        raise ValueError(f'{prefix}augment.mixed needs teacher_of = "crops"')
    if isinstance(part, Recipe) and part.patience and not part.validate_every:
        raise ValueError(f"{prefix}patience counts validations, so it needs validate_every")
    if isinstance(part, Recipe):
        if part.network is None and part.variant not in NETWORKS:
            raise ValueError(f"variant is {part.variant!r}; known: {', '.join(NETWORKS)}")
        if part.network is not None and part.variant in NETWORKS:
            raise ValueError(
                f"variant is {part.variant!r}, a known network, so [network] needs another name; "
                "give variant one"
            )
        multiple = part.architecture.size_multiple
        if part.data.crop % multiple:
            raise ValueError(f"data.crop is {part.data.crop}, not a multiple of {multiple}")
