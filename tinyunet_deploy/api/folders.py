"""Inspect image files and folders: the images that are there, or new ones as they arrive."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Generator, Iterable
from pathlib import Path

from tinyunet_deploy.api.model import Model, StrPath, lend
from tinyunet_deploy.errors import RefusedError
from tinyunet_deploy.host import processor_count
from tinyunet_deploy.inspection.inspected_part import InspectedPart, inspect_parts
from tinyunet_deploy.inspection.outputs import Outputs
from tinyunet_deploy.inspection.report_line import ReportLine
from tinyunet_deploy.inspection.watch import Watched
from tinyunet_deploy.inspection.watch import watch as watch_folder

__all__ = ["inspect", "watch"]


def inspect(
    images: StrPath | Iterable[StrPath],
    model: Model | StrPath | None = None,
    *,
    threshold: float | None = None,
    min_area: int | None = None,
    tile: bool = True,
    bits: int | None = None,
    max_pixels: int | None = None,
    workers: int | None = None,
    trust_engine: bool = False,
) -> Generator[InspectedPart]:
    """Inspect image files and folders as ``tinyunet infer`` does, and write nothing.

    The parts come one by one while the next images are decoded and scored, so a folder may be of
    any size. An image that cannot be used is a part without a verdict, never left out.

    >>> for part in td.inspect("photos"):
    ...     print(part.name, part.verdict or part.error.reason, part.passes)
    0.png NG False
    1.png OK True
    2.png truncated False

    Args:
        images: a folder, with its subfolders, or an image file, or several of them. An empty
            sequence yields nothing.
        model: a loaded model, whose threshold and min_area are used, or the file of one; None is
            the package's model.
        threshold: probability in [0, 1] above which a pixel is a defect; None is the model's.
        min_area: smallest defect that makes a part NG, pixels; None is the model's.
        tile: take images of any size; False skips those that are not of the network's size.
        bits: bits per pixel of the camera that took 16-bit images, 8..16; None is the value of a
            ``dataset.toml`` in the folder or above it, else the model's, else the one that the file
            states, else 16.
        max_pixels: largest accepted height x width of an image; None is 64 megapixels. An image
            needs up to 15 bytes of memory a pixel.
        workers: threads that read files; None is one per processor.
        trust_engine: load the file of a model that has no sidecar, as for :func:`load`.

    Yields:
        Every image, in the order of names.

    Raises:
        RefusedError: a file or folder does not exist, or there is no image at all.
        ArtifactError, RuntimeUnavailable: as for :func:`load`.
        RuntimeError: the loaded model is in use by another inspection.
        ValueError: the threshold is outside 0..1.
    """
    sources = [Path(images)] if isinstance(images, str | os.PathLike) else list(map(Path, images))
    for source in sources:
        if not source.exists():
            raise RefusedError(source, "does not exist")
    if not sources:
        return
    with lend(model, trust_engine=trust_engine) as lent:
        yield from inspect_parts(
            sources,
            lent.backend,
            threshold=lent.threshold if threshold is None else threshold,
            min_area=lent.min_area if min_area is None else min_area,
            batch_size=lent.batch_size,
            workers=workers or processor_count(),
            tile=tile,
            bits=bits,
            max_pixels=max_pixels,
        )


def watch(
    folder: StrPath,
    output: StrPath,
    model: Model | StrPath | None = None,
    *,
    on_line: Callable[[ReportLine], None],
    stop: threading.Event | None = None,
    threshold: float | None = None,
    min_area: int | None = None,
    tile: bool = True,
    bits: int | None = None,
    max_pixels: int | None = None,
    workers: int | None = None,
    overlays: bool = False,
    scores: bool = False,
    deadline_ms: float | None = None,
    settle_ms: float = 50.0,
    away_s: float = 60.0,
    trust_engine: bool = False,
) -> Watched:
    """Inspect images as a camera drops them into a folder, as ``tinyunet watch`` does.

    Masks and report are written to ``output``; the same call resumes a watch that has ended.

    >>> stop = threading.Event()
    >>> def signal(line):
    ...     print(line["path"], line.get("verdict") or line["reason"])
    ...     if line["path"] == "2.png":
    ...         stop.set()
    >>> watched = td.watch("photos", "verdicts", on_line=signal, stop=stop)
    0.png NG
    1.png OK
    2.png truncated

    Args:
        folder: the camera's folder, with its subfolders.
        output: folder for masks/, report.jsonl and defects.csv; belongs to this watch alone.
        model, threshold, min_area, tile, bits, max_pixels, workers, trust_engine: as for
            :func:`inspect`.
        on_line: called with the report line of each part once its mask is written. A line whose
            ``status`` is ``skipped`` has no verdict: that part is not good.
        stop: ends the watch when it is set; None watches until an exception.
        overlays: also write pictures with the defects outlined.
        scores: also write the scores as grey PNGs.
        deadline_ms: mark verdicts that come later than this after the image, milliseconds.
        settle_ms: inspect a file once its size, time and content have not changed for this long,
            milliseconds.
        away_s: wait this long for the folder to return if it disappears, seconds.

    Returns:
        Counts of this watch and of the whole output folder.

    Raises:
        RefusedError: the output folder belongs to another run, or the camera's folder does not
            return.
        RuntimeUnavailable: the disk is full or read-only; files that were written stay valid.
        ArtifactError, RuntimeError: as for :func:`inspect`.
    """
    with lend(model, trust_engine=trust_engine) as lent:
        return watch_folder(
            Path(folder),
            Path(output),
            lent.backend,
            threshold=lent.threshold if threshold is None else threshold,
            min_area=lent.min_area if min_area is None else min_area,
            batch_size=lent.batch_size,
            workers=workers or processor_count(),
            stop=threading.Event() if stop is None else stop,
            outputs=Outputs(overlays, scores),
            tile=tile,
            bits=bits,
            max_pixels=max_pixels,
            deadline_ms=deadline_ms,
            settle_ms=settle_ms,
            away_s=away_s,
            on_line=on_line,
        )
