"""The layout of VisA."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.data.small_images import SHAPE, SPOT, grey, put
from tinyunet_deploy.data.check import check_dataset
from tinyunet_deploy.data.layouts import read_dataset
from tinyunet_deploy.data.masks import read_mask
from tinyunet_deploy.errors import DataError

HEAD = "object,split,label,image,mask"


def visa(root: Path, table: str = "1cls.csv") -> Path:
    """Two products with a good part to train on, and a good and a defective one to test on."""
    lines = [HEAD]
    kinds = SPOT // 255
    kinds[4:8] *= 3
    for number, name in enumerate(("pcb1", "candle")):
        for index, split in enumerate(("train", "test")):
            image = f"{name}/Data/Images/Normal/{index}.png"
            put(root / image, grey(10 * number + index))
            lines.append(f"{name},{split},normal,{image},")
        image, mask = f"{name}/Data/Images/Anomaly/0.png", f"{name}/Data/Masks/Anomaly/0.png"
        put(root / image, grey(10 * number + 5))
        put(root / mask, kinds)
        lines.append(f"{name},test,anomaly,{image},{mask}")
    write(root, lines, table)
    return root


def write(root: Path, lines: list[str], table: str = "1cls.csv") -> None:
    (root / "split_csv").mkdir(exist_ok=True)
    (root / "split_csv" / table).write_text("\r\n".join([*lines, ""]))


def test_the_table_says_what_is_where(tmp_path: Path) -> None:
    dataset = read_dataset(visa(tmp_path))
    assert (dataset.layout, dataset.class_names) == ("visa", {1: "candle", 2: "pcb1"})
    rows = [(i.class_id, i.split, i.image.name, i.defective) for i in dataset.items]
    assert rows[:3] == [
        (1, "train", "0.png", False),
        (1, "test", "0.png", True),
        (1, "test", "1.png", False),
    ]
    assert rows[3:] == [(2, *row[1:]) for row in rows[:3]]
    defective = dataset.items[1]
    assert (read_mask(defective, SHAPE) == SPOT).all(), "every kind of defect is a defect"
    assert check_dataset(dataset).oddities == []
    assert len(read_dataset(tmp_path, classes=[2], split="test").items) == 2


def test_a_table_with_defects_to_train_on_comes_first(tmp_path: Path) -> None:
    visa(tmp_path)
    good, bad = "candle/Data/Images/Normal/0.png", "candle/Data/Images/Anomaly/0.png"
    mask = "candle/Data/Masks/Anomaly/0.png"
    lines = [HEAD, f"candle,train,normal,{good},", f"candle,train,anomaly,{bad},{mask}"]
    write(tmp_path, lines, "2cls_fewshot.csv")
    assert [i.defective for i in read_dataset(tmp_path, split="train").items] == [True, False]
    for name in ("1cls.csv", "2cls_fewshot.csv"):
        (tmp_path / "split_csv" / name).rename(tmp_path / "split_csv" / f"my {name}")
    with pytest.raises(DataError, match="contains 2 tables"):
        read_dataset(tmp_path)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("pcb1,train,normal,absent.png,", r"1cls\.csv:8: absent\.png does not exist"),
        ("pcb1,train,normal,/etc/passwd,", "not a path below"),
        ("pcb1,train,normal,../x.png,", "not a path below"),
        ("pcb1,dev,normal,pcb1/Data/Images/Normal/0.png,", "has the split 'dev'"),
        ("pcb1,test,bad,pcb1/Data/Images/Normal/0.png,", "has the label 'bad'"),
        ("pcb1,test,anomaly,pcb1/Data/Images/Normal/0.png,", "but has no mask"),
        ("pcb1,test,normal,pcb1/Data/Images/Normal/0.png,x.png", "but has the mask"),
        ("pcb1,test,normal,pcb1/Data/Images/Normal/0.png,", "a second time"),
        (
            "pcb1,test,anomaly,pcb1/1.png,candle/Data/Masks/Anomaly/0.png",
            r"1cls\.csv:8: lists candle/Data/Masks/Anomaly/0\.png a second time",
        ),
        ("pcb1,test", "has 2 fields"),
    ],
)
def test_a_wrong_row_is_refused_with_its_line(tmp_path: Path, row: str, message: str) -> None:
    table = visa(tmp_path) / "split_csv" / "1cls.csv"
    put(tmp_path / "pcb1" / "1.png", grey(1))
    with table.open("a") as file:
        file.write(row + "\n")
    with pytest.raises(DataError, match=message):
        read_dataset(tmp_path)


@pytest.mark.parametrize("content", [b"object,split\n", b"", b"\xff\xfe1", b'object,"'])
def test_another_table_is_refused(tmp_path: Path, content: bytes) -> None:
    (visa(tmp_path) / "split_csv" / "1cls.csv").write_bytes(content)
    with pytest.raises(DataError, match=r"1cls\.csv"):
        read_dataset(tmp_path)


def test_a_mask_of_another_depth_is_read_as_well(tmp_path: Path) -> None:
    visa(tmp_path)
    put(tmp_path / "pcb1" / "Data" / "Masks" / "Anomaly" / "0.png", (SPOT > 0).astype(np.uint8))
    item = next(i for i in read_dataset(tmp_path, classes=[2]).items if i.defective)
    assert (read_mask(item, SHAPE) == SPOT).all()
