"""An ONNX file in ONNX Runtime, on the CPU or through CUDA."""

from __future__ import annotations

import importlib.metadata
import time
from typing import Any

import onnxruntime

from tinyunet_deploy.artifact import Artifact
from tinyunet_deploy.backends import Backend, Run, processor_count
from tinyunet_deploy.contract import INPUT_NAME, OUTPUT_NAME, Batch
from tinyunet_deploy.errors import ArtifactError, RuntimeUnavailable


class ONNXRuntimeBackend(Backend):
    """The provider that was asked for, and no other: never silently the CPU instead of a GPU."""

    name = "onnxruntime"

    def __init__(self, artifact: Artifact, device: str = "cpu") -> None:
        super().__init__(artifact, device)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = processor_count()
        providers = _providers(device)
        wanted = providers[0][0]
        if wanted != "CPUExecutionProvider":
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        if wanted not in onnxruntime.get_available_providers():
            raise RuntimeUnavailable(
                device,
                f"this onnxruntime has no {wanted}",
                "pip uninstall onnxruntime; pip install 'tinyunet-deploy[gpu]'",
            )
        try:
            self._session = onnxruntime.InferenceSession(
                artifact.data, options, providers=providers
            )
        except Exception as error:  # its classes share no base but Exception
            detail = str(error).splitlines()[0]
            if wanted != "CPUExecutionProvider":
                raise RuntimeUnavailable(device, f"{wanted} does not start: {detail}") from error
            raise ArtifactError(artifact.path, f"onnxruntime refuses it: {detail}") from error
        self._session.disable_fallback()
        if self._session.get_providers()[0] != wanted:
            raise RuntimeUnavailable(
                device, f"{wanted} did not start", "tinyunet doctor says what is missing"
            )

        self._check_input(self._session.get_inputs()[0].shape)

    @property
    def versions(self) -> dict[str, str]:
        """Package name -> version of what computes here."""
        package = "onnxruntime" if self.device == "cpu" else "onnxruntime-gpu"
        try:
            return {package: importlib.metadata.version(package)}
        except importlib.metadata.PackageNotFoundError:
            return {"onnxruntime": str(onnxruntime.__version__)}

    def _run(self, image: Batch) -> Run:
        started = time.perf_counter()
        (score,) = self._session.run([OUTPUT_NAME], {INPUT_NAME: image})
        return Run(score, (time.perf_counter() - started) * 1e3)


def _providers(device: str) -> list[tuple[str, dict[str, Any]]]:
    if device == "cpu":
        return [("CPUExecutionProvider", {})]
    index = int(device.removeprefix("cuda:"))
    return [("CUDAExecutionProvider", {"device_id": index, "use_tf32": 0})]
