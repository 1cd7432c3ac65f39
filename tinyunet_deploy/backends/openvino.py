"""An ONNX file in OpenVINO, on the CPU."""

from __future__ import annotations

import time

import numpy as np
import openvino

from tinyunet_deploy.artifact import Artifact
from tinyunet_deploy.backends import Backend, Run, processor_count
from tinyunet_deploy.contract import Batch
from tinyunet_deploy.errors import ArtifactError, RuntimeUnavailable


class OpenVINOBackend(Backend):
    """In the file's own precision: OpenVINO would run float32 as bfloat16 where the CPU has it."""

    name = "openvino"

    def __init__(self, artifact: Artifact, device: str = "cpu") -> None:
        super().__init__(artifact, device)
        if device != "cpu":
            raise RuntimeUnavailable(device, "openvino runs on the CPU here", "use --device cpu")
        try:
            core = openvino.Core()
            model = core.read_model(artifact.data, b"")
            self._model = core.compile_model(
                model,
                "CPU",
                {
                    "INFERENCE_PRECISION_HINT": "f32",
                    "PERFORMANCE_HINT": "LATENCY",
                    "INFERENCE_NUM_THREADS": processor_count(),
                },
            )
        except RuntimeError as error:
            detail = str(error).strip().splitlines()[-1].strip()
            raise ArtifactError(artifact.path, f"openvino refuses it: {detail}") from error
        self._check_input(self._model.input(0).partial_shape)
        self._request = self._model.create_infer_request()

    def _run(self, image: Batch) -> Run:
        started = time.perf_counter()
        try:
            self._request.infer([openvino.Tensor(image)])
        except RuntimeError as error:
            detail = str(error).strip().splitlines()[-1].strip()
            raise ArtifactError(self.artifact.path, f"openvino cannot run it: {detail}") from error
        device_ms = (time.perf_counter() - started) * 1e3
        return Run(np.array(self._request.get_output_tensor(0).data, copy=True), device_ms)
