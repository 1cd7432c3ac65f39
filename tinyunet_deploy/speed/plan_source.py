"""The ONNX file that a plan was built from."""

from __future__ import annotations

from tinyunet_deploy.artifacts.lineage import lineage
from tinyunet_deploy.artifacts.sidecar import Artifact, kind_of, read_artifact
from tinyunet_deploy.errors import ArtifactError

__all__ = ["onnx_source"]


def onnx_source(plan: Artifact) -> Artifact:
    """Read the ONNX file that a plan was built from, found by the plan's lineage.

    Raises:
        ArtifactError: there is none beside the plan, or it has changed.
    """
    paths = [link.path for link in lineage(plan.path) if link.path is not None]
    graph = next((path for path in paths if kind_of(path) == "onnx"), None)
    if graph is None:
        raise ArtifactError(plan.path, "has no ONNX file beside it")
    return read_artifact(graph)
