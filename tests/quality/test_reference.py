from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.quality.conftest import PRECISIONS, SIZE
from tinyunet_deploy.artifacts.golden import write_golden
from tinyunet_deploy.artifacts.sidecar import read_artifact, read_sidecar, write_artifact
from tinyunet_deploy.backends.registry import open_backend
from tinyunet_deploy.backends.table import BackendChoice, find_row, why_not
from tinyunet_deploy.cli import run, tinyunet
from tinyunet_deploy.contract import Contract
from tinyunet_deploy.errors import ArtifactError, RefusedError
from tinyunet_deploy.quality import reference
from tinyunet_deploy.quality.reference import Reference, choose_reference, open_reference
from tinyunet_deploy.speed import benchmark


@pytest.fixture
def engines(project: Path, tmp_path: Path) -> Path:
    """Three precisions and their checkpoint, which a test may change; int8 has golden images."""
    folder = shutil.copytree(project / "engines", tmp_path / "engines")
    with open_backend(folder / PRECISIONS["int8"], "onnxruntime") as backend:
        write_golden(folder / PRECISIONS["int8"], backend.score_alone)
    return folder


@pytest.fixture
def no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    def why(backend: BackendChoice) -> str | None:
        return "torch is not installed" if find_row(backend).name == "torch" else why_not(backend)

    monkeypatch.setattr(reference, "why_not", why)


def test_the_checkpoint_is_the_reference_where_torch_is_installed(engines: Path) -> None:
    choice = choose_reference(engines / PRECISIONS["int8"])
    assert choice == Reference(engines / "net.safetensors", "checkpoint")
    assert choice.describe("torch") == "net.safetensors on torch"
    given = engines / PRECISIONS["fp16"]
    assert choose_reference(engines / PRECISIONS["int8"], given) == Reference(given, "given")


@pytest.mark.usefixtures("no_torch")
@pytest.mark.parametrize("name", [PRECISIONS["int8"], PRECISIONS["fp16"]])
def test_without_torch_it_is_the_float32_file_of_the_same_checkpoint(
    engines: Path, name: str
) -> None:
    choice = choose_reference(engines / name)
    assert (choice.path, choice.role) == (engines / PRECISIONS["fp32"], "fp32-onnx")
    assert choice.reason == "the checkpoint does not run here (torch is not installed)"
    with open_reference(choice, (SIZE, SIZE)) as (opened, backend):
        assert opened.golden_steps is None
        line = opened.describe(backend.name)
    assert line.endswith("it has no golden images, so only its sha256 was checked")
    with open_backend(choice.path) as same:
        write_golden(choice.path, same.score_alone)
    with open_reference(choice, (SIZE, SIZE)) as (opened, backend):
        assert opened.golden_steps == 0
        assert "golden scores are met within 0 of 255" in opened.describe(backend.name)


@pytest.mark.usefixtures("no_torch")
def test_the_float32_file_may_lie_in_another_folder(engines: Path, tmp_path: Path) -> None:
    alone = tmp_path / "station"
    alone.mkdir()
    for suffix in ("", ".json"):
        shutil.copy(engines / f"net.fp16.onnx{suffix}", alone)
    with pytest.raises(RefusedError, match=r"nothing to be compared with: the checkpoint was not"):
        choose_reference(alone / "net.fp16.onnx")
    choice = choose_reference(alone / "net.fp16.onnx", None, [engines])
    assert choice.path == engines / PRECISIONS["fp32"]


@pytest.mark.usefixtures("no_torch")
@pytest.mark.parametrize("change", ["another checkpoint", "another size", "another precision"])
def test_a_file_of_another_lineage_or_size_is_never_the_reference(
    engines: Path, change: str
) -> None:
    path = engines / PRECISIONS["fp32"]
    artifact = read_artifact(path)
    other = {
        "another checkpoint": replace(artifact.sidecar, parent="0" * 64),
        "another size": replace(artifact.sidecar, contract=Contract(SIZE, 2 * SIZE)),
        "another precision": replace(artifact.sidecar, precision="fp16"),
    }[change]
    write_artifact(path, artifact.data, other)
    with pytest.raises(RefusedError, match="give --reference CHECKPOINT"):
        choose_reference(engines / PRECISIONS["fp16"])


@pytest.mark.usefixtures("no_torch")
def test_a_float32_file_is_not_compared_with_itself_alone(engines: Path) -> None:
    model = engines / PRECISIONS["fp32"]
    with pytest.raises(RefusedError, match="neither another float32 ONNX file of it nor golden"):
        choose_reference(model)
    with open_backend(model) as same:
        write_golden(model, same.score_alone)
    assert choose_reference(model).role == "golden-images"


@pytest.mark.usefixtures("no_torch")
def test_an_int8_file_alone_is_held_against_its_golden_scores(engines: Path) -> None:
    (engines / PRECISIONS["fp32"]).unlink()
    model = engines / PRECISIONS["int8"]
    choice = choose_reference(model)
    assert (choice.path, choice.role) == (model, "golden-images")
    with open_reference(choice, (SIZE, SIZE)) as (opened, backend):
        assert opened.golden_steps is not None
        assert "the compared file itself" in opened.describe(backend.name)
    write_golden(model, lambda images: np.full_like(images, 200))
    with (
        pytest.raises(ArtifactError, match="fails its self-test"),
        open_reference(choice, (SIZE, SIZE)),
    ):
        pass


@pytest.mark.usefixtures("no_torch")
def test_parity_and_benchmark_say_which_reference_they_took(
    engines: Path,
    project: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(benchmark, "measure_ceilings", lambda _device: iter(()))  # takes seconds
    (engines / "net.safetensors").unlink()
    model, out = str(engines / PRECISIONS["int8"]), tmp_path / "out"
    command = ["parity", str(project / "data"), "-m", model, "--backend", "onnxruntime"]
    assert run(tinyunet, [*command, "-o", str(out)]) == 0
    assert "reference net.onnx on openvino, the float32 file of the same network" in (
        capsys.readouterr().out
    )
    fields = json.loads((out / "parity.json").read_text())["reference"]
    assert (fields["name"], fields["role"]) == ("net.onnx", "fp32-onnx")
    assert fields["sha256"] == read_sidecar(engines / "net.onnx").sha256
    assert fields["reason"] == "the checkpoint was not found"
    half = str(engines / PRECISIONS["fp16"])
    command = ["benchmark", "-m", half, "--backend", "onnxruntime", "--samples", "3"]
    assert run(tinyunet, [*command, "--images", "2", "--format", "json"]) == 0
    fields = json.loads(capsys.readouterr().out)["reference"]
    assert (fields["model"], fields["role"]) == ("net.onnx", "fp32-onnx")
    assert "the float32 file of the same network" in fields["description"]
