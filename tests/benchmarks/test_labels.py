from __future__ import annotations

import json
import statistics
from pathlib import Path

import pytest

from benchmarks import labels
from tinyunet_deploy.cli import run
from tinyunet_deploy.data import synthetic


def test_loose_labels_limit_what_a_network_can_reach(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where every label is the same the limit is 1; as they are drawn it is well below."""
    result = tmp_path / "labels.json"
    assert run(labels.labels, ["--defects", "1", "-o", str(result)]) == 0
    found = json.loads(result.read_text())
    assert set(found["classes"]) == {str(class_id) for class_id in range(1, 11)}
    assert all(0.5 < value < 0.95 for value in found["classes"].values())
    assert found["mean"] == pytest.approx(statistics.fmean(found["classes"].values()))
    same = synthetic.sample(9, 0, defective=True, seed=labels.SEED).ellipse
    monkeypatch.setattr(labels, "weak_label", lambda *_: same)
    assert labels.limit(9, 0) == 1.0
