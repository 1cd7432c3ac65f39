from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.report.first_screen import FirstScreen, first_screen
from benchmarks.report.results import read_results
from tests.benchmarks.made_up_results import made_up_benchmark, made_up_line, markdown_of
from tests.conftest import REPOSITORY
from tinyunet_deploy.artifacts.sidecar import digest

FP32 = digest(b"tiny.onnx")


def parity(path: Path, **changes: Any) -> None:
    """What `tinyunet parity` writes of tiny.onnx on OpenVINO, as far as the report reads it."""
    comparison = {
        "model": "tiny.onnx", "sha256": FP32, "precision": "fp32", "backend": "openvino",
        "outcome": "green", "largest_steps": 242, "p999_steps": 2, "agreement": 0.999, "flips": 0,
        "iou_drop": 0.0014, "iou_defective": 0.8, "iou_defective_of_reference": 0.8014,
        "checks": [], **changes,
    }  # fmt: skip
    skipped = {
        "model": "tiny.onnx", "sha256": FP32, "precision": "fp32",
        "backend": "onnxruntime-tensorrt", "outcome": "skipped", "skipped": "no TensorRT here",
    }  # fmt: skip
    fields = {
        "schema_version": 1, "data": path.stem, "images": 40, "truth": True,
        "reference": {"name": "tiny.safetensors"}, "comparisons": [comparison, skipped],
    }  # fmt: skip
    path.write_text(json.dumps(fields))


def live_line(path: Path, *, kept: bool = True) -> None:
    fields = json.loads(made_up_line(path).read_text())
    fields["verified"] = {"kept": kept, "line": fields["line"], "outcome": fields["outcome"]}
    path.write_text(json.dumps(fields))


RED = {"figure": "flips", "value": 3, "limit": "<= 0", "holds": False, "reason": "verdicts count"}


def everything(folder: Path) -> None:
    """Results of which every gate passes."""
    made_up_benchmark(folder / "benchmark.json")
    parity(folder / "parity.json")
    live_line(folder / "line.json")


def screen_of(folder: Path) -> FirstScreen:
    return first_screen(read_results([folder]), None)


def test_it_is_go_if_every_gate_passes(tmp_path: Path) -> None:
    everything(tmp_path)
    screen = screen_of(tmp_path)
    assert (screen.word, screen.verdict) == ("GO", "pass")
    assert screen.reason.startswith("Every gate passes for tiny fp32 on OpenVINO.")
    assert "Whether it finds defects was not measured." in screen.reason
    answers, belt = screen.gates
    assert (answers.verdict, belt.verdict) == ("pass", "pass")
    assert answers.text == (
        "tiny fp32 on OpenVINO: 0 of 40 verdicts differ from the network's, IoU -0.0014 at worst."
    )
    assert "345 parts per minute, tried live: 1 of 4,000 parts late" in belt.text
    latency, _, speed = screen.tiles
    assert latency.value == "3.09 ms"
    assert speed.value == "345"
    shutil.copy(REPOSITORY / "benchmarks" / "results" / "synthetic-test.json", tmp_path)
    screen = screen_of(tmp_path)
    assert "Escapes and overkill have no limit here" in screen.reason
    assert screen.accuracy is not None
    assert screen.accuracy.rows == [
        ("synthetic0 (10 classes, test, 200 images), tinyunet fp32", "0.757",
         "0 of 100, at most 3 %", "1 of 100, at most 4.7 %"),
    ]  # fmt: skip


def test_of_two_models_on_one_data_set_the_measured_one_is_shown(tmp_path: Path) -> None:
    everything(tmp_path)
    (benchmark,) = read_results([tmp_path]).benchmarks.values()
    fields = json.loads((REPOSITORY / "benchmarks" / "results" / "synthetic-test.json").read_text())
    for place, (name, sha256) in enumerate(
        (("a", "0" * 64), ("b", benchmark.measurements[0].model_sha256), ("c", "1" * 64))
    ):
        fields["model"] = {"name": f"{name}.onnx", "sha256": sha256, "precision": "fp32"}
        fields["backend"] = "elsewhere"
        (tmp_path / f"evaluation-{place}.json").write_text(json.dumps(fields))
    accuracy = screen_of(tmp_path).accuracy
    assert accuracy is not None
    assert [row[0].rsplit(", ", 1)[1] for row in accuracy.rows] == ["b fp32"]


def missing(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


@pytest.mark.parametrize(
    ("change", "word", "gate", "said"),
    [
        (missing("parity.json"), "OPEN", 0, "was not compared with its checkpoint"),
        (missing("line.json"), "OPEN", 1, "No result of tinyunet line-sim"),
        (lambda f: made_up_line(f / "line.json"), "OPEN", 1, "were not tried live"),
        (lambda f: live_line(f / "line.json", kept=False), "NO-GO", 1, "No safe line speed"),
        (
            lambda f: parity(f / "parity.json", outcome="red", checks=[RED]),
            "NO-GO", 0, "Nothing passes. tiny fp32 on OpenVINO: flips is 3, but must be at most 0",
        ),
    ],
)  # fmt: skip
def test_what_is_missing_or_broken_is_never_go(
    tmp_path: Path, change: Callable[[Path], None], word: str, gate: int, said: str
) -> None:
    everything(tmp_path)
    change(tmp_path)
    screen = screen_of(tmp_path)
    assert screen.word == word
    assert said in screen.gates[gate].text
    assert screen.gates[gate].name.lower() in screen.reason


def test_a_model_that_nobody_timed_is_judged_by_its_answers(tmp_path: Path) -> None:
    everything(tmp_path)
    (tmp_path / "benchmark.json").unlink()
    assert screen_of(tmp_path).word == "GO"
    parity(tmp_path / "other.json", outcome="red", checks=[RED])
    assert screen_of(tmp_path).word == "NO-GO", "red on one of two data sets"


def test_the_largest_step_is_explained_and_skips_are_folded(tmp_path: Path) -> None:
    parity(tmp_path / "a.json")
    parity(tmp_path / "b.json")
    text = markdown_of(tmp_path, tmp_path)
    part = text.partition("Whether it answers as the network did")[2].partition("\n## ")[0]
    assert "an edge that moves by one pixel is a step of up to 255" in part
    assert re.findall(r"^- Skipped.*$", part, re.MULTILINE) == [
        "- Skipped: tiny fp32 · TensorRT in ONNX Runtime: no TensorRT here"
    ]
