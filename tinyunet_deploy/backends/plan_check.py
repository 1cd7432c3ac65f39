"""Check that a TensorRT plan may run on this machine: its TensorRT, its GPU and its contract."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, assert_never

from tinyunet_deploy.artifacts.facts import Profile
from tinyunet_deploy.artifacts.sidecar import Artifact, Sidecar
from tinyunet_deploy.backends import nvidia_probe
from tinyunet_deploy.backends.nvidia_probe import GPU, TensorRT
from tinyunet_deploy.contract import INPUT_NAME, OUTPUT_NAME, Contract
from tinyunet_deploy.errors import ArtifactError

__all__ = [
    "AMPERE",
    "check_gpu",
    "check_recorded",
    "check_release",
    "contract_of",
    "fitting_profile",
]


AMPERE: Final = 8.0
"""First compute capability of NVIDIA's Ampere."""


def check_recorded(artifact: Artifact) -> None:
    """Refuse a plan whose sidecar does not say what it was built for.

    A plan without a sidecar has an unknown precision; the user has chosen to trust it.

    Raises:
        ArtifactError: the plan is refused; the hint is the command that rebuilds it.
    """
    if artifact.sidecar.plan is None and artifact.sidecar.precision != "unknown":
        raise ArtifactError(
            artifact.path,
            "has a sidecar that does not say which TensorRT and GPU it was built for",
            "build it again: tinyunet build MODEL.onnx",
        )


def check_release(artifact: Artifact, tensorrt: TensorRT) -> None:
    """Refuse a plan that was built by another TensorRT.

    A version-compatible plan also runs on later releases, of the same major version and of the
    next: NVIDIA promises that engines of TensorRT 10 run on 11, and of 11.0 on later 11.x, never
    the other way (docs.nvidia.com/deeplearning/tensorrt, Engine Compatibility, 11.1).

    Raises:
        ArtifactError: the plan is refused; the hint is the command that rebuilds it.
    """
    plan = artifact.sidecar.plan
    assert plan is not None
    was = f"{plan.flavour} {nvidia_probe.release(plan.version)}"
    now = f"{tensorrt.flavour} {nvidia_probe.release(tensorrt.version)}"
    if was == now:
        return
    promise = ""
    if plan.version_compatible and plan.flavour == tensorrt.flavour:
        built, here = _numbers(plan.version), _numbers(tensorrt.version)
        if built <= here and here[0] <= built[0] + 1:
            return
        promise = f", and version-compatible plans run on later releases up to {built[0] + 1}.x"
    raise ArtifactError(
        artifact.path,
        f"was built by {was}, but this machine has {now}{promise}",
        _rebuild(artifact.sidecar),
    )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in nvidia_probe.release(version).split(".") if part.isdigit())


def check_gpu(artifact: Artifact, gpu: GPU) -> None:
    """Refuse a plan that was built for another GPU.

    A plan that was built without a GPU names only the compute capability. A hardware-compatible
    plan runs on every GPU from NVIDIA's Ampere on, or on those of the same compute capability
    (docs.nvidia.com/deeplearning/tensorrt, Engine Compatibility, 11.1).

    Raises:
        ArtifactError: the plan is refused; the hint is the command that rebuilds it.
    """
    plan = artifact.sidecar.plan
    assert plan is not None
    name = ("", plan.gpu_name or gpu.name, gpu.name)
    capability = ("compute capability ", plan.compute_capability, gpu.compute_capability)
    match plan.hardware_compatible:
        case None:
            comparisons = [name, capability]
        case "same-compute-capability":
            comparisons = [capability]
        case "ampere-plus":
            comparisons = []
            if float(gpu.compute_capability) < AMPERE:
                comparisons = [("", f"GPUs from compute capability {AMPERE} on", gpu.name)]
        case _:
            assert_never(plan.hardware_compatible)
    for word, was, now in comparisons:
        if was != now:
            raise ArtifactError(
                artifact.path,
                f"was built for {word}{was}, but this machine has {word}{now}",
                _rebuild(artifact.sidecar),
            )


def _rebuild(sidecar: Sidecar) -> str:
    assert sidecar.plan is not None
    return f"build it again: {sidecar.plan.rebuild}"


def contract_of(engine: Any, trt: Any, artifact: Artifact) -> tuple[Contract, tuple[Profile, ...]]:
    """Return the contract of a deserialised plan, and its optimisation profiles.

    Args:
        engine: TensorRT's ``ICudaEngine``.
        trt: the module that made it.

    Raises:
        ArtifactError: the plan breaks the contract, or contradicts its sidecar.
    """
    ends = {}
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        ends[name] = engine.get_tensor_mode(name), engine.get_tensor_dtype(name)
    wanted = {
        INPUT_NAME: (trt.TensorIOMode.INPUT, trt.DataType.UINT8),
        OUTPUT_NAME: (trt.TensorIOMode.OUTPUT, trt.DataType.UINT8),
    }
    if ends != wanted:
        raise ArtifactError(
            artifact.path,
            f"has the inputs and outputs {', '.join(sorted(ends))}, "
            f"not uint8 {INPUT_NAME} and {OUTPUT_NAME}",
        )
    shapes = [
        [tuple(dims) for dims in engine.get_tensor_profile_shape(INPUT_NAME, index)]
        for index in range(engine.num_optimization_profiles)
    ]
    most = max(shape[2] for shape in shapes)
    try:
        if any(dims[1:] != most[1:] for shape in shapes for dims in shape):
            raise ValueError("the profiles differ in more than the batch")
        contract = Contract(most[2], most[3], max_batch=most[0])
        profiles = tuple(Profile(*(int(dims[0]) for dims in shape)) for shape in shapes)
    except (IndexError, ValueError) as error:
        raise ArtifactError(artifact.path, f"takes images of shape {list(most)}") from error
    if artifact.sidecar.plan is not None and contract != artifact.sidecar.contract:
        raise ArtifactError(
            artifact.path,
            f"takes batches of {list(most)}, but its sidecar says otherwise",
            _rebuild(artifact.sidecar),
        )
    return contract, profiles


def fitting_profile(profiles: Sequence[Profile], batch: int) -> tuple[int, int]:
    """Return the profile that suits a batch best.

    It is the one that needs the fewest copies to fill its smallest batch; among equal ones, the one
    that is tuned for the nearest batch size.

    Args:
        profiles: optimisation profiles of a plan; one of them takes ``batch`` or more images.

    Returns:
        Index of the profile, and the number of images that it runs with, at least ``batch``.
    """
    rows = min(max(batch, profile.min) for profile in profiles if profile.max >= batch)
    fitting = [at for at, profile in enumerate(profiles) if profile.min <= rows <= profile.max]
    return min(fitting, key=lambda at: abs(profiles[at].opt - rows)), rows
