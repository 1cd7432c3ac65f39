from __future__ import annotations

from pathlib import Path

from tests.quality.acceptance.judged_parts import judge_parts, square, write_part
from tinyunet_deploy.inspection.drift import STATISTICS
from tinyunet_deploy.quality.acceptance.judged_evidence import detection_evidence, drift_evidence
from tinyunet_deploy.quality.evaluation import Evaluation


def judged(root: Path) -> Evaluation:
    """Two good parts, one rejected; two defective ones, of which one passes."""
    two = square(255)
    two[20:30, 20:30] = 255
    seen = square(200)
    write_part(root, "one-of-two", seen, two)  # rejected for the first defect; misses 100 px
    return judge_parts(root, {"good": 10, "alarm": 220}, {"passes": 40})


def test_missed_defects_of_parts_that_pass_are_told_apart(tmp_path: Path) -> None:
    figures = detection_evidence(judged(tmp_path))
    assert (figures.defective, figures.escapes) == (2, 1)
    assert (figures.good, figures.overkills) == (2, 1)
    assert figures.areas_hit_px == (64,)
    assert figures.areas_missed_px == (64, 100)
    assert figures.areas_missed_in_passed_px == (64,)
    assert {(row.from_px, row.truth, row.hit) for row in figures.by_size} == {
        (row.from_px, 3, 1) for row in figures.by_size
    }


def test_only_good_parts_are_compared_with_the_line(tmp_path: Path) -> None:
    good = {f"good{value}": value for value in range(10, 40)}
    evaluation = judge_parts(tmp_path, good, {f"bad{n}": 255 for n in range(30)})
    line = [
        statistics
        for image, statistics in zip(evaluation.images, evaluation.statistics, strict=True)
        if not image.defective
    ]
    drift = drift_evidence(evaluation, tmp_path / "out" / "report.jsonl", line, 0.01)
    assert (drift.name, drift.drifted) == ("out", ())
    assert drift.comparison is not None and drift.comparison["images"] == len(good)


def test_two_good_parts_are_the_fewest(tmp_path: Path) -> None:
    evaluation = judge_parts(tmp_path, {"good": 10}, {"bad": 255})
    drift = drift_evidence(evaluation, tmp_path, [dict.fromkeys(STATISTICS, 1.0)] * 9, 0.01)
    assert drift.comparison is None and "fewer than two good parts" in drift.hint
