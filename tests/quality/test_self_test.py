from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tinyunet_deploy.artifacts.golden import read_golden, write_golden
from tinyunet_deploy.artifacts.precision import Precision
from tinyunet_deploy.artifacts.sidecar import Sidecar, digest, read_artifact, write_artifact
from tinyunet_deploy.contract import Batch, Contract
from tinyunet_deploy.errors import ArtifactError
from tinyunet_deploy.quality.parity_limits import read_limits
from tinyunet_deploy.quality.self_test import self_test
from tinyunet_deploy.testing.fake_backend import FakeBackend

CONTRACT = Contract(64, 64)


def loaded(folder: Path, precision: Precision, changed: tuple[int, int]) -> FakeBackend:
    """An artifact whose golden score is 0 and that answers with so many pixels of so many steps."""
    path = folder / "net.onnx"
    write_artifact(path, b"", Sidecar("onnx", precision, digest(b""), None, CONTRACT))
    write_golden(path, np.zeros_like)
    pixels, steps = changed

    def answer(image: Batch) -> Batch:
        score = np.zeros_like(image)
        score.ravel()[:pixels] = steps
        return score

    backend = FakeBackend(answer, contract=CONTRACT)
    backend.artifact = read_artifact(path)
    return backend


PIXELS = CONTRACT.height * CONTRACT.width


@pytest.mark.parametrize(
    ("precision", "figure", "passes", "fails"),
    [
        ("fp32", "golden_largest_steps", (PIXELS, 1), (1, 2)),
        ("fp16", "golden_mean_steps", (PIXELS // 2, 1), (PIXELS // 2 + 1, 1)),
        ("int8", "golden_mean_steps", (PIXELS, 8), (PIXELS, 9)),
    ],
)
def test_scores_at_the_limit_pass_and_others_fail(
    tmp_path: Path,
    precision: Precision,
    figure: str,
    passes: tuple[int, int],
    fails: tuple[int, int],
) -> None:
    limits = {limit.figure: limit.value for limit in read_limits().of(precision)}
    result = self_test(loaded(tmp_path, precision, passes))
    assert result.largest_steps == passes[1]
    assert result.mean_steps == pytest.approx(passes[0] * passes[1] / PIXELS)
    assert {"golden_mean_steps": result.mean_steps, "golden_largest_steps": result.largest_steps}[
        figure
    ] == limits[figure]
    with pytest.raises(
        ArtifactError, match=f"fails its self-test on fake: {figure} is .*, but must be"
    ):
        self_test(loaded(tmp_path, precision, fails))


def test_a_few_far_pixels_of_a_quantised_file_pass(tmp_path: Path) -> None:
    backend = loaded(tmp_path, "int8", (100, 255))
    assert self_test(backend).largest_steps == 255
    image, _ = read_golden(backend.artifact)
    assert backend.batches == [1] * len(image), "one at a time"
