"""Layer information of an engine: the JSON of TensorRT's inspector, of TensorRT 10 and 11.

TensorRT 10 lists the names of inputs and outputs under ``Bindings`` and joins format and type of a
tensor under ``Format/Datatype``. TensorRT 11 describes inputs and outputs under ``I/O Tensors`` and
has ``Format`` and ``Datatype``. NVIDIA's performance analysis reads the bare list of layers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, TypeVar

from tinyunet_deploy.artifacts.strict_json import read_json
from tinyunet_deploy.backends.precision_audit import type_name
from tinyunet_deploy.errors import DataError
from tinyunet_deploy.files import read_regular

__all__ = [
    "MAX_BYTES",
    "EngineLayer",
    "EngineTensor",
    "Form",
    "LayerInfo",
    "layers_json",
    "parse_layer_info",
    "read_file",
    "read_layer_info",
    "unique_names",
]

Form: TypeAlias = Literal["10", "11"]
"""Release of TensorRT whose JSON a file follows."""
MAX_BYTES: Final = 64 << 20
"""Largest file that is read, bytes; that of a network of 30 layers has 60 kB."""
MAX_ENTRIES: Final = 1_000_000
"""Largest number of layers, of tensors of a layer, or of times in a file."""
_BYTES: Final = {
    "Float": 4, "Half": 2, "BFloat16": 2, "Int8": 1, "FP8": 1, "UInt8": 1, "Int32": 4, "Int64": 8,
    "Bool": 1,
}  # fmt: skip
"""Type -> bytes of one value."""
_COPY: Final = re.compile(r"^Reformatting CopyNode for (?:Input|Output) Tensor \d+ to ")
"""Name of a copy before the name of the layer that needs it."""
_OURS: Final = {"Name", "LayerType", "Inputs", "Outputs", "TacticName", "StreamId", "Metadata"}
"""Fields of a layer that are attributes of :class:`EngineLayer`."""


@dataclass(frozen=True)
class EngineTensor:
    """One input or output of a layer."""

    name: str
    shape: tuple[int, ...]
    format: str
    """Memory layout in TensorRT's words; empty if not reported."""
    type: str | None
    """``Float``, ``Half``, ``Int8`` ...; None if not reported."""

    @property
    def bytes(self) -> int | None:
        """Bytes of all values; None if the type is unknown or a dimension is free."""
        if self.type is None or any(size < 0 for size in self.shape):
            return None
        return prod(self.shape) * _BYTES[self.type]


@dataclass(frozen=True)
class EngineLayer:
    """One layer of an engine, which may have been fused from several of the network."""

    name: str
    type: str = ""
    """TensorRT's type, such as ``CaskConvolution``; empty if only the name is known."""
    inputs: tuple[EngineTensor, ...] = ()
    outputs: tuple[EngineTensor, ...] = ()
    tactic: str = ""
    """Name of the kernel; empty if not reported."""
    stream: int | None = None
    metadata: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """All other fields, as TensorRT wrote them."""

    @property
    def onnx_nodes(self) -> tuple[str, ...]:
        """Names of the ONNX nodes that were fused into this layer."""
        named = re.findall(r"\[ONNX Layer: ([^\]]+)\]", self.metadata)
        return tuple(dict.fromkeys(named or _COPY.sub("", self.name).split(" + ")))

    @property
    def is_copy(self) -> bool:
        """True if the layer computes nothing but a copy, another format or another type."""
        kind = self.type.lower()
        if kind:
            return "reformat" in kind or kind in ("copy", "move", "cast", "nooplayer", "noop")
        return self.name.startswith(("Reformatting CopyNode", "Copy "))

    @property
    def is_convolution(self) -> bool:
        """True if the layer is a convolution or a transposed one."""
        kind = f"{self.type} {self.extra.get('ParameterType', '')}".lower()
        return "conv" in kind

    @property
    def computed_type(self) -> str | None:
        """Type that a layer computes in: that of its weights, else of its first input."""
        weights = self.extra.get("Weights")
        stated = str(weights.get("Type", "")) if isinstance(weights, dict) else ""
        return type_name(stated) or (self.inputs[0].type if self.inputs else None)

    @property
    def weight_count(self) -> int | None:
        """Number of weights; None if not reported."""
        weights = self.extra.get("Weights")
        count = weights.get("Count") if isinstance(weights, dict) else None
        return count if type(count) is int and count >= 0 else None


@dataclass(frozen=True)
class LayerInfo:
    """Layers of an engine in the order in which they run, and its inputs and outputs."""

    layers: tuple[EngineLayer, ...]
    ends: tuple[str, ...]
    """Names of inputs and outputs; empty in a bare list."""
    form: Form

    @property
    def detailed(self) -> bool:
        """False if the engine was built without detailed verbosity and only has names."""
        return any(layer.type for layer in self.layers)


def read_layer_info(path: Path) -> LayerInfo:
    """Read a file of ``trtexec --exportLayerInfo``, of the inspector, or a bare list of layers.

    Raises:
        DataError: the file cannot be read or is not such a file.
    """
    return read_file(path, parse_layer_info, "trtexec --exportLayerInfo=FILE writes one")


Value = TypeVar("Value")


def read_file(path: Path, parse: Callable[[bytes], Value], hint: str) -> Value:
    """Read an untrusted JSON file of at most :data:`MAX_BYTES` bytes with a parser.

    Raises:
        DataError: the file cannot be read, or the parser raises ValueError.
    """
    try:
        return parse(read_regular(path, limit=MAX_BYTES))
    except OSError as error:
        raise DataError(path, f"cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise DataError(path, f"is not what was expected: {error}", hint) from error


def parse_layer_info(text: str | bytes) -> LayerInfo:
    """Parse the JSON of TensorRT's inspector, or a bare list of layers.

    Raises:
        ValueError: the text is something else; the message has the reason.
    """
    value = read_json(text)
    layers = value.get("Layers") if isinstance(value, dict) else value
    if not isinstance(layers, list) or not layers:
        raise ValueError("expected a list of layers, or an object with Layers")
    if len(layers) > MAX_ENTRIES:
        raise ValueError(f"it has {len(layers)} layers, more than {MAX_ENTRIES}")
    ends: tuple[str, ...] = ()
    form: Form | None = None
    if isinstance(value, dict):
        if "I/O Tensors" in value:
            form, ends = "11", _ends(value["I/O Tensors"])
        elif "Bindings" in value:
            form, ends = "10", _ends(value["Bindings"])
    form = form or ("11" if '"Datatype"' in _as_text(text) else "10")
    parsed = [_layer(layer, index) for index, layer in enumerate(layers)]
    names = unique_names([layer.name for layer in parsed])
    named = (
        EngineLayer(**{**vars(layer), "name": name})
        for layer, name in zip(parsed, names, strict=True)
    )
    return LayerInfo(tuple(named), ends, form)


def _as_text(text: str | bytes) -> str:
    return text if isinstance(text, str) else text.decode()


def unique_names(names: list[str]) -> list[str]:
    """Return the names; a name that was there before gets `` #2``, `` #3`` ..."""
    seen: dict[str, int] = {}
    unique = []
    for name in names:
        number = seen[name] = seen.get(name, 0) + 1
        unique.append(name if number == 1 else f"{name} #{number}")
    return unique


def _ends(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > MAX_ENTRIES:
        raise ValueError("its inputs and outputs are not a list")
    return tuple(
        _text(end.get("Name") if isinstance(end, dict) else end, "an input or output")
        for end in value
    )


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"{what} has no name")
    return value


def _layer(value: Any, index: int) -> EngineLayer:
    if isinstance(value, str):  # the engine was built without detailed verbosity
        return EngineLayer(_text(value, f"layer {index}"))
    if not isinstance(value, dict):
        raise ValueError(f"layer {index} is neither an object nor a name")
    name = _text(value.get("Name"), f"layer {index}")
    for key in ("LayerType", "TacticName", "Metadata"):
        if not isinstance(value.get(key, ""), str):
            raise ValueError(f"{key} of layer {name[:100]!r} is not a text")
    stream = value.get("StreamId")
    return EngineLayer(
        name,
        value.get("LayerType", ""),
        _tensors(value.get("Inputs", []), name),
        _tensors(value.get("Outputs", []), name),
        value.get("TacticName", ""),
        stream if type(stream) is int else None,
        value.get("Metadata", ""),
        {key: part for key, part in value.items() if key not in _OURS},
    )


def _tensors(value: Any, layer: str) -> tuple[EngineTensor, ...]:
    if not isinstance(value, list) or len(value) > MAX_ENTRIES:
        raise ValueError(f"the tensors of layer {layer[:100]!r} are not a list")
    return tuple(_tensor(tensor, layer) for tensor in value)


def _tensor(value: Any, layer: str) -> EngineTensor:
    if not isinstance(value, dict):
        raise ValueError(f"a tensor of layer {layer[:100]!r} is not an object")
    shape = value.get("Dimensions", [])
    if not isinstance(shape, list) or any(type(size) is not int for size in shape):
        raise ValueError(f"a tensor of layer {layer[:100]!r} has no list of dimensions")
    joined = str(value.get("Format/Datatype", ""))
    layout = str(value.get("Format", "")) or joined
    stated = str(value.get("Datatype", value.get("DataType", ""))) or joined
    return EngineTensor(str(value.get("Name", "")), tuple(shape), layout, type_name(stated))


def layers_json(info: LayerInfo, form: Form, *, bare: bool) -> str:
    """Return layer information as the JSON of a release.

    Args:
        bare: write only the list of layers, which NVIDIA's performance analysis reads; else the
            object that ``trtexec --exportLayerInfo`` writes.
    """
    layers = [_layer_json(layer, form) for layer in info.layers]
    if bare:
        return json.dumps(layers, indent=1, allow_nan=False) + "\n"
    ends: dict[str, Any] = {"Bindings": list(info.ends)}
    if form == "11":
        ends = {"I/O Tensors": [_end_json(name, info) for name in info.ends]}
    return json.dumps({"Layers": layers, **ends}, indent=1, allow_nan=False) + "\n"


def _end_json(name: str, info: LayerInfo) -> dict[str, Any]:
    reads = [(tensor, "Input") for layer in info.layers for tensor in layer.inputs]
    writes = [(tensor, "Output") for layer in info.layers for tensor in layer.outputs]
    for tensor, mode in [*writes, *reads]:
        if tensor.name == name:
            fields = {"Name": name, "IOMode": mode, "DataType": tensor.type or "Unknown"}
            return {**fields, "Dimensions": list(tensor.shape), "Location": "Device"}
    return {"Name": name}


def _layer_json(layer: EngineLayer, form: Form) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "Name": layer.name,
        "LayerType": layer.type,
        "Inputs": [_tensor_json(tensor, form) for tensor in layer.inputs],
        "Outputs": [_tensor_json(tensor, form) for tensor in layer.outputs],
        **layer.extra,
        "TacticName": layer.tactic,
        "Metadata": layer.metadata,
    }
    return fields if layer.stream is None else {**fields, "StreamId": layer.stream}


def _tensor_json(tensor: EngineTensor, form: Form) -> dict[str, Any]:
    fields: dict[str, Any] = {"Name": tensor.name, "Location": "Device"}
    fields["Dimensions"] = list(tensor.shape)
    kind = tensor.type or "Unknown"
    if form == "11":
        return {**fields, "Format": tensor.format or kind, "Datatype": kind}
    joined = tensor.format or kind
    return {**fields, "Format/Datatype": joined if type_name(joined) else f"{joined} {kind}"}
