"""Models without a sidecar: what can be read from the file itself, once the user trusts it.

Lineage, threshold, min_area and reach cannot be read from a file. Whoever reports them asks
``Artifact.has_sidecar`` and says that they are unknown, or that a default is used.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

from tinyunet_deploy.artifacts.adoption.form import last_activation
from tinyunet_deploy.artifacts.onnx_guard import check_onnx_file
from tinyunet_deploy.artifacts.onnx_reader import read_graph
from tinyunet_deploy.artifacts.sidecar import (
    Artifact,
    kind_of,
    read_artifact,
    sidecar_path,
    trusted,
)
from tinyunet_deploy.contract import OUTPUT_NAME
from tinyunet_deploy.errors import ArtifactError

__all__ = ["is_foreign", "read_model"]

_ORIGIN: Final = {
    "without_sidecar": "lineage unknown; threshold and min_area are defaults unless tuned"
}
"""Note in the sidecar of what is made from such a file."""


def is_foreign(path: Path) -> bool:
    """Return whether a file is a model without a sidecar, which needs the user's trust.

    A checkpoint is never one: its sidecar names the network, without which it cannot be run.

    Raises:
        ArtifactError: the suffix is not a model's.
    """
    return kind_of(path) != "checkpoint" and not sidecar_path(path).exists()


def read_model(path: Path, *, trust_engine: bool = False) -> Artifact:
    """Read an artifact and check it; nothing in it is run.

    Args:
        trust_engine: also read a model that has no sidecar. The contract and the precision of an
            ONNX file are then read from its graph. Those of a plan are known once it is loaded.

    Raises:
        ArtifactError: the file is missing or damaged, does not match its sidecar, has no sidecar
            and is not trusted, or is an ONNX file that does not keep the contract or whose scores
            are labels.
    """
    if not (trust_engine and is_foreign(path)):
        return read_artifact(path)
    artifact = trusted(path)
    artifact = replace(artifact, sidecar=replace(artifact.sidecar, origin=dict(_ORIGIN)))
    if artifact.sidecar.kind != "onnx":
        return artifact
    contract = check_onnx_file(artifact.data, path)
    if last_activation(artifact.data, OUTPUT_NAME) == "labels":
        raise ArtifactError(
            path,
            "ends in an ArgMax or a comparison: its scores are labels, not probability x 255",
            "export the network without it",
        )
    precision = read_graph(artifact.data).precision()
    return replace(
        artifact, sidecar=replace(artifact.sidecar, contract=contract, precision=precision)
    )
