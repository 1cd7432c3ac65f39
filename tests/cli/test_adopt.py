"""Adopted networks: proven, described, and taken by every verb."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner

from tests.conftest import part
from tests.every_verb import go_every_way
from tests.foreign_networks import NETWORKS, SIDE, Graph, rgb_logits
from tinyunet_deploy.artifacts.adoption.form import Normalization
from tinyunet_deploy.artifacts.sidecar import parse_sidecar, read_artifact, sidecar_path
from tinyunet_deploy.backends.registry import open_backend
from tinyunet_deploy.cli import run, tinyunet
from tinyunet_deploy.data.encoding import write_png
from tinyunet_deploy.errors import ArtifactError
from tinyunet_deploy.quality import adoption, adoption_proof


def adopt(folder: Path, name: str, *more: str) -> Path:
    """Adopt one of the networks; return the path of the adopted file."""
    make, options = NETWORKS[name]
    original = folder / f"{name}-original.onnx"
    original.write_bytes(make())
    output = folder / f"{name}.onnx"
    assert run(tinyunet, ["adopt", str(original), "-o", str(output), *options, *more]) == 0
    return output


@pytest.fixture(scope="module")
def adopted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """All networks, adopted. Not to be changed: copy them."""
    folder = tmp_path_factory.mktemp("adopted")
    return {name: adopt(folder, name) for name in NETWORKS}


def test_every_network_is_proven_and_described(adopted: dict[str, Path]) -> None:
    facts = {}
    for name, path in adopted.items():
        sidecar = read_artifact(path).sidecar
        adoption, network = sidecar.adoption, sidecar.network
        assert adoption is not None and network is not None
        assert adoption.proof_steps <= 1 and adoption.proof_images == 5 and sidecar.golden
        facts[name] = (
            adoption.input_layout,
            adoption.activation,
            adoption.batch,
            adoption.size,
            network.size_multiple,
            network.reach,
        )
    assert facts == {
        "rgb-logits": ("NCHW", "sigmoid", "free", "fixed", 2, (6, 6)),
        "rgb-sigmoid-nhwc": ("NHWC", "probability", "free", "fixed", 2, (6, 6)),
        "grey-softmax": ("NCHW", "probability", "free", "fixed", 2, (6, 6)),
        "bytes-nhwc": ("NHWC", "bytes", "free", "fixed", 2, (6, 6)),
        "static-freeable": ("NCHW", "sigmoid", "free", "fixed", 1, (3, 3)),
        "static": ("NCHW", "sigmoid", "fixed", "fixed", 1, (3, 3)),
        "free-size": ("NCHW", "sigmoid", "free", "free", 2, (6, 6)),
        "transformer": ("NCHW", "sigmoid", "free", "fixed", None, None),
    }


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of four images of 64x64, two of them defective."""
    folder = tmp_path_factory.mktemp("parts")
    for name in ("images", "masks"):
        (folder / name).mkdir()
    for seed in range(4):
        image = part(seed)
        write_png(folder / "images" / f"{seed}.png", image)
        write_png(folder / "masks" / f"{seed}.png", np.uint8(255) * (image > 140))
    return folder


def test_an_adopted_network_goes_every_way(
    adopted: dict[str, Path], parts: Path, tmp_path: Path
) -> None:
    printed = go_every_way(adopted["static"], parts, parts / "images", tmp_path, whole=False)
    assert "adopted from" in printed["info"] and "an adopted network" in printed["info"]
    findings = json.loads(printed["verify"])["findings"]
    assert {finding["outcome"] for finding in findings} <= {"ok", "skipped"}
    assert "an adopted network has no checkpoint" in printed["parity"]
    config = (tmp_path / "models" / "static" / "config.pbtxt").read_text()
    assert "max_batch_size: 0" in config and "dims: [1, 1, 64, 64]" in config
    assert "dynamic_batching" not in config, "its shapes say one image"


@pytest.mark.nightly
@pytest.mark.parametrize("name", NETWORKS)
def test_every_adopted_network_goes_every_way(
    name: str, adopted: dict[str, Path], parts: Path, tmp_path: Path
) -> None:
    go_every_way(adopted[name], parts, parts / "images", tmp_path, whole=True)


def test_a_fixed_batch_is_kept_to_one_image_by_every_backend(adopted: dict[str, Path]) -> None:
    images = np.stack([part(seed) for seed in range(3)])[:, None]
    for name in ("openvino", "onnxruntime"):
        with open_backend(adopted["static"], name) as backend:
            assert (backend.max_batch, backend.batch_size(8)) == (1, 1)
            with pytest.raises(ValueError, match="expected a batch of 1"):
                backend.run(images)
        with open_backend(adopted["static-freeable"], name) as backend:
            together, alone = backend.run(images).score, backend.score_alone(images)
            assert np.abs(together.astype(int) - alone).max() <= 1
            assert together.std() > 3, "a network that sees something"


def test_the_same_network_and_choices_give_the_same_bytes(
    adopted: dict[str, Path], tmp_path: Path
) -> None:
    again = adopt(tmp_path, "rgb-logits")
    assert again.read_bytes() == adopted["rgb-logits"].read_bytes()
    model = onnx.load(again)
    assert model.opset_import[0].version >= 18 and model.ir_version <= 10


def test_the_scores_are_those_of_the_original_by_hand(
    adopted: dict[str, Path], tmp_path: Path
) -> None:
    """The arithmetic of the proof, written a third time."""
    image = part(1)
    cases: dict[str, tuple[Callable[..., object], Callable[..., object]]] = {
        "rgb-logits": (
            lambda grey: (
                (np.stack([grey / 255] * 3, -1) - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
            ).transpose(2, 0, 1)[None],
            lambda y: 1 / (1 + np.exp(-y[0, 0])),
        ),
        "rgb-sigmoid-nhwc": (
            lambda grey: np.stack([grey / 127.5 - 1] * 3, -1)[None],
            lambda y: y[0, :, :, 0],
        ),
        "grey-softmax": (lambda grey: grey[None, None] / 255, lambda y: y[0, 2] + y[0, 3]),
    }
    for name, (before, behind) in cases.items():
        session = onnxruntime.InferenceSession(NETWORKS[name][0]())
        given = np.asarray(before(image.astype(np.float64)), np.float32)
        (values,) = session.run(None, {session.get_inputs()[0].name: given})
        expected = np.rint(255 * np.asarray(behind(values.astype(np.float64))))
        with open_backend(adopted[name]) as backend:
            score = backend.run(image[None, None]).score[0, 0]
        assert np.abs(score - expected).max() <= 1
        assert expected.std() > 1


def test_json_has_the_rows_and_the_facts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adopt(tmp_path, "grey-softmax", "--format", "json", "--threshold", "0.7", "--min-area", "9")
    document = json.loads(capsys.readouterr().out)
    assert {"input", "normalisation", "proof", "reach"} <= {row["what"] for row in document["rows"]}
    assert document["adoption"]["defect_channels"] == [2, 3]
    path = Path(document["path"])
    sidecar = parse_sidecar(sidecar_path(path).read_bytes(), path)
    assert (sidecar.threshold, sidecar.min_area) == (0.7, 9)
    assert sidecar.adoption is not None
    assert (sidecar.adoption.combine, sidecar.adoption.mean) == ("sum", (0.0,))


def test_images_of_a_folder_are_compared_too(parts: Path, tmp_path: Path) -> None:
    path = adopt(tmp_path, "rgb-logits", "--images", str(parts), "--reach", "whole")
    adoption = read_artifact(path).sidecar.adoption
    assert adoption is not None
    assert (adoption.proof_images, adoption.reach) == (9, "whole image")


def test_tiles_of_a_network_that_sees_the_whole_image_are_said_to_approximate(
    adopted: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_png(tmp_path / "photos.png", part(1, height=SIDE, width=3 * SIDE))
    words = ["infer", str(tmp_path / "photos.png"), "-o", str(tmp_path / "out"), "-m"]
    assert run(tinyunet, [*words, str(adopted["transformer"])]) == 0
    assert "seams cannot be excluded" in caplog.text
    caplog.clear()
    words[3] = str(tmp_path / "out-2")
    assert run(tinyunet, [*words, str(adopted["rgb-logits"])]) == 0
    assert "seams" not in caplog.text


# --- refusals -------------------------------------------------------------------------------------


def refusal(folder: Path, data: bytes, *options: str, name: str = "net.onnx") -> str:
    """Adopt something that is refused; return the one line on stderr. Nothing is written."""
    (folder / name).write_bytes(data)
    words = ["adopt", str(folder / name), "-o", str(folder / "adopted.onnx"), *options]
    result = CliRunner().invoke(tinyunet, words)
    assert isinstance(result.exception, ArtifactError), result.output
    assert not (folder / "adopted.onnx").exists()
    assert not sidecar_path(folder / "adopted.onnx").exists()
    return str(result.exception)


def test_all_that_is_missing_is_named_at_once(tmp_path: Path) -> None:
    g = Graph(7)
    g.add("Sigmoid", g.conv("x", 3, 3), name="y")
    shape = ["N", 3, 32, 32]
    data = g.model(("x", 1, shape), ("y", 1, shape))
    text = refusal(tmp_path, data)
    assert (
        "has x float32 [?, 3, 32, 32] in, y float32 [?, 3, 32, 32] out; expected image uint8"
        in (text)
    )
    assert "--normalize raw|unit|symmetric|imagenet --defect 1,2)" in text
    assert f"tinyunet adopt {tmp_path / 'net.onnx'} -o NAME.onnx" in text


SAME = ["N", 1, 32, 32]
UNIT = ["--normalize", "unit"]


def small(end: Callable[[Graph, str], object], shape: list[int | str] | None = None) -> bytes:
    """A network of one convolution with another end."""
    g = Graph(8)
    end(g, g.conv("x", 1, 1))
    return g.model(("x", 1, SAME), ("y", 1, shape or SAME))


def test_what_cannot_be_is_refused_with_the_reason(tmp_path: Path) -> None:
    sigmoid = small(lambda g, x: g.add("Sigmoid", x, name="y"))
    logits = small(lambda g, x: g.add("Identity", x, name="y"))
    square = small(lambda g, x: g.add("Mul", g.add("Sigmoid", x), g.add("Sigmoid", x), name="y"))
    half = small(
        lambda g, x: g.add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2], name="y"),
        ["N", 1, 16, 16],
    )
    nan = small(lambda g, x: g.add("Log", g.add("Neg", g.add("Abs", x)), name="y"))
    noisy = small(lambda g, x: g.add("Add", x, g.add("RandomNormalLike", x), name="y"))
    same = small(lambda g, x: g.add("Mul", x, g.constant(0.0), name="y"))
    for data, options, words in (
        (sigmoid, [*UNIT, "--activation", "sigmoid"], "already ends in sigmoid"),
        (logits, [*UNIT, "--activation", "probability"], "does not give probabilities"),
        (logits, [*UNIT, "--activation", "softmax"], "softmax is always 1"),
        (logits, [*UNIT, "--defect", "1"], "--defect 1 is none"),
        (logits, [*UNIT, "--size", "64"], "fixed at export, not 64x64"),
        (logits, ["--mean", "0,0,0"], "takes 1 channel, but the normalisation has 3 numbers"),
        (square, UNIT, "--activation sigmoid|probability"),
        (half, UNIT, "gives [1, 1, 16, 16] for 1 image of 32x32"),
        (nan, UNIT, "not finite"),
        (noisy, UNIT, "other values for the same image"),
        (same, UNIT, "the same values for every image"),
        (b"not a graph", UNIT, "is not a usable ONNX file"),
    ):
        assert words in refusal(tmp_path, data, *options), words


def test_the_original_is_never_written_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = rgb_logits()
    (tmp_path / "net.onnx").write_bytes(data)
    (tmp_path / "link.onnx").symlink_to("net.onnx")
    monkeypatch.chdir(tmp_path)
    for output in ("net.onnx", "link.onnx", str(tmp_path / "net.onnx")):
        assert run(tinyunet, ["adopt", "net.onnx", "-o", output, *UNIT]) == 4
        assert "-o takes another file, NAME.onnx" in capsys.readouterr().err
    assert (tmp_path / "net.onnx").read_bytes() == data


def test_labels_and_fixed_batches_of_several_images_are_refused(tmp_path: Path) -> None:
    def labels(g: Graph, x: str) -> None:
        g.add("Cast", g.add("Greater", x, g.constant(0.0)), name="y", to=2)

    g = Graph(9)
    labels(g, g.conv("x", 1, 1))
    text = refusal(tmp_path, g.model(("x", 1, SAME), ("y", 2, SAME)), *UNIT)
    assert "labels 0 to 1" in text
    g = Graph(10)
    x = g.add("Reshape", g.conv("x", 1, 4), g.constant([4, 4 * 1024], np.int64))
    x = g.add("Reshape", g.add("MatMul", g.weights(4, 4), x), g.constant([4, 4, 32, 32], np.int64))
    g.add("Identity", g.conv(x, 4, 1), name="y")
    fixed = g.model(("x", 1, [4, 1, 32, 32]), ("y", 1, [4, 1, 32, 32]))
    assert "batches of 4 images only" in refusal(tmp_path, fixed, *UNIT)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".ckpt", ".pt2", ".xml", ".h5", ".tflite", ".x"])
def test_other_formats_are_told_how_they_become_onnx(suffix: str, tmp_path: Path) -> None:
    planted = b"cos\nsystem\n(S'touch planted'\ntR."
    text = refusal(tmp_path, planted, *UNIT, name=f"net{suffix}")
    assert "onnx" in text.lower()
    if suffix in (".pth", ".pt"):
        assert "torch.onnx.export(" in text


def test_a_fault_of_the_surgery_is_found_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = adoption.wrapped

    def wrong(*arguments: Any) -> bytes:
        normalization = Normalization((0.0,), (200.0,))
        return original(*arguments[:3], normalization, *arguments[4:])

    monkeypatch.setattr(adoption, "wrapped", wrong)
    (tmp_path / "net.onnx").write_bytes(rgb_logits())
    output = tmp_path / "out.onnx"
    words = ["adopt", str(tmp_path / "net.onnx"), "-o", str(output), *UNIT]
    assert run(tinyunet, words) == 6
    assert not output.exists() and not sidecar_path(output).exists()


@pytest.mark.parametrize(("steps", "code"), [(1, 0), (2, 6)])
def test_scores_may_differ_by_one_step_and_no_more(
    steps: int, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = adoption_proof.original_scores

    def off(*arguments: Any) -> Any:
        scores = original(*arguments)
        return np.where(scores < 128, scores + steps, scores - steps).astype(np.uint8)

    monkeypatch.setattr(adoption_proof, "original_scores", off)
    (tmp_path / "net.onnx").write_bytes(rgb_logits())
    output = tmp_path / "out.onnx"
    words = ["adopt", str(tmp_path / "net.onnx"), "-o", str(output), *UNIT]
    assert run(tinyunet, words) == code
    assert output.exists() == (code == 0)


@pytest.mark.parametrize(
    "verb", ["infer", "info", "evaluate", "parity", "verify", "build", "triton"]
)
def test_every_verb_names_what_it_found_and_the_command_that_adopts_it(
    verb: str, parts: Path, tmp_path: Path
) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(rgb_logits())
    words = {
        "infer": [str(parts / "images"), "-o", str(tmp_path / "o"), "-m", str(path)],
        "evaluate": [str(parts), "-m", str(path)],
        "parity": [str(parts), "-m", str(path)],
        "build": [str(path), "-o", str(tmp_path)],
        "triton": [str(path), "-o", str(tmp_path)],
    }.get(verb, [str(path)])
    result = CliRunner().invoke(tinyunet, [verb, *words])
    text = result.output + str(result.exception or "")
    text = " ".join(text.split())
    assert "pixels float32 [?, 3, 64, 64] in, logits float32 [?, 1, 64, 64] out" in text, text
    if verb != "verify":  # whose table folds
        assert f"tinyunet adopt {path} -o NAME.onnx" in text
