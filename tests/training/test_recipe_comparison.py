from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.training.small_runs import write_recipe
from tinyunet_deploy.cli import run
from training.recipe_comparison import compare_recipes


def test_recipes_are_compared_over_seeds(
    tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):  # fmt: skip
    recipes = [
        str(write_recipe(tmp_path / f"{name}.toml", f"steps = {steps}"))
        for name, steps in (("short", 1), ("shorter", 2))
    ]
    result = tmp_path / "results" / "training.json"
    places = ["--runs", str(tmp_path / "runs"), "--output", str(result)]
    arguments = [*recipes, "--data", str(tiny_data / "Class1"), "--seeds", "2", *places]
    assert run(compare_recipes, arguments) == 0
    table = capsys.readouterr().out
    document: dict[str, Any] = json.loads(result.read_text())
    assert len(document["results"]) == 4
    assert {(r["recipe"], r["seed"]) for r in document["results"]} == {
        ("short", 0), ("short", 1), ("shorter", 0), ("shorter", 1),
    }  # fmt: skip
    row = next(row for row in document["summary"] if row["recipe"] == "short")
    figures = [r["figures"]["auroc"] for r in document["results"] if r["recipe"] == "short"]
    assert row["auroc"]["mean"] == pytest.approx(np.mean(figures))
    assert row["auroc"]["sd"] == pytest.approx(np.std(figures, ddof=1))
    assert table.count("\n") == 4 and "| data/Class1 | shorter | 2 | 2 |" in table

    on_crops = [recipes[0], "--data", str(tiny_data / "Class1"), "--seeds", "1"]
    on_crops += ["--runs", str(tmp_path / "crops"), "--output", str(tmp_path / "crops.json")]
    assert run(compare_recipes, [*on_crops, "--crop", "16"]) == 0
    run_json = json.loads(next((tmp_path / "crops").glob("*/run.json")).read_text())
    assert run_json["recipe"]["data"]["crop"] == 16
    assert run_json["recipe"]["data"]["crop_on_defect"] == 0.8
    assert json.loads((tmp_path / "crops.json").read_text())["crop_px"] == 16
    assert run(compare_recipes, [*on_crops, "--crop", "24"]) == 2
    assert "multiple of 16" in capsys.readouterr().err

    finished = sorted((tmp_path / "runs").glob("*/checkpoint.safetensors"))
    times = [path.stat().st_mtime_ns for path in finished]
    assert run(compare_recipes, arguments) == 0
    assert [path.stat().st_mtime_ns for path in finished] == times
