from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.training.small_runs import SMALL, final_bytes
from tinyunet_deploy.contract import Contract
from tinyunet_deploy.data.tiles import Tiling
from training.loop import train
from training.machine import Machine
from training.sampler import Sampler
from training.sources import read_source


@pytest.mark.parametrize("size", [(64, 64), (96, 80)])
def test_batches_that_are_handed_in_train_the_same(
    tiny_data: Path, tmp_path: Path, size: tuple[int, int]
) -> None:
    """The run's own batches show the reflection that its model sees."""
    source = read_source(tiny_data, None, SMALL)
    drawn = Sampler([source], SMALL, Tiling(Contract(*size), 16))
    asked = []

    def load(step: int) -> list[torch.Tensor]:
        asked.append(step)
        return [torch.from_numpy(array) for array in drawn.batch(step)]

    train(SMALL, [source], tmp_path / "own", machine=Machine(), size=size)
    train(SMALL, [source], tmp_path / "handed", machine=Machine(), size=size, load=load)
    assert final_bytes(tmp_path / "own") == final_bytes(tmp_path / "handed")
    assert sorted(asked)[: SMALL.steps] == list(range(SMALL.steps))
