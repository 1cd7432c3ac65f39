from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.training.small_runs import SMALL
from tinyunet_deploy.errors import RuntimeUnavailable
from training.loop import train
from training.machine import Machine
from training.sources import read_source


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_one_line(tiny_data: Path, tmp_path: Path):
    with pytest.raises(RuntimeUnavailable, match="cuda:0"):
        source = read_source(tiny_data, None, SMALL)
        train(SMALL, [source], tmp_path, machine=Machine(device="cuda:0"))


def test_a_cpu_without_bf16_is_not_made_to_emulate_it(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):  # fmt: skip
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"avx512_bf16": False, "avx2": True})
    source = read_source(tiny_data, None, SMALL)
    with pytest.raises(RuntimeUnavailable, match="bf16"):
        train(SMALL, [source], tmp_path, machine=Machine(amp=True))
