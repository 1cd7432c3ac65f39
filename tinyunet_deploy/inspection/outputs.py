"""Turn the score of one image into its verdict, and write the files of that image."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from tinyunet_deploy.backends.base import Backend
from tinyunet_deploy.contract import Image, Score
from tinyunet_deploy.data.bit_depth import BitDepth
from tinyunet_deploy.data.encoding import encode_jpeg, encode_png
from tinyunet_deploy.errors import ImageError, RuntimeUnavailable
from tinyunet_deploy.files import write_atomic, writing
from tinyunet_deploy.inspection.drift import image_statistics
from tinyunet_deploy.inspection.inspected_part import inspect_score
from tinyunet_deploy.inspection.output_names import FOLDERS, mask_name, overlay_name
from tinyunet_deploy.inspection.report_line import ReportLine
from tinyunet_deploy.inspection.run_json import RUN
from tinyunet_deploy.inspection.scoring import Scored
from tinyunet_deploy.inspection.trace import Trace, timed

__all__ = ["Inspection", "Observer", "Outputs"]

Observer = Callable[[str, Image, Score], None]
"""Function that takes the name of an image in the report, the image, and its score."""


@dataclass(frozen=True)
class Outputs:
    """Optional outputs beside the masks and the report."""

    overlays: bool = False
    """True to write ``overlays/NAME.jpg``: the image with its defects, the verdict below it."""
    scores: bool = False
    """True to write ``scores/NAME``: the score as a grey PNG."""
    contours: bool = False
    """True to put the outline of each defect into the report."""
    mm_per_px: float | None = None
    """Side of a pixel on the part, millimetres; with it the report gives areas in mm², too."""


@dataclass(frozen=True)
class Inspection:
    """Rules that turn a score into a verdict, and the paths of an image's output files."""

    root: Path
    """Folder whose tree the output mirrors."""
    output: Path
    """Folder of the masks and the report."""
    threshold: float
    """Probability in [0, 1] above which a pixel is a defect."""
    min_area: int
    """Smallest defect that makes a part NG, pixels."""
    tile: bool = True
    """True if images of any size are inspected, not only those of the network's size."""
    outputs: Outputs = Outputs()
    depth: BitDepth = field(default_factory=BitDepth)
    """Depth of 16-bit files; warns once per run."""
    max_pixels: int | None = None
    """Largest accepted height x width of an image; None is 64 megapixels."""
    changes: Mapping[str, int] = field(default_factory=dict)
    """Image -> number of its change, for files that changed after a verdict and are now another
    part."""
    clashes: frozenset[str] = frozenset()
    """Images that are skipped because their masks would be one file."""
    observer: Observer | None = None
    """Takes the name, image and score of each image whose files are in place, on any thread."""

    @classmethod
    def for_backend(
        cls,
        backend: Backend,
        root: Path,
        output: Path,
        threshold: float | None = None,
        min_area: int | None = None,
        tile: bool = True,
        outputs: Outputs | None = None,
        bits: int | None = None,
        max_pixels: int | None = None,
        observer: Observer | None = None,
    ) -> Self:
        """Return the inspection of a backend's scores.

        Args:
            threshold, min_area, bits: None takes the value in the artifact's sidecar.
            observer: as for the attribute.
        """
        return cls(
            root,
            output,
            *backend.artifact.sidecar.decision(threshold, min_area),
            tile,
            outputs or Outputs(),
            BitDepth(backend.artifact.sidecar.bit_depth(bits)),
            max_pixels,
            observer=observer,
        )

    def options(self, backend: Backend, verb: Literal["infer", "watch"]) -> dict[str, Any]:
        """Return everything on which masks and report depend, for run.json.

        Args:
            verb: command that writes the folder. For ``infer``, an image that is gone no longer has
                a verdict; for ``watch``, it is a part that has passed.
        """
        tiling = backend.artifact.sidecar.tiling
        return {
            "verb": verb,
            "input_root": str(self.root),
            "model_sha256": backend.artifact.sidecar.sha256,
            "size": [tiling.contract.height, tiling.contract.width],
            "size_multiple": tiling.size_multiple,
            "reach": None if tiling.reach is None else list(tiling.reach),
            "backend": backend.name,
            "device": backend.device,
            "threshold": self.threshold,
            "min_area": self.min_area,
            "tile": self.tile,
            "bits": self.depth.bits,
            "max_pixels": self.max_pixels,
            **asdict(self.outputs),
        }

    def name(self, path: Path) -> str:
        """Return the name of an image in the report: its path below the root, with slashes."""
        return path.relative_to(self.root).as_posix()

    def finish(self, scored: Scored, trace: Trace | None = None) -> ReportLine:
        """Write the files of one image and return its line of the report.

        Raises:
            RuntimeUnavailable: the disk is full or read-only, or the output folder was deleted.
        """
        name, index = self.name(scored.path), scored.index
        line: ReportLine = {"path": name, "status": "inspected"}
        if name in self.changes:
            line["change"] = self.changes[name]
        if scored.identity is not None:
            line["size_bytes"], line["mtime_ns"], line["sha256"] = scored.identity
        try:
            if scored.error is not None:
                raise scored.error
            if name in self.clashes:
                what = "would share its mask with an image whose name differs only in case"
                raise ImageError(scored.path, "name-taken", what, "rename one of them")
            image, score = scored.image, scored.score
            assert image is not None
            assert score is not None
            if trace is not None:
                trace.left_queue(index)
            with timed(trace, "post-process", index):
                part = inspect_score(
                    scored.path,
                    name,
                    image,
                    score,
                    threshold=self.threshold,
                    min_area=self.min_area,
                    contours=self.outputs.contours,
                )
                statistics = image_statistics(image, score, self.threshold)
            assert part.mask is not None
            assert part.verdict is not None
            mask = part.mask
            encoders: dict[str, Callable[[], bytes]] = {
                "masks": lambda: encode_png(mask),
                "scores": lambda: encode_png(score),
                "overlays": lambda: encode_jpeg(part.overlay(self.outputs.mm_per_px)),
            }
            written = self._write(self.files(name), encoders, scored, trace)
        except ImageError as error:
            return {**line, "status": "skipped", "reason": error.reason, "what": error.what}
        if scored.fit != "whole":
            line["fit"] = scored.fit
        if scored.approximate:
            line["approximate"] = True
        if self.observer is not None:
            self.observer(name, image, score)
        return {
            **line,
            "verdict": part.verdict,
            "max_score": int(score.max()),
            "defects": [defect.as_fields(self.outputs.mm_per_px) for defect in part.defects],
            "statistics": statistics,
            "output_bytes": written,
        }

    def files(self, name: str, change: int | None = None) -> dict[str, str]:
        """Return folder -> path in the output folder of the files that an image gets.

        Args:
            change: number of the change of the image's file; None takes the current one.
        """
        change = self.changes.get(name, 0) if change is None else change
        files = {"masks": f"masks/{mask_name(name, change)}"}
        if self.outputs.scores:
            files["scores"] = f"scores/{mask_name(name, change)}"
        if self.outputs.overlays:
            files["overlays"] = f"overlays/{overlay_name(name, change)}"
        return files

    def has_files(self, line: ReportLine) -> bool:
        """Return whether the files of a report line exist with the sizes that were written."""
        sizes = line.get("output_bytes", {})
        files = self.files(line["path"], line.get("change", 0))
        try:
            return all(
                (self.output / file).stat().st_size == sizes[folder]
                for folder, file in files.items()
            )
        except (OSError, KeyError, TypeError):
            return False

    def remove_files(self, line: ReportLine) -> None:
        """Remove the files of an image whose verdict no longer holds.

        Args:
            line: the image's line of the report, whose path must lie below the root.
        """
        for folder, file in self.files(line["path"], line.get("change", 0)).items():
            path = self.output / file
            with contextlib.suppress(OSError):  # missing, or a folder that is in use
                path.unlink()
                for above in path.parents:
                    if above == self.output / folder:
                        break
                    above.rmdir()

    def _write(
        self,
        files: dict[str, str],
        encoders: Mapping[str, Callable[[], bytes]],
        scored: Scored,
        trace: Trace | None,
    ) -> dict[str, int]:
        """Write the files of one image, the mask last, and return their sizes in bytes.

        Raises:
            ImageError: the output needs this name for a folder, as with ``a.jpg`` beside
                ``a-jpg.png/``, or the name is too long.
        """
        sizes = {}
        try:
            for file in files.values():
                mirrored = self.root / file.partition("/")[2]
                if mirrored != scored.path and mirrored.is_dir():
                    raise IsADirectoryError(errno.EISDIR, "is a folder", file)
            for folder, file in reversed(files.items()):
                with timed(trace, "encode", scored.index):
                    data = encoders[folder]()
                with timed(trace, "write", scored.index):
                    self._put(file, data)
                sizes[folder] = len(data)
        except (IsADirectoryError, NotADirectoryError, FileExistsError) as error:
            what = f"needs {file} in the output, where a folder and a file have the same name"
            raise ImageError(scored.path, "name-taken", what) from error
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            what = "has too long a name to append .png"
            raise ImageError(scored.path, "name-too-long", what) from error
        return {folder: sizes[folder] for folder in FOLDERS if folder in sizes}

    def _put(self, file: str, data: bytes) -> None:
        path = self.output / file
        try:
            write_atomic(path, data)
        except FileNotFoundError:
            if not (self.output / RUN).exists():
                raise RuntimeUnavailable(
                    self.output, "was deleted while it was written", "run the command again"
                ) from None
            with writing(path):
                path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, data)
