from __future__ import annotations

from dataclasses import replace

import numpy as np

from tinyunet_deploy.line.belt import Belt
from tinyunet_deploy.line.recording import Recording
from tinyunet_deploy.line.resampling import draw_services_ms


def test_every_recorded_time_is_replayed_equally_often() -> None:
    times = np.arange(1, 501.0)
    drawn = draw_services_ms(Recording("test", (times,)), Belt(600, 100), 1500, 0)
    assert (np.sort(drawn) == np.repeat(times, 3)).all()
    follows = np.diff(drawn) == 1
    assert 0.9 < follows.mean() < 1


def test_images_that_are_slow_after_a_stop_stay_there() -> None:
    stretches = tuple(np.array([90.0, 20, 10, 10]) for _ in range(10))
    belt = Belt(600, 100, cameras=2, go_parts=2, stop_ms=500)
    drawn = draw_services_ms(Recording("test", stretches), belt, 40, 0)
    assert drawn.reshape(-1, 4).tolist() == [[90, 20, 10, 10]] * 10
    longer = draw_services_ms(Recording("test", stretches), replace(belt, go_parts=5), 40, 0)
    assert (longer.reshape(-1, 10)[:, :4] == [90, 20, 10, 10]).all()
    shorter = draw_services_ms(Recording("test", stretches), replace(belt, go_parts=1), 40, 0)
    assert shorter.reshape(-1, 2).tolist() == [[90, 20]] * 20


def test_blocks_begin_anywhere_and_come_in_any_order() -> None:
    """Of 500 times in blocks of 32: 16 blocks, whose ends are other times for every seed."""
    recording = Recording("test", (np.arange(500.0),))
    ends: set[float] = set()
    for seed in range(20):
        drawn = draw_services_ms(recording, Belt(600, 100), 500, seed)
        breaks = drawn[:-1][np.diff(drawn) != 1]
        assert len(breaks) >= 10
        ends.update(breaks.tolist())
    assert len(ends) > 150
