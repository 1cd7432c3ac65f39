"""Models of the package by name, and the checkpoints that the wheel leaves out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

import tinyunet_deploy as td
from tinyunet_deploy.artifacts import packaged, sidecar
from tinyunet_deploy.artifacts.lineage import lineage
from tinyunet_deploy.artifacts.packaged import MODELS, PACKAGED, checkpoint_of, named_model
from tinyunet_deploy.artifacts.sidecar import read_artifact
from tinyunet_deploy.backends.registry import open_backend
from tinyunet_deploy.cli import tinyunet
from tinyunet_deploy.errors import ArtifactError


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the models as a wheel has them, without the checkpoints."""
    folder = tmp_path / "models"
    shutil.copytree(MODELS, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    files = {name: folder / path.name for name, path in PACKAGED.items()}
    monkeypatch.setattr(packaged, "PACKAGED", files)
    return folder


@pytest.mark.parametrize("name", PACKAGED)
def test_a_checkpoint_that_is_left_out_is_the_one_of_the_repository(name: str, wheel: Path) -> None:
    original = PACKAGED[name].with_suffix(".safetensors")
    path = wheel / PACKAGED[name].with_suffix(".safetensors").name
    assert not path.exists()
    assert read_artifact(path).data == original.read_bytes()
    links = lineage(wheel / PACKAGED[name].name)
    assert [link.path for link in links] == [wheel / PACKAGED[name].name, path]


def test_a_checkpoint_made_from_a_changed_file_is_refused(wheel: Path) -> None:
    model = wheel / PACKAGED["tiny"].name
    data = bytearray(model.read_bytes())
    data[len(data) // 2] ^= 1  # in the weights
    model.write_bytes(data)
    with pytest.raises(ArtifactError, match="is not the file that its sidecar describes"):
        read_artifact(model.with_suffix(".safetensors"))
    model.write_bytes(b"")
    with pytest.raises(ArtifactError, match="cannot be made from"):
        read_artifact(model.with_suffix(".safetensors"))


def test_a_name_is_a_model_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").mkdir()  # the name comes first; ./tiny is the folder
    for name, path in PACKAGED.items():
        assert named_model(name) == path
        with open_backend(path, "torch") as backend:
            assert backend.artifact.path == path.with_suffix(".safetensors")
        with td.load(name) as model:
            assert model.threshold == read_artifact(path).sidecar.threshold
    assert named_model("./tiny") == named_model(Path("tiny")) == Path("tiny")
    assert checkpoint_of(Path("net.onnx")) is None


def test_the_verbs_take_names() -> None:
    for name, path in PACKAGED.items():
        shown = CliRunner().invoke(tinyunet, ["info", name, "--format", "json"])
        assert json.loads(shown.output)["sha256"] == sidecar.digest(path.read_bytes())
    assert CliRunner().invoke(tinyunet, ["info", "large"]).exception is not None


def test_info_lists_the_models() -> None:
    listed = CliRunner().invoke(tinyunet, ["info"])
    assert [line.split()[0] for line in listed.output.splitlines()[:-1]] == list(PACKAGED)
    assert listed.output.count("(default)") == 1
    fields = json.loads(CliRunner().invoke(tinyunet, ["info", "--format", "json"]).output)
    assert [model["name"] for model in fields["models"] if model["default"]] == ["tiny"]
    for model in fields["models"]:
        assert sidecar.digest(Path(model["file"]).read_bytes()) == model["sha256"]
