"""Measure the peak rates of this machine: matrix products, memory bandwidth, and a GPU's bus."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import numpy as np

from tinyunet_deploy.artifacts.precision import Precision, precision_facts
from tinyunet_deploy.artifacts.sidecar import Sidecar, digest, write_artifact
from tinyunet_deploy.backends import nvidia_probe
from tinyunet_deploy.backends.registry import open_backend
from tinyunet_deploy.backends.table import rows_for, why_not
from tinyunet_deploy.contract import Contract
from tinyunet_deploy.errors import TinyUNetError
from tinyunet_deploy.files import scratch_folder
from tinyunet_deploy.host import processor_count
from tinyunet_deploy.speed.benchmark_result import Ceiling
from tinyunet_deploy.speed.peak_graph import BLOCK, CHANNELS, matrix_flop, matrix_graph

__all__ = ["cpu_ceilings", "gpu_ceilings", "measure_ceilings"]

REPEATS: Final = 5
"""Number of counted repetitions; the largest rate is the ceiling."""
_GIGA: Final = 1e9
_CPU_PRECISIONS: Final[tuple[Precision, ...]] = ("fp32", "int8")
"""Precisions with their own ceiling on a CPU, which computes fp16 files in float32."""


def measure_ceilings(device: str) -> Iterator[tuple[str, Ceiling | TinyUNetError]]:
    """Measure the peak rates (ceilings) of a device.

    Args:
        device: ``cpu`` or ``cuda:N``.

    Yields:
        The name of each ceiling with its value, or with the error if it cannot be measured.
    """
    if device == "cpu":
        yield from cpu_ceilings()
        return
    try:
        for ceiling in gpu_ceilings(device):
            yield ceiling.name, ceiling
    except TinyUNetError as error:
        yield device, error


def cpu_ceilings(
    size: int = 1024, layers: int = 4, megabytes: int = 128
) -> Iterator[tuple[str, Ceiling | TinyUNetError]]:
    """Measure the CPU.

    Args:
        size: side of the image of the matrix graph, pixels, a multiple of 16.
        layers: number of its convolutions.
        megabytes: size of each array that the memory is measured with; larger than all caches.

    Yields:
        The name of each ceiling with its value, or with the error if it cannot be measured.
    """
    yield "float32 numpy", _numpy_matrix(2 * size)
    for precision in _CPU_PRECISIONS:
        kind = precision_facts(precision).number_type
        for runtime in [row.name for row in rows_for("onnx", "cpu", unasked_only=True)]:
            try:
                ceiling = _onnx_matrix(runtime, precision, size, layers)
            except TinyUNetError as error:
                yield f"{kind} {runtime}", error
            else:
                yield ceiling.name, ceiling
    for ceiling in _memory(megabytes * 2**20):
        yield ceiling.name, ceiling


def _rate(work: float, call: Callable[[], object]) -> tuple[float, ...]:
    """Return the rate of each repetition, in 10^9 per second, after one that is not counted."""
    call()
    rates = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        call()
        rates.append(work / (time.perf_counter() - started) / _GIGA)
    return tuple(rates)


def _numpy_matrix(side: int) -> Ceiling:
    random = np.random.default_rng(0)
    first, second = random.standard_normal((2, side, side), np.float32)
    out = np.empty_like(first)
    rates = _rate(2.0 * side**3, lambda: np.matmul(first, second, out=out))
    what = f"numpy.matmul of two float32 matrices of {side}x{side}"
    return Ceiling("float32 numpy", "float32", "cpu", max(rates), "GFLOP/s", "numpy", what, rates)


def _onnx_matrix(runtime: str, precision: Precision, size: int, layers: int) -> Ceiling:
    kind = precision_facts(precision).number_type
    reason = why_not(runtime)
    if reason is not None:
        raise TinyUNetError(runtime, reason)
    data = matrix_graph(precision, size, layers)
    sidecar = Sidecar("onnx", precision, digest(data), None, Contract(size, size))
    image = np.random.default_rng(0).integers(0, 256, (1, 1, size, size), np.uint8)
    with scratch_folder() as folder:
        path = folder / "ceiling.onnx"
        write_artifact(path, data, sidecar)
        with open_backend(path, runtime, "cpu") as backend:
            rates = _rate(layers * matrix_flop(size), lambda: backend.run(image))
            threads = backend.threads
    cells = size // BLOCK
    what = (
        f"{layers} 3x3 convolutions {CHANNELS} -> {CHANNELS} with ReLU over {cells}x{cells}, "
        f"{kind}{' by Q/DQ' if precision_facts(precision).quantized else ''}, as an ONNX graph on "
        f"the backend {runtime} with {threads} threads, the copies and casts of its ends included"
    )
    name = f"{kind} {runtime}"
    return Ceiling(name, kind, "cpu", max(rates), "GFLOP/s", runtime, what, rates)


def _memory(size: int) -> list[Ceiling]:
    """Measure the bandwidth of main memory over all processors (McCalpin's STREAM: copy, triad).

    Only the bytes that the program names are counted, not those that the processor reads before it
    overwrites them. The triad runs in pieces that stay in the cache between its two steps.
    """
    threads = processor_count()
    arrays = np.ones((3, size // 4), np.float32)
    parts = np.array_split(arrays, threads, axis=1)
    piece = 8192

    def copy(part: Any) -> None:
        np.copyto(part[0], part[1])

    def triad(part: Any) -> None:
        out, first, second = part
        for start in range(0, part.shape[1], piece):
            values = slice(start, start + piece)
            np.multiply(second[values], np.float32(3), out=out[values])
            np.add(out[values], first[values], out=out[values])

    ceilings = []
    with ThreadPoolExecutor(threads) as pool:
        for name, work, moved, what in (
            ("copy", copy, 2, "numpy.copyto"),
            ("triad", triad, 3, f"a = b + 3 c with numpy in pieces of {piece} values"),
        ):
            rates = _rate(moved * size, functools.partial(_on_all, pool, work, parts))
            text = f"{what}, {threads} threads, float32 arrays of {size / 2**20:g} MiB"
            ceilings.append(
                Ceiling(f"memory {name}", "memory", "cpu", max(rates), "GB/s", "numpy", text, rates)
            )
    return ceilings


def _on_all(pool: ThreadPoolExecutor, work: Callable[[Any], None], parts: Sequence[Any]) -> None:
    list(pool.map(work, parts))


def gpu_ceilings(device: str) -> list[Ceiling]:
    """Measure a GPU through PyTorch: float32, TF32, float16 and int8 matrices, memory, its bus.

    Raises:
        TinyUNetError: PyTorch is not installed, or sees no such GPU.
    """
    index = nvidia_probe.gpu_index(device)
    try:
        import torch
    except ImportError as error:
        raise TinyUNetError(
            "torch", "is not installed, but is needed to measure the GPU"
        ) from error
    if index >= torch.cuda.device_count():
        raise TinyUNetError(device, "torch sees no such GPU")
    return _gpu_ceilings(torch, device)


def _gpu_ceilings(torch: Any, device: str, side: int = 8192) -> list[Ceiling]:
    runtime = f"torch {torch.__version__}"

    def measure(
        kind: str, work: float, unit: str, what: str, call: Callable[[], object]
    ) -> Ceiling:
        def call_and_wait() -> None:
            call()
            torch.cuda.synchronize(device)

        rates = _rate(work, call_and_wait)
        return Ceiling(f"{kind} torch", kind, device, max(rates), unit, runtime, what, rates)

    ceilings = []
    before = torch.backends.cuda.matmul.allow_tf32
    try:
        for kind, dtype, tf32 in (
            ("float32", torch.float32, False),
            ("tf32", torch.float32, True),
            ("float16", torch.float16, False),
        ):
            torch.backends.cuda.matmul.allow_tf32 = tf32
            one, two = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
            out = torch.empty_like(one)
            what = f"torch.matmul of two {side}x{side} matrices in {kind}"
            call = functools.partial(torch.matmul, one, two, out=out)
            ceilings.append(measure(kind, 2.0 * side**3, "GFLOP/s", what, call))
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
    ints = [torch.randint(-127, 128, (side, side), device=device, dtype=torch.int8) for _ in "ab"]
    columns = ints[1].t().contiguous().t()
    what = f"torch._int_mm of two {side}x{side} int8 matrices"
    product = functools.partial(torch._int_mm, ints[0], columns)
    ceilings.append(measure("int8", 2.0 * side**3, "GFLOP/s", what, product))
    size = 2**30
    on_device = torch.ones(size, dtype=torch.uint8, device=device)
    copy = torch.empty_like(on_device)
    what = "copy of 1 GiB on the GPU, read and write counted"
    ceilings.append(measure("memory", 2.0 * size, "GB/s", what, lambda: copy.copy_(on_device)))
    on_host = torch.ones(size // 4, dtype=torch.uint8).pin_memory()
    on_device = on_device[: size // 4]
    for kind, transfer in (
        ("to device", lambda: on_device.copy_(on_host, non_blocking=True)),
        ("from device", lambda: on_host.copy_(on_device, non_blocking=True)),
    ):
        what = f"copy of 256 MiB {kind}, page-locked"
        ceilings.append(measure(kind, size / 4, "GB/s", what, transfer))
    return ceilings
