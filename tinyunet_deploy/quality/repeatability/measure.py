"""Judge every photograph of every part, and keep what decides each verdict."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tinyunet_deploy.artifacts.sidecar import Decision
from tinyunet_deploy.backends.base import Backend
from tinyunet_deploy.contract import Image, score_threshold
from tinyunet_deploy.data.bit_depth import BitDepth
from tinyunet_deploy.data.description_file import described_bits
from tinyunet_deploy.errors import DataError, ImageError
from tinyunet_deploy.inspection.scoring import (
    Scored,
    decode_part,
    score_decoded,
    score_images,
)
from tinyunet_deploy.inspection.walk import common_root, no_images, walk_images
from tinyunet_deploy.quality.part_score import score_part
from tinyunet_deploy.quality.repeatability.layout import find_repeats
from tinyunet_deploy.quality.repeatability.simulation import simulated_photograph
from tinyunet_deploy.quality.repeatability.study import (
    Photograph,
    RepeatabilityStudy,
    RepeatedPart,
    Simulation,
)
from tinyunet_deploy.quality.scored_by import ScoredBy

__all__ = ["count_photographs", "simulate_repeatability", "study_repeatability"]


class _Taken(NamedTuple):
    """Place of one photograph in the study."""

    part: str
    repeat: str


def count_photographs(folder: Path, simulation: Simulation | None) -> int:
    """Return the number of photographs that a study judges, for the progress.

    Raises:
        DataError, RefusedError: as for the study.
    """
    if simulation is None:
        return sum(len(repeat.photographs) for repeat in find_repeats(folder))
    return simulation.repeats * sum(1 for _ in walk_images([folder]))


def study_repeatability(
    folder: Path,
    backend: Backend,
    *,
    threshold: float | None = None,
    min_area: int | None = None,
    batch_size: int = 4,
    workers: int = 2,
    tile: bool = True,
    bits: int | None = None,
    max_pixels: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> RepeatabilityStudy:
    """Judge parts that were photographed several times.

    Args:
        folder: a subfolder for each repeat, with equal file names
            (:mod:`~tinyunet_deploy.quality.repeatability.layout`).
        threshold: probability in [0, 1]; None takes the sidecar's.
        min_area: smallest defect that makes a part NG, pixels; None takes the sidecar's.
        batch_size: images per call of the backend.
        workers: threads that decode images.
        tile: take images of any size; False skips those that are not of the network's size.
        bits: depth of 16-bit files, 8..16; None takes the one that a ``dataset.toml`` of the
            photographs states, else the one in the sidecar.
        max_pixels: largest accepted height x width of an image; None is 64 megapixels.
        progress: takes the number of photographs that are newly judged.

    Raises:
        DataError: the folder does not have that layout, or no part has two usable photographs.
    """
    repeats = find_repeats(folder)
    photographs = [
        (path, _Taken(part, repeat.name))
        for repeat in repeats
        for part, path in repeat.photographs.items()
    ]
    scored = score_images(
        [path for path, _ in photographs],
        backend,
        batch_size=batch_size,
        workers=workers,
        tile=tile,
        depth=BitDepth(described_bits([folder], bits, backend.artifact.sidecar.bits)),
        max_pixels=max_pixels,
    )
    places = [taken for _, taken in photographs]
    decision = backend.artifact.sidecar.decision(threshold, min_area)
    described = [(repeat.name, repeat.conditions) for repeat in repeats]
    return _study(folder, backend, decision, scored, places, described, None, progress)


def simulate_repeatability(
    folder: Path,
    backend: Backend,
    simulation: Simulation,
    *,
    threshold: float | None = None,
    min_area: int | None = None,
    batch_size: int = 4,
    bits: int | None = None,
    max_pixels: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> RepeatabilityStudy:
    """Judge simulated photographs of parts that were photographed once.

    Args:
        folder: an image or a folder of images, one for each part.
        simulation: how the photographs of a part differ.
        threshold, min_area, batch_size, bits, max_pixels, progress: as for
            :func:`study_repeatability`.

    Raises:
        DataError: no image is usable.
        RefusedError: there are no images.
    """
    root = common_root([folder])
    paths = list(walk_images([folder]))
    if not paths:
        raise no_images(root)
    depth = BitDepth(described_bits([folder], bits, backend.artifact.sidecar.bits))
    places: list[_Taken] = []
    unusable: dict[str, ImageError] = {}

    def photographs() -> Iterator[Image]:
        for number, path in enumerate(paths):
            part = path.relative_to(root).as_posix()
            decoded = decode_part(
                number,
                path,
                contract=backend.contract,
                tile=True,
                depth=depth,
                max_pixels=max_pixels,
            )
            if decoded.error is not None:
                unusable[part] = decoded.error
                continue
            assert decoded.image is not None
            for repeat in range(1, simulation.repeats + 1):
                places.append(_Taken(part, f"simulated {repeat}"))
                yield simulated_photograph(decoded.image, simulation, number, repeat)

    scored = score_decoded(photographs(), backend, batch_size=batch_size)
    decision = backend.artifact.sidecar.decision(threshold, min_area)
    described: list[tuple[str, dict[str, str]]] = [
        (f"simulated {repeat}", {}) for repeat in range(1, simulation.repeats + 1)
    ]
    return _study(
        folder, backend, decision, scored, places, described, simulation, progress, unusable
    )


def _study(
    folder: Path,
    backend: Backend,
    decision: Decision,
    scores: Iterator[Scored],
    places: Sequence[_Taken],
    repeats: Sequence[tuple[str, dict[str, str]]],
    simulation: Simulation | None,
    progress: Callable[[int], None] | None,
    unusable: Mapping[str, ImageError] | None = None,
) -> RepeatabilityStudy:
    """Judge the photographs, whose places in the study have the same order."""
    step = score_threshold(decision.threshold)
    by_part: dict[str, list[Photograph]] = {}
    skipped: list[str] = []
    for scored in scores:
        part, repeat = places[scored.index]
        photographs = by_part.setdefault(part, [])
        if scored.score is None:
            assert scored.error is not None
            skipped.append(f"{repeat}/{part}: {scored.error.what}")
        else:
            measured = score_part(scored.score, *decision, name=part, defective=False)
            photographs.append(
                Photograph(
                    repeat,
                    measured.deciding_score,
                    measured.largest_px,
                    "NG" if measured.deciding_score > step else "OK",
                )
            )
        if progress is not None:
            progress(1)
    skipped += [f"{part}: {error.what}" for part, error in (unusable or {}).items()]
    parts = [
        RepeatedPart(name, tuple(photographs))
        for name, photographs in sorted(by_part.items())
        if len(photographs) > 1
    ]
    if not parts:
        first = skipped[0] if skipped else "none was there twice"
        raise DataError(folder, "has no part with two usable photographs", f"the first: {first}")
    return RepeatabilityStudy(
        scored_by=ScoredBy.of(backend),
        folder=folder.resolve().name,
        threshold=decision.threshold,
        threshold_steps=step,
        min_area_px=decision.min_area,
        repeats=tuple(repeats),
        parts=tuple(parts),
        alone=tuple(name for name, photos in sorted(by_part.items()) if len(photos) < 2),
        skipped=tuple(skipped),
        simulation=simulation,
    )
