"""Numbers and names as the report writes them."""

from __future__ import annotations

import math
from typing import Any

__all__ = ["data_name", "in_ms", "limit_in_words", "number", "share", "stem"]


def limit_in_words(limit: str) -> str:
    """Write ``<= 0.005`` as "at most 0.005 wanted"."""
    side, _, value = limit.partition(" ")
    return f"at {'most' if side == '<=' else 'least'} {value} wanted"


def in_ms(value: float) -> str:
    """Write milliseconds with three significant digits, whole from 100 up."""
    return f"{value:.3g} ms" if value < 100 else f"{value:.0f} ms"


def number(value: float | None) -> str:
    """Write a figure of a table, with fewer decimals the larger it is; a dash for None and NaN."""
    if value is None or math.isnan(value):
        return "-"
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 1000 else f"{value:,.0f}"


def share(value: float | None) -> str:
    """Write a share of 1 with three decimals; a dash for None."""
    return "-" if value is None else f"{value:.3f}"


def stem(model: str) -> str:
    """Return a model's file name without ``.onnx`` or ``.safetensors``."""
    return model.removesuffix(".onnx").removesuffix(".safetensors")


def data_name(evaluation: dict[str, Any]) -> str:
    """Name the images of an evaluation: ``dagm2007 (class 1, test, 40 images)``."""
    data = evaluation["dataset"]
    classes = data["classes"]
    which = f"class {classes[0]}, " if len(classes) == 1 else f"{len(classes)} classes, "
    return (
        f"{data['name']} ({which if classes else ''}{data['split']}, {evaluation['images']} images)"
    )
