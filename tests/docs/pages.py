"""The pages of the documentation, their blocks of code, and how a block is run.

A comment in the line above a block says that it is not run as it stands, and why::

    <!-- not run: needs a GPU -->     never run by the tests
    <!-- nightly: takes minutes -->   run by `make nightly`, with the other blocks of its page
    <!-- exits 6 -->                  ends with this code; `<!-- exits 0 or 6 -->` with one of them

Every other block of a page runs, in order, in one folder.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final, NamedTuple

from markdown_it import MarkdownIt

from tests.conftest import REPOSITORY

PAGES: Final = (REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md")))
RUN: Final = ("sh", "python")
"""Languages of the blocks that are run."""
SHOWN: Final = ("text",)
"""Languages of the blocks that only show something."""
REASONS: Final = re.compile(
    r"(not run: (needs (a GPU|a server|a cluster|a container|the network|TensorRT-RTX|DAGM2007)"
    r"|takes [\w ]+|runs until it is stopped).*"
    r"|nightly: .+|exits \d+( or \d+)?)$"
)
"""What a comment above a block may say."""


class Block(NamedTuple):
    """One fenced block of a page."""

    page: Path
    line: int
    """Line of its first fence, from 1."""
    language: str
    code: str
    mark: str
    """Text of the comment above it; empty without one."""

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(REPOSITORY)}:{self.line}"

    @property
    def nightly(self) -> bool:
        return self.mark.startswith("nightly")

    @property
    def runs(self) -> bool:
        """Whether it is ever run."""
        return self.language in RUN and not self.mark.startswith("not run")

    @property
    def codes(self) -> set[int]:
        """Exit codes that are right."""
        return set(map(int, re.findall(r"\d+", self.mark))) if "exits" in self.mark else {0}


def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page, in order."""
    found, mark, mark_end = [], "", -1
    for token in MarkdownIt().parse(page.read_text()):
        assert token.map is None or token.type != "code_block", f"{page}:{token.map} has no fence"
        if token.type == "html_block" and token.map is not None:
            comment = re.fullmatch(r"<!-- (.*?) -->\s*", token.content, re.DOTALL)
            mark, mark_end = (comment[1], token.map[1]) if comment else ("", -1)
        elif token.type == "fence" and token.map is not None:
            above = mark if mark_end == token.map[0] else ""
            found.append(Block(page, token.map[0] + 1, token.info, token.content, above))
    return found


def run_block(block: Block, folder: Path) -> None:
    """Run a block in a folder, with the commands of this environment and this clone.

    Raises:
        AssertionError: it ends with another exit code than it should; with its output.
    """
    binaries = Path(sys.executable).parent
    environment = {
        **os.environ,
        "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(REPOSITORY),
    }
    command = (
        ["bash", "-euo", "pipefail", "-c", block.code]
        if block.language == "sh"
        else [sys.executable, "-c", block.code]
    )
    ended = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode in block.codes, (
        f"{block.place} ends with {ended.returncode}\n{block.code}\n{ended.stdout}\n{ended.stderr}"
    )
