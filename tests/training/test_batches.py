from __future__ import annotations

from pathlib import Path

import torch

from tests.training.small_runs import AS_THEY_ARE, SMALL, final_bytes
from training.loop import train
from training.machine import Machine
from training.sampler import Sampler
from training.sources import read_source


def test_batches_that_are_handed_in_train_the_same(tiny_data: Path, tmp_path: Path):
    source = read_source(tiny_data, None, SMALL)
    drawn = Sampler([source], SMALL, AS_THEY_ARE)
    asked = []

    def load(step: int) -> list[torch.Tensor]:
        asked.append(step)
        return [torch.from_numpy(array) for array in drawn.batch(step)]

    train(SMALL, [source], tmp_path / "own", machine=Machine())
    train(SMALL, [source], tmp_path / "handed", machine=Machine(), load=load)
    assert final_bytes(tmp_path / "own") == final_bytes(tmp_path / "handed")
    assert sorted(asked)[: SMALL.steps] == list(range(SMALL.steps))
