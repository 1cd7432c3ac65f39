"""The models in the package: their names and files, and the checkpoints that a wheel leaves out.

A float32 ONNX file has the very weights of its checkpoint. So a wheel carries only the ONNX files;
a checkpoint is made from its ONNX file when it is read, byte for byte the file of the repository,
which its sidecar's sha256 confirms.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Final

from tinyunet_deploy.artifacts.protobuf_wire import Reader, Value, varints
from tinyunet_deploy.files import read_regular

__all__ = [
    "DEFAULT_CHECKPOINT",
    "DEFAULT_ONNX",
    "MODELS",
    "PACKAGED",
    "checkpoint_of",
    "is_packaged_checkpoint",
    "named_model",
    "rebuilt_checkpoint",
]

MODELS: Final = Path(__file__).parent.parent / "models"
"""Folder of the models that come with the package."""
PACKAGED: Final = {"tiny": MODELS / "tinyunet.onnx", "slim": MODELS / "slim.onnx"}
"""Name of a model in the package -> its float32 ONNX file; the first is the default."""
DEFAULT_ONNX: Final = PACKAGED["tiny"]
DEFAULT_CHECKPOINT: Final = DEFAULT_ONNX.with_suffix(".safetensors")

_PREFIX: Final = b"network."
"""Beginning of the names of a network's weights in its ONNX file."""
_FLOAT: Final = 1
"""Number of float32 in onnx.TensorProto.DataType."""
_ALIGNMENT: Final = 8
"""The header of a safetensors file is padded with spaces to a multiple of this, bytes."""
_LARGEST: Final = 1 << 26
"""Largest ONNX file of the package, bytes."""


def named_model(model: str | os.PathLike[str]) -> Path:
    """Return the path of a model that a user gave: a path, or a name in the package.

    A name comes before a folder of that name, which is meant by ``./slim``, or as a ``Path``.
    """
    return PACKAGED.get(model, Path(model)) if isinstance(model, str) else Path(model)


def checkpoint_of(model: Path) -> Path | None:
    """Return the checkpoint of an ONNX file of the package; None for any other file."""
    return model.with_suffix(".safetensors") if model in PACKAGED.values() else None


def is_packaged_checkpoint(path: Path) -> bool:
    """Return whether a path is that of a checkpoint in the package, be it there or left out."""
    return path.suffix == ".safetensors" and path.with_suffix(".onnx") in PACKAGED.values()


def rebuilt_checkpoint(path: Path) -> bytes:
    """Return the bytes of a checkpoint in the package, made from its ONNX file.

    The caller compares them with the sha256 in the checkpoint's sidecar.

    Raises:
        OSError: the ONNX file cannot be read.
        ValueError: it is not an ONNX file with the weights of a network.
    """
    (name,) = (name for name, onnx in PACKAGED.items() if onnx == path.with_suffix(".onnx"))
    weights = dict(sorted(_weights(read_regular(PACKAGED[name], limit=_LARGEST)).items()))
    header: dict[str, object] = {"__metadata__": {"variant": name}}
    at = 0
    for weight, (shape, data) in weights.items():
        header[weight] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    body = (bytes(data) for _, data in weights.values())
    return b"".join((len(text).to_bytes(8, "little"), text, *body))


def _weights(data: bytes) -> dict[str, tuple[list[int], memoryview]]:
    """Return name -> shape and float32 bytes of the network's weights in an ONNX file.

    Field numbers are those of onnx.proto3.
    """
    reader = Reader()
    weights = {}
    for number, value in reader.fields(reader.merged(memoryview(data), 7)):
        if number == 5:
            name, element_type, shape, raw = _tensor(value, reader)
            if name.startswith(_PREFIX) and element_type == _FLOAT:
                weights[name[len(_PREFIX) :].decode()] = shape, raw
    if not weights:
        raise ValueError("it has no weights of a network")
    return weights


def _tensor(value: Value, reader: Reader) -> tuple[bytes, int, list[int], memoryview]:
    name, element_type, shape, raw = b"", 0, list[int](), memoryview(b"")
    for number, part in reader.fields(value):
        if number == 1:
            shape += [part] if isinstance(part, int) else varints(part)
        elif number == 2 and isinstance(part, int):
            element_type = part
        elif number == 8 and not isinstance(part, int):
            name = bytes(part)
        elif number == 9 and not isinstance(part, int):
            raw = part
    return name, element_type, shape, raw
