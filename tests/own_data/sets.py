"""Data sets as users have them: each function writes one to a folder.

A part is dark and grainy; a defect is a bright square. In ``train`` and ``test`` two parts of three
are defective.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

Grey = NDArray[np.uint8]

TRAIN, TEST = 10, 4
"""Parts of each split; every third one is good."""


class Part(NamedTuple):
    """One part of a set."""

    image: Grey
    mask: Grey
    """{0, 255}."""
    corners: tuple[int, int, int, int]
    """Left, top, right and bottom edge of the defect, pixels; all 0 in a good part."""

    @property
    def defective(self) -> bool:
        return bool(self.mask.any())


def part(number: int, height: int, width: int) -> Part:
    random = np.random.default_rng(number)
    image = random.normal(90, 8, (height, width)).clip(0, 255).astype(np.uint8)
    mask = np.zeros((height, width), np.uint8)
    if number % 3 == 0:
        return Part(image, mask, (0, 0, 0, 0))
    side = min(max(min(height, width) // 6, 32), 64)  # a crop of 96 pixels shows its outline
    top, left = (int(random.integers(0, length - side)) for length in (height, width))
    image[top : top + side, left : left + side] = 230
    mask[top : top + side, left : left + side] = 255
    return Part(image, mask, (left, top, left + side, top + side))


def save(path: Path, array: NDArray[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), array)
    return path


def parts(
    height: int, width: int, train: int = TRAIN, test: int = TEST
) -> Iterator[tuple[str, str, Part]]:
    """Yield split, name and part."""
    for number in range(train + test):
        split = "train" if number < train else "test"
        yield split, f"{number:03}", part(number, height, width)


def folders(
    height: int,
    width: int,
    *,
    train: int = TRAIN,
    test: int = TEST,
    to_image: Callable[[Grey], NDArray[Any]] = lambda image: image,
    save_mask: Callable[[Path, Part], object] = lambda path, part: save(path, part.mask),
) -> Callable[[Path], Path]:
    """Return a writer of train/images/, train/masks/ and so on."""

    def write(root: Path) -> Path:
        for split, name, made in parts(height, width, train, test):
            save(root / split / "images" / f"{name}.png", to_image(made.image))
            path = root / split / "masks" / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            save_mask(path, made)
        return root

    return write


def _bilevel(path: Path, made: Part) -> None:
    Image.fromarray(made.mask).convert("1").save(path)


def _palette(path: Path, made: Part) -> None:
    image = Image.fromarray(made.mask // 255).convert("P")
    image.putpalette([0, 0, 0, 250, 0, 0])
    image.save(path)


def _jpeg(path: Path, made: Part) -> None:
    save(path.with_suffix(".jpg"), made.mask)


def _numbers(path: Path, made: Part) -> None:
    """The left half of a defect is 1, the right half 2."""
    values = made.mask // 255
    left, top, right, bottom = made.corners
    values[top:bottom, (left + right) // 2 : right] = 2
    save(path, values[: made.mask.shape[0]])


def mixed(root: Path) -> Path:
    """Forty parts of 103 to 900 pixels a side, without splits."""
    random = np.random.default_rng(0)
    for number in range(40):
        height, width = (int(side) for side in random.integers(103, 901, 2))
        made = part(number, height, width)
        save(root / f"images/{number:03}.png", made.image)
        save(root / f"masks/{number:03}.png", made.mask)
    return root


def mvtec(root: Path) -> Path:
    for split, name, made in parts(96, 128):
        kind = "good" if not made.defective else ("dent" if int(name) % 2 else "scratch")
        place = split if kind == "good" else "test"
        save(root / place / kind / f"{name}.png", made.image)
        if made.defective:
            save(root / "ground_truth" / kind / f"{name}_mask.png", made.mask)
    return root


def visa(root: Path) -> Path:
    rows = [["object", "split", "label", "image", "mask"]]
    for split, name, made in parts(96, 128):
        kind = "Anomaly" if made.defective else "Normal"
        image = f"candle/Data/Images/{kind}/{name}.JPG"
        save(root / image, made.image)
        mask = f"candle/Data/Masks/Anomaly/{name}.png" if made.defective else ""
        if mask:
            save(root / mask, made.mask // 255 * (1 + int(name) % 2))
        rows.append(["candle", split, "anomaly" if mask else "normal", image, mask])
    (root / "split_csv").mkdir()
    with (root / "split_csv/2cls_highshot.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return root


def _outline(made: Part) -> list[int]:
    left, top, right, bottom = made.corners
    return [left, top, right, top, right, bottom, left, bottom]


def coco(root: Path) -> Path:
    files: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for split, name, made in parts(96, 128):
        save(root / f"{split}2017" / f"{name}.png", made.image)
        file = files.setdefault(split, {"images": [], "annotations": [], "categories": []})
        number = int(name)
        file["images"].append(
            {"id": number, "file_name": f"{name}.png", "height": 96, "width": 128}
        )
        if made.defective:
            file["annotations"].append(
                {
                    "id": number,
                    "image_id": number,
                    "category_id": 1,
                    "segmentation": [_outline(made)],
                }
            )
        file["categories"] = [{"id": 1, "name": "scratch"}]
    for split, file in files.items():
        path = root / "annotations" / f"instances_{split}2017.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(file))
    return root


def yolo(root: Path) -> Path:
    for split, name, made in parts(96, 128):
        save(root / "images" / split / f"{name}.png", made.image)
        if made.defective:
            values = np.array(_outline(made)).reshape(-1, 2) / (128, 96)
            path = root / "labels" / split / f"{name}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{int(name) % 2} " + " ".join(map(str, values.ravel())) + "\n")
    (root / "data.yaml").write_text(
        "train: images/train\ntest: images/test\nnames: [scratch, dent]\n"
    )
    return root


def labelme(root: Path) -> Path:
    for split, name, made in parts(96, 128):
        save(root / split / f"{name}.png", made.image)
        left, top, right, bottom = made.corners
        box = {"label": "dent", "shape_type": "rectangle", "points": [[left, top], [right, bottom]]}
        content = {
            "imagePath": f"{name}.png",
            "imageHeight": 96,
            "imageWidth": 128,
            "shapes": [box] if made.defective else [],
        }
        (root / split / f"{name}.json").write_text(json.dumps(content))
    return root


def cvat(root: Path) -> Path:
    images = ""
    for split, name, made in parts(96, 128):
        save(root / "images" / split / f"{name}.png", made.image)
        left, top, right, bottom = made.corners
        box = f'<box label="dent" xtl="{left}" ytl="{top}" xbr="{right}" ybr="{bottom}"/>'
        images += (
            f'<image name="{name}.png" subset="{split}" width="128" height="96">'
            f"{box if made.defective else ''}</image>"
        )
    (root / "annotations.xml").write_text(
        f"<annotations><version>1.1</version>{images}</annotations>"
    )
    return root


SETS: dict[str, Callable[[Path], Path]] = {
    "1920x1080": folders(1080, 1920, train=12, test=2),
    "200x200": folders(200, 200),
    "160x320": folders(320, 160),
    "40 sizes": mixed,
    "12 bits": folders(
        96,
        128,
        to_image=lambda image: image.astype(np.uint16) << 4,
    ),
    "RGB": folders(96, 128, to_image=lambda image: np.stack([image // 2, image, image // 3], 2)),
    "1-bit masks": folders(96, 128, save_mask=_bilevel),
    "palette masks": folders(96, 128, save_mask=_palette),
    "JPEG masks": folders(96, 128, save_mask=_jpeg),
    "16-bit masks": folders(
        96, 128, save_mask=lambda path, made: save(path, made.mask.astype(np.uint16) * 257)
    ),
    "numbered masks": folders(
        96,
        128,
        save_mask=_numbers,
    ),
    "MVTec": mvtec,
    "VisA": visa,
    "COCO": coco,
    "YOLO": yolo,
    "LabelMe": labelme,
    "CVAT": cvat,
}
"""Name -> writer; returns the folder."""

SMALL = [name for name in SETS if name not in ("1920x1080", "200x200", "160x320", "40 sizes")]
"""Sets of images of 96x128 pixels."""
ANNOTATED = ("COCO", "YOLO", "LabelMe", "CVAT")
"""Sets that have to be converted first."""
TYPES = {
    "numbered masks": ["value 1", "value 2"],
    "MVTec": ["dent", "scratch"],
    "VisA": ["value 1", "value 2"],
    "COCO": ["scratch"],
    "YOLO": ["dent", "scratch"],
    "LabelMe": ["dent"],
    "CVAT": ["dent"],
}
"""Set -> types of defects that evaluate has to tell apart."""
