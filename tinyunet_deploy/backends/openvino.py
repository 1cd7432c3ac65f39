"""An ONNX file in OpenVINO, on the CPU."""

from __future__ import annotations

import contextlib
import math
import statistics
import time
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import openvino

from tinyunet_deploy.artifacts.sidecar import Artifact
from tinyunet_deploy.backends.base import Backend, Run
from tinyunet_deploy.contract import Batch
from tinyunet_deploy.errors import ArtifactError, RuntimeUnavailable, lacks_memory
from tinyunet_deploy.host import processor_count

_COMPILED: Final = 4
"""Ways to share the processors that are kept; most runs have one, the last batch another."""


@dataclass(frozen=True)
class Operator:
    """What one operator of the compiled graph takes for one image."""

    name: str
    kind: str
    """Such as ``Convolution``."""
    kernel: str
    """The runtime's implementation, its precision last."""
    ms: float


class OpenVINOBackend(Backend):
    """In the file's own precision: OpenVINO would run float32 as bfloat16 where the CPU has it.

    The images of a batch run side by side, each on its share of the processors: what one image
    needs stays in a cache, and no processor waits for another after every layer.
    """

    name = "openvino"

    def __init__(self, artifact: Artifact, device: str = "cpu") -> None:
        super().__init__(artifact, device)
        if device != "cpu":
            raise RuntimeUnavailable(device, "openvino runs on the CPU here", "use --device cpu")
        self._core = openvino.Core()
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

    def _network(self, images: int) -> Any:
        """What runs so many images side by side; compiled in 0.1 to 0.2 s."""
        if images not in self._compiled:
            self._compiled[images] = self._compile({"NUM_STREAMS": images})
            if len(self._compiled) > _COMPILED:
                self._compiled.popitem(last=False)
        self._compiled.move_to_end(images)
        return self._compiled[images]

    def _compile(self, options: dict[str, Any]) -> Any:
        options |= {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": processor_count()}
        return self._core.compile_model(self._model, "CPU", options)

    def operators(self, image: Batch, calls: int) -> list[Operator]:
        """What takes the time, in the order of the graph: medians of the runtime's counters.

        Args:
            image: uint8 [1, 1, H, W].
            calls: at least 1.
        """
        request = self._compile({"NUM_STREAMS": 1, "PERF_COUNT": True}).create_infer_request()
        times = defaultdict[tuple[str, str, str], list[float]](list)
        for _ in range(calls):
            request.infer([openvino.Tensor(self._checked(image))])
            for each in request.profiling_info:
                if each.status == openvino.ProfilingInfo.Status.EXECUTED:
                    ms = each.real_time.total_seconds() * 1e3
                    times[each.node_name, each.node_type, each.exec_type].append(ms)
        return [Operator(*names, statistics.median(found)) for names, found in times.items()]

    def _run(self, image: Batch) -> Run:
        return self._start(image).finish()

    def run_many(self, images: Iterable[Batch]) -> Iterator[Run]:
        """A processor that has finished its images of one batch begins with the next."""
        ahead: deque[_Running] = deque()
        ended = 0.0

        def finish() -> Run:
            nonlocal ended
            with self._failures_told():
                run = ahead[0].finish(not_before=ended)
            ended = time.perf_counter()
            return self._checked_run(run, ahead.popleft().image)

        try:
            for image in images:
                with self._failures_told():
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
        side_by_side = math.gcd(len(image), processor_count())  # none of either is left over
        return _Running(self._network(side_by_side), image)


class _Running:
    """A batch whose images are being scored, each by a request of its own."""

    def __init__(self, network: Any, image: Batch) -> None:
        self.image = image
        self._started = time.perf_counter()
        self._requests = [network.create_infer_request() for _ in image]
        with contextlib.ExitStack() as begun:  # waits for those before one that does not begin
            for index, request in enumerate(self._requests):
                part = openvino.Tensor(image[index : index + 1], shared_memory=True)
                request.set_input_tensor(part)
                begun.callback(request.wait)
                request.start_async()
            self._ends = begun.pop_all()

    def wait(self) -> None:
        """Return when no image is read any more, even if one has failed."""
        self._ends.close()

    def finish(self, not_before: float = 0.0) -> Run:
        """Wait for the scores; the time counts from when a batch before it had ended."""
        self.wait()
        ended = time.perf_counter()
        score = np.concatenate([each.get_output_tensor(0).data for each in self._requests])
        copy_out_ms = (time.perf_counter() - ended) * 1e3
        started = max(self._started, not_before)
        return Run(score, (ended - started) * 1e3, copy_out_ms=copy_out_ms)
