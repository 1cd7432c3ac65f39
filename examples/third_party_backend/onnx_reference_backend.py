"""A backend of another package: an ONNX file in onnx's own evaluator, slow and easy to read."""

from __future__ import annotations

import importlib.metadata
import time

import onnx
from onnx.reference import ReferenceEvaluator

from tinyunet_deploy.artifacts.sidecar import Artifact
from tinyunet_deploy.backends import Backend, BackendRow, Run
from tinyunet_deploy.contract import INPUT_NAME, OUTPUT_NAME, Batch
from tinyunet_deploy.errors import ArtifactError


class ReferenceBackend(Backend):
    """Every operator as the standard defines it, in numpy."""

    name = "onnx-reference"

    def __init__(self, artifact: Artifact, device: str = "cpu") -> None:
        super().__init__(artifact, device)
        try:
            self._evaluator = ReferenceEvaluator(onnx.load_from_string(artifact.data))
        except Exception as error:  # onnx raises errors of many classes
            raise ArtifactError(artifact.path, f"onnx refuses it: {error}") from error

    @property
    def versions(self) -> dict[str, str]:
        """Package -> version of what computes."""
        return {"onnx": importlib.metadata.version("onnx")}

    def _run(self, image: Batch) -> Run:
        started = time.perf_counter()
        (score,) = self._evaluator.run([OUTPUT_NAME], {INPUT_NAME: image})
        return Run(score, (time.perf_counter() - started) * 1e3)


ROW = BackendRow("onnx-reference", ReferenceBackend, modules=("onnx",), distributions=("onnx",))
