from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from tests.data.small_images import SPOT, grey, put
from tinyunet_deploy.data.layouts import read_dataset
from tinyunet_deploy.errors import DataError
from tinyunet_deploy.quality.acceptance.inputs import hash_dataset, hash_file


def test_images_masks_and_the_files_that_may_have_labels_are_hashed(tmp_path: Path) -> None:
    for name, mask in (("a", SPOT), ("b", grey(0))):
        put(tmp_path / "images" / f"{name}.png", grey(100))
        put(tmp_path / "masks" / f"{name}.png", mask)
    (tmp_path / "types.CSV").write_text("a,scratch\n")
    (tmp_path / "images" / "labels.json").write_text("{}")
    (tmp_path / "notes.pdf").write_bytes(b"not a label")
    hashed = hash_dataset(read_dataset(tmp_path), 1)
    names = [
        *("images/a.png", "images/b.png", "images/labels.json"),
        *("masks/a.png", "masks/b.png", "types.CSV"),
    ]
    expected = [
        f"{hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()}  {name}" for name in names
    ]
    assert hashed.listing.splitlines() == expected
    as_input = hashed.as_input("images and masks", "parts")
    assert as_input.sha256 == hashlib.sha256(hashed.listing.encode()).hexdigest()
    assert (as_input.files, as_input.name) == (6, "parts")


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone.onnx: cannot be read"):
        hash_file("model", tmp_path / "gone.onnx")
