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
    ``adaptive-as-published`` is the inverse, which is what its text says. ``every-image`` is Dice,
    plus the mean over the defective images of each one's own Dice loss, plus cross-entropy: in the
    sums of a batch a small defect hardly counts beside a large one, in ``iou_defective`` it counts
    as much.

    Args:
        logit_NCHW: logits of this process's share of the batch.
        truth_NCHW: float32 of {0, 1}.
        ranks: who has the other shares, all of one size.
    """
    logit_NCHW = logit_NCHW.float()
    probability = torch.sigmoid(logit_NCHW)
    truth_N = truth_NCHW.sum((1, 2, 3))
    total_N = probability.sum((1, 2, 3)) + truth_N
    intersection_N = (probability * truth_NCHW).sum((1, 2, 3))
    defective_N = (truth_N > 0).float()
    sums = (
        intersection_N.sum(),
        total_N.sum(),
        F.binary_cross_entropy_with_logits(logit_NCHW, truth_NCHW, reduction="sum"),
        (_dice(intersection_N, total_N) * defective_N).sum(),
        defective_N.sum(),
    )
    intersection, total, cross_entropy, of_images, defective = ranks.sum(torch.stack(sums))
    dice = _dice(intersection, total)
    cross_entropy = cross_entropy / (logit_NCHW.numel() * ranks.size)
    good = dice.detach() < SWITCH
    losses = {
        "dice": dice,
        "bce": cross_entropy,
        "adaptive": torch.where(good, dice, cross_entropy),
        "adaptive-as-published": torch.where(good, cross_entropy, dice),
        "every-image": dice + of_images / defective.clamp(min=1.0) + cross_entropy,
    }
    return losses[name], dice.detach()


def _dice(intersection: Tensor, total: Tensor) -> Tensor:
    return 1.0 - (2.0 * intersection + SMOOTH) / (total + SMOOTH)
