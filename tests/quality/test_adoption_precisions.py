"""fp16 and int8 of adopted networks: written if they keep the limits, else refused with figures."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

import tinyunet_deploy as td
from tests.every_verb import go_every_way
from tests.foreign_networks import NETWORKS
from tests.quality.conftest import write_images
from tinyunet_deploy.artifacts.golden import read_golden
from tinyunet_deploy.artifacts.onnx_reader import read_graph
from tinyunet_deploy.artifacts.sidecar import read_artifact, write_sidecar
from tinyunet_deploy.backends.registry import open_backend
from tinyunet_deploy.cli import run, tinyunet
from tinyunet_deploy.data.bit_depth import BitDepth
from tinyunet_deploy.data.decoding import read_image
from tinyunet_deploy.data.encoding import write_png
from tinyunet_deploy.errors import ArtifactError, DataError, GateFailed
from tinyunet_deploy.quality import adoption_precisions
from tinyunet_deploy.quality.adoption_images import (
    calibration_paths,
    calibration_tiles,
    require_apart,
)
from tinyunet_deploy.quality.adoption_precisions import convert_adopted
from tinyunet_deploy.quality.parity_limits import Limit


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_images(folder)
    return folder


def adopt(folder: Path, name: str, *more: object) -> tuple[int, Path]:
    make, options = NETWORKS[name]
    original = folder / "original.onnx"
    original.write_bytes(make())
    words = ["adopt", original, "-o", folder / "net.onnx", *options, *more]
    return run(tinyunet, list(map(str, words))), folder / "net.onnx"


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """The adopted file of a network, its fp16 and its int8 file beside it."""
    folder = tmp_path_factory.mktemp("engines")
    more = ("--precision", "fp32,fp16,int8", "--calibrate", data)
    code, path = adopt(folder, "free-size", *more)
    assert code == 0
    return path


def test_files_that_keep_the_limits_are_written_as_children_of_float32(converted: Path) -> None:
    parent = read_artifact(converted).sidecar
    for precision in ("fp16", "int8"):
        artifact = read_artifact(converted.with_suffix(f".{precision}.onnx"))
        sidecar = artifact.sidecar
        assert (sidecar.precision, sidecar.parent) == (precision, parent.sha256)
        assert (sidecar.adoption, sidecar.network) == (parent.adoption, parent.network)
        assert sidecar.contract == parent.contract and sidecar.golden
        assert set(sidecar.origin["figures"]) == {"openvino", "onnxruntime"}
    assert sidecar.origin["calibration"]["images"] == 12
    assert [name.partition("-")[0] for name in sidecar.kept_in_float32] == ["ConvTranspose"]
    fp16 = read_artifact(converted.with_suffix(".fp16.onnx"))
    assert read_graph(fp16.data).precision() == "fp16"


def test_an_int8_file_is_golden_by_its_own_scores_and_fp16_by_those_of_float32(
    converted: Path,
) -> None:
    images, float32 = read_golden(read_artifact(converted))
    for precision, like_float32 in (("fp16", True), ("int8", False)):
        path = converted.with_suffix(f".{precision}.onnx")
        same_images, scores = read_golden(read_artifact(path))
        assert np.array_equal(images, same_images)
        assert np.array_equal(scores, float32) is like_float32
    with open_backend(path) as backend:
        assert np.array_equal(scores, backend.score_alone(images))


def test_every_verb_takes_them_and_parity_takes_the_adopted_file_as_reference(
    converted: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    int8 = converted.with_suffix(".int8.onnx")
    assert run(tinyunet, ["verify", str(int8), "--strict"]) == 0
    result = td.parity(data, [int8, converted], backends=["onnxruntime"], explain=True)
    assert [artifact.outcome for artifact in result.artifacts] == ["green", "green"]
    assert (result.reference.role, result.reference.path) == ("adopted", converted)
    explanation = result.artifacts[0].explanation
    assert explanation is not None
    stages = {stage.stage: stage.difference for stage in explanation.stages}
    assert stages["graph input"] == 0, "the same normalised image, also before int8"
    assert stages["logits"]
    own = td.parity(data, converted, backends=["onnxruntime"]).reference
    assert own.role == "golden-images"
    assert own.reason == "an adopted network has no checkpoint"
    assert td.evaluate(data, int8).all.images == 6
    assert run(tinyunet, ["triton", str(int8), "-o", str(tmp_path)]) == 0
    capsys.readouterr()


@pytest.mark.nightly
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_they_go_every_way(precision: str, converted: Path, data: Path, tmp_path: Path) -> None:
    model = converted.with_suffix(f".{precision}.onnx")
    printed = go_every_way(model, data, data / "Class1" / "Test", tmp_path, whole=True)
    assert precision in printed["info"]


def test_a_plan_of_int8_may_compute_what_was_kept_in_float32(
    converted: Path, tmp_path: Path
) -> None:
    pytest.importorskip("tensorrt_rtx")
    int8 = converted.with_suffix(".int8.onnx")
    words = ["build", int8, "-o", tmp_path, "--flavour", "tensorrt_rtx"]
    assert run(tinyunet, list(map(str, [*words, "--compute-capability", "8.6"]))) == 0


@pytest.mark.nightly
def test_int8_that_breaks_a_limit_is_refused_with_the_figures(data: Path, tmp_path: Path) -> None:
    code, path = adopt(tmp_path, "grey-softmax")
    assert code == 0
    before = sorted(tmp_path.iterdir())
    with pytest.raises(GateFailed, match=r"agreement on .* but must be >= 0\.95"):
        convert_adopted(path, "int8", calibrate=data)
    assert sorted(tmp_path.iterdir()) == before


def test_the_verb_keeps_float32_and_exits_with_6(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ("--precision", "fp16", "--images", data, "--format", "json")
    code, path = adopt(tmp_path, "grey-softmax", *more)
    assert code == 6 and path.exists() and not path.with_suffix(".fp16.onnx").exists()
    captured = capsys.readouterr()
    assert json.loads(captured.out)["converted"] == []
    assert "net.fp16.onnx: is not written, as it would differ too much" in captured.err
    assert "agreement on" in captured.err and "but must be >= 0.999" in captured.err


@pytest.mark.nightly
def test_fewer_convolutions_are_quantized_until_the_limits_hold(data: Path, tmp_path: Path) -> None:
    code, path = adopt(tmp_path, "rgb-logits")
    assert code == 0
    file = convert_adopted(path, "int8", calibrate=data)
    kept = [name.partition("-")[0] for name in file.kept_in_float32]
    assert kept.count("Conv") == 2, "the first and the last"
    assert all(figures["agreement"] >= 0.95 for figures in file.figures.values())
    assert read_artifact(file.path).sidecar.kept_in_float32 == file.kept_in_float32


def test_images_never_calibrate_and_test(converted: Path, data: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    shutil.copytree(data / "Class1" / "Test", photos, ignore=shutil.ignore_patterns("Label"))
    with pytest.raises(DataError, match="with the same images"):
        convert_adopted(converted, "int8", calibrate=photos)


def test_copies_of_the_calibration_images_do_not_test(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    for name in ("a", "b", "c"):
        for folder in ("calibration", "other"):
            (tmp_path / folder).mkdir(exist_ok=True)
            write_png(tmp_path / folder / f"{name}.png", rng.integers(0, 256, (64, 64), np.uint8))
    calibration, other = tmp_path / "calibration", tmp_path / "other"
    paths = calibration_paths(calibration)
    require_apart(paths, other)  # the same names, but not the same images
    shutil.copy(calibration / "b.png", other / "renamed.png")
    with pytest.raises(DataError, match=r"renamed\.png is b\.png of .*calibration"):
        require_apart(paths, other)


def test_without_images_fp16_is_compared_on_synthetic_ones_that_show_something(
    converted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders: list[Path] = []

    def run_parity(_: object, folder: Path, *__: object, **___: object) -> None:
        folders.extend(sorted(folder.iterdir()))
        assert all(np.ptp(read_image(path)) for path in folders), "grey ones show no outline"
        raise GateFailed("x", "stop")

    monkeypatch.setattr(adoption_precisions, "run_parity", run_parity)
    with pytest.raises(GateFailed, match="stop"):
        convert_adopted(converted, "fp16")
    assert len(folders) == 3


def test_every_calibration_image_is_read_and_a_larger_one_in_tiles(
    converted: Path, data: Path, tmp_path: Path
) -> None:
    tiling = read_artifact(converted).sidecar.tiling
    paths = calibration_paths(data)
    assert len(calibration_tiles(tiling, paths, BitDepth(None))) == len(paths) == 12
    large = np.tile(read_image(paths[0]), (3, 2))
    write_png(tmp_path / "large.png", large)
    tiles = calibration_tiles(tiling, [tmp_path / "large.png"], BitDepth(None))
    assert len(tiles) >= 6
    assert {tile.shape for tile in tiles} == {(tiling.contract.height, tiling.contract.width)}


def test_a_batch_that_was_verified_is_that_of_float32_alone(
    converted: Path, data: Path, tmp_path: Path
) -> None:
    model = tmp_path / "net.onnx"
    for suffix in ("", ".golden.png"):
        shutil.copy(f"{converted}{suffix}", f"{model}{suffix}")
    write_sidecar(model, replace(read_artifact(converted).sidecar, verified_batch=4))
    assert read_artifact(model).sidecar.verified_batch == 4
    fp16 = convert_adopted(model, "fp16", images=data).path
    assert read_artifact(fp16).sidecar.verified_batch is None


def test_calibration_images_have_the_depth_of_their_data_set(
    converted: Path, data: Path, tmp_path: Path
) -> None:
    """Images of 12 bits that look like those of 8 give the same int8 file."""
    for folder, deep in (("plain", False), ("deep", True)):
        (tmp_path / folder / "photos").mkdir(parents=True)
        for path in (data / "Class1" / "Train").glob("*.PNG"):
            image = read_image(path)
            stored = np.rint(image * (4095 / 255)).astype(np.uint16) if deep else image
            cv2.imwrite(str(tmp_path / folder / "photos" / path.name), stored)
    (tmp_path / "deep" / "dataset.toml").write_text("[images]\nbit_depth = 12\n")
    made = []
    for folder in ("plain", "deep"):
        model = tmp_path / folder / "net.onnx"
        for name in ("net.onnx", "net.onnx.json", "net.onnx.golden.png"):
            shutil.copy(converted.with_name(name), model.with_name(name))
        photos = tmp_path / folder / "photos"
        made.append(convert_adopted(model, "int8", calibrate=photos, images=data).path)
    assert made[0].read_bytes() == made[1].read_bytes()


def test_without_truth_no_verdict_may_flip(
    converted: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[Any] = []

    def run_parity(*_: object, **options: Any) -> None:
        limits.append({limit.figure: limit.value for limit in options["limits"].of("int8")})
        raise GateFailed("x", "stop")

    monkeypatch.setattr(adoption_precisions, "run_parity", run_parity)
    photos = tmp_path / "photos"
    photos.mkdir()
    for path in (data / "Class1" / "Test").glob("*.PNG"):
        write_png(photos / path.name, read_image(path))
    for images in (photos, data):
        with pytest.raises(GateFailed, match="stop"):
            convert_adopted(converted, "int8", calibrate=data, images=images)
    assert [figures.get("flips") for figures in limits] == [0, None]


@pytest.mark.parametrize(
    ("outcomes", "refused"),
    [
        (("green", "green"), None),
        (("green", "skipped"), None),
        (("green", "red"), "but must be >= 0.999"),
        (("green", "no limits"), "no backend runs it"),
        (("skipped", "skipped"), "net.fp16.onnx: is not written: no backend runs it .net.fp16"),
    ],
)
def test_a_file_is_written_only_if_no_backend_breaks_a_limit_and_one_keeps_them(
    outcomes: tuple[str, ...],
    refused: str | None,
    converted: Path,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def run_parity(models: list[Path], *_: object, **__: Any) -> SimpleNamespace:
        artifacts = [
            SimpleNamespace(
                outcome=outcome,
                backend=f"backend {number}",
                model=models[0],
                figures={"agreement": 1.0, "flips": 0.0},
                skipped=f"{models[0]}: cannot run" if outcome == "skipped" else None,
            )
            for number, outcome in enumerate(outcomes)
        ]
        limit = Limit("fp16", "agreement", 0.999, "a test")
        broken = [
            (artifact, SimpleNamespace(limit=limit, value=0.5))
            for artifact in artifacts
            if artifact.outcome == "red"
        ]
        return SimpleNamespace(artifacts=artifacts, broken=broken, images=[1])

    monkeypatch.setattr(adoption_precisions, "run_parity", run_parity)
    model = tmp_path / "net.onnx"
    for suffix in ("", ".json", ".golden.png"):
        shutil.copy(f"{converted}{suffix}", f"{model}{suffix}")
    if refused is None:
        file = convert_adopted(model, "fp16", images=data)
        assert list(file.figures) == [
            f"backend {place}" for place, outcome in enumerate(outcomes) if outcome == "green"
        ]
        return
    with pytest.raises((GateFailed, ArtifactError), match=refused):
        convert_adopted(model, "fp16", images=data)
    assert not model.with_suffix(".fp16.onnx").exists()


def test_a_network_that_stays_in_float32_is_not_called_fp16(
    converted: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adoption_precisions, "float16", lambda _: read_artifact(converted).data)
    with pytest.raises(ArtifactError, match="its convolutions stay in float32"):
        convert_adopted(converted, "fp16", images=data)


def test_only_float32_is_converted(converted: Path, data: Path) -> None:
    with pytest.raises(ArtifactError, match="is fp16, but must be fp32"):
        convert_adopted(converted.with_suffix(".fp16.onnx"), "int8", calibrate=data)
    with pytest.raises(DataError, match="needs images to calibrate int8"):
        convert_adopted(converted, "int8")


@pytest.mark.parametrize("more", [("--precision", "int8"), ("--calibrate", ".")])
def test_int8_and_its_images_go_together(
    tmp_path: Path, more: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    code, path = adopt(tmp_path, "free-size", *more)
    assert code == 2 and not path.exists()
    assert "--precision int8 and --calibrate go together" in capsys.readouterr().err


@pytest.mark.nightly
@pytest.mark.parametrize("name", NETWORKS)
def test_no_network_gets_a_file_that_is_worse_than_promised(
    name: str, data: Path, tmp_path: Path
) -> None:
    code, path = adopt(tmp_path, name, "--precision", "fp16,int8", "--calibrate", data)
    written = list(tmp_path.glob("net.*.onnx"))
    assert code == (0 if len(written) == 2 else 6)
    for file in written:
        result = td.parity(data, file)
        assert {artifact.outcome for artifact in result.artifacts} == {"green"}
    assert read_artifact(path).sidecar.precision == "fp32"
