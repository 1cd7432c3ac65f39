from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tinyunet_deploy.artifacts.facts import PlanFacts, Profile
from tinyunet_deploy.contract import Batch, Contract
from tinyunet_deploy.quality.batch_check import check_batches
from tinyunet_deploy.testing.fake_backend import FakeBackend

SIZE = 16
CONTRACT = Contract(SIZE, SIZE)


def test_batches_that_mix_images_are_seen() -> None:
    def mixing(image: Batch) -> Batch:
        return np.broadcast_to(image.mean(axis=0, keepdims=True), image.shape).astype(np.uint8)

    def first_row_only(image: Batch) -> Batch:
        score = np.zeros_like(image)
        score[0] = image[0]
        return score

    images = [np.full((SIZE, SIZE), 40 * k, np.uint8) for k in range(1, 5)]
    honest = check_batches(FakeBackend(contract=CONTRACT), images, 4)
    assert set(honest.steps.values()) == {0} and honest.largest == 4
    for wrong in (mixing, first_row_only):
        assert max(check_batches(FakeBackend(wrong, contract=CONTRACT), images, 4).steps.values())
    cut = check_batches(FakeBackend(contract=Contract(SIZE, SIZE, max_batch=2)), images, 4)
    assert cut.largest == 2


def test_the_batches_of_a_profile_are_run() -> None:
    backend = FakeBackend(contract=Contract(SIZE, SIZE, max_batch=8))
    plan = PlanFacts("tensorrt", "11.4.0", None, "8.6", Profile(2, 4, 8))
    sidecar = dataclasses.replace(backend.artifact.sidecar, plan=plan)
    backend.artifact = dataclasses.replace(backend.artifact, sidecar=sidecar)
    check = check_batches(backend, [np.full((SIZE, SIZE), 9, np.uint8)], 3)
    assert check.sizes == (2, 3, 4, 8)
    assert min(backend.batches) == 2


def neighbour(image: Batch) -> Batch:
    """Each row gets a step more if the next row differs from it: equal rows hide that."""
    return image + (image != np.roll(image, -1, axis=0)).astype(np.uint8)


def last_row(image: Batch) -> Batch:
    """The last row of a batch is brighter by two steps."""
    score = image.copy()
    if len(score) > 1:
        score[-1] += 2
    return score


@pytest.mark.parametrize(
    ("score", "steps"),
    [
        (neighbour, {"one-by-one": 1, "equal-rows": 0, "permuted-rows": 1, "padded-batch": 1}),
        (last_row, {"one-by-one": 2, "equal-rows": 2, "permuted-rows": 2, "padded-batch": 0}),
    ],
)
def test_each_case_has_its_largest_difference(score: object, steps: dict[str, int]) -> None:
    images = [np.full((SIZE, SIZE), 40 * k, np.uint8) for k in range(1, 5)]
    check = check_batches(FakeBackend(score, contract=CONTRACT), images, 4)  # type: ignore[arg-type]
    assert check.steps == steps
    assert check.worst_steps == max(steps.values())
