import json
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from export.budget import Choice, best_of, chart, choose, meets
from export.calibrate import (
    METHODS,
    entropy,
    histogram,
    histograms,
    largest,
    percentile,
    ranges,
    watch,
)
from export.calibration_images import read_lots
from export.equalize import channel_peaks, equalize, in_steps
from export.graph import onnx_graph
from export.likeness import Likeness, worst
from export.quantize import convolutions, quantize, weight_counts
from tinyunet_deploy.artifacts.network import TinyUNet
from tinyunet_deploy.artifacts.tensorrt_preflight import check_onnx
from tinyunet_deploy.contract import Contract
from tinyunet_deploy.data import synthetic
from tinyunet_deploy.errors import DataError

SIZE = 64
CONTRACT = Contract(SIZE, SIZE)
RESOLUTION = 1 / 128
"""Relative width of a histogram's bin."""


@pytest.fixture(scope="module")
def float32() -> onnx.ModelProto:
    network = TinyUNet()
    network.reset_parameters(torch.Generator().manual_seed(1))
    return onnx.load_from_string(onnx_graph(network, CONTRACT))


# --- calibration ----------------------------------------------------------------------------


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=300), st.floats(1.0, 100.0))
def test_a_percentile_holds_its_share_of_the_values_and_hardly_more(
    values: list[float], percent: float
) -> None:
    sizes = np.abs(np.array(values, np.float32))
    reach = percentile(histogram(np.array(values, np.float32)), percent)
    assert np.mean(sizes < reach) >= percent / 100 - 1e-9
    exact = np.quantile(sizes, percent / 100, method="inverted_cdf")
    assert exact < reach <= exact * (1 + RESOLUTION) + 1e-30


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1))
def test_minmax_holds_every_value(values: list[float]) -> None:
    top = max(map(abs, values))
    reach = largest(histogram(np.array(values, np.float32)))
    assert top - 1e-40 <= reach <= top * (1 + RESOLUTION) + 1e-30


def test_histograms_of_parts_add_up() -> None:
    values = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    whole = histogram(values)
    assert (whole == histogram(values[:300]) + histogram(values[300:])).all()
    assert whole.sum() == 1000


def test_entropy_drops_rare_outliers_and_keeps_an_even_spread() -> None:
    generator = np.random.default_rng(0)
    normal = generator.normal(size=200_000).astype(np.float32)
    with_outliers = np.append(normal, np.float32([100, 120, 150]))
    assert 2.0 < entropy(histogram(with_outliers)) < 20.0
    even = generator.uniform(-3, 3, 200_000).astype(np.float32)
    assert entropy(histogram(even)) == pytest.approx(3.0, rel=0.1)


def test_dead_activations_do_not_stop_a_calibration() -> None:
    dead = histogram(np.zeros(100, np.float32))
    for method in METHODS.values():
        assert 0.0 <= method(dead) < 1e-30


def test_the_histograms_are_those_of_what_the_relus_give(float32: onnx.ModelProto) -> None:
    image = np.full((SIZE, SIZE), 255, np.uint8)
    counts = histograms(float32, [image, image])
    assert len(counts) == 22
    name, first = next(iter(counts.items()))
    given = output_of(float32, name, [image])
    assert first.sum() == 2 * given.size
    assert largest(first) == pytest.approx(given.max(), rel=RESOLUTION)


@pytest.mark.parametrize("method", METHODS)
def test_a_range_is_never_zero(method: str) -> None:
    mostly_zero = histogram(np.append(np.zeros(10**6), 8.0).astype(np.float32))
    reaches = ranges({"dead": histogram(np.zeros(9, np.float32)), "sparse": mostly_zero}, method)
    assert reaches["dead"] == 1.0
    assert reaches["sparse"] >= 8e-3


# --- images ---------------------------------------------------------------------------------


def test_lots_come_from_training_images_and_never_overlap(tmp_path: Path) -> None:
    synthetic.write_dataset(tmp_path, classes=[1, 2], train=24, test=8, size=SIZE, defective=0.5)
    lots = read_lots([tmp_path], CONTRACT)
    parts = (lots.calibration, lots.selection, lots.gate)
    names = [{(one.class_id, one.name) for one in part} for part in parts]
    assert [len(part) for part in names] == [12, 18, 18]
    assert len(names[0] | names[1] | names[2]) == 48, "each image once, and no test image"
    for part in parts:
        assert sum(one.defective for one in part) == len(part) // 2
        assert abs(sum(3 - 2 * one.class_id for one in part if one.class_id)) <= 2
        assert all(one.truth.any() == one.defective for one in part)
    assert read_lots([tmp_path], CONTRACT).as_dict() == lots.as_dict()
    digests = lots.as_dict()
    assert digests["source"] == "training images"
    assert len({digests[name]["sha256"] for name in ("calibration", "selection", "gate")}) == 3


def test_without_data_the_lots_are_synthetic_and_say_so() -> None:
    lots = read_lots([], CONTRACT)
    assert lots.source == "synthetic images"
    images = [
        one.image.tobytes()
        for part in (lots.calibration, lots.selection, lots.gate)
        for one in part
    ]
    assert len(set(images)) == 60


def test_too_few_training_images_are_refused(tmp_path: Path) -> None:
    synthetic.write_dataset(tmp_path, classes=[1], train=4, test=1, size=SIZE, defective=0.25)
    with pytest.raises(DataError, match="too few with a defect"):
        read_lots([tmp_path], CONTRACT)


def test_training_images_of_another_size_are_refused(tmp_path: Path) -> None:
    synthetic.write_dataset(tmp_path, classes=[1], train=16, test=1, size=SIZE, defective=0.5)
    with pytest.raises(DataError, match="64x64 pixels, the model takes 128x128"):
        read_lots([tmp_path], Contract(128, 128))


# --- equalisation ----------------------------------------------------------------------------


def uneven(model: onnx.ModelProto) -> onnx.ModelProto:
    """The network with some channels made small and one of each convolution dead."""
    other = onnx.ModelProto()
    other.CopyFrom(model)
    generator = np.random.default_rng(0)
    for tensor in other.graph.initializer:
        if tensor.name.endswith(".weight") and "logit" not in tensor.name:
            value = onnx.numpy_helper.to_array(tensor).copy()
            value *= 10 ** generator.uniform(-1, 0.5, (len(value), 1, 1, 1)).astype(np.float32)
            value[3] = 0.0
            tensor.CopyFrom(onnx.numpy_helper.from_array(value, tensor.name))
    return other


def output_of(model: onnx.ModelProto, name: str, images: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([values[name] for values in watch(model, [name], images)])


def test_an_equalized_network_computes_the_same(float32: onnx.ModelProto) -> None:
    model = uneven(float32)
    images = [synthetic.sample(c, 1, defective=True, size=SIZE).image for c in (1, 6)]
    peaks = channel_peaks(model, images)
    logit = next(node.input[0] for node in model.graph.node if node.op_type == "Sigmoid")
    before = output_of(model, logit, images)
    for alpha in (0.5, 1.0):
        after = output_of(equalize(model, peaks, alpha), logit, images)
        assert np.abs(after - before).max() <= 1e-4 * np.abs(before).max()
    changed = equalize(model, peaks, 0.5)
    assert changed.SerializeToString() == equalize(model, peaks, 0.5).SerializeToString()
    assert changed.ByteSize() == model.ByteSize()
    assert equalize(model, peaks, 0.0).SerializeToString() == model.SerializeToString()


def test_equalized_channels_are_nearer_to_each_other(float32: onnx.ModelProto) -> None:
    model = uneven(float32)
    images = [synthetic.sample(1, 1, defective=True, size=SIZE).image]
    peaks = channel_peaks(model, images)
    assert len(peaks) == 22
    assert all((peak == 0).any() for peak in peaks.values()), "dead channels are in the test"
    half = channel_peaks(equalize(model, peaks, 0.5), images)
    full = channel_peaks(equalize(model, peaks, 1.0), images)
    for name, peak in peaks.items():
        alive = peak > 1e-3 * peak.max()
        top = peak.max()
        assert half[name][alive] == pytest.approx(np.sqrt(peak[alive] * top), rel=1e-3)
        assert full[name][alive] == pytest.approx(top, rel=1e-3)
        assert (half[name][peak == 0] == 0).all()


def test_what_mixes_channels_is_not_equalized(float32: onnx.ModelProto) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(float32)
    pool = next(node for node in model.graph.node if node.op_type == "MaxPool")
    pool.op_type = "Softmax"
    with pytest.raises(ValueError, match="Softmax"):
        equalize(model, {}, 0.5)


# --- Q/DQ -----------------------------------------------------------------------------------


def reaches_of(model: onnx.ModelProto, reach: float = 3.0) -> dict[str, float]:
    return {node.output[0]: reach for node in model.graph.node if node.op_type == "Relu"}


@pytest.fixture(scope="module")
def int8(float32: onnx.ModelProto) -> onnx.ModelProto:
    return onnx.load_from_string(quantize(in_steps(float32, reaches_of(float32))))


def test_every_weight_is_stored_once_and_as_int8(int8: onnx.ModelProto) -> None:
    by_type: dict[int, int] = {}
    for tensor in int8.graph.initializer:
        by_type[tensor.data_type] = by_type.get(tensor.data_type, 0) + int(np.prod(tensor.dims))
    parameters = 1_850_305
    assert parameters - 2000 < by_type[onnx.TensorProto.INT8] < parameters + 2000
    assert by_type[onnx.TensorProto.FLOAT] < 5000, "biases and scales only"
    assert int8.ByteSize() <= 2_200_000


def test_a_quantized_graph_is_what_nvidias_parser_takes(int8: onnx.ModelProto) -> None:
    check_onnx(int8, Path("net.onnx"))
    assert int8.ir_version <= 10
    assert [(opset.domain, opset.version) for opset in int8.opset_import] == [("", 18)]
    kinds = [node.op_type for node in int8.graph.node]
    assert kinds.count("QuantizeLinear") == 1 + 22 + 12, "image, ReLUs, behind what moves numbers"
    assert kinds.count("DequantizeLinear") == 23 + kinds.count("QuantizeLinear")
    producer = {name: node.op_type for node in int8.graph.node for name in node.output}
    values = {t.name: onnx.numpy_helper.to_array(t) for t in int8.graph.initializer}
    for node in int8.graph.node:
        if node.op_type == "QuantizeLinear":
            assert values[node.input[1]] == 1.0, "OpenVINO loses another scale at a concatenation"
        if node.op_type == "Conv":
            assert {producer[name] for name in node.input[:2]} == {"DequantizeLinear"}
        if node.op_type in ("Concat", "MaxPool", "Resize"):
            read = {producer[name] for name in node.input if name in producer}
            assert read <= {"DequantizeLinear", "Resize"}, "moves bytes"


def images_and_reaches(
    model: onnx.ModelProto,
) -> tuple[list[np.ndarray], dict[str, float]]:
    images = [synthetic.sample(c, 1, defective=True, size=SIZE).image for c in (1, 6)]
    return images, ranges(histograms(model, images), "minmax")


def test_a_network_in_steps_computes_the_same_and_fills_int8(float32: onnx.ModelProto) -> None:
    model = uneven(float32)
    images, reaches = images_and_reaches(model)
    steps = in_steps(model, reaches)
    logit = next(node.input[0] for node in model.graph.node if node.op_type == "Sigmoid")
    before, after = (output_of(m, logit, images) for m in (model, steps))
    assert np.abs(after - before).max() <= 0.01 * np.abs(before).max(), "but for the padding"
    peaks = {name: largest(counts) for name, counts in histograms(steps, images).items()}
    assert all(125 < peak < 130 for peak in peaks.values())


def test_every_grey_value_gets_into_int8_and_back(float32: onnx.ModelProto) -> None:
    model = onnx.load_from_string(quantize(in_steps(float32, reaches_of(float32))))
    image = np.arange(SIZE * SIZE, dtype=np.uint8).reshape(SIZE, SIZE)
    name = next(node.input[0] for node in model.graph.node if node.op_type == "Conv")
    assert (output_of(model, name, [image])[0, 0] == image.astype(int) - 128).all()


def test_openvino_and_onnx_runtime_compute_the_same_in_int8(float32: onnx.ModelProto) -> None:
    openvino = pytest.importorskip("openvino")
    images, reaches = images_and_reaches(float32)
    int8 = onnx.load_from_string(quantize(in_steps(float32, reaches)))
    names = [node.output[0] for node in int8.graph.node if node.op_type == "Relu"]
    names.append(next(node.input[0] for node in int8.graph.node if node.op_type == "Sigmoid"))
    wanted = next(watch(int8, names, images[:1]))
    int8.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names
    )
    core = openvino.Core()
    compiled = core.compile_model(
        core.read_model(int8.SerializeToString(), b""), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    given = compiled([images[0][None, None]])
    for index, name in enumerate(names, start=1):
        error = np.sqrt(np.mean((given[index] - wanted[name]) ** 2))
        assert error < 0.1 * np.sqrt(np.mean(wanted[name] ** 2)), name


def test_convolutions_that_are_kept_are_untouched(float32: onnx.ModelProto) -> None:
    names = convolutions(float32)
    assert list(names)[:2] == ["encoder.0.0", "encoder.0.2"]
    assert len(names) == 23
    assert weight_counts(float32).keys() == names.keys()
    assert weight_counts(float32)["bottleneck.2"] == 256 * 256 * 9
    model = onnx.load_from_string(quantize(float32, ["encoder.0.2", "logit"]))
    check_onnx(model, Path("net.onnx"))
    producer = {name: node.op_type for node in model.graph.node for name in node.output}
    reads = {node.name: node.input[0] for node in model.graph.node if node.op_type == "Conv"}
    weights = {node.name: node.input[1] for node in model.graph.node if node.op_type == "Conv"}
    same = {name for name, node in names.items() if weights[node] not in producer}
    assert same == {"encoder.0.2", "logit"}
    assert all(producer[reads[names[name]]] == "Relu" for name in same), "and so is what they read"


# --- budget ---------------------------------------------------------------------------------

NAMES = [f"conv{index}" for index in range(6)]
WEIGHTS = dict.fromkeys(NAMES, 100)


def figures(drop: float, agreement: float, flips: int = 0) -> Likeness:
    values = {"iou_drop": drop, "agreement": agreement, "flips": flips}
    return Likeness(10, 0.7, 0.7 - drop, {**values, "flips_defective": flips, "new_alarms": 0})


class Additive:
    """Each convolution in int8 takes its own share away."""

    def __init__(self, harm: dict[str, float]) -> None:
        self.harm = harm
        self.calls = 0

    def __call__(self, kept: frozenset[str]) -> Likeness:
        self.calls += 1
        total = sum(value for name, value in self.harm.items() if name not in kept)
        return figures(total, 1.0 - total, flips=int(total > 0.2))


def test_a_plain_file_that_meets_the_budget_ends_the_search() -> None:
    measure = Additive(dict.fromkeys(NAMES, 0.0))
    choice = choose(WEIGHTS, measure, figures(0.004, 0.96), 0.005)
    assert (choice.kept, choice.alone, measure.calls) == ((), {}, 0)


@settings(deadline=None)
@given(st.lists(st.floats(0.0, 0.1), min_size=6, max_size=6), st.floats(0.0, 0.1))
def test_the_kept_convolutions_meet_the_budget_and_none_can_be_spared(
    harms: list[float], budget: float
) -> None:
    measure = Additive(dict(zip(NAMES, harms, strict=True)))
    choice = choose(WEIGHTS, measure, measure(frozenset()), budget)
    assert meets(choice.chosen, budget)
    assert choice.chosen == measure(frozenset(choice.kept))
    for name in choice.kept:
        assert not meets(measure(frozenset(choice.kept) - {name}), budget)


def test_convolutions_with_few_weights_are_kept_first() -> None:
    measure = Additive({"large": 0.04, "small": 0.03, "useless": 0.0})
    weights = {"large": 300_000, "small": 9_000, "useless": 10}
    choice = choose(weights, measure, measure(frozenset()), 0.045)
    assert choice.kept == ("small",), "though the large one alone gains more"


def test_a_budget_is_not_met_by_flipped_verdicts_or_other_masks() -> None:
    assert meets(figures(0.005, 0.95), 0.006)
    assert meets(figures(-0.1, 0.95), 0.0), "a gain is no loss"
    assert not meets(figures(0.007, 0.95), 0.006)
    assert not meets(figures(0.0, 1.0, flips=1), 0.006)
    assert not meets(figures(0.0, 0.94), 0.006)
    assert not meets(figures(float("nan"), 1.0), 0.006), "nothing defective was measured"


def test_the_method_with_the_fewest_flips_and_then_the_likest_masks_wins() -> None:
    rows = {
        "flips": figures(-0.1, 0.99, flips=1),
        "lucky": figures(-0.1, 0.90),
        "likest": figures(0.01, 0.93),
    }
    assert list(best_of(rows, rows.__getitem__)) == ["likest"], "no other can be better on all"


def test_a_method_that_is_good_on_one_runtime_alone_loses() -> None:
    quick = {"one": figures(0.0, 0.99), "both": figures(0.0, 0.97), "neither": figures(0.0, 0.9)}
    other = {"one": figures(0.0, 0.99, flips=1), "both": figures(0.01, 0.96)}
    full = best_of(quick, lambda name: worst([quick[name], other[name]]))
    assert list(full) == ["both", "one"]
    assert full["both"].figures["agreement"] == 0.96
    assert full["both"].figures["iou_drop"] == 0.01
    assert full["both"].iou_defective == pytest.approx(0.69)


def test_the_chart_names_every_convolution_and_is_the_same_every_time() -> None:
    alone = {name: figures(0.01, 0.9 + index / 100) for index, name in enumerate(NAMES)}
    choice = Choice(0.005, figures(0.02, 0.9), alone, ("conv5",), figures(0.0, 0.99))
    svg = chart(choice)
    assert svg == chart(choice)
    text = "".join(ET.fromstring(svg).itertext())
    assert all(name in text for name in NAMES)
    assert json.loads(json.dumps(choice.as_dict()))["kept_in_float32"] == ["conv5"]
