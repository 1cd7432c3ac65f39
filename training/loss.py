"""What the network is trained to make small."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from training.distributed import ALONE, Ranks

SWITCH = 0.3
"""Dice loss at which the adaptive loss changes over."""
SMOOTH = 1.0


def segmentation_loss(
    name: str, logit_NCHW: Tensor, truth_NCHW: Tensor, ranks: Ranks = ALONE
) -> tuple[Tensor, Tensor]:
    """The loss that a recipe names, and the Dice loss beside it, of the whole batch.

    The Dice loss is 1 - (2 sum(y p) + 1) / (sum y + sum p + 1), the sums over all pixels of the
    batch; cross-entropy is the mean over them. ``adaptive`` is cross-entropy until the Dice loss is
    below 0.3, then Dice, decided at every step: what the reference's code does.
    ``adaptive-as-published`` is the inverse, which is what its text says.

    Args:
        logit_NCHW: logits of this process's share of the batch.
        truth_NCHW: float32 of {0, 1}.
        ranks: who has the other shares, all of one size.
    """
    logit_NCHW = logit_NCHW.float()
    probability = torch.sigmoid(logit_NCHW)
    sums = (
        (probability * truth_NCHW).sum(),
        probability.sum() + truth_NCHW.sum(),
        F.binary_cross_entropy_with_logits(logit_NCHW, truth_NCHW, reduction="sum"),
    )
    intersection, total, cross_entropy = ranks.sum(torch.stack(sums))
    dice = 1.0 - (2.0 * intersection + SMOOTH) / (total + SMOOTH)
    cross_entropy = cross_entropy / (logit_NCHW.numel() * ranks.size)
    good = dice.detach() < SWITCH
    losses = {
        "dice": dice,
        "bce": cross_entropy,
        "adaptive": torch.where(good, dice, cross_entropy),
        "adaptive-as-published": torch.where(good, cross_entropy, dice),
    }
    return losses[name], dice.detach()
