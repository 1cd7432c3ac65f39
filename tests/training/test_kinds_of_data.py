"""Every kind of data set means the same to init, to the trainer and to evaluate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest

from tinyunet_deploy.contract import Contract
from tinyunet_deploy.data.check import check_dataset
from tinyunet_deploy.data.layouts import read_dataset
from tinyunet_deploy.data.proposal import propose
from tinyunet_deploy.quality.dataset_scoring import held_out
from tinyunet_deploy.quality.evaluation import evaluate
from tinyunet_deploy.testing.fake_backend import FakeBackend
from training.recipe import Data, Recipe
from training.sources import read_source

PARTS = 14
DEFECT = np.zeros((64, 64), bool)
DEFECT[20:36, 12:28] = True
Image = np.ndarray
Saver = Callable[[Path, Image], None]


def part(number: int) -> Image:
    """A part that is bright at its defect, if it has one: every other part."""
    image = np.full((64, 64), 40 + number, np.uint8)
    image[0, 0] = number
    if number % 2:
        image[DEFECT] = 230
    return image


def truth(number: int) -> Image:
    return DEFECT if number % 2 else np.zeros_like(DEFECT)


def save(path: Path, array: Image, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(array).save(path, **options)  # type: ignore[arg-type]


def flat(root: Path, mask: Callable[[int], Image], suffix: str = ".png") -> None:
    for number in range(PARTS):
        save(root / "images" / f"{number}.png", part(number))
        save(root / "masks" / f"{number}{suffix}", mask(number))


def one_bit(root: Path) -> None:
    flat(root, truth)


def palette(root: Path) -> None:
    flat(root, lambda number: truth(number).astype(np.uint8))
    for path in (root / "masks").iterdir():
        image = PIL.Image.open(path).convert("P")
        image.putpalette([0, 0, 0, 200, 0, 0] + [0] * 762)
        image.save(path)


def jpeg(root: Path) -> None:
    flat(root, lambda number: truth(number).astype(np.uint8) * 255, ".jpg")


def sixteen_bits(root: Path) -> None:
    flat(root, lambda number: truth(number).astype(np.uint16) * 65535)


def ids(root: Path) -> None:
    def mask(number: int) -> Image:
        kinds = truth(number).astype(np.uint8)
        kinds[20:24] *= 2
        return kinds

    flat(root, mask)


def inverted(root: Path) -> None:
    flat(root, lambda number: np.where(truth(number), np.uint8(0), np.uint8(255)))


def twelve_bits(root: Path) -> None:
    flat(root, truth)
    for number in range(PARTS):
        values = np.rint(part(number) * (4095 / 255)).astype(np.uint16)
        assert cv2.imwrite(str(root / "images" / f"{number}.png"), values)


def good_without_masks(root: Path) -> None:
    flat(root, truth)
    for number in range(0, PARTS, 2):
        (root / "masks" / f"{number}.png").unlink()


def pairs(root: Path) -> None:
    for number in range(PARTS):
        save(root / f"{number}.png", part(number))
        save(root / f"{number}_label.png", truth(number))


def kolektorsdd(root: Path) -> None:
    for number in range(PARTS):
        save(root / f"kos{number // 5:02}" / f"Part{number}.png", part(number))
        save(root / f"kos{number // 5:02}" / f"Part{number}_label.bmp", truth(number))


def kolektorsdd2(root: Path) -> None:
    for number in range(PARTS):
        folder = root / ("train" if number < 6 else "test")
        save(folder / f"{10000 + number}.png", part(number))
        save(folder / f"{10000 + number}_GT.png", truth(number))


def splits_below(root: Path) -> None:
    for number in range(PARTS):
        split = ("train", "train", "train", "val", "test")[min(number // 2, 4)]
        save(root / "images" / split / f"{number}.png", part(number))
        save(root / "masks" / split / f"{number}.png", truth(number))


def mvtec(root: Path) -> None:
    for number in range(PARTS):
        if number % 2:
            kind = "cut" if number < 5 else "hole"
            save(root / "test" / kind / f"{number:03}.png", part(number))
            save(root / "ground_truth" / kind / f"{number:03}_mask.png", truth(number))
        else:
            split = "train" if number < 6 else "test"
            save(root / split / "good" / f"{number:03}.png", part(number))


def visa(root: Path) -> None:
    lines = ["object,split,label,image,mask"]
    for number in range(PARTS):
        kind = "Anomaly" if number % 2 else "Normal"
        split = "train" if number in (0, 2, 4) else "test"
        image, mask = (f"pcb/Data/{part}/{kind}/{number}.png" for part in ("Images", "Masks"))
        save(root / image, part(number))
        if number % 2:
            save(root / mask, truth(number).astype(np.uint8) * (1 + number % 3))
        lines.append(f"pcb,{split},{'anomaly' if number % 2 else 'normal'},{image},"
                     f"{mask if number % 2 else ''}")  # fmt: skip
    (root / "split_csv").mkdir()
    (root / "split_csv" / "1cls.csv").write_text("\n".join(lines))


KINDS = (
    one_bit, palette, jpeg, sixteen_bits, ids, inverted, twelve_bits, good_without_masks, pairs,
    kolektorsdd, kolektorsdd2, splits_below, mvtec, visa,
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_described_set_is_trained_on_and_evaluated(
    kind: Callable[[Path], None], tmp_path: Path
) -> None:
    root = tmp_path / "data"
    kind(root)
    (root / "dataset.toml").write_text(propose(root).text())

    dataset = read_dataset(root)
    assert {oddity.kind for oddity in check_dataset(dataset).oddities} <= {"stray-file"}
    splits = {item.split for item in dataset.items}
    assert splits == {"train", "val", "test"}

    source = read_source(root, None, Recipe(data=Data(crop=32)))
    examples = (*source.defective, *source.defect_free, *source.validation)
    assert source.defective and source.validation
    assert source.bits == (12 if kind is twelve_bits else None)
    for example in examples:
        number = int("".join(filter(str.isdigit, example.item.image.stem)))
        assert example.item.defective == bool(number % 2)
        assert np.array_equal(example.mask > 0, truth(number))
        assert np.array_equal(example.image, part(number % 100))

    test = held_out(dataset)
    assert not {item.image for item in test.items} & {e.item.image for e in examples}
    evaluation = evaluate(
        test, FakeBackend(contract=Contract(64, 64)), threshold=0.5, min_area=1, batch_size=2,
        workers=1,
    )  # fmt: skip
    assert (evaluation.all.escapes, evaluation.all.overkills) == (0, 0)
    assert evaluation.all.defective > 0
    assert evaluation.all.iou_defective == 1.0
