from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import SIZE, part
from tinyunet_deploy.contract import Contract
from tinyunet_deploy.data.encoding import write_png
from tinyunet_deploy.data.synthetic import CLASSES, sample, write_dataset
from tinyunet_deploy.errors import DataError
from tinyunet_deploy.speed.benchmark_images import open_benchmark_images
from tinyunet_deploy.testing.fake_backend import FakeBackend

REFERENCE = FakeBackend(contract=Contract(SIZE, SIZE), threshold=0.4, min_area=7)


def test_images_are_taken_evenly_spaced_and_scored_by_the_reference(tmp_path: Path) -> None:
    for number in range(10):
        write_png(tmp_path / f"{number}.png", part(number))
    with open_benchmark_images([tmp_path], REFERENCE, count=4, workers=1) as images:
        assert [image.name for image in images.images] == ["0.png", "2.png", "5.png", "7.png"]
        for position, number in enumerate((0, 2, 5, 7)):
            assert np.array_equal(images.scores[position], part(number))
        assert (images.threshold, images.min_area) == (0.4, 7)
        pixels = np.stack([part(number) for number in (0, 2, 5, 7)])
        assert images.facts.sha256 == hashlib.sha256(pixels.tobytes()).hexdigest()
        assert images.facts.folder == tmp_path.name and images.facts.source == "files"


def test_a_labelled_data_set_gives_its_held_out_images_and_their_truth(tmp_path: Path) -> None:
    write_dataset(tmp_path, classes=[1], train=3, test=4, defective=0.5, size=SIZE)
    with open_benchmark_images([tmp_path], REFERENCE, count=32, workers=1) as images:
        assert len(images.images) == 4
        assert all("Test" in image.name for image in images.images)
        assert sum(image.defective is True for image in images.images) == 2


def test_generated_images_have_the_shape_of_the_contract() -> None:
    reference = FakeBackend(contract=Contract(64, 96))
    with open_benchmark_images([], reference, count=3, workers=1) as images:
        batch = images.batch([0, 1, 2])
        assert batch.shape == (3, 1, 64, 96)
        for index, defective in enumerate((False, True, False)):
            drawn = sample(CLASSES[index], index, defective=defective, size=96)
            assert np.array_equal(batch[index, 0], drawn.image[:64])
        assert images.facts.image_px == (64, 96)
        assert (images.facts.source, images.facts.folder) == ("synthetic", "")


def test_a_folder_without_a_usable_image_is_refused(tmp_path: Path) -> None:
    def open_all() -> None:
        with open_benchmark_images([tmp_path], REFERENCE, count=4, workers=1):
            pass

    with pytest.raises(DataError, match="contains no images"):
        open_all()
    write_png(tmp_path / "small.png", part(1)[:8])
    with pytest.raises(DataError, match=r"small\.png: and the others cannot be used"):
        open_all()
