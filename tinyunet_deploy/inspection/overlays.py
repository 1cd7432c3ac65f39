"""Draw defects on images, for people to look at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from tinyunet_deploy.contract import Image, Mask, Score
from tinyunet_deploy.inspection.defects import Defect, Findings

__all__ = ["DEFECT", "TRUTH", "draw_miss", "outline", "overlay", "overlay_with_truth"]

_Picture = NDArray[np.uint8]
"""[H, W, 3] BGR."""
DEFECT: Final = (40, 40, 235)
"""Colour of a detected defect's outline, BGR: red."""
TRUTH: Final = (80, 220, 80)
"""Colour of the truth's outline, BGR: green."""
_TOO_SMALL: Final = (60, 180, 235)
"""Colour of a region that is smaller than min_area and does not count, BGR: amber."""

_PAPER: Final = (32, 28, 26)
_INK: Final = (240, 240, 240)
_MUTED: Final = (175, 170, 165)
_GOOD: Final = (130, 215, 130)
_BAD: Final = (110, 110, 255)
_FONT: Final = cv2.FONT_HERSHEY_SIMPLEX
_FONT_PX: Final = 22
"""Height of a capital letter of the font at scale 1, pixels."""
_LISTED: Final = 3
"""Largest number of defects that the caption lists one by one."""
_LEAST_WIDTH: Final = 340
"""Smallest width for the caption, pixels; a narrower image gets a margin."""

_MISS_CONTEXT: Final = 128
"""Smallest side of the crop around a missed defect, pixels of the image."""
_MISS_SIDE: Final = 512
"""Approximate side of the enlarged crop, pixels."""

_Line = Sequence[tuple[str, tuple[int, int, int]]]
"""Pieces of text with their colours."""


def overlay(
    image: Image,
    score: Score,
    mask: Mask,
    defects: Sequence[Defect],
    *,
    mm_per_px: float | None = None,
) -> _Picture:
    """Draw the defects of a part on its image, with a caption below it.

    The caption gives the verdict, the number of defects, and the area and largest score of each.
    Defects are outlined in red and numbered, regions too small to count in amber. An outline runs
    outside the pixels that it marks. A pixel of the image keeps its place: the caption is below,
    and a narrow image gets a margin at the right.

    Args:
        image, score: uint8 [H, W].
        mask: uint8 [H, W], {0, 255}: where the score is above the threshold.
        defects: defects of the mask that are large enough, the largest first.
        mm_per_px: side of a pixel on the part, millimetres; gives areas in mm2, too.

    Returns:
        uint8 [H + caption, max(W, 340), 3] BGR.
    """
    picture = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    amber = _draw_defects(picture, mask, defects)
    lines = _caption(score, defects, mm_per_px)
    return _with_caption(picture.astype(np.uint8, copy=False), lines + amber)


def overlay_with_truth(
    image: Image, score: Score, mask: Mask, truth: Mask, findings: Findings
) -> _Picture:
    """Draw the defects of a part and those of its truth, with a caption on the differences.

    Args:
        image, score, mask: as for :func:`overlay`.
        truth: uint8 [H, W], {0, 255}; outlined in green.
        findings: result of the comparison of score and truth.

    Returns:
        uint8 [H + caption, max(W, 340), 3] BGR.
    """
    picture = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    thick = _thickness(image)
    _draw_outline(picture, truth, TRUTH, thick, away=thick + 2)
    amber = _draw_defects(picture, mask, findings.detected)
    lines = [*_caption(score, findings.detected), _comparison(findings)]
    return _with_caption(picture.astype(np.uint8, copy=False), lines + amber)


def _draw_defects(
    picture: cv2.typing.MatLike, mask: Mask, defects: Sequence[Defect]
) -> list[_Line]:
    """Draw the regions of a mask; return the line that explains amber, if there is any."""
    thick = _thickness(mask)
    small = _without(mask, defects)
    _draw_outline(picture, small, _TOO_SMALL, thick, away=1)
    _draw_outline(picture, mask - small, DEFECT, thick, away=1)
    if len(defects) > 1:
        _number(picture, defects)
    return [[("amber:", _TOO_SMALL), ("too small to count", _MUTED)]] if small.any() else []


def outline(image: Image, mask: Mask, color: tuple[int, int, int] = DEFECT) -> _Picture:
    """Draw the outline of a mask around its pixels, without a caption.

    Args:
        image, mask: uint8 [H, W].
        color: BGR.

    Returns:
        uint8 [H, W, 3] BGR.
    """
    picture = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    _draw_outline(picture, mask, color, _thickness(image), away=1)
    return picture.astype(np.uint8, copy=False)


def _thickness(image: Image | Mask) -> int:
    """Return the width of an outline, pixels."""
    return max(1, round(int(image.shape[1]) / 300))


def _draw_outline(
    picture: cv2.typing.MatLike, mask: Mask, color: tuple[int, int, int], thick: int, away: int
) -> None:
    """Draw a line of ``thick`` pixels around a mask, ``away`` pixels outside it."""
    x, y, width, height = cv2.boundingRect(mask)
    if not width:
        return
    border = away + thick
    rows, columns = (
        slice(max(first - border, 0), first + length + border)
        for first, length in ((y, height), (x, width))
    )
    region = mask[rows, columns]
    line = _grown(region, border) & ~_grown(region, away)
    picture[rows, columns][line != 0] = color


def _grown(mask: Mask, pixels: int) -> Mask:
    """Return a mask that reaches ``pixels`` further in every direction."""
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * pixels + 1, 2 * pixels + 1))
    return cv2.dilate(mask, kernel).astype(np.uint8, copy=False)


def _without(mask: Mask, defects: Sequence[Defect]) -> Mask:
    """Return the regions of a mask that are too small to be defects."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    if count - 1 == len(defects):
        return np.zeros_like(mask)
    least = min((defect.area_px for defect in defects), default=mask.size + 1)
    small = stats[:, cv2.CC_STAT_AREA] < least
    small[0] = False
    return np.where(small[labels], mask, 0).astype(np.uint8)


def _number(picture: cv2.typing.MatLike, defects: Sequence[Defect]) -> None:
    """Write the numbers of the listed defects beside them, the largest defect first."""
    height, width = picture.shape[:2]
    scale = _text_px(width) / _FONT_PX
    for number, defect in enumerate(defects[:_LISTED], start=1):
        x, y, box_width, _ = defect.bbox
        (text_width, text_height), _ = cv2.getTextSize(str(number), _FONT, scale, 2)
        left = x + box_width + 4
        left = left if left + text_width < width else max(x - 4 - text_width, 0)
        place = (left, int(np.clip(y + text_height, text_height + 2, height - 2)))
        for color, thickness in (((0, 0, 0), 5), (_INK, 2)):
            cv2.putText(picture, str(number), place, _FONT, scale, color, thickness, cv2.LINE_AA)


def _caption(
    score: Score, defects: Sequence[Defect], mm_per_px: float | None = None
) -> list[_Line]:
    """Return the lines below the picture."""
    word = "NG" if defects else "OK"
    lines: list[_Line] = []
    first = [(word, _BAD if defects else _GOOD)]
    if not defects:
        first.append((f"no defect, largest score {score.max()} of 255", _INK))
    elif len(defects) == 1:
        first.append((f"1 defect: {_facts(defects[0], mm_per_px)}", _INK))
    else:
        first.append((f"{len(defects)} defects", _INK))
        lines += [
            [(f"{number}: {_facts(defect, mm_per_px)}", _INK)]
            for number, defect in enumerate(defects[:_LISTED], start=1)
        ]
        rest = defects[_LISTED:]
        if rest:
            together = sum(defect.area_px for defect in rest)
            lines.append([(f"{len(rest)} more, together {together:,} px", _INK)])
    return [first, *lines]


def _facts(defect: Defect, mm_per_px: float | None) -> str:
    area = f"{defect.area_px:,} px"
    if mm_per_px is not None:
        area += f" ({defect.area_px * mm_per_px**2:.3g} mm2)"
    return f"{area}, score {defect.max_score} of 255"


def _comparison(findings: Findings) -> _Line:
    """Return the line about the truth and about how the verdict differs from it."""
    truth, missed, false = len(findings.truth), len(findings.missed), len(findings.false)
    if not truth:
        text = "truth: no defect"
    else:
        text = f"truth (green): {truth} defect{'s' * (truth > 1)}, {truth - missed} found"
    pieces = [(text, _GOOD if truth else _MUTED)]
    if truth and not findings.detected:
        pieces.append(("an escape", _BAD))
    elif false and not truth:
        pieces.append(("a false alarm", _BAD))
    elif false:
        pieces.append((f"{false} false", _BAD))
    return pieces


def _text_px(width: int) -> int:
    """Return the height of a capital letter on a picture, pixels."""
    return min(max(width // 42, 9), 48)


def _with_caption(picture: _Picture, lines: Sequence[_Line]) -> _Picture:
    """Return the picture with lines of text below it."""
    height, width = picture.shape[:2]
    text_px = _text_px(width)
    step, margin = 2 * text_px, text_px
    full = np.empty((height + margin + step * len(lines), max(width, _LEAST_WIDTH), 3), np.uint8)
    full[:] = _PAPER
    full[:height, :width] = picture
    for row, pieces in enumerate(lines):
        x, y = margin, height + margin + text_px + step * row
        for index, (text, color) in enumerate(pieces):
            bold = row == 0 and index == 0
            scale = text_px / _FONT_PX
            thickness = max(1, round(text_px / 12)) + bold
            cv2.putText(full, text, (x, y), _FONT, scale, color, thickness, cv2.LINE_AA)
            (advance, _), _ = cv2.getTextSize(text, _FONT, scale, thickness)
            x += advance + text_px
    return full


def draw_miss(
    image: Image,
    score: NDArray[np.uint8],
    truth: NDArray[np.uint8],
    bbox: tuple[int, int, int, int],
) -> NDArray[np.uint8]:
    """Draw a missed defect with its surroundings: the image, and beside it the score.

    Args:
        image, score, truth: uint8 [H, W].
        bbox: x, y, width, height of the defect, pixels.

    Returns:
        uint8 [h, w, 3] BGR: the image with the outline of the truth in green, and the score, dark
        0 to bright 255, with the same outline.
    """
    x, y, width, height = bbox
    side = max(2 * width, 2 * height, _MISS_CONTEXT)
    top, left = (
        int(np.clip(centre - side // 2, 0, max(length - side, 0)))
        for centre, length in zip((y + height // 2, x + width // 2), image.shape, strict=True)
    )
    place = slice(top, top + side), slice(left, left + side)
    scale = max(_MISS_SIDE // side, 1)
    outlines, _ = cv2.findContours(truth[place], cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    outlines = [scale * outline + scale // 2 for outline in outlines]
    panels = []
    for panel in (
        cv2.cvtColor(image[place], cv2.COLOR_GRAY2BGR),
        cv2.applyColorMap(np.ascontiguousarray(score[place]), cv2.COLORMAP_INFERNO),
    ):
        large = cv2.resize(panel, None, fx=scale, fy=scale, interpolation=cv2.INTER_NEAREST)
        cv2.drawContours(large, outlines, -1, TRUTH, thickness=1)
        panels.append(large)
    gap = np.full((panels[0].shape[0], 8, 3), 128, np.uint8)
    return np.hstack([panels[0], gap, panels[1]]).astype(np.uint8)
