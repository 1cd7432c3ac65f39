from __future__ import annotations

import pytest

from tinyunet_deploy.cli.folding import SHOWN, FoldedLines


def test_ten_lines_of_each_kind_are_shown_and_the_others_counted(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = FoldedLines("the report has each")
    for number in range(SHOWN + 5):
        lines.add("skipped", f"{number}.png", "empty")
    lines.add("skipped", "one", "corrupt")
    said = capsys.readouterr().err.splitlines()
    assert said == [*(f"skipped: {number}.png" for number in range(SHOWN)), "skipped: one"]
    lines.finish()
    assert capsys.readouterr().err == "skipped: 5 more (empty); the report has each\n"
