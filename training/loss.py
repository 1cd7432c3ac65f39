"""What the network is trained to make small."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

SWITCH = 0.3
"""Dice loss under which the adaptive loss turns from cross-entropy to Dice."""
SMOOTH = 1.0


def dice_loss(logit_NCHW: Tensor, truth_NCHW: Tensor) -> Tensor:
    """1 - (2 sum(y p) + 1) / (sum y + sum p + 1), the sums over the whole batch.

    Args:
        logit_NCHW: float32 logits.
        truth_NCHW: float32 of {0, 1}.
    """
    probability = torch.sigmoid(logit_NCHW)
    intersection = (probability * truth_NCHW).sum()
    total = probability.sum() + truth_NCHW.sum()
    return 1.0 - (2.0 * intersection + SMOOTH) / (total + SMOOTH)


def segmentation_loss(name: str, logit_NCHW: Tensor, truth_NCHW: Tensor) -> tuple[Tensor, Tensor]:
    """The loss that a recipe names, and the Dice loss beside it.

    ``adaptive`` is cross-entropy until the batch's Dice loss is below 0.3, then Dice, decided at
    every step. The reference's text says the inverse; its code does this.
    """
    logit_NCHW = logit_NCHW.float()
    dice = dice_loss(logit_NCHW, truth_NCHW)
    if name == "dice":
        return dice, dice.detach()
    cross_entropy = F.binary_cross_entropy_with_logits(logit_NCHW, truth_NCHW)
    if name == "bce":
        return cross_entropy, dice.detach()
    return torch.where(dice.detach() < SWITCH, dice, cross_entropy), dice.detach()
