from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from tinyunet_deploy.artifacts.checkpoint import load_checkpoint, network_of, save_checkpoint
from tinyunet_deploy.artifacts.facts import NetworkFacts
from tinyunet_deploy.artifacts.network import TinyUNet
from tinyunet_deploy.artifacts.sidecar import Sidecar, digest, read_artifact, write_artifact
from tinyunet_deploy.contract import Contract
from tinyunet_deploy.errors import ArtifactError


@pytest.fixture(scope="module")
def network() -> TinyUNet:
    network = TinyUNet()
    network.reset_parameters(torch.Generator().manual_seed(1))
    return network


def forge(path: Path, data: bytes, **changes: Any) -> Path:
    """A checkpoint of any bytes whose sidecar has their hash."""
    sidecar = Sidecar(
        kind="checkpoint",
        precision="fp32",
        sha256=digest(data),
        parent=None,
        contract=Contract(64, 64),
        network=NetworkFacts("tiny"),
    )
    write_artifact(path, data, dataclasses.replace(sidecar, **changes))
    return path


def refusal(path: Path) -> str:
    with pytest.raises(ArtifactError) as caught:
        load_checkpoint(path)
    line = str(caught.value)
    assert line.startswith(f"{path}: ")
    assert "\n" not in line
    return line


def test_a_checkpoint_comes_back_as_it_was_saved(tmp_path: Path, network: TinyUNet) -> None:
    path = tmp_path / "new" / "a.safetensors"
    contract = Contract(64, 96, max_batch=4)
    saved = save_checkpoint(
        path, network, contract, threshold=0.3, min_area=9, step=7, origin={"recipe": "x"}
    )
    loaded, sidecar = load_checkpoint(path)
    assert sidecar == saved
    assert (sidecar.kind, sidecar.precision, sidecar.parent) == ("checkpoint", "fp32", None)
    assert (sidecar.contract, sidecar.threshold, sidecar.min_area) == (contract, 0.3, 9)
    assert (sidecar.step, sidecar.origin) == (7, {"recipe": "x"})
    assert sidecar.network == NetworkFacts("tiny", 16, 107, 122)
    assert sidecar.sha256 == digest(path.read_bytes())
    assert not loaded.training, "it is ready to run"
    weights = network.state_dict()
    assert list(loaded.state_dict()) == list(weights)
    for name, value in loaded.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, weights[name]), name


def test_the_same_weights_give_the_same_file(tmp_path: Path, network: TinyUNet) -> None:
    for name in "ab":
        save_checkpoint(tmp_path / f"{name}.safetensors", network, Contract(), origin={})
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_weights_of_any_memory_layout_and_type_are_saved_as_float32(tmp_path: Path) -> None:
    network = TinyUNet().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    network = network.to(torch.bfloat16)
    save_checkpoint(tmp_path / "a.safetensors", network, Contract(), origin={})
    loaded, _ = load_checkpoint(tmp_path / "a.safetensors")
    for name, value in loaded.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, network.state_dict()[name].float()), name


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite_are_refused(
    tmp_path: Path, network: TinyUNet, value: float
) -> None:
    weights = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    weights["bottleneck.2.bias"][3] = value
    path = forge(tmp_path / "a.safetensors", safetensors.torch.save(weights))
    assert "has values in bottleneck.2.bias that are not finite" in refusal(path)


def test_weights_of_another_network_are_refused(tmp_path: Path, network: TinyUNet) -> None:
    weights = network.state_dict()
    shapes = {**weights, "logit.weight": torch.zeros(1, 64, 1, 1)}
    fewer = {name: value for name, value in weights.items() if name != "logit.bias"}
    more = {**weights, "extra": torch.zeros(1)}
    for number, others in enumerate((shapes, fewer, more, {"weight": torch.zeros(2)})):
        path = forge(tmp_path / f"{number}.safetensors", safetensors.torch.save(others))
        assert "has the weights of another network: " in refusal(path)


@pytest.mark.parametrize("variant", ["huge", None, ""])
def test_an_unknown_variant_is_refused(tmp_path: Path, network: TinyUNet, variant: Any) -> None:
    data = safetensors.torch.save(network.state_dict())
    path = forge(tmp_path / "a.safetensors", data, network=NetworkFacts(variant))
    assert "unknown network" in refusal(path)


def test_a_truncated_file_is_refused_by_its_hash(tiny_checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    artifact = read_artifact(tiny_checkpoint)
    write_artifact(path, artifact.data, artifact.sidecar)
    path.write_bytes(artifact.data[: len(artifact.data) // 2])
    assert "is not the file that its sidecar describes" in refusal(path)


def test_a_truncated_file_is_refused_even_with_a_matching_hash(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    data = tiny_checkpoint.read_bytes()
    for length in (0, 1, 8, 9, 500, len(data) // 2, len(data) - 1):
        path = forge(tmp_path / f"{length}.safetensors", data[:length])
        assert "is not a safetensors file" in refusal(path)


def test_a_pickle_is_refused_and_never_loaded(tmp_path: Path) -> None:
    torch.save(TinyUNet().state_dict(), tmp_path / "a.pt")
    path = forge(tmp_path / "a.safetensors", (tmp_path / "a.pt").read_bytes())
    assert "is not a safetensors file" in refusal(path)


def test_an_onnx_file_is_no_checkpoint(tiny_checkpoint: Path) -> None:
    artifact = read_artifact(tiny_checkpoint)
    onnx = dataclasses.replace(artifact, sidecar=dataclasses.replace(artifact.sidecar, kind="onnx"))
    with pytest.raises(ArtifactError, match="is of kind onnx, not checkpoint"):
        network_of(onnx)
