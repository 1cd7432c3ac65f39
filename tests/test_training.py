import json
import math
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from tinyunet_deploy import synthetic
from tinyunet_deploy.artifact import digest
from tinyunet_deploy.checkpoint import load_checkpoint
from tinyunet_deploy.errors import DataError, RefusedError, RuntimeUnavailable
from training.data import Sampler, read_source
from training.loop import Machine, train
from training.loss import segmentation_loss
from training.optimizer import RMSPropTF, learning_rate
from training.recipe import (
    Augment,
    Data,
    OneCycle,
    Recipe,
    RMSProp,
    Staircase,
)

REPOSITORY = Path(__file__).resolve().parent.parent
SMALL = Recipe(
    steps=6, batch=4, data=Data(defect_free=0.25, crop=32, crop_on_defect=0.5, validation=0.25)
)


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two synthetic classes of 64x64 pixels."""
    root = tmp_path_factory.mktemp("training") / "data"
    synthetic.write_dataset(root, classes=[1, 9], train=8, test=2, defective=0.5, size=64)
    return root


# --- the optimizer ------------------------------------------------------------------------------


def test_rmsprop_follows_tensorflow_by_hand():
    """Ten steps of one variable in float64, the rate halved after five, against the formulas."""
    recipe = RMSProp(decay=0.9, momentum=0.8, epsilon=1e-10, l2=0.01)
    weight = torch.tensor([0.7], dtype=torch.float64, requires_grad=True)
    optimizer = RMSPropTF([weight], recipe)
    w, mean_grad, mean_square, moment = 0.7, 0.0, 1.0, 0.0
    for step in range(10):
        rate = 0.1 if step < 5 else 0.05
        optimizer.param_groups[0]["lr"] = rate
        gradient = 2.0 * w - 1.0 + 0.3 * step
        weight.grad = torch.tensor([gradient], dtype=torch.float64)
        optimizer.step()
        gradient += 0.01 * w
        mean_grad = 0.9 * mean_grad + 0.1 * gradient
        mean_square = 0.9 * mean_square + 0.1 * gradient**2
        moment = 0.8 * moment + rate * gradient / math.sqrt(mean_square - mean_grad**2 + 1e-10)
        w -= moment
        assert weight.item() == pytest.approx(w, rel=1e-12)
        if step == 0:  # the mean square starts at one, so the first step is not rate / sqrt(0.1)
            first = 0.1 * gradient / math.sqrt(0.9 + 0.1 * gradient**2 - (0.1 * gradient) ** 2)
            assert moment == pytest.approx(first, rel=1e-9)


def test_rmsprop_stays_finite_where_gradients_do_not_vary():
    weight = torch.tensor([1.0], requires_grad=True)
    optimizer = RMSPropTF([weight], RMSProp())
    optimizer.param_groups[0]["lr"] = 1e-4
    for _ in range(2000):
        weight.grad = torch.tensor([3.0])
        optimizer.step()
        assert math.isfinite(weight.item())


def test_schedules():
    stairs = Staircase(rate=1e-4, factor=0.8, every=500)
    rates = [learning_rate(stairs, step, 2500) for step in (0, 499, 500, 1000)]
    assert rates == pytest.approx([1e-4, 1e-4, 0.8e-4, 0.64e-4])
    cycle = OneCycle(rate=1e-3, rise=0.25)
    whole = [learning_rate(cycle, step, 101) for step in range(101)]
    assert whole[0] == pytest.approx(4e-5)
    assert max(whole) == whole[25] == pytest.approx(1e-3)
    assert whole[-1] == pytest.approx(1e-7)
    assert learning_rate(cycle, 0, 1) > 0


# --- the loss -----------------------------------------------------------------------------------


def test_dice_loss_by_hand():
    truth = torch.zeros(2, 1, 2, 2)
    truth[0] = 1.0
    logit = torch.zeros(2, 1, 2, 2)  # probability 1/2 everywhere: intersection 2, sums 4 + 4
    assert segmentation_loss("dice", logit, truth)[0].item() == pytest.approx(1.0 - 5.0 / 9.0)
    silent = torch.full((1, 1, 2, 2), -100.0)
    loss, _ = segmentation_loss("dice", silent, torch.zeros(1, 1, 2, 2))
    assert loss.item() == pytest.approx(0.0)


def test_adaptive_loss_is_cross_entropy_until_dice_is_below_its_switch():
    truth = torch.zeros(1, 1, 4, 4)
    truth[..., :2] = 1.0
    bad = torch.zeros(1, 1, 4, 4)
    loss, dice = segmentation_loss("adaptive", bad, truth)
    assert dice.item() > 0.3
    assert loss.item() == pytest.approx(math.log(2.0))
    good = (truth * 2 - 1) * 4.0
    loss, dice = segmentation_loss("adaptive", good, truth)
    assert dice.item() < 0.3
    assert loss.item() == pytest.approx(dice.item())


# --- the data -----------------------------------------------------------------------------------


def test_validation_is_held_apart_in_every_class(tiny_data: Path):
    source = read_source(tiny_data, None, SMALL)
    training = {e.item.image for e in (*source.defective, *source.defect_free)}
    held = {e.item.image for e in source.validation}
    assert len(training) == 12 and len(held) == 4 and not training & held
    assert Counter((e.item.class_id, e.item.defective) for e in source.validation) == {
        (1, True): 1, (1, False): 1, (9, True): 1, (9, False): 1,
    }  # fmt: skip
    assert held == {e.item.image for e in read_source(tiny_data, None, SMALL).validation}


def test_a_batch_depends_on_seed_and_step_alone(tiny_data: Path):
    source = read_source(tiny_data, None, SMALL)
    first, second = Sampler([source], SMALL), Sampler([source], SMALL)
    first.batch(0)
    for a, b in zip(first.batch(3), second.batch(3), strict=True):
        assert np.array_equal(a, b)
    assert not np.array_equal(first.batch(3)[0], first.batch(4)[0])


def test_processes_share_a_batch_without_gap_or_overlap(tiny_data: Path):
    sampler = Sampler([read_source(tiny_data, None, SMALL)], SMALL)
    whole, _ = sampler.batch(2)
    assert whole.shape == (4, 1, 32, 32) and whole.dtype == np.uint8
    parts = [sampler.batch(2, slice(rank, None, 2))[0] for rank in range(2)]
    assert np.array_equal(whole[0::2], parts[0]) and np.array_equal(whole[1::2], parts[1])


def test_every_image_comes_once_in_a_pass(tiny_data: Path):
    recipe = Recipe(batch=4, data=Data(defect_free=0.5, crop=64), augment=Augment(rotations=(0,)))
    source = read_source(tiny_data, [1], recipe)
    seen: Counter[bytes] = Counter()
    sampler = Sampler([source], recipe)
    for step in range(2):  # 8 images of class 1
        for image in sampler.batch(step)[0]:
            seen[min(image[0].tobytes(), image[0, :, ::-1].tobytes())] += 1
    everything = [e.image for e in (*source.defective, *source.defect_free)]
    assert seen == {min(i.tobytes(), i[:, ::-1].tobytes()): 1 for i in everything}


def test_augmentation_moves_image_and_mask_together(tiny_data: Path):
    recipe = Recipe(
        batch=16,
        data=Data(crop=64),
        augment=Augment(flip_horizontal=0.5, flip_vertical=0.5, rotations=(0, 90, 180, 270)),
    )
    source = read_source(tiny_data, [1], recipe)
    pairs = {
        np.rot90(f, k).tobytes(): np.rot90(g, k).tobytes()
        for e in source.defective
        for f, g in ((e.image, e.mask), (e.image[:, ::-1], e.mask[:, ::-1]))
        for k in range(4)
    }
    images, masks = Sampler([source], recipe).batch(0)
    assert set(np.unique(masks)) == {0, 1}
    for image, mask in zip(images, masks, strict=True):
        assert pairs[image[0].tobytes()] == (mask[0] * 255).astype(np.uint8).tobytes()


def test_crops_on_a_defect_hold_one(tiny_data: Path):
    recipe = Recipe(batch=32, data=Data(crop=16, crop_on_defect=1.0))
    _, masks = Sampler([read_source(tiny_data, None, recipe)], recipe).batch(0)
    assert masks.reshape(32, -1).any(axis=1).all()


def test_a_crop_larger_than_the_images_is_refused(tiny_data: Path):
    with pytest.raises(DataError, match="crop"):
        read_source(tiny_data, None, Recipe())


# --- the loop -----------------------------------------------------------------------------------


def final_bytes(run: Path) -> str:
    return digest((run / "checkpoint.safetensors").read_bytes())


@pytest.fixture(scope="session")
def finished(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed run of SMALL."""
    output = tmp_path_factory.mktemp("finished") / "run"
    train(SMALL, [read_source(tiny_data, None, SMALL)], output, machine=Machine())
    return output


def test_a_run_leaves_a_checkpoint_that_loads(finished: Path):
    network, sidecar = load_checkpoint(finished / "checkpoint.safetensors")
    assert network.variant == "tiny"
    assert sidecar.contract.height == 64
    assert sidecar.origin["recipe"]["steps"] == 6
    assert sidecar.origin["operating_point"]["validation_images"] == 4
    assert list((finished / "tensorboard").iterdir())
    assert not list(finished.glob("state-*"))


def test_two_runs_with_one_seed_are_byte_identical(finished: Path, tiny_data: Path, tmp_path: Path):
    train(SMALL, [read_source(tiny_data, None, SMALL)], tmp_path / "run", machine=Machine())
    assert final_bytes(tmp_path / "run") == final_bytes(finished)


def test_a_killed_run_goes_on_to_the_same_bytes(finished: Path, tiny_data: Path, tmp_path: Path):
    recipe = tmp_path / "small.toml"
    recipe.write_text(
        "steps = 6\nbatch = 4\n"
        "[data]\ndefect_free = 0.25\ncrop = 32\ncrop_on_defect = 0.5\nvalidation = 0.25\n"
    )
    command = [
        sys.executable, "-m", "training", str(recipe), "--data", str(tiny_data),
        "--output", str(tmp_path / "run"), "--save-every", "2",
    ]  # fmt: skip
    process = subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list((tmp_path / "run").glob("state-*.safetensors")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    rerun = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert rerun.returncode == 0, rerun.stderr
    assert rerun.stdout.strip().endswith("checkpoint.safetensors")
    assert final_bytes(tmp_path / "run") == final_bytes(finished)


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


def test_a_folder_of_another_run_is_refused(finished: Path, tiny_data: Path):
    source = read_source(tiny_data, None, SMALL)
    for other, what in ((Recipe(steps=5), "recipe"), (SMALL, "precision")):
        with pytest.raises(DataError, match=what):
            train(other, [source], finished, machine=Machine(amp=True))


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


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_one_line(tiny_data: Path, tmp_path: Path):
    with pytest.raises(RuntimeUnavailable, match="cuda:0"):
        source = read_source(tiny_data, None, SMALL)
        train(SMALL, [source], tmp_path, machine=Machine(device="cuda:0"))


def test_amp_on_the_cpu_trains_in_bfloat16_with_float32_weights(tiny_data: Path, tmp_path: Path):
    source = read_source(tiny_data, None, SMALL)
    path = train(SMALL, [source], tmp_path, machine=Machine(amp=True))
    network, sidecar = load_checkpoint(path)
    assert all(p.dtype == torch.float32 for p in network.parameters())
    assert sidecar.origin["amp"] is True
    assert json.loads((tmp_path / "run.json").read_text())["amp"] is True
