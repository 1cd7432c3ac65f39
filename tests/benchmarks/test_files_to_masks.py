from __future__ import annotations

import json
import shutil
import statistics
from pathlib import Path
from typing import Any

import pytest

from benchmarks import files_to_masks as files_to_masks_module
from benchmarks.files_to_masks import files_to_masks
from tinyunet_deploy.cli import run


def test_models_take_turns_and_memory_is_told(
    tiny_onnx: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result, other = tmp_path / "pipeline.json", tmp_path / "other.onnx"
    for suffix in (".onnx", ".onnx.json"):
        shutil.copy(tiny_onnx.with_suffix(suffix), other.with_suffix(suffix))
    how = ["--images", "20", "--free-images", "12", "--rounds", "2", "-o", str(result)]
    models = ["-m", str(tiny_onnx), "-m", str(other)]
    assert run(files_to_masks, [*models, *how]) == 0
    turns = [line.split()[0] for line in capsys.readouterr().err.splitlines()]
    assert turns[:4] == ["tiny.onnx", "other.onnx"] * 2
    fields = json.loads(result.read_text())
    assert fields["command"].endswith(
        "--model tiny.onnx --model other.onnx "
        "--images 20 --free-images 12 --rounds 2 --batch-size 4"
    )
    assert [found["precision"] for found in fields["results"]] == ["fp32", "fp32"]
    free = fields["free_backend"]
    assert free["images"] == 12
    assert all(len(runs) == 2 for runs in free["runs"].values())
    alone = statistics.median(run["images_per_s"] for run in free["runs"]["1"])
    assert free["ms_of_one_processor_per_file"] == pytest.approx(1e3 / alone)
    at_once = statistics.median(sum(run["images_per_s"] for run in turn) for turn in free["apart"])
    assert free["apart_ratio"] == pytest.approx(at_once / alone)
    for found in fields["results"]:
        first, second = found["rounds"]
        low, high = sorted([first["ratio"], second["ratio"]])
        assert 0 < low <= found["ratio_median"] <= high
        resident = first["resident_mib"]
        assert list(resident) == ["start", "after_a_tenth", "end"]
        assert all(10 < value < 1e5 for value in resident.values())


def test_a_rate_counts_only_if_every_image_got_its_mask(
    tiny_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = files_to_masks_module._write_as_opencv

    def damaged(path: Path, image: Any) -> None:
        written(path, image)
        if path.name == "0003.png":
            path.write_bytes(path.read_bytes()[:-20])

    monkeypatch.setattr(files_to_masks_module, "_write_as_opencv", damaged)
    result = tmp_path / "pipeline.json"
    assert (
        run(
            files_to_masks,
            ["-m", str(tiny_onnx), "--images", "5", "--free-images", "0", "-o", str(result)],
        )
        == 4
    )
    assert not result.exists()
