"""What an ONNX file is, found out by reading its protobuf fields before a runtime parses it.

No package is needed for it, nothing in the file is followed or executed, and the work is bounded by
the file's length. Field numbers are those of onnx.proto3, wire types those of protobuf's encoding.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from tinyunet_deploy.contract import INPUT_NAME, OUTPUT_NAME, Contract
from tinyunet_deploy.data.decoding import MAX_PIXELS
from tinyunet_deploy.errors import ArtifactError

__all__ = ["check_onnx_file"]

MAX_FIELDS: Final = 300_000
"""Most fields that are looked at; TinyUNet has some thousands, its weights being one field each."""
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
"""Message -> field number -> what is in it, of all that can hold weights or say what goes in."""
_UINT8: Final = 2
_FLOAT16, _BFLOAT16 = 10, 16
_RAW: Final[dict[int, type[np.floating]]] = {
    1: np.float32,
    _FLOAT16: np.float16,
    11: np.float64,
    14: np.float32,
    15: np.float64,
}
"""Data type of a tensor -> how its raw bytes are read; a complex number is two floats."""

Value = int | memoryview


class _End(NamedTuple):
    """One input or output of the graph."""

    name: str
    kind: int
    dims: list[int | None]
    """None for a dimension that is free."""


def check_onnx_file(data: bytes, where: Path) -> Contract:
    """Refuse what is no ONNX file of our contract, lacks weights or holds some that are not finite.

    A file with external data is refused even if that lies beside it: the sha256 in the sidecar
    would not cover it.

    Args:
        where: the file, for the error.

    Returns:
        The height and width that the graph takes.

    Raises:
        ArtifactError: what is wrong.
    """
    try:
        return _check(memoryview(data))
    except (ValueError, struct.error) as error:
        raise ArtifactError(where, f"is no ONNX file that can be used: {error}") from error


def _check(data: memoryview) -> Contract:
    ends: dict[str, list[_End]] = {"input": [], "output": []}
    initializers: set[str] = set()
    waiting, looked_at, graphs = [("model", data)], 0, 0
    while waiting:
        message, view = waiting.pop()
        for number, value in _fields(view):
            looked_at += 1
            if looked_at > MAX_FIELDS:
                raise ValueError(f"it has more than {MAX_FIELDS} fields")
            part = _PARTS[message].get(number)
            if part is None:
                continue
            if part == "f":
                _require_finite(struct.pack("<I", value), np.float32, "an attribute")
                continue
            if isinstance(value, int) and part == "floats":
                value = memoryview(struct.pack("<I", value))
            if isinstance(value, int):
                raise ValueError("a number is where a message must be")
            graphs += part == "main"
            if part == "floats":
                _require_finite(value, np.float32, "an attribute")
            elif part == "tensor":
                name = _check_tensor(value)
                if message == "main":
                    initializers.add(name)
            elif part in ends:
                ends[part].append(_end(value))
            else:
                waiting.append((part, value))
    if graphs != 1:
        raise ValueError("it holds no graph" if not graphs else "it holds more than one graph")
    inputs = [end for end in ends["input"] if end.name not in initializers]
    return _contract(inputs, ends["output"])


def _contract(inputs: list[_End], outputs: list[_End]) -> Contract:
    for what, found, wanted in (("input", inputs, INPUT_NAME), ("output", outputs, OUTPUT_NAME)):
        if [end.name for end in found] != [wanted]:
            raise ValueError(f"its {what}s are not {wanted} alone")
        if found[0].kind != _UINT8:
            raise ValueError(f"its {what} {wanted} is not uint8")
    (image,) = inputs
    if len(image.dims) != 4 or image.dims[0] is not None or image.dims[1] != 1:
        raise ValueError("its image is not [N, 1, H, W] with a free N")
    _, _, height, width = image.dims
    if height is None or width is None:
        raise ValueError("height and width of its image are not fixed")
    if height * width > MAX_PIXELS:
        raise ValueError(f"its image has {width}x{height} pixels, more than {MAX_PIXELS}")
    return Contract(height, width)


def _check_tensor(view: memoryview) -> str:
    """The name of a tensor whose values are all here and finite."""
    fields = list(_fields(view))
    name = next((bytes(v) for n, v in fields if n == 8 and not isinstance(v, int)), b"")
    text = name.decode("utf-8", "backslashreplace")
    what = f"the tensor {text}"
    kind = 0
    for number, value in fields:
        if number == 2 and isinstance(value, int):
            kind = value
        if number == 13 or (number == 14 and value != 0):
            raise ValueError(f"{what} lies in another file: export with external_data=False")
    for number, value in fields:
        if number in (4, 10):  # one by one, or all in one field
            width = 4 if number == 4 else 8
            packed = value.to_bytes(width, "little") if isinstance(value, int) else value
            _require_finite(packed, np.float32 if number == 4 else np.float64, what)
        elif number == 9 and not isinstance(value, int):
            if kind == _BFLOAT16:
                _require_finite_halves(np.frombuffer(value, "<u2"), 0x7F80, what)
            elif kind in _RAW:
                _require_finite(value, _RAW[kind], what)
        elif number == 5 and kind in (_FLOAT16, _BFLOAT16):
            bits = [value] if isinstance(value, int) else list(_varints(value))
            halves = np.array([bit & 0xFFFF for bit in bits], np.uint16)
            _require_finite_halves(halves, 0x7C00 if kind == _FLOAT16 else 0x7F80, what)
    return text


def _require_finite(data: bytes | memoryview, kind: type[np.floating], what: str) -> None:
    if not np.isfinite(np.frombuffer(data, np.dtype(kind).newbyteorder("<"))).all():
        raise ValueError(f"{what} holds values that are not finite")


def _require_finite_halves(bits: np.ndarray, exponent: int, what: str) -> None:
    if ((bits & exponent) == exponent).any():
        raise ValueError(f"{what} holds values that are not finite")


def _end(view: memoryview) -> _End:
    """A ValueInfoProto."""
    name, kind, dims = "", 0, list[int | None]()
    for number, value in _fields(view):
        if number == 1 and not isinstance(value, int):
            name = bytes(value).decode()
        for tensor in _messages(number, value, 2):
            for inner, about in ((n, v) for _, t in tensor for n, v in _submessage(t)):
                if inner == 1 and isinstance(about, int):
                    kind = about
                for shape in _messages(inner, about, 2):
                    dims += [_dim(dim) for n, dim in shape if n == 1]
    return _End(name, kind, dims)


def _dim(value: Value) -> int | None:
    fields = dict(_submessage(value))
    given, name = fields.get(1), fields.get(2, b"")
    if not isinstance(name, int):
        bytes(name).decode()  # ONNX Runtime does not give the shape otherwise
    return given if isinstance(given, int) and 0 < given < 2**63 else None


def _messages(number: int, value: Value, wanted: int) -> Iterator[list[tuple[int, Value]]]:
    if number == wanted:
        yield list(_submessage(value))


def _submessage(value: Value) -> Iterator[tuple[int, Value]]:
    if isinstance(value, int):
        raise ValueError("a number is where a message must be")
    return _fields(value)


def _fields(view: memoryview) -> Iterator[tuple[int, Value]]:
    """(number, value) of the fields of a message; a value is a number or the bytes it spans."""
    at = 0
    while at < len(view):
        key, at = _varint(view, at)
        number, wire = key >> 3, key & 7
        value: Value
        if wire == 0:
            value, at = _varint(view, at)
        elif wire == 1:
            (value,) = struct.unpack_from("<Q", view, at)
            at += 8
        elif wire == 2:
            length, at = _varint(view, at)
            value = view[at : at + length]
            at += length
        elif wire == 5:
            (value,) = struct.unpack_from("<I", view, at)
            at += 4
        else:
            raise ValueError(f"field {number} is of an unknown type")
        if at > len(view) or not number:
            raise ValueError("a field reaches over its end")
        yield number, value


def _varints(view: memoryview) -> Iterator[int]:
    at = 0
    while at < len(view):
        value, at = _varint(view, at)
        yield value


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    """A number in groups of 7 bits, the lowest first, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(view):
            raise ValueError("a number reaches over its end")
        byte = view[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number is longer than 10 bytes")
