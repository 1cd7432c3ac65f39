"""Tune threshold and min_area: score labelled images once, choose a pair, and store it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tinyunet_deploy.artifacts.foreign import read_model
from tinyunet_deploy.artifacts.golden import inherit_golden
from tinyunet_deploy.artifacts.lineage import parent_place
from tinyunet_deploy.artifacts.sidecar import (
    Artifact,
    sidecar_path,
    write_artifact,
    write_sidecar,
)
from tinyunet_deploy.backends.base import Backend
from tinyunet_deploy.contract import Image, Score, score_threshold
from tinyunet_deploy.data.dataset import Dataset, Item
from tinyunet_deploy.errors import DataError, GateFailed, ImageError, RefusedError
from tinyunet_deploy.files import json_value
from tinyunet_deploy.quality.confidence import clopper_pearson_upper
from tinyunet_deploy.quality.dataset_scoring import image_digest, missing_kinds, score_dataset
from tinyunet_deploy.quality.part_score import AreaProfile, area_profile, part_at
from tinyunet_deploy.quality.plateau import Plateau, plateau_of
from tinyunet_deploy.quality.scored_by import ScoredBy
from tinyunet_deploy.quality.threshold_sweep import (
    ESCAPE_COST,
    THRESHOLDS,
    Counts,
    Sweep,
    SweepPoint,
    sweep,
)

__all__ = ["Rule", "Tuning", "check_output", "tune", "write_tuned"]


@dataclass(frozen=True)
class Rule:
    """Rule that chooses a pair of threshold and min_area: by cost, or by a target escape rate."""

    escape_cost: float = ESCAPE_COST
    """Number of overkills that cost as much as one escape."""
    max_escape_rate: float | None = None
    """If given, the target escape rate decides instead of the cost: among the pairs whose escape
    rate is at most this with ``confidence``, the one with the fewest overkills is chosen."""
    confidence: float = 0.95
    """Confidence of the bounds on both rates, in (0, 1)."""
    threshold: float | None = None
    """If given, the threshold, a probability, and only min_area is chosen. Images without good or
    without defective ones need it: they cannot show what another threshold would cost."""

    def __str__(self) -> str:
        fixed = "" if self.threshold is None else f", threshold {self.threshold:g} fixed"
        return self._aim() + fixed

    def _aim(self) -> str:
        if self.max_escape_rate is None:
            return f"least cost, escape : overkill = {self.escape_cost:g} : 1"
        return (
            f"fewest overkills, escape rate at most {self.max_escape_rate:g} "
            f"with {self.confidence:g} confidence"
        )


@dataclass(frozen=True)
class Tuning:
    """Result of a sweep, and the pair that was chosen."""

    dataset: Dataset
    artifact: Artifact
    backend: str
    rule: Rule
    sweep: Sweep
    chosen: SweepPoint
    before: SweepPoint
    """The pair in the artifact's sidecar before the choice."""
    plateau: Plateau
    """How far the chosen pair may move without another verdict on these images."""
    images: tuple[str, ...]
    """Digests of the images that were used, sorted."""
    skipped: dict[Path, ImageError]
    """Image file -> the error because of which it was skipped."""
    trained_on: int = 0
    """Number of images on which the weights were trained: scores on them are better than on new
    images."""
    notes: tuple[str, ...] = ()
    """Doubts about the scores as a whole, one sentence each."""

    def bounds(self, choice: SweepPoint) -> dict[str, float]:
        """Return the rates of a pair and their one-sided bounds (Clopper & Pearson 1934)."""
        fields = {}
        for name, events, trials in (
            ("escape_rate", choice.escapes, self.sweep.defective),
            ("overkill_rate", choice.overkills, self.sweep.good),
        ):
            fields[name] = events / trials if trials else math.nan
            fields[f"{name}_upper"] = clopper_pearson_upper(events, trials, self.rule.confidence)
        return fields


class _Measured(NamedTuple):
    digest: str
    name: str
    defective: bool
    profile: AreaProfile


def tune(
    dataset: Dataset,
    backend: Backend,
    rule: Rule = Rule(),
    *,
    batch_size: int,
    workers: int,
    tile: bool = True,
    bits: int | None = None,
    max_pixels: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Tuning:
    """Score every image of a data set once, try every threshold and min_area, and choose.

    Args:
        dataset: validation images with truth; figures on the same images afterwards are not a test.
        tile: take images of any size; False skips those that are not of the network's size.
        max_pixels: largest accepted height x width of an image; None is 64 megapixels.
        bits: depth of 16-bit files, 8..16; None takes the one in the sidecar.
        progress: takes the number of images that are newly finished.

    Raises:
        DataError: no image is usable; or none is defective, or none is good, and the rule has no
            threshold.
        GateFailed: no pair keeps the target escape rate.
    """
    artifact = backend.artifact
    own = artifact.sidecar
    trained_on = set(own.trained_on)
    tried = THRESHOLDS if rule.threshold is None else (rule.threshold,)

    def measure(item: Item, _: Image, score: Score) -> _Measured:
        name = item.image.relative_to(dataset.root).as_posix()
        return _Measured(image_digest(item.image), name, item.defective, area_profile(score))

    measured, skipped, notes = score_dataset(
        dataset,
        backend,
        measure,
        batch_size=batch_size,
        workers=workers,
        tile=tile,
        bits=bits,
        max_pixels=max_pixels,
        progress=progress,
    )
    defective = [image.defective for image in measured]
    for missing, kind in ((not any(defective), "defective"), (all(defective), "good")):
        if missing and rule.threshold is None:
            raise DataError(
                dataset.root,
                f"has no {kind} image, so no threshold can be chosen",
                "with --threshold, min_area alone is chosen",
            )
    swept = sweep(_largest_px(measured, tried), defective, tried)
    before = [own.threshold]
    at_own = sweep(_largest_px(measured, before), defective, before, [own.min_area])
    chosen = _choose(swept, rule, dataset.root)
    parts = [
        part_at(
            image.profile,
            chosen.threshold,
            chosen.min_area,
            name=image.name,
            defective=image.defective,
        )
        for image in measured
    ]
    return Tuning(
        dataset=dataset,
        artifact=artifact,
        backend=backend.name,
        rule=rule,
        sweep=swept,
        chosen=chosen,
        before=at_own.at(0, 0),
        plateau=plateau_of(parts, ScoredBy.of(backend), chosen.threshold, chosen.min_area),
        images=tuple(sorted(image.digest for image in measured)),
        skipped=skipped,
        trained_on=sum(image.digest in trained_on for image in measured),
        notes=(*notes, *missing_kinds(defective)),
    )


def _largest_px(measured: Sequence[_Measured], thresholds: Sequence[float]) -> Counts:
    """Return the largest defect of each image at each threshold, [images, thresholds]."""
    steps = [score_threshold(threshold) for threshold in thresholds]
    return np.asarray([image.profile[steps] for image in measured], np.int64)


def _choose(swept: Sweep, rule: Rule, where: Path) -> SweepPoint:
    if rule.max_escape_rate is None:
        return swept.cheapest(rule.escape_cost)
    chosen = swept.within(rule.max_escape_rate, rule.confidence)
    if chosen is None:
        fewest = int(swept.escapes.min())
        bound = clopper_pearson_upper(fewest, swept.defective, rule.confidence)
        # Smallest n of parts without a miss that proves the rate: (1 - rate)^n <= 1 - confidence.
        least = math.ceil(math.log(1 - rule.confidence) / math.log1p(-rule.max_escape_rate))
        raise GateFailed(
            where,
            f"{fewest} of {swept.defective} missed shows an escape rate of {bound:.3g} at best, "
            f"not {rule.max_escape_rate:g}",
            f"no miss in {least} defective parts would show it",
        )
    return chosen


def check_output(output: Path, model: Path) -> None:
    """Refuse the model's own folder as the place for a tuned copy.

    Raises:
        RefusedError: ``output`` is the folder of ``model``.
    """
    if output.resolve() == model.parent.resolve():
        raise RefusedError(output, "is the model's own folder", "give another -o, or --in-place")


def write_tuned(tuning: Tuning, path: Path) -> None:
    """Write the choice into the sidecar of the model or of a copy of it.

    The model's bytes, and so its place in the lineage, do not change. The sidecar records the
    rule, the counts, the values that were replaced, and the digest of every image that was used.

    Args:
        path: path of the model, or of the tuned copy to write with its golden images.

    Raises:
        RefusedError: the model was changed in the meantime, or another file is at ``path``.
    """
    own = tuning.artifact.sidecar
    note = {
        "rule": str(tuning.rule),
        "replaced": {"threshold": own.threshold, "min_area": own.min_area},
        "defective": tuning.sweep.defective,
        "good": tuning.sweep.good,
        "escapes": tuning.chosen.escapes,
        "overkills": tuning.chosen.overkills,
        **tuning.bounds(tuning.chosen),
    }
    sidecar = dataclasses.replace(
        own,
        threshold=tuning.chosen.threshold,
        min_area=tuning.chosen.min_area,
        tuned_on=tuple(tuning.images),
        origin={**own.origin, "tuned": json_value(note)},
    )
    if path.exists() or sidecar_path(path).exists():
        trust = not tuning.artifact.has_sidecar
        if read_model(path, trust_engine=trust).sidecar.sha256 != own.sha256:
            raise RefusedError(path, "already exists and is another model", "give another -o")
        write_sidecar(path, sidecar)
        return
    place = own.parent_place
    if place is not None:
        place = parent_place(tuning.artifact.path.parent / place, path)
    copy = dataclasses.replace(sidecar, golden=None, parent_place=place)
    write_artifact(path, tuning.artifact.data, copy)
    if tuning.artifact.has_sidecar:
        inherit_golden(path, tuning.artifact.path)
