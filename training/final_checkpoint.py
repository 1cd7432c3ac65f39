"""Write the result of a run: the best step's checkpoint, its sidecar and golden images."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tinyunet_deploy import __version__
from tinyunet_deploy.artifacts.checkpoint import save_checkpoint
from tinyunet_deploy.artifacts.golden import write_golden
from tinyunet_deploy.artifacts.network import make_network
from tinyunet_deploy.artifacts.sidecar import read_artifact
from tinyunet_deploy.backends.torch import TorchBackend
from tinyunet_deploy.contract import Contract
from tinyunet_deploy.errors import RefusedError
from training.sources import Source, different_sources
from training.state import State, remove_states
from training.teacher import remove_scores
from training.used_images import trained_on, validated_on

__all__ = ["complete_run", "write_checkpoint"]


def write_checkpoint(
    checkpoint: Path,
    state: State,
    contract: Contract,
    sources: Sequence[Source],
    record: dict[str, Any],
    init: Path | None = None,
    teacher: Path | None = None,
) -> None:
    """Write the best weights of a run, with its operating point and origin in the sidecar.

    Args:
        contract: size of the model.
        record: the run's own record, which becomes part of the origin.
        init: checkpoint that the run started from.
        teacher: checkpoint that the run learned from.

    Raises:
        RefusedError: a weight is not finite.
    """
    best = state.best
    assert best is not None
    for name, value in best.weights.items():
        if not bool(torch.isfinite(value).all()):
            raise RefusedError(checkpoint.parent, f"{name} is not finite after step {best.step}")
    network = make_network(state.network.name, state.network.facts.architecture)
    network.load_state_dict(best.weights)
    classes = {e.item.class_id for source in sources for e in source.defective} - {None}
    own = different_sources(sources)
    save_checkpoint(
        checkpoint,
        network,
        contract,
        threshold=best.point.threshold,
        min_area=best.point.min_area,
        step=best.step,
        bits=sources[0].bits,
        tuned_on=validated_on(sources),
        trained_on=trained_on(sources, init, teacher),
        teacher=record["teacher_sha256"],
        origin={
            **record,
            "sources": [source.name for source in sources],
            "classes": sorted(classes),
            "images": {
                "defective": sum(len(source.defective) for source in own),
                "defect_free": sum(len(source.defect_free) for source in own),
                "unlabelled": sum(len(source.unlabelled) for source in own),
                "validation": sum(len(source.validation) for source in own),
            },
            "steps_done": state.step,
            "operating_point": best.point.as_dict(),
            "versions": _versions(),
        },
    )


def complete_run(checkpoint: Path) -> None:
    """Finish a run that has its checkpoint: write its golden images, remove the run's states.

    A run that was killed before this does it when it is run again.
    """
    artifact = read_artifact(checkpoint)
    if artifact.sidecar.golden is None:
        with TorchBackend(artifact) as backend:
            write_golden(checkpoint, backend.score_alone)
    remove_states(checkpoint.parent)
    remove_scores(checkpoint.parent)


def _versions() -> dict[str, str]:
    return {
        "tinyunet_deploy": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": sys.version.split()[0],
    }
