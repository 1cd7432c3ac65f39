"""``td.evaluate`` and ``td.parity``: the results that the command line writes as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import tinyunet_deploy as td
from tinyunet_deploy.cli import run, tinyunet
from tinyunet_deploy.errors import DataError
from tinyunet_deploy.quality.evaluation_report import evaluation_json
from tinyunet_deploy.quality.parity_report import parity_json


def printed(capsys: pytest.CaptureFixture[str], words: list[str]) -> object:
    """The JSON that a command prints."""
    capsys.readouterr()
    assert run(tinyunet, [*words, "--format", "json"]) in (0, 3)
    return json.loads(capsys.readouterr().out)


def test_an_evaluation_is_that_of_the_command(
    example_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = td.evaluate("data")
    assert (result.all.images, result.all.defective) == (2, 1)
    assert json.loads(evaluation_json(result)) == printed(capsys, ["evaluate", "data"])


def test_an_evaluation_takes_the_values_of_the_model_and_the_options_of_the_command(
    example_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with td.load(backend="onnxruntime") as model:
        model.threshold, model.min_area = 0.9, 7
        own = td.evaluate(Path("data"), model, split="all")
        assert (own.threshold, own.min_area, own.backend) == (0.9, 7, "onnxruntime")
        given = td.evaluate(
            "data", model, threshold=0.998, min_area=10**5, misses="misses", overlays="seen"
        )
    words = ["--backend", "onnxruntime", "--threshold", "0.998", "--min-area", "100000"]
    assert json.loads(evaluation_json(given)) == printed(capsys, ["evaluate", "data", *words])
    assert given.all.escapes == 1
    assert list(Path("misses").rglob("*.png")), "a picture of the defect that was missed"
    assert len(list(Path("seen").rglob("*.jpg"))) == 2
    with pytest.raises(DataError, match="which has no classes"):
        td.evaluate("data", model, classes=[1])


def test_a_parity_is_that_of_the_command(
    example_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = td.parity("data", backends=["onnxruntime"], output="report")
    assert [artifact.outcome for artifact in result.artifacts] == ["green"]
    text = parity_json(result)
    assert Path("report/parity.json").read_text() == text
    words = ["parity", "data", "--backend", "onnxruntime"]
    assert json.loads(text) == printed(capsys, words)


def test_a_broken_limit_raises_nothing_and_is_in_the_result(example_folder: Path) -> None:
    limits = Path("limits.toml")
    limits.write_text(
        '[[limit]]\nprecision = "fp32"\nfigure = "agreement"\nleast = 1.5\nreason = "a test"\n'
    )
    with td.load(backend="onnxruntime") as model:
        file = model.backend.artifact.path
    result = td.parity("photos", [str(file)], backends=["onnxruntime"], limits=str(limits))
    assert [artifact.outcome for artifact in result.artifacts] == ["red"]
    assert [check.limit.figure for _, check in result.broken] == ["agreement"]
    assert [error.reason for error in result.skipped_images] == ["truncated"]
    assert not Path("parity.json").exists()
