from __future__ import annotations

import re
import shutil
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest

from benchmarks import picture
from benchmarks.picture import BROWSERS, PICTURES
from tests.benchmarks.made_up_results import made_up_line
from tests.conftest import REPOSITORY
from tinyunet_deploy.cli import run
from tinyunet_deploy.contract import Contract
from tinyunet_deploy.data import synthetic
from tinyunet_deploy.inspection.overlays import draw_miss
from tinyunet_deploy.testing.fake_backend import FakeBackend

SIDE = 64


@pytest.fixture
def bright_spots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small images, and a network that takes bright pixels for defects, in the model's place."""
    backend = FakeBackend(contract=Contract(SIDE, SIDE), threshold=0.9)
    monkeypatch.setattr(picture, "open_backend", lambda model: backend)


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of results with an evaluation and no line-sim."""
    folder = tmp_path / "results"
    folder.mkdir()
    shutil.copy(REPOSITORY / "benchmarks" / "results" / "synthetic-test.json", folder)
    monkeypatch.setattr(picture, "RESULTS", folder)
    return folder


def test_one_command_draws_every_picture(
    results: Path, bright_spots: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made_up_line(results / "line.json")
    for name in ("plateau.json", "quick-recipe.json"):
        shutil.copy(REPOSITORY / "benchmarks" / "results" / name, results)
    drawn = set(PICTURES)
    if not any(map(shutil.which, BROWSERS)):
        drawn -= {"report.png", "engine.png", "engines.png"}
    once, again = tmp_path / "once", tmp_path / "again"
    assert run(picture.picture, ["-o", str(once)]) == 0
    assert set(capsys.readouterr().out.split()) == {str(once / name) for name in drawn}
    names = ["tune.svg", "drift.svg"]
    assert run(picture.picture, [*names, "-o", str(again)]) == 0
    for name in names:
        assert (once / name).read_bytes() == (again / name).read_bytes(), name
    sizes = {name: cv2.imread(str(once / name)).shape for name in drawn if name.endswith(".png")}
    assert sizes["part.png"] == (368, 2 * 368, 3)
    assert sizes["prediction.png"] == (4 * 248, 5 * 248, 3)
    assert sizes["tiles.png"] == (2 * SIDE + 4, 3 * SIDE // 2, 3)
    assert sizes.get("report.png", (1060, 1200, 3)) == (1060, 1200, 3)
    words = {
        "tune.svg": ["threshold", "min_area, px", "escapes of 24", "overkills of 24"],
        "drift.svg": ["mean_grey", "contrast_grey", "before: 24 images", "now: 24 images"],
        "line.svg": ["parts per minute", "safe 345/min", "allowed 0.1 %"],
    }
    for name, wanted in words.items():
        text = "".join(ElementTree.parse(once / name).getroot().itertext())
        assert all(word in text for word in wanted), name


def test_a_line_drawn_alone_has_its_colours(results: Path, tmp_path: Path) -> None:
    made_up_line(results / "line.json")
    path = tmp_path / "line.svg"
    picture.draw_line(FakeBackend(), path)
    text = path.read_text()
    used, defined = set(re.findall(r"var\((--[\w-]+)\)", text)), set(re.findall(r"(--\w+):", text))
    assert "--gate" in used <= defined


def test_what_has_no_source_is_left_out_with_its_reason(
    results: Path,
    bright_spots: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    names = ["line.svg", "report.png"]
    assert run(picture.picture, [*names, "-o", str(tmp_path / "out")]) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "left out: line.svg: benchmarks/results has no result of tinyunet line-sim -o",
        "left out: report.png: no Chromium is on the PATH (Debian: apt-get install chromium)",
    ]
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("seen", [0, 255], ids=["nothing is seen", "nothing is missed"])
def test_a_miss_is_what_the_verb_draws(seen: int, tmp_path: Path) -> None:
    contract = Contract(SIDE, SIDE)
    backend = FakeBackend(lambda image: np.full_like(image, seen), contract=contract)
    picture.draw_missed(backend, tmp_path / "missed.png")
    made = synthetic.sample(2, 1, defective=True, size=SIDE, seed=1)
    assert made.label is not None
    x, y, width, height = cv2.boundingRect(made.label)
    wanted = draw_miss(
        made.image, np.full_like(made.image, seen), made.label, (x, y, width, height)
    )
    assert np.array_equal(cv2.imread(str(tmp_path / "missed.png")), wanted)


def test_tiles_shows_the_defects_on_the_hand_overs_without_a_seam(tmp_path: Path) -> None:
    side = 512
    backend = FakeBackend(lambda image: np.where(image < 30, np.uint8(255), np.uint8(0)))
    picture.draw_tiles(backend, tmp_path / "tiles.png")
    drawn = cv2.imread(str(tmp_path / "tiles.png"))
    assert drawn.shape == (2 * side + 4, 3 * side // 2, 3)
    assert (tmp_path / "tiles.png").stat().st_size < 400_000
    score = drawn[side + 4 :].sum(axis=2)
    blue = (drawn[:side] == picture._HAND_OVER).all(axis=2)
    rows, columns = ((blue.mean(axis=axis) > 0.5).nonzero()[0] for axis in (1, 0))
    assert (len(rows), len(columns)) == (2, 4)
    for row, column in ((rows[0], columns[0]), (rows[0], columns[2]), (rows[1], columns[3])):
        assert score[row - 8 : row + 8, column - 8 : column + 8].max() > 300


def test_every_picture_of_the_pages_has_its_command() -> None:
    folder = REPOSITORY / "docs" / "pictures"
    shown = {
        name
        for page in [REPOSITORY / "README.md", *(REPOSITORY / "docs").rglob("*.md")]
        for name in re.findall(r"pictures/([\w-]+\.(?:png|svg))", page.read_text())
    }
    assert len(shown) > 4
    assert shown <= set(PICTURES)
    assert {path.name for path in folder.iterdir()} == set(PICTURES)
