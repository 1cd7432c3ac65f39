"""README.md stays one page."""

from __future__ import annotations

import re

from tests.conftest import REPOSITORY
from tinyunet_deploy.cli import VERBS

README = (REPOSITORY / "README.md").read_text()


def test_it_is_one_page() -> None:
    assert len(README.splitlines()) <= 150
    assert len(README.encode()) <= 9 * 1024


def test_it_names_every_verb() -> None:
    (table,) = re.findall(r"## Commands\n\n(.*?)\n\n", README, re.DOTALL)
    assert [verb for verb in VERBS if verb not in table] == []


def test_every_link_leads_somewhere() -> None:
    targets = re.findall(r"\]\(([^)#]+)", README)
    files = [target for target in targets if "://" not in target]
    assert len(files) > 10
    assert [target for target in files if not (REPOSITORY / target).exists()] == []
