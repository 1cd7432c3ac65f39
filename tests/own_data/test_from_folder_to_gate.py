"""Each kind of data set goes from the user's folder to an inspected one, by the same commands."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from export.__main__ import export
from tests.own_data.sets import ANNOTATED, SETS, SMALL, TEST, TRAIN, TYPES, part
from tinyunet_deploy.cli import run, tinyunet
from tinyunet_deploy.data.layouts import read_dataset
from tinyunet_deploy.data.masks import read_mask
from tinyunet_deploy.quality.dataset_scoring import held_out
from training.__main__ import training

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def command(verb: str, *arguments: object) -> None:
    words = list(map(str, arguments))
    programs = {"training": training, "export": export}
    code = (
        run(programs[verb], words) if verb in programs else run(tinyunet, [*verb.split(), *words])
    )
    assert code == 0, (verb, words)


def described(name: str, place: Path) -> Path:
    """Write a set and its dataset.toml; return its folder."""
    folder = SETS[name](place / "source")
    if name in ANNOTATED:  # writes dataset.toml, too
        command("data convert", folder, "-o", place / "parts")
        return place / "parts"
    command("data init", folder)
    return folder


@pytest.mark.parametrize("name", SETS)
def test_a_set_is_described_and_checked(name: str, tmp_path: Path) -> None:
    folder = described(name, tmp_path)
    command("data check", folder)
    items = read_dataset(folder).items
    made = {"40 sizes": 40, "1920x1080": 14}.get(name, TRAIN + TEST)
    assert len(items) == made
    for item in items:
        number = int(item.image.stem)
        assert item.defective == (number % 3 != 0)
        if name in SMALL and item.defective:
            expected = part(number, 96, 128).mask
            np.testing.assert_array_equal(read_mask(item, expected.shape), expected)


@pytest.mark.nightly
@pytest.mark.parametrize("name", SETS)
def test_a_set_goes_from_its_folder_to_a_gated_model(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = described(name, tmp_path)
    run_folder, models, tuned = (tmp_path / part for part in ("run", "models", "tuned"))
    # Until outlines are sharp, many scores are at the threshold, where rounding decides.
    length = ("--steps", 500, "--crop", 96, "--batch", 2)
    command("training", "quick", "--data", folder, *length, "-o", run_folder)
    command(
        *("export", run_folder / "checkpoint.safetensors", "-o", models / "parts.onnx"),
        *("--precision", "fp32,fp16,int8", "--data", folder, "--min-speedup", 0),
    )
    command("evaluate", folder, "-m", models / "parts.onnx", "-o", tmp_path / "evaluation.json")
    figures = json.loads((tmp_path / "evaluation.json").read_text())
    test = held_out(read_dataset(folder)).items
    assert figures["images"] == len(test) > 0
    assert figures["all"]["defective"] == sum(item.defective for item in test) > 0
    assert 0 <= figures["all"]["iou_defective"] <= 1
    assert 0 < figures["all"]["escape_rate_upper_95"] <= 1
    assert figures["defects"]["truth"] >= figures["all"]["defective"]
    assert sorted(row["type"] for row in figures["defects"]["by_type"]) == TYPES.get(name, [])
    command("tune", folder, "-m", models / "parts.onnx", "-o", tuned)
    command("parity", folder, "-m", models, "-b", 2, "-o", tmp_path / "parity")
    parity = json.loads((tmp_path / "parity/parity.json").read_text())
    assert {row["outcome"] for row in parity["comparisons"]} == {"green"}
    images = sorted({item.image.parent for item in test})  # in some layouts with train parts
    options = ("--samples", 3, "--images", 2, "-o", tmp_path / "speed.json")
    command("benchmark", *images, "-m", models / "parts.onnx", *options)
    command("infer", *images, "-m", tuned / "parts.onnx", "-o", tmp_path / "inspected")
    lines = (tmp_path / "inspected/report.jsonl").read_text().splitlines()
    inspected = json.loads(lines[-1])
    files = [path for folder in images for path in folder.iterdir()]
    assert len(lines) - 1 == len(files) >= len(test), inspected
