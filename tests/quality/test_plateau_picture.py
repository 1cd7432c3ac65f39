from __future__ import annotations

import pytest

from tinyunet_deploy.quality.part_score import PartScore
from tinyunet_deploy.quality.plateau import Plateau, plateau_of
from tinyunet_deploy.quality.plateau_picture import draw_plateaus, inline_plateaus
from tinyunet_deploy.quality.plateau_report import plateau_lines, plateau_range
from tinyunet_deploy.quality.scored_by import ScoredBy

pytest.importorskip("matplotlib")

GREEN, RED = "#009e73", "#cc3311"


def plateau(precision: str, best_good: int) -> Plateau:
    parts = [PartScore("a", False, best_good, 4), PartScore("b", True, 230, 900)]
    by = ScoredBy("m.onnx", "ab" * 32, precision, "openvino", "cpu")
    return plateau_of(parts, by, 0.5, 16)


def test_a_row_for_each_plateau_says_its_range_and_the_share_of_the_first() -> None:
    drawn = draw_plateaus([plateau("fp32", 10), plateau("int8", 51)])
    text = drawn.decode()
    assert "fp32 on openvino: no verdict changes from 0.039 to 0.898" in text
    assert "int8 on openvino: no verdict changes from 0.200 to 0.898, 81% of fp32" in text
    assert GREEN in text and RED not in text
    assert drawn == draw_plateaus([plateau("fp32", 10), plateau("int8", 51)])


def test_a_plateau_that_is_too_narrow_is_red() -> None:
    text = inline_plateaus([plateau("fp32", 10), plateau("int8", 60)])
    assert GREEN in text and RED in text
    assert text.startswith("<svg") and text.rstrip().endswith("</svg>")


def test_the_lines_say_what_may_change_and_what_is_wrong() -> None:
    assert plateau_lines(plateau("fp32", 10)) == [
        "plateau: threshold 0.04 to 0.90, min_area 5 to 900 px change no verdict"
    ]
    line, warning = plateau_lines(plateau("fp32", 120))
    assert line.startswith("plateau: threshold 0.47 to 0.90")
    assert warning == "warning: threshold is 8 steps from its plateau's edge, but must be 13"
    assert plateau_range(plateau("fp32", 120)) == "0.47-0.90"
