from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tinyunet_deploy.artifacts.sidecar import (
    DEFAULT_CHECKPOINT,
    DEFAULT_ONNX,
    Artifact,
    Sidecar,
    read_artifact,
)
from tinyunet_deploy.contract import Contract
from tinyunet_deploy.speed.benchmark_result import Ceiling
from tinyunet_deploy.speed.peak_graph import matrix_flop, matrix_graph
from tinyunet_deploy.speed.roofline import Work, count_work, roofline


def ceiling(kind: str, value: float, device: str = "cpu") -> Ceiling:
    unit = "GB/s" if kind == "memory" else "GFLOP/s"
    return Ceiling(f"{kind} {value}", kind, device, value, unit, "test", "nothing", (value,))


def artifact(data: bytes, size: int) -> Artifact:
    sidecar = Sidecar("onnx", "fp32", "0" * 64, None, Contract(size, size))
    return Artifact(Path("graph.onnx"), data, sidecar)


@pytest.mark.parametrize("model", [DEFAULT_ONNX, DEFAULT_CHECKPOINT], ids=lambda path: path.suffix)
def test_the_default_network_is_36_67_gflop(model: Path) -> None:
    work = count_work(read_artifact(model))
    assert work.flop.keys() == {"float32"}
    assert work.flop["float32"] / 1e9 == pytest.approx(36.67, abs=0.01)
    assert work.end_bytes == 2 * 512 * 512
    biases = 1_850_305 - work.weight_bytes / 4
    assert 0 < biases < 2000  # of 1,850,305 parameters all others are weights


def test_a_quantised_graph_is_counted_as_int8_and_a_quarter_of_the_bytes() -> None:
    counted = [
        count_work(artifact(matrix_graph(precision, 64, 3), 64)) for precision in ("fp32", "int8")
    ]
    single, quantised = counted
    assert single.flop == {"float32": 3 * matrix_flop(64)}
    assert quantised.flop == {"int8": 3 * matrix_flop(64)}
    assert single.activation_bytes == 4 * quantised.activation_bytes
    assert single.weight_bytes == 4 * quantised.weight_bytes


def test_a_transposed_convolution_counts_its_input() -> None:
    weight = numpy_helper.from_array(np.zeros((1, 2, 3, 3), np.float32), "w")
    nodes = [
        helper.make_node("Cast", ["image"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2]),
    ]
    ends = [
        helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", 1, 16, 16]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 2, 33, 33]),
    ]
    graph = helper.make_graph(nodes, "graph", ends[:1], ends[1:], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    onnx.checker.check_model(model)
    work = count_work(artifact(model.SerializeToString(), 16))
    assert work.flop == {"float32": 2 * 9 * 2 * 16 * 16}


def test_the_bound_is_the_slower_of_computing_and_moving() -> None:
    work = Work({"float32": 1e9, "int8": 3e9}, 1e6, 1e8, 1e6)
    limits = [ceiling("float32", 100), ceiling("float32", 50), ceiling("int8", 300)]
    fast, slow = ([*limits, ceiling("memory", value)] for value in (100.0, 0.05))
    bound = roofline(work, fast, device="cpu", batch_size=2, latency_ms=80, images_per_s=25)
    assert bound is not None
    assert bound.bound_ms == pytest.approx(2 * (1e9 / 100e9 + 3e9 / 300e9) * 1e3)
    assert bound.bound_by == "compute"
    assert bound.ceilings["float32"] == "float32 100"
    assert bound.latency_percent == pytest.approx(50)
    assert bound.throughput_percent == pytest.approx(50)
    assert bound.gflop_per_s == pytest.approx(100)
    bound = roofline(work, slow, device="cpu", batch_size=2, latency_ms=80, images_per_s=25)
    assert bound is not None
    assert bound.bound_by == "memory"
    assert bound.bound_ms == pytest.approx((2 * 1e6 + 1e6) / 0.05e9 * 1e3)


def test_without_a_ceiling_of_that_device_there_is_no_percentage() -> None:
    work = Work({"int8": 3e9}, 1e6, 1e8, 1e6)
    limits = [ceiling("int8", 300, "cuda:0"), ceiling("memory", 10), ceiling("float32", 10)]
    assert roofline(work, limits, device="cpu", batch_size=1, latency_ms=1, images_per_s=1) is None


def test_bytes_are_counted_once_for_a_batch_or_once_for_every_layer() -> None:
    work = Work({"float32": 1e9}, weight_bytes=1e6, activation_bytes=1e8, end_bytes=1e5)
    assert work.minimum_bytes(4) == 4e5 + 1e6
    assert work.layer_bytes(4) == 4 * (1e5 + 1e8) + 1e6


def test_a_cpu_computes_float16_in_float32_but_a_gpu_does_not() -> None:
    work = Work({"float16": 1e9}, 1e6, 1e8, 1e6)
    for device in ("cpu", "cuda:0"):
        limits = [ceiling("float32", 100, device), ceiling("memory", 100, device)]
        bound = roofline(work, limits, device=device, batch_size=1, latency_ms=20, images_per_s=50)
        if device == "cpu":
            assert bound is not None and bound.bound_ms == pytest.approx(10)
            assert bound.ceilings["float16"] == "float32 100"
        else:
            assert bound is None
