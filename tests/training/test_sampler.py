from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.training.small_runs import AS_THEY_ARE, SMALL
from tinyunet_deploy.contract import Contract
from tinyunet_deploy.data.dataset import Item
from tinyunet_deploy.data.tiles import Tiling
from training.recipe import Augment, Data, Recipe
from training.sampler import Sampler
from training.sources import Example, Source, read_source


def test_a_batch_depends_on_seed_and_step_alone(tiny_data: Path):
    source = read_source(tiny_data, None, SMALL)
    first, second = Sampler([source], SMALL, AS_THEY_ARE), Sampler([source], SMALL, AS_THEY_ARE)
    first.batch(0)
    for a, b in zip(first.batch(3), second.batch(3), strict=True):
        assert np.array_equal(a, b)
    assert not np.array_equal(first.batch(3)[0], first.batch(4)[0])


def test_processes_share_a_batch_without_gap_or_overlap(tiny_data: Path):
    sampler = Sampler([read_source(tiny_data, None, SMALL)], SMALL, AS_THEY_ARE)
    whole, _ = sampler.batch(2)
    assert whole.shape == (4, 1, 32, 32) and whole.dtype == np.uint8
    parts = [sampler.batch(2, slice(rank, None, 2))[0] for rank in range(2)]
    assert np.array_equal(whole[0::2], parts[0]) and np.array_equal(whole[1::2], parts[1])


def test_every_image_comes_once_in_a_pass(tiny_data: Path):
    recipe = Recipe(batch=4, data=Data(defect_free=0.5, crop=64), augment=Augment(rotations=(0,)))
    source = read_source(tiny_data, [1], recipe)
    seen: Counter[bytes] = Counter()
    sampler = Sampler([source], recipe, AS_THEY_ARE)
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
    images, masks = Sampler([source], recipe, AS_THEY_ARE).batch(0)
    assert set(np.unique(masks)) == {0, 1}
    for image, mask in zip(images, masks, strict=True):
        assert pairs[image[0].tobytes()] == (mask[0] * 255).astype(np.uint8).tobytes()


def test_crops_on_a_defect_hold_one(tiny_data: Path):
    recipe = Recipe(batch=32, data=Data(crop=16, crop_on_defect=1.0))
    _, masks = Sampler([read_source(tiny_data, None, recipe)], recipe, AS_THEY_ARE).batch(0)
    assert masks.reshape(32, -1).any(axis=1).all()


def test_a_margin_keeps_the_defect_away_from_the_edge_of_the_crop(tiny_data: Path):
    recipe = replace(SMALL, data=Data(crop=32, crop_on_defect=1.0, defect_margin=12))
    (source,) = [read_source(tiny_data, None, recipe)]
    mask = np.zeros((64, 64), np.uint8)
    mask[30, 34] = 255
    example = replace(source.defective[0], mask=mask, defect_yx=np.argwhere(mask).astype(np.int32))
    sampler = Sampler([replace(source, defective=(example,))], recipe, AS_THEY_ARE)
    for step in range(20):
        assert sampler.batch(step)[1][:, :, 12:20, 12:20].any(axis=(1, 2, 3)).all()


def test_an_image_smaller_than_the_crop_is_mirrored_on():
    image = np.arange(20 * 40, dtype=np.uint32).reshape(20, 40).astype(np.uint8)
    mask = np.zeros((20, 40), np.uint8)
    mask[18:, 38:] = 255
    item = Item(Path("a.png"), True, None, None, None, None)
    source = Source(
        "data", (Example(item, image, mask, np.argwhere(mask).astype(np.int32)),), (), ()
    )
    still = Augment(flip_horizontal=0.0, rotations=(0,))
    recipe = Recipe(batch=2, data=Data(crop=48, crop_on_defect=1.0), augment=still)
    images, masks = Sampler([source], recipe, AS_THEY_ARE).batch(0)
    mirrored = [np.pad(a, [(0, 28), (0, 8)], "reflect") for a in (image, mask)]
    for number in range(2):
        assert np.array_equal(images[number, 0], mirrored[0])
        assert np.array_equal(masks[number, 0], mirrored[1] >> 7)


@pytest.mark.parametrize(
    ("model", "beyond"), [((64, 64), (0, 0)), ((80, 64), (16, 0)), ((512, 512), (24, 24))]
)
def test_crops_reach_as_far_beyond_the_image_as_the_model_sees(
    model: tuple[int, int], beyond: tuple[int, int]
) -> None:
    """At most half a crop of 48 px shows a reflection; each place is drawn."""
    item = Item(Path("a.png"), False, None, None, None, None)
    still = Augment(flip_horizontal=0.0, rotations=(0,))
    recipe = Recipe(batch=64, data=Data(defect_free=1.0, crop=48), augment=still)
    tiling = Tiling(Contract(*model), 16)
    corners = []
    for image in np.mgrid[:64, :64].astype(np.uint8):
        example = Example(item, image, np.zeros((64, 64), np.uint8), None)
        sampler = Sampler([Source("data", (), (example,), ())], recipe, tiling)
        crops = np.concatenate([sampler.batch(step)[0][:, 0] for step in range(8)])
        extended = np.pad(image, [(0, 48), (0, 48)], "reflect")
        corners.append(crops[:, 0, 0])
    for y, x, crop in zip(*corners, crops, strict=True):
        np.testing.assert_array_equal(crop, extended[y : y + 48, x : x + 48])
    largest = tuple(int(places.max()) for places in corners)
    assert largest == (16 + beyond[0], 16 + beyond[1])


def crops_of(
    image: NDArray[np.uint8], mask: NDArray[np.uint8], augment: Augment, crop: int, at: float = 0.0
) -> list[NDArray[np.uint8]]:
    """Return 64 crops and their masks, uint8 [64, crop, crop]; with ``at`` of 1 on the defect."""
    item = Item(Path("a.png"), True, None, None, None, None)
    example = Example(item, image, mask, np.argwhere(mask).astype(np.int32))
    recipe = Recipe(batch=64, data=Data(crop=crop, crop_on_defect=at), augment=augment)
    sampler = Sampler([Source("data", (example,), (), ())], recipe, AS_THEY_ARE)
    return [planes[:, 0] for planes in sampler.batch(0)]


def test_a_warped_crop_has_its_defect_under_its_mask_in_other_sizes() -> None:
    y, x = np.mgrid[:192, :192] - 95.5
    disc = np.where((y / 40) ** 2 + (x / 20) ** 2 <= 1, 255, 0).astype(np.uint8)
    augment = Augment(flip_horizontal=0.0, rotations=(0,), warped=1.0, scale=0.25, angle=90.0)
    images, masks = crops_of(disc, disc, augment, 192)
    areas = masks.sum(axis=(1, 2)) / np.count_nonzero(disc)
    assert 1 / 1.25**2 < areas.min() < 0.8 and 1.25 < areas.max() < 1.25**2 * 1.01
    agreement = (images > 127) == masks.astype(bool)
    assert agreement.mean(axis=(1, 2)).min() > 0.995
    widths = masks.any(axis=1).sum(axis=1) / np.sqrt(areas)
    assert widths.min() < 50 and widths.max() > 75  # it lies and it stands
    middles = [np.argwhere(mask).mean(axis=0) for mask in masks]
    np.testing.assert_allclose(middles, 95.5, atol=0.5)


def test_only_a_share_of_the_crops_is_warped_and_the_others_are_exact() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
    augment = Augment(flip_horizontal=0.0, rotations=(0,), warped=0.25, angle=20.0)
    images, _ = crops_of(noise, np.zeros_like(noise) + 255, augment, 64)
    exact = sum(np.array_equal(image, noise) for image in images)
    assert 40 <= exact <= 56


def test_a_warped_crop_is_mirrored_beyond_the_image_and_stays_on_its_defect() -> None:
    """A constant image has no dark corner, however the crop is turned, and the defect is seen."""
    image = np.full((40, 40), 200, np.uint8)
    mask = np.zeros((40, 40), np.uint8)
    mask[2:6, 30:36] = 255
    augment = Augment(warped=1.0, scale=0.3, angle=180.0)
    images, masks = crops_of(image, mask, augment, 32, at=1.0)
    assert set(np.unique(images)) == {200}
    assert masks.any(axis=(1, 2)).sum() > 50


def test_a_warped_crop_shows_what_the_image_has_around_it() -> None:
    """A plane of grey values stays a plane, which a fold by mirroring would break."""
    y, x = np.mgrid[:240, :240]
    plane = np.rint(0.5 * x + 0.5 * y).astype(np.uint8)
    mask = np.where((y == 120) & (x == 120), 255, 0).astype(np.uint8)
    augment = Augment(flip_horizontal=0.0, rotations=(0,), warped=1.0, scale=0.3, angle=60.0)
    images, _ = crops_of(plane, mask, augment, 48, at=1.0)
    rows, columns = np.mgrid[:48, :48].reshape(2, -1)
    terms = np.stack([columns, rows, np.ones_like(rows)], axis=1)
    directions = []
    for image in images:
        slope, *_ = np.linalg.lstsq(terms, image.ravel().astype(float))
        assert np.abs(terms @ slope - image.ravel()).max() < 2
        directions.append(np.degrees(np.arctan2(slope[1], slope[0])) - 45)
    assert -62 < min(directions) < -40 and 40 < max(directions) < 62


def test_a_blend_lies_between_two_images_and_has_no_label() -> None:
    item = Item(Path("a.png"), True, None, None, None, None)
    marks = np.zeros((32, 32), np.uint8)
    marks[:, ::2] = 255
    examples = tuple(
        Example(item, np.full((32, 32), grey, np.uint8), marks, None) for grey in (40, 200)
    )
    augment = Augment(flip_horizontal=0.0, rotations=(0,), mixed=0.25)
    recipe = Recipe(batch=800, teacher=0.5, teacher_of="crops", data=Data(crop=32), augment=augment)
    sources = [Source("", examples, (), ()), Source("", (), (), (), unlabelled=examples)]
    images, masks, labelled = Sampler(sources, recipe, AS_THEY_ARE).batch(0)
    greys = np.array([np.unique(image).item() for image in images])
    blended = ~np.isin(greys, (40, 200))
    for one_source in (blended[::2], blended[1::2]):
        assert 30 <= one_source.sum() <= 70  # an eighth; another eighth is blended with itself
    assert 40 < greys[blended].min() < 70 and 170 < greys[blended].max() < 200
    assert not labelled[blended].any() and 270 <= labelled[::2].sum() <= 330
    assert not labelled[1::2].any()
    assert np.array_equal(masks[0, 0], marks // 255)
