from __future__ import annotations

import json
import resource
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from tests.training.small_runs import write_recipe
from tinyunet_deploy.artifacts.checkpoint import load_checkpoint
from tinyunet_deploy.artifacts.packaged import PACKAGED
from tinyunet_deploy.artifacts.sidecar import DEFAULT_CHECKPOINT, digest
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
    assert code == 4 and err.count("\n") == 1
    assert err.startswith(f"error: {empty}: contains no defective image to train on")

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


def test_values_on_the_command_line_are_those_of_the_run(
    tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(tmp_path / "small.toml", "steps = 1")
    command = [str(recipe), "--data", str(tiny_data), "--output", str(tmp_path / "run")]
    values = ["--crop", "16", "--batch", "2", "--defect-free", "0.5", "--validation", "0"]
    assert run(training, [*command, *values]) == 0
    record = json.loads((tmp_path / "run" / "run.json").read_text())["recipe"]
    assert (record["batch"], record["data"]["crop"]) == (2, 16)
    assert (record["data"]["defect_free"], record["data"]["validation"]) == (0.5, 0.0)
    says = capsys.readouterr().err.splitlines()[-1]
    assert says.endswith(f"checkpoint.safetensors --data {tiny_data} --output engines/NAME.onnx")
    for index in range(0, len(values), 2):
        fewer = values[:index] + values[index + 2 :]
        assert run(training, [*command, *fewer]) == 4, values[index]
        assert "contains a run with another recipe" in capsys.readouterr().err
    assert run(training, [*command, *values]) == 0


def test_a_recipe_starts_from_the_model_of_the_package_unless_told_otherwise(
    finished: Path, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    still = "steps = 1\nstart = 'package'"
    recipe = write_recipe(tmp_path / "small.toml", still)
    recipe.write_text(recipe.read_text() + "[schedule]\nname = 'staircase'\nrate = 0.0\n")
    given = finished / "checkpoint.safetensors"

    def start(name: str, *more: str) -> tuple[torch.Tensor, str]:
        output = tmp_path / name
        command = [str(recipe), "--data", str(tiny_data), "--output", str(output), *more]
        assert run(training, command) == 0
        record = json.loads((output / "run.json").read_text())
        network, _ = load_checkpoint(output / "checkpoint.safetensors")
        return network.logit.weight, record["init_sha256"]

    package, other = (load_checkpoint(path)[0].logit.weight for path in (DEFAULT_CHECKPOINT, given))
    weights, sha256 = start("package")
    assert torch.equal(weights, package) and sha256 == digest(DEFAULT_CHECKPOINT.read_bytes())
    weights, sha256 = start("given", "--init", str(given))
    assert torch.equal(weights, other) and sha256 == digest(given.read_bytes())
    weights, sha256 = start("nothing", "--from-scratch")
    assert sha256 is None and not torch.equal(weights, package)
    slim = PACKAGED["slim"].with_suffix(".safetensors")
    weights, sha256 = start("slim", "--variant", "slim")
    assert torch.equal(weights, load_checkpoint(slim)[0].logit.weight)
    assert sha256 == digest(slim.read_bytes())
    capsys.readouterr()
    command = [str(recipe), "--data", str(tiny_data), "--output", str(tmp_path / "both")]
    assert run(training, [*command, "--init", str(given), "--from-scratch"]) == 2
    assert run(training, [*command, "--variant", "original"]) == 4
    error = capsys.readouterr().err.splitlines()[-1]
    assert "has no original network to start from, only tiny and slim" in error
    assert "give --variant tiny or slim, --init or --from-scratch" in error


def test_all_unusable_files_are_listed_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    data = tmp_path / "data"
    synthetic.write_dataset(data, classes=[1], train=30, test=0, defective=0.5, size=64)
    images = sorted((data / "Class1" / "Train").glob("*.PNG"))
    masks = sorted((data / "Class1" / "Train" / "Label").glob("*.PNG"))
    recipe = write_recipe(tmp_path / "small.toml", "steps = 1")
    command = [str(recipe), "--data", str(data), "--output", str(tmp_path / "run")]

    images[3].write_bytes(b"")
    assert run(training, command) == 4
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"error: {images[3]}: ")

    odd = cv2.imencode(".png", np.arange(64 * 64, dtype=np.uint8).reshape(64, 64))[1].tobytes()
    broken = [*images[:20], *masks[12:15]]
    for path in broken:
        path.write_bytes(odd if path in masks else b"no image")
    named = {path.name.removesuffix("_label.PNG").removesuffix(".PNG") for path in broken}
    caplog.clear()
    assert run(training, command) == 4
    (error,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert error == (
        f"error: {data}: contains {len(named)} unusable files "
        f"(mend or remove them; tinyunet data check {data} lists them, too)"
    )
    listed = [r.getMessage() for r in caplog.records if r.levelname == "ERROR"]
    assert len(listed) == 21 and listed[-1] == f"... and {len(named) - 20} more"
    assert all(line.startswith(str(data)) for line in listed[:20])
    assert not (tmp_path / "run").exists()
