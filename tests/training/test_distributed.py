from __future__ import annotations

import os
import signal
import time
from itertools import chain
from pathlib import Path

import pytest
import torch

from tests.training.small_runs import SMALL, final_bytes, losses, torchrun, write_recipe
from tinyunet_deploy.artifacts.checkpoint import load_checkpoint
from tinyunet_deploy.errors import RefusedError
from training.distributed import Ranks
from training.loop import train
from training.machine import Machine
from training.recipe import read_recipe
from training.sources import read_source

LOSSES = ("adaptive", "adaptive-as-published", "every-image")
"""By cross-entropy and by Dice, whose gradient needs the sums of both processes."""


@pytest.fixture(scope="module")
def two(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of two processes: LOSS.toml and LOSS/ for each loss, long.toml and long/."""
    folder = tmp_path_factory.mktemp("two")
    for loss in LOSSES:
        lines = f"steps = 20\nloss = '{loss}'\nvalidate_every = 8"
        with write_recipe(folder / f"{loss}.toml", lines).open("a") as file:
            file.write("[schedule]\nname = 'staircase'\nrate = 5e-4\n")  # a wrong gradient shows
    write_recipe(folder / "long.toml", "steps = 40")
    runs = [(folder / f"{name}.toml", folder / name) for name in (*LOSSES, "long")]
    program = Path(__file__).with_name("two_ranks.py")
    with torchrun(folder / "logs", program, tiny_data, *chain(*runs)) as process:
        _, err = process.communicate()
    assert process.returncode == 0, err
    return folder


@pytest.mark.parametrize("loss", LOSSES)
def test_two_processes_train_as_one(loss: str, two: Path, tiny_data: Path, tmp_path: Path):
    recipe = read_recipe(str(two / f"{loss}.toml"))
    train(recipe, [read_source(tiny_data, None, recipe)], tmp_path, machine=Machine())
    assert len(list((two / loss / "tensorboard").iterdir())) == 1

    curves = [losses(run) for run in (tmp_path, two / loss)]
    assert [len(curve) for curve in curves] == [20, 20]
    assert curves[0] == pytest.approx(curves[1], abs=1e-4)
    one, two_ = (load_checkpoint(run / "checkpoint.safetensors") for run in (tmp_path, two / loss))
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
def test_torchrun_restarts_after_a_killed_process(two: Path, tiny_data: Path, tmp_path: Path):
    words = ("-m", "training", two / "long.toml", "--data", tiny_data)
    words += ("--output", tmp_path / "run", "--save-every", "2")
    with torchrun(tmp_path / "logs", *words, restarts=1) as killed:
        while not list((tmp_path / "run").glob("state-*.safetensors")):
            assert killed.poll() is None
            time.sleep(0.002)
        children = Path(f"/proc/{killed.pid}/task/{killed.pid}/children").read_text().split()
        os.kill(int(children[-1]), signal.SIGKILL)
        out, err = killed.communicate()
    assert killed.returncode == 0, err
    assert "resuming at step" in err
    assert out.count("checkpoint.safetensors") == 1, "of two processes one says it"
    assert final_bytes(tmp_path / "run") == final_bytes(two / "long")
