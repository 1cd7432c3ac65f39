import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from onnx import TensorProto, numpy_helper

from export import exporter
from export.__main__ import export
from export.exporter import Calibrated, Exported, export_files, output_paths
from export.likeness import checkpoint_scores, compare, comparison_images
from tinyunet_deploy.artifacts.checkpoint import save_checkpoint
from tinyunet_deploy.artifacts.network import TinyUNet
from tinyunet_deploy.artifacts.sidecar import Artifact, digest, read_artifact
from tinyunet_deploy.artifacts.tensorrt_preflight import check_onnx
from tinyunet_deploy.backends.onnxruntime import ONNXRuntimeBackend
from tinyunet_deploy.contract import Contract
from tinyunet_deploy.data import synthetic
from tinyunet_deploy.errors import GateFailed
from tinyunet_deploy.quality.parity_limits import Limit, Limits

REPOSITORY = Path(__file__).resolve().parent.parent.parent
SIZE = 64
CONTRACT = Contract(SIZE, SIZE)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that was not trained, with decided scores: its logits are spread wide."""
    network = TinyUNet()
    network.reset_parameters(torch.Generator().manual_seed(1))
    with torch.no_grad():
        network.logit.weight *= 20.0
    path = tmp_path_factory.mktemp("checkpoint") / "net.safetensors"
    save_checkpoint(path, network, CONTRACT, threshold=0.4, min_area=3, origin={})
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    synthetic.write_dataset(folder, classes=[1], train=16, test=2, size=SIZE, defective=0.5)
    return folder


@pytest.fixture(scope="module")
def exported(checkpoint: Path, data: Path) -> Exported:
    paths = output_paths(Path("net.onnx"), ["fp32", "fp16", "int8"])
    return export_files(
        read_artifact(checkpoint), CONTRACT, paths, folders=[data], log=lambda line: None
    )


def model_of(exported: Exported, precision: str) -> onnx.ModelProto:
    return onnx.load_from_string(artifact_of(exported, precision).data)


def artifact_of(exported: Exported, precision: str) -> Artifact:
    return next(a for a in exported.artifacts if a.sidecar.precision == precision)


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
    checkpoint: Path, data: Path, exported: Exported, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "export", str(checkpoint), "-o", "out/net.onnx"]
    command += ["--precision", "int8,fp32,fp16", "--data", str(data)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["out/net.onnx", "out/net.fp16.onnx", "out/net.int8.onnx"]
    for artifact in exported.artifacts:
        again = read_artifact(tmp_path / "out" / artifact.path)
        assert again.data == artifact.data
        assert replace(again.sidecar, golden=None) == artifact.sidecar
    for artifact in exported.artifacts:
        for secret in (str(REPOSITORY), str(checkpoint.parent), str(data)):
            assert secret.encode() not in artifact.data
            assert secret not in artifact.sidecar.as_json()


def test_each_file_has_the_lineage_and_operating_point_of_the_checkpoint(
    checkpoint: Path, exported: Exported
) -> None:
    parent = read_artifact(checkpoint).sidecar
    assert [a.sidecar.precision for a in exported.artifacts] == ["fp32", "fp16", "int8"]
    for artifact in exported.artifacts:
        sidecar = artifact.sidecar
        assert sidecar.parent == parent.sha256
        assert sidecar.sha256 == digest(artifact.data)
        assert (sidecar.threshold, sidecar.min_area) == (0.4, 3)
        assert sidecar.origin["parity_with_checkpoint"]["images"] == 10


def test_the_int8_sidecar_says_what_calibrated_and_what_lost(exported: Exported) -> None:
    quantization = artifact_of(exported, "int8").sidecar.origin["quantization"]
    assert quantization["data"]["source"] == "training images"
    assert quantization["data"]["seed"] == 0
    assert quantization["data"]["calibration"]["images"] == 4
    assert len(quantization["data"]["calibration"]["sha256"]) == 64
    assert len(quantization["candidates"]) == 18, "each calibration with each equalisation"
    chosen = f"{quantization['method']}, alpha {quantization['equalization_alpha']}"
    assert chosen in quantization["candidates"]
    for figures in quantization["candidates"].values():
        assert {"agreement", "iou_defective", "flips_defective"} <= figures.keys()


def test_every_file_passes_the_preflight_and_takes_any_batch(exported: Exported) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 1, SIZE, SIZE), np.uint8)
    for artifact in exported.artifacts:
        check_onnx(onnx.load_from_string(artifact.data), artifact.path)
        backend = ONNXRuntimeBackend(artifact)
        together = backend.run(images).score
        alone = np.concatenate([backend.run(images[i : i + 1]).score for i in range(3)])
        difference = np.abs(together.astype(int) - alone)
        if artifact.sidecar.precision == "int8":  # a sum in another order, on the edge of a level
            assert np.mean(difference > 1) <= 0.03
        else:
            assert difference.max() <= 1


def test_fp16_is_half_from_the_first_cast_to_the_logit(exported: Exported) -> None:
    model = model_of(exported, "fp16")
    kinds = Counter(node.op_type for node in model.graph.node)
    assert kinds["Cast"] == 3, "image to half, logit to float, score to uint8"
    weights = {t.data_type for t in model.graph.initializer if t.name.startswith("network.")}
    assert weights == {TensorProto.FLOAT16}
    inferred = onnx.shape_inference.infer_shapes(model)
    types = {v.name: v.type.tensor_type.elem_type for v in inferred.graph.value_info}
    sigmoid = next(node for node in model.graph.node if node.op_type == "Sigmoid")
    assert types[sigmoid.input[0]] == TensorProto.FLOAT
    assert types[model.graph.node[0].output[0]] == TensorProto.FLOAT16


def test_a_file_that_answers_otherwise_is_refused(checkpoint: Path, exported: Exported) -> None:
    images = comparison_images(CONTRACT, None)
    wanted = checkpoint_scores(read_artifact(checkpoint), images)
    artifact = artifact_of(exported, "fp32")
    assert compare(wanted, artifact, images)["flips"] == 0
    tampered = wanted.copy()
    first = int(wanted[0, 0, 0, 0])
    tampered[0, 0, 0, 0] = first + 2 if first < 128 else first - 2
    with pytest.raises(GateFailed, match="largest_steps beside the checkpoint is"):
        compare(tampered, artifact, images)


def test_fp16_whose_masks_moved_is_refused(checkpoint: Path, exported: Exported) -> None:
    images = comparison_images(CONTRACT, None)
    wanted = checkpoint_scores(read_artifact(checkpoint), images)
    near = (wanted > 102) & (wanted < 130)  # just above round(255 * 0.4)
    assert near.sum() > 100
    with pytest.raises(GateFailed, match="agreement beside the checkpoint is"):
        compare(np.where(near, 102, wanted), artifact_of(exported, "fp16"), images)


def test_activations_that_overflow_half_are_refused(exported: Exported) -> None:
    model = model_of(exported, "fp32")
    weight = next(t for t in model.graph.initializer if t.name == "network.encoder.0.0.weight")
    larger = numpy_helper.to_array(weight) * np.float32(1e6)
    weight.CopyFrom(numpy_helper.from_array(larger, weight.name))
    image = np.zeros((SIZE, SIZE), np.uint8)
    with pytest.raises(GateFailed, match="65504"):
        exporter._largest_activation(model.SerializeToString(), [image], Path("net.fp16.onnx"))


def test_int8_that_fails_on_the_gate_images_is_refused(
    exported: Exported, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calibrated = Calibrated(artifact_of(exported, "fp32"), [data], lambda line: None)
    only_the_budget = Limits((Limit("int8", "iou_drop", 0.005, "as in the table"),))
    monkeypatch.setattr("export.budget.read_limits", lambda: only_the_budget)
    assert calibrated.choose(1.0) is not None, "all in int8 is within a budget of 1"
    plain = calibrated.plain
    monkeypatch.setattr(exporter, "choose", lambda *_: exporter.Choice(-1.0, plain, {}, (), plain))
    with pytest.raises(GateFailed, match="gate images"):
        calibrated.choose(-1.0)


@pytest.mark.parametrize(
    "arguments",
    [
        ["-o", "net.plan"],
        ["-o", "net.onnx", "--precision", "bf16"],
        ["-o", "net.onnx", "--precision", "fp16", "--iou-budget", "0.005"],
        ["-o", "net.onnx", "--data", "."],
        ["-o", "net.onnx", "--size", "100"],
    ],
)
def test_wrong_usage_writes_nothing(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(export, ["net.safetensors", *arguments]).exit_code == 2
    assert not list(tmp_path.iterdir())


def test_nvidias_parser_takes_every_file(exported: Exported) -> None:
    trt = pytest.importorskip("tensorrt_rtx")
    builder = trt.Builder(trt.Logger(trt.Logger.ERROR))
    strongly_typed = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    for artifact in exported.artifacts:
        network = builder.create_network(strongly_typed)
        parser = trt.OnnxParser(network, trt.Logger(trt.Logger.ERROR))
        parsed = parser.parse(artifact.data)
        assert parsed, [parser.get_error(i).desc() for i in range(parser.num_errors)]
