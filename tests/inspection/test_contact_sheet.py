"""The contact sheet shows the truth, also where it is inverted or tiny, and takes hostile names."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np

from tests.data.small_images import SPOT, grey, put
from tests.data.test_described import describe
from tinyunet_deploy.data.layouts import read_dataset
from tinyunet_deploy.inspection.contact_sheet import (
    MOST,
    draw_picture,
    page_of,
    shown_parts,
)
from tinyunet_deploy.inspection.overlays import TRUTH

HOSTILE = "<script>alert(1)</script>{{ 7 * 7 }}\u202e\x1b[31m"


def parts_folder(root: Path, masks: dict[str, np.ndarray]) -> Path:
    for name, mask in masks.items():
        put(root / "images" / f"{name}.png", grey(100))
        put(root / "masks" / f"{name}.png", mask)
    return root


def green(picture: np.ndarray) -> np.ndarray:
    """Where a grey image was tinted or outlined."""
    return np.asarray(picture[..., 1].astype(int) - picture[..., 2] > 10)


def test_marked_pixels_are_green_inside_and_around(tmp_path: Path) -> None:
    parts_folder(tmp_path, {"a": SPOT, "b": grey(0), "c": 255 - SPOT})
    defect, good, inverted = shown_parts(read_dataset(tmp_path))
    assert (defect.caption, good.caption) == ("defect, 17 % marked", "good")
    assert inverted.caption == "defect, 83 % marked"
    assert defect.picture.shape == (240, 160, 3)
    assert (defect.picture == TRUTH).all(axis=2).any()
    spot = np.kron(SPOT, np.ones((10, 10), np.uint8)) > 0
    assert green(defect.picture)[spot].all()
    assert not green(defect.picture)[:20].any()
    assert not green(good.picture).any()
    assert green(inverted.picture)[:20].all(), "a person sees that the mask is inverted"


def test_one_marked_pixel_of_a_large_image_is_seen(tmp_path: Path) -> None:
    image, mask = np.full((2000, 3000), 90, np.uint8), np.zeros((2000, 3000), np.uint8)
    mask[1501, 2003] = 255
    put(tmp_path / "images" / "a.png", image)
    put(tmp_path / "masks" / "a.png", mask)
    (part,) = shown_parts(read_dataset(tmp_path))
    assert part.picture.shape == (160, 240, 3)
    rows, columns = np.nonzero(green(part.picture))
    assert len(rows)
    assert abs(rows.mean() - 1501 * 160 / 2000) < 3 and abs(columns.mean() - 2003 * 0.08) < 3


def test_every_kind_of_image_is_on_a_sheet_of_many(tmp_path: Path) -> None:
    for split, count in (("train", 70), ("test", 2)):
        masks = {f"{n:03}": SPOT if n % 35 == 0 else grey(0) for n in range(count)}
        parts_folder(tmp_path / split, masks)
    (tmp_path / "train" / "images" / "001.png").write_bytes(b"no image")
    parts = shown_parts(read_dataset(tmp_path))
    assert MOST - 1 <= len(parts) <= MOST
    kinds = {(part.split, part.defective) for part in parts}
    assert kinds == {("train", True), ("train", False), ("test", True), ("test", False)}
    good = [int(Path(p.name).stem) for p in parts if p.split == "train" and not p.defective]
    assert min(good) < 10 and max(good) > 60, "spread over all of them"
    sheet = cv2.imdecode(np.frombuffer(draw_picture(parts), np.uint8), cv2.IMREAD_COLOR)
    assert sheet is not None
    assert sheet.shape == (-(-len(parts) // 6) * 278 + 12, 6 * 252 + 12, 3)


def test_names_are_text_and_never_markup(tmp_path: Path) -> None:
    root = tmp_path / HOSTILE.replace("/", "_")
    put(root / "images" / HOSTILE.replace("/", "_") / "a.png", grey(1))
    put(root / "masks" / HOSTILE.replace("/", "_") / "a.png", SPOT)
    describe(root, '[images]\nfolder = "images"\n[masks]\nfolder = "masks"\n')
    dataset = read_dataset(root)
    page = page_of(dataset, shown_parts(dataset), [HOSTILE]).decode()
    assert "<script" not in page and "{{ 7 * 7 }}" in page
    assert "\x1b" not in page and "\u202e" not in page
    assert page.count("data:image/jpeg;base64,") == 1
    assert not re.search(r'(?:src|href)="(?!data:)', page), "opens without the network"
