"""``tinyunet data init``."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.small_images import SPOT, grey, put
from tinyunet_deploy.cli import run, tinyunet


def test_it_writes_prints_or_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path / "images" / "a.png", grey(1))
    put(tmp_path / "masks" / "a.png", SPOT)
    command = ["data", "init", str(tmp_path)]
    file = tmp_path / "dataset.toml"
    assert run(tinyunet, [*command, "--dry-run"]) == 0
    printed = capsys.readouterr()
    assert not file.exists() and printed.err == ""
    assert 'layout = "folders"' in printed.out
    assert run(tinyunet, command) == 0
    written = capsys.readouterr()
    assert file.read_text() == written.out == printed.out
    assert written.err == f"wrote {file}; next: tinyunet data check {tmp_path}\n"
    file.write_text("# mine\n")
    assert run(tinyunet, command) == 4
    refused = capsys.readouterr()
    assert refused.err.startswith(f"error: {file}: exists already (--force replaces it")
    assert file.read_text() == "# mine\n"
    assert run(tinyunet, [*command, "--force"]) == 0
    assert file.read_text() == printed.out
