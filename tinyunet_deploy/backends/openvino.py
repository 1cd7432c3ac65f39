"""An ONNX file in OpenVINO, on the CPU."""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import Any, Final

import numpy as np
import openvino

from tinyunet_deploy.artifact import Artifact
from tinyunet_deploy.backends import Backend, Run, processor_count
from tinyunet_deploy.contract import Batch
from tinyunet_deploy.errors import ArtifactError, RuntimeUnavailable, lacks_memory

_COMPILED: Final = 4
"""Batch sizes that are kept compiled; most runs have one and a shorter last batch."""


class OpenVINOBackend(Backend):
    """In the file's own precision: OpenVINO would run float32 as bfloat16 where the CPU has it.

    Compiled anew for each batch size, in 0.1 to 0.2 s: with the size left open, a call on a single
    image costs 2 ms more.
    """

    name = "openvino"

    def __init__(self, artifact: Artifact, device: str = "cpu") -> None:
        super().__init__(artifact, device)
        if device != "cpu":
            raise RuntimeUnavailable(device, "openvino runs on the CPU here", "use --device cpu")
        self._core = openvino.Core()
        self._requests: OrderedDict[int, Any] = OrderedDict()
        try:
            self._model = self._core.read_model(artifact.data, b"")
            self._check_input(self._model.input(0).partial_shape)
            self._request(1)
        except RuntimeError as error:
            detail = str(error).strip().splitlines()[-1].strip()
            if lacks_memory(detail):
                raise RuntimeUnavailable(device, f"openvino does not start: {detail}") from error
            raise ArtifactError(artifact.path, f"openvino refuses it: {detail}") from error

    def _request(self, batch: int) -> Any:
        """What runs batches of so many images."""
        if batch not in self._requests:
            model = self._model.clone()
            model.reshape([batch, 1, self.contract.height, self.contract.width])
            compiled = self._core.compile_model(
                model,
                "CPU",
                {
                    "INFERENCE_PRECISION_HINT": "f32",
                    "PERFORMANCE_HINT": "LATENCY",
                    "INFERENCE_NUM_THREADS": processor_count(),
                },
            )
            self._requests[batch] = compiled.create_infer_request()
            if len(self._requests) > _COMPILED:
                self._requests.popitem(last=False)
        self._requests.move_to_end(batch)
        return self._requests[batch]

    def _run(self, image: Batch) -> Run:
        request = self._request(len(image))
        started = time.perf_counter()
        request.infer([openvino.Tensor(image)])
        ended = time.perf_counter()
        score = np.array(request.get_output_tensor(0).data, copy=True)
        copy_out_ms = (time.perf_counter() - ended) * 1e3
        return Run(score, (ended - started) * 1e3, copy_out_ms=copy_out_ms)
