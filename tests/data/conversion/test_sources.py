from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.small_images import grey, put
from tinyunet_deploy.data.conversion.sources import (
    clean_name,
    files_below,
    relative,
    split_of,
    without_split,
)
from tinyunet_deploy.errors import DataError


@pytest.mark.parametrize(
    ("words", "split"),
    [
        (["Train2017"], "train"),
        (["instances", "val2017"], "val"),
        (["valid", "test"], "val"),
        (["testing"], "test"),
        (["station test", "2017", "trained", ""], None),
    ],
)
def test_names_of_splits(words, split):
    assert split_of(words) == split


def test_folders_of_splits_are_left_out_of_names():
    assert without_split(Path("Train/day/test.png")) == "day/test.png"
    assert relative("../../images/a.png") == "images/a.png"


def test_names_are_cleaned():
    assert clean_name("day\\..\\.\\a.PNG", Path("x")) == "a.PNG"
    assert clean_name("../a.png", Path("x")) == "../a.png"
    with pytest.raises(DataError, match="hidden"):
        clean_name("a/.b/c.png", Path("x"))


def test_hidden_files_and_linked_folders_are_passed_over(tmp_path):
    put(tmp_path / "b/.c/x.png", grey(1))
    put(tmp_path / "b/x.png", grey(1))
    (tmp_path / "link").symlink_to(tmp_path / "b")
    put(tmp_path / "a.PNG.png", grey(1))
    names = [path.relative_to(tmp_path).as_posix() for path in files_below(tmp_path, {".png"})]
    assert names == ["a.PNG.png", "b/x.png"]
