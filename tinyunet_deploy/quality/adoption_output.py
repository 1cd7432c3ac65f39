"""Decide how the values of a network become the probability of a defect.

What the values or the graph show is used. Where they leave it open, the user must say it: a wrong
guess would give plausible scores that mean nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from tinyunet_deploy.artifacts.adoption.form import LastActivation
from tinyunet_deploy.artifacts.facts import Activation

__all__ = ["Decided", "decide_output"]

_TOLERANCE: Final = 1e-3
"""Distance from 0, 1, or a sum of 1 that still counts as rounding of a float16 network."""
_MOST_LABELS: Final = 20
"""Largest uint8 value that is taken for a label: few networks tell more classes apart."""
_PERCENT: Final = 100
_LARGEST_LOGIT: Final = 20.0
"""Largest logit of a network that gives none below 0; its probability is 1 - 2e-9."""
_WRONG_AXES: Final = {
    (3,): "each row", (2,): "each column", (2, 3): "each class", (1, 2, 3): "the whole image",
}  # fmt: skip
"""Axes of [N, C, H, W] over which no softmax gives the probability of a pixel -> their name."""


@dataclass(frozen=True)
class Decided:
    """The decision, or what is missing for it."""

    activation: Activation = "probability"
    defect: tuple[int, ...] = (0,)
    combine: Literal["sum", "largest"] = "largest"
    reason: str = ""
    """Where the activation is known from."""
    missing: dict[str, str] = field(default_factory=dict)
    """Option to pass -> why it is needed; empty if everything is decided."""


def decide_output(
    values: Sequence[NDArray[Any]],
    last: LastActivation | None,
    activation: Activation | None,
    defect: tuple[int, ...] | None,
) -> Decided:
    """Decide on activation and classes.

    Args:
        values: outputs for several images, [N, C, H, W] each.
        last: kind of operator that the graph ends in, if one was seen.
        activation: the user's choice.
        defect: output channels that the user calls defects.

    Raises:
        ValueError: the values are labels or percent, or of another kind that no activation turns
            into a probability, or the user's choice contradicts them; the message is for the user.
    """
    channels = values[0].shape[1]
    if defect is not None and max(defect) >= channels:
        raise ValueError(
            f"has {channels} output channels, 0 to {channels - 1}; --defect {max(defect)} is none"
        )
    if values[0].dtype == np.uint8:
        return _decide_bytes(values, last, activation)
    floats = _Floats(values)
    _check_kind(floats, last)
    ends_in_one = last in ("sigmoid", "softmax")
    if activation is not None:
        _check_choice(activation, last, floats)
        reason = f"--activation {activation}; {floats}"
        if activation == "sigmoid" and floats.low >= 0:
            reason += ": no score is below 128 of 255"
    elif floats.inside and (ends_in_one or floats.exclusive):
        activation = "probability"
        reason = f"the graph ends in {last}" if ends_in_one else f"{floats}, and they sum to 1"
    elif floats.exclusive:
        activation, reason = "softmax", f"{floats}: logarithms of probabilities that sum to 1"
    elif channels == 1 and floats.scaled:
        raise ValueError(_another_scale(floats))
    elif channels == 1 and floats.low < -_TOLERANCE and not floats.negative:
        activation, reason = "sigmoid", f"{floats}: logits"
    else:
        choices = "sigmoid or probability" if channels == 1 else "softmax, sigmoid or probability"
        option = f"--activation {choices.replace(', ', '|').replace(' or ', '|')}"
        doubt = ", none above 0: logits, or logarithms of probabilities" * floats.negative
        return Decided(missing={option: f"how its values become probabilities ({floats}{doubt})"})
    combine: Literal["sum", "largest"] = (
        "sum"
        if activation == "softmax" or (activation == "probability" and floats.exclusive)
        else "largest"
    )
    if defect is None and channels > 1 and combine == "largest":
        return Decided(
            missing={"--defect 1,2": f"which of its {channels} channels, from 0, are defects"}
        )
    if defect is None:
        defect = tuple(range(1, channels)) if channels > 1 else (0,)
    if combine == "sum" and len(defect) == channels:
        raise ValueError(f"has {channels} classes that sum to 1: not all of them can be --defect")
    return Decided(activation, defect, combine, reason)


def _decide_bytes(
    values: Sequence[NDArray[Any]], last: LastActivation | None, activation: Activation | None
) -> Decided:
    channels = values[0].shape[1]
    if channels != 1:
        raise ValueError(f"gives uint8 with {channels} channels; expected one score per pixel")
    if activation is not None:
        raise ValueError("gives uint8, which is the score itself: leave --activation out")
    highest = max(int(v.max()) for v in values)
    found = f"gives no value above {highest} of 255 on {len(values)} images"
    if last == "labels" or highest <= _MOST_LABELS:
        what = f"labels 0 to {highest} instead of probability x 255"
        how = "export the network without its ArgMax or comparison"
    elif highest <= _PERCENT:
        what, how = "percent instead of probability x 255", "export the network with x 255 inside"
    else:
        masks = all(bool(np.isin(v, (0, 255)).all()) for v in values)
        only = "; only 0 and 255 occur: masks, which no threshold changes" if masks else ""
        return Decided("bytes", (0,), "largest", f"uint8, the score itself{only}")
    if last == "labels":
        raise ValueError(f"gives {what}: {how}")
    raise ValueError(
        f"{found}: {what}? {how}; if they are scores, --images FOLDER with defects shows higher "
        "ones"
    )


@dataclass(frozen=True)
class _Floats:
    """The values of a network that gives floats."""

    images: Sequence[NDArray[Any]]
    """Values for each image, [N, C, H, W]."""

    def __str__(self) -> str:
        return f"its values are {self.low:.4g} to {self.high:.4g} on {len(self.images)} images"

    @functools.cached_property
    def low(self) -> float:
        return min(float(v.min()) for v in self.images)

    @functools.cached_property
    def high(self) -> float:
        return max(float(v.max()) for v in self.images)

    @property
    def inside(self) -> bool:
        """True if all are 0..1."""
        return self.low >= -_TOLERANCE and self.high <= 1.0 + _TOLERANCE

    @property
    def negative(self) -> bool:
        """True if some are below 0, and none is above."""
        return self.high <= _TOLERANCE < -self.low

    @property
    def scaled(self) -> bool:
        """True if some are too large for a logit, and none is below 0."""
        return self.low >= -_TOLERANCE and self.high > _LARGEST_LOGIT

    @functools.cached_property
    def exclusive(self) -> bool:
        """True if the probabilities of all classes sum to 1."""
        return self.images[0].shape[1] > 1 and self.sum_to_one((1,))

    @property
    def whole(self) -> bool:
        """True if all are whole numbers, none below 0, as labels are."""
        return self.low >= 0 and all(bool((v == np.rint(v)).all()) for v in self.images)

    def sum_to_one(self, axes: tuple[int, ...]) -> bool:
        """Return whether the values, or the powers of e if none is above 0, sum to 1 over axes."""
        tolerance = _TOLERANCE * (self.images[0].shape[1] if axes == (1,) else 1)
        for v in self.images:
            values = v.astype(np.float64)
            sums = (np.exp(values) if self.negative else values).sum(axis=axes)
            if (np.abs(sums - 1.0) > tolerance).any():
                return False
        return True


def _check_kind(floats: _Floats, last: LastActivation | None) -> None:
    """Raise ValueError if no activation turns values of this kind into probabilities."""
    if last == "labels" or floats.whole:
        raise ValueError(
            f"gives whole numbers, as labels are, instead of probabilities: {floats}; export the "
            "network without its ArgMax, comparison or rounding"
        )
    for axes, where in _WRONG_AXES.items():
        if floats.sum_to_one(axes):
            raise ValueError(
                f"has a softmax over the wrong axis: its values sum to 1 over {where}; export the "
                "network with its softmax over the classes"
            )
    logarithms = last == "log" and not floats.exclusive
    negated = last == "negation" and floats.low >= -1.0 - _TOLERANCE
    if floats.negative and (logarithms or negated):
        raise ValueError(
            f"ends in a {last}: {floats}, none above 0, so they are not logits; export the network "
            f"without the {last}"
        )
    if last == "tanh" and floats.low < -_TOLERANCE:
        raise ValueError(
            f"ends in a tanh: {floats}, which are neither logits nor probabilities; export the "
            "network with (tanh + 1) / 2, or without the tanh if it was trained on logits"
        )


def _check_choice(activation: Activation, last: LastActivation | None, floats: _Floats) -> None:
    """Raise ValueError if the values cannot be what the user says."""
    channels = floats.images[0].shape[1]
    if activation == "bytes":
        raise ValueError(f"gives floats, not bytes: {floats}")
    if activation == "softmax" and channels == 1:
        raise ValueError("has one output channel, whose softmax is always 1: --activation sigmoid")
    if floats.inside and activation != "probability" and last in ("sigmoid", "softmax"):
        raise ValueError(
            f"already ends in {last}: leave --activation out, or pass --activation probability"
        )
    if activation == "probability" and not floats.inside:
        if floats.scaled:
            raise ValueError(_another_scale(floats))
        several = "softmax" if floats.exclusive else "softmax or sigmoid"
        fitting = "sigmoid" if channels == 1 else several
        raise ValueError(f"does not give probabilities: {floats}; pass --activation {fitting}")
    if activation == "sigmoid" and floats.negative and floats.exclusive:
        raise ValueError(
            f"gives logarithms of probabilities that sum to 1: {floats}; pass --activation softmax"
        )
    if activation == "sigmoid" and floats.scaled:
        raise ValueError(_another_scale(floats))


def _another_scale(floats: _Floats) -> str:
    return (
        f"gives neither probabilities nor logits: {floats}; percent, or another scale? export the "
        f"network with the division inside, so that they are 0 to 1; if they are logits, --images "
        "FOLDER with good parts shows some below 0"
    )
