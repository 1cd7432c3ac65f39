from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinyunet_deploy.contract import Batch, Contract, Score
from tinyunet_deploy.data.dataset import Item
from tinyunet_deploy.quality.parity_inputs import ComparedImage
from tinyunet_deploy.quality.parity_limits import outcome_of, read_limits
from tinyunet_deploy.quality.parity_plateau import ArtifactPlateau, ReferencePlateau
from tinyunet_deploy.testing.fake_backend import FakeBackend

FP32 = [10, 20, 230, 240]
"""Deciding scores of two good and two defective parts."""


def score(value: int) -> Score:
    made = np.zeros((16, 16), np.uint8)
    made[4:8, 4:8] = value
    return made


def backend() -> FakeBackend:
    def unused(_: Batch) -> Batch:
        raise AssertionError

    return FakeBackend(unused, contract=Contract(16, 16))


def reference(scores: list[int] = FP32, *, labels: bool = True) -> ReferencePlateau:
    made = ReferencePlateau(backend(), 0.5, 4)
    for number, value in enumerate(scores):
        item = Item(Path("a"), number > 1, None, None, None, None) if labels else None
        made.add(ComparedImage(Path("a"), f"part {number}", item), score(value))
    return made


def checked(judged: list[int], **options: Any) -> tuple[dict[str, float], str]:
    artifact = ArtifactPlateau(reference(**options), backend())
    for number, value in enumerate(judged):
        artifact.add(number, score(value))
    return artifact.figures, outcome_of(read_limits().check(artifact.figures, "int8", "openvino"))


def test_the_same_scores_keep_the_whole_plateau() -> None:
    assert checked(FP32) == ({"plateau_kept": 1, "margin_steps": 229 - 128}, "green")


@pytest.mark.parametrize(
    ("scores", "outcome"),
    [
        ([10, 62, 230, 240], "green"),  # 168 of 210 thresholds: 80 %
        ([10, 63, 230, 240], "red"),
        ([10, 20, 188, 240], "green"),
        ([10, 20, 187, 240], "red"),
    ],
)
def test_less_than_80_percent_of_the_plateau_is_red(scores: list[int], outcome: str) -> None:
    assert checked(scores)[1] == outcome


@pytest.mark.parametrize(
    ("scores", "outcome"), [([10, 115, 230, 240], "green"), ([10, 116, 230, 240], "red")]
)
def test_a_threshold_near_an_edge_is_red_even_if_the_plateau_is_kept(
    scores: list[int], outcome: str
) -> None:
    figures, made = checked(scores, scores=[10, 115, 230, 240])
    assert figures["plateau_kept"] > 0.99
    assert made == outcome


def test_an_edge_near_the_threshold_of_the_reference_is_no_fault_of_the_artifact() -> None:
    near = [10, 116, 230, 240]
    figures, outcome = checked(near, scores=near)
    assert np.isnan(figures["margin_steps"])
    assert outcome == "green"


def test_a_flipped_part_leaves_nothing_of_the_plateau() -> None:
    figures, outcome = checked([10, 20, 90, 240])
    assert figures == {"plateau_kept": 0, "margin_steps": 0}
    assert outcome == "red"


def test_without_labels_the_verdicts_of_the_reference_stand_for_the_truth() -> None:
    made = reference(labels=False)
    assert [part.defective for part in made.parts] == [False, False, True, True]
    assert not made.plateau.truth
    assert reference().plateau.truth
    assert made.plateau.steps == reference().plateau.steps == (20, 229)


def test_a_plateau_without_an_edge_has_no_margin_to_check() -> None:
    artifact = ArtifactPlateau(reference([0, 0]), backend())
    for number in range(2):
        artifact.add(number, score(0))
    assert np.isnan(artifact.figures["margin_steps"])
    checks = read_limits().check(artifact.figures, "int8", "openvino")
    assert [check.limit.figure for check in checks] == ["plateau_kept"]
