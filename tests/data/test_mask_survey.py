"""The values of masks, and the rule that they call for."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest

from tests.data.small_images import SPOT, grey
from tinyunet_deploy.data.dataset import MaskRule
from tinyunet_deploy.data.mask_survey import look_at_masks, rule_for, shown_values
from tinyunet_deploy.data.masks import read_mask_file
from tinyunet_deploy.errors import DataError

IDS = SPOT // 255
IDS[4:8] *= 2
SMOOTH = cv2.GaussianBlur(cv2.resize(SPOT, (160, 240)), (31, 31), 8)
SOFT = cv2.GaussianBlur(SPOT, (0, 0), 1)
"""SPOT with soft edges: 20 values."""
FAINT = cv2.convertScaleAbs(SOFT, alpha=0.4)
THIN = grey(0)
"""Thin defects of ten types."""
THIN[2:22:2, 4:12] = np.arange(25, 255, 23)[:, None]
INVERTED = MaskRule(non_zero=True, inverted=True)


def saved(path: Path, array: np.ndarray, **options: int) -> Path:
    PIL.Image.fromarray(array).save(path, **options)
    return path


@pytest.mark.parametrize(
    ("arrays", "suffix", "rule", "words"),
    [
        ([SPOT, grey(0)], ".png", None, "0, 255"),
        ([SPOT // 255, SPOT // 255 * 2], ".png", None, "0, 1"),
        ([SPOT.astype(np.uint16) * 257], ".png", None, "0, 65535"),
        ([SPOT > 0], ".png", None, "0, 255"),
        ([np.dstack([SPOT, grey(255)])], ".png", None, "0, 255"),
        ([np.dstack([SPOT, grey(0), grey(0)])], ".png", None, "colours"),
        ([IDS, grey(0)], ".png", MaskRule(non_zero=True), "0, 1, 2"),
        ([np.dstack([IDS * 99, SPOT, grey(0)])], ".png", MaskRule(non_zero=True), "colours"),
        ([SMOOTH], ".png", MaskRule(threshold=int(SMOOTH.max()) // 2), "more than 32 grey levels"),
        ([SOFT, grey(0), SPOT], ".png", MaskRule(threshold=127), "0, 1, ..., 255: 20 values"),
        ([SPOT, 255 - SOFT, 255 - SOFT], ".png", MaskRule(threshold=127, inverted=True), "0, 255"),
        ([SOFT, IDS], ".png", MaskRule(non_zero=True), "0, 1, ..., 255: 20 values"),
        ([SOFT, FAINT], ".png", MaskRule(non_zero=True), "0, 1, ..., 255: 20 values"),
        ([THIN], ".png", MaskRule(non_zero=True), "0, 25, ..., 232: 11 values"),
        ([SPOT, grey(0)], ".jpg", MaskRule(threshold=127), "lossy, up to 25"),
        ([255 - SPOT, grey(255)], ".png", INVERTED, "0, 255"),
        ([255 - SPOT, SPOT, SPOT], ".png", None, "0, 255"),
        ([255 - SPOT], ".jpg", MaskRule(threshold=127, inverted=True), "lossy"),
        ([SPOT // 255 + 1, grey(1)], ".png", MaskRule(values=frozenset({2})), "1, 2"),
        ([IDS + 1, grey(1)], ".png", MaskRule(values=frozenset({2, 3})), "1, 2, 3"),
        ([SPOT // 255 + 1, SPOT // 255 + 1], ".png", None, "1, 2"),
        ([np.dstack([grey(255)] * 3 + [SPOT])], ".png", None, "255"),
    ],
)
def test_the_rule_for_masks(
    tmp_path: Path, arrays: list[np.ndarray], suffix: str, rule: MaskRule | None, words: str
) -> None:
    options = {"quality": 95} if suffix == ".jpg" else {}
    paths = [saved(tmp_path / f"{n}{suffix}", a, **options) for n, a in enumerate(arrays)]
    looks = look_at_masks(paths)
    assert rule_for(looks) == rule
    assert shown_values(looks[0]).startswith(words)
    mask = read_mask_file(paths[0], rule)
    if mask.shape == SPOT.shape and 255 - SPOT is not arrays[0]:
        assert mask.any() and not mask.all()


def test_a_file_that_is_no_mask_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"a\.png: is not a usable mask"):
        look_at_masks([tmp_path / "a.png"])


def test_many_values_are_counted_and_few_are_listed(tmp_path: Path) -> None:
    for values, words in (
        (range(8), "0, 1, 2, 3, 4, 5, 6, 7"),
        ([*range(0, 160, 10), 255], "0, 10, ..., 255: 17 values"),
    ):
        mask = np.array(list(values), np.uint8)[None].repeat(4, axis=0)
        (look,) = look_at_masks([saved(tmp_path / "a.png", mask)])
        assert shown_values(look) == words
