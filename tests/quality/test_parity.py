"""The parity gate on small data: what is green on every backend that runs here, and what is red."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
import torch

from export.calibrate import histograms, ranges
from export.equalize import channel_peaks, equalize, in_steps
from export.graph import onnx_graph
from export.quantize import quantize
from tinyunet_deploy.artifacts.network import TinyUNet
from tinyunet_deploy.artifacts.sidecar import Sidecar, digest, read_sidecar, write_artifact
from tinyunet_deploy.backends.registry import open_backend
from tinyunet_deploy.cli import run, tinyunet
from tinyunet_deploy.contract import Batch, Contract
from tinyunet_deploy.data.decoding import read_image
from tinyunet_deploy.data.encoding import write_png
from tinyunet_deploy.errors import DataError
from tinyunet_deploy.quality.batch_check import check_batches
from tinyunet_deploy.quality.parity import ArtifactParity, run_parity
from tinyunet_deploy.quality.parity_limits import LIMITS, Limits, read_limits
from tinyunet_deploy.quality.stored_scores import StoredScores
from tinyunet_deploy.testing.fake_backend import FakeBackend

SIZE = 64
CONTRACT = Contract(SIZE, SIZE)
PRECISIONS = {"fp32": "net.onnx", "fp16": "net.fp16.onnx", "int8": "net.int8.onnx"}


def brightness_network() -> TinyUNet:
    """Finds bright spots: one channel carries the image, all others add a little of theirs."""
    torch.manual_seed(3)
    network = TinyUNet()
    with torch.no_grad():
        first, second = network.encoder[0][0], network.encoder[0][2]
        last = network.decoder[-1]
        network.ups[-1].conv.weight *= 0.2
        for conv, channel in ((first, 0), (second, 0), (last[0], 16), (last[2], 0)):
            conv.weight *= 0.3
            conv.weight[0] = 0.0
            conv.weight[0, channel, 1, 1] = 1.0
        first.bias[0] = 1.0  # grey 0..255 is now 0..2
        network.logit.weight *= 0.02
        network.logit.weight[0, 0] = 6.0
        network.logit.bias[0] = -6.0 * 1.2
    return network.eval()


def write_images(root: Path) -> None:
    rng = np.random.default_rng(5)
    for split, count in (("Train", 12), ("Test", 6)):
        folder = root / "Class1" / split
        (folder / "Label").mkdir(parents=True)
        rows = ["1"]
        for index in range(1, count + 1):
            noise = rng.normal(0, 60, (SIZE, SIZE)).astype(np.float32)
            image = cv2.GaussianBlur(noise, (0, 0), 2) + 70
            mask = np.zeros((SIZE, SIZE), np.uint8)
            defective = index % 2 == 0
            if defective:
                center = tuple(int(place) for place in rng.integers(18, 46, 2))
                cv2.circle(mask, center, 9, 255, -1)
                image += cv2.GaussianBlur(mask, (0, 0), 2) * 0.6
                write_png(folder / "Label" / f"{index:04}_label.PNG", mask)
            write_png(folder / f"{index:04}.PNG", np.clip(image, 0, 255).astype(np.uint8))
            label = f"{index:04}_label.PNG" if defective else "0"
            rows.append(f"{index:04}\t{int(defective)}\t{index:04}.PNG\t0\t{label}")
        (folder / "Label" / "Labels.txt").write_text("\n".join(rows) + "\n")


def write_onnx(path: Path, data: bytes, precision: Any, parent: str) -> None:
    sidecar = Sidecar("onnx", precision, digest(data), parent, CONTRACT)
    write_artifact(path, data, sidecar)


def quantized(float32: bytes, images: list[Path]) -> bytes:
    """As the exporter makes int8, by the largest values on the images."""
    model = onnx.load_from_string(float32)
    pixels = [read_image(path) for path in images]
    equalized = equalize(model, channel_peaks(model, pixels), 0.5)
    return quantize(in_steps(equalized, ranges(histograms(equalized, pixels), "minmax")))


@pytest.fixture(scope="module")
def station(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set, a checkpoint, and its ONNX files in all precisions."""
    from tinyunet_deploy.artifacts.checkpoint import save_checkpoint

    root = tmp_path_factory.mktemp("station")
    write_images(root / "data")
    network = brightness_network()
    (root / "engines").mkdir()
    checkpoint = root / "engines" / "net.safetensors"
    sidecar = save_checkpoint(checkpoint, network, CONTRACT, min_area=8, origin={})
    float32 = onnx_graph(network, CONTRACT)
    float16 = onnx_graph(copy.deepcopy(network).half(), CONTRACT)
    images = sorted((root / "data" / "Class1" / "Train").glob("*.PNG"))
    made = {"fp32": float32, "fp16": float16, "int8": quantized(float32, images)}
    for precision, data in made.items():
        write_onnx(root / "engines" / PRECISIONS[precision], data, precision, sidecar.sha256)
    return root


@contextlib.contextmanager
def compared(station: Path, *models: Path, **options: Any) -> Iterator[list[ArtifactParity]]:
    with StoredScores() as scores:
        result = run_parity(
            models or [station / "engines" / name for name in PRECISIONS.values()],
            station / "data",
            scores,
            **{"limits": read_limits(), "batch_size": 3, **options},
        )
        yield result.artifacts


@pytest.fixture(scope="module")
def comparisons(station: Path) -> Iterator[dict[tuple[str, str], ArtifactParity]]:
    with compared(station) as found:
        yield {(c.sidecar.precision, c.backend): c for c in found}


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_every_artifact_on_every_backend_is_green(
    comparisons: dict[tuple[str, str], ArtifactParity], precision: str, backend: str
) -> None:
    found = comparisons[precision, backend]
    assert found.skipped is None
    assert found.outcome == "green", [check for check in found.checks if not check.holds]
    comparison = found.comparison
    assert comparison.images == 6
    assert comparison.histogram.sum() == 6 * SIZE * SIZE
    assert comparison.union_px > 300
    assert len(comparison.ious) == 3
    assert found.batch is not None and found.batch.largest == 3


def test_int8_is_really_rounded(comparisons: dict[tuple[str, str], ArtifactParity]) -> None:
    assert comparisons["int8", "onnxruntime"].figures["largest_steps"] > 1
    assert comparisons["fp32", "onnxruntime"].figures["largest_steps"] <= 1


# --- the red --------------------------------------------------------------------------------------


Tamper = Callable[[onnx.ModelProto], None]


def initializer(model: onnx.ModelProto, wanted: Callable[[Any], bool]) -> onnx.TensorProto:
    found = [tensor for tensor in model.graph.initializer if wanted(tensor)]
    assert found
    return found[0]


def change(tensor: onnx.TensorProto, edit: Callable[[Any], Any]) -> None:
    values = onnx.numpy_helper.to_array(tensor).copy()
    tensor.CopyFrom(
        onnx.numpy_helper.from_array(np.asarray(edit(values), values.dtype), tensor.name)
    )


def one_weight(model: onnx.ModelProto) -> None:
    def edit(values: Any) -> Any:
        values[0, 0, 1, 1] *= 1.1
        return values

    change(initializer(model, lambda t: t.name.endswith("encoder.0.0.weight")), edit)


def normalization(model: onnx.ModelProto) -> None:
    def is_scale(tensor: onnx.TensorProto) -> bool:
        values = onnx.numpy_helper.to_array(tensor)
        return values.size == 1 and bool(np.isclose(values, 1 / 127.5).all())

    change(initializer(model, is_scale), lambda values: values * 127.5 / 120.0)


def qdq_scale(model: onnx.ModelProto) -> None:
    last = [node for node in model.graph.node if node.op_type == "Conv"][-1]
    quantizer = next(node for node in model.graph.node if last.input[0] in node.output)
    assert quantizer.op_type == "DequantizeLinear"
    scale = onnx.TensorProto()
    scale.CopyFrom(initializer(model, lambda t: t.name == quantizer.input[1]))
    scale.name = quantizer.input[1] = "tampered"  # all activations share one
    change(scale, lambda values: values * 0.5)
    model.graph.initializer.append(scale)


def grey(model: onnx.ModelProto) -> None:
    subtract = next(node for node in model.graph.node if node.op_type == "Sub")
    change(initializer(model, lambda t: t.name == subtract.input[1]), lambda values: values + 20)


@pytest.mark.parametrize(
    ("precision", "tamper", "stage"),
    [
        ("fp32", one_weight, "logits"),
        ("fp32", normalization, "graph input"),
        ("int8", qdq_scale, "logits"),
        ("int8", grey, "graph input"),
    ],
)
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_tampered_file_is_red_even_with_a_matching_sidecar(
    station: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    precision: str,
    tamper: Tamper,
    stage: str,
    backend: str,
) -> None:
    source = station / "engines" / PRECISIONS[precision]
    sidecar = read_sidecar(source)
    model = onnx.load(source)
    tamper(model)
    assert sidecar.parent is not None
    tampered = tmp_path / source.name
    write_onnx(tampered, model.SerializeToString(), precision, sidecar.parent)
    command = ["parity", str(station / "data"), "--model", str(tampered), "--backend", backend]
    command += ["--reference", str(station / "engines" / "net.safetensors")]
    command += ["--explain", "--format", "json"]
    assert run(tinyunet, command) == 6
    told = capsys.readouterr()
    assert str(tampered) in told.err and "wanted" in told.err
    (found,) = json.loads(told.out)["comparisons"]
    assert found["outcome"] == "red"
    assert found["explanation"]["first"] == stage


# --- batches --------------------------------------------------------------------------------------


def test_batches_that_mix_images_are_seen() -> None:
    def mixing(image: Batch) -> Batch:
        return np.broadcast_to(image.mean(axis=0, keepdims=True), image.shape).astype(np.uint8)

    def first_row_only(image: Batch) -> Batch:
        score = np.zeros_like(image)
        score[0] = image[0]
        return score

    images = [np.full((SIZE, SIZE), 40 * k, np.uint8) for k in range(1, 5)]
    honest = check_batches(FakeBackend(contract=CONTRACT), images, 4)
    assert set(honest.steps.values()) == {0} and honest.largest == 4
    for wrong in (mixing, first_row_only):
        assert max(check_batches(FakeBackend(wrong, contract=CONTRACT), images, 4).steps.values())
    cut = check_batches(FakeBackend(contract=Contract(SIZE, SIZE, max_batch=2)), images, 4)
    assert cut.largest == 2


def test_the_batches_of_a_profile_are_run() -> None:
    backend = FakeBackend(contract=Contract(SIZE, SIZE, max_batch=8))
    backend.artifact.sidecar.origin["profile"] = {"min": 2, "opt": 4, "max": 8}
    found = check_batches(backend, [np.full((SIZE, SIZE), 9, np.uint8)], 3)
    assert found.sizes == (2, 3, 4, 8)
    assert min(backend.batches) == 2


def test_record_writes_the_batch_and_larger_ones_are_refused(station: Path, tmp_path: Path) -> None:
    for name in ("net.safetensors", "net.onnx"):
        for suffix in ("", ".json"):
            shutil.copy(station / "engines" / (name + suffix), tmp_path)
    model = tmp_path / "net.onnx"
    command = ["parity", str(station / "data"), "--model", str(model), "--batch-size", "2"]
    command += ["--record", "--backend", "onnxruntime"]
    assert run(tinyunet, command) == 0
    assert read_sidecar(model).verified_batch == 2
    with open_backend(model, "onnxruntime") as backend:
        assert backend.max_batch == 2
        with pytest.raises(ValueError, match=r"1\.\.2"):
            backend.run(np.zeros((3, 1, SIZE, SIZE), np.uint8))
    command[command.index("--batch-size") + 1] = "5"
    assert run(tinyunet, command) == 0
    assert read_sidecar(model).verified_batch == 5


# --- what is reported -----------------------------------------------------------------------------


def test_report_has_junit_json_and_pictures(
    station: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    limits = tmp_path / "limits.toml"
    limits.write_text(
        '[[limit]]\nprecision = "int8"\nfigure = "largest_steps"\nmost = 0\nreason = "a test"\n'
    )
    command = ["parity", str(station / "data"), "-m", str(station / "engines"), "-o", str(out)]
    command += ["--limits", str(limits), "--backend", "openvino", "--explain"]
    assert run(tinyunet, command) == 6
    table = capsys.readouterr().out
    assert "net.int8.onnx" in table and "no limits" in table and "red" in table
    suites = ET.parse(out / "parity.xml").getroot()
    outcomes = {
        suite.get("name"): [case.find("failure") is not None for case in suite] for suite in suites
    }
    assert outcomes["net.int8.onnx on openvino cpu"] == [True]
    assert outcomes["net.onnx on openvino cpu"] == [False]
    fields = json.loads((out / "parity.json").read_text())
    assert fields["images"] == 6 and fields["defective"] == 3 and fields["truth"]
    pictures = sorted(path.name for path in (out / "worst").iterdir())
    assert sum(name.startswith("net.int8.onnx-openvino-") for name in pictures) == 3
    picture = cv2.imread(str(out / "worst" / pictures[0]))
    assert picture.shape == (SIZE, 3 * SIZE + 16, 3)


def test_a_folder_without_truth_and_what_cannot_run(
    station: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = station / "data" / "Class1" / "Test"
    command = ["parity", str(folder), "-m", str(station / "engines" / "net.onnx")]
    command += ["--device", "cpu", "--device", "cuda:7", "--backend", "openvino"]
    command += ["--format", "json"]
    assert run(tinyunet, command) == 0
    fields = json.loads(capsys.readouterr().out)
    ran, skipped = fields["comparisons"]
    assert not fields["truth"] and ran["iou_drop"] is None and ran["outcome"] == "green"
    assert skipped["outcome"] == "skipped" and "cuda:7" in skipped["skipped"]
    assert run(tinyunet, [*command[:3], command[3], "--device", "cuda:7"]) == 5


def test_without_a_checkpoint_there_is_no_reference(
    station: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for suffix in ("", ".json"):
        shutil.copy(station / "engines" / f"net.onnx{suffix}", tmp_path)
    assert run(tinyunet, ["parity", str(station / "data"), "-m", str(tmp_path)]) == 4
    assert "--reference" in capsys.readouterr().err


# --- limits ---------------------------------------------------------------------------------------


def test_limits_of_the_package_are_those_that_were_promised() -> None:
    limits = read_limits()
    promised = {
        "fp32": {"largest_steps": 1, "agreement": 0.9999},
        "fp16": {"agreement": 0.999, "flips": 0},
        "int8": {"iou_drop": 0.005, "agreement": 0.95, "flips_defective": 0, "new_alarms": 0},
    }
    for precision, wanted in promised.items():
        found = {limit.figure: limit.value for limit in limits.of(precision, "openvino")}
        assert wanted.items() <= found.items()
    assert all(limit.reason for limit in limits.limits)


def test_a_backend_may_have_a_limit_of_its_own() -> None:
    loose = dataclasses.replace(
        read_limits().of("fp32", "openvino")[0], value=9, backend="openvino"
    )
    limits = Limits((loose, *read_limits().limits))
    assert loose in limits.of("fp32", "openvino")
    assert loose not in limits.of("fp32", "onnxruntime")


GOOD = 'precision = "fp32"\nfigure = "flips"\nmost = 0\nreason = "so"\n'


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "it has no"),
        ("[limits]\n", "unknown key limits"),
        ("[[limit]]\n" + GOOD + "hint = 1\n", "unknown key"),
        ("[[limit]]\n" + GOOD.replace("flips", "steps"), "figure is 'steps'"),
        ("[[limit]]\n" + GOOD.replace("most", "least"), "needs most"),
        ("[[limit]]\n" + GOOD.replace("0", "true"), "needs most"),
        ("[[limit]]\n" + GOOD.replace('"so"', '" "'), "no reason"),
        ("[[limit]]\n" + GOOD + 'backend = "cuda"\n', "backend is 'cuda'"),
        (2 * ("[[limit]]\n" + GOOD), "twice"),
    ],
)
def test_a_file_of_limits_is_read_strictly(tmp_path: Path, text: str, what: str) -> None:
    path = tmp_path / "limits.toml"
    path.write_text(text)
    with pytest.raises(DataError, match=what):
        read_limits(path)
    assert read_limits(LIMITS)
