from __future__ import annotations

import resource
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.training.small_runs import write_recipe
from tinyunet_deploy.cli import run
from tinyunet_deploy.data import synthetic
from training.__main__ import training


def test_what_stops_a_run_is_one_line(
    tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):  # fmt: skip
    def outcome(data: Path, *more: str) -> tuple[int, str]:
        output = ["--output", str(tmp_path / "run")]
        code = run(training, [str(recipe), "--data", str(data), *output, *more])
        return code, capsys.readouterr().err

    recipe = write_recipe(tmp_path / "small.toml", "steps = 2")
    empty = tmp_path / "empty"
    synthetic.write_dataset(empty, classes=[1], train=8, test=2, defective=0.0, size=64)
    code, err = outcome(empty)
    assert code == 4 and err == f"error: {empty}: contains no defective image to train on\n"

    odd = tmp_path / "odd"
    synthetic.write_dataset(odd, classes=[1], train=8, test=2, defective=0.5, size=64)
    mask = min((odd / "Class1" / "Train" / "Label").glob("*.PNG"))
    cv2.imwrite(str(mask), np.arange(64 * 64, dtype=np.uint8).reshape(64, 64))
    code, err = outcome(odd)
    assert code == 4 and err.count("\n") == 1
    assert err.startswith(f"error: {mask}: has 256 values: 0, 1, 2,")

    code, err = outcome(tiny_data, "--device", "cuda:99")
    assert code == 5 and err.count("\n") == 1 and err.startswith("error: cuda:99: is missing")
    code, err = outcome(tiny_data, "--device", "gpu")
    assert code == 5 and err.count("\n") == 1 and err.startswith("error: gpu: is not a device")

    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_000_000, limit[1]))  # less than a checkpoint
    try:
        code, err = outcome(tiny_data, "--save-every", "1")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert code == 5 and err.count("\n") == 1 and "cannot write: File too large" in err
    assert not list((tmp_path / "run").glob("*.safetensors"))
