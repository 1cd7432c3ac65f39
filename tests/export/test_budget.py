from __future__ import annotations

import functools
import json
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from export import budget as module
from export.budget import MixedPrecision, chart, choose, meets, rank_calibrations
from export.likeness import Likeness, worst
from tinyunet_deploy.quality.parity_limits import read_limits

NAMES = [f"conv{index}" for index in range(6)]
WEIGHTS = dict.fromkeys(NAMES, 100)


@pytest.fixture(scope="module", autouse=True)
def limits_read_once() -> Iterator[None]:
    """Read the limits of the package once: the search asks for them thousands of times."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "read_limits", functools.cache(read_limits))
        yield


def figures(drop: float, agreement: float, flips: int = 0) -> Likeness:
    values = {"iou_drop": drop, "agreement": agreement, "flips": flips}
    return Likeness(10, 0.7, 0.7 - drop, {**values, "flips_defective": flips, "new_alarms": 0})


class Additive:
    """Each convolution in int8 takes its own share away."""

    def __init__(self, harm: dict[str, float]) -> None:
        self.harm = harm
        self.calls = 0

    def __call__(self, kept: Sequence[str]) -> Likeness:
        self.calls += 1
        total = sum(value for name, value in self.harm.items() if name not in kept)
        return figures(total, 1.0 - total, flips=int(total > 0.2))


def test_a_plain_file_that_meets_the_budget_ends_the_search() -> None:
    measure = Additive(dict.fromkeys(NAMES, 0.0))
    choice = choose(WEIGHTS, measure, figures(0.004, 0.96), 0.005)
    assert (choice.kept, choice.alone, measure.calls) == ((), {}, 0)


@settings(deadline=None)
@given(st.lists(st.floats(0.0, 0.1), min_size=6, max_size=6), st.floats(0.0, 0.1))
def test_the_kept_convolutions_meet_the_budget_and_none_can_be_spared(
    harms: list[float], budget: float
) -> None:
    measure = Additive(dict(zip(NAMES, harms, strict=True)))
    choice = choose(WEIGHTS, measure, measure([]), budget)
    assert meets(choice.chosen, budget)
    assert choice.chosen == measure(choice.kept)
    for name in choice.kept:
        assert not meets(measure([kept for kept in choice.kept if kept != name]), budget)


def test_convolutions_with_few_weights_are_kept_first() -> None:
    measure = Additive({"large": 0.04, "small": 0.03, "useless": 0.0})
    weights = {"large": 300_000, "small": 9_000, "useless": 10}
    choice = choose(weights, measure, measure([]), 0.045)
    assert choice.kept == ("small",), "though the large one alone gains more"


def test_a_convolution_that_a_later_one_makes_needless_goes_back_to_int8() -> None:
    measure = Additive({"cheap": 0.01, "needed": 0.04})
    weights = {"cheap": 10, "needed": 100_000}
    choice = choose(weights, measure, measure([]), 0.02)
    assert choice.kept == ("needed",), "though the cheap one was kept first"
    assert choice.chosen == measure(["needed"])


def test_a_budget_is_not_met_by_flipped_verdicts_or_other_masks() -> None:
    assert meets(figures(0.005, 0.95), 0.006)
    assert meets(figures(-0.1, 0.95), 0.0), "a gain is no loss"
    assert not meets(figures(0.007, 0.95), 0.006)
    assert not meets(figures(0.0, 1.0, flips=1), 0.006)
    assert not meets(figures(0.0, 0.94), 0.006)
    assert not meets(figures(float("nan"), 1.0), 0.006), "nothing defective was measured"


def test_the_method_with_the_fewest_flips_and_then_the_likest_masks_wins() -> None:
    rows = {
        "flips": figures(-0.1, 0.99, flips=1),
        "lucky": figures(-0.1, 0.90),
        "likest": figures(0.01, 0.93),
    }
    assert list(rank_calibrations(rows, rows.__getitem__)) == ["likest"], (
        "no other can be better on all"
    )


def test_a_method_that_is_good_on_one_runtime_alone_loses() -> None:
    quick = {"one": figures(0.0, 0.99), "both": figures(0.0, 0.97), "neither": figures(0.0, 0.9)}
    other = {"one": figures(0.0, 0.99, flips=1), "both": figures(0.01, 0.96)}
    full = rank_calibrations(quick, lambda name: worst([quick[name], other[name]]))
    assert list(full) == ["both", "one"]
    assert full["both"].figures["agreement"] == 0.96
    assert full["both"].figures["iou_drop"] == 0.01
    assert full["both"].iou_defective == pytest.approx(0.69)


def test_the_chart_names_every_convolution_and_is_the_same_every_time() -> None:
    alone = {name: figures(0.01, 0.9 + index / 100) for index, name in enumerate(NAMES)}
    choice = MixedPrecision(0.005, figures(0.02, 0.9), alone, ("conv5",), figures(0.0, 0.99))
    svg = chart(choice)
    assert svg == chart(choice)
    text = "".join(ET.fromstring(svg).itertext())
    assert all(name in text for name in NAMES)
    assert json.loads(json.dumps(choice.as_dict()))["kept_in_float32"] == ["conv5"]
