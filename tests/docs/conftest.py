"""The folder in which the blocks of a page run: what a reader would have there."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tinyunet_deploy.data import synthetic
from tinyunet_deploy.data.encoding import write_png

MODELS = REPOSITORY / "tinyunet_deploy" / "models"


def write_parts(folder: Path, indices: Iterable[int]) -> None:
    """Write a part and its mask for each index into images/ and masks/; even ones are defective."""
    for index in indices:
        part = synthetic.sample(7, index, defective=index % 2 == 0)
        label = part.label if part.label is not None else part.image * 0
        write_png(folder / "images" / f"{index}.png", part.image)
        write_png(folder / "masks" / f"{index}.png", label)


@pytest.fixture(scope="session")
def readers_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reader's own images, data set, run and engine; not to be changed: copy it.

    The folder is a clone as far as a reader notices: the rooms of the repository are linked.
    ``photos/`` has images, ``sheets/`` a larger one, ``parts/`` images and masks in train and
    test; ``runs/parts`` and ``engines/parts.onnx`` are the model of the package under other names.
    """
    folder = tmp_path_factory.mktemp("reader")
    for name in ("photos", "sheets", "parts/train/images", "parts/train/masks"):
        (folder / name).mkdir(parents=True)
    for name in ("parts/test/images", "parts/test/masks", "runs/parts", "engines"):
        (folder / name).mkdir(parents=True)
    for name in ("tinyunet_deploy", "training", "export", "benchmarks"):
        (folder / name).symlink_to(REPOSITORY / name)
    for index in range(2):
        part = synthetic.sample(7, index, defective=index == 0)
        write_png(folder / "photos" / f"{index}.png", part.image)
    write_png(folder / "sheets" / "1.png", synthetic.sample(7, 9, defective=True, size=768).image)
    for split, first in (("train", 10), ("test", 20)):
        write_parts(folder / "parts" / split, range(first, first + 2))
    for source, target in (
        ("tinyunet.safetensors", "runs/parts/checkpoint.safetensors"),
        ("tinyunet.onnx", "engines/parts.onnx"),
    ):
        for suffix in ("", ".json", ".golden.png"):
            shutil.copy(MODELS / f"{source}{suffix}", folder / f"{target}{suffix}")
    return folder


@pytest.fixture
def copied_folder(readers_folder: Path, tmp_path: Path) -> Path:
    """A copy of the reader's folder, to run a page in."""
    folder = tmp_path / "reader"
    shutil.copytree(readers_folder, folder, symlinks=True)
    return folder


@pytest.fixture
def filled_folder(copied_folder: Path) -> Path:
    """The same with enough images to train on, and with the data that `make demo` writes."""
    synthetic.write_dataset(
        copied_folder / "demo" / "data", classes=(1,), train=20, test=4, defective=0.5, size=256
    )
    write_parts(copied_folder / "parts" / "train", range(100, 114))
    return copied_folder
