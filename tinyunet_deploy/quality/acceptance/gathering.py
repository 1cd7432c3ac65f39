"""Gather the evidence of an acceptance test: run the model, and take in what other verbs wrote."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from tinyunet_deploy.artifacts.golden import golden_path
from tinyunet_deploy.artifacts.sidecar import sidecar_path
from tinyunet_deploy.backends.base import Backend
from tinyunet_deploy.backends.registry import open_backend
from tinyunet_deploy.data.dataset import Dataset
from tinyunet_deploy.errors import DataError
from tinyunet_deploy.host import describe_machine
from tinyunet_deploy.inspection.drift import read_statistics
from tinyunet_deploy.inspection.run_report import REPORT
from tinyunet_deploy.inspection.walk import walk_images
from tinyunet_deploy.quality.acceptance.comparison_evidence import compare_artifact
from tinyunet_deploy.quality.acceptance.evidence import (
    Evidence,
    InputFile,
    ModelFacts,
    PartPicture,
    RepeatFigures,
    SeenImages,
)
from tinyunet_deploy.quality.acceptance.inputs import (
    HashedFolder,
    hash_dataset,
    hash_file,
    hash_files,
)
from tinyunet_deploy.quality.acceptance.judged_evidence import (
    detection_evidence,
    drift_evidence,
    self_test_evidence,
)
from tinyunet_deploy.quality.acceptance.line_result import read_line
from tinyunet_deploy.quality.acceptance.model_lineage import Origin, read_origin
from tinyunet_deploy.quality.acceptance.pictures import draw_parts
from tinyunet_deploy.quality.acceptance.requirements import DEFAULTS, Requirements
from tinyunet_deploy.quality.acceptance.shadow_evidence import (
    read_shadow,
    require_challenger,
    shadow_evidence,
)
from tinyunet_deploy.quality.acceptance.studies import plateau_evidence, read_study, repeat_evidence
from tinyunet_deploy.quality.dataset_scoring import read_evaluated
from tinyunet_deploy.quality.evaluation import Evaluation, evaluate
from tinyunet_deploy.quality.repeatability.measure import count_photographs, study_repeatability
from tinyunet_deploy.quality.repeatability.study import RepeatabilityStudy

__all__ = ["Gathered", "RunOptions", "Sources", "gather"]

Split = Literal["train", "val", "test", "all"]


@dataclass(frozen=True)
class Sources:
    """Files and folders that a test rests on."""

    data: Path
    """Labelled data set."""
    model: Path
    requirements: Path | None = None
    """File of requirements; None for the package's."""
    reference: Path | None = None
    """Model whose scores are taken as correct; None chooses as ``tinyunet parity`` does."""
    search: tuple[Path, ...] = ()
    """Folders to search for the model's ancestors."""
    trained_on: tuple[Path, ...] = ()
    """Folders of the images that trained the model, if its sidecar does not name them."""
    line: Path | None = None
    """Result of ``tinyunet line-sim``."""
    baseline: Path | None = None
    """Report of images of the line, or its folder."""
    repeats: Path | None = None
    """Folder of repeated photographs, or the ``repeatability.json`` of a study."""
    shadow: Path | None = None
    """Report of a shadow run in which the model was the challenger."""


@dataclass(frozen=True)
class RunOptions:
    """How the model is run; see :func:`~tinyunet_deploy.quality.evaluation.evaluate`."""

    backend: str | None = None
    device: str | None = None
    trust_engine: bool = False
    classes: Sequence[int] | None = None
    split: Split | None = None
    tile: bool = True
    bits: int | None = None
    max_pixels: int | None = None
    batch_size: int = 4
    workers: int = 2
    parity_images: int = 200
    """Largest number of images on which the artifact is compared with its reference."""


class Gathered(NamedTuple):
    """Evidence, and what the page and the result file show beside it."""

    evidence: Evidence
    pictures: tuple[PartPicture, ...]
    inputs: tuple[InputFile, ...]
    listing: str
    """sha256 and name of every file of the data set, as ``sha256sum`` writes them."""
    evaluation: Evaluation | None
    """None if the model was not run."""


Progress = Callable[[str, int], None]
"""Function that takes a description of the current task and the number of newly finished images."""


def gather(
    sources: Sources,
    options: RunOptions,
    requirements: Requirements,
    *,
    progress: Progress,
    on_total: Callable[[int], None],
) -> Gathered:
    """Run the model on the data set and on its golden images, and compare it with its reference.

    A model whose bytes are not those that its sidecar describes is not run: its lineage is then the
    only evidence.

    Args:
        progress: called for each scored image.
        on_total: called with the number of images that will be scored, when it becomes known.

    Raises:
        ArtifactError: the model is missing, has no sidecar and is not trusted, or cannot be loaded.
        DataError: the data set or a file of evidence is unusable.
        RuntimeUnavailable: the backend cannot run here.
    """
    line = None if sources.line is None else read_line(sources.line)
    baseline = None if sources.baseline is None else read_statistics(sources.baseline)
    study = None
    if sources.repeats is not None and sources.repeats.is_file():
        study = read_study(sources.repeats)
    shadow = None if sources.shadow is None else read_shadow(sources.shadow)
    dataset = read_evaluated(sources.data, classes=options.classes, split=options.split)
    origin = read_origin(sources.model, sources.search, trust_engine=options.trust_engine)
    if sources.shadow is not None and shadow is not None and origin.blocked is None:
        require_challenger(sources.shadow, shadow, origin.facts)
    photographs = 0
    if study is None and sources.repeats is not None:
        photographs = count_photographs(sources.repeats, None)
    judged = len(dataset.items) + photographs
    on_total(judged)
    progress("hashing the images", 0)
    hashed = hash_dataset(dataset, options.workers)
    inputs = tuple(_inputs(sources, dataset, hashed, origin))
    data = f"{dataset.root.resolve().name}, {dataset.layout} layout"
    processor = str(describe_machine()["processor"])
    if origin.blocked is not None:
        evidence = Evidence(origin.facts, data, origin.links, origin.blocked, processor=processor)
        return Gathered(evidence, (), inputs, hashed.listing, None)
    seen = _seen(dataset, hashed, origin, sources.trained_on)
    progress("loading the model", 0)
    with open_backend(
        sources.model, options.backend, options.device, trust_engine=options.trust_engine
    ) as backend:
        evaluation = _evaluate(dataset, backend, options, lambda n: progress("judging parts", n))
        tested = self_test_evidence(backend)
        repeats = _repeats(sources.repeats, study, evaluation, backend, options, progress)
        pictures = tuple(
            draw_parts(
                evaluation,
                backend,
                tile=options.tile,
                bits=options.bits,
                max_pixels=options.max_pixels,
            )
        )
        model = _facts(origin.facts, backend)
    compared = compare_artifact(
        sources.model,
        sources.data,
        model,
        reference=sources.reference,
        search=sources.search,
        trust_engine=options.trust_engine,
        classes=options.classes,
        tile=options.tile,
        bits=options.bits,
        max_pixels=options.max_pixels,
        batch_size=options.batch_size,
        workers=options.workers,
        most_images=options.parity_images,
        progress=progress,
        on_total=lambda number: on_total(judged + number),
    )
    drift = None
    if sources.baseline is not None and baseline is not None:
        drift = drift_evidence(evaluation, sources.baseline, baseline, requirements.drift.alpha)
    shadowed = None
    if sources.shadow is not None and shadow is not None:
        shadowed = shadow_evidence(sources.shadow.name, shadow, model)
    evidence = Evidence(
        model=model,
        data=data,
        lineage=origin.links,
        seen=seen,
        detection=detection_evidence(evaluation),
        parity=compared.parity,
        batches=compared.batches,
        self_test=tested,
        line=line,
        drift=drift,
        repeatability=repeats,
        plateau=plateau_evidence(evaluation, compared.plateau_kept),
        shadow=shadowed,
        processor=processor,
    )
    return Gathered(evidence, pictures, inputs, hashed.listing, evaluation)


def _inputs(
    sources: Sources, dataset: Dataset, hashed: HashedFolder, origin: Origin
) -> list[InputFile]:
    files = [
        ("model", sources.model),
        ("sidecar", sidecar_path(sources.model)),
        ("golden images", golden_path(sources.model)),
        *(("ancestor", path) for path in origin.ancestors),
        ("reference", sources.reference),
        ("requirements", sources.requirements or DEFAULTS),
        ("line", sources.line),
        ("shadow run", sources.shadow),
    ]
    inputs = [hash_file(role, path) for role, path in files if path is not None and path.exists()]
    inputs.append(hashed.as_input("images and masks", dataset.root.resolve().name))
    if sources.baseline is not None:
        report = sources.baseline / REPORT if sources.baseline.is_dir() else sources.baseline
        inputs.append(hash_file("baseline", report))
    if sources.repeats is not None:
        inputs.append(_repeats_input(sources.repeats))
    return inputs


def _repeats_input(path: Path) -> InputFile:
    role = "repeated photographs"
    if path.is_file():
        return hash_file(role, path)
    return hash_files(path, walk_images([path]), 1).as_input(role, path.resolve().name)


def _repeats(
    path: Path | None,
    study: RepeatabilityStudy | None,
    evaluation: Evaluation,
    backend: Backend,
    options: RunOptions,
    progress: Progress,
) -> RepeatFigures | None:
    """Return what repeated photographs show: of a study, or of a folder that is judged now."""
    if path is None:
        return None
    if study is None:
        study = study_repeatability(
            path,
            backend,
            batch_size=options.batch_size,
            workers=options.workers,
            tile=options.tile,
            bits=options.bits,
            max_pixels=options.max_pixels,
            progress=lambda number: progress("judging repeated photographs", number),
        )
    return repeat_evidence(path.resolve().name, study, evaluation)


def _facts(facts: ModelFacts, backend: Backend) -> ModelFacts:
    """Add the backend, and what only loading tells about a file without a sidecar."""
    sidecar = backend.artifact.sidecar
    return ModelFacts(
        name=facts.name,
        sha256=sidecar.sha256,
        kind=sidecar.kind,
        precision=sidecar.precision,
        backend=backend.name,
        device=backend.device,
        threshold=sidecar.threshold,
        min_area_px=sidecar.min_area,
        versions=dict(backend.versions),
    )


def _seen(
    dataset: Dataset, hashed: HashedFolder, origin: Origin, folders: Sequence[Path]
) -> SeenImages:
    """Count the judged images whose bytes trained or tuned the model."""
    trained_on = set(origin.trained_on)
    for folder in folders:
        images = list(walk_images([folder]))
        if not images:
            raise DataError(folder, "contains no images")
        trained_on.update(d[:16] for d in hash_files(folder, images, 1).digests.values())
    digests = [hashed.digests[item.image][:16] for item in dataset.items]
    return SeenImages(
        images=len(digests),
        trained_on=sum(digest in trained_on for digest in digests),
        tuned_on=sum(digest in origin.tuned_on for digest in digests),
        known=bool(trained_on),
        folders=_names(folders),
    )


def _names(folders: Sequence[Path]) -> tuple[str, ...]:
    """Return the name of each folder; with its parent's if they would not differ."""
    paths = [folder.resolve() for folder in folders]
    names = tuple(path.name for path in paths)
    if len(set(names)) < len(names):
        return tuple(f"{path.parent.name}/{path.name}" for path in paths)
    return names


def _evaluate(
    dataset: Dataset, backend: Backend, options: RunOptions, progress: Callable[[int], None]
) -> Evaluation:
    decision = backend.artifact.sidecar.decision()
    return evaluate(
        dataset,
        backend,
        threshold=decision.threshold,
        min_area=decision.min_area,
        batch_size=options.batch_size,
        workers=options.workers,
        tile=options.tile,
        bits=options.bits,
        max_pixels=options.max_pixels,
        with_statistics=True,
        progress=progress,
    )
