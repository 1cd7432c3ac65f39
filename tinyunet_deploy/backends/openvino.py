"""An ONNX file in OpenVINO, on the CPU."""

from __future__ import annotations

import contextlib
import importlib.metadata
import math
import statistics
import time
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np
import openvino

from tinyunet_deploy.artifacts.sidecar import Artifact
from tinyunet_deploy.backends.base import Backend, Run
from tinyunet_deploy.contract import Batch
from tinyunet_deploy.errors import (
    ArtifactError,
    RefusedError,
    RuntimeUnavailable,
    lacks_memory,
)
from tinyunet_deploy.host import processor_count

_COMPILED: Final = 4
"""Largest number of compiled networks kept, one per stream count; a run mostly needs two."""


@dataclass(frozen=True)
class Operator:
    """Time of one operator of the compiled graph, for one image."""

    name: str
    kind: str
    """Operator type, such as ``Convolution``."""
    kernel: str
    """Name of the runtime's implementation; ends in its precision."""
    ms: float


class OpenVINOBackend(Backend):
    """An ONNX file in OpenVINO, on the CPU, in the file's own precision.

    OpenVINO by itself would compute float32 as bfloat16 on CPUs that support it. The images of a
    batch are computed in parallel, each on its share of the processors: the data of one image stay
    in a cache, and processors do not wait for each other after every layer.
    """

    name = "openvino"
    number_type: ClassVar[str] = "f32"
    """Type of the numbers that are not int8, as OpenVINO names it."""
    capability: ClassVar[str] = "FP32"
    """Name of the same type in OpenVINO's list of what a processor can do."""

    def __init__(self, artifact: Artifact, device: str = "cpu") -> None:
        super().__init__(artifact, device)
        if device != "cpu":
            raise RuntimeUnavailable(
                device, "the openvino backend runs on the CPU only", "use --device cpu"
            )
        self._core = openvino.Core()
        self._check_number_type()
        self._compiled: OrderedDict[int, Any] = OrderedDict()
        try:
            self._model = self._core.read_model(artifact.data, b"")
            self._check_input(self._model.input(0).partial_shape)
            self._model.reshape([1, 1, self.contract.height, self.contract.width])
            self._network(1)
        except RuntimeError as error:
            detail = str(error).strip().splitlines()[-1].strip()
            if lacks_memory(detail):
                raise RuntimeUnavailable(device, f"openvino does not start: {detail}") from error
            raise ArtifactError(artifact.path, f"openvino refuses it: {detail}") from error

    @property
    def versions(self) -> dict[str, str]:
        """Package name -> version of each package that computes the scores."""
        return {"openvino": importlib.metadata.version("openvino")}

    def _check_number_type(self) -> None:
        """Refuse what cannot be computed in the number type; OpenVINO would ignore the hint."""
        if self.number_type == "f32":
            return
        precision = self.artifact.sidecar.precision
        if precision not in ("fp32", "unknown"):
            raise RefusedError(
                self.artifact.path,
                f"is an {precision} file; {self.name} computes float32 files only",
                "use the fp32 file, or another backend",
            )
        known = self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if self.capability not in known:
            raise RuntimeUnavailable(
                self.name, f"openvino does not compute in {self.number_type} on this processor"
            )

    def _network(self, images: int) -> Any:
        """Return the network compiled for ``images`` streams; compiling takes 0.1 to 0.2 s."""
        if images not in self._compiled:
            self._compiled[images] = self._compile({"NUM_STREAMS": images})
            if len(self._compiled) > _COMPILED:
                self._compiled.popitem(last=False)
        self._compiled.move_to_end(images)
        return self._compiled[images]

    def _compile(self, options: dict[str, Any]) -> Any:
        options |= {
            "INFERENCE_PRECISION_HINT": self.number_type,
            "INFERENCE_NUM_THREADS": processor_count(),
        }
        return self._core.compile_model(self._model, "CPU", options)

    def operators(self, image: Batch, calls: int) -> list[Operator]:
        """Return the median time of each operator, in graph order, by the runtime's counters.

        Args:
            image: uint8 [1, 1, H, W].
            calls: number of timed calls, at least 1.
        """
        request = self._compile({"NUM_STREAMS": 1, "PERF_COUNT": True}).create_infer_request()
        times = defaultdict[tuple[str, str, str], list[float]](list)
        for _ in range(calls):
            request.infer([openvino.Tensor(self._checked(image))])
            for node in request.profiling_info:
                if node.status == openvino.ProfilingInfo.Status.EXECUTED:
                    ms = node.real_time.total_seconds() * 1e3
                    times[node.node_name, node.node_type, node.exec_type].append(ms)
        return [Operator(*names, statistics.median(ms)) for names, ms in times.items()]

    def _run(self, image: Batch) -> Run:
        return self._start(image).finish()

    def run_many(self, images: Iterable[Batch]) -> Iterator[Run]:
        """Score batches in order; a processor that has finished with one starts on the next."""
        ahead: deque[_Running] = deque()
        ended = 0.0

        def finish() -> Run:
            nonlocal ended
            with self._translated_failures():
                run = ahead[0].finish(not_before=ended)
            ended = time.perf_counter()
            return self._checked_run(run, ahead.popleft().image)

        try:
            for image in images:
                with self._translated_failures():
                    ahead.append(self._start(self._checked(image)))
                if len(ahead) == 2:
                    yield finish()
            while ahead:
                yield finish()
        finally:
            for running in ahead:
                with contextlib.suppress(*self.failures):
                    running.wait()

    def _start(self, image: Batch) -> _Running:
        side_by_side = math.gcd(len(image), processor_count())  # both divide evenly
        return _Running(self._network(side_by_side), image, self._new_scores)


class OpenVINOBf16Backend(OpenVINOBackend):
    """A float32 ONNX file in OpenVINO, computed in bfloat16 on a CPU that has it.

    8 bits of mantissa instead of 24: outlines move by about a pixel, so it has parity limits of its
    own and is never chosen unasked.
    """

    name = "openvino-bf16"
    number_type = "bf16"
    capability = "BF16"


class OpenVINOFp16Backend(OpenVINOBackend):
    """A float32 ONNX file in OpenVINO, computed in half precision on a CPU that has it."""

    name = "openvino-fp16"
    number_type = "f16"
    capability = "FP16"


class _Running:
    """A batch whose images are being scored, one inference request per image."""

    def __init__(self, network: Any, image: Batch, new_scores: Callable[[Batch], Batch]) -> None:
        self.image = image
        self._new_scores = new_scores
        self._started = time.perf_counter()
        self._requests = [network.create_infer_request() for _ in image]
        with contextlib.ExitStack() as begun:  # if one cannot start, waits for those before it
            for index, request in enumerate(self._requests):
                part = openvino.Tensor(image[index : index + 1], shared_memory=True)
                request.set_input_tensor(part)
                begun.callback(request.wait)
                request.start_async()
            self._ends = begun.pop_all()

    def wait(self) -> None:
        """Wait until all requests have ended, even if one has failed."""
        self._ends.close()

    def finish(self, not_before: float = 0.0) -> Run:
        """Wait for the scores and return them.

        Args:
            not_before: end of the previous batch by ``time.perf_counter``; time before it is not
                counted.
        """
        self.wait()
        ended = time.perf_counter()
        parts = [request.get_output_tensor(0).data for request in self._requests]
        one = self.image[:1]
        fit = all((part.dtype, part.shape) == (one.dtype, one.shape) for part in parts)
        score = np.concatenate(parts, out=self._new_scores(self.image) if fit else None)
        copy_out_ms = (time.perf_counter() - ended) * 1e3
        started = max(self._started, not_before)
        return Run(score, (ended - started) * 1e3, copy_out_ms=copy_out_ms)
