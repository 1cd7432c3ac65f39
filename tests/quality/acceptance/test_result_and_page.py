"""The page comes from the result file alone, is the same each time, and takes hostile names."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.quality.acceptance.evidence import accepted, detection, plateau, repeats, shadow
from tinyunet_deploy.data.encoding import encode_jpeg
from tinyunet_deploy.errors import DataError
from tinyunet_deploy.quality.acceptance.evidence import (
    Evidence,
    FlippedPart,
    InputFile,
    PartPicture,
    SkippedPart,
)
from tinyunet_deploy.quality.acceptance.gathering import Gathered
from tinyunet_deploy.quality.acceptance.output import PAGE, accept_again
from tinyunet_deploy.quality.acceptance.page import page_of
from tinyunet_deploy.quality.acceptance.requirements import read_requirements
from tinyunet_deploy.quality.acceptance.result_file import read_result, result_json
from tinyunet_deploy.quality.acceptance.verdicts import decide, judge
from tinyunet_deploy.quality.recall_by_type import TypeRecall

HOSTILE = "<script>alert(1)</script>{{ 7 * 7 }}\u202e\x1b[31m"
NOW = datetime(2026, 11, 28, 12, 30, tzinfo=UTC)
SVG = '<svg xmlns="http://www.w3.org/2000/svg"><script>alert(2)</script></svg>'


def picture(kind: Any, name: str = "Test/1.png") -> PartPicture:
    jpeg = base64.b64encode(encode_jpeg(np.zeros((40, 40, 3), np.uint8))).decode()
    return PartPicture(kind, name, "OK", 12, jpeg, 40, 40)


def gathered(evidence: Evidence, *pictures: PartPicture) -> Gathered:
    inputs = (
        InputFile("model", "net.onnx", "a" * 64),
        InputFile("images", "parts", "c" * 64, 4000),
    )
    return Gathered(evidence, pictures, inputs, "", None)


def write(folder: Path, evidence: Evidence, *pictures: PartPicture) -> Path:
    verdicts = judge(read_requirements(), evidence)
    path = folder / "acceptance.json"
    path.write_text(result_json(gathered(evidence, *pictures), decide(verdicts), verdicts, NOW))
    return path


def page(folder: Path, evidence: Evidence, *pictures: PartPicture) -> str:
    return page_of(read_result(write(folder, evidence, *pictures))).decode()


def text_of(html: str) -> str:
    body = html[html.index("<body>") :]
    return " ".join(re.sub("<[^>]+>", " ", body).split())


def test_the_page_says_first_whether_the_model_may_run(tmp_path: Path) -> None:
    text = text_of(page(tmp_path, accepted()))
    assert "MAY RUN All 13 requirements are met." in text
    assert "What is missing" not in text
    assert text.index("MAY RUN") < text.index("Requirements") < text.index("Signatures")
    assert "2026-11-28 12:30 UTC" in text
    assert "rejects a part that has 64 pixels or more above 0.5" in text
    assert (
        "Judged on parts, folders layout: 100 defective parts, of which 0 slip through, and "
        "1,900 good parts, of which 3 are rejected" in text
    )
    limits = text[text.index("How far this goes") : text.index("Requirements")]
    assert "shown on parts, folders layout, and says nothing about parts" in limits
    assert (
        "0 of 100 defective parts slip through: with 95 % confidence at most 2.96 % do." in limits
    )
    assert "3 of 1,900 good parts are rejected" in limits
    assert "defects are found; the smallest has" in limits


def test_the_page_says_how_types_are_counted(tmp_path: Path) -> None:
    said = "defects of two types that touch are two here, but one by size"
    assert said not in text_of(page(tmp_path, accepted()))
    scratch = TypeRecall("scratch", 16, 15, 12, 0).as_fields()
    evidence = dataclasses.replace(accepted(), detection=detection(by_type=(scratch,)))
    assert said in text_of(page(tmp_path, evidence))


def test_the_page_lists_what_is_missing_the_failed_first(tmp_path: Path) -> None:
    evidence = dataclasses.replace(accepted(), line=None, detection=detection(overkills=40))
    html = page(tmp_path, evidence)
    text = text_of(html)
    missing = text[text.index("What is missing") : text.index("Requirements")]
    assert "MAY NOT RUN 1 of 13 requirements is not met: overkill." in text
    assert "How far this goes" not in text
    assert missing.index("Overkill, not met: choose another threshold") < missing.index(
        "Line speed, not shown: run 2,995 parts past this model"
    )
    assert "Escapes, " not in missing and "`" not in missing
    assert "<code>--line line.json</code>" in html


def test_a_simulated_study_is_not_called_the_camera(tmp_path: Path) -> None:
    simulated = dataclasses.replace(accepted(), repeatability=repeats(simulated=True))
    text = text_of(page(tmp_path, simulated))
    assert "A simulation, not the camera" in text and "judged alike again?" not in text
    assert "Are the same parts judged alike again?" in text_of(page(tmp_path, accepted()))


def test_the_same_result_gives_the_same_page_byte_for_byte(tmp_path: Path) -> None:
    path = write(tmp_path, accepted(), picture("near escape"))
    first, second = tmp_path / "a", tmp_path / "b"
    assert accept_again(path, first).word == "MAY RUN"
    accept_again(path, second)
    assert (first / PAGE).read_bytes() == (second / PAGE).read_bytes()
    assert (first / PAGE).read_bytes() == page(
        tmp_path, accepted(), picture("near escape")
    ).encode()


def test_names_and_pictures_are_never_markup(tmp_path: Path) -> None:
    evidence = accepted()
    evidence = dataclasses.replace(
        evidence,
        model=dataclasses.replace(evidence.model, name=HOSTILE),
        detection=detection(skipped=(SkippedPart(HOSTILE, HOSTILE),)),
        repeatability=repeats(flips=(HOSTILE,), svg=SVG),
        plateau=plateau(svg=SVG),
        line=None,  # its command has the name of the model
    )
    html = page(tmp_path, evidence, picture("escape", HOSTILE))
    assert "<script" not in html
    assert "49" not in html.replace("7 * 7", "")[: html.index("<style>")]
    assert "\x1b" not in html
    drawn = re.findall(r"data:image/svg\+xml;base64,([^\"]+)", html)
    assert [base64.b64decode(picture).decode() for picture in drawn] == [SVG, SVG]
    assert not re.search(r'(src|href)="(?!data:)', html)


def test_the_page_lists_the_parts_of_a_shadow_run_that_flip(tmp_path: Path) -> None:
    flip = FlippedPart(HOSTILE, "OK", "NG", 90, 140)
    unseen = {"the challenger was too far behind": 7}
    run = shadow(offered=207, unseen=unseen, new_rejects=3, flips=(flip,))
    evidence = dataclasses.replace(accepted(), shadow=run)
    html = page(tmp_path, evidence)
    text = text_of(html)
    assert "Leader, which decided old.onnx (fp32) on openvino, cpu" in text
    assert "207 judged by the leader, 200 by this model" in text
    assert "7 not seen: the challenger was too far behind" in text
    assert "3: 3 newly rejected, 0 newly passed; 1.5 %, at most 3.84 % with 95 %" in text
    assert "Failure none" in text
    assert "8.0 ms for half of the parts, 20.0 ms for 99 %, 31.0 ms at most" in text
    assert "Parts that are judged otherwise (1 of 3 shown)" in text
    assert "OK 90 NG 140" in text
    assert "<script" not in html
    accept_again(tmp_path / "acceptance.json", tmp_path)
    assert (tmp_path / PAGE).read_bytes() == html.encode()


def test_a_shadow_run_that_failed_at_once_is_on_the_page(tmp_path: Path) -> None:
    none = dict.fromkeys(("p50_ms", "p99_ms", "max_ms"))
    run = shadow(seen=0, unseen={"it ended": 200}, failure="was ended by SIGKILL", **none)
    text = text_of(page(tmp_path, dataclasses.replace(accepted(), shadow=run)))
    assert "Failure the model was ended by SIGKILL" in text
    assert "Time for a part" not in text


def test_the_pictures_of_escapes_say_how_many_there_are(tmp_path: Path) -> None:
    evidence = dataclasses.replace(accepted(), detection=detection(escapes=20))
    text = text_of(page(tmp_path, evidence, *[picture("escape")] * 12))
    assert "Escapes: defective parts that slip through (12 of 20 shown)" in text
    assert "No defective part slips through" not in text
    near = text_of(page(tmp_path, accepted(), picture("near escape")))
    assert "Escapes: defective parts that slip through No defective part slips through." in near


def test_every_part_of_the_evidence_may_be_absent(tmp_path: Path) -> None:
    names = ("seen", "detection", "parity", "batches", "self_test", "line", "drift")
    absent: dict[str, None] = dict.fromkeys((*names, "repeatability", "plateau"))
    evidence = dataclasses.replace(accepted(), **absent, blocked="net.onnx was changed")  # type: ignore[arg-type]
    text = text_of(page(tmp_path, evidence))
    assert "The model was not run: net.onnx was changed." in text
    assert "Signatures" in text


def test_an_edited_result_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, dataclasses.replace(accepted(), line=None))
    path.write_text(path.read_text().replace("NOT SHOWN YET", "MAY RUN"))
    with pytest.raises(DataError, match="was edited after it was written"):
        read_result(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "is not a result of tinyunet accept"),
        ('{"kind": "line-sim"}', "is not a result of tinyunet accept"),
        ('{"kind": "acceptance", "schema_version": 99}', "schema_version 99, but must have 1"),
    ],
)
def test_another_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_result(path)
    with pytest.raises(DataError, match="cannot be read"):
        read_result(tmp_path / "nothing.json")


def test_the_result_is_plain_json_with_the_verdict_of_every_requirement(tmp_path: Path) -> None:
    fields = json.loads(write(tmp_path, accepted()).read_text())
    assert fields["schema_version"] == 1
    assert fields["decision"]["accepted"] is True
    assert [row["name"] for row in fields["requirements"]] == [
        name for name in read_requirements().by_name() if name != "shadow"
    ]
    assert str(tmp_path) not in json.dumps(fields)
