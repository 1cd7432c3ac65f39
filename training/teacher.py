"""Scores of a teacher, a trained checkpoint, for the images of a run that learns from it.

A teacher of images scores every training image once, whole, before the first step; its score is
then cropped, turned and flipped with the image, as the mask is. So distillation costs hardly more
than training on the labels alone. The scores are kept in the run's folder until the run is
finished: a resumed run reads the same ones, whatever machine it goes on.

A teacher of crops scores what the network sees, in every step: it says how much of a defect is left
when a crop is stretched, darkened or blended with another, which no label says, and it does not
repeat the labels that it knows by heart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor

from tinyunet_deploy.artifacts.checkpoint import load_checkpoint
from tinyunet_deploy.artifacts.network import DeployableGraph
from tinyunet_deploy.artifacts.sidecar import Artifact, digest, read_artifact
from tinyunet_deploy.backends.torch import TorchBackend
from tinyunet_deploy.cli.progress import Progress
from tinyunet_deploy.contract import Image, Score
from tinyunet_deploy.data.decoding import decode_image
from tinyunet_deploy.data.encoding import encode_png
from tinyunet_deploy.data.tiles import score_in_tiles
from tinyunet_deploy.errors import DataError, ImageError, RefusedError
from tinyunet_deploy.files import read_regular, sweep_tree, write_atomic, writing
from training.distributed import ALONE, Ranks
from training.machine import Machine, choose_device, half_precision
from training.recipe import Recipe
from training.sources import Example, Source, defect_pixels, different_sources

__all__ = ["crop_scorer", "remove_scores", "require_teacher", "scores_digest", "with_scores"]

_FOLDER: Final = "teacher"
"""Folder of the scores in the folder of a run, ``<sha256 of the image's pixels>.png``."""
_LARGEST: Final = 1 << 28
"""Largest file of a score that is read, bytes."""
_SURE: Final = 128
"""Score from which a pixel of an unlabelled image counts as defect, to place crops on."""


def require_teacher(recipe: Recipe, teacher: Path | None, sources: Sequence[Source]) -> None:
    """Check that a recipe that learns from a teacher has one, and no other recipe.

    Raises:
        RefusedError: it does not, or images without a label have no teacher.
    """
    if teacher is None and recipe.teacher:
        raise RefusedError(
            "the recipe", f"gives a teacher {recipe.teacher} of the loss", "give --teacher"
        )
    if teacher is not None and not recipe.teacher:
        raise RefusedError(
            teacher, "is not used by the recipe", "set its field teacher, such as teacher = 0.5"
        )
    if teacher is None and any(source.unlabelled for source in sources):
        raise RefusedError("--unlabelled", "is for a run with a teacher", "give --teacher")


def with_scores(
    sources: Sequence[Source],
    teacher: Path,
    output: Path,
    machine: Machine,
    ranks: Ranks = ALONE,
) -> list[Source]:
    """Return the sources with the teacher's score of every image that trains.

    Scores that an interrupted run left in its folder are not computed again.

    Args:
        teacher: the checkpoint that gives the scores, in the precision of the run.
        output: folder of the run.
        ranks: the processes of the run; each computes its share of the scores.

    Raises:
        ArtifactError: the teacher is missing, changed, or not a checkpoint of a known network.
        DataError: a file of scores is damaged.
        RuntimeUnavailable: the device does not exist, or the disk cannot be written.
    """
    artifact = read_artifact(teacher)
    folder = output / _FOLDER
    if ranks.first:
        with writing(output):
            folder.mkdir(parents=True, exist_ok=True)
        sweep_tree(folder)
    ranks.wait()
    images = {
        _name(example.image): example.image
        for source in different_sources(sources)
        for example in source.trained
    }
    missing = [name for name in sorted(images)[ranks.share] if not (folder / name).exists()]
    if missing:
        _score(images, missing, folder, artifact, machine, ranks)
    ranks.wait()
    scores = {name: _read(folder / name, image) for name, image in images.items()}

    def scored(example: Example) -> Example:
        return replace(example, score=scores[_name(example.image)])

    def guessed(example: Example) -> Example:
        example = scored(example)
        assert example.score is not None
        return replace(example, defect_yx=defect_pixels(np.uint8(255) * (example.score >= _SURE)))

    changed = {
        id(source): replace(
            source,
            defective=tuple(map(scored, source.defective)),
            defect_free=tuple(map(scored, source.defect_free)),
            unlabelled=tuple(map(guessed, source.unlabelled)),
        )
        for source in different_sources(sources)
    }
    return [changed[id(source)] for source in sources]


def crop_scorer(teacher: Path, device: torch.device) -> Callable[[Tensor], Tensor]:
    """Return a function that scores crops: uint8 [N, 1, H, W] on the device -> the same of scores.

    Raises:
        ArtifactError: the teacher is missing, changed, or not a checkpoint of a known network.
    """
    network = load_checkpoint(teacher)[0].to(
        device,
        memory_format=torch.channels_last,  # type: ignore[call-overload]  # torch's stubs lack it
    )
    graph = DeployableGraph(network).eval()

    def score(image_NCHW: Tensor) -> Tensor:
        with torch.no_grad():
            result: Tensor = graph(image_NCHW)
        return result

    return score


def scores_digest(sources: Sequence[Source]) -> str:
    """Return the sha256 over all scores of the sources, in order."""
    parts = (
        digest(example.score.tobytes())
        for source in different_sources(sources)
        for example in source.trained
        if example.score is not None
    )
    return digest("".join(parts).encode())


def remove_scores(output: Path) -> None:
    """Remove the scores from the folder of a run, which a finished run no longer needs."""
    folder = output / _FOLDER
    if folder.is_dir():
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()


def _score(
    images: dict[str, Image],
    names: Sequence[str],
    folder: Path,
    teacher: Artifact,
    machine: Machine,
    ranks: Ranks,
) -> None:
    device = choose_device(machine, ranks)
    where = "cpu" if device.type == "cpu" else str(device)
    with (
        TorchBackend(teacher, where) as backend,
        torch.autocast(device.type, half_precision(device), enabled=machine.amp),
        Progress("teacher's scores", len(names), shown=ranks.first) as progress,
    ):
        for name in names:
            score = score_in_tiles(
                images[name],
                lambda tile: backend.score_alone(np.ascontiguousarray(tile)[None, None])[0, 0],
                teacher.sidecar.tiling,
            )
            write_atomic(folder / name, encode_png(score))
            progress.advance()


def _read(path: Path, image: Image) -> Score:
    try:
        score = decode_image(read_regular(path, limit=_LARGEST), path)
        if score.shape != image.shape:
            raise ImageError(path, "content", "has another size than its image")
    except (OSError, ImageError) as error:
        raise DataError(path, "is damaged", "remove the file; it is made again") from error
    return score


def _name(image: Image) -> str:
    return digest(np.ascontiguousarray(image).tobytes()) + ".png"
