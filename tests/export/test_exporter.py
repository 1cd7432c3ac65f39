from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from export import exporter, int8
from export.calibrate import METHODS
from export.exporter import (
    export_checkpoint,
    largest_activation,
    output_paths,
    unsigned_path,
)
from export.int8 import Int8File
from tests.conftest import REPOSITORY
from tests.export.conftest import SIZE, TUNED_ON
from tinyunet_deploy.artifacts.sidecar import Artifact, digest, read_artifact
from tinyunet_deploy.artifacts.speed_facts import RuntimeSpeed, SpeedFacts
from tinyunet_deploy.artifacts.tensorrt_preflight import check_onnx
from tinyunet_deploy.backends.onnxruntime import ONNXRuntimeBackend
from tinyunet_deploy.backends.tensorrt_builder import build
from tinyunet_deploy.contract import INPUT_NAME, OUTPUT_NAME, Batch
from tinyunet_deploy.data import synthetic
from tinyunet_deploy.errors import GateFailed, RefusedError

Exported = dict[str, Artifact]
"""Precision -> artifact, read again from where it was written."""

ALPHA = 0.5
"""The one equalisation that is measured; test_int8.py measures all three."""
PROGRAM = f"""
import sys
from export import int8
from export.__main__ import export
from tinyunet_deploy.cli import run

int8.ALPHAS = ({ALPHA},)
sys.exit(run(export, sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def exported(
    checkpoint: Path, labelled_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Exported:
    output = tmp_path_factory.mktemp("exported") / "net.onnx"
    paths = output_paths(output, ["fp32", "fp16", "int8"])
    options: dict[str, Any] = {"folders": [labelled_data], "min_speedup": 0}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(int8, "ALPHAS", (ALPHA,))
        written = list(export_checkpoint(checkpoint, paths, **options, log=lambda line: None))
    twin = unsigned_path(paths["int8"])
    assert written == [*paths.values(), twin]
    return {precision: read_artifact(path) for precision, path in paths.items()}


@pytest.fixture(scope="module")
def twin(exported: Exported) -> Artifact:
    """The int8 file for CPUs."""
    return read_artifact(unsigned_path(exported["int8"].path))


@pytest.fixture
def converted_before(exported: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the graphs of the same checkpoint from ``exported``: to convert it takes seconds."""

    def graph(_network: object, _contract: object, precision: str = "fp32") -> bytes:
        return exported[precision].data

    monkeypatch.setattr(exporter, "onnx_graph", graph)


def test_one_precision_takes_the_output_name_and_several_share_it() -> None:
    output = Path("engines/net.onnx")
    assert output_paths(output, ["int8"]) == {"int8": output}
    assert output_paths(output, ["fp32", "fp16", "int8"]) == {
        "fp32": output,
        "fp16": Path("engines/net.fp16.onnx"),
        "int8": Path("engines/net.int8.onnx"),
    }
    assert output not in output_paths(output, ["fp16", "int8"]).values()


def test_the_same_checkpoint_gives_the_same_bytes_from_any_directory(
    checkpoint: Path,
    labelled_data: Path,
    exported: Exported,
    twin: Artifact,
    tmp_path: Path,
) -> None:
    command = [sys.executable, "-c", PROGRAM, str(checkpoint), "-o", "out/net.onnx"]
    command += ["--precision", "int8,fp32,fp16", "--data", str(labelled_data), "--min-speedup", "0"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    names = ["net.onnx", "net.fp16.onnx", "net.int8.onnx", "net.int8-cpu.onnx"]
    assert done.stdout.split() == [f"out/{name}" for name in names]
    for artifact in (*exported.values(), twin):
        again = read_artifact(tmp_path / "out" / artifact.path.name)
        assert again.data == artifact.data
        assert replace(again.sidecar, parent_place=None) == replace(
            artifact.sidecar, parent_place=None
        )
        for secret in (str(REPOSITORY), str(checkpoint.parent), str(labelled_data)):
            assert secret.encode() not in artifact.data
            assert secret not in artifact.sidecar.as_json()


def test_each_file_has_the_lineage_and_operating_point_of_the_checkpoint(
    checkpoint: Path, exported: Exported
) -> None:
    parent = read_artifact(checkpoint).sidecar
    for precision, artifact in exported.items():
        sidecar = artifact.sidecar
        assert sidecar.precision == precision
        assert sidecar.parent == parent.sha256
        assert sidecar.sha256 == digest(artifact.data)
        assert (sidecar.threshold, sidecar.min_area) == (0.4, 3)
        assert sidecar.tuned_on == TUNED_ON, "evaluation warns of these images"
        compared = sidecar.origin["parity_with_checkpoint"]
        assert (compared["source"], compared["images"]) == ("training images", 16)
        assert compared["union_px"] > 0


def test_the_int8_sidecar_says_what_calibrated_and_what_lost(exported: Exported) -> None:
    quantization = exported["int8"].sidecar.origin["quantization"]
    assert quantization["data"]["source"] == "training images"
    assert quantization["data"]["seed"] == 0
    assert quantization["data"]["calibration"]["images"] == 4
    assert len(quantization["data"]["calibration"]["sha256"]) == 64
    assert len(quantization["candidates"]) == len(METHODS)
    chosen = f"{quantization['method']}, alpha {quantization['equalization_alpha']}"
    assert chosen in quantization["candidates"]
    for figures in quantization["candidates"].values():
        assert {"agreement", "iou_defective", "flips_defective"} <= figures.keys()


def test_every_file_passes_the_preflight_and_takes_any_batch(exported: Exported) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 1, SIZE, SIZE), np.uint8)
    for artifact in exported.values():
        check_onnx(onnx.load_from_string(artifact.data), artifact.path)
        backend = ONNXRuntimeBackend(artifact)
        together = backend.run(images).score
        alone = np.concatenate([backend.run(images[i : i + 1]).score for i in range(3)])
        difference = np.abs(together.astype(int) - alone)
        if artifact.sidecar.precision == "int8":  # a sum in another order, on the edge of a level
            assert np.mean(difference > 1) <= 0.03
        else:
            assert difference.max() <= 1


def test_the_int8_file_for_cpus_holds_the_same_numbers_without_a_sign(
    exported: Exported, twin: Artifact
) -> None:
    signed = exported["int8"]
    assert twin.path.name == "net.int8-cpu.onnx"
    assert twin.sidecar.unsigned_activations and not signed.sidecar.unsigned_activations
    assert twin.sidecar.parent == signed.sidecar.parent
    assert twin.sidecar.golden is not None
    assert "uint8" in twin.sidecar.origin["quantization"]["recipe"]["activations"]
    assert twin.sidecar.origin["quantization"]["gate"]["images"] == 6
    image = synthetic.sample(1, 3, defective=True, size=SIZE).image[None, None]
    with ONNXRuntimeBackend(signed) as a, ONNXRuntimeBackend(twin) as b:
        scores = [backend.run(image).score.astype(int) for backend in (a, b)]
    assert np.ptp(scores[0]) > 100
    # a level that int8 cuts off at 127 goes on to 255 here
    assert np.mean(scores[0] != scores[1]) < 0.2
    assert np.abs(scores[0] - scores[1]).mean() < 8


def test_a_file_for_cpus_is_not_built_for_tensorrt(twin: Artifact, tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="unsigned activations for CPUs"):
        build(twin.path, tmp_path)


@pytest.mark.usefixtures("converted_before")
def test_files_are_timed_against_fp32_after_they_were_compared(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = SpeedFacts("fp32", "Example", 2, 1.5, (RuntimeSpeed("openvino", 2.0, 1.9, 2.1, 1.0),))
    timed = []

    def measure(file: Artifact, wider: Artifact, *rest: object) -> SpeedFacts:
        timed.append((file.path.name, wider.sidecar.precision, rest[1]))
        assert "parity_with_checkpoint" in file.sidecar.origin
        return facts

    monkeypatch.setattr(exporter, "measure_speedup", measure)
    paths = output_paths(tmp_path / "net.onnx", ["fp32", "fp16"])
    for minimum in (1.5, 0):
        list(export_checkpoint(checkpoint, paths, min_speedup=minimum, log=lambda _: None))
        assert timed == [("net.fp16.onnx", "fp32", 1.5)]
        assert read_artifact(paths["fp32"]).sidecar.speed is None
        assert read_artifact(paths["fp16"]).sidecar.speed == (facts if minimum else None)


def test_fp16_is_half_from_the_first_cast_to_the_logit(exported: Exported) -> None:
    model = onnx.load_from_string(exported["fp16"].data)
    kinds = Counter(node.op_type for node in model.graph.node)
    assert kinds["Cast"] == 3, "image to half, logit to float, score to uint8"
    weights = {t.data_type for t in model.graph.initializer if t.name.startswith("network.")}
    assert weights == {TensorProto.FLOAT16}
    inferred = onnx.shape_inference.infer_shapes(model)
    types = {v.name: v.type.tensor_type.elem_type for v in inferred.graph.value_info}
    sigmoid = next(node for node in model.graph.node if node.op_type == "Sigmoid")
    assert types[sigmoid.input[0]] == TensorProto.FLOAT
    assert types[model.graph.node[0].output[0]] == TensorProto.FLOAT16


def test_activations_that_overflow_half_are_refused(exported: Exported) -> None:
    model = onnx.load_from_string(exported["fp32"].data)
    weight = next(t for t in model.graph.initializer if t.name == "network.encoder.0.0.weight")
    larger = numpy_helper.to_array(weight) * np.float32(1e6)
    weight.CopyFrom(numpy_helper.from_array(larger, weight.name))
    image = np.zeros((SIZE, SIZE), np.uint8)
    with pytest.raises(GateFailed, match="65504"):
        largest_activation(model.SerializeToString(), [image], Path("net.fp16.onnx"))


def test_nvidias_parser_takes_every_file(exported: Exported) -> None:
    trt = pytest.importorskip("tensorrt_rtx")
    builder = trt.Builder(trt.Logger(trt.Logger.ERROR))
    strongly_typed = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    for artifact in exported.values():
        network = builder.create_network(strongly_typed)
        parser = trt.OnnxParser(network, trt.Logger(trt.Logger.ERROR))
        parsed = parser.parse(artifact.data)
        assert parsed, [parser.get_error(i).desc() for i in range(parser.num_errors)]


def amplifier(factor: float) -> bytes:
    """A graph whose only activation is the grey value times a factor."""
    nodes = [
        helper.make_node("Cast", [INPUT_NAME], ["grey"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["grey", "factor"], ["product"]),
        helper.make_node("Relu", ["product"], [OUTPUT_NAME]),
    ]
    shape = ["N", 1, SIZE, SIZE]
    graph = helper.make_graph(
        nodes,
        "amplifier",
        [helper.make_tensor_value_info(INPUT_NAME, TensorProto.UINT8, shape)],
        [helper.make_tensor_value_info(OUTPUT_NAME, TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(np.float32(factor), "factor")],
    )
    opset = helper.make_opsetid("", 18)
    return helper.make_model(graph, opset_imports=[opset], ir_version=10).SerializeToString()


@pytest.mark.parametrize(("grey", "factor"), [(1, 32_600.0), (255, 127.8)])
def test_activations_up_to_half_of_what_half_precision_holds_are_accepted(
    grey: int, factor: float
) -> None:
    image = np.full((SIZE, SIZE), grey, np.uint8)
    reach = largest_activation(amplifier(factor), [image], Path("net.fp16.onnx"))
    assert grey * factor < reach < 1.01 * grey * factor


@pytest.mark.parametrize("factor", [32_760.0, 40_000.0, 65_000.0, 1e6])
def test_activations_above_half_of_what_half_precision_holds_are_refused(factor: float) -> None:
    images = [np.full((SIZE, SIZE), grey, np.uint8) for grey in (0, 1)]
    with pytest.raises(GateFailed, match="too near the 65504 of half precision"):
        largest_activation(amplifier(factor), images, Path("net.fp16.onnx"))


def test_half_of_what_half_precision_holds_is_accepted_and_any_more_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    half = float(np.finfo(np.float16).max) / 2
    image = np.full((SIZE, SIZE), 1, np.uint8)
    for reach, accepted in ((half, True), (half + 0.25, False)):
        monkeypatch.setattr(exporter, "largest", lambda counts, reach=reach: reach)
        if accepted:
            assert largest_activation(amplifier(1.0), [image], Path("net.fp16.onnx")) == reach
        else:
            with pytest.raises(GateFailed, match="65504"):
                largest_activation(amplifier(1.0), [image], Path("net.fp16.onnx"))


@pytest.mark.usefixtures("converted_before")
def test_files_come_first_then_their_reports_and_golden_scores_are_of_what_rounds(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = tmp_path / "net.int8.sensitivity.json"
    scored_by: dict[str, str] = {}

    def without_calibration(float32: Artifact, *_: object) -> Int8File:
        return Int8File(float32.data, {"method": "none"}, None)

    def golden(path: Path, score: Callable[[Batch], Batch]) -> None:
        scored_by[path.name] = score.__self__.name  # type: ignore[attr-defined]

    monkeypatch.setattr(exporter, "make_int8", without_calibration)
    monkeypatch.setattr(exporter, "sensitivity_reports", lambda path, made: {report: b"{}"})
    monkeypatch.setattr(exporter, "write_golden", golden)
    paths = output_paths(tmp_path / "net.onnx", ["int8", "fp32", "fp16"])
    files = export_checkpoint(checkpoint, paths, min_speedup=0, log=lambda line: None)
    assert next(files) == paths["int8"]
    assert not report.exists() and not paths["fp16"].exists()
    assert list(files) == [paths["fp32"], paths["fp16"], report]
    assert report.read_bytes() == b"{}"
    assert scored_by == {
        "net.onnx": "torch",
        "net.fp16.onnx": "onnxruntime",
        "net.int8.onnx": "onnxruntime",
    }
    for precision, path in paths.items():
        versions = read_artifact(path).sidecar.origin["versions"]
        assert {"tinyunet_deploy", "torch", "onnx", "onnxscript"} <= versions.keys()
        assert ("onnxruntime" in versions) == (precision == "int8"), "what calibrated it"
