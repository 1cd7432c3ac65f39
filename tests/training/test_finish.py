from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Literal

import pytest

from tests.training.small_runs import SMALL, ScriptedValidation, final_bytes, load_until
from tinyunet_deploy.artifacts.checkpoint import load_checkpoint
from tinyunet_deploy.artifacts.sidecar import DEFAULT_ONNX
from tinyunet_deploy.cli import run
from tinyunet_deploy.errors import DataError, RefusedError
from tinyunet_deploy.inspection.folder_lock import lock_folder
from training.data_folders import DataFolders
from training.finish import finish, finish_run
from training.loop import train
from training.machine import Machine
from training.recipe import Data, Recipe
from training.state import state_files

RECIPE = Recipe(
    steps=20, batch=2, validate_every=2, start="package",
    data=Data(defect_free=0.25, crop=32, validation=0.25),
)  # fmt: skip


def stop_after(steps: int, data: Path, output: Path, save_every: int = 3) -> Path:
    """A run that failed after so many steps."""
    folders = DataFolders((data,))
    (source,) = folders.read(RECIPE)
    with pytest.raises(OSError, match="the camera is gone"):
        train(
            RECIPE, [source], output, machine=Machine(save_every=save_every), data=folders,
            load=load_until(source, RECIPE, steps),
        )  # fmt: skip
    return output


@pytest.mark.parametrize(
    ("done", "saved", "weights", "kept"),
    [(3, 3, "best", 2), (4, 3, "last", 3), (7, 6, "best", 4), (6, 6, "last", 6)],
)
def test_the_best_or_the_last_saved_weights_become_the_checkpoint(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    done: int, saved: int, weights: Literal["best", "last"], kept: int,
) -> None:  # fmt: skip
    outcomes = [(1, 0.5), (1, 0.6), (2, 0.9), (2, 0.8), (2, 0.8)]
    if saved == 3:  # validated at 2, and at 3 by finish
        outcomes = [(1, 0.5), (2, 0.8), (2, 0.8)]
    ScriptedValidation(*outcomes).install(monkeypatch)
    output = stop_after(done, tiny_data, tmp_path)
    checkpoint, _ = finish_run(output, weights)
    _, sidecar = load_checkpoint(checkpoint)
    assert sidecar.step == kept
    assert sidecar.origin["steps_done"] == saved
    assert (sidecar.threshold, sidecar.min_area) == (0.35, 8)
    assert "data" not in sidecar.origin and str(tiny_data) not in json.dumps(sidecar.origin)
    result = json.loads((output / "result.json").read_text())
    assert (result["step"], result["steps_done"], result["steps"]) == (sidecar.step, saved, 20)
    assert not state_files(output)


def test_a_run_that_failed_after_its_last_step_can_be_finished(
    finished: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = DataFolders((tiny_data,))
    monkeypatch.setattr("training.loop.write_checkpoint", None)
    with pytest.raises(TypeError):
        train(SMALL, data.read(SMALL), tmp_path, machine=Machine(), data=data)
    monkeypatch.undo()
    finish_run(tmp_path)
    assert final_bytes(tmp_path) == final_bytes(finished)
    sidecars = [run / "checkpoint.safetensors.json" for run in (tmp_path, finished)]
    assert sidecars[0].read_text() == sidecars[1].read_text()


def test_the_command_says_what_was_reached_and_leaves_a_finished_run_alone(
    tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = stop_after(4, tiny_data, tmp_path / "run", save_every=2)
    for _ in range(2):
        assert run(finish, [str(output), "--weights", "last"]) == 0
        written = capsys.readouterr()
        lines = written.out.splitlines()
        assert f"export {lines[-1]} --data {tiny_data.resolve()} --output" in written.err
        assert lines[0].startswith("step 4 of 20 (ended after step 4), threshold ")
        assert lines[-1] == str(output / "checkpoint.safetensors")
    assert (output / "curve.png").exists()
    (source,) = (data := DataFolders((tiny_data,))).read(RECIPE)
    before = final_bytes(output)
    train(RECIPE, [source], output, machine=Machine(), data=data)
    assert final_bytes(output) == before


def test_a_run_that_cannot_be_finished_is_refused(tiny_data: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is not the folder of a run: it has no run\.json"):
        finish_run(tmp_path)
    output = stop_after(1, tiny_data, tmp_path / "early")
    with pytest.raises(RefusedError, match="does not contain a saved state"):
        finish_run(output)
    output = stop_after(3, tiny_data, tmp_path / "run")
    (state,) = state_files(output)
    whole = state.read_bytes()
    state.write_bytes(whole[:-1])
    with pytest.raises(RefusedError, match="does not contain a readable saved state"):
        finish_run(output)
    state.write_bytes(whole)
    path = output / "run.json"
    record = path.read_text()
    path.write_text(json.dumps(json.loads(record) | {"init": str(DEFAULT_ONNX)}))
    with pytest.raises(DataError, match=r"is not the checkpoint that .* started from"):
        finish_run(output)
    path.write_text(record)
    lock = lock_folder(output)
    try:
        with pytest.raises(RefusedError, match="is in use by process"):
            finish_run(output)
    finally:
        lock.close()
    assert not (output / "checkpoint.safetensors").exists()


def test_only_the_images_of_the_run_finish_it(tiny_data: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(tiny_data, data)
    output = stop_after(3, data, tmp_path / "run")
    moved = data.rename(tmp_path / "moved")
    with pytest.raises(DataError, match=r"data: does not exist any more \(give --data\)"):
        finish_run(output)
    image = min((moved / "Class1" / "Train").glob("*.PNG"))
    other = max((moved / "Class1" / "Train").glob("*.PNG"))
    original = image.read_bytes()
    image.write_bytes(other.read_bytes())
    with pytest.raises(DataError, match="was trained on other images"):
        finish_run(output, folders=(moved,))
    image.write_bytes(original)
    checkpoint, _ = finish_run(output, folders=(moved,))
    assert checkpoint.exists()


@pytest.mark.parametrize(
    ("key", "value"),
    [("recipe", None), ("recipe", {"steps": 0}), ("size", [64]), ("data", {"folders": []}),
     ("data", {"folders": [5], "classes": None, "bits": None})],
)  # fmt: skip
def test_a_damaged_record_is_refused(
    tiny_data: Path, tmp_path: Path, key: str, value: object
) -> None:
    output = stop_after(1, tiny_data, tmp_path)
    record = json.loads((output / "run.json").read_text())
    (output / "run.json").write_text(json.dumps({**record, key: value}))
    with pytest.raises(DataError, match=r"run\.json: is not the record of a run of this version"):
        finish_run(output)


def test_a_run_whose_images_came_from_no_folder_needs_data(tiny_data: Path, tmp_path: Path) -> None:
    output = stop_after(3, tiny_data, tmp_path)
    record = json.loads((output / "run.json").read_text())
    (output / "run.json").write_text(json.dumps({**record, "data": None}))
    with pytest.raises(DataError, match=r"does not say where its images are \(give --data\)"):
        finish_run(output)
    assert finish_run(output, folders=(tiny_data,))[0].exists()
