"""The plateau says whose edge is near; a study of repeats counts for the model that it studied."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from tests.quality.acceptance.judged_parts import backend, judge_parts, square
from tinyunet_deploy.data.encoding import write_png
from tinyunet_deploy.quality.acceptance import studies
from tinyunet_deploy.quality.acceptance.studies import plateau_evidence, repeat_evidence
from tinyunet_deploy.quality.repeatability.measure import study_repeatability


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes most of the time, and the pictures have tests of their own."""
    for name in ("inline_plateaus", "inline_study"):
        monkeypatch.setattr(studies, name, lambda _: "<svg/>")


@pytest.mark.parametrize(
    ("threshold", "good", "defective", "edge"),
    [  # a square of 60 becomes NG below step 60, one of 200 passes from step 200 on
        (0.3, (60,), (200,), "good"),  # step 76
        (0.7, (60,), (200,), "defective"),  # step 178
        (0.7, (60, 200), (230,), "good"),  # a false alarm is the first to change
        (0.3, (30,), (60, 200), "defective"),  # an escape is the first to change
        (0.5, (60,), (197,), None),  # step 128: both are 68 away
        (0.3, (60,), (60, 200), None),
    ],
)
def test_the_near_edge_is_that_of_the_parts_that_change_first(
    tmp_path: Path,
    threshold: float,
    good: tuple[int, ...],
    defective: tuple[int, ...],
    edge: str | None,
) -> None:
    evaluation = judge_parts(
        tmp_path,
        {f"good{value}": value for value in good},
        {f"bad{value}": value for value in defective},
        threshold=threshold,
    )
    assert plateau_evidence(evaluation, None).edge == edge


def test_the_plateau_reaches_from_score_to_score(tmp_path: Path) -> None:
    plateau = plateau_evidence(judge_parts(tmp_path, {"a": 60}, {"b": 200}), 0.9)
    assert (plateau.lowest, plateau.highest) == (60 / 255, 199 / 255)
    assert plateau.margin == (128 - 60) / 255
    assert (plateau.threshold, plateau.share_of_reference) == (0.5, 0.9)


@pytest.mark.parametrize(
    ("changes", "mismatch"),
    [
        ({}, None),
        ({"model_sha256": "b" * 64}, "another model"),
        ({"backend": "torch"}, "another backend"),
        ({"device": "cuda:0"}, "another device"),
        ({"threshold": 0.4}, "another threshold"),
        ({"min_area_px": 9}, "another min_area"),
    ],
)
def test_a_study_counts_only_for_the_model_and_rule_that_it_studied(
    tmp_path: Path, changes: dict[str, Any], mismatch: str | None
) -> None:
    for repeat, value in (("1", 200), ("2", 90)):
        folder = tmp_path / "repeats" / repeat
        folder.mkdir(parents=True)
        write_png(folder / "flips.png", square(value))
        write_png(folder / "stays.png", square(10))
    study = study_repeatability(tmp_path / "repeats", backend(), workers=1)
    whose = {key: changes.pop(key) for key in list(changes) if hasattr(study.scored_by, key)}
    study = dataclasses.replace(
        study, scored_by=dataclasses.replace(study.scored_by, **whose), **changes
    )
    evaluation = judge_parts(tmp_path / "parts", {"a": 0}, {"b": 255})
    figures = repeat_evidence("repeats", study, evaluation)
    assert figures.mismatch == mismatch
    assert (figures.parts, figures.agreeing, figures.photographs) == (2, 1, 4)
    assert (figures.flips, figures.simulated) == (("flips.png",), False)
