"""Read ``dataset.toml`` strictly: an unknown key or a wrong value is refused with its line."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Final, TypeVar, cast, get_args

from tinyunet_deploy.data.bit_depth import DEPTHS
from tinyunet_deploy.data.dataset import SPLITS, Layout, MaskRule, Missing
from tinyunet_deploy.data.description import (
    DESCRIPTION,
    SPLIT_FIELD,
    Description,
    ImageFiles,
    MaskFiles,
    Shares,
)
from tinyunet_deploy.errors import DataError
from tinyunet_deploy.files import read_regular

__all__ = ["described_bits", "description_above", "parse_description", "read_description"]

_MAX_BYTES: Final = 1 << 20
"""Largest description that is read."""
_MAX_VALUE: Final = 65535
"""Largest value of a mask."""
_MISSING: Final[tuple[Missing, ...]] = get_args(Missing)
_NAMELESS: Final = {"", ".", ".."}

T = TypeVar("T")


def description_above(folder: Path) -> tuple[Path, Description] | None:
    """Return the nearest folder, ``folder`` or one above it, that has a description, and that.

    Raises:
        DataError: the description is not valid.
    """
    for above in (folder, *folder.parents):
        description = read_description(above)
        if description is not None:
            return above, description
    return None


def described_bits(
    sources: Sequence[Path], bits: int | None = None, otherwise: int | None = None
) -> int | None:
    """Return the depth of 16-bit files: ``bits``, else the one that the sources' data sets state.

    Args:
        sources: image files and folders; a data set's description may lie in a folder above them.
            Those in folders below must state the same depth.
        bits: the user's own value, 8..16, which comes first.
        otherwise: depth in the model's sidecar, which comes last.

    Returns:
        None if there is no depth.

    Raises:
        DataError: a description is not valid, or the sources have different depths.
    """
    if bits is not None:
        return bits
    stated: dict[int | None, Path] = {}
    for source in sources:
        path = source.resolve()
        above = description_above(path if path.is_dir() else path.parent)
        depth = above[1].images.bit_depth if above else None
        stated.setdefault(otherwise if depth is None else depth, source)
        for folder in _folders_below(path):
            own = read_description(folder)
            if own is not None and own.images.bit_depth is not None:
                stated.setdefault(own.images.bit_depth, folder)
    depths = list(stated)
    if len(depths) > 1:
        first, other = ("no depth" if depth is None else f"{depth} bits" for depth in depths[:2])
        model = "" if otherwise is None else " or the model's sidecar"
        raise DataError(
            stated[depths[1]],
            f"has images of {other}, but {stated[depths[0]]} of {first}, by their "
            f"{DESCRIPTION}{model}",
            "give --bits, or inspect them apart",
        )
    return depths[0] if depths else otherwise


def _folders_below(folder: Path) -> Iterator[Path]:
    """Yield the folders below one in which images are looked for.

    They are not hidden, not links, and can be listed: nothing is read of those that are locked.
    """
    folders = [folder]
    while folders:
        listed = folders.pop()
        try:
            with os.scandir(listed) as entries:
                folders += [
                    Path(entry.path)
                    for entry in entries
                    if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False)
                ]
        except OSError:
            continue
        if listed is not folder:
            yield listed


def read_description(folder: Path) -> Description | None:
    """Read ``dataset.toml``; None if the folder has none.

    Raises:
        DataError: it cannot be read, is not TOML, or has an unknown key or a wrong value.
    """
    path = folder / DESCRIPTION
    try:
        text = read_regular(path, limit=_MAX_BYTES).decode("utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except UnicodeDecodeError as error:
        raise DataError(path, "is not UTF-8 text") from error
    except OSError as error:
        raise DataError(path, f"cannot be read: {error.strerror}") from error
    return parse_description(text, path)


def parse_description(text: str, path: Path) -> Description:
    """Parse the text of a ``dataset.toml``; ``path`` names it in errors.

    Raises:
        DataError: it is not TOML, or has an unknown key or a wrong value.
    """
    try:
        values = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(path, f"is not TOML: {error}") from error
    file = _Table(path, text, "", values)
    known: list[Layout] = [name for name in get_args(Layout) if name != "described"]
    layout = file.one_of("layout", known)
    splits, images, masks, defects = (
        file.table(name) for name in ("splits", "images", "masks", "defects")
    )
    description = Description(
        layout=layout,
        splits={split: folder for split in SPLITS if (folder := splits.folder(split)) is not None},
        shares=Shares(
            splits.share("val_share"), splits.share("test_share"), splits.share("defects_to_train")
        ),
        images=ImageFiles(
            images.folder("folder"),
            images.text("ending") or "",
            images.names("products"),
            images.number("bit_depth", DEPTHS),
        ),
        masks=MaskFiles(
            masks.folder("folder"),
            masks.text("ending") or "",
            masks.one_of("missing", _MISSING),
            _rule(masks),
        ),
        defect_types=_defect_types(defects),
    )
    if "ignore" in masks.values:
        raise masks.error(
            "ignore",
            "is not supported: every pixel counts in the loss and in the figures",
            "paint these pixels good or defect",
        )
    for table in (file, splits, images, masks):
        table.finish(splits, images, masks)
    _check(description, images, splits, masks)
    return description


def _rule(masks: _Table) -> MaskRule | None:
    non_zero, inverted = masks.flag("non_zero"), masks.flag("inverted")
    threshold = masks.number("threshold", range(_MAX_VALUE))
    values = masks.numbers("values", range(_MAX_VALUE + 1))
    rules = {"non_zero": non_zero, "threshold": threshold is not None, "values": values is not None}
    given = [key for key, is_given in rules.items() if is_given]
    if len(given) > 1:
        raise masks.error(given[1], f"is given beside {given[0]}", "keep one of them")
    if not given and not inverted:
        return None
    return MaskRule(
        non_zero=non_zero or not given, threshold=threshold, values=values, inverted=inverted
    )


def _defect_types(defects: _Table) -> dict[int, str]:
    """Return value -> name; all keys of the table are values."""
    types: dict[int, str] = {}
    for key in defects.values:
        name = defects.text(key)
        value = int(key) if re.fullmatch("[1-9][0-9]{0,4}", key) else 0
        if not 0 < value <= _MAX_VALUE:
            raise defects.error(key, f"is not a value of a mask, 1..{_MAX_VALUE}")
        if not name or name in types.values():
            raise defects.error(key, f"is {name!r}, but must be a name that no other value has")
        types[value] = name
    return types


def _check(description: Description, images: _Table, splits: _Table, masks: _Table) -> None:
    """Refuse keys that contradict each other, or that a known layout does not use."""
    folder = description.images.folder
    if folder is None:
        for table, keys in (
            (splits, SPLITS),
            (images, ("ending", "products")),
            (masks, ("folder", "ending")),
        ):
            for key in keys:
                if key in table.values:
                    raise table.error(key, "needs images.folder", "add it, or leave this out")
        return
    if description.layout is not None:
        raise images.error("folder", "is given beside layout", "keep one of them")
    for table, place in ((images, folder), (masks, description.masks.folder)):
        if place is not None and (SPLIT_FIELD in place) != bool(description.splits):
            wanted = f"needs {SPLIT_FIELD}, as there are splits"
            unwanted = f"has {SPLIT_FIELD}, but [splits] names no folder"
            raise table.error("folder", unwanted if SPLIT_FIELD in place else wanted)
    if description.masks.folder in (None, folder):
        endings = {description.images.ending.lower(), description.masks.ending.lower()}
        if len(endings) == 1:
            raise masks.error(
                "ending", "is that of the images in the same folder", "give another ending"
            )


@dataclass
class _Table:
    """One table of the file, from which values are taken by key and type."""

    path: Path
    source: str
    """Text of the file."""
    name: str
    values: dict[str, Any]
    known: list[str] = field(default_factory=list)
    """Keys that were taken."""

    def error(self, key: str, what: str, hint: str | None = None) -> DataError:
        """Return the error about a key, with its line if that can be found."""
        line = _line_of(self.source, self.name, key)
        where = f"{self.path}:{line}" if line else str(self.path)
        return DataError(where, f"{self._full(key)} {what}", hint)

    def finish(self, *tables: _Table) -> None:
        """Refuse keys that were never taken; name those of ``tables`` that have such a key."""
        for key in self.values:
            if key not in self.known:
                places = [f"[{table.name}]" for table in tables if key in table.known]
                hint = f"known: {', '.join(map(self._full, self.known))}"
                if places:
                    hint = f"write it below {' or '.join(places)}"
                raise self.error(key, "is not a known key", hint)

    def table(self, key: str) -> _Table:
        return _Table(self.path, self.source, key, self._take(key, dict, "a table") or {})

    def text(self, key: str) -> str | None:
        return self._take(key, str, "text")

    def flag(self, key: str) -> bool:
        return bool(self._take(key, bool, "true or false"))

    def folder(self, key: str) -> str | None:
        """Return a path below the data set's folder; ``.`` is that itself."""
        value = self._take(key, str, "the path of a folder")
        if value is None:
            return None
        path = PurePosixPath(value)
        if not value or path.is_absolute() or ".." in path.parts or "\0" in value:
            raise self.error(key, f"is {value!r}, but must be a path below the data set's folder")
        return path.as_posix()

    def one_of(self, key: str, choices: Collection[T]) -> T | None:
        value = self._take(key, str, "text")
        if value is not None and value not in choices:
            known = ", ".join(map(str, choices))
            raise self.error(key, f"is {value!r}", f"known: {known}")
        return cast("T | None", value)

    def share(self, key: str) -> float:
        value = self.values.get(key)
        self.known.append(key)
        if value is None:
            return 0.0
        if type(value) not in (int, float) or not 0.0 <= value < 1.0:
            raise self.error(key, f"is {value!r}, but must be a number from 0 to below 1")
        return float(value)

    def number(self, key: str, allowed: range) -> int | None:
        value = self._take(key, int, "a whole number")
        if value is not None and value not in allowed:
            raise self.error(key, f"is {value}, but must be {allowed[0]}..{allowed[-1]}")
        return value

    def numbers(self, key: str, allowed: range) -> frozenset[int] | None:
        values = self._take(key, list, "a list of whole numbers")
        if values is None:
            return None
        if not values or not all(type(value) is int and value in allowed for value in values):
            raise self.error(
                key, f"is {values}, but must list whole numbers of {allowed[0]}..{allowed[-1]}"
            )
        return frozenset(values)

    def names(self, key: str) -> tuple[str, ...]:
        """Return names of folders, each once."""
        values: Sequence[Any] = self._take(key, list, "a list of names") or []
        for value in values:
            if (
                not isinstance(value, str)
                or value in _NAMELESS
                or not {"/", "\0"}.isdisjoint(value)
            ):
                raise self.error(key, f"has {value!r}, which is not the name of a folder")
        if len(set(values)) < len(values):
            raise self.error(key, "has a name twice")
        return tuple(values)

    def _take(self, key: str, kind: type[T], wanted: str) -> T | None:
        self.known.append(key)
        value = self.values.get(key)
        if value is None:
            return None
        if type(value) is not kind:
            raise self.error(key, f"is {value!r}, but must be {wanted}")
        return value

    def _full(self, key: str) -> str:
        return f"{self.name}.{key}" if self.name else key


def _line_of(text: str, table: str, key: str) -> int | None:
    """Return the number of the line that sets a key; None if it is not written plainly."""
    current = ""
    for number, line in enumerate(text.splitlines(), start=1):
        header = re.match(r"\s*\[\s*([\w-]+)\s*\]", line)
        if header is not None:
            current = header[1]
        if current == table and re.match(rf"""\s*["']?{re.escape(key)}["']?\s*=""", line):
            return number
        if not table and header is not None and current == key:
            return number
    return None
