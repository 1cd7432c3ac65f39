"""A fake TensorRT for tests, without the library: a plan is a function on the fake GPU.

>>> device = FakeDevice()
>>> trt = FakeTensorRT(device)
>>> backend = TensorRTBackend(artifact, tensorrt=trt.library, gpu=device)  # doctest: +SKIP
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from enum import Enum
from types import SimpleNamespace
from typing import Any

import numpy as np

from tinyunet_deploy.artifacts.facts import Profile
from tinyunet_deploy.backends.nvidia_probe import TensorRT
from tinyunet_deploy.contract import INPUT_NAME, OUTPUT_NAME, Batch, Contract
from tinyunet_deploy.testing.fake_cuda import POISON, FakeDevice, Work

__all__ = ["FakeTensorRT"]


class _Severity(Enum):
    INTERNAL_ERROR = 0
    ERROR = 1


class _IOMode(Enum):
    INPUT = 1
    OUTPUT = 2


class _DataType(Enum):
    UINT8 = 0
    FLOAT = 1


class _AllocationStrategy(Enum):
    USER_MANAGED = 2


class _Stat(Enum):
    TOTAL_WEIGHTS_SIZE = 0


class _Format(Enum):
    JSON = 1


class _SerializationFlag(Enum):
    INCLUDE_REFIT = 2


class _IProfiler:
    def __init__(self) -> None: ...


class _ILogger:
    Severity = _Severity

    def __init__(self) -> None: ...


class FakeTensorRT:
    """A TensorRT whose plans compute a function.

    Args:
        device: fake GPU that computes.
        score: uint8 [N, 1, H, W] images -> uint8 [N, 1, H, W] scores; None returns the images.
        contract: image size and largest batch of a plan.
        least: smallest batch of a plan with one profile.
        profiles: optimisation profiles of a plan; None is one, from ``least`` to the contract's
            largest batch.
        flavour, version: flavour and version that the library reports.
        dtype: type of a plan's tensors, by its name in TensorRT.
        refuses: error text with which every plan is refused; None accepts all.
        enqueues: number of executions that succeed before they fail; None for all.
        layers: name and milliseconds of each layer that a profiler gets after a call.
        information: JSON that the inspector returns.
        weights: name -> bytes of a plan's weights; None for a plan that is not refittable.
        score_with: function that returns the score function of a plan with these weights; None
            takes ``score``.
    """

    def __init__(
        self,
        device: FakeDevice,
        score: Callable[[Batch], Batch] | None = None,
        *,
        contract: Contract = Contract(16, 16, max_batch=4),  # noqa: B008  immutable
        least: int = 1,
        profiles: Sequence[Profile] | None = None,
        flavour: str = "tensorrt",
        version: str = "11.4.0.106",
        dtype: str = "UINT8",
        refuses: str | None = None,
        enqueues: int | None = None,
        layers: Sequence[tuple[str, float]] = (("conv", 0.5), ("reformat", 0.25)),
        information: str = '{"Layers": [], "Bindings": []}',
        weights: Mapping[str, bytes] | None = None,
        score_with: Callable[[Mapping[str, bytes]], Callable[[Batch], Batch]] | None = None,
    ) -> None:
        assert contract.max_batch is not None
        self.device = device
        self.score = score or (lambda image: image)
        self.contract = contract
        largest = contract.max_batch
        self.profiles = tuple(profiles or (Profile(least, least, largest),))
        self.chosen: list[tuple[int, int]] = []
        """Profile and batch of each context, in order."""
        self.dtype = _DataType[dtype]
        self.refuses = refuses
        self.enqueues = enqueues
        self.layers = layers
        self.information = information
        self.weights = weights
        self.score_with = score_with
        self.refitted: dict[bytes, dict[str, bytes]] = {}
        """Plan that was serialised after a refit -> its weights."""
        self.unset: Collection[str] = ()
        """Weights that the ONNX refitter forgets."""
        self.stuck: Collection[str] = ()
        """Weights that keep their value although a refit succeeds."""
        self.host_code_allowed: list[bool] = []
        """Whether programs inside a plan were allowed, for each plan that was loaded."""
        self.deserialised = 0
        """Number of plans that were deserialised or refused."""
        self.shapes: list[tuple[int, ...]] = []
        """Input shapes that contexts were set to, in order."""
        self.library = TensorRT(
            flavour,
            version,
            SimpleNamespace(
                ILogger=_ILogger,
                Runtime=lambda log: _Runtime(self, log),
                TensorIOMode=_IOMode,
                DataType=_DataType,
                ExecutionContextAllocationStrategy=_AllocationStrategy,
                EngineStat=_Stat,
                LayerInformationFormat=_Format,
                IProfiler=_IProfiler,
                Refitter=_Refitter,
                OnnxParserRefitter=_OnnxParserRefitter,
                SerializationFlag=_SerializationFlag,
            ),
        )
        """Stands for the result of :func:`tinyunet_deploy.backends.nvidia_probe.tensorrt`."""


class _Runtime:
    def __init__(self, trt: FakeTensorRT, log: Any) -> None:
        trt.device.check_current()
        self._trt = trt
        self._log = log
        self.engine_host_code_allowed = False

    def deserialize_cuda_engine(self, data: bytes) -> _Engine | None:
        self._trt.deserialised += 1
        self._trt.host_code_allowed.append(self.engine_host_code_allowed)
        if self._trt.refuses is not None:
            self._log.log(_Severity.ERROR, self._trt.refuses)
            return None
        return _Engine(self._trt, self._log, data)


class _Engine:
    num_io_tensors = 2
    device_memory_size_v2 = 512

    def __init__(self, trt: FakeTensorRT, log: Any, data: bytes) -> None:
        self.trt = self._trt = trt
        self._log = log
        self.weights = dict(trt.refitted.get(data, trt.weights or {}))
        self.score = trt.score if trt.score_with is None else trt.score_with(self.weights)

    @property
    def refittable(self) -> bool:
        return self._trt.weights is not None

    def create_serialization_config(self) -> _SerializationConfig:
        return _SerializationConfig()

    def serialize_with_config(self, config: _SerializationConfig) -> bytes:
        assert config.flags == {_SerializationFlag.INCLUDE_REFIT}
        data = b"refitted " + hashlib.sha256(repr(self.weights).encode()).digest()
        self._trt.refitted[data] = dict(self.weights)
        return data

    def get_tensor_name(self, index: int) -> str:
        return (INPUT_NAME, OUTPUT_NAME)[index]

    def get_tensor_mode(self, name: str) -> _IOMode:
        return _IOMode.INPUT if name == INPUT_NAME else _IOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> _DataType:
        return self._trt.dtype

    def get_tensor_profile_shape(self, name: str, index: int) -> list[tuple[int, ...]]:
        contract = self._trt.contract
        batches = self._trt.profiles[index].sizes
        return [(batch, 1, contract.height, contract.width) for batch in batches]

    @property
    def num_optimization_profiles(self) -> int:
        return len(self._trt.profiles)

    def create_execution_context(self, strategy: _AllocationStrategy) -> _Context:
        return _Context(self._trt, self._log, self.score)

    def create_engine_inspector(self) -> _Inspector:
        return _Inspector(self._trt)

    def get_engine_stat(self, stat: _Stat) -> int:
        return 1024


class _SerializationConfig:
    def __init__(self) -> None:
        self.flags: set[_SerializationFlag] = set()

    def set_flag(self, flag: _SerializationFlag) -> None:
        self.flags.add(flag)


class _Refitter:
    def __init__(self, engine: _Engine, log: Any) -> None:
        engine.trt.device.check_current()
        self.engine = engine
        self.given: dict[str, bytes] = {}

    def get_all_weights(self) -> list[str]:
        return list(self.engine.weights)

    def get_missing_weights(self) -> list[str]:
        return [name for name in self.engine.weights if name not in self.given]

    def refit_cuda_engine(self) -> bool:
        if self.get_missing_weights():
            return False
        stuck = self.engine.trt.stuck
        self.engine.weights |= {n: v for n, v in self.given.items() if n not in stuck}
        return True


class _OnnxParserRefitter:
    def __init__(self, refitter: _Refitter, log: Any) -> None:
        self._refitter = refitter
        self._errors: list[str] = []

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> Any:
        return SimpleNamespace(desc=lambda: self._errors[index])

    def refit_from_bytes(self, model: bytes) -> bool:
        import onnx
        from onnx import numpy_helper

        engine = self._refitter.engine
        for value in onnx.load_from_string(model).graph.initializer:
            data = numpy_helper.to_array(value).tobytes()
            if value.name not in engine.weights or value.name in engine.trt.unset:
                continue
            if len(data) != len(engine.weights[value.name]):
                self._errors.append(f"{value.name} has another number of weights")
                return False
            self._refitter.given[value.name] = data
        return True


class _Inspector:
    def __init__(self, trt: FakeTensorRT) -> None:
        self._trt = trt
        self.execution_context: _Context | None = None

    def get_engine_information(self, format: _Format) -> str:
        return self._trt.information


class _Context:
    def __init__(self, trt: FakeTensorRT, log: Any, score: Callable[[Batch], Batch]) -> None:
        self._trt = trt
        self._log = log
        self._score = score
        self._shape: tuple[int, ...] = ()
        self._addresses: dict[str, int] = {}
        self._activations = 0
        self._profile = 0
        self._stream: int | None = None
        self.profiler: Any = None
        self.enqueue_emits_profile = True

    def set_device_memory(self, memory: int, size: int) -> None:
        assert len(self._trt.device.bytes_at(memory)) >= size
        self._activations = memory

    def set_optimization_profile_async(self, index: int, handle: int) -> bool:
        self._profile = index
        self._shape = ()
        return 0 <= index < len(self._trt.profiles)

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        contract = self._trt.contract
        profile = self._trt.profiles[self._profile]
        ok = profile.min <= shape[0] <= profile.max
        ok = ok and shape[1:] == (1, contract.height, contract.width)
        if not ok:
            self._log.log(_Severity.ERROR, f"{name} {shape} is outside the profile")
        self._shape = shape
        self._trt.shapes.append(shape)
        self._trt.chosen.append((self._profile, shape[0]))
        return ok

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return True

    def infer_shapes(self) -> list[str]:
        return [] if self._shape else [INPUT_NAME]

    def execute_async_v3(self, handle: int) -> bool:
        trt = self._trt
        if trt.enqueues is not None:
            if not trt.enqueues:
                self._log.log(_Severity.ERROR, "IExecutionContext::enqueueV3: no executions left")
                return False
            trt.enqueues -= 1
        self._stream = handle
        shape, size = self._shape, int(np.prod(self._shape))
        image, score = self._addresses[INPUT_NAME], self._addresses[OUTPUT_NAME]
        device, activations = trt.device, self._activations
        compute = self._score
        token = device.next_address() >> 20 & 0xFF

        def begin() -> None:
            result = compute(device.bytes_at(image)[:size].reshape(shape).copy())
            device.bytes_at(score)[:size] = POISON
            device.bytes_at(activations)[:] = token
            results.append(result)

        def end() -> None:
            result = results.pop()
            if (device.bytes_at(activations) == token).all():
                device.bytes_at(score)[:size] = result.ravel()

        results: list[Batch] = []
        stream = device.stream_of(handle)
        stream.put(Work("compute", begin))
        stream.put(Work("computed", end))
        return True

    def report_to_profiler(self) -> bool:
        """Report the times of the last call, which must be done."""
        if self.profiler is None or self._stream is None or self.enqueue_emits_profile:
            return False
        if self._trt.device.stream_of(self._stream).queue:
            self._log.log(_Severity.ERROR, "the call to report is not done")
            return False
        for name, ms in self._trt.layers:
            self.profiler.report_layer_time(name, ms)
        return True
