"""The pages keep the rules of plain prose that a program can check."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from tests.conftest import REPOSITORY
from tests.docs.pages import PAGES

MOST_WORDS = 60
"""Words of a paragraph or of an item in a list."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_paragraphs_are_short(page: Path) -> None:
    tokens = MarkdownIt().enable("table").parse(page.read_text())
    paragraphs = [
        token.content
        for before, token in itertools.pairwise(tokens)
        if before.type == "paragraph_open"
    ]
    assert [text for text in paragraphs if len(text.split()) > MOST_WORDS] == []


def test_every_page_is_in_the_contents_of_the_site() -> None:
    contents = (REPOSITORY / "mkdocs.yml").read_text()
    pages = [page.relative_to(REPOSITORY / "docs").as_posix() for page in PAGES[1:]]
    assert [page for page in pages if f": {page}\n" not in contents] == []


def test_every_module_of_the_architecture_exists() -> None:
    page = (REPOSITORY / "docs" / "architecture.md").read_text()
    named = re.findall(r"`([a-z_]+/[\w/]*(?:\.py)?)`", page)
    roots = (REPOSITORY, REPOSITORY / "tinyunet_deploy")
    assert len(named) > 25
    assert [name for name in named if not any((root / name).exists() for root in roots)] == []
