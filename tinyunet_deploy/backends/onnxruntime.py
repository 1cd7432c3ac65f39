"""An ONNX file in ONNX Runtime: on the CPU, through CUDA, or through its TensorRT provider."""

from __future__ import annotations

import importlib.metadata
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, assert_never

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as native

from tinyunet_deploy.artifacts.precision import PRECISIONS, AnyPrecision, precision_facts
from tinyunet_deploy.artifacts.sidecar import Artifact
from tinyunet_deploy.backends import nvidia_probe
from tinyunet_deploy.backends.base import Backend, Run
from tinyunet_deploy.backends.install_hint import install_hint
from tinyunet_deploy.contract import INPUT_NAME, OUTPUT_NAME, Batch
from tinyunet_deploy.errors import ArtifactError, RuntimeUnavailable, lacks_memory
from tinyunet_deploy.host import processor_count, processor_flags

log = logging.getLogger(__name__)

_USUAL_BATCH, _MAX_BATCH = 8, 16
"""Batch sizes of the TensorRT engines that ONNX Runtime builds: the size that they are tuned for,
and the largest; a larger batch makes it rebuild them."""


class ONNXRuntimeBackend(Backend):
    """An ONNX file in ONNX Runtime, on the CPU or on an NVIDIA GPU through CUDA.

    Only the provider of ``device`` computes: a node that would fall back from the GPU to the CPU
    is an error.

    Args:
        graphs: replay each batch size's work on a GPU as one CUDA graph, from its second call on.
        provider_options: further options of the CUDA provider, by ONNX Runtime's names; None takes
            its own defaults. ``python -m benchmarks.cuda_options`` compares them.
    """

    name = "onnxruntime"
    failures = (
        *Backend.failures,
        native.EPFail,
        native.Fail,
        native.InvalidArgument,
        native.NotImplemented,
        native.RuntimeException,
    )

    def __init__(
        self,
        artifact: Artifact,
        device: str = "cpu",
        *,
        graphs: bool = True,
        provider_options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(artifact, device)
        self._graphs = graphs
        self._provider_options = dict(provider_options or {})
        if device == "cpu" and artifact.sidecar.unsigned_activations and _may_overflow():
            log.warning(
                "%s: was made for processors with VNNI, which this one lacks: sums of %s may "
                "overflow; tinyunet verify shows whether its scores are right here",
                artifact.path,
                self.name,
            )
        onnxruntime.disable_telemetry_events()
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = processor_count()
        providers = self._providers()
        wanted = providers[0][0]
        if wanted != "CPUExecutionProvider":
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        if wanted not in onnxruntime.get_available_providers():
            raise RuntimeUnavailable(
                device,
                f"this onnxruntime has no {wanted}",
                install_hint("onnxruntime", "gpu"),
            )
        try:
            self._session = onnxruntime.InferenceSession(
                artifact.data, options, providers=providers
            )
        except Exception as error:  # its error classes share no base except Exception
            detail = str(error).splitlines()[0]
            if wanted != "CPUExecutionProvider" or lacks_memory(detail):
                raise RuntimeUnavailable(device, f"{wanted} does not start: {detail}") from error
            raise ArtifactError(artifact.path, f"onnxruntime refuses it: {detail}") from error
        self._session.disable_fallback()
        if self._session.get_providers()[0] != wanted:
            raise RuntimeUnavailable(
                device, f"{wanted} did not start", "tinyunet doctor says what is missing"
            )
        self._bindings: dict[int, DeviceBinding] = {}
        """Images in a batch -> its buffers on the GPU."""

        self._check_input(self._session.get_inputs()[0].shape)

    @property
    def versions(self) -> dict[str, str]:
        """Package name -> version of each package that computes the scores."""
        package = "onnxruntime" if self.device == "cpu" else "onnxruntime-gpu"
        try:
            return {package: importlib.metadata.version(package)}
        except importlib.metadata.PackageNotFoundError:
            return {"onnxruntime": str(onnxruntime.__version__)}

    @property
    def synchronization(self) -> str:
        """Meaning of ``Run.device_ms``, and how the end of that time is determined."""
        if self.device == "cpu":
            return super().synchronization
        return "wall clock from run_with_iobinding to the end of synchronize_outputs"

    def _providers(self) -> list[tuple[str, dict[str, Any]]]:
        """Return the providers and their options, the required one first."""
        if self.device == "cpu":
            return [("CPUExecutionProvider", {})]
        index = nvidia_probe.gpu_index(self.device)
        options = cuda_options(self.artifact, index, self._graphs)
        return [("CUDAExecutionProvider", options | self._provider_options)]

    def _run(self, image: Batch) -> Run:
        if self.device == "cpu":
            started = time.perf_counter()
            (score,) = self._session.run([OUTPUT_NAME], {INPUT_NAME: image})
            return Run(score, (time.perf_counter() - started) * 1e3)
        binding = self._bindings.get(len(image))
        if binding is None:
            index = nvidia_probe.gpu_index(self.device)
            binding = DeviceBinding.of(self._session, image.shape, "cuda", index)
            self._bindings[len(image)] = binding
        return binding.run(self._session, image)


class ONNXRuntimeTensorRTBackend(ONNXRuntimeBackend):
    """An ONNX file in ONNX Runtime, which builds TensorRT engines for it and runs them.

    The first call with a new file builds its engines, which takes minutes. Engines and timings are
    kept in ``$XDG_CACHE_HOME/tinyunet-deploy``, in a folder named by the file's sha256.
    """

    name = "onnxruntime-tensorrt"

    def _providers(self) -> list[tuple[str, dict[str, Any]]]:
        index = nvidia_probe.gpu_index(self.device)
        folder = cache_folder(self.artifact)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)  # an engine is a program
        options = {"device_id": index, **tensorrt_options(self.artifact, folder)}
        return [
            ("TensorrtExecutionProvider", options),
            ("CUDAExecutionProvider", {"device_id": index, "use_tf32": 0}),
        ]


class DeviceBinding(NamedTuple):
    """Buffers on the device for batches of one size; allocated once and used by every call."""

    image: onnxruntime.OrtValue
    score: onnxruntime.OrtValue
    io: onnxruntime.IOBinding
    options: onnxruntime.RunOptions
    """Run options that name the CUDA graph of this batch size."""

    @classmethod
    def of(
        cls, session: onnxruntime.InferenceSession, shape: tuple[int, ...], kind: str, index: int
    ) -> DeviceBinding:
        """Allocate the buffers and bind them to the network's input and output.

        Args:
            shape: [N, 1, H, W].
            kind: ONNX Runtime's name of the device type, ``cuda`` or ``cpu``.
            index: index of the device, from 0.
        """
        image, score = (
            onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, np.uint8, kind, index)
            for _ in range(2)
        )
        io = session.io_binding()
        io.bind_ortvalue_input(INPUT_NAME, image)
        io.bind_ortvalue_output(OUTPUT_NAME, score)
        options = onnxruntime.RunOptions()
        options.add_run_config_entry("gpu_graph_id", str(shape[0]))
        return cls(image, score, io, options)

    def run(self, session: onnxruntime.InferenceSession, image: Batch) -> Run:
        """Copy the batch in, run the network, copy the scores out; each step is timed."""
        began = time.perf_counter()
        self.image.update_inplace(image)
        started = time.perf_counter()
        session.run_with_iobinding(self.io, self.options)
        self.io.synchronize_outputs()
        ended = time.perf_counter()
        score = np.array(self.score.numpy(), copy=True)
        times = (ended - started, started - began, time.perf_counter() - ended)
        return Run(score, *(1e3 * seconds for seconds in times))


def _may_overflow() -> bool:
    """Return whether this processor adds products of uint8 and int8 in 16 bits."""
    flags = processor_flags()
    return flags is not None and "avx2" in flags and not flags & {"avx512_vnni", "avx_vnni"}


def cuda_options(artifact: Artifact, index: int, graphs: bool) -> dict[str, Any]:
    """Return the options of ONNX Runtime's CUDA provider.

    Args:
        graphs: replay CUDA graphs where the precision allows it.
    """
    graphs = graphs and _allows_graphs(artifact.sidecar.precision)
    return {"device_id": index, "use_tf32": 0, "enable_cuda_graph": int(graphs)}


def _allows_graphs(precision: AnyPrecision) -> bool:
    match precision:
        case "fp32" | "fp16" | "unknown":
            return True
        case "int8":  # ONNX Runtime 1.31 leaves some nodes outside CUDA and then refuses graphs
            return False
        case _:
            assert_never(precision)


def cache_folder(artifact: Artifact) -> Path:
    """Return the folder in which ONNX Runtime keeps the TensorRT engines of one file."""
    root = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    folder = f"onnxruntime-{onnxruntime.__version__}/{artifact.sidecar.sha256}"
    try:
        return Path(root).expanduser() / "tinyunet-deploy" / folder
    except RuntimeError as error:  # the user has no home folder
        raise RuntimeUnavailable(root, str(error), "set XDG_CACHE_HOME") from error


def tensorrt_options(artifact: Artifact, folder: Path) -> dict[str, Any]:
    """Return the options of ONNX Runtime's TensorRT provider: profile, engine and timing cache.

    The provider does not take precisions from the file, so fp16 and int8 files need their flag.
    """
    contract = artifact.sidecar.contract
    size = f"1x{contract.height}x{contract.width}"
    most = contract.max_batch or _MAX_BATCH
    return {
        "trt_engine_cache_enable": True,
        "trt_engine_cache_path": str(folder),
        "trt_timing_cache_enable": True,
        "trt_timing_cache_path": str(folder),
        "trt_profile_min_shapes": f"{INPUT_NAME}:1x{size}",
        "trt_profile_opt_shapes": f"{INPUT_NAME}:{min(_USUAL_BATCH, most)}x{size}",
        "trt_profile_max_shapes": f"{INPUT_NAME}:{most}x{size}",
        **{
            row.provider_flag: row.name == artifact.sidecar.precision
            for row in map(precision_facts, PRECISIONS)
            if row.provider_flag is not None
        },
    }
