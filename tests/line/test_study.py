from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.line.test_simulation import constant
from tests.line.test_verification import station
from tinyunet_deploy.errors import GateFailed
from tinyunet_deploy.line.belt import Belt
from tinyunet_deploy.line.recording import Recording, read_recording
from tinyunet_deploy.line.speed_search import SearchSettings
from tinyunet_deploy.line.station import Station
from tinyunet_deploy.line.study import LineStudy, study_live, study_recording

SETTINGS = SearchSettings(parts=1000, seed=0, max_miss_rate=0.05)
STATION = Station((), {"model": "tiny.onnx", "backend": "openvino", "images": 3})


def replay(belt: Belt, recording: Recording, max_miss_rate: float = 0.05) -> LineStudy:
    return study_recording(belt, recording, SearchSettings(1000, 0, max_miss_rate))


def live(*service_ms: float, verify_s: float | None, speed: float = 600) -> LineStudy:
    run, _ = station(*service_ms)
    belt = Belt(speed, deadline_ms=200, buffer=4)
    return study_live(STATION, run, belt, SETTINGS, source="photos", seconds=60, verify_s=verify_s)


def test_a_result_is_json_and_can_be_replayed(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text(live(20, verify_s=None).as_json())
    fields = json.loads(path.read_text())
    assert (fields["kind"], fields["mode"], fields["model"]) == ("line-sim", "live", "tiny.onnx")
    assert fields["kept"] and fields["shown"] and fields["outcome"]["missed"] == 0
    assert len(fields["curve"]) == 24
    assert (fields["verified"], fields["not_kept"], fields["kept_once"]) == (None, [], [])
    recording = read_recording(path)
    assert recording.service_ms == pytest.approx(np.full(600, 20))
    assert recording.idle and recording.processes == 1


def test_times_that_never_were_are_null() -> None:
    study = replay(Belt(3000, 50, cameras=2, buffer=0), constant(20))
    fields = json.loads(study.as_json())
    assert fields["outcome"]["p50_ms"] is None
    assert fields["time_to_verdict_ms"] == [None] * 1000
    assert fields["line"]["speed_mm_s"] is None


def test_the_result_tells_the_speed_that_held_from_those_that_did_not() -> None:
    study = live(20, 40, verify_s=60)
    fields = json.loads(study.as_json())
    (failed,), (once,) = fields["not_kept"], fields["kept_once"]
    assert not failed["kept"] and once["kept"] and fields["verified"]["kept"]
    assert once["line"] == fields["verified"]["line"]
    assert failed["line"]["parts_per_minute"] == fields["recorded_parts_per_minute"]
    assert fields["verified"]["line"]["parts_per_minute"] == pytest.approx(
        fields["fastest_shown_parts_per_minute"]
    )
    assert fields["service_p50_ms"]["others"] == 40
    assert fields["line"]["parts_per_minute"] == 600
    study.require_kept()


def test_the_asked_and_the_last_predicted_speed_must_hold() -> None:
    with pytest.raises(GateFailed, match=r"^1,900\.0 parts/min: \d+ of 1899 parts reach") as failed:
        live(30, 500, verify_s=60).require_kept()
    assert failed.value.hint == "5 % allowed"
    with pytest.raises(GateFailed, match=r"^600\.0 parts/min: .*5 % allowed"):
        live(150, verify_s=None).require_kept()
    hopeless = live(500, verify_s=60)
    assert json.loads(hopeless.as_json())["verified"] is None
    with pytest.raises(GateFailed, match=r"^600\.0 parts/min: "):
        hopeless.require_kept(predicted=True)
    untried = live(20, verify_s=None)
    untried.require_kept()
    with pytest.raises(GateFailed, match="no speed keeps a miss rate of 5 %"):
        untried.require_kept(predicted=True)
    too_fast = live(20, verify_s=60, speed=6000)
    assert too_fast.keeps(too_fast.runs[-1][1])
    with pytest.raises(GateFailed, match=r"^6,000\.0 parts/min: "):
        too_fast.require_kept()


@pytest.mark.parametrize(
    ("belt", "recording", "text"),
    [
        (
            Belt(600, 90),
            constant(40),
            "At 600.0 parts/min 0 of 1,000 parts reach the gate without a verdict: within the 5 % "
            "allowed. The belt may run at 1,425.0 parts/min.",
        ),
        (Belt(900, 90, cameras=2), constant(40), "It takes 2 processes, if each is as fast"),
        (
            Belt(600, 90, processes=3),
            constant(40),
            "As few as 1 of these processes would be enough. The belt may run at",
        ),
        (
            Belt(600, 90),
            constant(100),
            "Not even 8 processes as fast as this would be enough. No speed",
        ),
        (
            Belt(600, 90),
            constant(40, 30),
            "within the 5 % allowed, but only shown to be below 9.5 %. 30 recorded images are too "
            "few to promise a speed (no miss in 59 parts would promise one); they would keep up "
            "with 1,425.0 parts/min.",
        ),
    ],
)
def test_the_conclusion_answers_both_questions(belt: Belt, recording: Recording, text: str) -> None:
    assert text in replay(belt, recording).conclusion()


def test_no_number_of_parts_promises_that_none_is_missed() -> None:
    text = replay(Belt(600, 90), constant(40), max_miss_rate=0.0).conclusion()
    assert "too few to promise a speed; they would keep up with" in text
