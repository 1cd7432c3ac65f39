from __future__ import annotations

import importlib.util
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from tinyunet_deploy.cli import run, tinyunet
from tinyunet_deploy.inspection.drawing import draw_svg


def test_a_figure_is_an_svg_file_and_the_same_bytes_each_time() -> None:
    first, again = (draw_svg(2, 1, lambda figure: figure.subplots().plot([1, 2])) for _ in "ab")
    assert first == again
    assert first.startswith(b"<?xml") and b"<svg" in first


@pytest.mark.parametrize(
    "command", [["drift", "{}", "--against", "{}", "-o", "{}/a.svg"], ["tune", "{}", "-o", "{}/a"]]
)
def test_a_picture_that_cannot_be_drawn_is_an_error_before_the_work(
    command: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    find_spec = importlib.util.find_spec

    def without_matplotlib(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name == "matplotlib" else find_spec(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", without_matplotlib)
    assert run(tinyunet, [word.format(tmp_path) for word in command]) == 5
    assert capsys.readouterr().err == (
        "error: matplotlib: is not installed (pip install 'tinyunet-deploy[pictures]')\n"
    )
    assert not list(tmp_path.iterdir())
