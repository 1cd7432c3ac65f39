"""Does every artifact, on every backend, answer as the network it was made from?"""

from __future__ import annotations

import dataclasses
import heapq
import math
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from types import TracebackType
from typing import Final, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from tinyunet_deploy.artifacts.sidecar import (
    KINDS,
    Sidecar,
    kind_of,
    lineage,
    read_artifact,
    read_sidecar,
    write_sidecar,
)
from tinyunet_deploy.backends.base import Backend
from tinyunet_deploy.backends.registry import BACKENDS, open_backend
from tinyunet_deploy.contract import Batch, Image, Mask, Score, defect_mask, score_threshold
from tinyunet_deploy.data.dataset import Item
from tinyunet_deploy.data.decoding import read_image
from tinyunet_deploy.data.layouts import read_dataset
from tinyunet_deploy.data.masks import read_mask
from tinyunet_deploy.errors import (
    DataError,
    ImageError,
    RefusedError,
    TinyUNetError,
)
from tinyunet_deploy.inspection.defects import Verdict, find_defects, verdict
from tinyunet_deploy.inspection.pipeline import common_root, score_images, walk_images
from tinyunet_deploy.quality import evaluation
from tinyunet_deploy.quality.parity_limits import Limit, Limits

NEAR_STEPS: Final = 8
"""A pixel is near the threshold where the reference's score is at most so many steps from it."""
WORST: Final = 3
"""Images of which each comparison keeps the scores."""
STAGES: Final = {
    "decoded bytes": 0.0,
    "graph input": 1e-3,
    "logits": 4 / 255,
    "score": 1.0,
    "mask": 0.0,
}
"""Stage -> largest difference at which two backends still agree.

Graph input: twice the rounding of float16 in [-1, 1]. Logits: what moves a score by one step, as
the slope of the sigmoid is at most 1/4. Score: one step. Mask: pixels.
"""


# --- what is compared ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Part:
    """One image to compare on."""

    path: Path
    name: str
    """For people, and unique: the path below the folder."""
    item: Item | None
    """What the data set says of it; None where there is no truth."""

    def truth(self, score: Score) -> Mask | None:
        """The truth, of the size of the score."""
        return None if self.item is None else read_mask(self.item, score.shape)


def find_parts(folder: Path, classes: Sequence[int] | None = None) -> list[Part]:
    """The held-out images of a data set, or all images of a folder that is none.

    Raises:
        DataError: the data set is damaged, or there is no image.
    """
    try:
        dataset = evaluation.held_out(read_dataset(folder, classes=classes))
    except DataError as error:
        if error.what != "holds no data set" or classes is not None:
            raise
    else:
        return [
            Part(item.image, item.image.relative_to(dataset.root).as_posix(), item)
            for item in dataset.items
        ]
    root = common_root([folder])
    parts = [Part(path, path.relative_to(root).as_posix(), None) for path in walk_images([folder])]
    if not parts:
        raise DataError(folder, "holds no image")
    return parts


def find_models(sources: Sequence[Path]) -> list[Path]:
    """Artifacts that were named, and those in folders that were named, checkpoints left out.

    Raises:
        RefusedError: a folder holds none.
    """
    models: list[Path] = []
    for source in sources:
        found = [source]
        if source.is_dir():
            found = sorted(
                path for path in source.iterdir() if KINDS.get(path.suffix) in ("onnx", "plan")
            )
            if not found:
                raise RefusedError(source, "holds no .onnx and no .plan")
        models += [path for path in found if path not in models]
    return models


def find_reference(model: Path) -> Path:
    """The checkpoint from which an artifact descends.

    Raises:
        RefusedError: it is not found.
    """
    last = lineage(model)[-1]
    if last.path is None or kind_of(last.path) != "checkpoint":
        raise RefusedError(
            model, "has no checkpoint beside it to compare with", "give --reference CHECKPOINT"
        )
    return last.path


# --- what was found -----------------------------------------------------------------------------


class Flip(NamedTuple):
    """A part whose verdict is not the reference's."""

    name: str
    defective: bool
    """By the truth; where there is none, by the reference."""
    reference: Verdict
    verdict: Verdict


class Worst(NamedTuple):
    """One of the images on which a comparison is worst."""

    flipped_px: int
    difference: int
    """Sum over all pixels, steps."""
    part: int
    """Its place among the parts."""
    score: Score


@dataclass(frozen=True)
class BatchCheck:
    """Whether an image gets the same score whatever is in the batch with it."""

    sizes: tuple[int, ...]
    """Batches that were run; those of a plan's profile among them."""
    steps: dict[str, int]
    """``one-by-one``, ``equal-rows``, ``permuted-rows``, ``padded-batch`` -> largest difference
    from the score of the image alone, steps of 1/255."""

    @property
    def largest(self) -> int:
        """The largest batch that was run."""
        return max(self.sizes)


@dataclass(frozen=True)
class StageDifference:
    """How far two backends are from each other at one stage."""

    stage: str
    """A key of :data:`STAGES`."""
    difference: float | None
    """Largest absolute difference, or for the mask the number of pixels; None: not to be seen in
    this runtime."""

    @property
    def parted(self) -> bool:
        """Whether it is more than rounding."""
        return self.difference is not None and not self.difference <= STAGES[self.stage]


@dataclass(frozen=True)
class Explanation:
    """Where a backend leaves the reference, on the image on which it is worst."""

    name: str
    stages: tuple[StageDifference, ...]

    @property
    def first(self) -> StageDifference | None:
        """The first stage at which they part; None if they do not."""
        return next((stage for stage in self.stages if stage.parted), None)


class Check(NamedTuple):
    """A figure and its limit."""

    limit: Limit
    value: float
    holds: bool


@dataclass
class Comparison:
    """One artifact on one backend against the reference."""

    model: Path
    sidecar: Sidecar
    backend: str
    device: str
    skipped: str | None = None
    """Why it did not run."""
    versions: dict[str, str] = field(default_factory=dict)
    images: int = 0
    histogram: NDArray[np.int64] = field(default_factory=lambda: np.zeros(256, np.int64))
    """Absolute difference of a score -> pixels that have it."""
    flipped_near: int = 0
    """Pixels with another mask, whose score is within ``NEAR_STEPS`` of the threshold."""
    flipped_far: int = 0
    intersection_px: int = 0
    """Pixels that are defects in both masks, over all images."""
    union_px: int = 0
    least_agreement: float = 1.0
    """Agreement of the image on which it is least."""
    flips: list[Flip] = field(default_factory=list)
    ious: list[float] = field(default_factory=list)
    """IoU with the truth of each defective image."""
    reference_ious: list[float] = field(default_factory=list)
    worst: list[Worst] = field(default_factory=list)
    batch: BatchCheck | None = None
    explanation: Explanation | None = None
    checks: list[Check] = field(default_factory=list)

    def add(
        self,
        score: Score,
        expected: Score,
        name: str,
        *,
        truth: Mask | None,
        defective: bool | None,
        threshold: float,
        min_area: int,
    ) -> None:
        """Count one image; all are to come in the order of the parts.

        Args:
            score, expected: uint8 [H, W], the artifact's and the reference's.
            defective: what the truth says of the part; None where there is none.
            threshold, min_area: what makes a mask and a verdict.
        """
        mask, wanted = (defect_mask(s, threshold) != 0 for s in (score, expected))
        flipped = mask != wanted
        near = np.abs(expected.astype(np.int16) - score_threshold(threshold)) <= NEAR_STEPS
        difference = _difference(score, expected)
        intersection, union = int((mask & wanted).sum()), int((mask | wanted).sum())
        self.histogram += np.bincount(difference.ravel(), minlength=256)
        self.flipped_near += int((flipped & near).sum())
        self.flipped_far += int((flipped & ~near).sum())
        self.intersection_px += intersection
        self.union_px += union
        if union:
            self.least_agreement = min(self.least_agreement, intersection / union)
        verdicts = [verdict(find_defects(s, threshold, min_area)) for s in (expected, score)]
        if defective is None:
            defective = verdicts[0] == "NG"
        if verdicts[0] != verdicts[1]:
            self.flips.append(Flip(name, defective, verdicts[0], verdicts[1]))
        if truth is not None and defective:
            self.reference_ious.append(_iou(wanted, truth))
            self.ious.append(_iou(mask, truth))
        if difference.any():
            worst = Worst(int(flipped.sum()), int(difference.sum()), self.images, score)
            heapq.heappush(self.worst, worst)
            if len(self.worst) > WORST:
                heapq.heappop(self.worst)
        self.images += 1

    @property
    def figures(self) -> dict[str, float]:
        """Figure -> value, named as in ``parity_limits.toml``; NaN where it is undefined."""
        pixels = np.cumsum(self.histogram)
        alarms = [flip for flip in self.flips if not flip.defective]
        drop = math.nan
        if self.ious:
            drop = fmean(self.reference_ious) - fmean(self.ious)
        return {
            "largest_steps": int(self.histogram.nonzero()[0].max(initial=0)),
            "p999_steps": int(np.searchsorted(pixels, 0.999 * pixels[-1])),
            "agreement": self.intersection_px / self.union_px if self.union_px else 1.0,
            "flips": len(self.flips),
            "flips_defective": sum(flip.defective for flip in self.flips),
            "new_alarms": sum(1 if flip.verdict == "NG" else -1 for flip in alarms),
            "iou_drop": drop,
            "batch_steps": max(self.batch.steps.values()) if self.batch else math.nan,
        }

    def check(self, limits: Limits) -> None:
        """Hold the figures that are defined against the limits of the precision and backend."""
        self.checks = [
            Check(limit, value, limit.holds(value))
            for limit in limits.of(self.sidecar.precision, self.backend)
            if not math.isnan(value := self.figures.get(limit.figure, math.nan))
        ]

    @property
    def outcome(self) -> str:
        """``green``, ``red``, ``skipped``, or ``no limits``."""
        if self.skipped is not None:
            return "skipped"
        if not self.checks:
            return "no limits"
        return "green" if all(check.holds for check in self.checks) else "red"


@dataclass
class Parity:
    """All comparisons of one run."""

    folder: Path
    reference: Path
    reference_sidecar: Sidecar
    reference_backend: str
    reference_versions: dict[str, str]
    threshold: float
    min_area: int
    parts: list[Part]
    """The images that were compared."""
    skipped_images: list[ImageError]
    scores: Scores
    """The reference's, in the order of the parts."""
    comparisons: list[Comparison] = field(default_factory=list)

    @property
    def broken(self) -> list[tuple[Comparison, Check]]:
        """Every broken limit, the gravest first."""
        order = [
            (rank, comparison, check)
            for comparison in self.comparisons
            for rank, check in enumerate(comparison.checks)
            if not check.holds
        ]
        return [(comparison, check) for _, comparison, check in sorted(order, key=lambda o: o[0])]


class Scores:
    """Scores of many images, compressed, in a temporary file that has no name."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  closed by close()
        self._places: list[tuple[int, int, tuple[int, ...]]] = []

    def append(self, score: Score) -> None:
        """Add uint8 [H, W]."""
        data = zlib.compress(score.tobytes(), 1)
        at = self._file.seek(0, 2)
        self._file.write(data)
        self._places.append((at, len(data), score.shape))

    def __getitem__(self, index: int) -> Score:
        at, size, shape = self._places[index]
        self._file.seek(at)
        return np.frombuffer(zlib.decompress(self._file.read(size)), np.uint8).reshape(shape)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()


# --- comparing ----------------------------------------------------------------------------------


def compare(
    models: Sequence[Path],
    folder: Path,
    scores: Scores,
    *,
    limits: Limits,
    reference: Path | None = None,
    classes: Sequence[int] | None = None,
    backends: Sequence[str] | None = None,
    devices: Sequence[str] = ("cpu",),
    threshold: float | None = None,
    min_area: int | None = None,
    batch_size: int = 4,
    workers: int = 2,
    explain: bool = False,
    progress: Callable[[str, int], None] | None = None,
) -> Parity:
    """Run every artifact on every backend that takes it, and hold the scores against the reference.

    The reference scores each image once. What cannot run is kept as skipped, with its reason.

    Args:
        models: artifacts of one image size.
        scores: empty; takes the reference's scores.
        reference: a checkpoint, or another artifact to compare with; the checkpoint from which the
            first model descends if None.
        backends: keys of ``BACKENDS``; all if None.
        threshold, min_area: what makes a mask and a verdict; the reference's own if None.
        batch_size: images per call, and the batch that is verified; cut to what a backend takes.
        explain: also find the first stage at which each parts from the reference.
        progress: takes what is being done and the number of images that are newly finished.

    Raises:
        ArtifactError: a file is not the one that its sidecar describes.
        DataError: there is no usable image.
        RefusedError: no reference is found, or the models are of several image sizes.
        RuntimeUnavailable: the reference cannot run here.
    """
    sidecars = {model: read_artifact(model).sidecar for model in models}
    sizes = {(s.contract.height, s.contract.width) for s in sidecars.values()}
    if len(sizes) > 1:
        raise RefusedError(models[0], "and the others take images of several sizes")
    reference = reference or find_reference(models[0])
    tell = progress or (lambda _what, _count: None)
    parts = find_parts(folder, classes)
    with open_backend(reference, size=sizes.pop()) as judge:
        own = judge.artifact.sidecar
        parity = Parity(
            folder=folder,
            reference=reference,
            reference_sidecar=own,
            reference_backend=judge.name,
            reference_versions=judge.versions,
            threshold=own.threshold if threshold is None else threshold,
            min_area=own.min_area if min_area is None else min_area,
            parts=[],
            skipped_images=[],
            scores=scores,
        )
        paths = [part.path for part in parts]
        for scored in score_images(paths, judge, batch_size=batch_size, workers=workers):
            if scored.error is not None:
                parity.skipped_images.append(scored.error)
            else:
                assert scored.score is not None
                parity.parts.append(parts[scored.index])
                scores.append(scored.score)
            tell(f"reference on {judge.name}", 1)
        if not parity.parts:
            raise DataError(folder, "has no usable image", str(parity.skipped_images[0]))
        for model, sidecar in sidecars.items():
            for backend, device in candidates(model, backends, devices):
                found = Comparison(model, sidecar, backend, device)
                parity.comparisons.append(found)
                try:
                    with open_backend(model, backend, device, any_batch=True) as loaded:
                        found.versions = loaded.versions
                        _compare(parity, found, loaded, batch_size, workers, tell)
                        found.batch = check_batches(loaded, _examples(parity), batch_size)
                        if explain:
                            worst = max(found.worst).part if found.worst else 0
                            found.explanation = _explain(parity, parity.parts[worst], judge, loaded)
                except TinyUNetError as error:
                    found.skipped = str(error)
                    continue
                found.check(limits)
    return parity


def record_batches(parity: Parity) -> dict[Path, int]:
    """Write the largest verified batch into the sidecar of each model that is green everywhere.

    Returns:
        Model -> batch.
    """
    written = {}
    for model in {comparison.model: None for comparison in parity.comparisons}:
        ran = [c for c in parity.comparisons if c.model == model and c.skipped is None]
        if ran and all(comparison.outcome == "green" for comparison in ran):
            written[model] = min(c.batch.largest for c in ran if c.batch)
            sidecar = read_sidecar(model)
            write_sidecar(model, dataclasses.replace(sidecar, verified_batch=written[model]))
    return written


def check_batches(backend: Backend, images: Sequence[Image], batch_size: int) -> BatchCheck:
    """Score images alone and in company.

    Args:
        images: uint8 [H, W] each; taken again from the first where there are too few.
        batch_size: the largest batch, cut to what the backend takes. Those of a plan's profile,
            smallest, best and largest, are run as well.
    """
    profile: dict[str, int] = backend.artifact.sidecar.origin.get("profile", {})
    most = backend.max_batch or batch_size
    least = backend.min_batch
    sizes = sorted({max(least, min(size, most)) for size in (batch_size, *profile.values())})
    rows = np.stack([images[row % len(images)] for row in range(sizes[-1])])[:, None]
    distinct = min(len(images), len(rows))
    alone = backend.score_alone(rows[:distinct])[np.arange(len(rows)) % distinct]
    steps = dict.fromkeys(("one-by-one", "equal-rows", "permuted-rows", "padded-batch"), 0)

    def hold(what: str, image: Batch, expected: Batch) -> None:
        score = backend.run(image).score[: len(expected)]
        steps[what] = max(steps[what], int(_difference(score, expected).max()))

    for size in sizes:
        hold("one-by-one", rows[:size], alone[:size])
        hold("equal-rows", np.repeat(rows[:1], size, axis=0), np.repeat(alone[:1], size, axis=0))
        hold("permuted-rows", rows[:size][::-1], alone[:size][::-1])
        kept = -(-size // 2)
        padded = rows[:size].copy()
        padded[kept:] = 0
        hold("padded-batch", padded, alone[:kept])
    return BatchCheck(tuple(sizes), steps)


def candidates(
    model: Path, backends: Sequence[str] | None, devices: Sequence[str]
) -> Iterator[tuple[str, str]]:
    """The backends and devices that take such an artifact, whether they are here or not."""
    for name, entry in BACKENDS.items():
        if kind_of(model) in entry.runs and (backends is None or name in backends):
            for device in devices:
                yield name, device


def _compare(
    parity: Parity,
    found: Comparison,
    backend: Backend,
    batch_size: int,
    workers: int,
    tell: Callable[[str, int], None],
) -> None:
    paths = [part.path for part in parity.parts]
    for scored in score_images(paths, backend, batch_size=batch_size, workers=workers):
        if scored.error is not None or scored.score is None:
            raise DataError(scored.path, "was changed during the comparison")
        part = parity.parts[scored.index]
        found.add(
            scored.score,
            parity.scores[scored.index],
            part.name,
            truth=part.truth(scored.score),
            defective=None if part.item is None else part.item.defective,
            threshold=parity.threshold,
            min_area=parity.min_area,
        )
        tell(f"{found.model.name} on {found.backend}", 1)


def _explain(parity: Parity, part: Part, judge: Backend, other: Backend) -> Explanation:
    from tinyunet_deploy.quality.parity_stages import stages

    differences = []
    seen: list[dict[str, NDArray[np.generic]]] = []
    for backend in (judge, other):
        image = read_image(part.path)[None, None]
        score = backend.score_alone(image)
        seen.append(
            {
                "decoded bytes": image,
                **stages(backend, image),
                "score": score,
                "mask": defect_mask(score, parity.threshold),
            }
        )
    for stage in STAGES:
        if stage not in seen[0] or stage not in seen[1]:
            differences.append(StageDifference(stage, None))
            continue
        first, second = (values[stage].astype(np.float64) for values in seen)
        apart = np.abs(first - second)
        found = float((apart > 0).sum() if stage == "mask" else apart.max())
        differences.append(StageDifference(stage, found))
    return Explanation(part.name, tuple(differences))


def _examples(parity: Parity) -> list[Image]:
    """A few images, defective ones first, for the batch check."""
    parts = sorted(parity.parts, key=lambda part: not (part.item and part.item.defective))
    return [read_image(part.path) for part in parts[:4]]


def _difference(score: Batch | Score, expected: Batch | Score) -> NDArray[np.int16]:
    return np.abs(score.astype(np.int16) - expected.astype(np.int16))


def _iou(mask: NDArray[np.bool_], truth: Mask) -> float:
    inside = truth != 0
    return float((mask & inside).sum() / max((mask | inside).sum(), 1))
