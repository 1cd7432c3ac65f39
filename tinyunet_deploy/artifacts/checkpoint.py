"""Checkpoints: the weights of a network as safetensors, with a sidecar."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError

from tinyunet_deploy.artifacts.architectures import NETWORKS
from tinyunet_deploy.artifacts.network import Network, make_network
from tinyunet_deploy.artifacts.sidecar import (
    Artifact,
    Sidecar,
    digest,
    read_artifact,
    write_artifact,
)
from tinyunet_deploy.contract import Contract
from tinyunet_deploy.errors import ArtifactError


def save_checkpoint(
    path: Path,
    network: Network,
    contract: Contract,
    *,
    threshold: float = 0.5,
    min_area: int = 1,
    step: int | None = None,
    bits: int | None = None,
    tuned_on: tuple[str, ...] = (),
    trained_on: tuple[str, ...] = (),
    teacher: str | None = None,
    origin: dict[str, Any],
) -> Sidecar:
    """Write the float32 weights of ``network`` and their sidecar.

    Args:
        path: file to write, ``NAME.safetensors``.
        contract: size of the images.
        threshold: probability above which a pixel is a defect.
        min_area: smallest defect that makes a part NG, pixels.
        step: number of optimizer steps of the training.
        bits: bit depth of the 16-bit training images; None takes the depth that a file states.
        tuned_on, trained_on: digests of the images that chose threshold and min_area, and of those
            that trained the weights.
        teacher: sha256 of the checkpoint whose scores the network learned from, if any.
        origin: how the network was trained; copied into the sidecar for people to read.

    Raises:
        ValueError: the network does not take images of this size.
    """
    network.facts.check_size(contract.height, contract.width)
    weights = {
        name: value.detach().to("cpu", torch.float32).contiguous()
        for name, value in network.state_dict().items()
    }
    data = safetensors.torch.save(weights, metadata={"variant": network.name})
    sidecar = Sidecar(
        kind="checkpoint",
        precision="fp32",
        sha256=digest(data),
        parent=None,
        contract=contract,
        threshold=threshold,
        min_area=min_area,
        origin=origin,
        network=network.facts,
        step=step,
        bits=bits,
        tuned_on=tuned_on,
        trained_on=trained_on,
        teacher=teacher,
    )
    write_artifact(path, data, sidecar)
    return sidecar


def load_checkpoint(path: Path) -> tuple[Network, Sidecar]:
    """Return the network of a checkpoint, in eval mode on the CPU, and its sidecar.

    Raises:
        ArtifactError: the file is missing, changed or not a checkpoint, its network is unknown, or
            a weight is not finite.
    """
    artifact = read_artifact(path)
    return network_of(artifact), artifact.sidecar


def network_of(artifact: Artifact) -> Network:
    """Return the network of a loaded checkpoint, in eval mode on the CPU.

    Raises:
        ArtifactError: the artifact is not a checkpoint, its network is unknown, or a weight is not
            finite.
    """
    path = artifact.path
    if artifact.sidecar.kind != "checkpoint":
        raise ArtifactError(path, f"is of kind {artifact.sidecar.kind}, not checkpoint")
    facts = artifact.sidecar.network
    name = None if facts is None else facts.name
    architecture = None if facts is None else facts.architecture
    if name is None or (architecture is None and name not in NETWORKS):
        raise ArtifactError(
            path,
            f"has weights of an unknown network {name!r}",
            f"known: {', '.join(NETWORKS)}",
        )
    try:
        weights = safetensors.torch.load(artifact.data)
    except SafetensorError as error:
        raise ArtifactError(path, f"is not a safetensors file: {error}") from error
    network = make_network(name, architecture)
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        detail = str(error).splitlines()[-1].strip()
        raise ArtifactError(path, f"has the weights of another network: {detail}") from error
    for name, value in weights.items():
        if not bool(torch.isfinite(value).all()):
            raise ArtifactError(path, f"has values in {name} that are not finite")
    return network.eval()
