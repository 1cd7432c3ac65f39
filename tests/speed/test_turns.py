from __future__ import annotations

import pytest

from tinyunet_deploy.speed.turns import time_in_turns


def test_the_figure_of_a_round_is_the_median_of_its_calls_on_one_clock() -> None:
    now, called = 0.0, []
    costs = {"a": iter([9, 9, 1, 2, 6, 3, 3, 3]), "b": iter([9, 9, 10, 10, 40, 8, 8, 2])}

    def work(name: str) -> None:
        nonlocal now
        called.append(name)
        now += next(costs[name]) / 1000

    calls = {name: lambda name=name: work(name) for name in costs}
    times = time_in_turns(calls, rounds=2, calls_each=3, clock=lambda: now)
    assert times == {"a": pytest.approx([2, 3]), "b": pytest.approx([10, 8])}
    assert "".join(called) == "aabb" + "aaabbb" + "bbbaaa", "each round begins with another one"
