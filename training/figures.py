"""Figures of a finished run: evaluate its checkpoint on the test images of its data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from tinyunet_deploy.backends.registry import open_backend
from tinyunet_deploy.data.layouts import read_dataset
from tinyunet_deploy.quality.dataset_scoring import held_out
from tinyunet_deploy.quality.evaluation import evaluate

__all__ = ["FIGURES", "REFERENCE_THRESHOLD", "figures_of"]

FIGURES: Final = ("iou_defective", "iou_global", "escape_rate", "overkill_rate", "auroc")
REFERENCE_THRESHOLD: Final = 0.99
"""The threshold of the published figures."""


def figures_of(
    folder: Path, checkpoint: Path, device: str, classes: Sequence[int] | None = None
) -> dict[str, Any]:
    """Evaluate a checkpoint on the test images of a data folder, at its own operating point.

    Returns:
        ``step``, ``threshold``, ``min_area_px``, ``escapes``, ``defective``, ``overkills``,
        ``defect_free`` and ``figures``.
    """
    with open_backend(checkpoint, "torch", "cuda:0" if device == "cuda" else device) as backend:
        sidecar = backend.artifact.sidecar
        evaluation = evaluate(
            held_out(read_dataset(folder, classes=classes)),
            backend,
            threshold=sidecar.threshold,
            min_area=sidecar.min_area,
            batch_size=1,
            workers=2,
        )
    counts = evaluation.all
    return {
        "step": sidecar.step,
        "threshold": sidecar.threshold,
        "min_area_px": sidecar.min_area,
        "escapes": counts.escapes,
        "defective": counts.defective,
        "overkills": counts.overkills,
        "defect_free": counts.images - counts.defective,
        "figures": {
            **{name: getattr(counts, name) for name in FIGURES},
            "dice_reference": counts.dice_reference[REFERENCE_THRESHOLD],
            "dice_nothing": counts.dice_nothing,
        },
    }
