"""What this machine can do at most, measured: matrix rates, memory bandwidth, and a GPU's bus."""

from __future__ import annotations

import functools
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import numpy as np

from tinyunet_deploy.artifacts.sidecar import Precision, Sidecar, digest, write_artifact
from tinyunet_deploy.backends import nvidia_probe
from tinyunet_deploy.backends.registry import open_backend
from tinyunet_deploy.backends.table import rows_for, why_not
from tinyunet_deploy.contract import INPUT_NAME, OUTPUT_NAME, Contract
from tinyunet_deploy.errors import TinyUNetError
from tinyunet_deploy.host import processor_count
from tinyunet_deploy.speed.benchmark_result import Ceiling

REPEATS: Final = 5
"""The largest rate of so many counts."""
_CHANNELS: Final = 256
_BLOCK: Final = 16
"""256 channels are 16 x 16 pixels of the image."""
_GIGA: Final = 1e9


def cpu_ceilings(
    size: int = 1024, layers: int = 4, megabytes: int = 128
) -> Iterator[tuple[str, Ceiling | TinyUNetError]]:
    """Measure the CPU, one name after the other; an error is why a ceiling is not to be had.

    Args:
        size: side of the image of :func:`matrix_graph`, pixels, a multiple of 16.
        layers: its convolutions.
        megabytes: of each array that the memory is measured with; larger than all caches.
    """
    yield "float32 numpy", _numpy_matrix(2 * size)
    for precision, kind in (("fp32", "float32"), ("int8", "int8")):
        for runtime in [row.name for row in rows_for("onnx", "cpu", unasked_only=True)]:
            try:
                found = _onnx_matrix(runtime, precision, kind, size, layers)  # type: ignore[arg-type]
            except TinyUNetError as error:
                yield f"{kind} {runtime}", error
            else:
                yield found.name, found
    for found in _memory(megabytes * 2**20):
        yield found.name, found


def _rate(work: float, call: Callable[[], object]) -> tuple[float, ...]:
    """Billions a second, of each repetition after one that is not counted."""
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


def _onnx_matrix(runtime: str, precision: Precision, kind: str, size: int, layers: int) -> Ceiling:
    reason = why_not(runtime)
    if reason is not None:
        raise TinyUNetError(runtime, reason)
    data = matrix_graph(precision, size, layers)
    sidecar = Sidecar("onnx", precision, digest(data), None, Contract(size, size))
    image = np.random.default_rng(0).integers(0, 256, (1, 1, size, size), np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ceiling.onnx"
        write_artifact(path, data, sidecar)
        with open_backend(path, runtime, "cpu") as backend:
            rates = _rate(layers * matrix_flop(size), lambda: backend.run(image))
            threads = backend.threads
    cells = size // _BLOCK
    what = (
        f"{layers} 3x3 convolutions {_CHANNELS} -> {_CHANNELS} with ReLU over {cells}x{cells}, "
        f"{'int8 by Q/DQ' if precision == 'int8' else 'float32'}, as an ONNX graph on the backend "
        f"{runtime} with {threads} threads, the copies and casts of its ends included"
    )
    name = f"{kind} {runtime}"
    return Ceiling(name, kind, "cpu", max(rates), "GFLOP/s", runtime, what, rates)


def matrix_flop(size: int) -> float:
    """Multiplications and additions of one convolution of :func:`matrix_graph`."""
    return 2.0 * 9 * _CHANNELS**2 * (size // _BLOCK) ** 2


def matrix_graph(precision: Precision, size: int, layers: int) -> bytes:
    """An ONNX graph that keeps the contract and does next to nothing but convolve.

    uint8 [N, 1, size, size] -> 256 channels of every 16 x 16 pixels -> ``layers`` 3x3 convolutions
    256 -> 256 with ReLU -> back to uint8 [N, 1, size, size].

    Args:
        precision: ``fp32``, or ``int8`` with symmetric Q/DQ before every convolution.
        size: pixels, a multiple of 16.

    Raises:
        TinyUNetError: ``onnx`` is not installed.
    """
    try:
        import onnx
    except ImportError as error:
        raise TinyUNetError(
            "onnx", "is not installed, so no graph can be built", "pip install onnx"
        ) from error
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    random = np.random.default_rng(0)
    initializers: list[Any] = []

    def constant(name: str, value: Any) -> str:
        initializers.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    zero, scale = constant("zero", np.int8(0)), constant("scale", np.float32(255 / 127))
    nodes = [
        helper.make_node("Cast", [INPUT_NAME], ["grey"], to=onnx.TensorProto.FLOAT),
        helper.make_node("SpaceToDepth", ["grey"], ["x0"], blocksize=_BLOCK),
    ]
    spread = np.float32(
        np.sqrt(2 / (9 * _CHANNELS))
    )  # keeps the size of the values from layer to layer
    for layer in range(layers):
        weight = random.standard_normal((_CHANNELS, _CHANNELS, 3, 3)).astype(np.float32) * spread
        x, y = f"x{layer}", f"x{layer + 1}"
        w = f"w{layer}"
        if precision == "int8":
            scales = np.abs(weight).max(axis=(1, 2, 3)) / np.float32(127)
            quantized = np.rint(weight / scales[:, None, None, None]).astype(np.int8)
            zeros = constant(f"zeros{layer}", np.zeros(_CHANNELS, np.int8))
            weights = [constant(f"{w} int8", quantized), constant(f"{w} scale", scales), zeros]
            nodes += [
                helper.make_node("QuantizeLinear", [x, scale, zero], [f"{x} int8"]),
                helper.make_node("DequantizeLinear", [f"{x} int8", scale, zero], [f"{x} again"]),
                helper.make_node("DequantizeLinear", weights, [w], axis=0),
            ]
            x = f"{x} again"
        else:
            constant(w, weight)
        nodes += [
            helper.make_node("Conv", [x, w], [f"{y} signed"], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", [f"{y} signed"], [y]),
        ]
    limits = [constant("black", np.float32(0)), constant("white", np.float32(255))]
    nodes += [
        helper.make_node("DepthToSpace", [f"x{layers}"], ["flat"], blocksize=_BLOCK),
        helper.make_node("Clip", ["flat", *limits], ["clipped"]),
        helper.make_node("Cast", ["clipped"], [OUTPUT_NAME], to=onnx.TensorProto.UINT8),
    ]
    ends = [
        helper.make_tensor_value_info(name, onnx.TensorProto.UINT8, ["N", 1, size, size])
        for name in (INPUT_NAME, OUTPUT_NAME)
    ]
    graph = helper.make_graph(nodes, "ceiling", ends[:1], ends[1:], initializers)
    opset = [helper.make_opsetid("", 18)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=10)
    data: bytes = model.SerializeToString()
    return data


def _memory(size: int) -> list[Ceiling]:
    """Bandwidth of main memory over all processors (McCalpin's STREAM: copy and triad).

    Counted are the bytes that the program names: what the processor reads before it overwrites is
    not. The triad is done in pieces that stay in the cache between its two steps.
    """
    threads = processor_count()
    arrays = np.ones((3, size // 4), np.float32)
    parts = np.array_split(arrays, threads, axis=1)
    piece = 8192

    def copy(part: Any) -> None:
        np.copyto(part[0], part[1])

    def triad(part: Any) -> None:
        out, first, second = part
        for at in range(0, part.shape[1], piece):
            here = slice(at, at + piece)
            np.multiply(second[here], np.float32(3), out=out[here])
            np.add(out[here], first[here], out=out[here])

    found = []
    with ThreadPoolExecutor(threads) as pool:
        for name, work, moved, what in (
            ("copy", copy, 2, "numpy.copyto"),
            ("triad", triad, 3, f"a = b + 3 c with numpy in pieces of {piece} values"),
        ):
            rates = _rate(moved * size, functools.partial(_on_all, pool, work, parts))
            text = f"{what}, {threads} threads, float32 arrays of {size / 2**20:g} MiB"
            found.append(
                Ceiling(f"memory {name}", "memory", "cpu", max(rates), "GB/s", "numpy", text, rates)
            )
    return found


def _on_all(pool: ThreadPoolExecutor, work: Callable[[Any], None], parts: Sequence[Any]) -> None:
    list(pool.map(work, parts))


def gpu_ceilings(device: str) -> list[Ceiling]:
    """Measure a GPU through PyTorch: float32, TF32, float16 and int8 matrices, memory, its bus.

    Raises:
        TinyUNetError: PyTorch is not here, or sees no such GPU.
    """
    index = nvidia_probe.gpu_index(device)
    try:
        import torch
    except ImportError as error:
        raise TinyUNetError("torch", "is not installed: the GPU's limits need it") from error
    if index >= torch.cuda.device_count():
        raise TinyUNetError(device, "torch sees no such GPU")
    return _gpu_ceilings(torch, device)


def _gpu_ceilings(torch: Any, device: str, side: int = 8192) -> list[Ceiling]:
    runtime = f"torch {torch.__version__}"

    def measure(
        kind: str, work: float, unit: str, what: str, call: Callable[[], object]
    ) -> Ceiling:
        def and_wait() -> None:
            call()
            torch.cuda.synchronize(device)

        rates = _rate(work, and_wait)
        return Ceiling(f"{kind} torch", kind, device, max(rates), unit, runtime, what, rates)

    found = []
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
            found.append(measure(kind, 2.0 * side**3, "GFLOP/s", what, call))
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
    ints = [torch.randint(-127, 128, (side, side), device=device, dtype=torch.int8) for _ in "ab"]
    columns = ints[1].t().contiguous().t()
    what = f"torch._int_mm of two {side}x{side} int8 matrices"
    product = functools.partial(torch._int_mm, ints[0], columns)
    found.append(measure("int8", 2.0 * side**3, "GFLOP/s", what, product))
    size = 2**30
    there = torch.ones(size, dtype=torch.uint8, device=device)
    other = torch.empty_like(there)
    what = "copy of 1 GiB on the GPU, read and write counted"
    found.append(measure("memory", 2.0 * size, "GB/s", what, lambda: other.copy_(there)))
    here = torch.ones(size // 4, dtype=torch.uint8).pin_memory()
    there = there[: size // 4]
    for kind, transfer in (
        ("to device", lambda: there.copy_(here, non_blocking=True)),
        ("from device", lambda: here.copy_(there, non_blocking=True)),
    ):
        what = f"copy of 256 MiB {kind}, page-locked"
        found.append(measure(kind, size / 4, "GB/s", what, transfer))
    return found
