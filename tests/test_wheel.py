"""What ``pip install`` brings: the library and its model, and nothing of the workbenches."""

from __future__ import annotations

import configparser
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator

import pytest

from tests.conftest import REPOSITORY
from tinyunet_deploy import __version__

PACKAGE = REPOSITORY / "tinyunet_deploy"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder],
        cwd=REPOSITORY,
        check=True,
        capture_output=True,
    )
    (path,) = folder.iterdir()
    assert path.name == f"tinyunet_deploy-{__version__}-py3-none-any.whl"
    with zipfile.ZipFile(path) as file:
        yield file


def test_it_holds_the_library_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    information = f"tinyunet_deploy-{__version__}.dist-info"
    assert {name.partition("/")[0] for name in wheel.namelist()} == {"tinyunet_deploy", information}
    packed = {name for name in wheel.namelist() if not name.startswith(information)}
    sources = {
        path.relative_to(REPOSITORY).as_posix()
        for path in PACKAGE.rglob("*")
        if path.is_file()
        and path.suffix not in {".pyc", ".safetensors"}
        and not path.name.startswith(".")
    }
    assert packed == sources
    assert "tinyunet_deploy/py.typed" in packed
    assert f"{information}/licenses/LICENSE" in wheel.namelist()


def test_the_models_come_with_their_sidecars_and_unchanged(wheel: zipfile.ZipFile) -> None:
    models = [path for path in (PACKAGE / "models").iterdir() if path.is_file()]
    for path in models:
        if path.suffix == ".safetensors":  # made from the ONNX file: tests/artifacts/test_packaged
            assert path.with_suffix(".onnx") in models
            continue
        assert wheel.read(path.relative_to(REPOSITORY).as_posix()) == path.read_bytes()
        if path.suffix in {".onnx", ".safetensors"}:
            assert path.with_name(path.name + ".json") in models


def test_it_is_small(wheel: zipfile.ZipFile) -> None:
    assert sum(entry.compress_size for entry in wheel.infolist()) < 14e6


def test_it_brings_two_commands(wheel: zipfile.ZipFile) -> None:
    entries = configparser.ConfigParser()
    name = f"tinyunet_deploy-{__version__}.dist-info/entry_points.txt"
    entries.read_string(wheel.read(name).decode())
    assert dict(entries["console_scripts"]) == {
        "tinyunet": "tinyunet_deploy.cli:main",
        "tinyunet-infer": "tinyunet_deploy.cli:infer_main",
    }


def test_it_needs_neither_torch_nor_a_runtime(wheel: zipfile.ZipFile) -> None:
    """They are extras: a station installs the one that it has a use for."""
    name = f"tinyunet_deploy-{__version__}.dist-info/METADATA"
    needed = re.findall(r"^Requires-Dist: ([\w-]+)(.*)$", wheel.read(name).decode(), re.MULTILINE)
    unless = "sys_platform != 'linux'"
    always = {package for package, rest in needed if "extra ==" not in rest and unless not in rest}
    assert always == {
        "click",
        "deflate",
        "filelock",
        "msgpack",
        "numpy",
        "opencv-python-headless",
        "pillow",
        "rich",
    }
