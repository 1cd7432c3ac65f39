"""Split the variance of scores by part, repeat and condition: analysis of variance, random effects.

The model is score[part, repeat] = mean + part + condition + repeat within it + error, every term
random. Its components are those that make the expected mean squares equal to the observed ones
(Searle, Casella & McCulloch 1992, "Variance Components", chapter 4), and 0 where that is negative.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["ConditionVariance", "VarianceSplit", "chi_square_quantile", "split_variance"]


@dataclass(frozen=True)
class ConditionVariance:
    """Share of one condition, such as the lamp, in the variance between repeats."""

    condition: str
    levels: int
    """Number of its values, such as two lamps."""
    variance: float
    """Variance between its values, steps squared; with one repeat for each value it contains the
    variance between repeats, too."""
    repeat_variance: float
    """Variance between repeats of one value, steps squared; NaN with one repeat for each value."""


@dataclass(frozen=True)
class VarianceSplit:
    """Components of the variance of the deciding score, steps of 1/255, squared."""

    part: float
    """Between parts: what the score is meant to show."""
    repeat: float
    """Between repeats, the same for all parts, such as a brighter lamp."""
    error: float
    """Within a part, once the difference between repeats is taken out."""
    error_lower: float
    """Lower end of the 95 % interval of ``error``, exact for normal errors."""
    error_upper: float
    conditions: tuple[ConditionVariance, ...] = ()


def split_variance(
    scores: NDArray[np.float64], conditions: Mapping[str, Sequence[Hashable]]
) -> VarianceSplit:
    """Split the variance of a complete table.

    Conditions are analysed one at a time: the others are in the variance between repeats then.

    Args:
        scores: [parts, repeats], two of each at least.
        conditions: name -> value in each repeat; those with a single value are left out.

    Raises:
        ValueError: there are fewer than two parts or repeats.
    """
    parts, repeats = scores.shape
    if parts < 2 or repeats < 2:
        raise ValueError(f"{parts} parts in {repeats} repeats, but 2 of each are needed")
    mean, of_part, of_repeat = scores.mean(), scores.mean(axis=1), scores.mean(axis=0)
    residual = scores - of_part[:, None] - of_repeat[None] + mean
    freedom = (parts - 1) * (repeats - 1)
    error_squares = float((residual**2).sum())
    error = error_squares / freedom
    between_parts = repeats * float(((of_part - mean) ** 2).sum()) / (parts - 1)
    between_repeats = parts * float(((of_repeat - mean) ** 2).sum()) / (repeats - 1)
    split = []
    for name, values in conditions.items():
        if len(set(values)) > 1:
            split.append(_split_condition(name, values, of_repeat, parts, error))
    return VarianceSplit(
        part=max(0.0, (between_parts - error) / repeats),
        repeat=max(0.0, (between_repeats - error) / parts),
        error=error,
        error_lower=error_squares / chi_square_quantile(0.975, freedom),
        error_upper=error_squares / chi_square_quantile(0.025, freedom),
        conditions=tuple(split),
    )


def _split_condition(
    name: str,
    values: Sequence[Hashable],
    of_repeat: NDArray[np.float64],
    parts: int,
    error: float,
) -> ConditionVariance:
    """Split the variance between repeats into that between and within the values of a condition."""
    groups = [of_repeat[[value == level for value in values]] for level in dict.fromkeys(values)]
    repeats, levels = len(of_repeat), len(groups)
    between = parts * sum(
        len(group) * float((group.mean() - of_repeat.mean()) ** 2) for group in groups
    )
    between /= levels - 1
    # repeats for each value; the mean that makes the expectation right if they differ
    size = (repeats - sum(len(group) ** 2 for group in groups) / repeats) / (levels - 1)
    if repeats == levels:
        return ConditionVariance(name, levels, max(0.0, (between - error) / parts), math.nan)
    within = parts * sum(float(((group - group.mean()) ** 2).sum()) for group in groups)
    within /= repeats - levels
    return ConditionVariance(
        name,
        levels,
        max(0.0, (between - within) / (parts * size)),
        max(0.0, (within - error) / parts),
    )


def chi_square_quantile(probability: float, freedom: int) -> float:
    """Return the value below which a chi-square variable falls with a probability, by bisection.

    Args:
        probability: above 0 and up to 1 - 1e-12.
        freedom: degrees of freedom, 1 or more.
    """
    # Twelve standard deviations above the mean, and 60 more for the long tail of few degrees.
    low, high = 0.0, freedom + 12 * math.sqrt(2 * freedom) + 60
    while low < (middle := (low + high) / 2) < high:
        if _chi_square_below(middle, freedom) < probability:
            low = middle
        else:
            high = middle
    return high


def _chi_square_below(value: float, freedom: int) -> float:
    """Return the probability that a chi-square variable is below a value.

    It is the regularised lower incomplete gamma function of half of both, by its power series
    (Abramowitz & Stegun 6.5.29), whose terms are all positive.
    """
    if value <= 0:
        return 0.0
    shape, half = freedom / 2, value / 2
    term = math.exp(shape * math.log(half) - half - math.lgamma(shape + 1))
    total, number = 0.0, shape
    while term > total * 1e-16 or number < half:
        total += term
        number += 1
        term *= half / number
    return min(1.0, total)
