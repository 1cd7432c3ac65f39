from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from benchmarks.report.sections.machine_limit import spread


@given(st.lists(st.floats(0, 1), max_size=8))
def test_names_of_ceilings_never_overlap(places: list[float]) -> None:
    moved = spread(places, 0.07)
    apart = sorted(moved)
    assert all(upper - lower > 0.0699 for lower, upper in pairwise(apart))
    order = sorted(range(len(places)), key=lambda i: -places[i])
    assert [moved[i] for i in order] == sorted(moved, reverse=True)


def test_what_is_apart_stays() -> None:
    assert spread([0.2, 0.9, 0.5], 0.07) == [0.2, 0.9, 0.5]
