from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.small_runs import SMALL, final_bytes
from training.loop import train
from training.machine import Machine
from training.sources import read_source


def test_a_torn_state_falls_back_to_the_one_before(
    finished: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):  # fmt: skip
    source = read_source(tiny_data, None, SMALL)
    monkeypatch.setattr("training.loop.choose_operating_point", None)
    with pytest.raises(TypeError):  # the run dies after its last step
        train(SMALL, [source], tmp_path, machine=Machine(save_every=2))
    monkeypatch.undo()
    newest = max(tmp_path.glob("state-*.safetensors"))
    assert newest.name == "state-00000004.safetensors"
    newest.write_bytes(newest.read_bytes()[:-100])
    train(SMALL, [source], tmp_path, machine=Machine(save_every=2))
    assert "state-00000004" in caplog.text
    assert final_bytes(tmp_path) == final_bytes(finished)
