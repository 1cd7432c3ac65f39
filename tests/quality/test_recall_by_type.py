from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from tests.data.small_images import put
from tinyunet_deploy.cli import run, tinyunet
from tinyunet_deploy.contract import Contract
from tinyunet_deploy.data.dataset import Dataset, MaskRule
from tinyunet_deploy.data.layouts import read_dataset
from tinyunet_deploy.quality.evaluation import Evaluation, evaluate
from tinyunet_deploy.quality.evaluation_report import evaluation_json
from tinyunet_deploy.quality.recall_by_type import TypeRecall, recall_by_type
from tinyunet_deploy.testing.fake_backend import FakeBackend


def blocks(**values: int) -> np.ndarray:
    """An image of 64x64 with blocks of 8x8 pixels: ``x8=5`` has the value 5 from column 8."""
    image = np.zeros((64, 64), np.uint8)
    for name, value in values.items():
        left = int(name[1:])
        image[20:28, left : left + 8] = value
    return image


def measure(dataset: Dataset) -> Evaluation:
    """The images are their own scores, because the fake gives the image back."""
    backend = FakeBackend(contract=Contract(64, 64))
    return evaluate(dataset, backend, threshold=0.5, min_area=1, batch_size=2, workers=1)


@pytest.fixture
def product(tmp_path: Path) -> Path:
    """MVTec AD: two scratches of which one is found, three dents in two parts, all found."""
    root = tmp_path / "product"
    put(root / "train/good/000.png", blocks())
    put(root / "test/good/000.png", blocks())
    for name, image, mask in (
        ("scratch/000", blocks(x8=250), blocks(x8=255)),
        ("scratch/001", blocks(), blocks(x8=255)),
        ("dent/000", blocks(x8=250, x40=250), blocks(x8=255, x40=255)),
        ("dent/001", blocks(x8=250), blocks(x8=255)),
    ):
        put(root / f"test/{name}.png", image)
        put(root / f"ground_truth/{name}_mask.png", mask)
    return root


def test_folders_of_defects_are_types(product):
    evaluation = measure(read_dataset(product, split="test"))
    assert evaluation.by_type == [
        TypeRecall("dent", defects=3, hit=3, parts=2, escapes=0),
        TypeRecall("scratch", defects=2, hit=1, parts=2, escapes=1),
    ]
    dent, scratch = json.loads(evaluation_json(evaluation))["defects"]["by_type"]
    assert dent["recall_lower_95"] == pytest.approx(0.05 ** (1 / 3))
    assert dent["escape_rate_upper_95"] == pytest.approx(1 - 0.05 ** (1 / 2))
    assert (scratch["recall"], scratch["escape_rate"]) == (0.5, 0.5)
    assert scratch["recall_lower_95"] == pytest.approx(1 - 0.95**0.5)


def numbered(root: Path, names: dict[int, str]) -> Dataset:
    """Masks of numbers: 1 and 2 touch in the first image; the second has 1 only, and is missed."""
    put(root / "images/a.png", blocks(x16=250))
    put(root / "masks/a.png", blocks(x8=1, x16=2))
    put(root / "images/b.png", blocks())
    put(root / "masks/b.png", blocks(x8=1))
    (root / "dataset.toml").write_text("[masks]\nnon_zero = true\n")
    rule = MaskRule(non_zero=True)
    return with_rule(root, rule, names)


def with_rule(root: Path, rule: MaskRule, names: dict[int, str]) -> Dataset:
    from tinyunet_deploy.data.dataset import Item

    items = tuple(
        Item(root / f"images/{name}.png", True, root / f"masks/{name}.png", None, None, None, rule)
        for name in "ab"
    )
    return Dataset(root, "folders", items, defect_types=names)


def test_values_of_a_mask_are_types_also_where_they_touch(tmp_path):
    evaluation = measure(numbered(tmp_path, {1: "scratch"}))
    assert evaluation.by_type == [
        TypeRecall("scratch", defects=2, hit=0, parts=2, escapes=1),
        TypeRecall("value 2", defects=1, hit=1, parts=1, escapes=0),
    ]
    assert len(evaluation.true_defects) == 2  # without types, what touches is one defect


def test_values_that_the_rule_takes_for_good_are_no_type(tmp_path):
    numbered(tmp_path, {})
    put(tmp_path / "masks/b.png", blocks(x8=2))
    evaluation = measure(with_rule(tmp_path, MaskRule(values=frozenset({2})), {}))
    assert [row.type for row in evaluation.by_type] == ["value 2"]


@pytest.mark.parametrize("rule", [MaskRule(threshold=0), None])
def test_a_truth_without_types_has_no_rows(tmp_path, rule):
    dataset = numbered(tmp_path, {})
    put(tmp_path / "masks/a.png", blocks(x8=255, x16=255))
    items = tuple(dataclasses.replace(item, rule=rule) for item in dataset.items)
    evaluation = measure(dataclasses.replace(dataset, items=items))
    assert evaluation.by_type == []
    assert json.loads(evaluation_json(evaluation))["defects"]["by_type"] == []
    assert recall_by_type([], []) == []


def test_the_command_prints_the_types(product, monkeypatch, capsys):
    evaluation = measure(read_dataset(product, split="test"))
    monkeypatch.setattr("tinyunet_deploy.quality.evaluation.evaluate", lambda *_, **__: evaluation)
    assert run(tinyunet, ["evaluate", str(product)]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["dent", "3", "3", "1.000", "0.368", "2", "0", "0.776"] in rows
    assert ["scratch", "2", "1", "0.500", "0.025", "2", "1", "0.975"] in rows
