from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.training.small_runs import AS_THEY_ARE, SMALL
from tinyunet_deploy.artifacts.checkpoint import load_checkpoint
from tinyunet_deploy.data import synthetic
from tinyunet_deploy.data.dataset import Item
from training.loop import train
from training.machine import Machine
from training.recipe import Data, Recipe
from training.sampler import Sampler
from training.sources import Example, Source, model_size, read_source, sources_digest


def test_validation_is_held_apart_in_every_class(tiny_data: Path):
    source = read_source(tiny_data, None, SMALL)
    training = {e.item.image for e in (*source.defective, *source.defect_free)}
    held = {e.item.image for e in source.validation}
    assert len(training) == 12 and len(held) == 4 and not training & held
    assert Counter((e.item.class_id, e.item.defective) for e in source.validation) == {
        (1, True): 1, (1, False): 1, (9, True): 1, (9, False): 1,
    }  # fmt: skip
    assert held == {e.item.image for e in read_source(tiny_data, None, SMALL).validation}


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


def test_16_bit_files_are_scaled_by_the_declared_depth(tmp_path: Path):
    values = np.linspace(0, 4095, 64 * 64).astype(np.uint16).reshape(64, 64)
    mask = np.zeros((64, 64), np.uint16)
    mask[20:30, 20:30] = 1
    for folder, array in (("images", values), ("masks", mask)):
        (tmp_path / "train" / folder).mkdir(parents=True)
        assert cv2.imwrite(str(tmp_path / "train" / folder / "a.png"), array)
    recipe = Recipe(data=Data(crop=32))
    (example,) = read_source(tmp_path, None, recipe, bits=12).defective
    assert example.image.max() == 255
    assert example.mask.sum() == 255 * 100


def put_part(folder: Path, name: str, *, defective: bool) -> None:
    image = np.full((32, 32), 100, np.uint8)
    mask = np.zeros((32, 32), np.uint8)
    mask[8:16, 8:16] = 255 * defective
    for part, array in (("images", image), ("masks", mask)):
        (folder / part).mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(folder / part / f"{name}.png"), array)


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_the_val_part_validates_whatever_share_the_recipe_holds_out(
    tmp_path: Path, share: float
) -> None:
    for split in ("train", "val", "test"):
        for index in range(4):
            put_part(tmp_path / split, f"{split}{index}", defective=index % 2 == 0)
    recipe = Recipe(data=Data(crop=32, validation=share))
    source = read_source(tmp_path, None, recipe)
    names = sorted(example.item.image.stem for example in source.validation)
    assert names == ["val0", "val1", "val2", "val3"]
    assert [len(source.defective), len(source.defect_free)] == [2, 2]


def test_a_folder_without_splits_is_trained_on_but_for_the_share(tmp_path: Path) -> None:
    for index in range(8):
        put_part(tmp_path, str(index), defective=index % 2 == 0)
    source = read_source(tmp_path, None, Recipe(data=Data(crop=32, validation=0.25)))
    assert [len(source.defective), len(source.defect_free), len(source.validation)] == [3, 3, 2]


def sized(*shapes: tuple[int, int]) -> Source:
    """A source of images of these shapes; nothing else of it matters."""
    examples = tuple(
        Example(Item(Path("a.png"), True, None, None, None, None), blank, blank, None)
        for blank in (np.zeros(shape, np.uint8) for shape in shapes)
    )
    return Source("data", examples[:1], examples[1:], ())


@pytest.mark.parametrize(
    ("shapes", "size"),
    [
        ([(512, 512)], (512, 512)),
        ([(200, 200)] * 3, (208, 208)),
        ([(1080, 1920)], (512, 512)),
        ([(320, 160)], (320, 160)),
        ([(400, 1000)], (400, 512)),
        ([(100, 700), (200, 300), (300, 90)], (304, 512)),
        ([(100, 130), (200, 300), (90, 100)], (208, 304)),
        ([(17, 16)], (32, 16)),
    ],
)
def test_the_model_gets_the_size_of_the_images_up_to_512(
    shapes: list[tuple[int, int]], size: tuple[int, int]
) -> None:
    assert model_size([sized(*shapes)], 16) == size


def test_the_largest_image_of_all_sources_counts() -> None:
    assert model_size([sized((64, 64)), sized((128, 96), (48, 100))], 16) == (128, 112)


def test_the_largest_size_is_a_multiple_too() -> None:
    assert model_size([sized((1000, 1000))], 48) == (480, 480)


def test_a_folder_without_good_images_trains_on_defects_alone_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    synthetic.write_dataset(tmp_path / "data", classes=[1], train=4, test=2, defective=1.0, size=64)
    with caplog.at_level("INFO", "training"):
        source = read_source(tmp_path / "data", None, SMALL)
    assert not source.defect_free
    assert "data contains no good image to train on" in caplog.text
    assert "defect_free = 0.25 is not used" in caplog.text
    recipe = replace(SMALL, data=replace(SMALL.data, crop=64))
    _, masks = Sampler([source], recipe, AS_THEY_ARE).batch(0)
    assert masks.any(axis=(1, 2, 3)).all()
    caplog.clear()
    alone = replace(SMALL, data=replace(SMALL.data, defect_free=0.0))
    with caplog.at_level("INFO", "training"):
        read_source(tmp_path / "data", None, alone)
    assert "no good image" not in caplog.text
