from __future__ import annotations

import dataclasses
import json
import math

import pytest

from tinyunet_deploy.quality.confidence import clopper_pearson_upper
from tinyunet_deploy.quality.part_score import PartScore
from tinyunet_deploy.quality.plateau import plateau_of
from tinyunet_deploy.quality.scored_by import ScoredBy
from tinyunet_deploy.quality.shadow.report import ChallengerLatency, ShadowFlip, ShadowReport

LEADER = ScoredBy("a.onnx", "aa" * 32, "fp32", "openvino", "cpu")
CHALLENGER = ScoredBy("b.onnx", "bb" * 32, "int8", "openvino", "cpu")
REPORT = ShadowReport(
    leader=LEADER,
    leader_threshold=0.5,
    leader_min_area_px=8,
    challenger=CHALLENGER,
    challenger_threshold=0.4,
    challenger_min_area_px=9,
    offered=40,
    seen=40,
    new_rejects=1,
    new_passes=1,
    flips=(ShadowFlip("x/1.png", "OK", "NG", 90, 140, "0001.jpg"),),
    unseen={},
    failure=None,
    latency=ChallengerLatency(8.0, 20.0, 31.0),
    leader_plateau=plateau_of([PartScore("", True, 200, 30)], LEADER, 0.5, 8, truth=False),
    challenger_plateau=None,
)
EMPTY = dataclasses.replace(
    REPORT, challenger=None, seen=0, new_rejects=0, new_passes=0, flips=(), latency=None,
    unseen={"the challenger had ended": 40}, failure="it was killed", leader_plateau=None,
)  # fmt: skip


@pytest.mark.parametrize("report", [REPORT, EMPTY])
def test_json_gives_the_report_again(report: ShadowReport) -> None:
    text = json.dumps(report.as_fields(), allow_nan=False)
    assert ShadowReport.from_fields(json.loads(text)) == report


def test_a_report_is_complete_only_if_every_part_was_seen() -> None:
    assert REPORT.complete
    assert not dataclasses.replace(REPORT, seen=39).complete
    assert not dataclasses.replace(REPORT, failure="it was killed").complete


def test_the_bound_counts_both_kinds_of_flips() -> None:
    assert REPORT.disagreement_upper == clopper_pearson_upper(2, 40)
    assert math.isnan(EMPTY.disagreement_upper)


def test_other_json_is_refused() -> None:
    fields = REPORT.as_fields()
    for broken in ({**fields, "schema_version": 2}, {}, {**fields, "flips": [{}]}):
        with pytest.raises(ValueError, match=r"schema_version|a field is missing"):
            ShadowReport.from_fields(broken)
