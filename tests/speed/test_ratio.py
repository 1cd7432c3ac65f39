from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyunet_deploy.speed.ratio import Ratio, ratio_in_run


@settings(max_examples=25)
@given(st.lists(st.floats(1, 100), min_size=1, max_size=12), st.floats(0.1, 10))
def test_a_ratio_lies_in_its_interval_and_scales(figures: list[float], factor: float) -> None:
    ratio = ratio_in_run([factor * figure for figure in figures], figures)
    assert ratio.value == pytest.approx(factor)
    assert ratio.low == pytest.approx(factor)
    assert ratio.high == pytest.approx(factor)


def test_the_floor_is_the_further_end() -> None:
    assert Ratio(1.0, 0.8, 1.1).floor == pytest.approx(1.25)
    assert Ratio(1.0, 0.9, 1.3).floor == pytest.approx(1.3)
    assert Ratio(1.2, 1.1, 1.3).outside(1.05)
    assert not Ratio(1.2, 1.02, 1.3).outside(1.05)


def test_as_many_rounds_of_both_are_needed() -> None:
    with pytest.raises(ValueError, match="2 rounds cannot be compared with 1"):
        ratio_in_run([1.0, 2.0], [1.0])
