"""Building a TensorRT plan from an ONNX file, and holding it to the precision that was asked for.

Precision is a property of the ONNX file: networks are strongly typed, no builder flag changes it.
The same calls serve TensorRT 10.12 and newer, 11, and TensorRT-RTX, which builds without a GPU too.
"""

from __future__ import annotations

import json
import re
import shlex
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, NamedTuple

import onnx
from google.protobuf.message import DecodeError

from tinyunet_deploy import __version__
from tinyunet_deploy.artifacts.onnx_guard import check_onnx_file
from tinyunet_deploy.artifacts.precision import AnyPrecision, precision_facts
from tinyunet_deploy.artifacts.sidecar import (
    Artifact,
    Sidecar,
    digest,
    read_artifact,
    write_artifact,
)
from tinyunet_deploy.artifacts.tensorrt_preflight import check_onnx
from tinyunet_deploy.backends import nvidia_probe
from tinyunet_deploy.backends.nvidia_probe import GPU, TensorRT
from tinyunet_deploy.contract import INPUT_NAME, Contract
from tinyunet_deploy.errors import ArtifactError, GateFailed, RefusedError, RuntimeUnavailable
from tinyunet_deploy.files import read_regular, write_atomic

_FLOATS: Final = frozenset({"Float", "Half"})
"""What a convolution that an int8 file did not quantise may compute in."""


class Profile(NamedTuple):
    """Images per batch that a plan is built for."""

    min: int = 1
    opt: int = 8
    """The size that tactics are chosen for."""
    max: int = 16


@dataclass(frozen=True)
class Options:
    """How to build."""

    profile: Profile = field(default_factory=Profile)
    workspace_mb: int | None = None
    """Scratch memory a tactic may use, MiB; None is all that the GPU has."""
    level: int = 3
    """0..5: how long to look for fast tactics. 3 is TensorRT's own default."""
    timing_cache: Path | None = None
    """File of tactic timings, read if it is there and written back; TensorRT-RTX has none."""
    compute_capability: str | None = None
    """The GPU to build for, such as ``8.6``; TensorRT-RTX only, None is the GPU that is here."""


def plan_name(model: Path, precision: AnyPrecision) -> str:
    """``tinyunet.onnx`` in fp16 -> ``tinyunet.fp16.plan``."""
    stem = model.name.removesuffix(".onnx")
    return f"{stem}.plan" if precision in stem.split(".") else f"{stem}.{precision}.plan"


def build(
    model: Path, output: Path, options: Options | None = None, flavour: str | None = None
) -> Artifact:
    """Build a plan and write it with its sidecar.

    Args:
        model: an ONNX artifact.
        output: a folder, or a file that ends in ``.plan``.
        flavour: ``tensorrt`` or ``tensorrt_rtx``; None takes the first that is installed.

    Raises:
        ArtifactError: TensorRT or the preflight refuses the file, or the file is not in the
            precision that its sidecar says.
        GateFailed: the plan does not compute in that precision.
        RuntimeUnavailable: TensorRT, the driver or the GPU is missing.
    """
    options = options or Options()
    source = read_artifact(model)
    if source.sidecar.kind != "onnx":
        raise RefusedError(model, f"is a {source.sidecar.kind} file", "build takes a .onnx file")
    check_onnx_file(source.data, model)
    graph = _graph(source)
    check_onnx(graph, model)
    here = nvidia_probe.tensorrt(flavour)
    gpu = _gpu(here, options)
    started = time.perf_counter()
    kept = kept_nodes(graph, source.sidecar)
    plan, convolutions = _plan(source, here, options, gpu, kept)
    build_s = time.perf_counter() - started
    audit: dict[str, Any] = {"parsed_network": convolutions, "engine": None}
    if gpu is None:
        audit["engine_not_inspected"] = "built without a GPU: never run on hardware"
    else:
        audit["engine"] = _inspect(plan, here, convolutions)
        if not audit["engine"]:
            audit["engine_not_inspected"] = "the inspector names no convolution"
        check_precision(audit["engine"], source, kept, GateFailed, "the plan")
    if output.suffix != ".plan":
        output /= plan_name(model, source.sidecar.precision)
    sidecar = _sidecar(source, output, plan, here, gpu, options)
    sidecar.origin.update(build_s=round(build_s, 3), precision_audit=audit)
    write_artifact(output, plan, sidecar)
    return Artifact(output, plan, sidecar)


def check_precision(
    convolutions: dict[str, str],
    source: Artifact,
    kept: frozenset[str],
    error: type[ArtifactError] | type[GateFailed],
    what: str,
) -> None:
    """Compare what convolutions compute in with what the file's sidecar says.

    Args:
        convolutions: name -> ``Float``, ``Half``, ``Int8`` or whatever TensorRT calls it.
        kept: names of those that an int8 file did not quantise.
        error: what to raise.
        what: what was looked at, for the message.

    Raises:
        ArtifactError, GateFailed: as ``error`` says, naming the mix.
    """
    precision = source.sidecar.precision
    if precision == "unknown":
        raise ArtifactError(source.path, "has a sidecar that does not name its precision")
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
            f"is to be {precision}, but the convolutions of {what} are {mix}",
            f"{', '.join(wrong[:3])}{', ...' if len(wrong) > 3 else ''}; nothing was written",
        )


def mixture(convolutions: dict[str, str]) -> dict[str, int]:
    """How many convolutions compute in which type."""
    return dict(Counter(convolutions.values()).most_common())


def _gpu(here: TensorRT, options: Options) -> GPU | None:
    """The GPU to build on; None to build for one that is not here.

    TensorRT itself does not say that there is no GPU: its builder would be a null object.
    """
    rtx = here.flavour == "tensorrt_rtx"
    if options.compute_capability is None:
        try:
            return nvidia_probe.gpu(0)
        except RuntimeUnavailable as error:
            hint = "or name the GPU to build for: --compute-capability 8.6" if rtx else error.hint
            raise RuntimeUnavailable(error.where, error.what, hint) from error
    if not rtx:
        raise RefusedError(
            "--compute-capability",
            "TensorRT builds only for the GPU that is here",
            "TensorRT-RTX builds for others: --flavour tensorrt_rtx",
        )
    return None


def _graph(source: Artifact) -> onnx.ModelProto:
    try:
        return onnx.load_from_string(source.data)
    except DecodeError as error:
        raise ArtifactError(source.path, f"is no ONNX file: {error}") from error


def kept_nodes(graph: onnx.ModelProto, sidecar: Sidecar) -> frozenset[str]:
    """Names of the nodes that an int8 file did not quantise, by what its sidecar says.

    The sidecar names convolutions as the network does, such as ``encoder.0.2``; a node is known by
    the weights it reads.
    """
    kept = sidecar.origin.get("quantization", {}).get("kept_in_float32", ())
    weights = {f"network.{name}.weight" for name in kept}
    return frozenset(
        node.name
        for node in graph.graph.node
        if node.op_type == "Conv" and node.input[1] in weights
    )


def _plan(
    source: Artifact,
    here: TensorRT,
    options: Options,
    gpu: GPU | None,
    kept: frozenset[str],
) -> tuple[bytes, dict[str, str]]:
    """The plan's bytes, and what the convolutions of the parsed network compute in."""
    trt, log = here.module, nvidia_probe.logger(here.module)
    builder = trt.Builder(log)
    network = builder.create_network(
        1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)  # 11 knows no other
    )
    parser = trt.OnnxParser(network, log)
    if not parser.parse(source.data):
        error = parser.get_error(0)
        node = f"{error.node_operator()} {error.node_name()}: " if error.node_name() else ""
        raise ArtifactError(source.path, f"TensorRT's parser refuses it: {node}{error.desc()}")
    convolutions = _parsed_convolutions(network, trt)
    if not convolutions:
        raise ArtifactError(source.path, "has no convolution, so it is no network of ours")
    check_precision(convolutions, source, kept, ArtifactError, "the ONNX file")

    config = builder.create_builder_config()
    config.builder_optimization_level = options.level
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # else the inspector gives names
    if options.workspace_mb is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mb << 20)
    contract = source.sidecar.contract
    profile = builder.create_optimization_profile()
    profile.set_shape(
        INPUT_NAME, *((batch, 1, contract.height, contract.width) for batch in options.profile)
    )
    if config.add_optimization_profile(profile) < 0:
        raise RefusedError("--batch", f"TensorRT refuses the profile: {log.reason()}")
    if here.flavour == "tensorrt_rtx":
        _set_target(config, trt, options, gpu)
    cache = _timing_cache(config, here, options.timing_cache)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise ArtifactError(source.path, f"TensorRT does not build it: {log.reason()}")
    if cache is not None and options.timing_cache is not None:
        options.timing_cache.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(options.timing_cache, bytes(cache.serialize()))
    return bytes(plan), convolutions


def _set_target(config: Any, trt: Any, options: Options, gpu: GPU | None) -> None:
    capability = options.compute_capability or (gpu.compute_capability if gpu else "")
    targets = {
        f"{name[2:-1]}.{name[-1]}": value
        for name, value in trt.ComputeCapability.__members__.items()
        if name.startswith("SM")
    }
    if capability not in targets:
        raise RuntimeUnavailable(
            f"compute capability {capability}",
            "TensorRT-RTX does not build for it",
            f"it builds for {', '.join(sorted(targets, key=float))}",
        )
    config.num_compute_capabilities = 1
    config.set_compute_capability(targets[capability], 0)


def _timing_cache(config: Any, here: TensorRT, file: Path | None) -> Any:
    """The cache that is in use, to be kept alive until the plan is built; None without one."""
    if file is None:
        return None
    if here.flavour == "tensorrt_rtx":
        raise RefusedError("--timing-cache", "TensorRT-RTX times nothing when it builds")
    try:
        known = read_regular(file)
    except FileNotFoundError:
        known = b""
    cache = config.create_timing_cache(known)
    if cache is not None and config.set_timing_cache(cache, ignore_mismatch=False):
        return cache
    cache = config.create_timing_cache(b"")  # of another GPU or version, or damaged: start anew
    config.set_timing_cache(cache, ignore_mismatch=False)
    return cache


def _parsed_convolutions(network: Any, trt: Any) -> dict[str, str]:
    """Name of each convolution of a parsed network -> what it computes in.

    In a strongly typed network the types of tensors bind the builder. A convolution is Int8 where
    its input and its weights both come from a dequantisation of int8.
    """
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    makers = {
        layer.get_output(index).name: layer
        for layer in layers
        for index in range(layer.num_outputs)
    }
    found = {}
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
        found[str(layer.name)] = (
            "Int8" if int8 else _spelling(tensors[0].dtype.name) or tensors[0].dtype.name
        )
    return found


def _inspect(plan: bytes, here: TensorRT, names: dict[str, str]) -> dict[str, str]:
    """What the convolutions of a built plan compute in; needs the GPU."""
    trt, log = here.module, nvidia_probe.logger(here.module)
    runtime = trt.Runtime(log)
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise RuntimeUnavailable(here.flavour, f"does not load what it built: {log.reason()}")
    inspector = engine.create_engine_inspector()
    text = inspector.get_engine_information(trt.LayerInformationFormat.JSON)
    return engine_convolutions(text, names)


def engine_convolutions(report: str, names: dict[str, str]) -> dict[str, str]:
    """What convolutions compute in, from the JSON of TensorRT's engine inspector.

    TensorRT 8 to 11 spell types differently and fuse layers under joined names; the ONNX names
    stay in a layer's metadata.

    Args:
        report: of a plan that was built with detailed verbosity.
        names: of the convolutions to look for; only keys are used.

    Returns:
        Name of a convolution -> ``Float``, ``Half``, ``Int8`` ...; those that were found.
    """
    found: dict[str, str] = {}
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
        type_ = next((known for text in spelled if text and (known := _spelling(text))), None)
        for name in parts & set(names):
            if type_ is not None:
                found.setdefault(name, type_)
    return found


def _spelling(type_: str) -> str | None:
    """``HALF``, ``FP16``, ``Channel major FP16 format`` -> ``Half``; None if not to compute in."""
    for ours, theirs in (
        ("Int8", r"(?<!u)int8"),
        ("BFloat16", r"bf16|bfloat16"),
        ("Half", r"half|fp16"),
        ("FP8", r"fp8"),
        ("Float", r"float|fp32"),
    ):
        if re.search(theirs, type_, re.IGNORECASE):
            return ours
    return None


def _sidecar(
    source: Artifact, path: Path, plan: bytes, here: TensorRT, gpu: GPU | None, options: Options
) -> Sidecar:
    contract = source.sidecar.contract
    return replace(
        source.sidecar,
        kind="plan",
        sha256=digest(plan),
        parent=source.sidecar.sha256,
        contract=Contract(contract.height, contract.width, max_batch=options.profile.max),
        origin={
            "onnx": source.path.name,
            "rebuild": _command(source, path, here, options),
            "tensorrt": {"flavour": here.flavour, "version": here.version},
            "gpu": {
                "name": gpu.name if gpu else None,
                "compute_capability": gpu.compute_capability if gpu else options.compute_capability,
            },
            "profile": options.profile._asdict(),
            "builder": {"workspace_mb": options.workspace_mb, "level": options.level},
            "plan_bytes": len(plan),
            **source.sidecar.inherited,
            "versions": {"tinyunet_deploy": __version__},
        },
    )


def _command(source: Artifact, path: Path, here: TensorRT, options: Options) -> str:
    words = ["tinyunet", "build", str(source.path), "-o", str(path)]
    words += ["--batch", ",".join(map(str, options.profile))]
    words += ["--builder-level", str(options.level)]
    if options.workspace_mb is not None:
        words += ["--workspace-mb", str(options.workspace_mb)]
    if here.flavour != nvidia_probe.FLAVOURS[0]:
        words += ["--flavour", here.flavour]
    if options.compute_capability is not None:
        words += ["--compute-capability", options.compute_capability]
    return shlex.join(words)
