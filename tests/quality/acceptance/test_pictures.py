from __future__ import annotations

import base64
from pathlib import Path

import cv2
import numpy as np

from tests.quality.acceptance.judged_parts import backend, judge_parts
from tinyunet_deploy.quality.acceptance.pictures import MOST, draw_parts
from tinyunet_deploy.quality.evaluation import Evaluation


def kinds(evaluation: Evaluation) -> list[tuple[str, str, str, int]]:
    drawn = draw_parts(evaluation, backend(), tile=True, bits=None, max_pixels=None)
    return [(p.kind, Path(p.name).stem, p.verdict, p.max_score) for p in drawn]


def test_every_mistake_is_drawn_up_to_a_limit(tmp_path: Path) -> None:
    mistakes = MOST + 2
    good = {f"alarm{n:02}": 200 for n in range(mistakes)} | {"good": 3}
    bad = {f"escape{n:02}": 100 for n in range(mistakes)} | {"bad": 250}
    drawn = kinds(judge_parts(tmp_path, good, bad))
    assert drawn[:MOST] == [("escape", f"escape{n:02}", "OK", 100) for n in range(MOST)]
    assert drawn[MOST:] == [("reject", f"alarm{n:02}", "NG", 200) for n in range(MOST)]


def test_without_mistakes_the_parts_that_came_nearest_are_drawn(tmp_path: Path) -> None:
    good = {f"good{value}": value for value in (0, 30, 90, 60)}
    drawn = kinds(judge_parts(tmp_path, good, {f"bad{value}": value for value in (255, 130, 200)}))
    assert [kind for kind, *_ in drawn] == ["near escape"] * 2 + ["near reject"] * 2
    assert drawn[2:] == [("near reject", "good90", "OK", 90), ("near reject", "good60", "OK", 60)]


def test_a_picture_is_a_jpeg_of_the_size_that_it_states(tmp_path: Path) -> None:
    evaluation = judge_parts(tmp_path, {"a": 0}, {"b": 255})
    for part in draw_parts(evaluation, backend(), tile=True, bits=None, max_pixels=None):
        data = np.frombuffer(base64.b64decode(part.jpeg), np.uint8)
        image = cv2.imdecode(data, cv2.IMREAD_COLOR)
        assert image is not None and image.shape == (part.height, part.width, 3)
