"""Which images of a data set each purpose takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.small_images import SPOT, grey, put
from tinyunet_deploy.data.dataset import Dataset
from tinyunet_deploy.data.layouts import read_dataset
from tinyunet_deploy.errors import DataError
from tinyunet_deploy.quality.dataset_scoring import (
    compared_images,
    held_out,
    read_evaluated,
    tuning_images,
)


def with_splits(root: Path, *splits: str) -> Path:
    for split in splits:
        put(root / split / "images" / "a.png", grey(1))
        put(root / split / "masks" / "a.png", SPOT)
    return root


def splits_of(dataset: Dataset) -> set[str | None]:
    return {item.split for item in dataset.items}


@pytest.mark.parametrize(
    ("splits", "tuned", "compared"),
    [
        (("train", "val", "test"), "val", "test"),
        (("train", "test"), "train", "test"),
        (("train", "val"), "val", "val"),
        (("train",), "train", "train"),
        (("test",), "test", "test"),
        (("",), None, None),
    ],
)
def test_tuning_takes_val_and_comparisons_take_test(
    tmp_path: Path, splits: tuple[str, ...], tuned: str | None, compared: str | None
) -> None:
    dataset = read_dataset(with_splits(tmp_path, *splits))
    assert splits_of(tuning_images(dataset)) == {tuned}
    assert splits_of(compared_images(dataset)) == {compared}


def test_an_evaluation_takes_test_or_says_what_else_there_is(tmp_path: Path) -> None:
    with_splits(tmp_path, "train", "val")
    with pytest.raises(DataError, match=r"has no test images .*--split val or train"):
        read_evaluated(tmp_path)
    assert splits_of(read_evaluated(tmp_path, split="val")) == {"val"}
    assert splits_of(read_evaluated(tmp_path, split="all")) == {"train", "val"}
    with_splits(tmp_path, "test")
    assert splits_of(read_evaluated(tmp_path)) == {"test"}
    assert splits_of(held_out(read_dataset(tmp_path))) == {"test"}
