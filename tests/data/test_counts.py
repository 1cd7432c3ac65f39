from __future__ import annotations

from pathlib import Path

import pytest

from tinyunet_deploy.data.counts import SplitCount, count_splits
from tinyunet_deploy.data.dataset import Dataset, Item, Layout, Split


def items(count: int, defective: int, class_id: int | None, split: Split | None) -> list[Item]:
    return [
        Item(Path(f"{number}.png"), number < defective, None, None, class_id, split)
        for number in range(count)
    ]


def dataset(layout: Layout, *parts: list[Item]) -> Dataset:
    return Dataset(Path(), layout, tuple(item for part in parts for item in part))


def test_classes_and_splits_are_counted_apart() -> None:
    counts = count_splits(
        dataset("released", items(4, 1, 1, "train"), items(3, 2, 1, "test"), items(2, 0, 2, "test"))
    )
    assert [count[:4] for count in counts] == [
        (1, "train", 4, 1),
        (1, "test", 3, 2),
        (2, "test", 2, 0),
    ]
    assert counts[0].published == (575, 79)
    assert {count.against_published for count in counts} == {"subset"}


@pytest.mark.parametrize(
    ("images", "defective", "text"),
    [
        (575, 79, "complete"),
        (574, 79, "subset"),
        (575, 78, "subset"),
        (576, 79, "not the release"),
        (575, 80, "not the release"),
    ],
)
def test_more_than_was_published_is_not_the_release(images: int, defective: int, text: str) -> None:
    assert SplitCount(1, "train", images, defective, (575, 79)).against_published == text


def test_other_layouts_have_no_published_numbers() -> None:
    (count,) = count_splits(dataset("folders", items(2, 1, None, None)))
    assert count == SplitCount(None, None, 2, 1, None)
    assert count.against_published == ""
