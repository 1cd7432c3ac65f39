from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import SIZE, part
from tinyunet_deploy.artifacts.facts import NetworkFacts
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
    with open_benchmark_images([tmp_path], REFERENCE, count=4) as images:
        assert [image.name for image in images.images] == ["0.png", "2.png", "5.png", "7.png"]
        for position, number in enumerate((0, 2, 5, 7)):
            assert np.array_equal(images.scores[position], part(number))
        assert (images.threshold, images.min_area) == (0.4, 7)
        pixels = np.stack([part(number) for number in (0, 2, 5, 7)])
        assert images.facts.sha256 == hashlib.sha256(pixels.tobytes()).hexdigest()
        assert images.facts.folder == tmp_path.name and images.facts.source == "files"


def test_a_labelled_data_set_gives_its_held_out_images_and_their_truth(tmp_path: Path) -> None:
    write_dataset(tmp_path, classes=[1], train=3, test=4, defective=0.5, size=SIZE)
    with open_benchmark_images([tmp_path], REFERENCE, count=32) as images:
        assert len(images.images) == 4
        assert all("Test" in image.name for image in images.images)
        assert sum(image.defective is True for image in images.images) == 2


def test_generated_images_have_the_shape_of_the_contract() -> None:
    reference = FakeBackend(contract=Contract(64, 96))
    with open_benchmark_images([], reference, count=3) as images:
        batch = images.batch([0, 1, 2])
        assert batch.shape == (3, 1, 64, 96)
        for index, defective in enumerate((False, True, False)):
            drawn = sample(CLASSES[index // 2], index, defective=defective, size=96)
            assert np.array_equal(batch[index, 0], drawn.image[:64])
        assert images.facts.image_px == (64, 96)
        assert (images.facts.source, images.facts.folder) == ("synthetic", "")


NEAR = NetworkFacts("near", 16, 4, 4)
MIXED = [(SIZE, SIZE), (100, 130), (40, SIZE), (SIZE, 3 * SIZE)]


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    for seed, (height, width) in enumerate(MIXED):
        write_png(tmp_path / f"{seed}.png", part(seed, height=height, width=width))
    return tmp_path


def test_images_of_any_size_become_inputs_of_the_models_size(mixed: Path) -> None:
    reference = FakeBackend(contract=Contract(SIZE, SIZE), network=NEAR)
    with open_benchmark_images([mixed], reference, count=32) as images:
        counts = [images.tiling.tile_count(shape) for shape in MIXED]
        assert [len(numbers) for numbers in images.inputs_of_image] == counts
        assert (counts[0], counts[2]) == (1, 1) and min(counts[1], counts[3]) > 2
        facts = images.facts
        assert (facts.images, facts.inputs) == (4, sum(counts))
        assert (facts.padded, facts.tiled) == (1, 2)
        assert facts.inputs_per_image == sum(counts) / 4
        assert images.notes == (
            "images of another size than the model's: 1 padded by mirroring, 2 inspected in tiles",
        )
        batch = images.batch(range(sum(counts)))
        for number, pixels in enumerate(batch[:, 0]):
            assert np.array_equal(images.scores[number], pixels), "the fake gives the image back"
            model_input = images.inputs[number]
            height, width = MIXED[model_input.image]
            image = part(model_input.image, height=height, width=width)
            assert np.array_equal(pixels[model_input.in_tile], image[model_input.in_image])
        assert images.name(0) == "0.png"
        assert images.name(1) == f"1.png, tile 1 of {counts[1]}"


def test_every_pixel_of_an_image_is_in_an_input(mixed: Path) -> None:
    reference = FakeBackend(contract=Contract(SIZE, SIZE), network=NEAR)
    with open_benchmark_images([mixed], reference, count=32) as images:
        for index, shape in enumerate(MIXED):
            covered = np.zeros(shape, int)
            for number in images.inputs_of_image[index]:
                covered[images.inputs[number].in_image] += 1
            assert covered.min() == 1
            assert (covered == 1).mean() > 0.5, "only fades are in two"


def test_without_tiles_other_sizes_are_left_out(mixed: Path) -> None:
    with open_benchmark_images([mixed], REFERENCE, count=32, tile=False) as images:
        assert [image.name for image in images.images] == ["0.png"]
        assert len(images.facts.skipped) == 3 and "130x100" in images.facts.skipped[0]
        assert images.notes == ()


def test_a_folder_without_a_usable_image_is_refused(tmp_path: Path) -> None:
    def open_all() -> None:
        with open_benchmark_images([tmp_path], REFERENCE, count=4):
            pass

    with pytest.raises(DataError, match="contains no images"):
        open_all()
    write_png(tmp_path / "small.png", part(1)[:8])
    with pytest.raises(DataError, match=r"small\.png: and the others cannot be used"):
        open_all()
