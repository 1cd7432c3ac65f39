"""``td.load`` and the model: images in memory in, scores and pictures out."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinyunet_deploy as td
from tests.conftest import SIZE, part
from tinyunet_deploy.artifacts.facts import NetworkFacts
from tinyunet_deploy.backends.onnxruntime import ONNXRuntimeBackend
from tinyunet_deploy.contract import Batch, Contract
from tinyunet_deploy.data.encoding import encode_jpeg
from tinyunet_deploy.inspection.infer import infer
from tinyunet_deploy.inspection.output_names import overlay_name
from tinyunet_deploy.inspection.outputs import Outputs
from tinyunet_deploy.inspection.walk import walk_images
from tinyunet_deploy.testing.fake_backend import FakeBackend


def test_scores_have_the_shape_of_the_images_and_batches_change_nothing(tiny_onnx: Path) -> None:
    images = np.stack([part(seed) for seed in range(5)])
    with td.load(str(tiny_onnx), backend="onnxruntime", batch_size=2) as model:
        assert model.size == (SIZE, SIZE)
        assert (model.threshold, model.min_area) == (0.45, 3)
        scores = model(images)
        assert (scores.dtype, scores.shape) == (np.uint8, images.shape)
        alone = np.concatenate([model(images[index : index + 1]) for index in range(5)])
        assert np.array_equal(scores, alone)
        assert np.array_equal(scores, model(list(images)))
        assert np.array_equal(scores[:, None], model(images[:, None]))
        assert model(images[:0]).shape == (0, SIZE, SIZE)


def test_masks_and_defects_follow_the_threshold_and_the_smallest_area() -> None:
    backend = FakeBackend(contract=Contract(SIZE, SIZE), threshold=0.5, min_area=4)
    model = td.Model(backend, batch_size=4)
    images = np.stack([part(seed) for seed in range(6)])
    scores = model(images)
    assert backend.batches == [4, 2]
    assert np.array_equal(model.masks(scores) == 255, images > 128)
    assert [len(found) > 0 for found in model.defects(scores)] == [False, True, True] * 2
    assert model.defects(scores[:, None]) == model.defects(scores)
    model.threshold = 1.0
    assert not model.masks(scores).any()
    model.threshold, model.min_area = 0.5, SIZE * SIZE
    assert model.defects(scores) == [[]] * 6


def test_a_model_that_takes_small_batches_gets_them() -> None:
    backend = FakeBackend(contract=Contract(SIZE, SIZE, max_batch=3))
    td.Model(backend, batch_size=8)(np.zeros((7, SIZE, SIZE), np.uint8))
    assert backend.batches == [3, 3, 1]


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((SIZE, SIZE), np.uint8),
        np.zeros((1, SIZE, SIZE), np.float32),
        np.zeros((2, SIZE, 15), np.uint8),
        np.zeros((SIZE, SIZE, 3), np.uint8),
        np.zeros((1, 3, SIZE, SIZE), np.uint8),
        np.zeros((1, SIZE, SIZE, 3), np.uint8),
    ],
    ids=lambda images: f"{images.dtype}{images.shape}",
)
def test_other_arrays_are_refused_with_the_expected_shape(
    images: np.ndarray[tuple[int, ...], np.dtype[np.uint8]],
) -> None:
    model = td.Model(FakeBackend(contract=Contract(SIZE, SIZE)))
    with pytest.raises(ValueError, match=r"expected uint8 \[N, H, W\] or images of \[H, W\], got"):
        model(images)
    with pytest.raises(ValueError, match=r"expected uint8 \[N, 64, 64\], got"):
        model(images, tile=False)


def test_images_of_different_shapes_are_refused_with_all_shapes() -> None:
    model = td.Model(FakeBackend(contract=Contract(SIZE, SIZE)))
    images = [np.zeros((SIZE, SIZE), np.uint8), np.zeros((SIZE, 80), np.uint8)]
    with pytest.raises(
        ValueError, match=r"^expected uint8 \[N, 64, 64\], got images of \[64, 64\] and \[64, 80\]"
    ):
        model(images, tile=False)
    for wrong in (np.zeros((SIZE, SIZE, 3), np.uint8), np.zeros((SIZE, 70)), images[0][:9]):
        with pytest.raises(ValueError, match=r"^expected uint8 .*, got "):
            model([*images, wrong])  # type: ignore[list-item]
    with pytest.raises(ValueError, match=r"got uint8 \[1, 64, 80\]"):
        model(images[1:], tile=False)


NEAR = NetworkFacts("near", 16, 4, 4)


def test_images_of_any_size_are_scored_as_infer_does(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sizes = [(SIZE, SIZE), (100, 150), (SIZE, SIZE), (30, SIZE), (16, 200)]
    images = [part(seed, height=h, width=w) for seed, (h, w) in enumerate(sizes[:4])]
    images.append(np.full(sizes[4], 7, np.uint8))
    backend = FakeBackend(contract=Contract(SIZE, SIZE), network=NEAR)
    with td.Model(backend, batch_size=4) as model:
        scores = model(images)
        assert isinstance(scores, list)
        assert all(map(np.array_equal, scores, images)), "the fake gives the image back"
        assert set(backend.batches[:-1]) == {4}, "batches span images"
        masks = model.masks(scores)
        assert [mask.shape for mask in masks] == sizes
        assert [bool(mask.any()) for mask in masks] == [False, True, True, False, False]
        assert [len(found) > 0 for found in model.defects(scores)] == [
            bool(mask.any()) for mask in masks
        ]
        pair = np.stack([images[1], images[1]])
        for shape in (pair.shape, (2, 1, 100, 150)):
            assert np.array_equal(model(pair.reshape(shape)), pair.reshape(shape))
        alike = model([images[1], images[1]])
        assert isinstance(alike, np.ndarray) and np.array_equal(alike, pair)
        assert model(pair[:0]).shape == (0, 100, 150)
        assert model.overlay(images[1]).shape[2] == 3
        assert not caplog.records
    (record,) = caplog.records
    assert "3 padded by mirroring" not in record.getMessage()
    assert "1 padded by mirroring, 9 inspected in tiles" in record.getMessage()


@pytest.mark.parametrize("images", [[], (), np.zeros((0, SIZE, SIZE), np.uint8)])
def test_no_images_give_an_empty_result(images: Sequence[np.ndarray]) -> None:  # type: ignore[type-arg]
    backend = FakeBackend(contract=Contract(SIZE, SIZE))
    model = td.Model(backend)
    scores = model(images)
    assert (scores.shape, scores.dtype) == ((0, SIZE, SIZE), np.uint8)
    assert (model.masks(scores).shape, model.defects(scores)) == ((0, SIZE, SIZE), [])
    assert backend.batches == []


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.bool_, np.uint16, np.int64])
def test_scores_of_another_dtype_are_refused_not_called_good(dtype: type[np.generic]) -> None:
    """A fraction and a bool are below every threshold, so that no pixel would be a defect."""
    image = np.full((SIZE, SIZE), 200, np.uint8)
    model = td.Model(FakeBackend(contract=Contract(SIZE, SIZE)))
    (score,) = model(image[None])
    wrong: Any = (score / 255).astype(dtype)
    got = f"expected scores of uint8, probability x 255, got {wrong.dtype}"
    for scores in (wrong[None], wrong[None, None], [wrong]):
        for method in (model.masks, model.defects):
            with pytest.raises(ValueError, match=got):
                method(scores)
    with pytest.raises(ValueError, match=got):
        model.overlay(image, wrong)
    for scores in (score[None], score[None, None], [score]):
        (mask,), (defects,) = model.masks(scores), model.defects(scores)
        assert mask.all() and [defect.area_px for defect in defects] == [SIZE * SIZE]
    assert model.masks(score).shape == (SIZE, SIZE)


def test_scores_of_another_shape_are_refused() -> None:
    image = np.full((SIZE, SIZE), 200, np.uint8)
    model = td.Model(FakeBackend(contract=Contract(SIZE, SIZE)))
    for scores in (image, [image[None]], np.stack([image, image])[None]):
        with pytest.raises(ValueError, match=r"expected uint8 \[N, H, W\] or scores of \[H, W\]"):
            model.defects(scores)
    with pytest.raises(ValueError, match="the image's, got uint8"):
        model.overlay(image, image[:, 1:])
    colour: Any = np.stack([image] * 3, axis=-1)
    for wrong in (colour, image / 255.0, image > 9):
        with pytest.raises(ValueError, match=r"expected an image of uint8 \[H, W\], got "):
            model.overlay(wrong, image)


def test_its_text_says_model_precision_backend_device_and_decision(tiny_onnx: Path) -> None:
    with td.load(tiny_onnx, backend=ONNXRuntimeBackend, device="cpu") as model:
        model.threshold = 0.75
        assert repr(model) == (
            "<Model tiny.onnx: fp32, onnxruntime on cpu, threshold 0.75, min_area 3 px>"
        )


def test_its_overlay_is_the_picture_that_infer_writes(station: Path, tmp_path: Path) -> None:
    with FakeBackend(contract=Contract(SIZE, SIZE), min_area=4) as backend:
        infer(
            [station],
            tmp_path / "out",
            backend,
            batch_size=4,
            workers=1,
            outputs=Outputs(overlays=True),
        )
    backend = FakeBackend(contract=Contract(SIZE, SIZE), min_area=4)
    model = td.Model(backend)
    names = [path.relative_to(station).as_posix() for path in walk_images([station])]
    assert len(names) == 7
    outlined = 0
    for name in names:
        image = td.read_image(str(station / name))
        picture = model.overlay(image)
        written = tmp_path / "out" / "overlays" / overlay_name(name)
        assert encode_jpeg(picture) == written.read_bytes()
        outlined += bool((picture[:SIZE, :SIZE] != image[..., None]).any())
    assert outlined == 4, "the parts with a defect"
    calls = len(backend.batches)
    assert np.array_equal(model.overlay(image, image), picture)
    assert len(backend.batches) == calls, "a score that is given is not computed again"


def test_calls_from_several_threads_wait_for_each_other() -> None:
    inside: list[int] = []
    most: list[int] = []

    def score(images: Batch) -> Batch:
        inside.append(1)
        most.append(len(inside))
        resume.wait(0.02)
        inside.pop()
        return images.copy()

    resume = threading.Event()
    model = td.Model(FakeBackend(score, contract=Contract(SIZE, SIZE)))
    images = np.zeros((1, SIZE, SIZE), np.uint8)
    threads = [threading.Thread(target=model, args=(images,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 4


def test_a_file_that_is_not_there_is_told_as_ours(tmp_path: Path) -> None:
    with pytest.raises(td.TinyUNetError, match="does not exist"):
        td.load(tmp_path / "no.onnx")
    with pytest.raises(ValueError, match="batch_size 0"):
        td.load(batch_size=0)
