import json
import math
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tinyunet_deploy.artifacts.checkpoint import load_checkpoint
from tinyunet_deploy.artifacts.network import TinyUNet, normalize
from tinyunet_deploy.artifacts.sidecar import digest
from tinyunet_deploy.cli import run
from tinyunet_deploy.data import synthetic
from tinyunet_deploy.errors import DataError, RefusedError, RuntimeUnavailable
from tinyunet_deploy.files import lock_folder
from training.__main__ import training
from training.data import Sampler, read_source, sources_digest
from training.distributed import Ranks
from training.loop import Machine, has_bfloat16, train
from training.loss import segmentation_loss
from training.optimizer import RMSPropTF, learning_rate
from training.recipe import Augment, Data, OneCycle, Recipe, RMSProp, Staircase, read_recipe
from training.recipe_comparison import compare
from training.rounding import int8_activations, rounds
from training.speed import speed
from training.validation import OperatingPoint

REPOSITORY = Path(__file__).resolve().parent.parent.parent
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


def test_rmsprop_under_loss_scaling_skips_what_overflows_and_unscales_the_rest():
    """Skipped steps, the first among them, leave no trace but a smaller scale."""

    def descend(gradients: Sequence[float], scaler: torch.amp.GradScaler) -> tuple[float, dict]:
        weight = torch.tensor([0.7], requires_grad=True)
        optimizer = RMSPropTF([weight], RMSProp(l2=0.01))
        optimizer.param_groups[0]["lr"] = 0.1
        for gradient in gradients:
            optimizer.zero_grad()
            scaler.scale((weight * gradient).sum()).backward()
            scaler.step(optimizer)
            scaler.update()
        return weight.item(), optimizer.state_dict()["state"]

    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    assert descend([math.inf], scaler) == (pytest.approx(0.7), {})
    scaled, state = descend([math.inf, 1.0, math.inf, -2.0], scaler)
    plain, plain_state = descend([1.0, -2.0], torch.amp.GradScaler("cpu", enabled=False))
    assert scaled == plain
    assert all(torch.equal(state[0][key], plain_state[0][key]) for key in plain_state[0])
    assert scaler.get_scale() == 128.0


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


def test_in_every_image_a_small_defect_counts_as_much_as_a_large_one():
    """A large defect found, a small one missed, an image without any, against the formula."""
    truth = torch.zeros(3, 1, 8, 8)
    truth[0] = 1.0
    truth[1, 0, 0, 0] = 1.0
    logit = torch.full((3, 1, 8, 8), -20.0)
    logit[0] = 20.0
    of_batch = 1.0 - (2.0 * 64 + 1) / (65 + 64 + 1)
    of_images = (0.0 + (1.0 - 1.0 / (1 + 0 + 1))) / 2  # the image without a defect has no part
    cross_entropy = 20.0 / (3 * 64)
    loss, dice = segmentation_loss("every-image", logit, truth)
    assert dice.item() == pytest.approx(of_batch, abs=1e-6)
    assert loss.item() == pytest.approx(of_batch + of_images + cross_entropy, abs=1e-5)
    no_defect, _ = segmentation_loss("every-image", logit[2:], truth[2:])
    assert no_defect.item() == pytest.approx(0.0, abs=1e-6)


def test_the_published_text_has_the_switch_the_other_way_round():
    truth = torch.zeros(1, 1, 4, 4)
    truth[..., :2] = 1.0
    for logit in (torch.zeros(1, 1, 4, 4), (truth * 2 - 1) * 4.0):
        first, dice = segmentation_loss("adaptive", logit, truth)
        second, _ = segmentation_loss("adaptive-as-published", logit, truth)
        cross_entropy, _ = segmentation_loss("bce", logit, truth)
        assert {first.item(), second.item()} == {dice.item(), cross_entropy.item()}
        assert (first < second) == (dice < 0.3)


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


def test_a_margin_keeps_the_defect_away_from_the_edge_of_the_crop(tiny_data: Path):
    recipe = replace(SMALL, data=Data(crop=32, crop_on_defect=1.0, defect_margin=12))
    (source,) = [read_source(tiny_data, None, recipe)]
    mask = np.zeros((64, 64), np.uint8)
    mask[30, 34] = 255
    example = replace(source.defective[0], mask=mask, defect_yx=np.argwhere(mask).astype(np.int32))
    sampler = Sampler([replace(source, defective=(example,))], recipe)
    for step in range(20):
        assert sampler.batch(step)[1][:, :, 12:20, 12:20].any(axis=(1, 2, 3)).all()


def test_a_crop_larger_than_the_images_is_refused(tiny_data: Path):
    with pytest.raises(DataError, match="crop"):
        read_source(tiny_data, None, Recipe())


# --- steps in int8 ------------------------------------------------------------------------------


def test_int8_steps_feed_every_convolution_255_levels_and_pass_the_gradient():
    torch.manual_seed(0)
    network = TinyUNet()
    image = normalize(torch.randint(0, 256, (1, 1, 32, 32)))
    plain = network(image)
    seen = []
    with int8_activations(network):
        hooks = [
            module.register_forward_hook(lambda module, inputs, _: seen.append(inputs[0].detach()))
            for module in network.modules()
            if isinstance(module, torch.nn.Conv2d)
        ]
        rounded = network(image)
        rounded.sum().backward()
    for hook in hooks:
        hook.remove()
    assert len(seen) == 23
    for x in seen:
        level = x / x.abs().max() * 127
        assert torch.allclose(level, level.round(), atol=1e-3)
    assert all(parameter.grad.abs().max() > 0 for parameter in network.parameters())
    assert not torch.equal(rounded, plain)
    assert torch.equal(network(image), plain)


def test_the_share_of_int8_steps_is_the_recipes_and_a_function_of_seed_and_step():
    drawn = [rounds(0.25, 3, step) for step in range(2000)]
    assert 0.2 < sum(drawn) / 2000 < 0.3
    assert drawn == [rounds(0.25, 3, step) for step in range(2000)]
    assert not any(rounds(0.0, 3, step) for step in range(2000))
    assert all(rounds(1.0, 3, step) for step in range(2000))


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


def write_recipe(path: Path, lines: str) -> Path:
    path.write_text(
        f"batch = 4\n{lines}\n"
        "[data]\ndefect_free = 0.25\ncrop = 32\ncrop_on_defect = 0.5\nvalidation = 0.25\n"
    )
    return path


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
    assert "going on at step" in rerun.stderr
    assert final_bytes(tmp_path / "run") == final_bytes(tmp_path / "whole")
    sidecars = [tmp_path / run / "checkpoint.safetensors.json" for run in ("run", "whole")]
    assert sidecars[0].read_text() == sidecars[1].read_text()


def test_sigterm_in_the_middle_of_a_long_step_does_not_wait_for_its_end(tmp_path: Path):
    """What is computing keeps the main thread from running Python: here for a minute."""
    script = tmp_path / "run.py"
    script.write_text(
        "import ctypes, sys\n"
        "from pathlib import Path\n"
        "from training.state import stopped_by_signals\n"
        "with stopped_by_signals(lambda: Path('saved').write_text('yes')):\n"
        "    print('computing', flush=True)\n"
        "    for _ in range(60):\n"
        "        ctypes.CDLL(None).sleep(60)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, str(script)]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "computing\n"
        process.terminate()
        assert process.wait(25) == 143
    assert (tmp_path / "saved").read_text() == "yes"


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


def test_a_folder_in_use_is_refused(tiny_data: Path, tmp_path: Path):
    lock = lock_folder(tmp_path)
    try:
        with pytest.raises(RefusedError, match="is in use by another process"):
            train(SMALL, [read_source(tiny_data, None, SMALL)], tmp_path, machine=Machine())
    finally:
        os.close(lock)
    assert not list(tmp_path.iterdir())


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


def test_weights_that_are_not_finite_never_become_a_checkpoint(tiny_data: Path, tmp_path: Path):
    by_zero = RMSProp(decay=0.0, epsilon=0.0)  # the root is of g^2 - g^2
    recipe = Recipe(steps=1, batch=2, data=Data(crop=32), optimizer=by_zero)
    with pytest.raises(RefusedError, match="not finite after step 1"):
        train(recipe, [read_source(tiny_data, None, recipe)], tmp_path, machine=Machine())
    assert not (tmp_path / "checkpoint.safetensors").exists()


def test_the_best_step_is_kept(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):  # fmt: skip
    """Fewest escapes, then the highest IoU, then the latest: here step 4 of 2, 4, 6 and 7."""
    data = Data(crop=32, validation=0.25)
    recipe = Recipe(steps=4, batch=2, data=data)
    train(recipe, [read_source(tiny_data, None, recipe)], tmp_path / "short", machine=Machine())

    outcomes = iter([(1, 0.9), (0, 0.5), (0, 0.4), (2, 0.8)])

    def scripted(*_: object) -> OperatingPoint:
        escapes, iou = next(outcomes)
        return OperatingPoint(0.35, 8, 4, iou, escapes, 0)

    monkeypatch.setattr("training.loop.choose_operating_point", scripted)
    recipe = Recipe(steps=7, batch=2, validate_every=2, data=data)
    train(recipe, [read_source(tiny_data, None, recipe)], tmp_path / "long", machine=Machine())
    _, sidecar = load_checkpoint(tmp_path / "long" / "checkpoint.safetensors")
    assert sidecar.origin["step"] == 4
    assert (sidecar.threshold, sidecar.min_area) == (0.35, 8)
    assert final_bytes(tmp_path / "long") == final_bytes(tmp_path / "short")


def test_a_folder_that_takes_two_turns_is_read_and_counted_once(tiny_data: Path, tmp_path: Path):
    source, again = (read_source(tiny_data, None, SMALL) for _ in range(2))
    assert sources_digest([source, source]) == sources_digest([source, again])
    assert sources_digest([source, source]) != sources_digest([source])
    train(SMALL, [source, source], tmp_path / "run", machine=Machine())
    _, sidecar = load_checkpoint(tmp_path / "run" / "checkpoint.safetensors")
    validation = len(source.validation)
    assert sidecar.origin["images"]["validation"] == validation
    assert sidecar.origin["images"]["defective"] == len(source.defective)
    assert sidecar.origin["operating_point"]["validation_images"] == validation


def test_batches_that_are_handed_in_train_the_same(tiny_data: Path, tmp_path: Path):
    source = read_source(tiny_data, None, SMALL)
    asked = []

    def load(step: int) -> list[torch.Tensor]:
        asked.append(step)
        return [torch.from_numpy(array) for array in Sampler([source], SMALL).batch(step)]

    train(SMALL, [source], tmp_path / "own", machine=Machine())
    train(SMALL, [source], tmp_path / "handed", machine=Machine(), load=load)
    assert final_bytes(tmp_path / "own") == final_bytes(tmp_path / "handed")
    assert sorted(asked)[: SMALL.steps] == list(range(SMALL.steps))


@pytest.mark.slow
def test_speed_times_both_precisions_and_refuses_too_few_steps(
    tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    recipe = write_recipe(tmp_path / "small.toml", "steps = 60")
    words = [str(recipe), "--data", str(tiny_data), "--runs", str(tmp_path / "runs")]
    words += ["-o", str(tmp_path / "speed.json")]
    assert run(speed, [*words, "--steps", "40"]) == 4
    assert "--steps: are too few" in capsys.readouterr().err
    expected = 0 if has_bfloat16() else 5
    assert run(speed, [*words, "--resident-steps", "50"]) == expected
    if expected == 0:
        result = json.loads((tmp_path / "speed.json").read_text())
        assert [each["precision"] for each in result["results"]] == ["float32", "amp"]
        for each in result["results"]:
            assert each["share_of_resident"] == pytest.approx(
                each["images_per_s"] / each["resident_images_per_s"]
            )
            assert each["seconds_to_train"] > 16 / each["images_per_s"]
            assert each["defective"] > 0
        assert run(speed, [*words, "--resident-steps", "50"]) == 4
        assert "cannot be timed again" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_one_line(tiny_data: Path, tmp_path: Path):
    with pytest.raises(RuntimeUnavailable, match="cuda:0"):
        source = read_source(tiny_data, None, SMALL)
        train(SMALL, [source], tmp_path, machine=Machine(device="cuda:0"))


def test_what_stops_a_run_is_one_line(
    tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):  # fmt: skip
    def outcome(data: Path, *more: str) -> tuple[int, str]:
        output = ["--output", str(tmp_path / "run")]
        code = run(training, [str(recipe), "--data", str(data), *output, *more])
        return code, capsys.readouterr().err

    recipe = write_recipe(tmp_path / "small.toml", "steps = 2")
    empty = tmp_path / "empty"
    synthetic.write_dataset(empty, classes=[1], train=8, test=2, defective=0.0, size=64)
    code, err = outcome(empty)
    assert code == 4 and err == f"error: {empty}: holds no defective image to train on\n"

    odd = tmp_path / "odd"
    synthetic.write_dataset(odd, classes=[1], train=8, test=2, defective=0.5, size=64)
    mask = min((odd / "Class1" / "Train" / "Label").glob("*.PNG"))
    cv2.imwrite(str(mask), np.arange(64 * 64, dtype=np.uint8).reshape(64, 64))
    code, err = outcome(odd)
    assert code == 4 and err.count("\n") == 1
    assert err.startswith(f"error: {mask}: holds unknown values: 0, 1, 2,")

    code, err = outcome(tiny_data, "--device", "cuda:99")
    assert code == 5 and err.count("\n") == 1 and err.startswith("error: cuda:99: is not here")
    code, err = outcome(tiny_data, "--device", "gpu")
    assert code == 5 and err.count("\n") == 1 and err.startswith("error: gpu: is no device")

    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_000_000, limit[1]))  # less than a checkpoint
    try:
        code, err = outcome(tiny_data, "--save-every", "1")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert code == 5 and err.count("\n") == 1 and "cannot write: File too large" in err
    assert not list((tmp_path / "run").glob("*.safetensors"))


def test_a_cpu_without_bf16_is_not_made_to_emulate_it(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):  # fmt: skip
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"avx512_bf16": False, "avx2": True})
    source = read_source(tiny_data, None, SMALL)
    with pytest.raises(RuntimeUnavailable, match="bf16"):
        train(SMALL, [source], tmp_path, machine=Machine(amp=True))


@pytest.mark.skipif(not has_bfloat16(), reason="the CPU has no bf16")
def test_amp_on_the_cpu_trains_in_bfloat16_with_float32_weights(tiny_data: Path, tmp_path: Path):
    source = read_source(tiny_data, None, SMALL)
    path = train(SMALL, [source], tmp_path, machine=Machine(amp=True))
    network, sidecar = load_checkpoint(path)
    assert all(p.dtype == torch.float32 for p in network.parameters())
    assert sidecar.origin["amp"] is True
    assert json.loads((tmp_path / "run.json").read_text())["amp"] is True


# --- several processes --------------------------------------------------------------------------


def launch(*arguments: object, restarts: int = 0) -> subprocess.Popen[str]:
    """``python -m training`` as two processes on this machine."""
    return subprocess.Popen(
        [
            sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2",
            "--max-restarts", str(restarts), "--standalone", "-m", "training",
            *map(str, arguments),
        ],
        cwd=REPOSITORY, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"},
    )  # fmt: skip


def losses(output: Path) -> list[float]:
    events = EventAccumulator(str(output / "tensorboard"))
    events.Reload()
    return [event.value for event in events.Scalars("loss")]


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
    assert "going on at step" in err
    assert final_bytes(tmp_path / "run") == final_bytes(tmp_path / "whole")


# --- recipes side by side -----------------------------------------------------------------------


def test_recipes_are_compared_over_seeds(
    tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):  # fmt: skip
    recipes = [
        str(write_recipe(tmp_path / f"{name}.toml", f"steps = {steps}"))
        for name, steps in (("short", 1), ("shorter", 2))
    ]
    result = tmp_path / "results" / "training.json"
    places = ["--runs", str(tmp_path / "runs"), "--output", str(result)]
    arguments = [*recipes, "--data", str(tiny_data / "Class1"), "--seeds", "2", *places]
    assert run(compare, arguments) == 0
    table = capsys.readouterr().out
    document: dict[str, Any] = json.loads(result.read_text())
    assert len(document["results"]) == 4
    assert {(r["recipe"], r["seed"]) for r in document["results"]} == {
        ("short", 0), ("short", 1), ("shorter", 0), ("shorter", 1),
    }  # fmt: skip
    row = next(row for row in document["summary"] if row["recipe"] == "short")
    figures = [r["figures"]["auroc"] for r in document["results"] if r["recipe"] == "short"]
    assert row["auroc"]["mean"] == pytest.approx(np.mean(figures))
    assert row["auroc"]["sd"] == pytest.approx(np.std(figures, ddof=1))
    assert table.count("\n") == 4 and "| data/Class1 | shorter | 2 | 2 |" in table

    on_crops = [recipes[0], "--data", str(tiny_data / "Class1"), "--seeds", "1"]
    on_crops += ["--runs", str(tmp_path / "crops"), "--output", str(tmp_path / "crops.json")]
    assert run(compare, [*on_crops, "--crop", "16"]) == 0
    run_json = json.loads(next((tmp_path / "crops").glob("*/run.json")).read_text())
    assert run_json["recipe"]["data"]["crop"] == 16
    assert run_json["recipe"]["data"]["crop_on_defect"] == 0.8
    assert json.loads((tmp_path / "crops.json").read_text())["crop_px"] == 16
    assert run(compare, [*on_crops, "--crop", "24"]) == 2
    assert "multiple of 16" in capsys.readouterr().err

    finished = sorted((tmp_path / "runs").glob("*/checkpoint.safetensors"))
    times = [path.stat().st_mtime_ns for path in finished]
    assert run(compare, arguments) == 0
    assert [path.stat().st_mtime_ns for path in finished] == times
