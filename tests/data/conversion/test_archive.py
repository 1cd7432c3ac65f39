from __future__ import annotations

import stat
import zipfile
from pathlib import Path

import pytest

from tinyunet_deploy.data.conversion import archive
from tinyunet_deploy.data.conversion.archive import unpack
from tinyunet_deploy.errors import DataError


def packed(path: Path, *members: tuple[str | zipfile.ZipInfo, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members:
            file.writestr(name, data)
    return path


def refused(source: Path, folder: Path, what: str) -> None:
    with pytest.raises(DataError, match=what):
        unpack(source, folder)
    assert not folder.exists() or not list(folder.rglob("*.*"))


def test_files_are_unpacked_with_their_folders(tmp_path):
    source = packed(tmp_path / "a.zip", ("x/", b""), ("x/y/a.txt", b"one"), ("b.txt", b"two"))
    unpack(source, tmp_path / "out")
    assert (tmp_path / "out/x/y/a.txt").read_bytes() == b"one"
    assert (tmp_path / "out/b.txt").read_bytes() == b"two"


@pytest.mark.parametrize(
    "name", ["../a.txt", "x/../../a.txt", "/a.txt", "\\a.txt", "x\\..\\..\\a", "C:a"]
)
def test_a_path_that_leaves_the_folder_is_refused(tmp_path, name):
    refused(packed(tmp_path / "a.zip", (name, b"")), tmp_path / "out", "leaves the folder")


def test_a_link_is_refused(tmp_path):
    link = zipfile.ZipInfo("a.txt")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    refused(packed(tmp_path / "a.zip", (link, b"/etc/passwd")), tmp_path / "out", "the link")


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    source = packed(tmp_path / "a.zip", ("a.txt", bytes(1 << 20)))
    unpack(source, tmp_path / "small")
    monkeypatch.setattr(archive, "_FREE_BYTES", 1 << 19)
    refused(source, tmp_path / "out", "unpacks to 1 files of 1 MiB")
    monkeypatch.setattr(archive, "_MAX_RATIO", 2000)
    unpack(source, tmp_path / "large")


def test_a_size_that_lies_unpacks_no_more_than_it_says(tmp_path):
    source = packed(tmp_path / "a.zip", ("a.txt", bytes(1 << 20)))
    data = source.read_bytes()
    source.write_bytes(data.replace((1 << 20).to_bytes(4, "little"), (8).to_bytes(4, "little")))
    with pytest.raises(DataError, match="not a usable zip"):
        unpack(source, tmp_path / "out")
    assert (tmp_path / "out/a.txt").stat().st_size <= 8


def test_too_many_files_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "_MAX_FILES", 1)
    source = packed(tmp_path / "a.zip", ("a.txt", b""), ("b.txt", b""))
    refused(source, tmp_path / "out", "unpacks to 2 files")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_files_of_a_name_are_refused(tmp_path):
    source = packed(tmp_path / "a.zip", ("a.txt", b"1"), ("a.txt", b"2"))
    refused(source, tmp_path / "out", "twice")


def test_a_file_below_a_file_is_refused(tmp_path):
    source = packed(tmp_path / "a.zip", ("a", b"1"), ("a/b.txt", b"2"))
    refused(source, tmp_path / "out", "not a usable zip")


def test_a_damaged_archive_is_refused(tmp_path):
    source = packed(tmp_path / "a.zip", ("a.txt", bytes(range(256)) * 40))
    data = bytearray(source.read_bytes())
    data[60] ^= 255
    source.write_bytes(data)
    with pytest.raises(DataError, match="not a usable zip"):
        unpack(source, tmp_path / "out")
    source.write_bytes(b"PK\3\4")
    with pytest.raises(DataError, match="not a usable zip"):
        unpack(source, tmp_path / "out")
