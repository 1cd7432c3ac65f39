from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyunet_deploy.contract import score_threshold
from tinyunet_deploy.quality.part_score import PartScore
from tinyunet_deploy.quality.plateau import Interval, Plateau, plateau_of
from tinyunet_deploy.quality.scored_by import ScoredBy

BY = ScoredBy("m.onnx", "ab" * 32, "int8", "openvino", "cpu")


def plateau(
    *parts: tuple[bool, int, int], threshold: float = 0.5, min_area: int = 16, **options: object
) -> Plateau:
    """A plateau of parts given as defective, deciding score, largest area."""
    scored = [PartScore(str(number), *part) for number, part in enumerate(parts)]
    return plateau_of(scored, BY, threshold, min_area, **options)  # type: ignore[arg-type]


def test_the_plateau_lies_between_the_worst_good_and_the_best_defective_part() -> None:
    flat = plateau((False, 30, 4), (False, 90, 7), (True, 201, 40), (True, 255, 900))
    # at threshold 90 the good part of 90 is still OK; at 200 the defective one of 201 still NG
    assert flat.steps == (90, 200)
    assert flat.areas_px == (8, 40)
    assert flat.no_escape_steps == (0, 200)
    assert flat.no_escape_areas_px == (1, 40)
    assert (flat.width_steps, flat.margin_steps, flat.margin_area) == (111, 128 - 90, 2.0)
    assert flat.faults() == []
    assert flat.steps_curve == ((0, 0, 2), (30, 0, 1), (90, 0, 0), (201, 1, 0), (255, 2, 0))
    assert flat.areas_curve == ((1, 0, 2), (5, 0, 1), (8, 0, 0), (41, 1, 0), (901, 2, 0))


def test_an_escape_does_not_hide_that_the_verdicts_are_stable() -> None:
    flat = plateau((False, 30, 4), (True, 100, 9), (True, 255, 900))
    assert flat.steps == (100, 254), "no verdict changes there, although one is wrong"
    assert flat.no_escape_steps == (0, 99), "the chosen 128 is not in it"


def test_without_bounding_parts_the_scale_ends_but_is_no_edge() -> None:
    clean = plateau((False, 0, 0), (False, 0, 0))
    assert clean.steps == (0, 255)
    assert clean.areas_px == (1, None)
    assert math.isinf(clean.margin_steps) and math.isinf(clean.margin_area)
    assert clean.no_escape_areas_px == (1, None)
    saturated = plateau((False, 0, 0), (True, 255, 900), threshold=0.9)
    assert saturated.steps == (0, 254)
    assert saturated.margin_steps == 254 - 230, "threshold 1 would let the part through"


def test_a_defective_part_without_any_score_always_escapes() -> None:
    lost = plateau((True, 0, 0), (True, 255, 900))
    assert lost.no_escape_steps is None
    assert lost.no_escape_areas_px is None
    assert lost.steps == (0, 254)


@pytest.mark.parametrize(("worst_good", "fault"), [(115, False), (116, True)])
def test_a_point_within_the_margin_of_an_edge_is_a_fault(worst_good: int, fault: bool) -> None:
    near = plateau((False, worst_good, 4), (True, 250, 900))
    assert bool(near.faults()) == fault
    if fault:
        (sentence,) = near.faults()
        assert sentence.startswith("threshold is 12 steps from its plateau's edge")


@pytest.mark.parametrize(
    ("area", "sentence"), [(12, "min_area is 1.23 times"), (19, "min_area is 1.19 times")]
)
def test_a_min_area_near_an_edge_is_a_fault(area: int, sentence: str) -> None:
    parts = [(False, 0, 4), (True, 255, 900)]
    parts += [(False, 0, 12)] if area == 12 else [(True, 255, 19)]
    (fault,) = plateau(*parts).faults()
    assert fault.startswith(sentence)


@pytest.mark.parametrize(("best_good", "fault"), [(30, False), (53, False), (54, True)])
def test_int8_has_to_keep_80_percent_of_the_reference(best_good: int, fault: bool) -> None:
    reference = plateau((False, 9, 4), (True, 250, 900))
    assert reference.width_steps == 241
    faults = plateau((False, best_good, 4), (True, 246, 900)).faults(reference)
    assert bool(faults) == fault
    if fault:
        assert faults == ["plateau is 79.7% as wide as the reference's, but must be 80%"]


def test_a_flipped_verdict_leaves_no_plateau() -> None:
    parts = [(False, 30, 4), (True, 100, 40)]
    assert plateau(*parts, rejected=[False, False]).steps == (100, 255)
    flipped = plateau(*parts, rejected=[False, True])
    assert flipped.steps is None and flipped.areas_px is None
    assert (flipped.width_steps, flipped.margin_steps, flipped.margin_area) == (0, 0, 0)
    assert flipped.kept(plateau(*parts)) == 0
    assert flipped.faults() == ["a verdict differs from the reference's at the chosen point"]


PARTS = st.lists(
    st.tuples(st.booleans(), st.integers(0, 255), st.integers(0, 99)), min_size=1, max_size=8
)


@given(PARTS, st.floats(0, 1), st.integers(1, 99))
def test_verdicts_change_just_outside_the_plateau_and_nowhere_inside(
    parts: list[tuple[bool, int, int]], threshold: float, min_area: int
) -> None:
    # one and the same score gives both numbers: NG at the point by both, or OK by both
    step = score_threshold(threshold)
    parts = [part for part in parts if (part[1] > step) == (part[2] >= min_area)]
    if not parts:
        return
    flat = plateau(*parts, threshold=threshold, min_area=min_area)
    by_step = [[score > at for _, score, _ in parts] for at in range(256)]
    by_area = [[area >= at for _, _, area in parts] for at in range(1, 120)]
    assert flat.steps == expected(by_step, step, 0)
    low, high = expected(by_area, min(min_area, 119) - 1, 1)
    assert flat.areas_px == (low, None if high == 119 else high)
    for at, verdicts in enumerate(by_step):
        point = [point for point in flat.steps_curve if point.at <= at][-1]
        pairs = list(zip(verdicts, parts, strict=True))
        assert point.escapes == sum(bad and not ng for ng, (bad, *_) in pairs)
        assert point.overkills == sum(ng and not bad for ng, (bad, *_) in pairs)


def expected(verdicts: list[list[bool]], at: int, first: int) -> Interval:
    """The longest run of equal verdicts around one."""
    same = [index for index, those in enumerate(verdicts) if those == verdicts[at]]
    return Interval(same[0] + first, same[-1] + first)


@given(PARTS)
def test_json_gives_the_plateau_again(parts: list[tuple[bool, int, int]]) -> None:
    flat = plateau(*parts)
    text = json.dumps(flat.as_fields(), allow_nan=False)
    assert Plateau.from_fields(json.loads(text)) == flat


def test_other_json_is_refused() -> None:
    fields = plateau((True, 9, 9)).as_fields()
    for broken in ({**fields, "schema_version": 9}, {**fields, "steps": [None, 3]}, {}):
        with pytest.raises(ValueError, match=r"schema_version|no lower end|not a plateau"):
            Plateau.from_fields(broken)
