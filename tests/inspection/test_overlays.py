from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from tinyunet_deploy.contract import defect_mask
from tinyunet_deploy.inspection import overlays
from tinyunet_deploy.inspection.defects import compare_with_truth, find_defects
from tinyunet_deploy.inspection.overlays import (
    DEFECT,
    TRUTH,
    outline,
    overlay,
    overlay_with_truth,
)

IMAGE = np.full((400, 400), 100, np.uint8)


def score_of(*squares: tuple[int, int, int, int], side: int = 400) -> NDArray[np.uint8]:
    """A score of zeros with squares of (top, left, side, value)."""
    score = np.zeros((side, side), np.uint8)
    for top, left, length, value in squares:
        score[top : top + length, left : left + length] = value
    return score


def drawn(
    image: NDArray[np.uint8], score: NDArray[np.uint8], min_area: int = 1, **options: float
) -> NDArray[np.uint8]:
    """The overlay at a threshold of 0.5."""
    defects = find_defects(score, 0.5, min_area)
    return overlay(image, score, defect_mask(score, 0.5), defects, **options)


def compared(score: NDArray[np.uint8], truth: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The overlay with the truth, at a threshold of 0.5."""
    findings = compare_with_truth(score, truth, 0.5, 1)
    return overlay_with_truth(IMAGE, score, defect_mask(score, 0.5), truth, findings)


@pytest.fixture
def caption(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that are drawn, in order, those beside the defects first."""
    texts: list[str] = []

    def put_text(picture: object, text: str, *rest: Any) -> None:
        texts.append(text)

    monkeypatch.setattr(cv2, "putText", put_text)
    return texts


def has(picture: NDArray[np.uint8], color: tuple[int, int, int]) -> NDArray[np.bool_]:
    return (np.abs(picture.astype(int) - color) < 12).all(axis=2)


def test_a_defect_is_outlined_in_red_and_its_pixels_stay_to_be_seen() -> None:
    picture = drawn(IMAGE, score_of((100, 100, 40, 200)))
    red = has(picture, DEFECT)
    assert red[98, 120], "the outline runs just outside"
    assert (picture[100:140, 100:140] == 100).all(), "the defect itself can be seen"
    assert (picture[160:400, 200:] == 100).all()
    assert picture.shape[1:] == (400, 3)
    assert picture.shape[0] > 400, "the caption is below the image"


@pytest.mark.parametrize("side", [16, 64, 400, 1600])
def test_a_pixel_of_the_image_keeps_its_place(side: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (side, side)).astype(np.uint8)
    picture = drawn(image, np.zeros_like(image))
    assert np.array_equal(picture[:side, :side], np.dstack([image] * 3))


def test_the_caption_says_verdict_area_and_score(caption: list[str]) -> None:
    drawn(IMAGE, score_of((100, 100, 40, 200)))
    assert caption == ["NG", "1 defect: 1,600 px, score 200 of 255"]
    caption.clear()
    drawn(IMAGE, score_of((100, 100, 40, 90)))
    assert caption == ["OK", "no defect, largest score 90 of 255"]
    caption.clear()
    drawn(IMAGE, score_of((100, 100, 40, 200)), mm_per_px=0.1)
    assert caption[1] == "1 defect: 1,600 px (16 mm2), score 200 of 255"


def test_several_defects_are_numbered_the_largest_first(caption: list[str]) -> None:
    squares = [(20 * n, 20 * n, n + 1, 200 + n) for n in range(1, 6)]
    drawn(IMAGE, score_of(*squares))
    assert caption == [
        "1", "1", "2", "2", "3", "3", "NG", "5 defects", "1: 36 px, score 205 of 255",
        "2: 25 px, score 204 of 255", "3: 16 px, score 203 of 255", "2 more, together 13 px",
    ]  # fmt: skip


def test_a_region_below_min_area_is_amber_and_does_not_count(caption: list[str]) -> None:
    score = score_of((100, 100, 40, 200), (300, 300, 4, 200))
    picture = drawn(IMAGE, score, 50)
    assert caption == [
        "NG", "1 defect: 1,600 px, score 200 of 255", "amber:",
        "too small to count",
    ]  # fmt: skip
    assert not has(picture, DEFECT)[280:400, 280:].any()
    assert has(picture, (60, 180, 235))[290:310, 290:310].any()
    caption.clear()
    drawn(IMAGE, score_of((300, 300, 4, 200)), 50)
    assert caption[:2] == ["OK", "no defect, largest score 200 of 255"]


@pytest.mark.parametrize(
    ("found", "truth", "said"),
    [
        (True, True, ["truth (green): 1 defect, 1 found"]),
        (False, True, ["truth (green): 1 defect, 0 found", "an escape"]),
        (True, False, ["truth: no defect", "a false alarm"]),
        (False, False, ["truth: no defect"]),
    ],
)
def test_the_truth_is_drawn_and_compared(
    caption: list[str], found: bool, truth: bool, said: list[str]
) -> None:
    square = score_of((100, 100, 40, 255))
    nothing = np.zeros_like(square)
    picture = compared(square if found else nothing, square if truth else nothing)
    assert caption[2:] == said
    assert has(picture, TRUTH)[:400].any() == truth
    assert has(picture, DEFECT)[:400].any() == found, "both outlines can be seen"


def test_a_false_defect_beside_a_true_one_is_said(caption: list[str]) -> None:
    truth = score_of((100, 100, 40, 255), (10, 10, 20, 255))
    score = score_of((100, 100, 40, 255), (300, 300, 30, 255))
    compared(score, truth)
    assert caption[-2:] == ["truth (green): 2 defects, 1 found", "1 false"]


def test_the_text_of_a_small_image_fits_beside_it() -> None:
    widest = "1 defect: 4,096 px (41 mm2), score 255 of 255"
    picture = drawn(np.full((64, 64), 90, np.uint8), score_of((0, 0, 64, 255), side=64))
    (width, _), _ = cv2.getTextSize(widest, cv2.FONT_HERSHEY_SIMPLEX, 9 / 22, 1)
    assert width + 40 < picture.shape[1]
    assert (picture[64:, -5:] == overlays._PAPER).all(), "no letter is cut off"


def test_an_outline_alone_has_no_caption() -> None:
    mask = score_of((100, 100, 40, 255))
    picture = outline(IMAGE, mask, TRUTH)
    assert picture.shape == (400, 400, 3)
    assert has(picture, TRUTH)[98, 120]
    assert (outline(IMAGE, np.zeros_like(mask)) == 100).all()
