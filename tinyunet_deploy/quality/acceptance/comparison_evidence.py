"""Compare an artifact with its reference, on the backend and device on which it will run."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from tinyunet_deploy.artifacts.sidecar import Sidecar
from tinyunet_deploy.errors import RefusedError
from tinyunet_deploy.quality.acceptance.evidence import (
    BatchFigures,
    Comparison,
    FigureCheck,
    ModelFacts,
)
from tinyunet_deploy.quality.acceptance.inputs import hash_file
from tinyunet_deploy.quality.acceptance.wording import count
from tinyunet_deploy.quality.parity import ArtifactParity, Parity, Progress, run_parity
from tinyunet_deploy.quality.parity_limits import LimitCheck, read_limits
from tinyunet_deploy.quality.reference import Reference
from tinyunet_deploy.quality.stored_scores import StoredScores

__all__ = ["ArtifactComparison", "compare_artifact"]

_BATCHES: Final = "batch_steps"
_OTHERS: Final = frozenset({_BATCHES, "plateau_kept", "margin_steps"})
"""Figures of a comparison that are requirements of their own."""


class ArtifactComparison(NamedTuple):
    """What a comparison with the reference shows."""

    parity: Comparison
    batches: BatchFigures | None
    """None if nothing was compared."""
    plateau_kept: float | None
    """Width of the plateau divided by the reference's; None if there is no other reference."""


def compare_artifact(
    model: Path,
    data: Path,
    facts: ModelFacts,
    *,
    reference: Path | None,
    search: Sequence[Path],
    trust_engine: bool,
    classes: Sequence[int] | None,
    tile: bool,
    bits: int | None,
    max_pixels: int | None,
    batch_size: int,
    workers: int,
    most_images: int,
    progress: Progress,
    on_total: Callable[[int], None],
) -> ArtifactComparison:
    """Compare on the held-out images of a data set, as ``tinyunet parity`` does.

    Args:
        facts: names the backend and the device, and gives the rule by which both decide.
        the others: as for :func:`~tinyunet_deploy.quality.parity.run_parity`.

    Returns:
        The comparison, with the reason if nothing could be compared.
    """
    with StoredScores() as scores:
        try:
            parity = run_parity(
                [model],
                data,
                scores,
                limits=read_limits(),
                reference=reference,
                folders=search,
                classes=classes,
                backends=[facts.backend],
                devices=[facts.device],
                threshold=facts.threshold,
                min_area=facts.min_area_px,
                tile=tile,
                bits=bits,
                max_pixels=max_pixels,
                batch_size=batch_size,
                workers=workers,
                trust_engine=trust_engine,
                most_images=most_images,
                progress=progress,
                on_total=on_total,
            )
        except RefusedError as error:
            what = f"{Path(error.where).name} {error.what}"
            return ArtifactComparison(Comparison("", None, 0, (), what), None, None)
        artifact = parity.artifacts[0]
        comparison = _comparison(parity, artifact, facts)
    kept = None
    if artifact.plateau is not None and comparison.vacuous is None:
        kept = artifact.plateau.figures["plateau_kept"]
    return ArtifactComparison(
        comparison, _batches(artifact), None if kept is None or math.isnan(kept) else kept
    )


def _comparison(parity: Parity, artifact: ArtifactParity, facts: ModelFacts) -> Comparison:
    rule = artifact.decision and dataclasses.replace(
        artifact.decision, reference=parity.reference_sidecar.decision()
    )
    otherwise = rule is not None and not rule.holds
    return Comparison(
        reference=parity.reference.describe(parity.reference_backend),
        vacuous=_why_vacuous(parity.reference, facts),
        images=artifact.comparison.images,
        checks=tuple(_check(c) for c in artifact.checks if c.limit.figure not in _OTHERS),
        skipped=artifact.skipped,
        otherwise=str(rule) if otherwise else None,
        tuned=bool(artifact.sidecar.tuned_on),
        hint=rule.hint if rule is not None and otherwise else "",
        proof=_proof(artifact.sidecar),
    )


def _proof(sidecar: Sidecar) -> str | None:
    """Return what the adoption proved; its facts in a file without a parent are of that file."""
    facts = sidecar.adoption
    if facts is None or sidecar.parent is not None:
        return None
    return (
        f"adopted, its scores differed from those of {facts.original_name} by at most "
        f"{facts.proof_steps} of 255 on {count(facts.proof_images, 'image')}"
    )


def _why_vacuous(reference: Reference, facts: ModelFacts) -> str | None:
    """Return why a comparison says nothing of the network that was trained; None if it does.

    A checkpoint is that network, so that it may be its own reference.
    """
    itself = hash_file("reference", reference.path).sha256 == facts.sha256
    if itself and facts.kind != "checkpoint":
        return reference.reason or "it was given as its own reference"
    return None


def _batches(artifact: ArtifactParity) -> BatchFigures | None:
    if artifact.batch is None:
        return None
    checks = [_check(check) for check in artifact.checks if check.limit.figure == _BATCHES]
    return BatchFigures(
        artifact.batch.sizes, dict(artifact.batch.steps), checks[0] if checks else None
    )


def _check(check: LimitCheck) -> FigureCheck:
    limit = check.limit
    return FigureCheck(limit.figure, check.value, str(limit), check.holds, limit.reason)
