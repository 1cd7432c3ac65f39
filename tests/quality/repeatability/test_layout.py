from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import part
from tinyunet_deploy.data.encoding import write_png
from tinyunet_deploy.errors import DataError
from tinyunet_deploy.quality.repeatability.layout import conditions_of, find_repeats


def put(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_png(path, part(1))
    return root


@pytest.mark.parametrize(
    ("name", "conditions"),
    [
        ("1", {}),
        ("operator=anna,lamp=new,1", {"operator": "anna", "lamp": "new"}),
        (" day = 2 , morning", {"day": "2"}),
        ("angle=a=b", {"angle": "a=b"}),
    ],
)
def test_conditions_stand_in_the_name(name: str, conditions: dict[str, str]) -> None:
    assert conditions_of(name) == conditions


@pytest.mark.parametrize("name", ["lamp=", "=new", "lamp=a,lamp=b"])
def test_unreadable_conditions_are_refused(tmp_path: Path, name: str) -> None:
    put(tmp_path, f"{name}/a.png", "2/a.png")
    with pytest.raises(DataError, match="unreadable conditions"):
        find_repeats(tmp_path)


def test_equal_names_are_one_part(tmp_path: Path) -> None:
    put(tmp_path, "lamp=new,1/a.png", "lamp=new,1/sub/b.png", "lamp=old,1/a.png", ".hidden/a.png")
    first, second = find_repeats(tmp_path)
    assert (first.name, first.conditions) == ("lamp=new,1", {"lamp": "new"})
    assert list(first.photographs) == ["a.png", "sub/b.png"]
    assert list(second.photographs) == ["a.png"]


@pytest.mark.parametrize(
    ("names", "what"),
    [
        (["a.png", "b.png"], "has 0 subfolders with images"),
        (["1/a.png"], "has 1 subfolders with images"),
        (["1/a.png", "2/b.png"], "no part that was photographed twice"),
    ],
)
def test_a_folder_without_repeats_is_refused(tmp_path: Path, names: list[str], what: str) -> None:
    with pytest.raises(DataError, match=what):
        find_repeats(put(tmp_path, *names))
