from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import REPOSITORY
from tests.training.small_runs import (
    SMALL,
    ScriptedValidation,
    final_bytes,
    load_until,
    write_recipe,
)
from tinyunet_deploy.artifacts.checkpoint import load_checkpoint
from tinyunet_deploy.backends.registry import open_backend
from tinyunet_deploy.data.encoding import write_png
from tinyunet_deploy.data.layouts import read_dataset
from tinyunet_deploy.errors import DataError, RefusedError
from tinyunet_deploy.quality.evaluation import evaluate
from training.loop import train
from training.machine import Machine, has_bfloat16
from training.recipe import Data, Recipe, Staircase, read_recipe
from training.sources import read_source


def test_two_runs_with_one_seed_are_byte_identical(finished: Path, tiny_data: Path, tmp_path: Path):
    train(SMALL, [read_source(tiny_data, None, SMALL)], tmp_path / "run", machine=Machine())
    assert final_bytes(tmp_path / "run") == final_bytes(finished)


def test_a_run_killed_again_and_again_goes_on_to_the_same_bytes(tiny_data: Path, tmp_path: Path):
    path = write_recipe(tmp_path / "long.toml", "steps = 60\nvalidate_every = 7")
    path.write_text(path.read_text() + "[optimizer]\nname = 'adamw'\n")
    recipe = read_recipe(str(path))
    train(recipe, [read_source(tiny_data, None, recipe)], tmp_path / "whole", machine=Machine())

    command = [
        sys.executable, "-m", "training", str(path), "--data", str(tiny_data),
        "--output", str(tmp_path / "run"), "--save-every", "2",
    ]  # fmt: skip

    def newest() -> str:
        return max((p.name for p in (tmp_path / "run").glob("state-*.safetensors")), default="")

    moment = random.Random(0)
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL):
        before = newest()
        with subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.DEVNULL) as process:
            while newest() <= before:
                assert process.poll() is None
                time.sleep(0.002)
            time.sleep(moment.uniform(0.0, 0.1))
            sent = time.monotonic()
            process.send_signal(number)
            assert process.wait() == (143 if number == signal.SIGTERM else -number)
        assert time.monotonic() - sent < 25.0
    rerun = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert rerun.returncode == 0, rerun.stderr
    assert "resuming at step" in rerun.stderr
    assert final_bytes(tmp_path / "run") == final_bytes(tmp_path / "whole")
    sidecars = [tmp_path / run / "checkpoint.safetensors.json" for run in ("run", "whole")]
    assert sidecars[0].read_text() == sidecars[1].read_text()


def test_a_finished_run_is_left_alone(finished: Path, tiny_data: Path):
    before = (finished / "checkpoint.safetensors").stat()
    train(SMALL, [read_source(tiny_data, None, SMALL)], finished, machine=Machine())
    assert (finished / "checkpoint.safetensors").stat() == before


def test_training_starts_from_another_checkpoint(finished: Path, tiny_data: Path, tmp_path: Path):
    init = finished / "checkpoint.safetensors"
    recipe = Recipe(steps=1, batch=1, data=Data(crop=32), schedule=Staircase(rate=0.0))
    source = read_source(tiny_data, None, recipe)
    path = train(recipe, [source], tmp_path, machine=Machine(), init=init)
    before, after = load_checkpoint(init)[0], load_checkpoint(path)[0]
    for a, b in zip(before.parameters(), after.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_loss_that_is_not_finite_stops_the_run(tiny_data: Path, tmp_path: Path):
    recipe = Recipe(
        steps=50, batch=2, data=Data(crop=32), schedule=Staircase(rate=1e30, factor=1.0)
    )
    with pytest.raises(RefusedError, match=r"loss is .* at step"):
        train(recipe, [read_source(tiny_data, None, recipe)], tmp_path, machine=Machine())
    assert not (tmp_path / "checkpoint.safetensors").exists()


def test_the_best_step_is_kept(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):  # fmt: skip
    """Fewest escapes, then the highest IoU, then the latest: here step 4 of 2, 4, 6 and 7."""
    data = Data(crop=32, validation=0.25)
    recipe = Recipe(steps=4, batch=2, data=data)
    train(recipe, [read_source(tiny_data, None, recipe)], tmp_path / "short", machine=Machine())

    ScriptedValidation((1, 0.8), (0, 0.5), (0, 0.4), (2, 0.8)).install(monkeypatch)
    recipe = Recipe(steps=7, batch=2, validate_every=2, data=data)
    train(recipe, [read_source(tiny_data, None, recipe)], tmp_path / "long", machine=Machine())
    _, sidecar = load_checkpoint(tmp_path / "long" / "checkpoint.safetensors")
    assert sidecar.step == 4
    assert (sidecar.threshold, sidecar.min_area) == (0.35, 8)
    assert final_bytes(tmp_path / "long") == final_bytes(tmp_path / "short")


PATIENT = Recipe(
    steps=30, batch=2, validate_every=2, patience=2, data=Data(crop=32, validation=0.25)
)


@pytest.mark.parametrize(
    ("outcomes", "kept", "done"),
    [
        ([(1, 0.3), (1, 0.2), (1, 0.3), (2, 0.6), (1, 0.2)], 6, 10),  # an equal one counts as new
        ([(0, 0.3), (1, 0.6), (1, 0.6)], 2, 6),
    ],
)
def test_a_run_ends_early_where_patience_is_over_also_after_a_failure(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    outcomes: list[tuple[int, float]], kept: int, done: int,
) -> None:  # fmt: skip
    source = read_source(tiny_data, None, PATIENT)
    script = ScriptedValidation(*outcomes)
    script.install(monkeypatch)
    train(PATIENT, [source], tmp_path / "whole", machine=Machine())
    _, sidecar = load_checkpoint(tmp_path / "whole" / "checkpoint.safetensors")
    assert (sidecar.step, sidecar.origin["steps_done"]) == (kept, done)
    result = json.loads((tmp_path / "whole" / "result.json").read_text())
    assert (result["step"], result["steps_done"], result["steps"]) == (kept, done, 30)

    with pytest.raises(OSError, match="the camera is gone"):
        train(
            PATIENT, [source], tmp_path / "run", machine=Machine(save_every=1),
            load=load_until(source, PATIENT, done - 1),
        )  # fmt: skip
    train(PATIENT, [source], tmp_path / "run", machine=Machine(save_every=1))
    assert final_bytes(tmp_path / "run") == final_bytes(tmp_path / "whole")


def test_what_fails_after_the_last_step_costs_no_training(
    finished: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = read_source(tiny_data, None, SMALL)
    for part in ("choose_operating_point", "write_checkpoint", "complete_run"):
        run = tmp_path / part
        with monkeypatch.context() as patch:
            patch.setattr(f"training.loop.{part}", None)
            with pytest.raises(TypeError):
                train(SMALL, [source], run, machine=Machine())
        nothing = load_until(source, SMALL, 0)
        train(SMALL, [source], run, machine=Machine(), load=nothing)
        assert final_bytes(run) == final_bytes(finished), part
        assert not list(run.glob("state-*"))


def test_what_fails_after_patience_is_over_costs_no_training(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = read_source(tiny_data, None, PATIENT)
    ScriptedValidation((0, 0.6), (0, 0.3), (0, 0.2)).install(monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr("training.loop.write_checkpoint", None)
        with pytest.raises(TypeError):
            train(PATIENT, [source], tmp_path, machine=Machine())
    no_images = load_until(source, PATIENT, 0)
    train(PATIENT, [source], tmp_path, machine=Machine(), load=no_images)
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["step"], result["steps_done"]) == (2, 6)


@pytest.mark.skipif(not has_bfloat16(), reason="the CPU has no bf16")
def test_amp_on_the_cpu_trains_in_bfloat16_with_float32_weights(tiny_data: Path, tmp_path: Path):
    source = read_source(tiny_data, None, SMALL)
    path = train(SMALL, [source], tmp_path, machine=Machine(amp=True))
    network, sidecar = load_checkpoint(path)
    assert all(p.dtype == torch.float32 for p in network.parameters())
    assert sidecar.origin["amp"] is True
    assert json.loads((tmp_path / "run.json").read_text())["amp"] is True


def write_mixed(root: Path) -> Path:
    """Images of many sizes, none a multiple of 16; every other one with a defect."""
    rng = np.random.default_rng(5)
    for number, (height, width) in enumerate(
        [(70, 50), (33, 90), (50, 70), (41, 41), (130, 60), (20, 61), (75, 75), (64, 49)] * 2
    ):
        image = rng.integers(90, 110, (height, width), dtype=np.uint8)
        mask = np.zeros((height, width), np.uint8)
        if number % 2:
            image[5:12, 6:16] = 240
            mask[5:12, 6:16] = 255
        for name, pixels in (("images", image), ("masks", mask)):
            folder = root / "train" / name
            folder.mkdir(parents=True, exist_ok=True)
            write_png(folder / f"{number:02}.png", pixels)
    return root


def test_images_of_any_size_train_validate_and_are_evaluated(tmp_path: Path):
    data = write_mixed(tmp_path / "data")
    recipe = replace(SMALL, steps=3, validate_every=1)
    source = read_source(data, None, recipe)
    assert len(source.validation) == 4
    checkpoint = train(recipe, [source], tmp_path / "run", machine=Machine(), size=(64, 64))
    _, sidecar = load_checkpoint(checkpoint)
    assert (sidecar.contract.height, sidecar.contract.width) == (64, 64)
    assert sidecar.origin["operating_point"]["validation_images"] == 4
    with open_backend(checkpoint) as backend:
        evaluation = evaluate(
            read_dataset(data), backend, threshold=0.5, min_area=1, batch_size=2, workers=2
        )
    assert (len(evaluation.images), evaluation.skipped) == (16, {})


def test_the_size_of_the_model_can_be_chosen(tiny_data: Path, tmp_path: Path):
    sources = [read_source(tiny_data, None, SMALL)]
    recipe = replace(SMALL, steps=1)
    checkpoint = train(recipe, sources, tmp_path, machine=Machine(), size=(48, 96))
    contract = load_checkpoint(checkpoint)[1].contract
    assert (contract.height, contract.width) == (48, 96)
    with pytest.raises(DataError, match="another size of the model"):
        train(recipe, sources, tmp_path, machine=Machine())
    for size in ((50, 96), (96, 0)):
        with pytest.raises(RefusedError, match="not a multiple of 16"):
            train(recipe, sources, tmp_path / "other", machine=Machine(), size=size)
