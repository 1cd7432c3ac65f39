"""The pictures of a finished run: its curves, and the worst of its validation images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tinyunet_deploy.artifacts.sidecar import read_artifact
from tinyunet_deploy.backends.torch import TorchBackend
from tinyunet_deploy.contract import defect_mask
from tinyunet_deploy.data.encoding import encode_png
from tinyunet_deploy.data.tiles import Tiling, score_in_tiles
from tinyunet_deploy.files import sweep_tree, write_atomic, writing
from tinyunet_deploy.inspection.defects import compare_with_truth
from tinyunet_deploy.inspection.overlays import overlay_with_truth
from training.curve_picture import draw_curves
from training.run_folder import CHECKPOINT
from training.run_result import WORST_FOLDER, read_result
from training.sources import Example, Source, validation_images

__all__ = ["CURVE", "draw_run"]

CURVE = "curve"
"""Name of the picture of the curves, without suffix; there is an SVG and a PNG."""


def draw_run(output: Path, sources: Sequence[Source]) -> None:
    """Draw the curves of a finished run and its worst validation images, unless that was done.

    Writes ``curve.svg``, ``worst/01.png``, ... and, last, ``curve.png`` into the run's folder.

    Raises:
        RuntimeUnavailable: the disk is full, read-only or failing.
    """
    last = output / f"{CURVE}.png"
    if last.exists():
        return
    sweep_tree(output)  # a process that was killed while it drew left a file
    result = read_result(output)
    if result is not None and result["validation"] is not None:
        validation = validation_images(sources)
        worst = result["validation"]["worst"]
        _draw_worst(output, [(row["picture"], validation[row["number"]]) for row in worst])
    write_atomic(output / f"{CURVE}.svg", draw_curves(output, "svg"))
    write_atomic(last, draw_curves(output, "png"))


def _draw_worst(output: Path, pictures: Sequence[tuple[str, Example]]) -> None:
    """Draw defects and truth of each image as the checkpoint sees it."""
    with writing(output):
        (output / WORST_FOLDER).mkdir(exist_ok=True)
    artifact = read_artifact(output / CHECKPOINT)
    sidecar = artifact.sidecar
    facts = sidecar.network
    assert facts is not None, "a checkpoint knows its network"
    tiling = Tiling(sidecar.contract, facts.size_multiple, facts.reach)
    with TorchBackend(artifact) as backend:
        for name, example in pictures:
            score = score_in_tiles(
                example.image, lambda tile: backend.score_alone(tile[None, None])[0, 0], tiling
            )
            findings = compare_with_truth(score, example.mask, sidecar.threshold, sidecar.min_area)
            mask = defect_mask(score, sidecar.threshold)
            picture = overlay_with_truth(example.image, score, mask, example.mask, findings)
            write_atomic(output / name, encode_png(picture))
