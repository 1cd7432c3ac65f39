from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.small_runs import SMALL
from tinyunet_deploy.artifacts.checkpoint import load_checkpoint
from tinyunet_deploy.errors import RefusedError
from training.loop import train
from training.machine import Machine
from training.recipe import Data, Recipe, RMSProp
from training.sources import read_source


def test_a_run_leaves_a_checkpoint_that_loads(finished: Path):
    network, sidecar = load_checkpoint(finished / "checkpoint.safetensors")
    assert network.name == "tiny"
    assert sidecar.contract.height == 64
    assert sidecar.origin["recipe"]["steps"] == 6
    assert sidecar.origin["operating_point"]["validation_images"] == 4
    assert list((finished / "tensorboard").iterdir())
    assert not list(finished.glob("state-*"))


def test_weights_that_are_not_finite_never_become_a_checkpoint(tiny_data: Path, tmp_path: Path):
    by_zero = RMSProp(decay=0.0, epsilon=0.0)  # the root is of g^2 - g^2
    recipe = Recipe(steps=1, batch=2, data=Data(crop=32), optimizer=by_zero)
    with pytest.raises(RefusedError, match="not finite after step 1"):
        train(recipe, [read_source(tiny_data, None, recipe)], tmp_path, machine=Machine())
    assert not (tmp_path / "checkpoint.safetensors").exists()


def test_the_depth_of_the_cameras_files_is_kept(tiny_data: Path, tmp_path: Path):
    """On files of 8 bits, which it does not change."""
    train(SMALL, [read_source(tiny_data, None, SMALL, bits=12)], tmp_path, machine=Machine())
    _, sidecar = load_checkpoint(tmp_path / "checkpoint.safetensors")
    assert sidecar.bits == 12
