"""Refit a TensorRT plan, and write it only if it then scores as its new parent does."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from tinyunet_deploy.artifacts.golden import inherit_golden
from tinyunet_deploy.artifacts.sidecar import Artifact, read_artifact, write_artifact
from tinyunet_deploy.backends import nvidia_probe
from tinyunet_deploy.backends.cuda_device import Device, PyCUDADevice
from tinyunet_deploy.backends.nvidia_probe import TensorRT
from tinyunet_deploy.backends.tensorrt import TensorRTBackend
from tinyunet_deploy.backends.tensorrt_builder import plan_name
from tinyunet_deploy.backends.tensorrt_refit import exchangeable_weights, refit
from tinyunet_deploy.errors import RefusedError
from tinyunet_deploy.quality.self_test import SelfTest, self_test

__all__ = ["refit_plan"]


def refit_plan(
    plan: Path,
    model: Path,
    output: Path,
    *,
    tensorrt: TensorRT | None = None,
    gpu: Device | None = None,
) -> tuple[Artifact, SelfTest]:
    """Put the weights of an ONNX file into a plan, compare golden scores, and write the new plan.

    Args:
        plan: a plan that was built with ``--refittable``.
        model: an ONNX file of the same network, from another training.
        output: a folder, or a file that ends in ``.plan``.
        tensorrt: TensorRT to use; the installed one of the plan's flavour if None.
        gpu: GPU to use; the first one if None.

    Returns:
        The new plan, and how far it is from the golden scores of ``model``.

    Raises:
        ArtifactError: the plan does not run here, TensorRT refuses the weights, or the scores are
            further from the golden ones than ``parity_limits.toml`` allows. Nothing is written.
        RefusedError: the plan is not refittable, or the ONNX file is of another network or has no
            golden scores.
        RuntimeUnavailable: TensorRT, the driver or the GPU is missing.
    """
    old, source = read_artifact(plan), read_artifact(model)
    exchangeable_weights(old, source)
    if source.sidecar.golden is None:
        raise RefusedError(model, "has no golden scores to compare with", "export it again")
    if output.suffix != ".plan":
        output /= plan_name(model, source.sidecar.precision)
    if output.exists() and output.samefile(plan):
        raise RefusedError(output, "is the plan itself", "name another file")
    facts = old.sidecar.plan
    if tensorrt is None:
        tensorrt = nvidia_probe.tensorrt(None if facts is None else facts.flavour)
    gpu = gpu or PyCUDADevice(0)
    new = refit(old, source, output, tensorrt, gpu)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent) as folder:
        trial = Path(folder) / output.name
        write_artifact(trial, new.data, new.sidecar)
        inherit_golden(trial, model)
        with TensorRTBackend(read_artifact(trial), tensorrt=tensorrt, gpu=gpu) as backend:
            test = self_test(backend)
    write_artifact(output, new.data, new.sidecar)
    inherit_golden(output, model)
    return replace(new, sidecar=read_artifact(output).sidecar), test
