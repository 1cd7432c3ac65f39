from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from export.calibration_images import best_tile, read_image_sets
from tests.export.conftest import CONTRACT, SIZE
from tinyunet_deploy.contract import Contract
from tinyunet_deploy.data import synthetic
from tinyunet_deploy.data.encoding import write_png
from tinyunet_deploy.errors import DataError


def test_sets_come_from_training_images_and_never_overlap(tmp_path: Path) -> None:
    synthetic.write_dataset(tmp_path, classes=[1, 2], train=24, test=8, size=SIZE, defective=0.5)
    sets = read_image_sets([tmp_path], CONTRACT)
    parts = (sets.calibration, sets.selection, sets.gate)
    names = [{(one.class_id, one.name) for one in part} for part in parts]
    assert [len(part) for part in names] == [12, 18, 18]
    assert len(names[0] | names[1] | names[2]) == 48, "each image once, and no test image"
    for part in parts:
        assert sum(one.defective for one in part) == len(part) // 2
        assert abs(sum(3 - 2 * one.class_id for one in part if one.class_id)) <= 2
        assert all(one.truth.any() == one.defective for one in part)
    assert read_image_sets([tmp_path], CONTRACT).as_dict() == sets.as_dict()
    digests = sets.as_dict()
    assert digests["source"] == "training images"
    assert len({digests[name]["sha256"] for name in ("calibration", "selection", "gate")}) == 3


def test_without_data_the_sets_are_synthetic_and_say_so() -> None:
    sets = read_image_sets([], CONTRACT)
    assert sets.source == "synthetic images"
    images = [
        one.image.tobytes()
        for part in (sets.calibration, sets.selection, sets.gate)
        for one in part
    ]
    assert len(set(images)) == 60


def test_too_few_training_images_are_refused(tmp_path: Path) -> None:
    synthetic.write_dataset(tmp_path, classes=[1], train=4, test=1, size=SIZE, defective=0.25)
    with pytest.raises(DataError, match="too few with a defect"):
        read_image_sets([tmp_path], CONTRACT)


@pytest.mark.parametrize("contract", [Contract(32, 48), Contract(128, 160), Contract(32, 160)])
def test_training_images_of_another_size_give_a_tile(tmp_path: Path, contract: Contract) -> None:
    synthetic.write_dataset(tmp_path, classes=[1], train=16, test=1, size=SIZE, defective=0.5)
    sets = read_image_sets([tmp_path], contract)
    for one in (*sets.calibration, *sets.selection, *sets.gate):
        assert one.image.shape == one.truth.shape == (contract.height, contract.width)
        assert one.truth.any() == one.defective


def test_the_tile_has_the_defect_or_else_the_contrast() -> None:
    image = np.random.default_rng(1).integers(0, 9, (200, 300), dtype=np.uint8)
    image[150:, 250:] += np.random.default_rng(2).integers(0, 200, (50, 50), dtype=np.uint8)
    truth = np.zeros_like(image)
    tile, its_truth = best_tile(image, truth, Contract(64, 64))
    assert tile.std() > 30 and not its_truth.any()
    truth[10:20, 70:100] = 255
    tile, its_truth = best_tile(image, truth, Contract(64, 64))
    assert np.count_nonzero(its_truth) == 300, "all of it"
    assert np.array_equal(tile, image[:64, 64:128])
    assert best_tile(tile, its_truth, Contract(64, 64))[0] is tile


def test_images_without_content_calibrate_nothing(tmp_path: Path) -> None:
    for index in range(16):
        image = np.full((SIZE, SIZE), 90 + index, np.uint8)
        mask = np.zeros_like(image)
        mask[:8, :8] = 255 * (index % 2)
        for folder, array in (("images", image), ("masks", mask)):
            (tmp_path / folder).mkdir(exist_ok=True)
            write_png(tmp_path / folder / f"{index:02}.png", array)
    with pytest.raises(DataError, match=r"has the grey value \d+ throughout"):
        read_image_sets([tmp_path], CONTRACT)
