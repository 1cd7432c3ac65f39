"""Table of precisions: one row has everything that the program knows about a precision.

A new precision is a new name in :data:`Precision` and a new row. Every function that treats
precisions differently matches them all, so mypy names each place that has to say what it does with
the new one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, assert_never, get_args

__all__ = ["PRECISIONS", "AnyPrecision", "Precision", "PrecisionFacts", "precision_facts"]

Precision: TypeAlias = Literal["fp32", "fp16", "int8"]
AnyPrecision: TypeAlias = Precision | Literal["unknown"]
"""``unknown`` is a file without a sidecar that the user trusts."""

PRECISIONS: Final[tuple[Precision, ...]] = get_args(Precision)


@dataclass(frozen=True)
class PrecisionFacts:
    """Properties of one precision."""

    name: Precision
    number_type: str
    """Name of the number type in runtimes, numpy and benchmarks, such as ``float32``."""
    value_bytes: int
    """Bytes of one value."""
    onnx_type: int
    """Number in onnx.proto3 of the type of a convolution's input."""
    tensorrt_types: frozenset[str]
    """Names of TensorRT's inspector for the types in which convolutions may compute."""
    quantized: bool
    """True if scales come from calibration images, so that scores differ from the network's."""
    provider_flag: str | None
    """Option that ONNX Runtime's TensorRT provider needs for this precision; None if none."""
    color: str
    """CSS variable of its colour in charts."""


def precision_facts(precision: Precision) -> PrecisionFacts:
    """Return the row of a precision."""
    match precision:
        case "fp32":
            return _FP32
        case "fp16":
            return _FP16
        case "int8":
            return _INT8
        case _:
            assert_never(precision)


_FP32: Final = PrecisionFacts(
    name="fp32",
    number_type="float32",
    value_bytes=4,
    onnx_type=1,
    tensorrt_types=frozenset({"Float"}),
    quantized=False,
    provider_flag=None,
    color="fp32",
)
_FP16: Final = PrecisionFacts(
    name="fp16",
    number_type="float16",
    value_bytes=2,
    onnx_type=10,
    tensorrt_types=frozenset({"Half"}),
    quantized=False,
    provider_flag="trt_fp16_enable",
    color="fp16",
)
_INT8: Final = PrecisionFacts(
    name="int8",
    number_type="int8",
    value_bytes=1,
    onnx_type=3,
    tensorrt_types=frozenset({"Int8"}),
    quantized=True,
    provider_flag="trt_int8_enable",
    color="int8",
)
