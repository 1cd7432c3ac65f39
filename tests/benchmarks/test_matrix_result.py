from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from benchmarks.matrix_result import read_run
from tests.benchmarks.made_up_results import run_matrix_in
from tinyunet_deploy.errors import DataError


def test_a_run_has_every_cell_and_the_pair(finished_matrix: Path) -> None:
    result = read_run(finished_matrix / "run")
    names = [cell["name"] for cell in result["cells"]]
    assert names == [
        "tiny.onnx@openvino/1",
        "tiny.onnx@onnxruntime-by-hand/1",
        "tiny.onnx@openvino/1 again",
    ]
    assert all(len(cell["rounds"][0]["samples_ms"]) == 2 for cell in result["cells"])
    assert all(cell["answers"]["agreement"] > 0.999 for cell in result["cells"])
    assert result["cells"][0]["times_as_fast"]["value"] == 1.0
    assert result["noise"]["floor"] >= 1.0


def test_a_fast_wrong_cell_cannot_win(
    finished_matrix: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(finished_matrix / "run", tmp_path / "run")
    shutil.copy(finished_matrix / "matrix.toml", tmp_path)
    (scores,) = (tmp_path / "run" / "cells").glob("*by-hand*.npy")
    right = np.load(scores)
    np.save(scores, np.where(right > 114, np.uint8(0), np.uint8(255)))
    assert run_matrix_in(tmp_path) == 6
    assert "tiny.onnx@onnxruntime-by-hand/1: agrees" in capsys.readouterr().err


def test_a_broken_run_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text('{"kind": "matrix"}')
    with pytest.raises(DataError, match="not a result of python -m benchmarks matrix"):
        read_run(path)
