from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from tests.training.small_runs import SMALL
from tinyunet_deploy.artifacts.checkpoint import load_checkpoint
from tinyunet_deploy.cli import run
from tinyunet_deploy.data import synthetic
from training.figures import figures_of
from training.loop import train
from training.machine import Machine
from training.recipe import Recipe, read_recipe
from training.sources import read_source
from training.untrained import initial_network, untrained, write_untrained


def test_it_is_the_network_that_training_begins_with(tiny_data: Path, tmp_path: Path) -> None:
    """A run whose rate is zero never leaves it."""
    still = dataclasses.replace(
        SMALL, steps=1, schedule=dataclasses.replace(SMALL.schedule, rate=0.0),
        optimizer=dataclasses.replace(SMALL.optimizer, l2=0.0),
    )  # fmt: skip
    source = read_source(tiny_data, None, still)
    trained, _ = load_checkpoint(train(still, [source], tmp_path / "run", machine=Machine()))
    write_untrained(still, source, tmp_path / "untrained.safetensors")
    begun, sidecar = load_checkpoint(tmp_path / "untrained.safetensors")
    assert sidecar.step == 0
    assert sidecar.origin["operating_point"]["validation_images"] == len(source.validation)
    for name, value in begun.state_dict().items():
        assert torch.equal(value, trained.state_dict()[name])
    other = initial_network(dataclasses.replace(SMALL, seed=1)).state_dict()
    assert not torch.equal(other["logit.weight"], begun.state_dict()["logit.weight"])


@pytest.fixture(scope="module")
def demo_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's class at a quarter of its size."""
    root = tmp_path_factory.mktemp("demo") / "data"
    synthetic.write_dataset(root, classes=[1], train=40, test=16, defective=0.5, size=64)
    return root


def test_the_demos_recipe_improves_on_the_untrained_network(
    demo_data: Path, tmp_path: Path
) -> None:
    recipe: Recipe = read_recipe("demo")
    small = dataclasses.replace(
        recipe, steps=120, batch=8, data=dataclasses.replace(recipe.data, crop=32)
    )  # fmt: skip
    source = read_source(demo_data, None, small)
    write_untrained(small, source, tmp_path / "untrained.safetensors")
    checkpoint = train(small, [source], tmp_path / "run", machine=Machine())
    before, after = (
        figures_of(demo_data, path, "cpu")["figures"]
        for path in (tmp_path / "untrained.safetensors", checkpoint)
    )
    assert after["iou_defective"] > before["iou_defective"] + 0.15
    assert after["auroc"] > 0.9


def test_the_command_writes_the_checkpoint(tiny_data: Path, tmp_path: Path) -> None:
    output = tmp_path / "new" / "untrained.safetensors"
    small = tmp_path / "small.toml"
    small.write_text("[data]\ncrop = 32\nvalidation = 0.25\n")
    assert run(untrained, [str(small), "--data", str(tiny_data), "-o", str(output)]) == 0
    assert load_checkpoint(output)[1].step == 0
