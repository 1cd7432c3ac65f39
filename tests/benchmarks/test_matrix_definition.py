from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.matrix_definition import read_matrix
from tests.benchmarks.made_up_results import MATRIX
from tinyunet_deploy.errors import DataError


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("rounds = 1", "rounds = 1\nfancy = 2", "unknown key fancy"),
        ("rounds = 1", "", "rounds is missing"),
        ("rounds = 1", "rounds = 0", "rounds is 0"),
        ("rounds = 1", "rounds = true", "rounds is True"),
        ('"openvino", "onnx', '"tensorflow", "onnx', "'tensorflow' is not a runner"),
        ('"openvino", "onnx', '"torch", "onnx', "torch does not run tiny.onnx"),
        ("batches = [1]", "batches = [3]", "batch 3 does not divide the 2 images"),
        ("batches = [1]", "batches = []", "batches must be a list"),
        ("batches = [1]", "batches = [1, 1]", "is given twice"),
        ("batches = [1]", "batches = [1]\nthreads = 4", "unknown key cells.threads"),
        ('twice = "tiny', 'twice = "other', "twice is 'other.onnx@openvino/1'"),
        ("[[cells]]", "[cells]", "[[cells]] is missing"),
        ("rounds = 1", "rounds =", "is not a valid matrix"),
    ],
)
def test_a_matrix_is_read_strictly(tmp_path: Path, old: str, new: str, said: str) -> None:
    path = tmp_path / "matrix.toml"
    path.write_text(MATRIX.format(artifact="tiny.onnx").replace(old, new, 1))
    with pytest.raises(DataError, match=said.replace("[", r"\[")):
        read_matrix(path)


def test_the_matrix_of_the_repository_is_valid() -> None:
    matrix = read_matrix(Path(__file__).parent.parent.parent / "benchmarks" / "matrix.toml")
    runners = {cell.runner for cell in matrix.cells}
    assert {"pytorch-eager", "pytorch-channels-last", "pytorch-compile"} <= runners
    assert {"benchmark_app", "onnxruntime-by-hand", "openvino"} <= runners
