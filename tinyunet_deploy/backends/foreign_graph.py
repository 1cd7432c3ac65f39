"""Run a graph that does not keep the contract in ONNX Runtime, as it came from its maker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from tinyunet_deploy.errors import ArtifactError, OutOfMemory, lacks_memory
from tinyunet_deploy.host import processor_count

__all__ = ["ForeignGraph"]


class ForeignGraph:
    """One graph with one input, on the CPU.

    Load a graph of unknown origin only after
    :func:`~tinyunet_deploy.backends.sandbox.try_graph` has tried it.

    Args:
        data: the ONNX file.
        where: its path, for errors.
        output: name of the output that is read.

    Raises:
        ArtifactError: ONNX Runtime refuses the graph.
    """

    def __init__(self, data: bytes, where: Path, output: str) -> None:
        onnxruntime.disable_telemetry_events()
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = processor_count()
        self._where = where
        self._output = output
        try:
            self._session = onnxruntime.InferenceSession(
                data, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its error classes share no base except Exception
            raise self._failed("refuses it", error) from error
        self._input = self._session.get_inputs()[0].name

    def run(self, images: NDArray[Any]) -> NDArray[Any]:
        """Return the output for an array of the input's type and shape.

        Raises:
            ArtifactError: the graph does not run on this array, or does not give numbers.
            OutOfMemory: memory does not hold it.
        """
        try:
            (values,) = self._session.run([self._output], {self._input: images})
        except Exception as error:
            raise self._failed(f"cannot run it on {list(images.shape)}", error) from error
        if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiub":
            raise ArtifactError(self._where, "does not give a tensor of numbers")
        return values

    def _failed(self, what: str, error: Exception) -> ArtifactError | OutOfMemory:
        detail = (str(error).strip() or repr(error)).splitlines()[0][:300]
        if lacks_memory(detail):
            return OutOfMemory("cpu", f"onnxruntime failed: {detail}")
        return ArtifactError(self._where, f"onnxruntime {what}: {detail}")
