"""Small annotated data sets in the formats of other tools."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.data.small_images import grey, put

HEIGHT, WIDTH = 24, 16
SQUARE = [4, 4, 12, 4, 12, 12, 4, 12]
"""Corners of the defect of ``small_images.SPOT``, x and y in turn."""

SMALL = [5, 5, 8, 5, 8, 8, 5, 8]
"""A square inside SQUARE."""


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def encode(runs: list[int]) -> str:
    """Encode runs as a string of COCO's compressed RLE."""
    text = ""
    for index, run in enumerate(runs):
        value = run - runs[index - 2] if index > 2 else run
        while True:
            code = value & 31
            value >>= 5
            more = value != (-1 if code & 16 else 0)
            text += chr(48 + (code | (32 if more else 0)))
            if not more:
                break
    return text


def coco_annotation(segmentation: Any, **others: Any) -> dict[str, Any]:
    return {"id": 1, "image_id": 1, "category_id": 1, "segmentation": segmentation, **others}


def coco(
    folder: Path,
    *annotations: dict[str, Any],
    name: str = "annotations/instances_default.json",
    images: Any = None,
) -> Path:
    """Write images/a.png (annotated) and images/b.png (good), and the file."""
    put(folder / "images/a.png", grey(90))
    put(folder / "images/b.png", grey(80))
    sizes = {"height": HEIGHT, "width": WIDTH}
    content = {
        "images": images
        or [{"id": 1, "file_name": "a.png", **sizes}, {"id": 2, "file_name": "b.png", **sizes}],
        "annotations": list(annotations) or [coco_annotation([SQUARE])],
        "categories": [{"id": 1, "name": "scratch"}, {"id": 2, "name": "dent"}],
    }
    return write(folder / name, json.dumps(content))


def yolo(folder: Path, line: str = "", splits: tuple[str, ...] = ("train", "val")) -> Path:
    """Write images/SPLIT/a.png (annotated) and b.png (without a file), and data.yaml."""
    square = " ".join(str(v / size) for v, size in zip(SQUARE, (WIDTH, HEIGHT) * 4, strict=True))
    for number, split in enumerate(splits):
        put(folder / f"images/{split}/a.png", grey(90 + number))
        put(folder / f"images/{split}/b.png", grey(80 + number))
        write(folder / f"labels/{split}/a.txt", line or f"0 {square}\n")
    paths = "".join(f"{split}: images/{split}\n" for split in splits)
    return write(folder / "data.yaml", f"path: /elsewhere\n{paths}names: [scratch, dent]\n")


def png_base64(array: NDArray[np.uint8]) -> str:
    return base64.b64encode(cv2.imencode(".png", array)[1].tobytes()).decode()


def labelme(folder: Path, *shapes: dict[str, Any], **others: Any) -> Path:
    """Write a.png with a.json."""
    put(folder / "a.png", grey(90))
    polygon = {"label": "scratch", "shape_type": "polygon", "points": _pairs(SQUARE)}
    content = {
        "version": "5.4.1",
        "flags": {},
        "shapes": list(shapes) or [polygon],
        "imagePath": "a.png",
        "imageData": None,
        "imageHeight": HEIGHT,
        "imageWidth": WIDTH,
        **others,
    }
    return write(folder / "a.json", json.dumps(content))


def _pairs(values: list[int]) -> list[list[int]]:
    return [list(pair) for pair in zip(values[::2], values[1::2], strict=True)]


def cvat(folder: Path, *shapes: str, image: str = "", head: str = "") -> Path:
    """Write images/a.png with annotations.xml."""
    put(folder / "images/a.png", grey(90))
    polygon = '<polygon label="scratch" points="4,4;12,4;12,12;4,12" occluded="0"/>'
    attributes = image or f'id="0" name="a.png" width="{WIDTH}" height="{HEIGHT}"'
    return write(
        folder / "annotations.xml",
        f"<?xml version='1.0' encoding='utf-8'?>{head}<annotations><version>1.1</version><meta>"
        "<task><labels><label><name>scratch</name></label></labels></task></meta>"
        f"<image {attributes}>{''.join(shapes or [polygon])}</image></annotations>",
    )


def mask_of(path: Path) -> np.ndarray:
    """The values of an 8-bit grey mask."""
    with Image.open(path) as image:
        assert image.mode == "L"
        return np.asarray(image)
