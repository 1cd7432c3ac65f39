from __future__ import annotations

import json

from tests.data.conversion.sets import SQUARE, coco, coco_annotation, yolo
from tinyunet_deploy.cli import run, tinyunet


def converted(*arguments: object) -> int:
    return run(tinyunet, ["data", "convert", *map(str, arguments)])


def test_convert_says_what_it_saw(tmp_path, capsys):
    yolo(tmp_path / "y")
    assert converted(tmp_path / "y", "-o", tmp_path / "out") == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert printed.out == (
        f"{tmp_path}/y (yolo)\n"
        "train: 2 images, 1 of them defective\n"
        "val: 2 images, 1 of them defective\n"
        "scratch: 2 annotations, value 1 in the masks\n"
        "dent: 0 annotations, value 2 in the masks\n"
        "2 images without annotations taken as good parts\n"
        f"wrote {tmp_path}/out; next: tinyunet data check {tmp_path}/out\n"
    )
    assert converted(tmp_path / "y", "-o", tmp_path / "skip", "--unlabelled", "skip") == 0
    assert "2 images without annotations left out" in capsys.readouterr().out


def test_convert_as_json(tmp_path, capsys):
    coco(tmp_path / "c", coco_annotation([SQUARE]), coco_annotation([SQUARE], id=2, category_id=2))
    options = ("--from", "coco", "--defects", "dent, ", "--format", "json")
    assert converted(tmp_path / "c", "-o", tmp_path / "out", *options) == 4
    options = ("--from", "coco", "--defects", " dent", "--format", "json")
    assert converted(tmp_path / "c", "-o", tmp_path / "out", *options) == 0
    assert json.loads(capsys.readouterr().out) == {
        "schema_version": 1,
        "folder": f"{tmp_path}/out",
        "format": "coco",
        "splits": [{"split": None, "images": 2, "defective": 1}],
        "types": [{"value": 255, "label": "dent", "annotations": 1}],
        "annotations_left_out": {"scratch": 1},
        "images_unlabelled": 0,
    }


def test_what_is_not_understood_is_one_line_and_nothing_is_written(tmp_path, capsys):
    coco(tmp_path / "c", coco_annotation([], bbox=[1, 2, 3, 4]))
    assert converted(tmp_path / "c", "-o", tmp_path / "out") == 4
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == (
        f"error: {tmp_path}/c/annotations/instances_default.json: annotation 1 has a box but no "
        "outline (a box is not a mask: draw outlines)\n"
    )
    assert not (tmp_path / "out").exists()
