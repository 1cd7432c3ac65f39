"""The layout of VisA: images and masks that a table in split_csv/ lists.

Zou et al., "SPot-the-Difference Self-Supervised Pre-training for Anomaly Detection and
Segmentation", ECCV 2022. A row of the table has the columns object, split, label, image and mask;
``split_csv/1cls.csv`` trains on good parts only, ``2cls_fewshot.csv`` and ``2cls_highshot.csv``
also on defects. The masks number the kinds of defects: every value but 0 is a defect.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Final, NamedTuple

from tinyunet_deploy.data.dataset import SPLITS, Item, MaskRule, Split
from tinyunet_deploy.data.layouts.listing import subfolder
from tinyunet_deploy.errors import DataError
from tinyunet_deploy.files import read_regular

__all__ = ["MASK_RULE", "VisaRow", "read_visa", "visa_rows", "visa_table"]

MASK_RULE: Final = MaskRule(non_zero=True)
"""Rule by which the masks are read."""
_COLUMNS: Final = ("object", "split", "label", "image", "mask")
_TABLES: Final = ("2cls_highshot.csv", "2cls_fewshot.csv", "1cls.csv")
"""Tables of the release; the first that exists is read, as it has the most defects to train on."""
_MAX_BYTES: Final = 64 << 20
"""Largest table that is read; those of the release have a megabyte."""


class VisaRow(NamedTuple):
    """One row of the table."""

    where: str
    """File and line, for errors."""
    product: str
    split: Split
    defective: bool
    image: Path
    mask: Path | None


def visa_table(root: Path) -> Path | None:
    """Return the table of a VisA folder; None if ``root`` has another layout.

    Raises:
        DataError: split_csv/ contains several tables, none of them of the release.
    """
    folder = subfolder(root, "split_csv")
    if folder is None:
        return None
    tables = sorted(path for path in folder.glob("*.csv") if path.is_file())
    names = {path.name: path for path in tables}
    for name in _TABLES:
        if name in names:
            return names[name]
    if len(tables) > 1:
        raise DataError(
            folder, f"contains {len(tables)} tables", f"keep one, or one of {', '.join(_TABLES)}"
        )
    return tables[0] if tables else None


def visa_rows(root: Path, table: Path) -> list[VisaRow]:
    """Read the table, sorted by product, split and path.

    Raises:
        DataError: the table cannot be read, a row is malformed, or a file of it is missing, outside
            ``root`` or named a second time.
    """
    try:
        text = read_regular(table, limit=_MAX_BYTES).decode("utf-8-sig")
        lines = list(csv.reader(io.StringIO(text), strict=True))
    except OSError as error:
        raise DataError(table, f"cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(table, f"is not a table: {error}") from error
    head = [name.strip().lower() for name in lines[0]] if lines else []
    if not set(_COLUMNS) <= set(head):
        raise DataError(
            f"{table}:1",
            f"has the columns {', '.join(head)}"[:100],
            f"expected {','.join(_COLUMNS)}",
        )
    places = [head.index(name) for name in _COLUMNS]
    rows: list[VisaRow] = []
    files: set[Path] = set()
    for number, line in enumerate(lines[1:], start=2):
        if not line:
            continue
        where = f"{table}:{number}"
        if len(line) != len(head):
            raise DataError(where, f"has {len(line)} fields", f"expected {len(head)}")
        row = _row(root, where, [line[place].strip() for place in places])
        for path in filter(None, (row.image, row.mask)):
            if path in files:
                raise DataError(
                    where,
                    f"lists {path.relative_to(root)} a second time",
                    "each row has an image and a mask of its own",
                )
            files.add(path)
        rows.append(row)
    return sorted(rows, key=lambda row: (row.product, SPLITS.index(row.split), row.image))


def read_visa(
    rows: Sequence[VisaRow],
    classes: Collection[int] | None,
    splits: Collection[Split] | None,
    rule: MaskRule,
) -> Iterator[Item]:
    """Yield the images of a table; the products are numbered from 1 in the order of their names.

    Args:
        rows: result of :func:`visa_rows`.
        classes, splits: list only these; None lists all.
        rule: rule by which the masks are read.
    """
    numbers = {name: n for n, name in enumerate(sorted({row.product for row in rows}), start=1)}
    for row in rows:
        class_id = numbers[row.product]
        if (classes is None or class_id in classes) and (splits is None or row.split in splits):
            yield Item(row.image, row.defective, row.mask, None, class_id, row.split, rule=rule)


def _row(root: Path, where: str, fields: Sequence[str]) -> VisaRow:
    product, split, label, image, mask = fields
    if split not in SPLITS:
        raise DataError(where, f"has the split {split[:20]!r}", f"known: {', '.join(SPLITS)}")
    if label not in ("normal", "anomaly"):
        raise DataError(where, f"has the label {label[:20]!r}", "known: normal, anomaly")
    if label == "anomaly" and not mask:
        raise DataError(where, f"{image} is an anomaly but has no mask")
    if label == "normal" and mask:
        raise DataError(where, f"{image} is normal but has the mask {mask}")
    return VisaRow(
        where,
        product,
        split,
        label == "anomaly",
        _file(root, where, image),
        _file(root, where, mask) if mask else None,
    )


def _file(root: Path, where: str, name: str) -> Path:
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts:
        raise DataError(where, f"names {name[:60]!r}, which is not a path below the data set")
    if not (root / path).is_file():
        raise DataError(where, f"{name} does not exist")
    return root / path
