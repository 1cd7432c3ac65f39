"""Service times for any number of images, drawn from a recording."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np

from tinyunet_deploy.line.belt import Belt, Times
from tinyunet_deploy.line.recording import Recording

__all__ = ["draw_services_ms"]


def draw_services_ms(recording: Recording, belt: Belt, images: int, seed: int) -> Times:
    """Return service times for any number of images, [images], in sequences as recorded.

    Slow images come in groups (another program runs, a clock drops), and it is groups that fill a
    buffer: shuffled one by one, the same times would look harmless. So blocks of consecutive
    times are replayed: Künsch 1989, "The jackknife and the bootstrap for general stationary
    observations". The recording is closed to a circle, so that the ends count as the middle does
    (Politis & Romano 1992), and every time is used equally often (balanced, Davison, Hinkley &
    Schechtman 1986); blocks are 4 n^(1/3) long, n^(1/3) being the order of the best length (Hall,
    Horowitz & Jing 1995).

    If both recording and belt stop and go, every stretch between two stops begins as a recorded
    stretch did, so that images that are slow after a pause are slow there.
    """
    random = np.random.default_rng((seed, 1))
    times = itertools.chain.from_iterable(_blocks(recording.service_ms, random))
    if not belt.go_parts or len(recording.stretches) == 1:
        return np.fromiter(itertools.islice(times, images), np.float64, images)
    drawn: list[float] = []
    stretch = belt.go_parts * belt.cameras
    while len(drawn) < images:
        opening = recording.stretches[int(random.integers(len(recording.stretches)))][:stretch]
        drawn.extend(opening.tolist())
        drawn.extend(itertools.islice(times, stretch - len(opening)))
    return np.array(drawn[:images])


def _blocks(recorded: Times, random: np.random.Generator) -> Iterator[list[float]]:
    """Yield blocks of consecutive times endlessly."""
    length = math.ceil(4 * len(recorded) ** (1 / 3))
    while True:
        circle = np.roll(recorded, random.integers(len(recorded)))
        blocks = np.array_split(circle, -(-len(circle) // length))
        for block in random.permutation(len(blocks)):
            yield blocks[block].tolist()
