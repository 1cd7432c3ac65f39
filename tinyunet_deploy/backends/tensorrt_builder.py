"""Build a TensorRT plan from an ONNX file, in the precision of that file.

Precision is a property of the ONNX file: networks are strongly typed, no builder flag changes it.
The same calls serve TensorRT 10.12 and newer, 11, and TensorRT-RTX, which builds without a GPU too.
"""

from __future__ import annotations

import shlex
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import onnx
from google.protobuf.message import DecodeError

from tinyunet_deploy import __version__
from tinyunet_deploy.artifacts.facts import PlanFacts, PrecisionAudit
from tinyunet_deploy.artifacts.lineage import parent_place
from tinyunet_deploy.artifacts.onnx_guard import check_onnx_file
from tinyunet_deploy.artifacts.onnx_structure import structure_of
from tinyunet_deploy.artifacts.precision import AnyPrecision
from tinyunet_deploy.artifacts.sidecar import (
    Artifact,
    Sidecar,
    digest,
    write_artifact,
)
from tinyunet_deploy.artifacts.tensorrt_preflight import check_onnx
from tinyunet_deploy.backends import nvidia_probe
from tinyunet_deploy.backends.build_options import (
    Options,
    check_gpu_option,
    check_options,
    set_compatibility,
)
from tinyunet_deploy.backends.nvidia_probe import GPU, TensorRT
from tinyunet_deploy.backends.precision_audit import (
    check_precision,
    inspect_plan,
    kept_nodes,
    parsed_convolutions,
)
from tinyunet_deploy.backends.registry import read_tried
from tinyunet_deploy.contract import INPUT_NAME, Contract
from tinyunet_deploy.errors import ArtifactError, GateFailed, RefusedError, RuntimeUnavailable
from tinyunet_deploy.files import read_regular, write_atomic

__all__ = ["Options", "build", "plan_name"]


def plan_name(model: Path, precision: AnyPrecision) -> str:
    """Return the name of a plan: ``tinyunet.fp16.plan`` for ``tinyunet.onnx`` in fp16."""
    stem = model.name.removesuffix(".onnx")
    return f"{stem}.plan" if precision in stem.split(".") else f"{stem}.{precision}.plan"


def build(
    model: Path,
    output: Path,
    options: Options | None = None,
    flavour: str | None = None,
    *,
    trust_engine: bool = False,
) -> Artifact:
    """Build a plan and write it with its sidecar.

    Args:
        model: an ONNX artifact.
        output: a folder, or a file that ends in ``.plan``.
        flavour: ``tensorrt`` or ``tensorrt_rtx``; None takes the first that is installed.
        trust_engine: also build an ONNX file without a sidecar, after a trial in a separate
            process. The plan's sidecar then has the default threshold and min_area.

    Raises:
        ArtifactError: TensorRT or the preflight refuses the file, or the file is not in the
            precision that its sidecar states.
        GateFailed: the plan does not compute in that precision.
        RuntimeUnavailable: TensorRT, the driver or the GPU is missing.
    """
    options = options or Options()
    source = read_tried(model, trust_engine=trust_engine)
    if source.sidecar.kind != "onnx":
        raise RefusedError(model, f"is a {source.sidecar.kind} file", "build takes a .onnx file")
    if source.sidecar.unsigned_activations:
        raise RefusedError(
            model,
            "has unsigned activations for CPUs, which TensorRT does not take",
            "build the other int8 file of the same export",
        )
    check_onnx_file(source.data, model)
    graph = _graph(source)
    check_onnx(graph, model)
    tensorrt = nvidia_probe.tensorrt(flavour)
    check_options(options, source, tensorrt)
    gpu = _gpu(tensorrt, options)
    check_gpu_option(options, gpu)
    started = time.perf_counter()
    kept = kept_nodes(graph, source.sidecar)
    built = _plan(source, tensorrt, options, gpu, kept)
    plan, convolutions = built.plan, built.convolutions
    build_s = time.perf_counter() - started
    if gpu is None:
        audit = PrecisionAudit(convolutions, None, "built without a GPU: never run on hardware")
    else:
        engine = inspect_plan(plan, tensorrt, convolutions)
        check_precision(engine, source, kept, GateFailed, "the plan")
        why = None if engine else "the inspector names no convolution"
        audit = PrecisionAudit(convolutions, engine, why)
    if output.suffix != ".plan":
        output /= plan_name(model, source.sidecar.precision)
    facts = PlanFacts(
        flavour=tensorrt.flavour,
        version=tensorrt.version,
        gpu_name=gpu.name if gpu else None,
        compute_capability=gpu.compute_capability if gpu else options.compute_capability or "",
        profile=options.profile,
        more_profiles=options.more_profiles,
        rebuild=_command(source, output, tensorrt, options),
        audit=audit,
        size_bytes=len(plan),
        build_s=round(build_s, 3),
        level=options.level,
        workspace_mb=options.workspace_mb,
        flags=built.flags,
        timing_cache=built.timing_cache,
        version_compatible=options.version_compatible,
        hardware_compatible=options.hardware_compatible,
        refittable=options.refittable,
        structure=structure_of(graph) if options.refittable else None,
    )
    sidecar = replace(
        _sidecar(source, plan, facts, options), parent_place=parent_place(model, output)
    )
    write_artifact(output, plan, sidecar)
    return Artifact(output, plan, sidecar)


def _gpu(tensorrt: TensorRT, options: Options) -> GPU | None:
    """Return the GPU to build on; None to build for a GPU that this machine does not have.

    The GPU is checked first: without one, TensorRT raises no error but returns a null builder.
    """
    rtx = tensorrt.flavour == "tensorrt_rtx"
    if options.compute_capability is None:
        try:
            return nvidia_probe.gpu(0)
        except RuntimeUnavailable as error:
            hint = "or name the GPU to build for: --compute-capability 8.6" if rtx else error.hint
            raise RuntimeUnavailable(error.where, error.what, hint) from error
    if not rtx:
        raise RefusedError(
            "--compute-capability",
            "TensorRT builds only for the GPU of this machine",
            "TensorRT-RTX builds for other GPUs: --flavour tensorrt_rtx",
        )
    return None


def _graph(source: Artifact) -> onnx.ModelProto:
    try:
        return onnx.load_from_string(source.data)
    except DecodeError as error:
        raise ArtifactError(source.path, f"is not an ONNX file: {error}") from error


class _Built(NamedTuple):
    """A serialised plan and how it was built."""

    plan: bytes
    convolutions: dict[str, str]
    """Type of each convolution of the parsed network."""
    flags: tuple[str, ...]
    timing_cache: str


def _plan(
    source: Artifact,
    tensorrt: TensorRT,
    options: Options,
    gpu: GPU | None,
    kept: frozenset[str],
) -> _Built:
    trt, log = tensorrt.module, nvidia_probe.logger(tensorrt.module)
    builder = trt.Builder(log)
    network = builder.create_network(
        1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)  # TensorRT 11 has no other mode
    )
    parser = trt.OnnxParser(network, log)
    if not parser.parse(source.data):
        error = parser.get_error(0)
        node = f"{error.node_operator()} {error.node_name()}: " if error.node_name() else ""
        raise ArtifactError(source.path, f"TensorRT's parser refuses it: {node}{error.desc()}")
    convolutions = parsed_convolutions(network, trt)
    if not convolutions:
        raise ArtifactError(
            source.path, "has no convolution, so it is not a network of this package"
        )
    check_precision(convolutions, source, kept, ArtifactError, "the ONNX file")

    config = builder.create_builder_config()
    config.builder_optimization_level = options.level
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # lets the inspector show types
    if options.workspace_mb is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mb << 20)
    set_compatibility(config, trt, options)
    contract = source.sidecar.contract
    for sizes in (options.profile, *options.more_profiles):
        profile = builder.create_optimization_profile()
        profile.set_shape(
            INPUT_NAME,
            *((batch, 1, contract.height, contract.width) for batch in sizes.sizes),
        )
        if config.add_optimization_profile(profile) < 0:
            raise RefusedError("--batch", f"TensorRT refuses the profile: {log.reason()}")
    if tensorrt.flavour == "tensorrt_rtx":
        _set_target(config, trt, options, gpu)
    cache, known = _timing_cache(config, tensorrt, options.timing_cache)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise ArtifactError(source.path, f"TensorRT does not build it: {log.reason()}")
    use = "off"
    if cache is not None and options.timing_cache is not None:
        timings = bytes(cache.serialize())
        use = "empty" if not known else "hit" if timings == known else "extended"
        options.timing_cache.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(options.timing_cache, timings)
    flags = tuple(
        name for name, flag in trt.BuilderFlag.__members__.items() if config.get_flag(flag)
    )
    return _Built(bytes(plan), convolutions, flags, use)


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


def _timing_cache(config: Any, tensorrt: TensorRT, file: Path | None) -> tuple[Any, bytes]:
    """Return the cache in use, which must stay alive until the plan is built, and its content.

    Without a cache it is None; the content is empty if TensorRT does not take the file.
    """
    if file is None:
        return None, b""
    if tensorrt.flavour == "tensorrt_rtx":
        raise RefusedError("--timing-cache", "TensorRT-RTX has no timing cache")
    try:
        known = read_regular(file)
    except FileNotFoundError:
        known = b""
    cache = config.create_timing_cache(known)
    if cache is not None and config.set_timing_cache(cache, ignore_mismatch=False):
        return cache, known
    cache = config.create_timing_cache(b"")  # of another GPU or version, or damaged: start empty
    config.set_timing_cache(cache, ignore_mismatch=False)
    return cache, b""


def _sidecar(source: Artifact, plan: bytes, facts: PlanFacts, options: Options) -> Sidecar:
    contract = source.sidecar.contract
    return replace(
        source.sidecar,
        kind="plan",
        sha256=digest(plan),
        parent=source.sidecar.sha256,
        contract=Contract(contract.height, contract.width, max_batch=facts.max_batch),
        origin={
            "onnx": source.path.name,
            "builder": {
                "workspace_mb": options.workspace_mb,
                "level": options.level,
                **({"costs": options.costs} if options.costs else {}),
            },
            "versions": {"tinyunet_deploy": __version__},
            **({} if source.has_sidecar else source.sidecar.origin),
        },
        plan=facts,
        speed=None,
    )


def _command(source: Artifact, path: Path, tensorrt: TensorRT, options: Options) -> str:
    words = ["tinyunet", "build", str(source.path), "-o", str(path)]
    for profile in (options.profile, *options.more_profiles):
        words += ["--batch", ",".join(map(str, profile.sizes))]
    words += ["--builder-level", str(options.level)]
    if options.workspace_mb is not None:
        words += ["--workspace-mb", str(options.workspace_mb)]
    if tensorrt.flavour != nvidia_probe.FLAVOURS[0]:
        words += ["--flavour", tensorrt.flavour]
    if options.compute_capability is not None:
        words += ["--compute-capability", options.compute_capability]
    if options.version_compatible:
        words += ["--version-compatible"]
    if options.hardware_compatible is not None:
        words += ["--hardware-compatible", options.hardware_compatible]
    if options.refittable:
        words += ["--refittable"]
    return shlex.join(words)
