"""Messages between a leader's process and its challenger's: a JSON header, then raw arrays."""

from __future__ import annotations

import json
import struct
from typing import IO, Any, Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["read_frame", "write_frame"]

_SIZES: Final = struct.Struct("<II")
"""Bytes of the header, number of arrays."""
_SHAPE: Final = struct.Struct("<II")
"""Rows and columns of an array."""


def write_frame(stream: IO[bytes], header: dict[str, Any], *arrays: NDArray[np.uint8]) -> None:
    """Write a message.

    Args:
        header: plain JSON values.
        arrays: uint8 [H, W] each.

    Raises:
        OSError: the other process has ended.
    """
    text = json.dumps(header).encode()
    stream.write(_SIZES.pack(len(text), len(arrays)) + text)
    for array in arrays:
        stream.write(_SHAPE.pack(*array.shape))
        stream.write(np.ascontiguousarray(array).data)
    stream.flush()


def read_frame(stream: IO[bytes]) -> tuple[dict[str, Any], list[NDArray[np.uint8]]] | None:
    """Read a message; None if the other process has ended, even in the middle of one."""
    try:
        text_bytes, count = _SIZES.unpack(_exactly(stream, _SIZES.size))
        header: dict[str, Any] = json.loads(_exactly(stream, text_bytes))
        arrays = []
        for _ in range(count):
            height, width = _SHAPE.unpack(_exactly(stream, _SHAPE.size))
            data = _exactly(stream, height * width)
            arrays.append(np.frombuffer(data, np.uint8).reshape(height, width))
    except EOFError:
        return None
    return header, arrays


def _exactly(stream: IO[bytes], count: int) -> bytes:
    data = stream.read(count)
    if len(data) < count:
        raise EOFError
    return data
