from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
import torch

from tests.training.small_runs import SMALL, final_bytes, launch, losses, write_recipe
from tinyunet_deploy.artifacts.checkpoint import load_checkpoint
from tinyunet_deploy.errors import RefusedError
from training.distributed import Ranks
from training.loop import train
from training.machine import Machine
from training.recipe import read_recipe
from training.sources import read_source


@pytest.mark.parametrize("loss", ["adaptive", "adaptive-as-published", "every-image"])
def test_two_processes_train_as_one(tiny_data: Path, tmp_path: Path, loss: str):
    """By cross-entropy and by Dice, whose gradient needs the sums of both processes."""
    lines = f"steps = 20\nloss = '{loss}'\nvalidate_every = 8"
    path = write_recipe(tmp_path / "recipe.toml", lines)
    with path.open("a") as file:
        file.write("[schedule]\nname = 'staircase'\nrate = 5e-4\n")  # a wrong gradient shows
    recipe = read_recipe(str(path))
    train(recipe, [read_source(tiny_data, None, recipe)], tmp_path / "one", machine=Machine())
    two = launch(path, "--data", tiny_data, "--output", tmp_path / "two")
    out, err = two.communicate()
    assert two.returncode == 0, err
    assert out.count("checkpoint.safetensors") == 1
    assert len(list((tmp_path / "two" / "tensorboard").iterdir())) == 1

    curves = [losses(tmp_path / run) for run in ("one", "two")]
    assert [len(curve) for curve in curves] == [20, 20]
    assert curves[0] == pytest.approx(curves[1], abs=1e-4)
    one, two_ = (load_checkpoint(tmp_path / r / "checkpoint.safetensors") for r in ("one", "two"))
    point, point_ = (sidecar.origin["operating_point"] for _, sidecar in (one, two_))
    assert {**point, "iou_defective": 0} == {**point_, "iou_defective": 0}
    assert point["iou_defective"] == pytest.approx(point_["iou_defective"], abs=1e-2)
    for a, b in zip(one[0].parameters(), two_[0].parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_a_batch_is_shared_equally_or_not_at_all(tiny_data: Path, tmp_path: Path):
    with pytest.raises(RefusedError, match="batch = 4: cannot be shared equally by 3 processes"):
        source = read_source(tiny_data, None, SMALL)
        train(SMALL, [source], tmp_path, machine=Machine(), ranks=Ranks(0, 0, 3))


@pytest.mark.slow
def test_torchrun_restarts_after_a_killed_process(tiny_data: Path, tmp_path: Path):
    path = write_recipe(tmp_path / "recipe.toml", "steps = 40")
    whole = launch(path, "--data", tiny_data, "--output", tmp_path / "whole")
    assert whole.communicate() and whole.returncode == 0
    arguments = (path, "--data", tiny_data, "--output", tmp_path / "run", "--save-every", "2")
    killed = launch(*arguments, restarts=1)
    while not list((tmp_path / "run").glob("state-*.safetensors")):
        assert killed.poll() is None
        time.sleep(0.002)
    children = Path(f"/proc/{killed.pid}/task/{killed.pid}/children").read_text().split()
    os.kill(int(children[-1]), signal.SIGKILL)
    _, err = killed.communicate()
    assert killed.returncode == 0, err
    assert "resuming at step" in err
    assert final_bytes(tmp_path / "run") == final_bytes(tmp_path / "whole")
