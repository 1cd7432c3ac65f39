from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tinyunet_deploy.artifacts.facts import NetworkFacts
from tinyunet_deploy.artifacts.sidecar import Sidecar
from tinyunet_deploy.contract import Batch, Contract
from tinyunet_deploy.data.encoding import write_png
from tinyunet_deploy.quality.parity_inputs import ComparedImage
from tinyunet_deploy.quality.parity_limits import read_limits
from tinyunet_deploy.quality.stored_scores import StoredScores
from tinyunet_deploy.speed.answer_check import AnswerCheck
from tinyunet_deploy.speed.benchmark_images import (
    BenchmarkImages,
    ModelInput,
    open_benchmark_images,
)
from tinyunet_deploy.speed.benchmark_result import MeasuredImages, OutputCheck
from tinyunet_deploy.testing.fake_backend import FakeBackend

SIDECAR = Sidecar("onnx", "fp32", "0" * 64, None, Contract(16, 16))
RIGHT = np.zeros((3, 1, 16, 16), np.uint8)
"""Scores of three images; the first two have a defect."""
RIGHT[:2, 0, 4:8, 4:8] = 255


def check(*answers: tuple[list[int], Batch]) -> OutputCheck:
    """Check answers to batches against the reference's scores, which are RIGHT."""
    scores = StoredScores()
    images = [ComparedImage(Path(f"{n}.png"), f"{n}.png", None) for n in range(3)]
    facts = MeasuredImages("files", "", 3, "", (16, 16), 100.0, 20.0, ())
    with scores:
        for score in RIGHT:
            scores.append(score[0])
        tiling = SIDECAR.tiling
        inputs = [ModelInput(n, 0, *next(tiling.places((16, 16)))) for n in range(3)]
        answer_check = AnswerCheck(
            BenchmarkImages(images, [(16, 16)] * 3, inputs, scores, 0.5, 1, facts, tiling)
        )
        for indices, score in answers:
            answer_check.add(indices, score)
        return answer_check.result(read_limits(), SIDECAR, "onnxruntime")


def test_answers_of_the_reference_are_green() -> None:
    result = check(([0, 1], RIGHT[:2]), ([2, 0], RIGHT[[2, 0]]))
    assert (result.outcome, result.images, result.answers) == ("green", 3, 4)
    assert result.figures["largest_steps"] == 0 and result.broken == ()


@pytest.fixture
def tiled(tmp_path: Path) -> Iterator[BenchmarkImages]:
    """Two defective images, one of 16x40 in tiles of 16x16; the reference gives them back."""
    image = np.full((16, 40), 20, np.uint8)
    image[4:12, 30:38] = 220
    for folder, pixels in (("images", image), ("masks", (image > 128) * np.uint8(255))):
        (tmp_path / folder).mkdir()
        write_png(tmp_path / folder / "a.png", pixels)
    for folder in ("images", "masks"):
        write_png(tmp_path / folder / "b.png", RIGHT[0, 0])
    network = NetworkFacts("near", 1, 2, 2)
    reference = FakeBackend(contract=Contract(16, 16), network=network)
    with open_benchmark_images([tmp_path], reference, count=2) as images:
        yield images


def test_the_answer_to_a_tile_is_compared_where_the_image_takes_it(tiled: BenchmarkImages) -> None:
    tiles = tiled.inputs_of_image[0]
    batch = tiled.batch(tiles)
    outside = batch.copy()
    for score, number in zip(outside[:, 0], tiles, strict=True):
        used = np.zeros((16, 16), bool)
        used[tiled.inputs[number].in_tile] = True
        assert not used.all()
        score[~used] = 255
    checked = AnswerCheck(tiled)
    checked.add(tiles, list(outside[:, 0]))
    result = checked.result(read_limits(), SIDECAR, "onnxruntime")
    assert (result.outcome, result.images, result.answers) == ("green", 1, len(tiles))
    assert result.figures["iou_drop"] == 0, "the truth is cut as the tile is"
    checked.add(tiles[-1:], np.zeros_like(batch[-1:]))
    result = checked.result(read_limits(), SIDECAR, "onnxruntime")
    assert result.outcome == "red" and result.figures["flips_defective"] == 1
    checked.add(tiled.inputs_of_image[1], np.zeros_like(batch[:1]))
    result = checked.result(read_limits(), SIDECAR, "onnxruntime")
    assert result.figures["flips_defective"] == 2, "each image has its own truth"
    checked = AnswerCheck(tiled)
    checked.add(tiles[:1], np.full_like(batch[:1], 255))
    result = checked.result(read_limits(), SIDECAR, "onnxruntime")
    assert result.figures["new_alarms"] == 1, "the first tile of the defective image is good"


def test_each_answer_belongs_to_its_own_image() -> None:
    assert check(([2, 0], RIGHT[[0, 2]])).outcome == "red"


def test_a_wrong_answer_after_right_ones_is_red() -> None:
    wrong = np.zeros_like(RIGHT[:1])
    result = check(([0], RIGHT[:1]), ([0], RIGHT[:1]), ([0], wrong), ([0], RIGHT[:1]))
    assert (result.outcome, result.images, result.answers) == ("red", 1, 4)
    assert result.figures["largest_steps"] == 255
    assert "flips" in {limit.figure for limit in result.broken}
