"""Put the weights of another ONNX file into a TensorRT plan, without building it again.

A plan is refittable if it was built with TensorRT's flag REFIT. NVIDIA's page "Refitting an Engine"
(11.3) warns that such a plan may drop a bias that the refit then does not name. So every weight of
the ONNX file must be one that the engine names, and every one that the engine names must be set.
:func:`tinyunet_deploy.quality.refitting.refit_plan` compares scores before it writes the plan.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError

from tinyunet_deploy.artifacts.facts import PlanFacts
from tinyunet_deploy.artifacts.lineage import parent_place
from tinyunet_deploy.artifacts.onnx_guard import check_onnx_file
from tinyunet_deploy.artifacts.onnx_structure import structure_of, weights_of
from tinyunet_deploy.artifacts.sidecar import Artifact, digest
from tinyunet_deploy.backends import nvidia_probe
from tinyunet_deploy.backends.cuda_device import Device
from tinyunet_deploy.backends.nvidia_probe import TensorRT
from tinyunet_deploy.backends.plan_check import check_gpu, check_recorded, check_release
from tinyunet_deploy.errors import ArtifactError, RefusedError

__all__ = ["exchangeable_weights", "refit"]


def exchangeable_weights(plan: Artifact, source: Artifact) -> Mapping[str, onnx.TensorProto]:
    """Return the weights of an ONNX file for a plan, after checking that they are of one network.

    Args:
        plan: a refittable plan.
        source: an ONNX file.

    Raises:
        ArtifactError: the ONNX file is damaged.
        RefusedError: the plan is not refittable, or the ONNX file has another structure or
            precision than the one that the plan was built from.
    """
    check_recorded(plan)
    facts, ours, theirs = plan.sidecar.plan, source.sidecar, plan.sidecar
    if facts is None or not facts.refittable:
        raise RefusedError(
            plan.path, "is not refittable", "build it again: tinyunet build MODEL.onnx --refittable"
        )
    if ours.kind != "onnx":
        raise RefusedError(source.path, f"is a {ours.kind} file", "refit takes a .onnx file")
    if ours.precision != theirs.precision:
        raise RefusedError(
            source.path, f"is in {ours.precision}, but {plan.path.name} is in {theirs.precision}"
        )
    check_onnx_file(source.data, source.path)
    try:
        model = onnx.load_from_string(source.data)
    except DecodeError as error:
        raise ArtifactError(source.path, f"is not an ONNX file: {error}") from error
    if structure_of(model) != facts.structure:
        raise RefusedError(
            source.path,
            f"has another structure than the file that {plan.path.name} was built from",
            "build a plan from it: only weights can be exchanged",
        )
    return weights_of(model)


def refit(
    plan: Artifact, source: Artifact, output: Path, tensorrt: TensorRT, device: Device
) -> Artifact:
    """Return a copy of a plan with the weights of an ONNX file; nothing is written.

    The sidecar is that of the ONNX file, which is the parent; ``plan.refitted_from`` names the
    plan. Not yet run on hardware.

    Args:
        plan: a refittable plan.
        source: an ONNX file that :func:`exchangeable_weights` takes.
        output: path of the new plan.
        tensorrt: the TensorRT of the plan.
        device: the GPU of the plan.

    Raises:
        ArtifactError: the plan does not run here, or TensorRT refuses the weights.
        RefusedError: as for :func:`exchangeable_weights`, or weights of one have no counterpart in
            the other.
    """
    weights = exchangeable_weights(plan, source)
    facts = plan.sidecar.plan
    assert facts is not None
    check_release(plan, tensorrt)
    check_gpu(plan, device.gpu)
    with device.current():
        data = _refitted(plan, source, weights, tensorrt)
    contract = replace(source.sidecar.contract, max_batch=facts.max_batch)
    sidecar = replace(
        source.sidecar,
        kind="plan",
        sha256=digest(data),
        parent=source.sidecar.sha256,
        parent_place=parent_place(source.path, output),
        contract=contract,
        origin={**plan.sidecar.origin, "onnx": source.path.name},
        plan=replace(
            facts,
            size_bytes=len(data),
            refitted_from=plan.sidecar.sha256,
            rebuild=_rebuild(facts, source.path, output),
        ),
        speed=None,
        golden=None,
        verified_batch=None,
    )
    return Artifact(output, data, sidecar)


def _refitted(
    plan: Artifact, source: Artifact, weights: Collection[str], tensorrt: TensorRT
) -> bytes:
    trt, log = tensorrt.module, nvidia_probe.logger(tensorrt.module)
    runtime = trt.Runtime(log)
    engine = runtime.deserialize_cuda_engine(plan.data)
    if engine is None:
        raise ArtifactError(plan.path, f"TensorRT refuses it: {log.reason()}")
    if not engine.refittable:
        raise RefusedError(plan.path, "is not refittable, though its sidecar says so")
    refitter = trt.Refitter(engine, log)
    known = set(refitter.get_all_weights())
    _require_none(set(weights) - known, plan.path, "keeps its own value of", "build it again")
    _require_none(known - set(weights), source.path, "does not have", "build a plan from it")
    onnx_refitter = trt.OnnxParserRefitter(refitter, log)
    if not onnx_refitter.refit_from_bytes(source.data):
        reason = log.reason()
        if onnx_refitter.num_errors:
            error = onnx_refitter.get_error(0)
            reason = error.desc()
        raise ArtifactError(source.path, f"TensorRT refuses its weights: {reason}")
    _require_none(set(refitter.get_missing_weights()), source.path, "did not set", "build again")
    if not refitter.refit_cuda_engine():
        raise ArtifactError(plan.path, f"TensorRT does not refit it: {log.reason()}")
    settings = engine.create_serialization_config()
    settings.set_flag(trt.SerializationFlag.INCLUDE_REFIT)  # so that it can be refitted again
    data: Any = engine.serialize_with_config(settings)
    if data is None:
        raise ArtifactError(plan.path, f"TensorRT does not serialise it: {log.reason()}")
    return bytes(data)


def _require_none(names: Collection[str], where: Path, verb: str, hint: str) -> None:
    if names:
        first, count = min(names), len(names)
        raise RefusedError(where, f"{verb} {count} of the weights, such as {first}", hint)


def _rebuild(facts: PlanFacts, model: Path, output: Path) -> str:
    """Return the command that builds the plan from its new parent."""
    words = shlex.split(facts.rebuild)
    for place, path in ((2, model), (4, output)):
        if len(words) > place:
            words[place] = str(path)
    return shlex.join(words)
