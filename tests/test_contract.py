"""The contract of a deployable graph: sizes, the threshold in steps of a score, the mask."""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyunet_deploy.contract import (
    DEFAULT_SIZE,
    INT8_GREY,
    Contract,
    defect_mask,
    score_threshold,
)


def test_the_shipped_contract_is_512_rows_and_columns_and_any_batch() -> None:
    assert (Contract().height, Contract().width, Contract().max_batch) == (512, 512, None)
    assert DEFAULT_SIZE == 512


@pytest.mark.parametrize("size", [1, 17, 48, 1024])
def test_a_positive_number_of_pixels_is_a_size(size: int) -> None:
    """Which sizes a network takes is a fact of the network, not of the contract."""
    contract = Contract(size, 16, max_batch=1)
    assert (contract.height, contract.width, contract.max_batch) == (size, 16, 1)


@pytest.mark.parametrize("size", [0, -16, 16.0, True, "16", None])
@pytest.mark.parametrize("side", ["height", "width"])
def test_another_size_is_refused_and_named(side: str, size: Any) -> None:
    with pytest.raises(ValueError, match=f"{side} {size!r} is not a positive number of pixels"):
        Contract(**{side: size})


@pytest.mark.parametrize("batch", [0, -1, 1.0, True, "1"])
def test_a_largest_batch_that_is_no_count_is_refused(batch: Any) -> None:
    with pytest.raises(ValueError, match=f"max_batch {batch!r} is not a positive number"):
        Contract(max_batch=batch)


def test_a_contract_cannot_be_changed_and_may_be_a_key() -> None:
    contract = Contract(64, 32)
    with pytest.raises(dataclasses.FrozenInstanceError):
        contract.height = 128  # type: ignore[misc]
    assert {contract: 1}[Contract(64, 32)] == 1
    assert contract != Contract(32, 64)


@pytest.mark.parametrize(
    ("threshold", "steps"),
    [
        (0.0, 0),
        (1.0, 255),
        (0.5, 128),  # 127.5: half up
        (0.99, 252),
        (0.001, 0),
        (0.5 / 255, 1),
        (0.49 / 255, 0),
        (254.49 / 255, 254),
    ],
)
def test_a_threshold_in_steps_of_a_score(threshold: float, steps: int) -> None:
    assert score_threshold(threshold) == steps


@given(st.floats(0, 1))
def test_a_threshold_is_rounded_to_the_nearest_step(threshold: float) -> None:
    steps = score_threshold(threshold)
    assert abs(steps - 255 * Fraction(threshold)) <= Fraction(1, 2) + Fraction(1, 10**9)


@pytest.mark.parametrize("threshold", [-1e-9, 1.0000001, 255.0, float("nan")])
def test_a_threshold_that_is_no_probability_is_refused(threshold: float) -> None:
    with pytest.raises(ValueError, match=r"is outside 0\.\.1"):
        score_threshold(threshold)


@pytest.mark.parametrize("threshold", [0.0, 0.25, 0.5, 0.99, 1.0])
def test_a_pixel_is_a_defect_above_the_threshold_and_not_at_it(threshold: float) -> None:
    score = np.arange(256, dtype=np.uint8).reshape(16, 16)
    mask = defect_mask(score, threshold)
    assert mask.dtype == np.uint8
    step = score_threshold(threshold)
    assert mask.ravel().tolist() == [0] * (step + 1) + [255] * (255 - step)


def test_grey_128_is_the_zero_of_int8() -> None:
    # what int8 holds exactly, and what the exported int8 graph subtracts
    grey = np.arange(256, dtype=np.float32) - INT8_GREY
    assert np.array_equal(grey.astype(np.int8).astype(np.float32), grey)
