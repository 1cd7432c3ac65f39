"""Run every artifact on every backend and compare it with the network it was made from."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tinyunet_deploy.artifacts.foreign import is_foreign
from tinyunet_deploy.artifacts.sidecar import (
    Sidecar,
    read_sidecar,
    write_sidecar,
)
from tinyunet_deploy.backends.base import Backend
from tinyunet_deploy.backends.registry import open_backend
from tinyunet_deploy.backends.table import BackendChoice
from tinyunet_deploy.contract import Image
from tinyunet_deploy.data.bit_depth import BitDepth
from tinyunet_deploy.data.decoding import MAX_PIXELS, read_image, require_content
from tinyunet_deploy.data.description_file import described_bits
from tinyunet_deploy.data.tiles import Tiling
from tinyunet_deploy.errors import (
    ArtifactError,
    DataError,
    GateFailed,
    ImageError,
    RefusedError,
    RuntimeUnavailable,
    TinyUNetError,
)
from tinyunet_deploy.inspection.notes import ScoreTally, log_notes
from tinyunet_deploy.inspection.scoring import score_images
from tinyunet_deploy.quality.batch_check import BatchCheck, check_batches
from tinyunet_deploy.quality.comparison import ScoreComparison, step_difference
from tinyunet_deploy.quality.decision_check import DecisionCheck
from tinyunet_deploy.quality.parity_inputs import (
    ComparedImage,
    backends_and_devices,
    find_images,
    read_sidecars,
    refuse_trained_on,
    spread_images,
)
from tinyunet_deploy.quality.parity_limits import ANOTHER_NETWORK, LimitCheck, Limits, outcome_of
from tinyunet_deploy.quality.parity_plateau import ArtifactPlateau, ReferencePlateau
from tinyunet_deploy.quality.parity_stages import Explanation, explain
from tinyunet_deploy.quality.reference import Reference, choose_reference, open_reference
from tinyunet_deploy.quality.stored_scores import StoredScores

__all__ = [
    "ArtifactParity",
    "Parity",
    "Progress",
    "record_batches",
    "require_green",
    "run_parity",
]

Progress = Callable[[str, int], None]
"""Function that takes a description of the current task and the number of newly finished images."""

_EXAMPLES = 4
"""Number of different images in the batches that are checked."""


@dataclass
class ArtifactParity:
    """Comparison of one artifact, on one backend and device, with the reference."""

    model: Path
    sidecar: Sidecar
    backend: str
    device: str
    comparison: ScoreComparison
    skipped: str | None = None
    """Reason why it did not run and nothing was compared; None if it ran."""
    versions: dict[str, str] = field(default_factory=dict)
    """Package -> version of the packages that compute."""
    batch: BatchCheck | None = None
    explanation: Explanation | None = None
    plateau: ArtifactPlateau | None = None
    """None if it did not run."""
    checks: list[LimitCheck] = field(default_factory=list)
    decision: DecisionCheck | None = None
    """The rule of its sidecar beside the reference's; None where another network is the reference,
    or one of the two has no sidecar."""

    @property
    def decides_alike(self) -> bool:
        """False if its sidecar has another rule for verdicts than the reference's."""
        return self.decision is None or self.decision.holds

    @property
    def figures(self) -> dict[str, float]:
        """Figures by their names in ``parity_limits.toml``; NaN where one is undefined."""
        batch_steps = math.nan if self.batch is None else self.batch.worst_steps
        plateau = {} if self.plateau is None else self.plateau.figures
        return {**self.comparison.figures, **plateau, "batch_steps": batch_steps}

    @property
    def outcome(self) -> str:
        """``green``, ``red``, ``skipped``, or ``no limits``; another rule for verdicts is red."""
        if self.skipped is not None:
            return "skipped"
        return outcome_of(self.checks) if self.decides_alike else "red"


@dataclass
class Parity:
    """All comparisons of one run."""

    folder: Path
    reference: Reference
    reference_sidecar: Sidecar
    reference_backend: str
    reference_versions: dict[str, str]
    threshold: float
    min_area: int
    tiling: Tiling
    """Size of the models, and places of the tiles, which are the same for every model."""
    bits: int | None
    """Depth of 16-bit files; None leaves it to the files."""
    max_pixels: int | None
    """Largest accepted height x width of an image; None is 64 megapixels."""
    images: list[ComparedImage]
    """The images that were compared."""
    skipped_images: list[ImageError]
    scores: StoredScores
    """The reference's scores, in the order of ``images``."""
    plateau: ReferencePlateau
    tally: ScoreTally = field(default_factory=ScoreTally)
    """Number of images that were compared whole, padded and in tiles."""
    refused: list[ArtifactError] = field(default_factory=list)
    """Errors of the models whose file or sidecar is damaged; the others are compared."""
    artifacts: list[ArtifactParity] = field(default_factory=list)

    def read(self, image: ComparedImage) -> Image:
        """Read one of the images again, uint8 [H, W]."""
        pixels = MAX_PIXELS if self.max_pixels is None else self.max_pixels
        return read_image(image.path, max_pixels=pixels, bits=self.bits)

    @property
    def broken(self) -> list[tuple[ArtifactParity, LimitCheck]]:
        """Broken limits, the gravest first."""
        order = [
            (rank, artifact, check)
            for artifact in self.artifacts
            for rank, check in enumerate(artifact.checks)
            if not check.holds
        ]
        return [(artifact, check) for _, artifact, check in sorted(order, key=lambda o: o[0])]

    @property
    def deciding_otherwise(self) -> dict[Path, DecisionCheck]:
        """Model -> its rule and the reference's, for each that was compared and has another."""
        return {
            artifact.model: artifact.decision
            for artifact in self.artifacts
            if artifact.decision is not None and not artifact.decision.holds
            if artifact.skipped is None
        }


def run_parity(
    models: Sequence[Path],
    folder: Path,
    scores: StoredScores,
    *,
    limits: Limits,
    reference: Path | None = None,
    folders: Sequence[Path] = (),
    classes: Sequence[int] | None = None,
    backends: Sequence[BackendChoice] | None = None,
    devices: Sequence[str] = (),
    threshold: float | None = None,
    min_area: int | None = None,
    bits: int | None = None,
    tile: bool = True,
    max_pixels: int | None = None,
    batch_size: int = 4,
    workers: int = 2,
    with_explanation: bool = False,
    trust_engine: bool = False,
    most_images: int | None = None,
    other_network: bool = False,
    progress: Progress | None = None,
    on_total: Callable[[int], None] | None = None,
) -> Parity:
    """Run every artifact on every backend that takes it, and compare its scores with the reference.

    The reference scores each image once. Backends that cannot run are listed as skipped, with the
    reason.

    Args:
        models: artifacts of one image size.
        folder: a labelled data set, whose held-out images are used, or a folder of images.
        scores: empty; takes the reference's scores.
        reference: a checkpoint, or another artifact to compare with; None chooses as
            :func:`~tinyunet_deploy.quality.reference.choose_reference` does for the first model.
        folders: where the first model's relatives are searched, too.
        backends, devices: as for
            :func:`~tinyunet_deploy.quality.parity_inputs.backends_and_devices`.
        threshold, min_area: rule for defects and verdicts; the reference's own if None. An artifact
            whose sidecar has another is then red.
        bits: depth of 16-bit files, 8..16; None takes the data set's, else the reference's own.
        tile: take images of any size, on the reference's tiles; False skips those of another size.
        max_pixels: largest accepted height x width of an image; None is 64 megapixels.
        batch_size: images per call, and the batch that is verified; reduced to what a backend
            takes.
        workers: threads that decode images.
        with_explanation: also find the first stage at which each artifact differs from the
            reference.
        trust_engine: also take models without a sidecar. The first is then its own reference unless
            another is given, so that only backends are compared.
        most_images: compare on so many images at most, as
            :func:`~tinyunet_deploy.quality.parity_inputs.spread_images` chooses them.
        other_network: the reference is another network, such as the teacher of a distilled one.
            Each model decides by its own threshold and min_area, unless they are given, and has the
            limits of ``another-network``. Images that trained a model are refused.
        progress: called for each scored image.
        on_total: called once with the number of images that will be scored, the reference and all
            rows together; those that a skipped row leaves out are reported as scored.

    Raises:
        ArtifactError: no file is the one that its sidecar describes.
        DataError: there is no usable image, a mask is unusable, or an image has one grey value.
        RefusedError: no reference is found, or the models take images of several sizes.
        RuntimeUnavailable: the reference cannot run on this machine.
    """
    sidecars, refused = read_sidecars(models, trust_engine)
    sizes = {(s.contract.height, s.contract.width) for s in sidecars.values()}
    first = next(iter(sidecars))
    if len(sizes) > 1:
        raise RefusedError(first, "and the other models take images of different sizes")
    choice = choose_reference(first, reference, folders, trust_engine=trust_engine)
    report = progress or (lambda _task, _count: None)
    images = spread_images(find_images(folder, classes), most_images)
    if other_network:
        refuse_trained_on(images, sidecars)
    pairs = {model: list(backends_and_devices(model, backends, devices)) for model in sidecars}
    if on_total is not None:
        on_total(len(images) * (1 + sum(map(len, pairs.values()))))
    with open_reference(choice, sizes.pop(), trust_engine=trust_engine) as (choice, opened):
        own = opened.artifact.sidecar
        decision = own.decision(threshold, min_area)
        parity = Parity(
            folder=folder,
            reference=choice,
            reference_sidecar=own,
            reference_backend=opened.name,
            reference_versions=opened.versions,
            threshold=decision.threshold,
            min_area=decision.min_area,
            tiling=own.tiling,
            bits=described_bits([folder], bits, own.bits),
            max_pixels=max_pixels,
            images=[],
            skipped_images=[],
            scores=scores,
            plateau=ReferencePlateau(opened, *decision),
            refused=refused,
        )
        for scored in score_images(
            [image.path for image in images],
            opened,
            batch_size=batch_size,
            workers=workers,
            tile=tile,
            depth=BitDepth(parity.bits),
            max_pixels=max_pixels,
        ):
            parity.tally.add(scored)
            if scored.error is not None:
                parity.skipped_images.append(scored.error)
            else:
                assert scored.image is not None and scored.score is not None
                require_content(scored.image, scored.path)
                parity.images.append(images[scored.index])
                scores.append(scored.score)
                parity.plateau.add(images[scored.index], scored.score)
            report(f"reference on {opened.name}", 1)
        if not parity.images:
            raise DataError(folder, "has no usable image", str(parity.skipped_images[0]))
        log_notes(parity.tally.notes)
        for model, sidecar in sidecars.items():
            for row, device in pairs[model]:
                rule = sidecar.decision(threshold, min_area) if other_network else None
                comparison = ScoreComparison(parity.threshold, parity.min_area, rule)
                artifact = ArtifactParity(model, sidecar, row.name, device, comparison)
                if not (other_network or is_foreign(model) or is_foreign(choice.path)):
                    artifact.decision = DecisionCheck(
                        sidecar.decision(threshold, min_area),
                        decision,
                        choice.path.name,
                        adopted=sidecar.adoption is not None,
                        tuned_alone=bool(sidecar.tuned_on) and not own.tuned_on,
                    )
                parity.artifacts.append(artifact)
                try:
                    with open_backend(
                        model, row, device, trust_engine=trust_engine, any_batch=True
                    ) as backend:
                        artifact.versions = backend.versions
                        _compare(parity, artifact, backend, batch_size, workers, report)
                        artifact.batch = check_batches(backend, _examples(parity), batch_size)
                        if with_explanation:
                            artifact.explanation = _explain(parity, comparison, opened, backend)
                except DataError:
                    raise  # the images are the same for all artifacts
                except TinyUNetError as error:
                    artifact.skipped = str(error)
                else:
                    kind = ANOTHER_NETWORK if other_network else sidecar.precision
                    artifact.checks = limits.check(artifact.figures, kind, row.name)
                report(f"{model.name} on {row.name}", len(images) - comparison.images)
    return parity


def require_green(parity: Parity) -> None:
    """Raise if nothing was compared, a limit is broken or a model is damaged.

    Raises:
        RuntimeUnavailable: every artifact was skipped.
        GateFailed: an artifact has another rule for verdicts than the reference, or a limit is
            broken; the gravest is named.
        ArtifactError: a file is not the one that its sidecar describes.
    """
    if all(artifact.outcome == "skipped" for artifact in parity.artifacts):
        raise RuntimeUnavailable(
            parity.folder, "nothing could be compared", "the reasons are listed above"
        )
    for model, decision in parity.deciding_otherwise.items():
        raise GateFailed(
            model,
            str(decision),
            f"{decision.hint}; or compare both by one rule: {decision.options}",
        )
    if parity.broken:
        artifact, check = parity.broken[0]
        raise GateFailed(
            artifact.model,
            f"{check.limit.figure} on {artifact.backend} is {check.value:.6g}, "
            f"but must be {check.limit}",
            f"{len(parity.broken)} broken in all; {check.limit.reason}",
        )
    if parity.refused:
        raise parity.refused[0]


def record_batches(parity: Parity) -> dict[Path, int]:
    """Write the largest verified batch into the sidecar of each model that is green everywhere.

    Returns:
        Model -> batch.
    """
    written = {}
    for model in {artifact.model: None for artifact in parity.artifacts}:
        ran = [a for a in parity.artifacts if a.model == model and a.skipped is None]
        if ran and all(artifact.outcome == "green" for artifact in ran):
            written[model] = min(a.batch.largest for a in ran if a.batch)
            sidecar = read_sidecar(model)
            write_sidecar(model, dataclasses.replace(sidecar, verified_batch=written[model]))
    return written


def _compare(
    parity: Parity,
    artifact: ArtifactParity,
    backend: Backend,
    batch_size: int,
    workers: int,
    report: Progress,
) -> None:
    """Score every image and add it to the comparison."""
    plateau = ArtifactPlateau(parity.plateau, backend)
    paths = [image.path for image in parity.images]
    for scored in score_images(
        paths,
        backend,
        batch_size=batch_size,
        workers=workers,
        tiling=parity.tiling,
        depth=BitDepth(parity.bits),
        max_pixels=parity.max_pixels,
    ):
        if scored.error is not None or scored.score is None:
            raise DataError(scored.path, "was changed during the comparison")
        image = parity.images[scored.index]
        plateau.add(scored.index, scored.score)
        artifact.comparison.add(
            scored.score,
            parity.scores[scored.index],
            image.name,
            truth=image.truth(scored.score.shape),
            defective=image.defective,
        )
        report(f"{artifact.model.name} on {artifact.backend}", 1)
    artifact.plateau = plateau


def _explain(
    parity: Parity, comparison: ScoreComparison, reference: Backend, backend: Backend
) -> Explanation:
    """Explain the tile that differs most, of the image that differs most."""
    number = tile = 0
    if comparison.worst:
        worst = max(comparison.worst)
        number = worst.image_index
        difference = step_difference(worst.score, parity.scores[number])
        tile = parity.tiling.tile_of_largest(difference.astype(np.uint8))
    image = parity.images[number]
    return explain(
        lambda: parity.tiling.tile(parity.read(image), tile),
        image.name,
        parity.threshold,
        reference,
        backend,
    )


def _examples(parity: Parity) -> list[Image]:
    """Read a tile of a few images for the batch check, defective images first.

    Of each image it is the tile with the highest score of the reference, uint8 of the models' size.
    """
    images = sorted(enumerate(parity.images), key=lambda numbered: not numbered[1].defective)
    return [
        parity.tiling.tile(
            parity.read(image),
            parity.tiling.tile_of_largest(parity.scores[number]),
        )
        for number, image in images[:_EXAMPLES]
    ]
