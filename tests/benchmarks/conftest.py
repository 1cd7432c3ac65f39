"""A finished run of the matrix and a report of made-up results, which several tests read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from benchmarks.__main__ import benchmarks
from tests.benchmarks.made_up_results import (
    MATRIX,
    made_up_benchmark,
    made_up_line,
    made_up_matrix,
    made_up_pipeline,
    made_up_plan,
    run_matrix_in,
)
from tests.conftest import REPOSITORY
from tinyunet_deploy.cli import run


@pytest.fixture(scope="session")
def finished_matrix(tiny_onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with matrix.toml, tiny.onnx and run/, the finished run. Do not change it: copy."""
    folder = tmp_path_factory.mktemp("matrix")
    for suffix in (".onnx", ".onnx.json"):
        shutil.copy(tiny_onnx.with_suffix(suffix), folder / f"tiny{suffix}")
    (folder / "matrix.toml").write_text(MATRIX.format(artifact=folder / "tiny.onnx"))
    assert run_matrix_in(folder) == 0
    return folder


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of everything, without pictures."""
    folder = tmp_path_factory.mktemp("report")
    made_up_benchmark(folder / "benchmark.json")
    shutil.copy(REPOSITORY / "benchmarks" / "results" / "synthetic-test.json", folder)
    red = (
        REPOSITORY / "tests" / "fixtures" / "parity-class1-red.json"
    )  # of an int8 file that failed
    shutil.copy(red, folder / "parity-class1.json")
    made_up_line(folder / "line.json")
    second = json.loads(made_up_line(folder / "line2.json").read_text())
    (folder / "line2.json").write_text(json.dumps(second | {"max_miss_rate": 0.01}))
    made_up_matrix(folder / "run.json")
    made_up_pipeline(folder / "pipeline.json")
    (folder / "notes.json").write_text('{"mine": 1}')
    made_up_plan(folder / "tiny.fp16.plan")
    output = folder / "out" / "report.html"
    assert run(benchmarks, ["report", str(folder), "-o", str(output)]) == 0
    return output
