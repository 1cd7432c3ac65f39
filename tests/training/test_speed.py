from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.training.small_runs import write_recipe
from tinyunet_deploy.cli import run
from training.machine import has_bfloat16
from training.speed import speed


@pytest.mark.nightly
def test_speed_times_both_precisions_and_refuses_too_few_steps(
    tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    recipe = write_recipe(tmp_path / "small.toml", "steps = 60")
    words = [str(recipe), "--data", str(tiny_data), "--runs", str(tmp_path / "runs")]
    words += ["-o", str(tmp_path / "speed.json")]
    assert run(speed, [*words, "--steps", "40"]) == 4
    assert "--steps: are too few" in capsys.readouterr().err
    expected = 0 if has_bfloat16() else 5
    assert run(speed, [*words, "--resident-steps", "50"]) == expected
    if expected == 0:
        result = json.loads((tmp_path / "speed.json").read_text())
        assert [each["precision"] for each in result["results"]] == ["float32", "amp"]
        for each in result["results"]:
            assert each["share_of_resident"] == pytest.approx(
                each["images_per_s"] / each["resident_images_per_s"]
            )
            assert each["seconds_to_train"] > 16 / each["images_per_s"]
            assert each["defective"] > 0
        assert run(speed, [*words, "--resident-steps", "50"]) == 4
        assert "cannot be timed again" in capsys.readouterr().err
