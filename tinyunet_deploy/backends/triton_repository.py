"""Write a model repository for NVIDIA's Triton Inference Server.

NAME/config.pbtxt             the model's configuration, with the sidecar as a parameter
NAME/1/model.onnx|model.plan  the artifact, unchanged
NAME/warmup/golden-*          golden images, which every instance scores before it is ready
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Final

from tinyunet_deploy.artifacts.golden import read_golden
from tinyunet_deploy.artifacts.sidecar import Artifact, Kind
from tinyunet_deploy.backends.kserve import SIDECAR
from tinyunet_deploy.backends.registry import read_tried
from tinyunet_deploy.contract import INPUT_NAME, OUTPUT_NAME
from tinyunet_deploy.errors import RefusedError, RuntimeUnavailable

__all__ = ["write_repository"]

UNVERIFIED_BATCH: Final = 8
"""Largest batch of an artifact whose sidecar has no largest batch."""
QUEUE_DELAY_US: Final = 1000
"""Longest time that a request waits for others to fill a batch, microseconds."""

_PLATFORMS: Final[dict[Kind, str]] = {"onnx": "onnxruntime_onnx", "plan": "tensorrt_plan"}


def write_repository(
    model: Path,
    repository: Path,
    *,
    name: str | None = None,
    gpu: int | None = None,
    instances: int = 1,
    trust_engine: bool = False,
) -> Path:
    """Put an artifact into a model repository, from which Triton can serve it.

    Args:
        model: an ONNX file or a TensorRT plan with its sidecar.
        repository: Triton's ``--model-repository``; created if it does not exist.
        name: name of the model for clients; None is the file name up to its first dot.
        gpu: index of the GPU; None is the CPU for an ONNX file, the first GPU for a plan.
        instances: number of instances that run in parallel.
        trust_engine: also serve a model without a sidecar. An ONNX file is first tried in a
            separate process; clients get the default threshold and min_area.

    Returns:
        The model's folder, ``repository / name``.

    Raises:
        ArtifactError: the file or its golden images are missing or were changed.
        RefusedError: Triton does not run this kind of artifact, or the name is taken.
        RuntimeUnavailable: the disk is full or read-only.
    """
    artifact = read_tried(model, trust_engine=trust_engine)
    sidecar = artifact.sidecar
    if sidecar.kind not in _PLATFORMS:
        raise RefusedError(
            model,
            f"is of kind {sidecar.kind}, which Triton does not run",
            "export it in a clone of the repository: python -m export",
        )
    if sidecar.plan is not None and sidecar.plan.flavour == "tensorrt_rtx":
        raise RefusedError(
            model, "is a plan for TensorRT-RTX, which Triton does not run", "build it with tensorrt"
        )
    name = model.name.partition(".")[0] if name is None else name
    if not re.fullmatch("[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise RefusedError(name, "cannot be the name of a model", "use letters, digits and _ . -")
    folder = repository / name
    if folder.exists():
        raise RefusedError(folder, "already exists", "remove it, or give another --name")
    gpu = 0 if gpu is None and sidecar.kind == "plan" else gpu
    unfinished = repository / f".{name}.part"
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        (unfinished / "1").mkdir(parents=True)
        (unfinished / "1" / f"model{model.suffix}").write_bytes(artifact.data)
        warmups = _write_warmup(artifact, unfinished / "warmup")
        config = config_text(artifact, name, warmups, gpu, instances)
        (unfinished / "config.pbtxt").write_text(config)
        unfinished.rename(folder)
    except OSError as error:
        raise RuntimeUnavailable(folder, f"cannot write: {error.strerror}") from error
    return folder


def config_text(
    artifact: Artifact, name: str, warmups: list[str], gpu: int | None, instances: int
) -> str:
    """Return ``config.pbtxt``: Triton's ``ModelConfig`` in protobuf's text format.

    Args:
        warmups: names of the files in ``warmup/``, one image each.
        gpu: index of the GPU; None for the CPU.
    """
    sidecar = artifact.sidecar
    dims = f"[1, {sidecar.contract.height}, {sidecar.contract.width}]"
    if (
        sidecar.is_batch_fixed
    ):  # Triton adds the axis of the batch only where the file leaves it free
        dims = f"[1, 1, {sidecar.contract.height}, {sidecar.contract.width}]"
    most = 0 if sidecar.is_batch_fixed else sidecar.max_batch or UNVERIFIED_BATCH
    batching = f"dynamic_batching {{ max_queue_delay_microseconds: {QUEUE_DELAY_US} }}"
    where = "kind: KIND_CPU" if gpu is None else f"kind: KIND_GPU, gpus: [{gpu}]"
    warmup = "".join(
        f"""
model_warmup {{
  name: "{file}"
  batch_size: {most}
  inputs {{
    key: "{INPUT_NAME}"
    value {{ data_type: TYPE_UINT8, dims: {dims}, input_data_file: "{file}" }}
  }}
}}"""
        for file in warmups
    )
    return f"""\
name: "{name}"
platform: "{_PLATFORMS[sidecar.kind]}"
max_batch_size: {most}
input {{ name: "{INPUT_NAME}", data_type: TYPE_UINT8, dims: {dims} }}
output {{ name: "{OUTPUT_NAME}", data_type: TYPE_UINT8, dims: {dims} }}
instance_group {{ count: {instances}, {where} }}
{"" if sidecar.is_batch_fixed else batching}{warmup}
parameters {{
  key: "{SIDECAR}"
  value {{ string_value: {_quoted(sidecar.as_json())} }}
}}
"""


def _write_warmup(artifact: Artifact, folder: Path) -> list[str]:
    """Write each golden image as a file of raw bytes; return the names, empty without images."""
    if artifact.sidecar.golden is None:
        return []
    images, _ = read_golden(artifact)
    names = [f"golden-{index}" for index in range(len(images))]
    folder.mkdir()
    for name, image in zip(names, images, strict=True):
        (folder / name).write_bytes(image.tobytes())
    return names


def _quoted(text: str) -> str:
    """Return JSON as one line, quoted as a string of protobuf's text format."""
    return '"' + json.dumps(json.loads(text)).replace("\\", "\\\\").replace('"', '\\"') + '"'
