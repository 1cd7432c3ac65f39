from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

from tests.benchmarks.made_up_results import made_up_benchmark, markdown_of
from tests.conftest import REPOSITORY
from tinyunet_deploy.artifacts.sidecar import (
    DEFAULT_ONNX,
    read_sidecar,
)


def test_accuracy_and_latency_are_joined_by_hash(tmp_path: Path) -> None:
    path = made_up_benchmark(tmp_path / "benchmark.json")
    fields = json.loads(path.read_text())
    for measured in fields["measurements"]:
        if measured["precision"] == "fp32":
            measured["model_sha256"] = read_sidecar(DEFAULT_ONNX).sha256
    path.write_text(json.dumps(fields))
    shutil.copy(REPOSITORY / "benchmarks" / "results" / "parity-class1.json", tmp_path)
    text = markdown_of(tmp_path, tmp_path)
    part = text.partition("Accuracy against latency")[2].partition("\n## ")[0]
    compared = json.loads((tmp_path / "parity-class1.json").read_text())["comparisons"]
    (ours,) = [c for c in compared if (c["precision"], c["backend"]) == ("fp32", "openvino")]
    shown = rf"{ours['iou_defective']:.4f}"
    assert re.search(
        rf"\| tinyunet fp32 · OpenVINO \| [\d.]+ \| {shown} \| 1.0000 \| 0 \| green \|", part
    )
    assert f"{ours['iou_defective_of_reference']:.4f} less the 0.005 allowed" in part
