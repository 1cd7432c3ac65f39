"""Find the image files below files and folders."""

from __future__ import annotations

import errno
import heapq
import itertools
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Final, Literal, NamedTuple

from tinyunet_deploy.data.decoding import IMAGE_SUFFIXES
from tinyunet_deploy.data.description import DESCRIPTION, Description
from tinyunet_deploy.data.description_file import description_above, read_description
from tinyunet_deploy.data.layouts.label_names import (
    image_of_label,
    is_mask_folder,
    label_files,
    stem,
)
from tinyunet_deploy.data.layouts.released import is_truth_folder
from tinyunet_deploy.errors import RefusedError
from tinyunet_deploy.files import reading
from tinyunet_deploy.inspection.run_json import is_output

__all__ = [
    "PassedOver",
    "common_root",
    "label_files_in",
    "looks_like_a_label",
    "no_images",
    "walk_images",
]

PassedOver = Literal[
    "suffix", "hidden", "linked-folder", "label-folder", "label-file", "earlier-output"
]
"""Reason why an entry of a folder is not inspected: its suffix is not one of an image, its name
begins with a dot, it is a link to a folder, a folder of masks (``Label/`` of DAGM2007, ``masks/``
beside ``images/``, ``ground_truth/`` beside a split), the mask of the image beside it
(:func:`~tinyunet_deploy.data.layouts.label_names.label_files`) or one that a ``dataset.toml``
describes, or an output folder of ours."""

_MAX_DEPTH: Final = 200
"""Deepest nesting of folders that is walked; no station comes near it."""
_SUFFIXES: Final = tuple(IMAGE_SUFFIXES)
_MOST_COUNTS: Final = 24
"""Most counts that a run has; more suffixes are counted together."""


def no_images(folder: Path) -> RefusedError:
    """Return the error for a folder without any image."""
    suffixes = " ".join(sorted(IMAGE_SUFFIXES))
    return RefusedError(folder, "contains no images", f"image files end in {suffixes}")


def common_root(sources: Sequence[Path]) -> Path:
    """Return the deepest folder above all sources: the output mirrors the tree below it."""
    placed = map(_placed, sources)
    return Path(os.path.commonpath([path if path.is_dir() else path.parent for path in placed]))


def walk_images(
    sources: Sequence[Path],
    output: Path | None = None,
    passed_over: Counter[str] | None = None,
) -> Iterator[Path]:
    """Yield the image files below the sources, each once, in the order of their names.

    In a folder, the entries of :data:`PassedOver` and ``output`` itself are passed over. A file
    that is named as a source is always yielded. A folder below a source that cannot be listed, or
    is nested too deep, is yielded in place of its contents: reading it as an image fails, so the
    report has a line about it.

    Args:
        output: output folder of this run, which may lie below a source.
        passed_over: receives the number of entries of each kind that were passed over, and of each
            usual suffix, as ``suffix .gif``; complete once the iterator is exhausted.

    Raises:
        RefusedError: a source folder cannot be listed, or is an output folder of ours.
        DataError: a ``dataset.toml`` in a folder or above it is not valid.
    """
    placed = sorted({_placed(source) for source in sources}, key=lambda path: path.parts)
    folders = [path for path in placed if path.is_dir()]
    for path in placed:
        _refuse_output(path if path.is_dir() else path.parent, path)
    named = [_Entry(path) for path in placed if not path.is_dir()]
    walks = [_walk(path, output and output.resolve(), description_above(path)) for path in folders]
    entries = heapq.merge(named, *walks, key=lambda entry: entry.path.parts)
    sources_in_folders = set(placed)
    for path, group in itertools.groupby(entries, lambda entry: entry.path):
        # An entry that one source passes over may be another source, or below it. The group is
        # not read further than needed: what follows it is not listed before it is asked for.
        kind = None
        for entry in group:
            kind = entry.passed_over
            if kind is None:
                yield path
                break
        if kind is None:
            continue
        if passed_over is not None and path not in sources_in_folders:
            passed_over[_count_of(path, kind, passed_over)] += 1


def label_files_in(folder: Path) -> set[str]:
    """Return the masks among the images of a folder, by
    :func:`~tinyunet_deploy.data.layouts.label_names.label_files`.

    Raises:
        OSError: it cannot be listed.
    """
    with os.scandir(folder) as entries:
        return label_files(
            [
                entry.name
                for entry in entries
                if entry.name.lower().endswith(_SUFFIXES) and _leads_to(entry.is_file)
            ]
        )


def looks_like_a_label(name: str) -> bool:
    """Return whether the name of a file is one that a mask beside its image has."""
    return image_of_label(stem(name)) is not None


def _count_of(path: Path, kind: PassedOver, counts: Counter[str]) -> str:
    """Return the name of the count of an entry that is passed over."""
    suffix = path.suffix.lower()
    if kind != "suffix" or not re.fullmatch(r"\.[a-z0-9]{1,8}", suffix):
        return kind
    name = f"suffix {suffix}"
    return name if name in counts or len(counts) < _MOST_COUNTS else kind


class _Entry(NamedTuple):
    """An image, or an entry that is passed over."""

    path: Path
    passed_over: PassedOver | None = None


def _placed(source: Path) -> Path:
    """Resolve ``..`` and links in a source, but keep the name of a linked file.

    Names below the common folder are also names below the output folder: a ``..`` would leave it.
    """
    return source.resolve() if source.is_dir() else source.parent.resolve() / source.name


def _refuse_output(folder: Path, source: Path) -> None:
    """Refuse a source in ``folder`` if that is an output folder, or its masks, scores or overlays.

    Raises:
        RefusedError: inspecting them would give verdicts on pictures that are not parts.
    """
    for above in (folder, *folder.parents):
        below = folder.relative_to(above).parts[:1]
        if below in ((), ("masks",), ("scores",), ("overlays",)) and is_output(above):
            raise RefusedError(
                source, "is output of an earlier inspection, not images of parts", "give the images"
            )


def _leads_to(is_kind: Callable[[], bool]) -> bool:
    """Return what ``is_file`` or ``is_dir`` of an entry says; False if its link leads nowhere."""
    try:
        return is_kind()
    except OSError:  # a link to itself, or into a folder that is closed to this user
        return False


def _walk(
    folder: Path,
    output: Path | None,
    described: tuple[Path, Description] | None,
    depth: int = 0,
) -> Iterator[_Entry]:
    """Yield the entries below a folder; ``described`` is a folder above it with its description."""
    # Plain names: a folder of a million images costs 80 bytes each.
    names: list[str] = []
    folders: set[str] = set()
    images: list[str] = []
    passed_over: dict[str, PassedOver] = {}
    try:
        if depth > _MAX_DEPTH:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        with reading(folder), os.scandir(folder) as entries:
            for entry in entries:
                names.append(entry.name)
                if entry.name.startswith("."):
                    passed_over[entry.name] = "hidden"
                elif entry.is_dir(follow_symlinks=False):
                    folders.add(entry.name)
                elif not entry.name.lower().endswith(_SUFFIXES):
                    linked = entry.is_symlink() and _leads_to(entry.is_dir)
                    passed_over[entry.name] = "linked-folder" if linked else "suffix"
                elif _leads_to(entry.is_file):
                    images.append(entry.name)
    except OSError as error:
        if depth:
            yield _Entry(folder)
            return
        raise RefusedError(folder, f"cannot be listed: {error.strerror}") from error
    passed_over.update(dict.fromkeys(label_files(images), "label-file"))
    if depth and DESCRIPTION in names:
        own = read_description(folder)
        described = described if own is None else (folder, own)
    if described is not None:
        top, description = described
        below = PurePosixPath(folder.relative_to(top).as_posix())
        masks = [name for name in images if description.is_mask(below / name)]
        passed_over.update(dict.fromkeys(masks, "label-file"))
    names.sort()
    for name in names:
        path = folder / name
        if name not in folders:
            yield _Entry(path, passed_over.get(name))
        elif path == output:
            continue
        elif is_truth_folder(path) or is_mask_folder(name, folders):
            yield _Entry(path, "label-folder")
        elif is_output(path):
            yield _Entry(path, "earlier-output")
        else:
            yield from _walk(path, output, described, depth + 1)
