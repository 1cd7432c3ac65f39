from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.training.small_runs import SMALL, final_bytes
from tinyunet_deploy.errors import DataError
from training.loop import train
from training.machine import Machine
from training.sources import read_source
from training.state import state_files


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
    assert newest.name == "state-00000006.safetensors"
    newest.write_bytes(newest.read_bytes()[:-100])
    train(SMALL, [source], tmp_path, machine=Machine(save_every=2))
    assert "state-00000006" in caplog.text
    assert final_bytes(tmp_path) == final_bytes(finished)


@pytest.fixture(scope="module")
def stopped(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that died after its last step, with its two newest states."""
    folder = tmp_path_factory.mktemp("stopped")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.loop.write_checkpoint", None)
        with pytest.raises(TypeError):
            train(
                SMALL, [read_source(tiny_data, None, SMALL)], folder, machine=Machine(save_every=1)
            )
    assert len(state_files(folder)) == 2
    return folder


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "half": lambda path: os.truncate(path, path.stat().st_size // 2),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "gone": Path.unlink,
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "fifo": fifo,
}
JSON_DAMAGES: dict[str, Callable[[Path], object]] = {
    "list": lambda path: path.write_text("[]"),
    "number": lambda path: path.write_text("5"),
    "deep": lambda path: path.write_text("[" * 100_000),
    "another encoding": lambda path: path.write_bytes(b"\xff\xfe"),
    "no hash": lambda path: path.write_text('{"step": 4}'),
}


@pytest.mark.parametrize("damage", [*DAMAGES, *JSON_DAMAGES])
@pytest.mark.parametrize("torn", ["newest", "all"])
def test_a_run_with_torn_states_ends_as_one_that_was_not_disturbed(
    stopped: Path, finished: Path, tiny_data: Path, tmp_path: Path, damage: str, torn: str,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    run = tmp_path / "run"
    shutil.copytree(stopped, run)
    states = state_files(run)[: 1 if torn == "newest" else None]
    for state in states:
        if damage in DAMAGES:
            DAMAGES[damage](state)
        else:
            JSON_DAMAGES[damage](state.with_suffix(".json"))
    if damage == "gone":
        assert not any(state.exists() for state in states)
    train(SMALL, [read_source(tiny_data, None, SMALL)], run, machine=Machine(save_every=2))
    assert final_bytes(run) == final_bytes(finished)
    if damage != "gone":
        assert all(f"{state} is skipped: " in caplog.text for state in states)


@pytest.mark.parametrize("name", ["step", "best"])
def test_a_whole_state_that_does_not_fit_is_refused(
    stopped: Path, tiny_data: Path, tmp_path: Path, name: str
) -> None:
    run = tmp_path / "run"
    shutil.copytree(stopped, run)
    path = state_files(run)[0].with_suffix(".json")
    fields = json.loads(path.read_text())
    fields[name] = "damaged"
    path.write_text(json.dumps(fields))
    with pytest.raises(DataError, match=r"state-0+6\.safetensors: is not a state of this run: "):
        train(SMALL, [read_source(tiny_data, None, SMALL)], run, machine=Machine())
