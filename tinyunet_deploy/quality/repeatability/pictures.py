"""Draw a repeatability study, and the parts whose verdict flips."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from tinyunet_deploy.backends.base import Backend
from tinyunet_deploy.contract import Image, defect_mask
from tinyunet_deploy.data.decoding import MAX_PIXELS, read_image
from tinyunet_deploy.data.description_file import described_bits
from tinyunet_deploy.data.encoding import encode_jpeg
from tinyunet_deploy.files import write_atomic
from tinyunet_deploy.inspection.defects import Verdict, find_defects
from tinyunet_deploy.inspection.drawing import draw_svg
from tinyunet_deploy.inspection.output_names import overlay_name
from tinyunet_deploy.inspection.overlays import overlay
from tinyunet_deploy.inspection.scoring import score_decoded
from tinyunet_deploy.inspection.walk import common_root, walk_images
from tinyunet_deploy.quality.repeatability.simulation import simulated_photograph
from tinyunet_deploy.quality.repeatability.study import RepeatabilityStudy, RepeatedPart

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["FLIPS", "MOST_FLIPS", "draw_study", "inline_study", "write_flips"]

FLIPS: Final = "flips"
"""Folder of the pictures of parts that flip."""
MOST_FLIPS: Final = 50
"""Largest number of parts that are drawn."""


def write_flips(
    study: RepeatabilityStudy,
    folder: Path,
    backend: Backend,
    output: Path,
    *,
    bits: int | None = None,
    max_pixels: int | None = None,
) -> int:
    """Draw each part that flips: a photograph that was passed beside one that was rejected.

    Args:
        folder: the photographs of the study.
        output: folder of the pictures, which mirror the names of the parts.
        bits, max_pixels: as for the study.

    Returns:
        Number of pictures, :data:`MOST_FLIPS` at most.

    Raises:
        ImageError: a photograph was changed or removed since the study.
        RuntimeUnavailable: the disk is full or read-only.
    """
    numbers: dict[str, int] = {}
    root = folder
    if study.simulation is not None:
        root = common_root([folder])
        paths = walk_images([folder])
        numbers = {path.relative_to(root).as_posix(): at for at, path in enumerate(paths)}
    depth = described_bits([folder], bits, backend.artifact.sidecar.bits)
    pixels = MAX_PIXELS if max_pixels is None else max_pixels

    def photograph(part: str, repeat: str) -> Image:
        if study.simulation is None:
            return read_image(root / repeat / part, max_pixels=pixels, bits=depth)
        image = read_image(root / part, max_pixels=pixels, bits=depth)
        return simulated_photograph(
            image, study.simulation, numbers[part], int(repeat.rpartition(" ")[2])
        )

    drawn = study.flips[:MOST_FLIPS]
    pairs = [_pair(part) for part in drawn]

    def photographs() -> Iterator[Image]:
        for part, pair in zip(drawn, pairs, strict=True):
            for repeat in pair:
                yield photograph(part.name, repeat)

    pictures: list[NDArray[np.uint8]] = []
    for scored in score_decoded(photographs(), backend, batch_size=1):
        assert scored.image is not None
        assert scored.score is not None
        mask = defect_mask(scored.score, study.threshold)
        defects = find_defects(scored.score, study.threshold, study.min_area_px)
        pictures.append(overlay(scored.image, scored.score, mask, defects))
        if len(pictures) == 2:
            path = output / overlay_name(drawn[scored.index // 2].name)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, encode_jpeg(_side_by_side(pictures)))
            pictures.clear()
    return len(drawn)


def _pair(part: RepeatedPart) -> tuple[str, str]:
    """Return the repeats of the most different photographs that were passed and rejected."""

    def repeats(verdict: Verdict) -> list[tuple[int, str]]:
        photographs = [photo for photo in part.photographs if photo.verdict == verdict]
        return [(photo.deciding_score, photo.repeat) for photo in photographs]

    return min(repeats("OK"))[1], max(repeats("NG"))[1]


def _side_by_side(pictures: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    height = max(len(picture) for picture in pictures)
    padded = [np.pad(picture, ((0, height - len(picture)), (0, 8), (0, 0))) for picture in pictures]
    return np.hstack(padded)[:, :-8]


def draw_study(study: RepeatabilityStudy) -> bytes:
    """Draw an SVG: the deciding score of every photograph of every part, beside the threshold.

    Raises:
        RuntimeUnavailable: matplotlib is not installed.
    """
    return draw_svg(9.5, 3.6, lambda figure: _draw(figure, study))


def inline_study(study: RepeatabilityStudy) -> str:
    """Draw the picture of :func:`draw_study` as an ``<svg>`` element for an HTML page.

    Raises:
        RuntimeUnavailable: matplotlib is not installed.
    """
    text = draw_study(study).decode()
    return text[text.index("<svg") :]


def _draw(figure: Figure, study: RepeatabilityStudy) -> None:
    axes = figure.subplots()
    parts = sorted(study.parts, key=lambda part: (_mean(part), part.name))
    for agrees, color, marker, label in (
        (True, "#0072b2", "o", "one verdict"),
        (False, "#d55e00", "D", "both verdicts"),
    ):
        points = [
            (at, photo.deciding_score / 255)
            for at, part in enumerate(parts, start=1)
            if part.agrees == agrees
            for photo in part.photographs
        ]
        if points:
            axes.plot(*zip(*points, strict=True), marker, color=color, ms=4, alpha=0.5, label=label)
    axes.axhline(study.threshold, color="black", lw=1.5)
    made = "simulated photographs" if study.simulation is not None else "photographs"
    axes.set(
        xlabel="part, by its mean score",
        ylabel="deciding score / 255",
        ylim=(-0.03, 1.03),
        xlim=(0.5, len(parts) + 0.5),
    )
    axes.set_title(
        f"{study.photographs} {made} of {len(parts)} parts, threshold {study.threshold:g}",
        loc="left",
        fontsize="medium",
    )
    axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2)
    axes.grid(alpha=0.3)


def _mean(part: RepeatedPart) -> float:
    scores = [photo.deciding_score for photo in part.photographs]
    return sum(scores) / len(scores)
