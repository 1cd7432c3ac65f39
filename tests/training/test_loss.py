from __future__ import annotations

import math

import pytest
import torch

from training.loss import segmentation_loss


def test_dice_loss_by_hand():
    truth = torch.zeros(2, 1, 2, 2)
    truth[0] = 1.0
    logit = torch.zeros(2, 1, 2, 2)  # probability 1/2 everywhere: intersection 2, sums 4 + 4
    assert segmentation_loss("dice", logit, truth)[0].item() == pytest.approx(1.0 - 5.0 / 9.0)
    silent = torch.full((1, 1, 2, 2), -100.0)
    loss, _ = segmentation_loss("dice", silent, torch.zeros(1, 1, 2, 2))
    assert loss.item() == pytest.approx(0.0)


def test_adaptive_loss_is_cross_entropy_until_dice_is_below_its_switch():
    truth = torch.zeros(1, 1, 4, 4)
    truth[..., :2] = 1.0
    bad = torch.zeros(1, 1, 4, 4)
    loss, dice = segmentation_loss("adaptive", bad, truth)
    assert dice.item() > 0.3
    assert loss.item() == pytest.approx(math.log(2.0))
    good = (truth * 2 - 1) * 4.0
    loss, dice = segmentation_loss("adaptive", good, truth)
    assert dice.item() < 0.3
    assert loss.item() == pytest.approx(dice.item())


def test_in_every_image_a_small_defect_counts_as_much_as_a_large_one():
    """A large defect found, a small one missed, an image without any, against the formula."""
    truth = torch.zeros(3, 1, 8, 8)
    truth[0] = 1.0
    truth[1, 0, 0, 0] = 1.0
    logit = torch.full((3, 1, 8, 8), -20.0)
    logit[0] = 20.0
    of_batch = 1.0 - (2.0 * 64 + 1) / (65 + 64 + 1)
    of_images = (0.0 + (1.0 - 1.0 / (1 + 0 + 1))) / 2  # the image without a defect has no part
    cross_entropy = 20.0 / (3 * 64)
    loss, dice = segmentation_loss("every-image", logit, truth)
    assert dice.item() == pytest.approx(of_batch, abs=1e-6)
    assert loss.item() == pytest.approx(of_batch + of_images + cross_entropy, abs=1e-5)
    no_defect, _ = segmentation_loss("every-image", logit[2:], truth[2:])
    assert no_defect.item() == pytest.approx(0.0, abs=1e-6)


def test_the_published_text_has_the_switch_the_other_way_round():
    truth = torch.zeros(1, 1, 4, 4)
    truth[..., :2] = 1.0
    for logit in (torch.zeros(1, 1, 4, 4), (truth * 2 - 1) * 4.0):
        first, dice = segmentation_loss("adaptive", logit, truth)
        second, _ = segmentation_loss("adaptive-as-published", logit, truth)
        cross_entropy, _ = segmentation_loss("bce", logit, truth)
        assert {first.item(), second.item()} == {dice.item(), cross_entropy.item()}
        assert (first < second) == (dice < 0.3)
