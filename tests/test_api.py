"""``import tinyunet_deploy as td``, with the model in the package and with the tiny one."""

from __future__ import annotations

import doctest
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tinyunet_deploy as td
from tests.conftest import SIZE, part
from tinyunet_deploy.contract import Contract
from tinyunet_deploy.data import synthetic
from tinyunet_deploy.data.encoding import write_png
from tinyunet_deploy.testing.fake_backend import FakeBackend


def test_the_example_of_the_package_runs_as_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for index in range(2):
        image = synthetic.sample(4, index, defective=index == 0).image
        write_png(Path("photos") / f"{index}.png", image)
    assert doctest.testmod(td, extraglobs={"Path": Path}) == (0, 5)


def test_the_public_names_are_sorted_and_there() -> None:
    assert td.__all__ == sorted(td.__all__)
    assert set(td.__all__) <= set(dir(td))
    assert all(getattr(td, name) is not None for name in td.__all__)
    with pytest.raises(AttributeError, match="'tinyunet_deploy' has no attribute 'laod'"):
        td.laod  # noqa: B018


def test_importing_the_package_imports_next_to_nothing() -> None:
    program = "import sys, tinyunet_deploy; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    assert not loaded & {"numpy", "cv2", "click", "torch", "onnxruntime", "openvino"}


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
        np.zeros((1, SIZE, SIZE + 16), np.uint8),
        np.zeros((1, 3, SIZE, SIZE), np.uint8),
        np.zeros((1, SIZE, SIZE, 3), np.uint8),
    ],
    ids=lambda images: f"{images.dtype}{images.shape}",
)
def test_other_arrays_are_refused_with_the_shape_that_is_wanted(
    images: np.ndarray[tuple[int, ...], np.dtype[np.uint8]],
) -> None:
    model = td.Model(FakeBackend(contract=Contract(SIZE, SIZE)))
    with pytest.raises(ValueError, match=r"given, uint8 \[N,.* 64, 64\] wanted"):
        model(images)


def test_a_file_that_is_not_there_is_told_as_ours(tmp_path: Path) -> None:
    with pytest.raises(td.TinyUNetError, match="is not there"):
        td.load(tmp_path / "no.onnx")
    with pytest.raises(ValueError, match="batch_size 0"):
        td.load(batch_size=0)
