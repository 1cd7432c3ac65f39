from __future__ import annotations

import math

import numpy as np
import pytest

from tinyunet_deploy.quality.repeatability.agreement import fleiss_kappa


def by_pairs(rejections: list[tuple[int, int]]) -> float:
    """Kappa from all ordered pairs of verdicts on a part, counted one by one."""
    same = []
    verdicts = [[1] * count + [0] * (times - count) for count, times in rejections]
    for part in verdicts:
        pairs = [(a, b) for i, a in enumerate(part) for j, b in enumerate(part) if i != j]
        same.append(sum(a == b for a, b in pairs) / len(pairs))
    share = np.mean([verdict for part in verdicts for verdict in part])
    chance = share**2 + (1 - share) ** 2
    return float((np.mean(same) - chance) / (1 - chance))


def test_kappa_by_hand() -> None:
    # two parts agree, one of four photographs of the third differs: P = (1 + 1 + 1/2) / 3
    # shares 5/12 and 7/12: chance = 74/144
    rejections = [(4, 4), (0, 4), (1, 4)]
    assert fleiss_kappa(rejections) == pytest.approx((2.5 / 3 - 74 / 144) / (1 - 74 / 144))
    assert fleiss_kappa(rejections) == pytest.approx(by_pairs(rejections))


def test_kappa_of_the_published_formula_for_other_numbers_of_photographs() -> None:
    random = np.random.default_rng(2)
    for _ in range(20):
        times = random.integers(2, 7, 9)
        rejections = [(int(random.integers(0, n + 1)), int(n)) for n in times]
        assert fleiss_kappa(rejections) == pytest.approx(by_pairs(rejections))


def test_perfect_and_chance_agreement() -> None:
    assert fleiss_kappa([(3, 3), (0, 3)]) == 1
    assert fleiss_kappa([(1, 2), (1, 2)]) == -1
    random = np.random.default_rng(0)
    coins = [(int(n), 5) for n in random.binomial(5, 0.5, 5000)]
    assert abs(fleiss_kappa(coins)) < 0.02


def test_one_kind_of_verdict_has_no_kappa() -> None:
    for rejections in ([(0, 3), (0, 3)], [(3, 3)], []):
        assert math.isnan(fleiss_kappa(rejections))
