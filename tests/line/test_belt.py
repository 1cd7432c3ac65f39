from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from tinyunet_deploy.line.belt import Belt, triggers_ms


def test_jitter_moves_parts_by_shares_of_the_pitch_and_keeps_their_order() -> None:
    belt = Belt(600, 100, jitter=0.1)
    places = triggers_ms(belt, 4000, 0) / 100 - np.arange(4000)
    assert np.std(places) == pytest.approx(0.1, rel=0.05)
    assert triggers_ms(belt.at(1200), 4000, 0) * 2 == pytest.approx(triggers_ms(belt, 4000, 0))
    wild = triggers_ms(replace(belt, jitter=1.0), 4000, 0)
    assert all(early <= late for early, late in pairwise(wild.tolist()))


def test_a_fixed_gate_leaves_less_time_to_a_faster_belt() -> None:
    belt = Belt(600, 120, pitch_mm=50, gate_mm=60)
    assert belt.speed_mm_s == 500
    assert belt.at(1200).deadline_ms == 60
    assert replace(belt, gate_mm=None).at(1200).deadline_ms == 120
    assert math.isnan(Belt(600, 120).speed_mm_s)


def test_a_belt_that_stops_triggers_later_after_every_stop() -> None:
    belt = Belt(3000, 60)
    assert triggers_ms(belt, 5, 0) == pytest.approx([0, 20, 40, 60, 80])
    stops = replace(belt, go_parts=2, stop_ms=100.0)
    assert triggers_ms(stops, 5, 0) == pytest.approx([0, 20, 140, 160, 280])
    assert (belt.parts_in(60), stops.parts_in(60)) == (3000, 857)
    assert belt.parts_in(0.001) == 1
