"""Audit a TensorRT plan: its convolutions must compute in the precision of the ONNX file."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from tinyunet_deploy.artifacts.precision import precision_facts
from tinyunet_deploy.artifacts.sidecar import Artifact, Sidecar
from tinyunet_deploy.backends import nvidia_probe
from tinyunet_deploy.backends.nvidia_probe import TensorRT
from tinyunet_deploy.errors import ArtifactError, GateFailed, RuntimeUnavailable

if TYPE_CHECKING:
    import onnx

__all__ = [
    "check_precision",
    "engine_convolutions",
    "inspect_plan",
    "kept_nodes",
    "mixture",
    "parsed_convolutions",
    "type_name",
]

_FLOATS: Final = frozenset({"Float", "Half"})
"""Types in which a convolution may compute that an int8 file did not quantise."""
_COMPUTED: Final = frozenset({"Int8", "BFloat16", "Half", "FP8", "Float"})
"""Types in which TensorRT computes convolutions."""


def check_precision(
    convolutions: dict[str, str],
    source: Artifact,
    kept: frozenset[str],
    error: type[ArtifactError] | type[GateFailed],
    what: str,
) -> None:
    """Check that convolutions compute in the precision that the sidecar of their file names.

    Args:
        convolutions: name -> ``Float``, ``Half``, ``Int8`` or another type name of TensorRT.
        kept: names of the convolutions that an int8 file did not quantise.
        error: class of the error to raise.
        what: ``the plan`` or ``the ONNX file``, for the message.

    Raises:
        ArtifactError, GateFailed: the convolutions compute in other types; the class is ``error``.
    """
    precision = source.sidecar.precision
    if precision == "unknown":
        raise ArtifactError(
            source.path,
            "has a sidecar that does not name its precision"
            if source.has_sidecar
            else "has no sidecar, and its convolutions are not all float32, float16 or int8",
        )
    wanted = precision_facts(precision).tensorrt_types
    wrong = [
        name
        for name, type_ in convolutions.items()
        if type_ not in (_FLOATS if name in kept else wanted)
    ]
    if wrong:
        mix = ", ".join(f"{count} {type_}" for type_, count in mixture(convolutions).items())
        raise error(
            source.path,
            f"should be {precision}, but the convolutions of {what} are {mix}",
            f"{', '.join(wrong[:3])}{', ...' if len(wrong) > 3 else ''}; nothing was written",
        )


def mixture(convolutions: dict[str, str]) -> dict[str, int]:
    """Count the convolutions of each type, the most common first."""
    return dict(Counter(convolutions.values()).most_common())


def kept_nodes(graph: onnx.ModelProto, sidecar: Sidecar) -> frozenset[str]:
    """Return the names of the nodes that an int8 file did not quantise, by its sidecar.

    The sidecar names convolutions of our own networks as these do, such as ``encoder.0.2``; a node
    is known by the weights it reads. Those of an adopted network it names as the file does.
    """
    weights = {f"network.{name}.weight" for name in sidecar.kept_in_float32}
    return frozenset(
        node.name
        for node in graph.graph.node
        if node.op_type in ("Conv", "ConvTranspose")
        and (node.input[1] in weights or node.name in sidecar.kept_in_float32)
    )


def parsed_convolutions(network: Any, trt: Any) -> dict[str, str]:
    """Return the name of each convolution of a parsed network and the type it computes in.

    In a strongly typed network the types of tensors bind the builder. A convolution is Int8 where
    its input and its weights both come from a dequantisation of int8.
    """
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    makers = {
        layer.get_output(index).name: layer
        for layer in layers
        for index in range(layer.num_outputs)
    }
    types = {}
    for layer in layers:
        if layer.type not in (trt.LayerType.CONVOLUTION, trt.LayerType.DECONVOLUTION):
            continue
        tensors = [layer.get_input(index) for index in range(min(layer.num_inputs, 2))]
        int8 = len(tensors) == 2 and all(
            tensor.name in makers
            and makers[tensor.name].type == trt.LayerType.DEQUANTIZE
            and makers[tensor.name].get_input(0).dtype == trt.DataType.INT8
            for tensor in tensors
        )
        types[str(layer.name)] = (
            "Int8" if int8 else type_name(tensors[0].dtype.name) or tensors[0].dtype.name
        )
    return types


def inspect_plan(plan: bytes, tensorrt: TensorRT, names: Iterable[str]) -> dict[str, str]:
    """Return the type that each convolution of a built plan computes in; needs the GPU.

    Args:
        names: names of the convolutions to look for.

    Raises:
        RuntimeUnavailable: TensorRT does not load the plan.
    """
    trt, log = tensorrt.module, nvidia_probe.logger(tensorrt.module)
    runtime = trt.Runtime(log)
    runtime.engine_host_code_allowed = True  # built here, perhaps with a lean runtime
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise RuntimeUnavailable(tensorrt.flavour, f"does not load what it built: {log.reason()}")
    inspector = engine.create_engine_inspector()
    text = inspector.get_engine_information(trt.LayerInformationFormat.JSON)
    return engine_convolutions(text, names)


def engine_convolutions(report: str, names: Iterable[str]) -> dict[str, str]:
    """Return the type that each convolution computes in, from the JSON of TensorRT's inspector.

    TensorRT 8 to 11 spell types differently and fuse layers under joined names; the ONNX names
    stay in a layer's metadata.

    Args:
        report: JSON of a plan that was built with detailed verbosity.
        names: names of the convolutions to look for.

    Returns:
        Name of each convolution in the report -> ``Float``, ``Half``, ``Int8`` ...
    """
    types: dict[str, str] = {}
    wanted = set(names)
    for entry in json.loads(report).get("Layers", []):
        if not isinstance(entry, dict) or "reformat" in str(entry.get("LayerType", "")).lower():
            continue
        parts = set(re.findall(r"\[ONNX Layer: ([^\]]+)\]", str(entry.get("Metadata", ""))))
        parts |= set(str(entry.get("Name", "")).split(" + "))
        weights = entry.get("Weights")
        inputs = entry.get("Inputs") or [{}]
        spelled = [weights.get("Type")] if isinstance(weights, dict) else []
        if isinstance(inputs[0], dict):
            spelled += [inputs[0].get(key) for key in ("DataType", "Datatype", "Format/Datatype")]
        known = (type_name(text) for text in spelled if text)
        type_ = next((name for name in known if name in _COMPUTED), None)
        for name in parts & wanted:
            if type_ is not None:
                types.setdefault(name, type_)
    return types


def type_name(text: str) -> str | None:
    """Return our name of a type: ``Half`` for ``HALF``, ``FP16``, ``Channel major FP16 format``.

    None if the text names no type.
    """
    for ours, theirs in (
        ("UInt8", r"uint8"),
        ("Int8", r"int8"),
        ("BFloat16", r"bf16|bfloat16"),
        ("Half", r"half|fp16"),
        ("FP8", r"fp8"),
        ("Float", r"float|fp32"),
        ("Int64", r"int64"),
        ("Int32", r"int32"),
        ("Bool", r"bool"),
    ):
        if re.search(theirs, text, re.IGNORECASE):
            return ours
    return None
