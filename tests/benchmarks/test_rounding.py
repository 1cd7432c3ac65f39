from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np

from benchmarks.rounding import compare_scores, rounding
from tests.conftest import SIZE
from tinyunet_deploy.artifacts.sidecar import read_artifact, write_sidecar
from tinyunet_deploy.cli import run
from tinyunet_deploy.data import synthetic


def test_pixels_are_counted_once_by_what_became_of_them() -> None:
    expected = np.array([[0, 4, 5, 128, 250, 251, 255]], np.uint8)
    score = np.array([[0, 4, 5, 129, 250, 251, 100]], np.uint8)
    row = compare_scores([(expected, score), (expected, expected)], threshold=128 / 255)
    assert (row["images"], row["pixels"], row["graded_px"]) == (2, 14, 6)
    assert (row["union_px"], row["flipped_px"], row["largest_steps"]) == (7, 2, 155)
    assert row["agreement"] == 5 / 7


def test_two_files_are_compared_on_test_images_of_any_size_and_on_drawn_ones(
    tiny_onnx: Path, tmp_path: Path
) -> None:
    data, other = tmp_path / "data", tmp_path / "other.onnx"
    synthetic.write_dataset(data, classes=[1], train=2, test=3, size=SIZE + 32, defective=0.5)
    result = tmp_path / "rounding.json"
    words = [str(tiny_onnx), str(other), "--data", str(data), "-o", str(result)]
    shutil.copy(tiny_onnx, other)
    sidecar = read_artifact(tiny_onnx).sidecar
    write_sidecar(other, dataclasses.replace(sidecar, parent="0" * 64))
    assert run(rounding, words) == 4, "of another checkpoint"
    write_sidecar(other, sidecar)
    assert run(rounding, words) == 0
    rows = json.loads(result.read_text())["images"]
    assert (rows["own"]["images"], rows["synthetic"]["images"]) == (3, len(synthetic.CLASSES))
    assert rows["own"]["pixels"] == 3 * (SIZE + 32) ** 2
    assert {row["agreement"] for row in rows.values()} == {1.0}
