"""Every block of README.md and docs/ runs, or says why it does not."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, REASONS, RUN, SHOWN, blocks, run_block

PAGES_WITH_CODE = [page for page in PAGES if any(block.runs for block in blocks(page))]
DAILY = [page for page in PAGES_WITH_CODE if any(b.runs and not b.nightly for b in blocks(page))]
NIGHTLY = [page for page in PAGES_WITH_CODE if any(b.runs and b.nightly for b in blocks(page))]


def _names(pages: list[Path]) -> list[str]:
    return [page.stem for page in pages]


@pytest.mark.parametrize("page", DAILY, ids=_names(DAILY))
def test_the_blocks_of_a_page_run_in_order(page: Path, copied_folder: Path) -> None:
    for block in blocks(page):
        if block.runs and not block.nightly:
            run_block(block, copied_folder)


@pytest.mark.nightly
@pytest.mark.parametrize("page", NIGHTLY, ids=_names(NIGHTLY))
def test_the_long_blocks_run_too(page: Path, filled_folder: Path) -> None:
    if page.name == "tutorial.md":  # trains and exports what its other blocks use
        shutil.rmtree(filled_folder / "runs")
        shutil.rmtree(filled_folder / "engines")
    for block in blocks(page):
        if block.runs:
            run_block(block, filled_folder)


def test_every_block_is_run_or_says_why_it_is_not() -> None:
    every = [block for page in PAGES for block in blocks(page)]
    unclear = [
        block.place
        for block in every
        if block.language not in RUN + SHOWN or (block.mark and not REASONS.match(block.mark))
    ]
    assert unclear == []
    run = [block for block in every if block.runs]
    marked = [block for block in every if block.language in RUN and block.mark]
    plain = [block for block in every if block.language in RUN and not block.mark]
    assert len(marked) + len(plain) + sum(b.language in SHOWN for b in every) == len(every)
    assert len(run) > 30
    assert len([block for block in run if not block.nightly]) > 20


def test_no_command_hides_in_a_block_that_only_shows() -> None:
    commands = ("tinyunet", "python", "make ", "pip ", "torchrun")
    hidden = [
        block.place
        for page in PAGES
        for block in blocks(page)
        if block.language in SHOWN
        and any(
            line.startswith(commands) and not line.startswith("tinyunet_deploy/")
            for line in block.code.splitlines()
        )
    ]
    assert hidden == []
