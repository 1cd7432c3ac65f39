"""Agreement of the verdicts on parts that were judged several times."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tinyunet_deploy.quality.confidence import clopper_pearson_upper

__all__ = ["fleiss_kappa", "fleiss_kappa_lower", "student_quantile"]


def fleiss_kappa(rejections: Sequence[tuple[int, int]]) -> float:
    """Return Fleiss' kappa of verdicts: agreement beyond chance, 1 at best, 0 for chance alone.

    Parts may have been judged a different number of times. Fleiss 1971, "Measuring nominal scale
    agreement among many raters", whose formula this is where the numbers are the same.

    Args:
        rejections: for each part how often it was rejected, and how often it was judged, 2 or more.

    Returns:
        NaN if every verdict on every part is the same, for chance then explains all agreement, or
        if there are no parts.
    """
    if not rejections:
        return math.nan
    judged = sum(times for _, times in rejections)
    rejected = sum(count for count, _ in rejections)
    by_chance = (rejected / judged) ** 2 + (1 - rejected / judged) ** 2
    if rejected in (0, judged):
        return math.nan
    agreeing = [
        (count * (count - 1) + (times - count) * (times - count - 1)) / (times * (times - 1))
        for count, times in rejections
    ]
    observed = math.fsum(agreeing) / len(agreeing)
    return (observed - by_chance) / (1 - by_chance)


def fleiss_kappa_lower(rejections: Sequence[tuple[int, int]], confidence: float = 0.95) -> float:
    """Return the one-sided lower bound of Fleiss' kappa over parts like these.

    The standard error is that of the jackknife over parts (Kraemer 1980, "Extension of the kappa
    coefficient"), taken on the scale of -log(1 - kappa), where the estimates are less skewed, with
    Student's t. Without any disagreement the jackknife says nothing. Then at most the exact bound
    of the share of parts (Clopper & Pearson 1934) disagrees, and each as much as a part can. In
    simulated studies of 30 and 100 parts the bound is below the truth in 97 % or more.

    Args:
        rejections: as for :func:`fleiss_kappa`.
        confidence: in (0, 1).

    Returns:
        -1 or more; NaN where kappa is undefined, or undefined without one of the parts.
    """
    kappa, parts = fleiss_kappa(rejections), len(rejections)
    if math.isnan(kappa):
        return math.nan
    count, times = np.array(rejections, np.float64).T
    disagreeing = 2 * count * (times - count) / (times * (times - 1))
    if not disagreeing.any():
        share = count.sum() / times.sum()
        most = float((2 * (times // 2) * (times - times // 2) / (times * (times - 1))).max())
        bound = clopper_pearson_upper(0, parts, confidence) * most
        return max(-1.0, float(1 - bound / (2 * share * (1 - share))))
    shares = (count.sum() - count) / (times.sum() - times)  # each without one of the parts
    by_chance = 2 * shares * (1 - shares)
    if parts < 3 or not by_chance.all():
        return math.nan
    kappas = 1 - (disagreeing.sum() - disagreeing) / (parts - 1) / by_chance
    error = math.sqrt((parts - 1) / parts * float(((kappas - kappas.mean()) ** 2).sum()))
    # the exponent of a bound near -1 may be any number
    exponent = min(50.0, student_quantile(confidence, parts - 1) * error / (1 - kappa))
    return max(-1.0, 1 - (1 - kappa) * math.exp(exponent))


def student_quantile(probability: float, freedom: int) -> float:
    """Return the value below which Student's t falls with a probability, by bisection.

    Args:
        probability: in [0.5, 1 - 1e-6].
        freedom: degrees of freedom, 1 or more.
    """
    low, high = 0.0, 1e7
    while low < (middle := (low + high) / 2) < high:
        if _student_within(middle, freedom) < 2 * probability - 1:
            low = middle
        else:
            high = middle
    return high


def _student_within(value: float, freedom: int) -> float:
    """Return the probability that Student's t is between -value and value.

    Finite series of Abramowitz & Stegun 26.7.3 and 26.7.4.
    """
    angle = math.atan(value / math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term = cosine if odd else 1.0
    total = 0.0
    for number in range(1 + odd, freedom, 2):
        total += term
        term *= cosine * cosine * number / (number + 1)
    if odd:
        return 2 / math.pi * (angle + sine * total)
    return sine * total
