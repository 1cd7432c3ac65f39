"""A network that learns from a teacher: its targets, its images, and a run that is resumed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.training.small_runs import AS_THEY_ARE, SMALL, final_bytes, load_until
from tinyunet_deploy.artifacts.checkpoint import load_checkpoint
from tinyunet_deploy.artifacts.sidecar import read_sidecar
from tinyunet_deploy.backends.registry import open_backend
from tinyunet_deploy.data.dataset import Item
from tinyunet_deploy.data.encoding import write_png
from tinyunet_deploy.errors import DataError, RefusedError
from training.data_folders import DataFolders
from training.finish import finish_run
from training.loop import train
from training.loss import distillation_loss, segmentation_loss
from training.machine import Machine
from training.recipe import Augment, Data, Recipe, read_recipe
from training.sampler import Sampler
from training.sources import Example, Source, read_source
from training.teacher import crop_scorer, with_scores

TAUGHT = replace(SMALL, teacher=0.5)
ITEM = Item(Path("a.png"), True, None, None, None, None)


@pytest.fixture(scope="module")
def teacher(finished: Path) -> Path:
    return finished / "checkpoint.safetensors"


@pytest.fixture
def camera(tmp_path: Path) -> Path:
    """A folder of three images without labels."""
    rng = np.random.default_rng(5)
    for number in range(3):
        path = tmp_path / "camera" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        write_png(path, rng.integers(0, 255, (64, 48), dtype=np.uint8))
    return tmp_path / "camera"


@given(
    seed=st.integers(0, 1000),
    height=st.integers(3, 40),
    width=st.integers(3, 40),
    margin=st.integers(0, 5),
)
def test_a_score_moves_with_its_image(seed: int, height: int, width: int, margin: int) -> None:
    """The score is the image itself here, so any difference is one of crop, turn or flip."""
    image = np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)
    mask = np.where(image > 127, 255, 0).astype(np.uint8)
    pixels = np.argwhere(mask).astype(np.int32)
    example = Example(ITEM, image, mask, pixels if len(pixels) else None, score=image)
    recipe = Recipe(
        batch=4,
        seed=seed,
        data=Data(crop=16, crop_on_defect=0.5, defect_margin=margin),
        augment=Augment(flip_horizontal=0.5, flip_vertical=0.5, rotations=(0, 90, 180, 270)),
    )
    images, masks, scores, labelled = Sampler(
        [Source("", (example,), (), ())], recipe, AS_THEY_ARE
    ).batch(seed)
    assert np.array_equal(images, scores)
    assert np.array_equal(masks, images > 127)
    assert labelled.tolist() == [1, 1, 1, 1]


def test_the_teacher_changes_no_crop_and_keeps_its_grey_values() -> None:
    rng = np.random.default_rng(0)
    image, score = (rng.integers(0, 256, (40, 40), dtype=np.uint8) for _ in range(2))
    plain = Example(ITEM, image, np.zeros_like(image), None)
    recipe = Recipe(batch=8, data=Data(crop=32), augment=Augment(contrast=0.5, brightness=50))
    sources = [Source("", (e,), (), ()) for e in (plain, replace(plain, score=score))]
    alone, taught = (Sampler([source], recipe, AS_THEY_ARE).batch(3) for source in sources)
    assert np.array_equal(alone[0], taught[0]) and len(alone) == 2
    assert {int(value) for value in np.unique(taught[2])} <= set(np.unique(score).tolist())


def test_the_scores_are_those_of_the_teacher(teacher: Path, tiny_data: Path, tmp_path: Path):
    source = read_source(tiny_data, None, SMALL)
    (scored,) = with_scores([source], teacher, tmp_path, Machine())
    with open_backend(teacher, "torch") as backend:
        for before, after in zip(source.trained, scored.trained, strict=True):
            expected = backend.score_alone(before.image[None, None])[0, 0]
            assert after.score is not None and np.array_equal(after.score, expected)
            assert after == replace(before, score=after.score)
    assert scored.validation == source.validation


def test_a_taught_run_resumes_to_the_same_bytes(teacher: Path, tiny_data: Path, tmp_path: Path):
    source = read_source(tiny_data, None, TAUGHT)
    train(TAUGHT, [source], tmp_path / "whole", machine=Machine(), teacher=teacher)
    run = tmp_path / "run"
    (scored,) = with_scores([source], teacher, run, Machine())
    with pytest.raises(OSError, match="the camera is gone"):
        train(
            TAUGHT, [source], run, machine=Machine(save_every=2), teacher=teacher,
            load=load_until(scored, TAUGHT, 4),
        )  # fmt: skip
    assert list(run.glob("teacher/*.png"))
    checkpoint = train(TAUGHT, [source], run, machine=Machine(), teacher=teacher)
    assert final_bytes(run) == final_bytes(tmp_path / "whole")
    assert not (run / "teacher").exists()

    sidecar = read_sidecar(checkpoint)
    assert sidecar.teacher == read_sidecar(teacher).sha256
    assert set(read_sidecar(teacher).trained_on) <= set(sidecar.trained_on)
    alone = train(SMALL, [source], tmp_path / "alone", machine=Machine())
    assert final_bytes(tmp_path / "alone") != final_bytes(run)
    assert read_sidecar(alone).teacher is None


def test_other_scores_than_those_of_the_first_steps_are_refused(
    teacher: Path, tiny_data: Path, tmp_path: Path
):
    source = read_source(tiny_data, None, TAUGHT)
    (scored,) = with_scores([source], teacher, tmp_path, Machine())
    with pytest.raises(OSError, match="the camera is gone"):
        train(
            TAUGHT, [source], tmp_path, machine=Machine(save_every=2), teacher=teacher,
            load=load_until(scored, TAUGHT, 4),
        )  # fmt: skip
    path = min((tmp_path / "teacher").iterdir())
    write_png(path, np.full((64, 64), 255, np.uint8))
    with pytest.raises(DataError, match="has other scores of the teacher"):
        train(TAUGHT, [source], tmp_path, machine=Machine(), teacher=teacher)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(DataError, match=r"is damaged \(remove the file"):
        train(TAUGHT, [source], tmp_path, machine=Machine(), teacher=teacher)
    path.unlink()
    train(TAUGHT, [source], tmp_path, machine=Machine(), teacher=teacher)


def test_a_taught_run_can_be_finished_early(teacher: Path, tiny_data: Path, tmp_path: Path):
    data = DataFolders((tiny_data,))
    with pytest.raises(OSError, match="the camera is gone"):
        (scored,) = with_scores(data.read(TAUGHT), teacher, tmp_path, Machine())
        train(
            TAUGHT, data.read(TAUGHT), tmp_path, machine=Machine(save_every=2), teacher=teacher,
            load=load_until(scored, TAUGHT, 4), data=data,
        )  # fmt: skip
    checkpoint, _ = finish_run(tmp_path)
    sidecar = read_sidecar(checkpoint)
    assert (sidecar.step, sidecar.teacher) == (4, read_sidecar(teacher).sha256)
    assert not (tmp_path / "teacher").exists()


OF_CROPS = replace(TAUGHT, teacher_of="crops", augment=replace(TAUGHT.augment, mixed=0.5))


def test_a_teacher_scores_the_very_crops(teacher: Path) -> None:
    crops = np.random.default_rng(0).integers(0, 256, (3, 1, 64, 64), dtype=np.uint8)
    scores = crop_scorer(teacher, torch.device("cpu"))(torch.from_numpy(crops))
    with open_backend(teacher, "torch") as backend:
        assert np.array_equal(scores.numpy(), backend.score_alone(crops))


def test_a_run_with_a_teacher_of_crops_resumes_to_the_same_bytes(
    teacher: Path, tiny_data: Path, tmp_path: Path
):
    source = read_source(tiny_data, None, OF_CROPS)
    run = tmp_path / "run"
    with pytest.raises(OSError, match="the camera is gone"):
        train(
            OF_CROPS, [source], run, machine=Machine(save_every=2), teacher=teacher,
            load=load_until(source, OF_CROPS, 4),
        )  # fmt: skip
    assert not (run / "teacher").exists(), "no image is scored beforehand"
    checkpoint = train(OF_CROPS, [source], run, machine=Machine(), teacher=teacher)
    assert read_sidecar(checkpoint).teacher == read_sidecar(teacher).sha256
    for name, recipe in (
        ("whole", OF_CROPS),
        ("unmixed", replace(OF_CROPS, augment=TAUGHT.augment)),
        ("images", TAUGHT),
    ):
        train(recipe, [source], tmp_path / name, machine=Machine(), teacher=teacher)
    finals = {final_bytes(tmp_path / name) for name in ("run", "whole", "unmixed", "images")}
    assert len(finals) == 3 and final_bytes(run) == final_bytes(tmp_path / "whole")


def test_a_teacher_of_crops_with_the_whole_loss_needs_no_label(
    teacher: Path, tiny_data: Path, tmp_path: Path
):
    recipe = replace(
        OF_CROPS, teacher=1.0, data=replace(OF_CROPS.data, crop_on_defect=0.0, validation=0.0)
    )
    source = read_source(tiny_data, None, recipe)
    wrong = replace(
        source,
        defective=tuple(replace(one, mask=255 - one.mask) for one in source.defective),
    )
    for name, labels in (("right", source), ("wrong", wrong)):
        train(recipe, [labels], tmp_path / name, machine=Machine(), teacher=teacher)
    assert final_bytes(tmp_path / "right") == final_bytes(tmp_path / "wrong")


def test_a_recipe_and_its_teacher_belong_together(teacher: Path, tiny_data: Path, tmp_path: Path):
    source = read_source(tiny_data, None, SMALL)
    with pytest.raises(RefusedError, match=r"a teacher 0\.5 of the loss .give --teacher"):
        train(TAUGHT, [source], tmp_path, machine=Machine())
    with pytest.raises(RefusedError, match="is not used by the recipe"):
        train(SMALL, [source], tmp_path, machine=Machine(), teacher=teacher)


def test_images_without_labels_have_only_the_teacher(
    teacher: Path, tiny_data: Path, camera: Path, tmp_path: Path
):
    data = DataFolders((tiny_data,), unlabelled=(camera,))
    assert DataFolders.of(json.loads(json.dumps(data.as_dict()))) == replace(
        data, folders=(tiny_data.resolve(),), unlabelled=(camera.resolve(),)
    )
    sources = data.read(TAUGHT)
    with pytest.raises(RefusedError, match="--unlabelled: is for a run with a teacher"):
        train(SMALL, sources, tmp_path / "alone", machine=Machine())
    sources = with_scores(sources, teacher, tmp_path / "run", Machine())
    assert [len(source.unlabelled) for source in sources] == [0, 3]
    batches = [Sampler(sources, TAUGHT, AS_THEY_ARE).batch(step) for step in range(3)]
    assert [labelled.tolist() for *_, labelled in batches] == [[1, 0, 1, 0]] * 3
    checkpoint = train(
        TAUGHT, data.read(TAUGHT), tmp_path / "run", machine=Machine(), teacher=teacher
    )
    assert read_sidecar(checkpoint).origin["images"]["unlabelled"] == 3
    assert len(read_sidecar(checkpoint).trained_on) == 12 + 3


def test_the_labels_of_images_without_one_have_no_weight() -> None:
    rng = torch.Generator().manual_seed(0)
    logit, truth = (torch.rand(4, 1, 8, 8, generator=rng) for _ in range(2))
    truth = (truth > 0.7).float()
    score = (255 * torch.rand(4, 1, 8, 8, generator=rng)).to(torch.uint8)
    labelled = torch.tensor([True, False, True, False])

    def loss(truth: torch.Tensor) -> float:
        recipe = Recipe(loss="every-image", teacher=0.25)
        return distillation_loss(recipe, logit, truth, score, labelled)[0].item()

    unknown = truth.clone()
    unknown[1::2] = 1.0 - unknown[1::2]
    assert loss(unknown) == loss(truth)
    alone, _ = segmentation_loss("every-image", logit[::2], truth[::2])
    taught, _ = segmentation_loss("every-image", logit, score / 255.0)
    assert loss(truth) == pytest.approx(0.25 * taught.item() + 0.75 * alone.item(), rel=1e-6)
    nothing, _ = segmentation_loss("every-image", logit, truth, labelled_N=torch.zeros(4).bool())
    assert nothing.item() == 0.0


def test_a_recipe_trains_widths_of_its_own(teacher: Path, tiny_data: Path, tmp_path: Path):
    path = tmp_path / "mine.toml"
    path.write_text(
        'steps = 2\nbatch = 2\nvariant = "mine"\nteacher = 1.0\n[data]\ncrop = 32\n'
        "[network]\nencoder = [8, 16]\nbottleneck = 16\nhead = 8\nspace_to_depth = 2\n"
    )
    recipe = read_recipe(str(path))
    checkpoint = train(
        recipe, [read_source(tiny_data, None, recipe)], tmp_path / "run", machine=Machine(),
        teacher=teacher,
    )  # fmt: skip
    network, sidecar = load_checkpoint(checkpoint)
    assert (network.name, network.facts.architecture) == ("mine", recipe.network)
    assert sidecar.network == network.facts and network.facts.size_multiple == 8
    assert sidecar.origin["recipe"]["network"] == {
        "encoder": [8, 16], "bottleneck": 16, "head": 8, "space_to_depth": 2,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ('variant = "tiny"\n[network]\nencoder = [8]\nbottleneck = 8\nhead = 8', "another name"),
        ('variant = "m"\n[network]\nencoder = [0]\nbottleneck = 8\nhead = 8', "at least 1"),
        ('variant = "m"\n[network]\nencoder = [8]\nbottleneck = 9999\nhead = 8', "1024 channels"),
        ('variant = "m"\n[network]\nbottleneck = 8\nhead = 8', "encoder"),
        ('variant = "m"', "known: tiny"),
        ("teacher = 1.5", "outside 0..1"),
    ],
)
def test_a_network_that_cannot_be_is_refused(lines: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(lines)
    with pytest.raises(DataError, match=message):
        read_recipe(str(path))
