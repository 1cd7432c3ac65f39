"""Results as the measurements write them, made up, and the runs of small ones."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.__main__ import benchmarks
from benchmarks.matrix_result import KIND, SCHEMA_VERSION
from tests.conftest import REPOSITORY
from tinyunet_deploy.artifacts.facts import PlanFacts, PrecisionAudit, Profile
from tinyunet_deploy.artifacts.sidecar import (
    Sidecar,
    digest,
    write_artifact,
)
from tinyunet_deploy.cli import run
from tinyunet_deploy.contract import Contract
from tinyunet_deploy.speed.ratio import STATISTICS, ratio_in_run

EXAMPLE = REPOSITORY / "tests" / "fixtures" / "benchmark-example.json"
"""A result in the layout of `tinyunet benchmark`; what its figures are does not matter."""
MATRIX = """
rounds = 1
repetitions = 2
warm_up = 1
images = 2
reference = "tiny.onnx@openvino/1"
twice = "tiny.onnx@openvino/1"

[[cells]]
artifacts = ["{artifact}"]
runners = ["openvino", "onnxruntime-by-hand"]
batches = [1]
"""

"""A small matrix; {artifact} is the path of tiny.onnx."""


def run_matrix_in(folder: Path) -> int:
    """Run folder/matrix.toml in folder/run, or go on there; return the exit code."""
    return run(benchmarks, ["matrix", str(folder / "matrix.toml"), "-o", str(folder / "run")])


def markdown_of(results: Path, scratch: Path) -> str:
    """The report of a result or a folder of them, as Markdown."""
    output = scratch / "report.md"
    assert run(benchmarks, ["report", str(results), "-o", str(output)]) == 0
    return output.read_text()


def section_titles(page: Path) -> list[str]:
    """The titles of the sections of an HTML report."""
    return re.findall(r"<h2><span>\d+</span>(.*?)</h2>", page.read_text())


def made_up_run(
    path: Path,
    *,
    speed: float = 1.0,
    drift: float = 1.0,
    rounds: int = 9,
    seed: int = 0,
    **changes: Any,
) -> Path:
    """A run whose cell ``a.onnx@openvino/1`` is ``speed`` times as fast as the usual 40 ms."""
    random = np.random.default_rng(seed)
    cells = []
    for name, ms in (
        ("ref.onnx@peer/1", 100.0),
        ("a.onnx@openvino/1", 40.0 / speed),
        ("b.onnx@openvino/1", 20.0),
        ("b.onnx@openvino/1 again", 20.0),
    ):
        times = drift * ms * np.exp(random.normal(0, 0.01, (rounds, 1)))
        samples = times * np.exp(random.gamma(2, 0.01, (rounds, 20)))
        cells.append(
            {
                "name": name,
                "batch_size": 1,
                "model_sha256": "0" * 64,
                "versions": {},
                "rounds": [{"samples_ms": row.tolist()} for row in samples],
            }
        )
    pair = [[float(np.median(r["samples_ms"])) for r in cell["rounds"]] for cell in cells[2:]]
    noise = ratio_in_run(*pair)
    fields = {
        "schema_version": SCHEMA_VERSION,
        "kind": KIND,
        "statistics": STATISTICS,
        "machine": {"processor": "P", "processors": 2, "system": "S"},
        "matrix": {"reference": "ref.onnx@peer/1", "images": 16},
        "noise": {"ratio": noise.as_dict(), "floor": noise.floor},
        "cells": cells,
        **changes,
    }
    path.write_text(json.dumps(fields))
    return path


def made_up_benchmark(path: Path) -> Path:
    """The example with a fast int8 model whose answers are wrong, and fp32 in two batch sizes."""
    fields = json.loads(EXAMPLE.read_text())
    base = fields["measurements"][0]
    wrong = {"figure": "largest_steps", "value": 9.0, "limit": "<= 1", "reason": "same numbers"}
    made = (
        ("tiny.int8.onnx", "int8", 1, 1.0, {"outcome": "red", "broken": [wrong]}),
        ("tiny.onnx", "fp32", 1, 3.0, {"outcome": "green", "broken": []}),
        ("tiny.onnx", "fp32", 8, 20.0, {"outcome": "green", "broken": []}),
    )
    fields["measurements"] = [
        base
        | {"model": model, "precision": precision, "backend": "openvino", "batch_size": batch}
        | {"model_sha256": digest(model.encode()), "check": base["check"] | check}
        | {"call": {"samples_ms": [ms * (1 + 0.01 * (i % 7)) for i in range(40)]}}
        for model, precision, batch, ms, check in made
    ]
    path.write_text(json.dumps(fields))
    return path


def made_up_line(path: Path) -> Path:
    """What `tinyunet line-sim -o` writes, as far as the report reads it."""
    outcome = {"parts": 4000, "missed": 1, "dropped": 0, "longest_run": 1, "miss_rate": 0.00025}
    outcome |= {"miss_rate_bound": 0.0009, "p50_ms": 41.0, "p99_ms": 60.0, "p999_ms": None}
    belt = {"parts_per_minute": 300.0, "deadline_ms": 200.0, "cameras": 1, "processes": 1}
    belt |= {"pitch_mm": None, "gate_mm": None}
    belt |= {"buffer": 8, "jitter": 0.02, "go_parts": None, "stop_ms": 0.0}
    fields = {
        "schema_version": 1, "kind": "line-sim", "model": "tiny.onnx", "backend": "openvino",
        "max_miss_rate": 0.001,
        "line": belt, "outcome": outcome, "fastest_shown_parts_per_minute": 345.0,
        "verified": None, "formulas": {"missed": "no verdict at the deadline"},
        "curve": [
            {"parts_per_minute": 100.0 * k, "parts": 10_000, "miss_rate": 0.0 if k < 5 else 0.4,
             "miss_rate_bound": 0.0003 if k < 5 else 0.42} for k in range(1, 8)
        ],
    }  # fmt: skip
    path.write_text(json.dumps(fields))
    return path


def made_up_matrix(path: Path) -> Path:
    """A run with all that the report reads of one."""
    fields = json.loads(made_up_run(path, rounds=5).read_text())
    for cell in fields["cells"]:
        model, _, rest = cell["name"].partition("@")
        cell |= {"model": model, "runner": rest.partition("/")[0], "precision": "fp32"}
        cell |= {"what": "a peer", "boundary": "one call", "device": "cpu", "answers": None}
        cell |= {"median_ms_per_image": 20.0, "model_sha256": digest(model.encode())}
        cell |= {"times_as_fast": {"value": 2.0, "low": 1.9, "high": 2.1}}
    fields["matrix"] |= {"rounds": 5}
    fields |= {"command": "python -m benchmarks matrix -o runs/m", "versions": {}}
    fields |= {"skipped": [{"name": "x.plan@trtexec/1", "reason": "trtexec is not on the PATH"}]}
    fields["machine"] |= {"tinyunet_deploy": "0.1.0", "secret": "<script>alert(1)</script>"}
    path.write_text(json.dumps(fields))
    return path


def made_up_pipeline(path: Path) -> Path:
    """What `python -m benchmarks.files_to_masks` writes, as far as the report reads it."""
    rounds = [
        {"in_memory_images_per_s": 9.0, "from_files_images_per_s": files, "ratio": files / 9.0,
         "resident_mib": {"start": 300.0, "after_a_tenth": 400.0, "end": end}}
        for files, end in ((8.0, 401.0), (8.9, 412.0), (9.0, 399.0))
    ]  # fmt: skip
    found = {"model": "tiny.onnx", "backend": "openvino", "rounds": rounds, "ratio_median": 0.989}
    fields = {"schema_version": 1, "kind": "pipeline", "images": 1000, "results": [found]}
    path.write_text(
        json.dumps(fields | {"command": "python -m benchmarks.files_to_masks --images 1000"})
    )
    return path


def made_up_gpu(path: Path) -> Path:
    """What `python -m benchmarks.gpu` writes, as far as the report reads it."""
    rows = [
        {"model": "tiny.fp16.onnx", "precision": "fp16", "backend": "onnxruntime",
         "batch_size": batch, "cuda_graphs": graphs, "images_per_s": 100.0 * batch + graphs}
        for batch in (1, 8) for graphs in (True, False)
    ]  # fmt: skip
    fields = {
        "schema_version": 1, "kind": "gpu", "command": "python -m benchmarks.gpu", "formula": "f",
        "gpu": {"name": "NVIDIA X", "compute_capability": "8.0"}, "results": rows,
        "published_images_per_s": {"A100 FP16": {"1": 248, "8": 761, "16": 823}},
    }  # fmt: skip
    path.write_text(json.dumps(fields))
    return path


def made_up_plan(path: Path) -> None:
    data = b"no plan at all"
    plan = PlanFacts(
        "tensorrt",
        "10.16.1",
        None,
        "8.9",
        Profile(1, 8, 16),
        "tinyunet build tiny.fp16.onnx -o engines/",
        PrecisionAudit(
            {"encoder.0.0": "Half", "logit": "Half"},
            None,
            "built without a GPU: never run on hardware",
        ),
        size_bytes=3 * 2**20,
        build_s=12.5,
    )
    sidecar = Sidecar("plan", "fp16", digest(data), None, Contract(64, 64), plan=plan)
    write_artifact(path, data, sidecar)
