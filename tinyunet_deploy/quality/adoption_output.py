"""Decide how the values of a network become the probability of a defect.

What the values or the graph show is used. Where they leave it open, the user must say it: a wrong
guess would give plausible scores that mean nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from tinyunet_deploy.artifacts.facts import Activation

__all__ = ["Decided", "decide_output"]

_TOLERANCE: Final = 1e-3
"""Distance from 0, 1, or a sum of 1 that still counts as rounding of a float16 network."""


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
    last: Literal["sigmoid", "softmax"] | None,
    activation: Activation | None,
    defect: tuple[int, ...] | None,
) -> Decided:
    """Decide on activation and classes.

    Args:
        values: outputs for several images, [N, C, H, W] each.
        last: the activation that the graph ends in, if one was seen.
        activation: the user's choice.
        defect: output channels that the user calls defects.

    Raises:
        ValueError: the user's choice contradicts the values; the message is for the user.
    """
    channels = values[0].shape[1]
    if defect is not None and max(defect) >= channels:
        raise ValueError(
            f"has {channels} output channels, 0 to {channels - 1}; --defect {max(defect)} is none"
        )
    if values[0].dtype == np.uint8:
        return _decide_bytes(values, activation)
    low = min(float(v.min()) for v in values)
    high = max(float(v.max()) for v in values)
    spread = f"its values are {low:.4g} to {high:.4g} on {len(values)} images"
    inside = low >= -_TOLERANCE and high <= 1.0 + _TOLERANCE
    exclusive = channels > 1 and all(
        bool((np.abs(v.astype(np.float64).sum(axis=1) - 1.0) <= _TOLERANCE * channels).all())
        for v in values
    )
    if activation is not None:
        _check_choice(activation, last, inside, channels, spread)
        reason = f"--activation {activation}; {spread}"
    elif inside and (last is not None or exclusive):
        activation = "probability"
        reason = f"the graph ends in {last}" if last else f"{spread}, and they sum to 1"
    elif channels == 1 and low < -_TOLERANCE:
        activation, reason = "sigmoid", f"{spread}: logits"
    else:
        choices = "sigmoid or probability" if channels == 1 else "softmax, sigmoid or probability"
        option = f"--activation {choices.replace(', ', '|').replace(' or ', '|')}"
        return Decided(missing={option: f"how its values become probabilities ({spread})"})
    combine: Literal["sum", "largest"] = (
        "sum"
        if activation == "softmax" or (activation == "probability" and exclusive)
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


def _decide_bytes(values: Sequence[NDArray[Any]], activation: Activation | None) -> Decided:
    channels = values[0].shape[1]
    if channels != 1:
        raise ValueError(f"gives uint8 with {channels} channels; expected one score per pixel")
    if activation is not None:
        raise ValueError("gives uint8, which is the score itself: leave --activation out")
    if max(int(v.max()) for v in values) == 1:
        raise ValueError(
            "gives no value above 1 of 255: labels 0 and 1 instead of probability x 255; export "
            "the network without its comparison or ArgMax"
        )
    return Decided("bytes", (0,), "largest", "uint8, the score itself")


def _check_choice(
    activation: Activation,
    last: Literal["sigmoid", "softmax"] | None,
    inside: bool,
    channels: int,
    spread: str,
) -> None:
    """Raise ValueError if the values cannot be what the user says."""
    if activation == "bytes":
        raise ValueError(f"gives floats, not bytes: {spread}")
    if activation == "probability" and not inside:
        raise ValueError(f"does not give probabilities: {spread}; pass --activation sigmoid")
    if activation != "probability" and last is not None and inside:
        raise ValueError(
            f"already ends in {last}: leave --activation out, or pass --activation probability"
        )
    if activation == "softmax" and channels == 1:
        raise ValueError("has one output channel, whose softmax is always 1: --activation sigmoid")
