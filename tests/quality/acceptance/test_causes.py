"""Requirements that fail by one fact name one cause; those that only fail together name none."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from tests.quality.acceptance.evidence import accepted, comparison, detection, plateau
from tests.quality.acceptance.test_result_and_page import page, text_of
from tinyunet_deploy.quality.acceptance.evidence import FigureCheck, SelfTestFigures
from tinyunet_deploy.quality.acceptance.requirements import Requirements, read_requirements
from tinyunet_deploy.quality.acceptance.verdicts import decide, judge

BROKEN = FigureCheck("agreement", 0.5, ">= 0.999", holds=False, reason="a test")
UNEQUAL = {"parity": comparison(checks=(BROKEN,))}
FAILED = {"self_test": SelfTestFigures("failed", "net.onnx fails its self-test")}


def red(requirements: Requirements | None = None, **changes: Any) -> dict[str, str]:
    """Return each requirement that is not met -> the one that it follows."""
    evidence = dataclasses.replace(accepted(), **changes)
    judged = judge(requirements or read_requirements(), evidence)
    assert all(not row.follows for row in judged if row.outcome != "not met")
    return {row.name: row.follows for row in judged if row.outcome == "not met"}


def missed(*areas: int, passed: tuple[int, ...], escapes: int = 4) -> dict[str, Any]:
    figures = detection(escapes=escapes, areas_missed_px=areas, areas_missed_in_passed_px=passed)
    return {"detection": figures}


def near(edge: Any, **changes: Any) -> dict[str, Any]:
    return {"plateau": plateau(margin=0.01, edge=edge, **changes)}


ESCAPED = missed(80, 90, passed=(80, 90))
REJECTED = {"detection": detection(overkills=40)}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (ESCAPED, {"escapes": "", "smallest_defect": "escapes"}),
        (missed(80, 90, passed=(80,)), {"escapes": "", "smallest_defect": ""}),
        (missed(80, passed=(80,), escapes=0), {"smallest_defect": ""}),
        (
            ESCAPED | near("defective"),
            {"escapes": "", "smallest_defect": "escapes", "plateau": "escapes"},
        ),
        (ESCAPED | near("good"), {"escapes": "", "smallest_defect": "escapes", "plateau": ""}),
        (ESCAPED | near(None), {"escapes": "", "smallest_defect": "escapes", "plateau": ""}),
        (REJECTED | near("good"), {"overkills": "", "plateau": "overkills"}),
        (REJECTED | near("defective"), {"overkills": "", "plateau": ""}),
        (near("good"), {"plateau": ""}),
        # a narrow plateau of int8 is a fact of its own
        (REJECTED | near("good", share_of_reference=0.7), {"overkills": "", "plateau": ""}),
        (UNEQUAL | FAILED, {"self_test": "", "parity": "self_test"}),
        (UNEQUAL, {"parity": ""}),
        (FAILED, {"self_test": ""}),
        (UNEQUAL | ESCAPED, {"escapes": "", "smallest_defect": "escapes", "parity": ""}),
    ],
)
def test_only_the_same_fact_makes_one_cause(
    changes: dict[str, Any], expected: dict[str, str]
) -> None:
    assert red(**changes) == expected


def test_the_page_marks_a_row_that_fails_with_another(tmp_path: Path) -> None:
    text = text_of(page(tmp_path, dataclasses.replace(accepted(), **ESCAPED)))
    assert "Smallest defect not met with Escapes every defect is found" in text
    missing = text[text.index("What is missing") : text.index("Requirements Requirement")]
    assert "Escapes, not met: " in missing and "Smallest defect" not in missing


def test_only_missed_defects_of_the_required_size_count() -> None:
    requirements = read_requirements()
    smallest = dataclasses.replace(requirements.smallest_defect, area_px=85)
    changes = missed(80, 90, passed=(90,))
    assert red(dataclasses.replace(requirements, smallest_defect=smallest), **changes) == {
        "escapes": "",
        "smallest_defect": "escapes",
    }


def test_a_waived_cause_is_no_cause() -> None:
    requirements = read_requirements()
    waived = dataclasses.replace(requirements.escapes, required=False, reason="a trial")
    assert red(dataclasses.replace(requirements, escapes=waived), **ESCAPED) == {
        "smallest_defect": ""
    }


def test_the_decision_counts_causes_and_names_what_fails_with_them() -> None:
    judged = judge(read_requirements(), dataclasses.replace(accepted(), **ESCAPED, line=None))
    decision = decide(judged)
    assert decision.sentence == (
        "1 of 13 requirements is not met: escapes. By the same facts: smallest defect. "
        "Not shown yet: line speed."
    )
    row = next(row for row in judged if row.name == "smallest_defect")
    assert row.sentence.endswith(
        "Fails with Escapes: all these defects lie in parts that slip through."
    )
    assert row.missing == "", "there is one thing to mend"
