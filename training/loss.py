"""The loss functions that a recipe can name."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from training.distributed import ALONE, Ranks
from training.recipe import Recipe

__all__ = ["distillation_loss", "segmentation_loss"]

_SWITCH = 0.3
"""Dice loss below which the adaptive loss is Dice."""
_SMOOTH = 1.0
"""Added to numerator and denominator of the Dice fraction, so that two empty masks give 1."""


def segmentation_loss(
    name: str,
    logit_NCHW: Tensor,
    truth_NCHW: Tensor,
    ranks: Ranks = ALONE,
    labelled_N: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the loss that a recipe names, and the Dice loss, of the whole batch.

    The Dice loss is 1 - (2 sum(y p) + 1) / (sum y + sum p + 1), the sums over all pixels of the
    batch; cross-entropy is the mean over them. ``adaptive`` is cross-entropy until the Dice loss is
    below 0.3, then Dice, decided at every step, as in the reference's code.
    ``adaptive-as-published`` is the inverse, as in the reference's text. ``every-image`` is Dice,
    plus the mean Dice loss of the single defective images, plus cross-entropy: a
    small defect hardly counts in the sums of a batch beside a large one, but it counts as much in
    ``iou_defective``.

    Args:
        logit_NCHW: logits of this process's share of the batch.
        truth_NCHW: float32 of {0, 1}, or a teacher's probabilities.
        ranks: the processes that share the batch, in shares of equal size.
        labelled_N: bool [N], images that count, on the CPU; None counts all.
    """
    if labelled_N is not None and not bool(labelled_N.all()):
        counted = labelled_N.to(logit_NCHW.device)
        logit_NCHW, truth_NCHW = logit_NCHW[counted], truth_NCHW[counted]
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
        torch.full_like(total_N.sum(), logit_NCHW.numel()),
    )
    intersection, total, cross_entropy, of_images, defective, pixels = ranks.sum(torch.stack(sums))
    dice = _dice(intersection, total)
    cross_entropy = cross_entropy / pixels.clamp(min=1.0)
    good = dice.detach() < _SWITCH
    losses = {
        "dice": dice,
        "bce": cross_entropy,
        "adaptive": torch.where(good, dice, cross_entropy),
        "adaptive-as-published": torch.where(good, cross_entropy, dice),
        "every-image": dice + of_images / defective.clamp(min=1.0) + cross_entropy,
    }
    return losses[name], dice.detach()


def distillation_loss(
    recipe: Recipe,
    logit_NCHW: Tensor,
    truth_NCHW: Tensor,
    score_NCHW: Tensor,
    labelled_N: Tensor,
    ranks: Ranks = ALONE,
) -> tuple[Tensor, Tensor]:
    """Return the recipe's loss against the labels and against a teacher, in its shares, and the
    Dice loss against the labels.

    Args:
        logit_NCHW, truth_NCHW, ranks: as for :func:`segmentation_loss`.
        score_NCHW: uint8, scores of the teacher.
        labelled_N: bool [N] on the CPU, images with a label.
    """
    probability_NCHW = score_NCHW.float() / 255.0
    taught, _ = segmentation_loss(recipe.loss, logit_NCHW, probability_NCHW, ranks)
    labelled, dice = segmentation_loss(recipe.loss, logit_NCHW, truth_NCHW, ranks, labelled_N)
    return recipe.teacher * taught + (1.0 - recipe.teacher) * labelled, dice


def _dice(intersection: Tensor, total: Tensor) -> Tensor:
    return 1.0 - (2.0 * intersection + _SMOOTH) / (total + _SMOOTH)
