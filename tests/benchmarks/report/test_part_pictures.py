from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from benchmarks.__main__ import benchmarks
from benchmarks.report.part_pictures import part_pictures
from tests.benchmarks.made_up_results import made_up_line
from tinyunet_deploy.cli import run
from tinyunet_deploy.data.encoding import encode_jpeg
from tinyunet_deploy.errors import DataError


def put_picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_jpeg(np.full((300, 600, 3), 90, np.uint8)))


def evaluated(folder: Path, *verdicts: tuple[str, bool, str]) -> dict[str, Any]:
    """An evaluation of images (name, defective, verdict), and its pictures."""
    images = []
    for area, (name, defective, verdict) in enumerate(verdicts, start=1):
        put_picture(folder / f"{name}.jpg")
        images.append(
            {"name": f"{name}.png", "defective": defective, "verdict": verdict,
             "predicted_px": {"0.5": area}}
        )  # fmt: skip
    return {"threshold": 0.5, "per_image": images}


def test_a_rejected_a_good_and_a_mistaken_part_are_shown(tmp_path: Path) -> None:
    evaluation = evaluated(
        tmp_path, ("a", True, "NG"), ("b", True, "NG"), ("c", True, "NG"), ("d", False, "OK"),
        ("e", True, "OK"), ("f", False, "NG"),
    )  # fmt: skip
    other = evaluated(tmp_path / "elsewhere", ("a", True, "NG"))
    other["per_image"][0]["name"] = "not-there.png"
    pictures = part_pictures(tmp_path, [other, evaluation])
    assert [(picture.title, picture.text) for picture in pictures] == [
        ("b.png", "rightly rejected"),
        ("d.png", "rightly passed"),
        ("f.png", "rejected, though it is good"),
    ]
    data = base64.b64decode(pictures[0].uri.removeprefix("data:image/jpeg;base64,"))
    drawn = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert drawn.shape == (240, 480, 3), "no larger than the page shows it"


def test_without_a_mistake_two_rejected_parts_are_shown(tmp_path: Path) -> None:
    evaluation = evaluated(tmp_path, ("a", True, "NG"), ("b", True, "NG"), ("d", False, "OK"))
    pictures = part_pictures(tmp_path, [evaluation])
    assert [picture.title for picture in pictures] == ["b.png", "d.png", "a.png"]


def test_the_output_of_infer_needs_no_truth(tmp_path: Path) -> None:
    lines: list[dict[str, Any]] = [
        {"path": "a.png", "status": "inspected", "verdict": "NG", "defects": [{"area_px": 5}]},
        {"path": "b.jpg", "status": "inspected", "verdict": "OK", "defects": []},
        {"path": "c.png", "status": "skipped", "reason": "corrupt", "what": "is corrupt"},
    ]
    report = tmp_path / "report.jsonl"
    report.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    for name in ("a.jpg", "b-jpg.jpg"):
        put_picture(tmp_path / "overlays" / name)
    pictures = part_pictures(tmp_path, [])
    assert [(picture.title, picture.text) for picture in pictures] == [
        ("a.png", "rejected (NG)"),
        ("b.jpg", "passed (OK)"),
    ]


def test_a_folder_without_pictures_or_with_a_broken_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="contains no overlays of these results"):
        part_pictures(tmp_path, [])
    evaluation = evaluated(tmp_path, ("a", True, "NG"))
    (tmp_path / "a.jpg").write_bytes(b"no picture")
    with pytest.raises(DataError, match="is not a picture"):
        part_pictures(tmp_path, [evaluation])


def test_pictures_and_hostile_names_are_put_into_the_page(tmp_path: Path) -> None:
    line = {
        "path": '<b>&".png',
        "status": "inspected",
        "verdict": "NG",
        "defects": [{"area_px": 5}],
    }
    parts = tmp_path / "inspected"
    put_picture(parts / "overlays" / '<b>&".jpg')
    (parts / "report.jsonl").write_text(f"{json.dumps(line)}\n")
    output = tmp_path / "report.html"
    result = made_up_line(tmp_path / "line.json")
    assert run(
        benchmarks, ["report", str(result), "-o", str(output), "--parts", str(parts)]
    ) == 0  # fmt: skip
    text = output.read_text()
    assert text.count("data:image/jpeg;base64,") == 1
    assert "&lt;b&gt;&amp;&#34;.png" in text
    assert "<b>&" not in text
