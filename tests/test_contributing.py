"""The example in CONTRIBUTING.md runs as it stands there."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import pytest

from tests.conftest import REPOSITORY
from tests.data.small_images import SPOT, grey, put
from tinyunet_deploy.errors import DataError

PAGE = (REPOSITORY / "CONTRIBUTING.md").read_text()


@pytest.fixture(scope="module")
def layout() -> ModuleType:
    code = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[0]
    module = ModuleType("sorted_parts")
    exec(code, module.__dict__)
    return module


def test_the_example_layout_reads_its_folders(layout: ModuleType, tmp_path: Path) -> None:
    put(tmp_path / "good" / "1.png", grey())
    assert not layout.is_sorted_parts(tmp_path)
    put(tmp_path / "defect" / "2.png", grey())
    assert layout.is_sorted_parts(tmp_path)
    with pytest.raises(DataError, match="defect_masks"):
        list(layout.read_sorted_parts(tmp_path))
    mask = put(tmp_path / "defect_masks" / "2.png", SPOT)
    items = list(layout.read_sorted_parts(tmp_path))
    assert [(i.image.name, i.defective, i.mask) for i in items] == [
        ("2.png", True, mask),
        ("1.png", False, None),
    ]
    put(tmp_path / "defect" / "3.png", grey())
    with pytest.raises(DataError, match="has no mask"):
        list(layout.read_sorted_parts(tmp_path))


def test_every_path_of_the_page_exists() -> None:
    paths = re.findall(r"`((?:tinyunet_deploy|benchmarks|training|export|tests)/[\w./-]*)`", PAGE)
    assert len(paths) > 10
    assert [path for path in paths if "NAME" not in path and not (REPOSITORY / path).exists()] == []
