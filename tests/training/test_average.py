from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.small_runs import SMALL
from tinyunet_deploy.artifacts.checkpoint import load_checkpoint, save_checkpoint
from tinyunet_deploy.artifacts.network import TinyUNet
from tinyunet_deploy.artifacts.sidecar import read_sidecar
from tinyunet_deploy.cli import run
from tinyunet_deploy.contract import Contract
from training.average import average, write_average
from training.loop import train
from training.machine import Machine
from training.sources import read_source

Checkpoint = Callable[..., Path]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    """Write a checkpoint of random weights of a seed."""

    def write(name: str, seed: int, network: str = "slim", size: int = 64, **fields: Any) -> Path:
        torch.manual_seed(seed)
        path = tmp_path / f"{name}.safetensors"
        save_checkpoint(path, TinyUNet(network), Contract(size, size), origin={}, **fields)
        return path

    return write


def test_every_weight_is_the_mean(checkpoint: Checkpoint, tmp_path: Path) -> None:
    three = [checkpoint(f"c{seed}", seed, bits=12) for seed in range(3)]
    write_average(three, tmp_path / "new" / "mean.safetensors")
    mean, sidecar = load_checkpoint(tmp_path / "new" / "mean.safetensors")
    states = [load_checkpoint(path)[0].state_dict() for path in three]
    for name, value in mean.state_dict().items():
        expected = (states[0][name] + states[1][name] + states[2][name]) / 3
        torch.testing.assert_close(value, expected)
    assert sidecar.bits == 12
    assert set(sidecar.origin["mean_of"]) == {read_sidecar(path).sha256 for path in three}


def test_the_order_does_not_matter(checkpoint: Checkpoint, tmp_path: Path) -> None:
    three = [checkpoint(f"c{seed}", seed) for seed in range(3)]
    for name, paths in (("one", three), ("other", three[::-1])):
        write_average(paths, tmp_path / f"{name}.safetensors")
    assert len({(tmp_path / f"{n}.safetensors").read_bytes() for n in ("one", "other")}) == 1
    assert len({(tmp_path / f"{n}.safetensors.json").read_bytes() for n in ("one", "other")}) == 1


def test_it_was_trained_on_the_images_of_all(checkpoint: Checkpoint, tmp_path: Path) -> None:
    digests = ["0" * 64, "1" * 64, "2" * 64]
    write_average(
        [
            checkpoint("a", 0, trained_on=tuple(digests[:2]), teacher="a" * 64, threshold=0.9),
            checkpoint("b", 1, trained_on=tuple(digests[1:]), teacher="a" * 64, min_area=40),
        ],
        tmp_path / "mean.safetensors",
    )
    sidecar = read_sidecar(tmp_path / "mean.safetensors")
    assert list(sidecar.trained_on) == digests
    assert sidecar.teacher == "a" * 64
    assert (sidecar.threshold, sidecar.min_area, sidecar.tuned_on) == (0.5, 1, ())


def test_two_teachers_are_not_one(checkpoint: Checkpoint, tmp_path: Path) -> None:
    pair = [checkpoint("a", 0, teacher="a" * 64), checkpoint("b", 1, teacher="b" * 64)]
    write_average(pair, tmp_path / "mean.safetensors")
    assert read_sidecar(tmp_path / "mean.safetensors").teacher is None


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"network": "tiny"}, "has another network than"),
        ({"size": 128}, "has another size than"),
        ({"bits": 12}, "has another bit depth than"),
        ({"seed": 0}, "has the same weights as"),
    ],
)
def test_checkpoints_that_have_no_mean_are_refused(
    checkpoint: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    fields: dict[str, Any], said: str,
) -> None:  # fmt: skip
    pair = [checkpoint("a", 0), checkpoint("b", **{"seed": 1, **fields})]
    output = tmp_path / "mean.safetensors"
    assert run(average, [*map(str, pair), "-o", str(output)]) == 4
    error = capsys.readouterr().err
    assert said in error
    assert "a.safetensors" in error and "b.safetensors" in error
    assert not output.exists()


def test_one_checkpoint_is_not_averaged(
    checkpoint: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(average, [str(checkpoint("a", 0)), "-o", str(tmp_path / "mean.safetensors")]) == 2
    assert "give two checkpoints or more" in capsys.readouterr().err


def test_a_checkpoint_is_not_replaced_by_the_mean(
    checkpoint: Checkpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    pair = [checkpoint("a", 0), checkpoint("b", 1)]
    before = pair[0].read_bytes()
    assert run(average, [*map(str, pair), "-o", str(pair[0])]) == 2
    assert "is one of the checkpoints" in capsys.readouterr().err
    assert pair[0].read_bytes() == before


def test_a_run_starts_from_it(
    tiny_data: Path, checkpoint: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = "3" * 64
    pair = [checkpoint("a", 0, "tiny", trained_on=(image,)), checkpoint("b", 1, "tiny")]
    output = tmp_path / "mean.safetensors"
    assert run(average, [*map(str, pair), "-o", str(output)]) == 0
    assert capsys.readouterr().out == f"{output}\n"
    source = read_source(tiny_data, None, SMALL)
    trained = train(SMALL, [source], tmp_path / "run", machine=Machine(), init=output)
    sidecar = read_sidecar(trained)
    assert sidecar.origin["init_sha256"] == read_sidecar(output).sha256
    assert image in sidecar.trained_on
