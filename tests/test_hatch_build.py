"""The build hook: URLs of the project, and README.md for an index page."""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

from tests.conftest import REPOSITORY

GITHUB = "https://github.com/owner/name"


@pytest.fixture(scope="module")
def hook() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hatch_build", REPOSITORY / "hatch_build.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("remote", "address"),
    [
        ("https://github.com/owner/name.git", GITHUB),
        ("git@github.com:owner/name.git", GITHUB),
        ("ssh://git@github.com/owner/name", GITHUB),
        ("https://token:secret@github.com/owner/name", GITHUB),
        ("https://gitlab.com/owner/name/", "https://gitlab.com/owner/name"),
        ("https://git.company.internal/owner/name", None),
        ("https://github.com.attacker.net/owner/name", None),
        ("/srv/git/name.git", None),
        ("", None),
    ],
)
def test_only_an_address_on_a_public_host_is_published(
    hook: ModuleType, tmp_path: Path, remote: str, address: str | None
) -> None:
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    if remote:
        subprocess.run(["git", "-C", tmp_path, "remote", "add", "origin", remote], check=True)
    assert hook.repository(tmp_path) == address
    (tmp_path / "unpacked").mkdir()
    assert hook.repository(tmp_path / "unpacked") is None, "another repository around it"


def test_the_picture_and_the_links_of_the_readme_lead_to_the_repository(hook: ModuleType) -> None:
    text = (REPOSITORY / "README.md").read_text()
    whole = hook.with_whole_addresses(text, GITHUB)
    assert f"]({GITHUB}/raw/main/docs/pictures/" in whole
    assert "](docs/" not in whole
    assert hook.with_whole_addresses("[a](https://a.org) [b](#b)", GITHUB) == (
        "[a](https://a.org) [b](#b)"
    )
    assert hook.with_whole_addresses("[a](SECURITY.md)", GITHUB) == (
        f"[a]({GITHUB}/blob/main/SECURITY.md)"
    )


def test_a_wheel_has_urls_and_whole_addresses(
    hook: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TINYUNET_REPOSITORY", f"{GITHUB}.git")
    metadata: dict[str, object] = {}
    hook.CustomMetadataHook(str(REPOSITORY), {}).update(metadata)
    assert metadata["urls"] == {
        "Repository": GITHUB,
        "Documentation": f"{GITHUB}/blob/main/docs/index.md",
        "Changelog": f"{GITHUB}/blob/main/CHANGELOG.md",
        "Issues": f"{GITHUB}/issues",
    }
    assert f"]({GITHUB}/raw/main/docs/pictures/" in str(metadata["readme"])
