"""A shadow report is evidence only for its challenger, and only if its counts agree."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from tests.quality.acceptance.evidence import accepted
from tests.quality.shadow.test_report import CHALLENGER, EMPTY, REPORT
from tinyunet_deploy.errors import DataError
from tinyunet_deploy.quality.acceptance.evidence import FlippedPart, ModelFacts
from tinyunet_deploy.quality.acceptance.shadow_evidence import (
    read_shadow,
    require_challenger,
    shadow_evidence,
)

WHERE = Path("shadow.json")


def model(**changes: Any) -> ModelFacts:
    """The challenger of the report, as it is accepted."""
    facts = dataclasses.replace(
        accepted().model,
        name="b.onnx",
        sha256=CHALLENGER.model_sha256,
        threshold=0.4,
        min_area_px=9,
    )
    return dataclasses.replace(facts, **changes)


def write(path: Path, fields: dict[str, Any]) -> Path:
    path.write_text(json.dumps(fields))
    return path


def test_the_figures_are_those_of_the_report(tmp_path: Path) -> None:
    report = read_shadow(write(tmp_path / "shadow.json", REPORT.as_fields()))
    require_challenger(WHERE, report, model())
    figures = shadow_evidence("shadow.json", report, model())
    assert (figures.offered, figures.seen) == (40, 40)
    assert (figures.new_rejects, figures.new_passes) == (1, 1)
    assert figures.flips == (FlippedPart("x/1.png", "OK", "NG", 90, 140),)
    assert (figures.p50_ms, figures.p99_ms, figures.max_ms) == (8.0, 20.0, 31.0)
    assert figures.leader == "a.onnx (fp32) on openvino, cpu"
    assert (figures.failure, figures.mismatch) == (None, None)


def test_the_report_of_another_challenger_is_refused() -> None:
    with pytest.raises(
        DataError, match=r"has the challenger b.onnx \(b{12}\.\.\.\), but the model"
    ):
        require_challenger(WHERE, REPORT, model(sha256="a" * 64))  # its leader
    unloaded = dataclasses.replace(EMPTY, failure="was ended by SIGKILL")
    with pytest.raises(DataError, match="has no challenger: it was ended by SIGKILL"):
        require_challenger(WHERE, unloaded, model())


@pytest.mark.parametrize(
    ("changes", "mismatch"),
    [
        ({"backend": "onnxruntime"}, "another backend"),
        ({"device": "cuda:0"}, "another device"),
        ({"threshold": 0.5}, "another threshold"),
        ({"min_area_px": 8}, "another min_area"),
    ],
)
def test_a_run_with_another_rule_or_backend_is_named(
    changes: dict[str, Any], mismatch: str
) -> None:
    assert shadow_evidence("shadow.json", REPORT, model(**changes)).mismatch == mismatch


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seen": 39}, "39 parts were seen and 0 were not, but 40 were offered"),
        ({"new_rejects": 41}, "41 new rejects and 1 new passes of 40 parts"),
        ({"new_rejects": -1, "new_passes": 2}, "-1 new rejects"),
        ({"new_rejects": 0, "new_passes": 0}, "with 1 listed, cannot be"),
        ({"latency": {"p50_ms": 1}}, "a field is missing or wrong: KeyError"),
        ({"latency": {"p50_ms": "x", "p99_ms": 1, "max_ms": 1}}, "could not convert"),
    ],
)
def test_a_report_that_contradicts_itself_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    path = write(tmp_path / "shadow.json", {**REPORT.as_fields(), **changes})
    with pytest.raises(DataError, match=rf"is not a valid shadow report: .*{message}"):
        read_shadow(path)
