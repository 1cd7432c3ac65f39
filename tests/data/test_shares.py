"""Parts that are drawn by the names of the images."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.data.small_images import SPOT, grey, put
from tests.data.test_described import describe
from tests.data.test_mvtec import product
from tinyunet_deploy.data.layouts import read_dataset, read_training_parts
from tinyunet_deploy.errors import DataError


def counts(root: Path) -> Counter[tuple[str | None, bool]]:
    return Counter((item.split, item.defective) for item in read_dataset(root).items)


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    """20 defective and 10 good parts without splits."""
    root = tmp_path / "flat"
    for number in range(30):
        put(root / "images" / f"{number}.png", grey(number))
        put(root / "masks" / f"{number}.png", grey(0) if number % 3 else SPOT)
    return root


def test_a_set_without_splits_is_divided(flat: Path) -> None:
    assert counts(flat) == {(None, True): 10, (None, False): 20}
    describe(flat, "[splits]\ntest_share = 0.2\nval_share = 0.25\n")
    assert counts(flat) == {
        ("train", True): 6,
        ("train", False): 12,
        ("val", True): 2,
        ("val", False): 4,
        ("test", True): 2,
        ("test", False): 4,
    }
    parts = read_training_parts(flat).items
    assert {item.split for item in parts} == {"train", "val"}
    assert len(read_dataset(flat, split="test").items) == 6
    order = [item.split for item in read_dataset(flat).items]
    assert order == sorted(order, key=["train", "val", "test"].index)


def test_names_alone_decide(flat: Path, tmp_path: Path) -> None:
    describe(flat, "[splits]\ntest_share = 0.3\n")

    def drawn(root: Path) -> set[str]:
        return {item.image.name for item in read_dataset(root, split="test").items}

    before = drawn(flat)
    flat.rename(tmp_path / "elsewhere")
    for image in (tmp_path / "elsewhere" / "images").iterdir():
        put(image, grey(7))
    assert drawn(tmp_path / "elsewhere") == before
    good = sorted(f"{number}.png" for number in range(30) if number % 3)
    assert not before > set(good[:6]), "not those that come first"


def test_defects_of_the_test_part_are_trained_on(tmp_path: Path) -> None:
    product(tmp_path)
    for number in range(1, 4):
        put(tmp_path / "test" / "good" / f"{number:03}.png", grey(20 + number))
    describe(tmp_path, "[splits]\ndefects_to_train = 0.5\n")
    assert counts(tmp_path) == {
        ("train", True): 1,
        ("train", False): 2,
        ("test", True): 1,
        ("test", False): 4,
    }
    assert [item.defective for item in read_training_parts(tmp_path).items].count(True) == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("test_share = 0.2", "gives splits.test_share, but there is a test part"),
        ("val_share = 0.2", "gives splits.val_share, but there is a val part"),
        ("defects_to_train = 0.5", "gives splits.defects_to_train, but there is no test part"),
    ],
)
def test_shares_that_do_not_fit_are_refused(tmp_path: Path, line: str, message: str) -> None:
    product(tmp_path)
    if "val" in line:
        put(tmp_path / "val" / "good" / "a.png", grey(1))
    if "no test" in message:
        (tmp_path / "test").rename(tmp_path / "other")
    describe(tmp_path, f"[splits]\n{line}\n")
    with pytest.raises(DataError, match=message):
        read_dataset(tmp_path)
