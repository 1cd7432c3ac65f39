from __future__ import annotations

from pathlib import Path

import numpy as np

from tinyunet_deploy.artifacts.sidecar import Sidecar
from tinyunet_deploy.contract import Batch, Contract
from tinyunet_deploy.quality.parity_inputs import ComparedImage
from tinyunet_deploy.quality.parity_limits import read_limits
from tinyunet_deploy.quality.stored_scores import StoredScores
from tinyunet_deploy.speed.answer_check import AnswerCheck
from tinyunet_deploy.speed.benchmark_images import BenchmarkImages
from tinyunet_deploy.speed.benchmark_result import MeasuredImages, OutputCheck

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
        answer_check = AnswerCheck(BenchmarkImages(images, scores, 0.5, 1, facts))
        for indices, score in answers:
            answer_check.add(indices, score)
        return answer_check.result(read_limits(), SIDECAR, "onnxruntime")


def test_answers_of_the_reference_are_green() -> None:
    result = check(([0, 1], RIGHT[:2]), ([2, 0], RIGHT[[2, 0]]))
    assert (result.outcome, result.images, result.answers) == ("green", 3, 4)
    assert result.figures["largest_steps"] == 0 and result.broken == ()


def test_each_answer_belongs_to_its_own_image() -> None:
    assert check(([2, 0], RIGHT[[0, 2]])).outcome == "red"


def test_a_wrong_answer_after_right_ones_is_red() -> None:
    wrong = np.zeros_like(RIGHT[:1])
    result = check(([0], RIGHT[:1]), ([0], RIGHT[:1]), ([0], wrong), ([0], RIGHT[:1]))
    assert (result.outcome, result.images, result.answers) == ("red", 1, 4)
    assert result.figures["largest_steps"] == 255
    assert "flips" in {limit.figure for limit in result.broken}
