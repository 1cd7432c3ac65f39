from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.temperature import best_temperature, scaled_threshold


@pytest.mark.parametrize("truth", [1.5, 4.0, 12.0])
def test_a_known_temperature_is_found(truth: float) -> None:
    """Labels drawn with the probabilities sigmoid(logit / T)."""
    random = np.random.default_rng(0)
    logit = random.normal(0, 3 * truth, (500, 500)).astype(np.float32)
    label = (random.random(logit.shape) < 1 / (1 + np.exp(-logit / truth))).astype(np.uint8)
    assert best_temperature([logit], [label]) == pytest.approx(truth, rel=0.03)


@pytest.mark.parametrize(("threshold", "temperature"), [(0.9, 1.0), (0.9, 3.0), (0.3, 7.0)])
def test_the_threshold_selects_the_same_logits(threshold: float, temperature: float) -> None:
    scaled = scaled_threshold(threshold, temperature)
    for logit in (-4.0, -1.0, 0.5, 2.0, 2.3, 5.0):
        before = 1 / (1 + math.exp(-logit)) > threshold
        assert before == (1 / (1 + math.exp(-logit / temperature)) > scaled)
