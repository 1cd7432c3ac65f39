from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tinyunet_deploy.artifacts.network import TinyUNet, normalize
from tinyunet_deploy.contract import Contract
from tinyunet_deploy.data.dataset import Item
from training.sources import Example
from training.validation import WORST, OperatingPoint, choose_operating_point


class Echo(TinyUNet):
    """A network whose score is the image itself, as closely as a sigmoid allows."""

    def __init__(self) -> None:
        super().__init__("tiny")
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, normalized_NCHW: Tensor) -> Tensor:
        self.shapes.append(tuple(normalized_NCHW.shape[2:]))
        low, high = normalize(torch.tensor([0, 255], dtype=torch.uint8))
        share = (normalized_NCHW - low) / (high - low)
        return torch.logit(share.clamp(0.001, 0.999))


def example(image: np.ndarray, mask: np.ndarray) -> Example:
    return Example(Item(Path("a.png"), bool(mask.any()), None, None, None, None), image, mask, None)


def part(seen: Sequence[int], truth: Sequence[int], side: int = 64, row: int = 8) -> Example:
    """A part on which a network sees, and in truth has, a bar from one column to another."""
    image, mask = (np.zeros((side, side), np.uint8) for _ in range(2))
    for array, columns in ((image, seen), (mask, truth)):
        if len(columns):
            array[row : row + 8, columns[0] : columns[1]] = 255
    return example(image, mask)


def choose(*examples: Example, side: int = 64) -> tuple[OperatingPoint, Echo]:
    network = Echo()
    return choose_operating_point(network, Contract(side, side), examples), network


def test_counts_and_worst_images_are_those_of_the_chosen_point() -> None:
    good, right = part((8, 9), ()), part((8, 40), (8, 40))
    half, escape = part((8, 24), (8, 40)), part((), (8, 40))
    false_alarm = part((8, 40), ())
    point, _ = choose(good, right, half, false_alarm, escape)
    assert (point.validation_images, point.validation_defective) == (5, 3)
    assert (point.escapes, point.overkills) == (1, 1)
    assert point.iou_defective == pytest.approx((1 + 0.5 + 0) / 3, abs=0.02)
    assert point.worst == (4, 3, 2, 1), "escape, overkill, the lowest IoU; never the good part"
    assert point.min_area > 1, "the speck on the good part is no defect"


def test_saturated_scores_have_a_threshold_above_all_but_the_surest() -> None:
    """What surrounds the defect scores 248 of 255, which is above 0.95."""
    marked = part((8, 40), (8, 40))
    surrounded = np.where(marked.mask == 0, 248, 255).astype(np.uint8)
    point, _ = choose(example(surrounded, marked.mask), part((), ()))
    assert point.threshold == 0.99 and point.iou_defective == 1.0


def test_the_list_of_the_worst_is_bounded() -> None:
    point, _ = choose(*[part((), (8, 40))] * (WORST + 3), part((), ()))
    assert point.worst == tuple(range(WORST))


def test_a_larger_image_is_validated_in_tiles_and_a_smaller_one_padded() -> None:
    """The defect lies in the last tile; the smaller image's defect at its own edge."""
    large = part((560, 600), (560, 600), side=640, row=600)
    small = part((8, 40), (8, 40), side=40)
    point, network = choose(large, small, part((), (), side=640), side=320)
    assert set(network.shapes) == {(320, 320)}
    assert len(network.shapes) > 3
    assert (point.escapes, point.overkills) == (0, 0)
    assert point.iou_defective is not None and point.iou_defective > 0.95


def test_without_images_nothing_is_claimed() -> None:
    point, _ = choose()
    assert (point.threshold, point.min_area, point.escapes, point.worst) == (0.5, 1, None, ())
    assert point.merit == 0.0


def test_a_network_that_rejects_every_part_is_worse_than_one_that_misses_some() -> None:
    rejects_all = OperatingPoint(0.5, 1, 40, 20, 0.1, escapes=0, overkills=20)
    misses_one = OperatingPoint(0.5, 1, 40, 20, 0.6, escapes=1, overkills=2)
    assert misses_one.merit > rejects_all.merit
    # the same network without good images, whose overkill cannot be seen
    assert (
        replace(misses_one, validation_images=20, overkills=0).merit
        > replace(rejects_all, validation_images=20, overkills=0).merit
    )


def test_an_escape_costs_more_than_an_overkill_and_both_more_than_nothing() -> None:
    right = OperatingPoint(0.5, 1, 40, 20, 0.6, escapes=0, overkills=0)
    assert right.merit == 0.6
    overkill, escape = replace(right, overkills=1), replace(right, escapes=1)
    assert right.merit > overkill.merit > escape.merit
    assert replace(right, overkills=4).merit < escape.merit < replace(right, overkills=2).merit


def test_one_escape_does_not_make_every_good_part_overkill() -> None:
    """A faint speck is the whole of what is seen of one defect, and of every good part."""
    defective = [part((8, 40), (8, 40))] * 9
    faint = part((8, 10), (8, 40))
    point, _ = choose(*defective, faint, *[part((8, 10), ())] * 10)
    assert (point.escapes, point.overkills) == (1, 0)
    many = [part((8, 40), (8, 40)), faint]
    point, _ = choose(*many, *[part((8, 10), ())] * 1, *[part((), ())] * 9)
    assert (point.escapes, point.overkills) == (0, 1), "one of two defects is not worth one of ten"


def test_the_threshold_is_the_one_with_the_best_iou() -> None:
    """Around the defect, scores are a little below one half."""
    halo = part((8, 40), (8, 40))
    halo.image[4:20, 4:60] = np.maximum(halo.image[4:20, 4:60], 120)
    point, _ = choose(halo, part((), ()))
    assert 0.5 <= point.threshold < 0.95
    assert point.iou_defective is not None and point.iou_defective > 0.95


def test_without_good_images_escapes_do_not_lower_the_threshold() -> None:
    """All thresholds show the outline of one defect; the lowest also shows a trace of the other."""
    trace = part((), (8, 40))
    trace.image[8:16, 8:24] = 60
    halo = part((8, 40), (8, 40))
    halo.image[:, :] = np.maximum(halo.image, 60)
    point, _ = choose(halo, trace)
    assert point.threshold >= 0.2 and (point.escapes, point.overkills) == (1, 0)
    assert replace(point, escapes=0).merit == point.merit
    point, _ = choose(halo, trace, part((), ()))
    assert point.threshold < 0.2 and (point.escapes, point.overkills) == (0, 0)
