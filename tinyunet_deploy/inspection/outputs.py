"""Turn the score of one image into its verdict, and write the files of that image."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from tinyunet_deploy.backends.base import Backend
from tinyunet_deploy.contract import defect_mask
from tinyunet_deploy.data.decoding import IMAGE_SUFFIXES
from tinyunet_deploy.data.encoding import encode_jpeg, encode_png
from tinyunet_deploy.errors import ImageError
from tinyunet_deploy.files import write_atomic, writing
from tinyunet_deploy.inspection.defects import find_defects, verdict
from tinyunet_deploy.inspection.drift import image_statistics
from tinyunet_deploy.inspection.overlays import overlay
from tinyunet_deploy.inspection.run_report import ReportLine
from tinyunet_deploy.inspection.scoring import Scored
from tinyunet_deploy.inspection.trace import Trace, timed

__all__ = ["Inspection", "Outputs", "png_name"]


@dataclass(frozen=True)
class Outputs:
    """What is written beside the masks and the report."""

    overlays: bool = False
    """Write ``overlays/NAME.jpg``: the image with the mask outlined."""
    scores: bool = False
    """Write ``scores/NAME``: the score as a grey PNG."""
    contours: bool = False
    """Put the outline of each defect into the report."""
    mm_per_px: float | None = None
    """Side of a pixel on the part, millimetres; with it the report gives areas in mm², too."""


@dataclass(frozen=True)
class Inspection:
    """The rules that turn a score into a verdict, and where the files of an image go."""

    root: Path
    """Folder whose tree the output mirrors."""
    output: Path
    """Folder of the masks and the report."""
    threshold: float
    """Probability in [0, 1] above which a pixel is a defect."""
    min_area: int
    """Pixels that a defect must have to make a part NG."""
    tile: bool = False
    """Whether images larger than the network's are inspected in overlapping tiles."""
    outputs: Outputs = Outputs()

    @classmethod
    def for_backend(
        cls,
        backend: Backend,
        root: Path,
        output: Path,
        threshold: float | None = None,
        min_area: int | None = None,
        tile: bool = False,
        outputs: Outputs | None = None,
    ) -> Self:
        """Return the inspection of a backend's scores.

        Args:
            threshold, min_area: None takes the value in the sidecar of the backend's artifact.
        """
        return cls(
            root,
            output,
            *backend.artifact.sidecar.decision(threshold, min_area),
            tile,
            outputs or Outputs(),
        )

    def options(self, backend: Backend) -> dict[str, Any]:
        """Return everything on which masks and report depend, for run.json."""
        return {
            "input_root": str(self.root),
            "model_sha256": backend.artifact.sidecar.sha256,
            "backend": backend.name,
            "device": backend.device,
            "threshold": self.threshold,
            "min_area": self.min_area,
            "tile": self.tile,
            **asdict(self.outputs),
        }

    def name(self, path: Path) -> str:
        """Return the name of an image in the report: its path below the root, with slashes."""
        return path.relative_to(self.root).as_posix()

    def finish(self, scored: Scored, trace: Trace | None = None) -> ReportLine:
        """Write the files of one image and return its line of the report.

        Raises:
            RuntimeUnavailable: the disk is full or read-only.
        """
        name = self.name(scored.path)
        if scored.image is None or scored.score is None:
            assert scored.error is not None
            return _skipped(name, scored.error)
        image, score, index = scored.image, scored.score, scored.index
        if trace is not None:
            trace.left_queue(index)
        with timed(trace, "post-process", index):
            contours = self.outputs.contours
            defects = find_defects(score, self.threshold, self.min_area, contours=contours)
            mask = defect_mask(score, self.threshold)
            statistics = image_statistics(image, score, self.threshold)
        files: dict[str, Callable[[], bytes]] = {}
        files[f"masks/{png_name(name)}"] = lambda: encode_png(mask)
        if self.outputs.scores:
            files[f"scores/{png_name(name)}"] = lambda: encode_png(score)
        if self.outputs.overlays:
            files[f"overlays/{name}.jpg"] = lambda: encode_jpeg(overlay(image, mask))
        try:
            self._write(files, scored, trace)
        except ImageError as error:
            return _skipped(name, error)
        return {
            "path": name,
            "status": "ok",
            "verdict": verdict(defects),
            "max_score": int(score.max()),
            "defects": [defect.as_fields(self.outputs.mm_per_px) for defect in defects],
            "statistics": statistics,
        }

    def _write(
        self, files: dict[str, Callable[[], bytes]], scored: Scored, trace: Trace | None
    ) -> None:
        """Write the files of one image; the mask is the first of them and is written last.

        Raises:
            ImageError: the output needs this name for a folder, as with ``a.jpg`` beside
                ``a.jpg.png/``, or the name is too long.
        """
        try:
            for file in files:
                mirrored = self.root / file.partition("/")[2]
                if mirrored != scored.path and mirrored.is_dir():
                    what = f"needs {file} in the output, which is the name of a folder there"
                    raise ImageError(scored.path, "name-taken", what)
            for file, encode in reversed(files.items()):
                with timed(trace, "encode", scored.index):
                    data = encode()
                with timed(trace, "write", scored.index):
                    _put(self.output / file, data)
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            what = "has too long a name to append .png"
            raise ImageError(scored.path, "name-too-long", what) from error


def png_name(name: str) -> str:
    """Return the name of the mask of an image: its own name, with .png after any other suffix.

    A name such as ``a.jpg.png`` gets .png too, so that it does not share the mask of ``a.jpg``.
    """
    stem = name.lower().removesuffix(".png")
    kept = len(stem) < len(name) and not stem.endswith(tuple(IMAGE_SUFFIXES))
    return name if kept else f"{name}.png"


def _skipped(name: str, error: ImageError) -> ReportLine:
    return {"path": name, "status": "skipped", "reason": error.reason, "what": error.what}


def _put(path: Path, data: bytes) -> None:
    try:
        write_atomic(path, data)
    except FileNotFoundError:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, data)
