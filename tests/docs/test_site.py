"""The site builds without a warning and asks nothing of the network."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tinyunet_deploy.cli import VERBS


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=REPOSITORY,
        env={
            **os.environ,
            "http_proxy": "http://127.0.0.1:9",
            "https_proxy": "http://127.0.0.1:9",
            "NO_MKDOCS_2_WARNING": "1",  # the theme's own, on a MkDocs that is not installed
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    assert "WARNING" not in built.stderr
    return folder


def test_pages_load_nothing_from_elsewhere(site: Path) -> None:
    loaded = re.compile(
        r"<(?:script|img|iframe)[^>]+src=\"?(?:https?:)?//|<link[^>]+href=\"?(?:https?:)?//"
    )
    pages = list(site.rglob("*.html"))
    assert len(pages) > 20
    assert [page.name for page in pages if loaded.search(page.read_text())] == []
    assert "@import" not in "".join(path.read_text() for path in site.rglob("*.css"))


def test_the_reference_has_every_verb_and_option(site: Path) -> None:
    page = (site / "reference" / "cli.html").read_text()
    for verb in VERBS:
        assert f'id="tinyunet-{verb}"' in page
    for option in ("--max-escape-rate", "--iou-budget", "--compute-capability", "--save-every"):
        assert option in page
    assert (
        "openvino-fp16&#124;<wbr>torch-fp16&#124;<wbr>torch-bf16]" in page
    )  # all choices, in one cell


def test_the_reference_has_the_public_names(site: Path) -> None:
    page = (site / "reference" / "api.html").read_text()
    for name in ("load", "Model", "TinyUNetError", "Contract", "BackendRow", "BackendContract"):
        assert re.search(rf'id="tinyunet_deploy[\w.]*\.{name}"', page), name
