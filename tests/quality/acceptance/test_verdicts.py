"""Each requirement is met, not met or not shown for the right reason, and nothing else changes."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from tests.quality.acceptance.evidence import (
    SHA,
    accepted,
    comparison,
    detection,
    line,
    plateau,
    repeats,
    shadow,
)
from tinyunet_deploy.quality.acceptance.evidence import (
    Ancestor,
    BatchFigures,
    DriftFigures,
    Evidence,
    FigureCheck,
    SeenImages,
    SelfTestFigures,
    SkippedPart,
)
from tinyunet_deploy.quality.acceptance.requirements import Requirements, read_requirements
from tinyunet_deploy.quality.acceptance.verdicts import RequirementVerdict, decide, judge

GATHERED = ("seen", "detection", "parity", "batches", "self_test")
GIVEN = ("line", "drift", "repeatability", "plateau")
NONE = dict.fromkeys(GATHERED + GIVEN)


def rows(evidence: Evidence, requirements: Requirements | None = None) -> dict[str, Any]:
    return {v.name: v for v in judge(requirements or read_requirements(), evidence)}


def others_are_met(judged: dict[str, RequirementVerdict], *names: str) -> bool:
    return all(row.outcome == "met" for name, row in judged.items() if name not in names)


def test_with_all_evidence_a_model_may_run() -> None:
    judged = judge(read_requirements(), accepted())
    assert [row.name for row in judged if row.outcome != "met"] == []
    assert [row.missing for row in judged if row.missing] == []
    decision = decide(judged)
    assert (decision.word, decision.accepted) == ("MAY RUN", True)
    assert decision.sentence == "All 13 requirements are met."


def test_without_evidence_nothing_is_shown_and_nothing_is_met() -> None:
    judged = judge(read_requirements(), dataclasses.replace(accepted(), **NONE))
    assert {row.outcome for row in judged if row.name != "lineage"} == {"not shown"}
    decision = decide(judged)
    assert (decision.word, decision.accepted) == ("NOT SHOWN YET", False)
    assert decision.sentence.startswith(
        "It may not run yet. Nothing speaks against it, but 12 of 13 requirements are not shown: "
        "unseen images, a verdict"
    )


def seen(**changes: Any) -> SeenImages:
    return dataclasses.replace(SeenImages(2000, 0, 0, known=True), **changes)


def broken(figure: str, value: float) -> FigureCheck:
    return FigureCheck(figure, value, "<= 0", holds=False, reason="a test")


ONE_RED: list[tuple[str, dict[str, Any], str]] = [
    ("unseen_images", {"seen": seen(trained_on=3)}, "Of 2,000 images, 3 trained the model."),
    (
        "unseen_images",
        {"seen": seen(trained_on=3, tuned_on=7)},
        "Of 2,000 images, 3 trained the model and 7 tuned the model.",
    ),
    (
        "verdicts",
        {"detection": detection(skipped=(SkippedPart("a.png", "is not an image"),))},
        "1 of 2,001 images got no verdict; the first: a.png is not an image.",
    ),
    (
        "escapes",
        {"detection": detection(escapes=4)},
        "4 of 100 defective parts slip through: 4 %, more than the 3 % allowed.",
    ),
    (
        "overkills",
        {"detection": detection(overkills=20)},
        "20 of 1,900 good parts are rejected: 1.05 %, more than the 1 % allowed.",
    ),
    (
        "smallest_defect",
        {"detection": detection(areas_missed_px=(80, 90))},
        "2 of 5 defects are missed; the largest of these has 90 px.",
    ),
    (
        "parity",
        {"parity": comparison(checks=(broken("flips", 2), broken("agreement", 0.5)))},
        "flips is 2, but must be <= 0, on 200 images against net.safetensors on torch."
        " 1 more limit is broken.",
    ),
    (
        "batches",
        {"batches": BatchFigures((1, 4), {"one-by-one": 9}, broken("batch_steps", 9))},
        "The scores in batches of 1, 4 differ from those of single images by 9 of 255; "
        "allowed: <= 0.",
    ),
    (
        "self_test",
        {"self_test": SelfTestFigures("failed", "net.onnx fails its self-test")},
        "net.onnx fails its self-test.",
    ),
    (
        "lineage",
        {"lineage": (Ancestor("net.onnx", SHA, "onnx", "changed", "was edited"),)},
        "net.onnx was edited.",
    ),
    (
        "line",
        {"line": line(missed=50, miss_rate=0.01, miss_rate_bound=0.013)},
        "At 600 parts/min and 150 ms, 50 of 5,000 parts have no verdict at the gate: 1 %, more "
        "than the 0.1 % allowed.",
    ),
    (
        "drift",
        {"drift": DriftFigures("out-line", {}, ("mean_grey",), "look at camera and light")},
        "The good parts differ from those of out-line in mean_grey.",
    ),
    (
        "repeatability",
        {"repeatability": repeats(agreeing=90, flips=("7.png",))},
        "90 of 100 parts are judged alike on all their photographs (500), fewer than the 95 % "
        "required; the first that flips: 7.png.",
    ),
    (
        "plateau",
        {"plateau": plateau(lowest=0.48, margin=0.02)},
        "No verdict changes for thresholds from 0.48 to 0.9; the chosen 0.5 stands 0.02 from the "
        "edge.",
    ),
    (
        "plateau",
        {"plateau": plateau(share_of_reference=0.79)},
        "No verdict changes for thresholds from 0.2 to 0.9; that is 79 % of the plateau of the "
        "fp32 network.",
    ),
    (
        "shadow",
        {"shadow": shadow(new_rejects=1, new_passes=4)},
        "5 of 200 parts are judged otherwise than by old.onnx (fp32) on openvino, cpu "
        "(1 newly rejected, 4 newly passed): 2.5 %, more than the 2 % allowed.",
    ),
    (
        "shadow",
        {"shadow": shadow(offered=1000, new_rejects=5, unseen={"too far behind": 800})},
        "5 of 200 parts are judged otherwise than by old.onnx (fp32) on openvino, cpu "
        "(5 newly rejected, 0 newly passed): 2.5 %, more than the 2 % allowed. It did not see 800 "
        "of 1,000 parts.",
    ),
    (
        "shadow",
        {"shadow": shadow(seen=199, failure="was ended by SIGKILL", unseen={"it ended": 1})},
        "In the shadow run the model was ended by SIGKILL, after 199 of 200 parts.",
    ),
]


@pytest.mark.parametrize(("name", "changes", "sentence"), ONE_RED)
def test_bad_evidence_turns_its_own_requirement_red(
    name: str, changes: dict[str, Any], sentence: str
) -> None:
    judged = rows(dataclasses.replace(accepted(), **changes))
    assert judged[name].outcome == "not met"
    assert judged[name].sentence == sentence
    assert judged[name].missing
    assert others_are_met(judged, name)
    decision = decide(tuple(judged.values()))
    assert (decision.word, decision.accepted) == ("MAY NOT RUN", False)


NOT_SHOWN: list[tuple[str, dict[str, Any], str, str]] = [
    ("unseen_images", {"seen": seen(known=False)}, "does not name the images", "--trained-on DIR"),
    (
        "escapes",
        {"detection": detection(defective=14)},
        "0 of 14 defective parts slip through: with 95 % confidence at most 19.3 % do",
        "judge 85 more defective parts of your line, 99 in all, of which none slip through",
    ),
    (
        "escapes",
        {"detection": detection(defective=0)},
        "There is no defective part",
        "99 defective parts of your line of which none slip through (157 in all if one does)",
    ),
    (
        "overkills",
        {"detection": detection(good=298, overkills=0)},
        "0 of 298 good parts are rejected: with 95 % confidence at most 1.01 % are",
        "299 in all, of which none are rejected (473 in all if one is)",
    ),
    (
        "smallest_defect",
        {"detection": detection(areas_hit_px=())},
        "There are no defects in the images",
        "photograph parts with such defects",
    ),
    ("parity", {"parity": comparison(skipped="no runtime")}, "not compared: no runtime", ""),
    (
        "parity",
        {"parity": comparison(vacuous="the checkpoint was not found")},
        "with itself only, as the checkpoint was not found",
        "--reference CHECKPOINT",
    ),
    ("parity", {"parity": comparison(checks=())}, "No limit of parity applies", ""),
    ("batches", {"batches": BatchFigures((1,), {}, None)}, "No batches were compared", ""),
    ("self_test", {"self_test": SelfTestFigures("missing", "")}, "no golden images", "again"),
    (
        "lineage",
        {"lineage": (Ancestor(None, SHA, "unknown", "missing"),)},
        "The ancestor aaaaaaaaaaaa... was not found",
        "--search DIR",
    ),
    (
        "lineage",
        {"lineage": (Ancestor("x.onnx", SHA, "unknown", "unchecked"),)},
        "x.onnx has no sidecar",
        "tinyunet adopt",
    ),
    (
        "lineage",
        {"lineage": (Ancestor("x.onnx", SHA, "onnx", "ok"),)},
        "The lineage ends at x.onnx",
        "",
    ),
    ("line", {"line": line(model_sha256="b" * 64)}, "with another model file", "line-sim"),
    ("line", {"line": line(backend="torch")}, "with the backend torch", "line-sim"),
    ("line", {"line": line(device="cuda:0")}, "with the device cuda:0", "line-sim"),
    ("line", {"line": line(processor="Z80")}, "with another machine (Z80)", "line-sim"),
    ("line", {"line": line(model_sha256=None)}, "does not say what model", "line-sim"),
    (
        "line",
        {"line": line(parts=1000, miss_rate_bound=0.003)},
        "at most 0.3 % have none, which does not show 0.1 %",
        "a run of 2,995 parts with 0 missed at most: `tinyunet line-sim` with `--seconds 300`",
    ),
    (
        "line",
        {"line": line(parts=3000, missed=2, miss_rate=0.0007, miss_rate_bound=0.0021)},
        "At 600 parts/min and 150 ms, 2 of 3,000 parts have no verdict at the gate: with 95 %",
        "a run of 6,294 parts with 2 missed at most: `tinyunet line-sim` with `--seconds 630`",
    ),
    (
        "line",
        {"line": None},
        "No measurement of the line was given.",
        "run 2,995 parts past this model on this machine: `tinyunet line-sim IMAGES -m net.onnx "
        "--parts-per-minute SPEED --deadline-ms TIME --seconds TIME -o line.json`",
    ),
    (
        "drift",
        {"drift": None},
        "No report of the line was given",
        "`tinyunet-infer IMAGES -m net.onnx -o out-line`, then accept again with `--baseline "
        "out-line`",
    ),
    (
        "repeatability",
        {"repeatability": None},
        "No repeated photographs were given.",
        "photograph 59 parts or more three times each, every time into a folder of its own",
    ),
    (
        "drift",
        {"drift": DriftFigures("x", None, (), "out-line has too few images")},
        "out-line has too few images.",
        "more images",
    ),
    (
        "repeatability",
        {"repeatability": repeats(parts=20, agreeing=20)},
        "at least 86 % are, which does not show 95 %",
        "39 more parts (59 in all)",
    ),
    (
        "repeatability",
        {"repeatability": repeats(simulated=True)},
        "a simulation proves no camera",
        "--repeats DIR",
    ),
    (
        "repeatability",
        {"repeatability": repeats(skipped=("2/7.png: is torn",))},
        "Not judged: 1 photograph; the first: 2/7.png: is torn.",
        "take these photographs again",
    ),
    ("repeatability", {"repeatability": repeats(parts=0, agreeing=0)}, "No part was", "--repeats"),
    (
        "repeatability",
        {"repeatability": repeats(mismatch="another model")},
        "repeats was made with another model",
        "--repeats",
    ),
    ("plateau", {"plateau": None}, "was not measured", ""),
    (
        "shadow",
        {"shadow": shadow(offered=140, seen=140)},
        "with 95 % confidence at most 2.12 % are, which does not show 2 %.",
        "a shadow run of 9 more parts (149 in all) that are judged alike",
    ),
    (
        "shadow",
        {"shadow": shadow(new_rejects=2, new_passes=2)},
        "4 of 200 parts are judged otherwise than by old.onnx (fp32) on openvino, cpu "
        "(2 newly rejected, 2 newly passed): with 95 % confidence at most",
        "a shadow run of 256 more parts (456 in all)",
    ),
    (
        "shadow",
        {"shadow": shadow(seen=0, unseen={"the challenger was too far behind": 200})},
        "The model saw none of 200 parts.",
        "--shadow OUT/shadow/shadow.json",
    ),
    (
        "shadow",
        {"shadow": shadow(mismatch="another threshold")},
        "shadow.json was made with another threshold.",
        "tinyunet-infer IMAGES -m LEADER --shadow net.onnx -o OUT",
    ),
]


@pytest.mark.parametrize(("name", "changes", "sentence", "missing"), NOT_SHOWN)
def test_too_little_evidence_is_not_shown_and_says_what_is_missing(
    name: str, changes: dict[str, Any], sentence: str, missing: str
) -> None:
    judged = rows(dataclasses.replace(accepted(), **changes))
    assert judged[name].outcome == "not shown"
    assert sentence in judged[name].sentence
    assert missing in judged[name].missing
    assert others_are_met(judged, name)
    assert decide(tuple(judged.values())).word == "NOT SHOWN YET"


def test_a_changed_file_is_the_only_thing_that_is_said_of_a_model_that_was_not_run() -> None:
    changed = (Ancestor("net.onnx", SHA, "onnx", "changed", "is not the file"),)
    judged = rows(
        dataclasses.replace(accepted(), **NONE, lineage=changed, blocked="net.onnx is not the file")
    )
    assert [name for name, row in judged.items() if row.outcome == "not met"] == ["lineage"]
    rest = [row for name, row in judged.items() if name != "lineage"]
    assert {row.outcome for row in rest} == {"not shown"}
    assert {row.sentence for row in rest} == {"The model was not run: net.onnx is not the file."}


def test_a_defect_that_is_missed_by_its_type_alone_is_named() -> None:
    """A scratch that touches a dent is found with it, and missed by itself."""
    types = ({"defects": 16, "hit": 15}, {"defects": 8, "hit": 8})
    counted = "Counted by type, 1 of 24 is missed"
    for figures, named in (
        (detection(by_type=types), True),
        (detection(by_type=types[1:]), False),
        (detection(by_type=types, areas_missed_px=(90,)), False),  # missed by size, too
    ):
        evidence = dataclasses.replace(accepted(), detection=figures)
        row = rows(evidence, with_area(300))["smallest_defect"]
        assert (row.outcome, counted in row.sentence) == ("met", named)


def test_a_rule_that_nobody_chose_is_no_parity() -> None:
    """A file that was tuned may decide otherwise than the network that it was made from."""
    rules = "decides by threshold 0.5, min_area 1 px, but its reference net.onnx by threshold 0.9"
    figures = comparison(otherwise=rules, hint="adopt it again")
    row = rows(dataclasses.replace(accepted(), parity=figures))["parity"]
    assert (row.outcome, row.missing) == ("not met", "adopt it again")
    assert row.sentence == f"The artifact {rules}, and it was not tuned itself."
    tuned = comparison(otherwise=rules, tuned=True)
    row = rows(dataclasses.replace(accepted(), parity=tuned))["parity"]
    assert row.outcome == "met"
    assert row.sentence.endswith(f"own rule for both: it was tuned and {rules}.")


def with_area(area_px: int) -> Requirements:
    requirements = read_requirements()
    smallest = dataclasses.replace(requirements.smallest_defect, area_px=area_px)
    return dataclasses.replace(requirements, smallest_defect=smallest)


@pytest.mark.parametrize(
    ("area_px", "hit", "missed", "outcome"),
    [
        (100, (150, 900), (), "met"),
        (100, (199, 900), (99,), "met"),  # a missed one that is smaller than required
        (100, (150, 900), (100,), "not met"),
        (100, (200, 900), (), "not shown"),  # none is near the size
        (100, (90,), (), "not shown"),
        (100, (), (120,), "not met"),
    ],
)
def test_a_required_size_needs_defects_near_it(
    area_px: int, hit: tuple[int, ...], missed: tuple[int, ...], outcome: str
) -> None:
    figures = detection(areas_hit_px=hit, areas_missed_px=missed)
    evidence = dataclasses.replace(accepted(), detection=figures)
    judged = rows(evidence, with_area(area_px))
    assert judged["smallest_defect"].outcome == outcome
    assert others_are_met(judged, "smallest_defect")


@pytest.mark.parametrize(
    ("deadline_ms", "parts_per_minute", "outcome"),
    [(150, 600, "met"), (200, 500, "met"), (149, None, "not shown"), (None, 601, "not shown")],
)
def test_the_line_must_be_as_fast_as_required(
    deadline_ms: float | None, parts_per_minute: float | None, outcome: str
) -> None:
    requirements = read_requirements()
    limit = dataclasses.replace(
        requirements.line, deadline_ms=deadline_ms, parts_per_minute=parts_per_minute
    )
    judged = rows(accepted(), dataclasses.replace(requirements, line=limit))
    assert judged["line"].outcome == outcome


def test_the_command_that_is_missing_has_the_belt_of_the_requirements() -> None:
    requirements = read_requirements()
    limit = dataclasses.replace(requirements.line, deadline_ms=150.0, parts_per_minute=700.0)
    evidence = dataclasses.replace(accepted(), line=None)
    row = rows(evidence, dataclasses.replace(requirements, line=limit))["line"]
    assert "--parts-per-minute 700 --deadline-ms 150 --seconds 257 " in row.missing  # 2,995 parts


def test_a_rate_exactly_at_its_limit_is_not_more_than_allowed() -> None:
    evidence = dataclasses.replace(accepted(), detection=detection(escapes=3))
    row = rows(evidence)["escapes"]
    assert row.outcome == "not shown"  # 3 of 100 may come from 7.6 %
    assert row.missing == (
        "judge 157 more defective parts of your line, 257 in all, of which none slip through "
        "(303 in all if one does)"
    )


def test_a_plateau_without_an_edge_is_wide_enough() -> None:
    evidence = dataclasses.replace(accepted(), plateau=plateau(margin=None))
    row = rows(evidence)["plateau"]
    assert (row.outcome, row.sentence[-26:]) == ("met", "stands away from any edge.")


def test_the_plateau_of_fp32_is_needed_for_other_precisions_only() -> None:
    alone = dataclasses.replace(accepted(), plateau=plateau(share_of_reference=None))
    assert rows(alone)["plateau"].outcome == "met"
    model = dataclasses.replace(alone.model, precision="int8")
    assert rows(dataclasses.replace(alone, model=model))["plateau"].outcome == "not shown"


def test_a_shadow_run_counts_if_it_is_given() -> None:
    assert "shadow" not in rows(accepted())
    judged = rows(dataclasses.replace(accepted(), shadow=shadow(offered=230, unseen={"late": 30})))
    assert len(judged) == 14
    assert judged["shadow"].outcome == "met"
    assert judged["shadow"].required == "at most 2 % judged otherwise with 95 % confidence"
    assert judged["shadow"].sentence == (
        "0 of 200 parts are judged otherwise than by old.onnx (fp32) on openvino, cpu "
        "(0 newly rejected, 0 newly passed): with 95 % confidence at most 1.49 % are."
        " It did not see 30 of 230 parts."
    )
    assert others_are_met(judged, "shadow")


def test_a_shadow_run_counts_if_a_limit_is_named_for_it() -> None:
    requirements = read_requirements()
    limit = dataclasses.replace(requirements.shadow, max_rate=0.1)
    demanded = dataclasses.replace(requirements, shadow=limit)
    row = rows(accepted(), demanded)["shadow"]
    assert (row.outcome, row.sentence) == ("not shown", "No report of a shadow run was given.")
    many = dataclasses.replace(accepted(), shadow=shadow(new_rejects=10))
    assert rows(many, demanded)["shadow"].outcome == "met"
    assert rows(many)["shadow"].outcome == "not met"


def test_a_waiver_is_shown_with_what_it_waives_and_lets_the_model_run() -> None:
    requirements = read_requirements()
    waived = dataclasses.replace(requirements.line, required=False, reason="parts lie on a table")
    evidence = dataclasses.replace(accepted(), line=None)
    judged = judge(dataclasses.replace(requirements, line=waived), evidence)
    row = next(row for row in judged if row.name == "line")
    assert row.outcome == "waived"
    assert row.sentence.startswith("Waived. It would be not shown: No measurement")
    assert row.reason == "parts lie on a table"
    decision = decide(judged)
    assert decision.word == "MAY RUN"
    assert decision.sentence == "All other 12 requirements are met. Waived: line speed."


def test_what_is_not_met_comes_before_what_is_not_shown() -> None:
    evidence = dataclasses.replace(accepted(), line=None, seen=seen(tuned_on=1))
    assert decide(judge(read_requirements(), evidence)).sentence == (
        "1 of 13 requirements is not met: unseen images. Not shown yet: line speed."
    )
