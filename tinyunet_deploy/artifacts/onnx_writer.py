"""Write small ONNX graphs as bytes, without the package ``onnx``.

Field numbers and type numbers are those of onnx.proto3. A file that a user keeps comes from the
exporter, which uses the package; this module is for graphs that only serve to time a runtime.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tinyunet_deploy.artifacts.protobuf_wire import written_field

__all__ = ["FLOAT", "INT8", "UINT8", "End", "node", "onnx_model", "tensor"]

FLOAT: Final = 1
UINT8: Final = 2
INT8: Final = 3
_TYPES: Final = {"float32": FLOAT, "uint8": UINT8, "int8": INT8}
"""Name of a numpy type -> number of the same type in ONNX."""
_INT_ATTRIBUTE, _INTS_ATTRIBUTE = 2, 7


class End(NamedTuple):
    """One input or output of a graph."""

    name: str
    element_type: int
    """:data:`FLOAT`, :data:`UINT8` or :data:`INT8`."""
    dims: tuple[int | str, ...]
    """Size of each dimension, or the name of a free one."""


def node(
    operator: str, inputs: Sequence[str], output: str, **attributes: int | Sequence[int]
) -> bytes:
    """Return a node (NodeProto) of ONNX's own operators with one output.

    Args:
        attributes: whole numbers, or lists of them.
    """
    parts = [written_field(1, name) for name in inputs]
    parts += [written_field(2, output), written_field(4, operator)]
    for name, value in attributes.items():
        whole = isinstance(value, int)
        numbers = [value] if isinstance(value, int) else value
        fields = [written_field(1, name)]
        fields += [written_field(3 if whole else 8, number) for number in numbers]
        fields.append(written_field(20, _INT_ATTRIBUTE if whole else _INTS_ATTRIBUTE))
        parts.append(written_field(5, b"".join(fields)))
    return b"".join(parts)


def tensor(name: str, values: NDArray[np.generic]) -> bytes:
    """Return a constant (TensorProto) of float32, uint8 or int8 values."""
    parts = [written_field(1, size) for size in values.shape]
    parts += [written_field(2, _TYPES[values.dtype.name]), written_field(8, name)]
    little = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    return b"".join([*parts, written_field(9, little.tobytes())])


def onnx_model(
    name: str,
    nodes: Sequence[bytes],
    constants: Sequence[bytes],
    inputs: Sequence[End],
    outputs: Sequence[End],
    *,
    opset: int,
    ir_version: int,
) -> bytes:
    """Return a whole ONNX file (ModelProto) with one graph.

    Args:
        nodes: from :func:`node`, each after those whose outputs it reads.
        constants: from :func:`tensor`.
    """
    graph = [written_field(1, part) for part in nodes]
    graph.append(written_field(2, name))
    graph += [written_field(5, part) for part in constants]
    graph += [written_field(11, _end(end)) for end in inputs]
    graph += [written_field(12, _end(end)) for end in outputs]
    return b"".join(
        [
            written_field(1, ir_version),
            written_field(7, b"".join(graph)),
            written_field(8, written_field(1, "") + written_field(2, opset)),
        ]
    )


def _end(end: End) -> bytes:
    """Return an input or output (ValueInfoProto)."""
    dims = [written_field(1, written_field(1 if isinstance(d, int) else 2, d)) for d in end.dims]
    tensor_type = written_field(1, end.element_type) + written_field(2, b"".join(dims))
    return written_field(1, end.name) + written_field(2, written_field(1, tensor_type))
