"""Checks of an ONNX file by its protobuf fields, before a runtime parses it.

The check needs no ONNX package, follows no reference and executes nothing. Its work is bounded: it
counts the fields of all messages, and reads values in pieces. A field that may occur only once but
is repeated is merged as protobuf's parsers do ("Encoding": the last scalar wins, messages are
concatenated), so that the check sees the same file as the runtime. Field numbers are
those of onnx.proto3.
"""

from __future__ import annotations

import shlex
import struct
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tinyunet_deploy.artifacts.protobuf_wire import Reader, Value, as_varint, joined, varint_bits
from tinyunet_deploy.contract import INPUT_NAME, OUTPUT_NAME, Contract
from tinyunet_deploy.data.decoding import MAX_PIXELS
from tinyunet_deploy.errors import ArtifactError

__all__ = [
    "CONTRACT_ENDS",
    "GraphEnd",
    "GraphEnds",
    "adopt_command",
    "check_onnx_file",
    "check_onnx_graph",
    "keeps_contract",
]

MAX_DEPTH: Final = 50
"""Deepest nesting of messages; a plain network has six levels."""

_PARTS: Final = {
    "model": {7: "main", 25: "function"},
    "main": {1: "node", 5: "tensor", 11: "input", 12: "output", 15: "sparse"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {2: "f", 5: "tensor", 6: "graph", 7: "floats", 10: "tensor", 11: "graph",
                  22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}  # fmt: skip
"""Message -> field number -> content, for fields with weights, operators, inputs or outputs."""
_ONCE: Final = {("attribute", 5), ("attribute", 6), ("attribute", 22), ("sparse", 1), ("sparse", 2)}
"""(message, field number) of the messages that are merged if repeated."""

_UINT8: Final = 2
_FLOAT16, _BFLOAT16 = 10, 16
_RAW: Final[dict[int, type[np.floating]]] = {
    1: np.float32,
    _FLOAT16: np.float16,
    11: np.float64,
    14: np.float32,
    15: np.float64,
}
"""Data type of a tensor -> numpy type of its raw bytes; a complex number is two floats."""
_FLOAT8: Final[dict[int, Callable[[NDArray[Any]], NDArray[np.bool_]]]] = {
    17: lambda bits: (bits & 0x7F) == 0x7F,  # E4M3FN: NaN only
    18: lambda bits: bits == 0x80,  # E4M3FNUZ
    19: lambda bits: (bits & 0x7C) == 0x7C,  # E5M2: infinities and NaN
    20: lambda bits: bits == 0x80,  # E5M2FNUZ
    24: lambda bits: bits == 0xFF,  # E8M0
}
"""Data type of a float8 tensor -> test for bytes that are not finite (OCP 8-bit floating point,
2023)."""
_PIECE: Final = 1 << 22
"""Largest piece of a tensor that is checked at once, bytes."""


_TYPE_NAMES: Final = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64",
    8: "string", 9: "bool", 10: "float16", 11: "float64", 12: "uint32", 13: "uint64",
    16: "bfloat16",
}  # fmt: skip
"""Number of an element type in onnx.proto3 -> its name in numpy."""

CONTRACT_ENDS: Final = f"{INPUT_NAME} uint8 [N, 1, H, W] in, {OUTPUT_NAME} uint8 [N, 1, H, W] out"
"""What the contract wants of a graph, for messages."""


class GraphEnd(NamedTuple):
    """One input or output of a graph."""

    name: str
    element_type: int
    """Number of its type in onnx.proto3."""
    dims: tuple[int | None, ...]
    """Size of each dimension; None if it is free."""

    @property
    def type_name(self) -> str:
        """Name of the element type, such as ``float32``."""
        return _TYPE_NAMES.get(self.element_type, f"type {self.element_type}")

    def __str__(self) -> str:
        sizes = ", ".join("?" if size is None else str(size) for size in self.dims)
        return f"{self.name} {self.type_name} [{sizes}]"


class GraphEnds(NamedTuple):
    """Inputs and outputs of a graph."""

    inputs: tuple[GraphEnd, ...]
    outputs: tuple[GraphEnd, ...]

    def __str__(self) -> str:
        given = (", ".join(map(str, ends[:_MOST_SHOWN])) for ends in self)
        return "{} in, {} out".format(*(text or "nothing" for text in given))


_MOST_SHOWN: Final = 4
"""Largest number of inputs or outputs that a message names."""


def check_onnx_file(data: bytes, where: Path) -> Contract:
    """Check that a file is an ONNX graph that keeps our contract and contains only finite weights.

    A file with external data is refused even if the data lie beside it, because the sha256 in the
    sidecar would not cover them.

    Args:
        where: path of the file, for the error.

    Returns:
        Height and width of the graph's images.

    Raises:
        ArtifactError: the file is not such a graph; the message has the reason.
    """
    ends = check_onnx_graph(data, where)
    try:
        return _contract(ends)
    except ValueError as error:
        raise ArtifactError(
            where,
            f"is not a usable ONNX file: {error}; it has {ends}, but must have {CONTRACT_ENDS}",
            adopt_command(where),
        ) from error


def adopt_command(where: Path) -> str:
    """Return the command that wraps an ONNX file so that it keeps the contract."""
    return f"tinyunet adopt {shlex.quote(str(where))} -o NAME.onnx"


def check_onnx_graph(data: bytes, where: Path) -> GraphEnds:
    """Check that a file is an ONNX graph with all its weights inside and finite.

    The graph need not keep the contract.

    Args:
        where: path of the file, for the error.

    Returns:
        The inputs that a caller must give, and the outputs.

    Raises:
        ArtifactError: the file is not such a graph; the message has the reason.
    """
    try:
        return _ends(memoryview(data))
    except (ValueError, struct.error) as error:
        raise ArtifactError(
            where,
            f"is not a usable ONNX file: {error}",
            f"export it again from the framework that trained it, then {adopt_command(where)}",
        ) from error


def keeps_contract(ends: GraphEnds) -> bool:
    """Return whether a graph's inputs and outputs are those of the contract."""
    try:
        _contract(ends)
    except ValueError:
        return False
    return True


def _ends(data: memoryview) -> GraphEnds:
    reader = Reader()
    ends: dict[str, list[GraphEnd]] = {"input": [], "output": []}
    initializers: set[str] = set()
    graphs = 0
    for message, part, value in _walk(data, reader):
        if part == "f":
            if not isinstance(value, int):
                raise ValueError("it has bytes where a number must be")
            _require_finite(struct.pack("<I", value & 0xFFFFFFFF), np.float32, "an attribute")
        elif part == "floats":
            packed = struct.pack("<I", value & 0xFFFFFFFF) if isinstance(value, int) else value
            _require_finite(packed, np.float32, "an attribute")
        elif part == "tensor":
            name = _check_tensor(value, reader)
            if message == "main":
                initializers.add(name)
        elif part in ends:
            ends[part].append(_end(value, reader))
        graphs += part == "main"
    if graphs != 1:
        raise ValueError("it has no graph" if not graphs else "it has more than one graph")
    inputs = tuple(end for end in ends["input"] if end.name not in initializers)
    return GraphEnds(inputs, tuple(ends["output"]))


def _walk(data: memoryview, reader: Reader) -> Iterator[tuple[str, str, Value]]:
    """Yield (message, part, value) of :data:`_PARTS` in all messages of a model.

    A repeated message that may occur only once is merged and yielded once.
    """
    waiting = [("model", data, 0)]
    while waiting:
        message, view, depth = waiting.pop()
        if depth > MAX_DEPTH:
            raise ValueError(f"its messages are nested more than {MAX_DEPTH} deep")
        once: dict[int, list[Value]] = defaultdict(list)
        parts: list[tuple[str, Value]] = []
        for number, value in reader.fields(view):
            part = _PARTS[message].get(number)
            if part is None:
                continue
            if (message, number) in _ONCE:
                once[number].append(value)
            else:
                parts.append((part, value))
        parts += [(_PARTS[message][number], joined(values)) for number, values in once.items()]
        for part, value in parts:
            yield message, part, value
            if part in _PARTS:
                if isinstance(value, int):
                    raise ValueError("it has a number where a message must be")
                waiting.append((part, value, depth + 1))


def _contract(ends: GraphEnds) -> Contract:
    inputs, outputs = ends
    for what, given, wanted in (("input", inputs, INPUT_NAME), ("output", outputs, OUTPUT_NAME)):
        if [end.name for end in given] != [wanted]:
            raise ValueError(f"its {what}s are not just {wanted}")
        if given[0].element_type != _UINT8:
            raise ValueError(f"its {what} {wanted} is not uint8")
    (image,) = inputs
    if len(image.dims) != 4 or image.dims[0] not in (None, 1) or image.dims[1] != 1:
        raise ValueError("its image is not [N, 1, H, W] with a free N, or an N of 1")
    batch, _, height, width = image.dims
    if height is None or width is None:
        raise ValueError("the height and width of its image are not fixed")
    if height * width > MAX_PIXELS:
        raise ValueError(f"its image has {width}x{height} pixels, more than {MAX_PIXELS}")
    return Contract(height, width, max_batch=batch)


def _check_tensor(tensor: Value, reader: Reader) -> str:
    """Return the name of a tensor whose values are all in the file and finite."""
    fields = list(reader.fields(tensor))
    name = b""
    kind = 0
    for number, value in fields:
        if number == 8 and not isinstance(value, int):
            name = bytes(value)
        if number == 2 and isinstance(value, int):
            kind = value
    text = name.decode("utf-8", "backslashreplace")
    what = f"the tensor {text}"
    for number, value in fields:
        if number == 13 or (number == 14 and value != 0):
            raise ValueError(f"{what} lies in another file: export with external_data=False")
        if number in (4, 10):  # float_data, double_data: one by one, or all in one field
            width = 4 if number == 4 else 8
            packed = value.to_bytes(8, "little")[:width] if isinstance(value, int) else value
            _require_finite(packed, np.float32 if number == 4 else np.float64, what)
        elif number == 9 and not isinstance(value, int):  # raw_data
            _require_finite_raw(value, kind, what)
        elif number == 5:  # int32_data, which holds the bits of 8- and 16-bit types
            packed = as_varint(value) if isinstance(value, int) else value
            _require_finite_bits(packed, kind, what)
    return text


def _require_finite_raw(data: memoryview, kind: int, what: str) -> None:
    if kind == _BFLOAT16:
        for piece in _pieces(data):
            _require(not _not_finite(np.frombuffer(piece, "<u2"), kind).any(), what)
    elif kind in _FLOAT8:
        for piece in _pieces(data):
            _require(not _FLOAT8[kind](np.frombuffer(piece, np.uint8)).any(), what)
    elif kind in _RAW:
        _require_finite(data, _RAW[kind], what)


def _require_finite_bits(packed: memoryview | bytes, kind: int, what: str) -> None:
    """Check 8- or 16-bit floats that are written as varints."""
    if kind not in (_FLOAT16, _BFLOAT16, *_FLOAT8):
        return
    for values in varint_bits(packed):
        if kind in _FLOAT8:
            _require(not _FLOAT8[kind](values & 0xFF).any(), what)
        else:
            _require(not _not_finite(values, kind).any(), what)


def _not_finite(halves: NDArray[Any], kind: int) -> NDArray[np.bool_]:
    """Return which 16-bit patterns are infinite or NaN: those whose exponent is all ones."""
    exponent = 0x7C00 if kind == _FLOAT16 else 0x7F80
    not_finite: NDArray[np.bool_] = (halves & exponent) == exponent
    return not_finite


def _require_finite(data: bytes | memoryview, kind: type[np.floating], what: str) -> None:
    dtype = np.dtype(kind).newbyteorder("<")
    if len(data) % dtype.itemsize:
        raise ValueError(
            f"{what} has {len(data)} bytes, which is not a multiple of {dtype.itemsize}"
        )
    for piece in _pieces(data):
        _require(bool(np.isfinite(np.frombuffer(piece, dtype)).all()), what)


def _require(finite: bool, what: str) -> None:
    if not finite:
        raise ValueError(f"{what} has values that are not finite")


def _pieces(data: bytes | memoryview) -> Iterator[bytes | memoryview]:
    for start in range(0, len(data), _PIECE):
        yield data[start : start + _PIECE]


def _end(info: Value, reader: Reader) -> GraphEnd:
    """Read a ValueInfoProto."""
    name = b""
    for number, value in reader.fields(info):
        if number == 1 and not isinstance(value, int):
            name = bytes(value)
    type_ = reader.merged(info, 2)
    if any(number not in (1, 6) for number, _ in reader.fields(type_)):
        raise ValueError(f"its {name.decode()} is not a tensor")
    tensor = reader.merged(type_, 1)
    element_type = 0
    for number, value in reader.fields(tensor):
        if number == 1 and isinstance(value, int):
            element_type = value
    shape = reader.merged(tensor, 2)
    dims = tuple(_dim(dim, reader) for number, dim in reader.fields(shape) if number == 1)
    return GraphEnd(name.decode(), element_type, dims)


def _dim(value: Value, reader: Reader) -> int | None:
    """Return the size of a dimension, None if it has a name; the last number or name counts."""
    size: int | None = None
    for number, given in reader.fields(value):
        if number == 1 and isinstance(given, int):
            size = given if 0 < given < 2**63 else None
        if number == 2 and not isinstance(given, int):
            bytes(given).decode()  # ONNX Runtime rejects a name that is not UTF-8
            size = None
    return size
