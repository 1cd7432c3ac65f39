from __future__ import annotations

import math

import numpy as np
import pytest

from tinyunet_deploy.quality.repeatability.agreement import (
    fleiss_kappa,
    fleiss_kappa_lower,
    student_quantile,
)


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


@pytest.mark.parametrize(
    ("rejected", "times", "kappa"),
    [  # statsmodels 0.15.0, stats.inter_rater.fleiss_kappa, of the counts (rejected, passed)
        ((0, 1, 3), 4, 0.25),
        ((4, 4, 2, 3, 4), 4, 0.084967320261),
        ((3, 0, 5, 2, 2), 7, 0.11231884058),
        ((7, 6, 4, 4, 6), 8, -0.025641025641),
        ((3, 0, 0, 3, 1), 4, 0.340659340659),
        ((8, 6, 8, 8, 8, 8), 8, 0.105590062112),
    ],
)
def test_kappa_is_that_of_statsmodels(rejected: tuple[int, ...], times: int, kappa: float) -> None:
    assert fleiss_kappa([(count, times) for count in rejected]) == pytest.approx(kappa, abs=1e-11)


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


@pytest.mark.parametrize(
    ("probability", "freedom", "quantile"),
    [  # tables, such as Abramowitz & Stegun 26.10
        (0.95, 1, 6.314),
        (0.95, 2, 2.920),
        (0.95, 3, 2.353),
        (0.975, 7, 2.365),
        (0.95, 30, 1.697),
        (0.995, 120, 2.617),
    ],
)
def test_quantiles_of_student_are_those_of_the_tables(
    probability: float, freedom: int, quantile: float
) -> None:
    assert student_quantile(probability, freedom) == pytest.approx(quantile, abs=6e-4)


def test_the_bound_is_that_of_the_jackknife_by_hand() -> None:
    rejections = [(4, 4), (3, 3), (0, 4), (1, 4), (0, 3), (2, 2), (0, 2)]
    kappas = [fleiss_kappa(rejections[:i] + rejections[i + 1 :]) for i in range(7)]
    error = math.sqrt(6 / 7 * sum((k - np.mean(kappas)) ** 2 for k in kappas))
    kappa = fleiss_kappa(rejections)
    expected = 1 - (1 - kappa) * math.exp(1.943 * error / (1 - kappa))  # t of 6 degrees
    assert fleiss_kappa_lower(rejections) == pytest.approx(expected, abs=1e-3)
    assert fleiss_kappa_lower(rejections, 0.99) < fleiss_kappa_lower(rejections) < kappa


def test_without_disagreement_the_bound_is_that_of_the_parts() -> None:
    # 0 of 60 parts disagree, so at most 4.87 %, each with 2 of 3 pairs; chance: 2 * 1/3 * 2/3
    rejections = [(3, 3)] * 20 + [(0, 3)] * 40
    share = 1 - 0.05 ** (1 / 60)
    assert fleiss_kappa_lower(rejections) == pytest.approx(1 - share * (2 / 3) / (4 / 9))


def test_there_is_no_bound_where_kappa_rests_on_one_part() -> None:
    for rejections in ([(1, 3)] + [(0, 3)] * 9, [(0, 3)] * 9, [(1, 2), (1, 2)]):
        assert math.isnan(fleiss_kappa_lower(rejections))
    assert fleiss_kappa_lower([(3, 3)] + [(0, 3)] * 9) >= -1


@pytest.mark.nightly
@pytest.mark.parametrize("kind", ["beta", "some-flip"])
@pytest.mark.parametrize("parts", [30, 100])
def test_the_bound_is_below_the_truth_as_often_as_it_claims(kind: str, parts: int) -> None:
    """500 studies of known kappa: parts whose rate of rejects is drawn, or of which some flip."""
    random = np.random.default_rng(parts)

    def drawn() -> np.ndarray:
        if kind == "beta":  # kappa is 1 / (a + b + 1)
            return random.beta(0.3 * 0.25, 0.7 * 0.25, parts)
        rates = (random.random(parts) < 0.2).astype(float)
        rates[random.random(parts) < 0.05] = 0.5
        return rates

    mean, square = 0.2 * 0.95 + 0.025, 0.2 * 0.95 + 0.0125
    truth = 0.8 if kind == "beta" else (square - mean**2) / (mean * (1 - mean))
    below, bounds = 0, []
    for _ in range(500):
        counts = random.binomial(4, drawn())
        bound = fleiss_kappa_lower([(int(count), 4) for count in counts])
        below += math.isnan(bound) or bound <= truth
        bounds.append(bound)
    # 0.95 of 500, within four standard deviations of a share of 500
    assert below / 500 > 0.95 - 4 * (0.95 * 0.05 / 500) ** 0.5
    assert np.nanmedian(bounds) > truth - (0.5 if parts == 30 else 0.2), "it says something"
