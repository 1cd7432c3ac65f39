"""The line in real time, and ``tinyunet line-sim``. A busy machine may be slow: deadlines are
either far away or far exceeded."""

from __future__ import annotations

import json
import multiprocessing
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import SIZE
from tinyunet_deploy.cli import run, tinyunet
from tinyunet_deploy.contract import Contract
from tinyunet_deploy.data.encoding import write_png
from tinyunet_deploy.errors import RefusedError, RuntimeUnavailable
from tinyunet_deploy.inspection.defects import Verdict
from tinyunet_deploy.line import live
from tinyunet_deploy.line.live import LiveRun, Station, open_station, run_live
from tinyunet_deploy.line.simulation import Line, outcome, simulate, triggers_ms
from tinyunet_deploy.testing.fake_backend import FakeBackend

FAR = Line(3000, deadline_ms=60_000, buffer=1000)


def judge_in(*delays_s: float) -> live.Judge:
    def judge(image: int) -> Verdict:
        time.sleep(delays_s[image % len(delays_s)])
        return "OK"

    return judge


def replayed(line: Line, lived: LiveRun, parts: int) -> Any:
    """The live run's own service times in the same order, by the simulation."""
    trigger_ms = triggers_ms(line, parts, seed=0)
    service_ms = np.nan_to_num(lived.service_ms, nan=1e6)
    done = simulate(
        np.repeat(trigger_ms, line.cameras), service_ms, processes=1, buffer=line.buffer
    )
    return outcome(line, trigger_ms, service_ms, done)


@pytest.mark.parametrize("cameras", [1, 2])
def test_the_simulation_agrees_with_the_run_whose_times_it_takes(cameras: int) -> None:
    line = replace(FAR, cameras=cameras, jitter=0.1, deadline_ms=40, go_parts=7, stop_ms=50)
    lived = run_live(line, [judge_in(0.001, 0.002, 0.06)], parts=15, seed=0)
    again = replayed(line, lived, 15)
    assert again.time_to_verdict_ms == pytest.approx(lived.outcome.time_to_verdict_ms)
    assert again.figures() == pytest.approx(lived.outcome.figures(), nan_ok=True)
    assert lived.outcome.missed > 0
    assert lived.outcome.dropped == 0


def test_it_agrees_about_what_is_dropped() -> None:
    line = replace(FAR, buffer=2)
    lived = run_live(line, [judge_in(0.5, 0)], parts=10, seed=0)
    assert (lived.outcome.missed, lived.outcome.dropped, lived.outcome.longest_run) == (7, 7, 7)
    again = replayed(line, lived, 10)
    assert again.figures() == pytest.approx(lived.outcome.figures(), nan_ok=True)


def test_parts_do_not_wait_for_the_station() -> None:
    """One stall delays all that come meanwhile, each by what is left of it."""
    lived = run_live(FAR, [judge_in(0.3, *[0.0] * 9)], parts=10, seed=0)
    time_ms = lived.outcome.time_to_verdict_ms
    assert (time_ms >= 300 - 20 * np.arange(10)).all()
    assert (lived.service_ms[1:] < 250).all()


def test_two_judges_work_side_by_side() -> None:
    both = threading.Barrier(2, timeout=20)

    def judge(_: int) -> Verdict:
        both.wait()
        return "OK"

    lived = run_live(replace(FAR, cameras=2, processes=2), [judge, judge], parts=3, seed=0)
    assert lived.outcome.missed == 0


def test_an_answer_that_never_comes_is_a_miss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "_PATIENCE_S", 0.1)
    release = threading.Event()

    def judge(_: int) -> Verdict:
        release.wait(20)
        return "OK"

    line = Line(3000, deadline_ms=50, buffer=3)
    lived = run_live(line, [judge], parts=10, seed=0)
    release.set()
    assert (lived.outcome.missed, lived.outcome.dropped) == (10, 6)
    assert np.isinf(lived.outcome.time_to_verdict_ms).sum() == 4
    with pytest.raises(RefusedError, match="no image was judged"):
        lived.recording(line, "photos")


def test_an_error_of_the_backend_ends_the_run() -> None:
    def judge(_: int) -> Verdict:
        raise RuntimeUnavailable("cuda:0", "is lost")

    with pytest.raises(RuntimeUnavailable, match="is lost"):
        run_live(FAR, [judge], parts=1000, seed=0)


def test_processes_judge_and_one_that_dies_is_told(station: Path, tiny_onnx: Path) -> None:
    opened = open_station(
        [station], 2, model=tiny_onnx, backend="onnxruntime", skipped=lambda error: None
    )
    with opened as ready:
        assert isinstance(ready, Station)
        assert len(multiprocessing.active_children()) == 2
        line = replace(FAR, processes=2, cameras=2)
        lived = run_live(line, ready.judges, parts=10, seed=0)
        assert (lived.outcome.missed, lived.outcome.dropped) == (0, 0)
        multiprocessing.active_children()[0].kill()
        with pytest.raises(RuntimeUnavailable, match="a judging process: ended"):
            run_live(line, ready.judges, parts=100, seed=0)
    assert multiprocessing.active_children() == []


def test_a_process_that_cannot_load_says_why(
    station: Path, tiny_onnx: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parent's device is not the children's: they find that there is no such thing."""
    monkeypatch.setattr(
        live, "open_backend", lambda *_, **__: FakeBackend(contract=Contract(SIZE, SIZE))
    )
    with (
        pytest.raises(RuntimeUnavailable, match=r"a judging process: fake\.onnx: "),
        open_station([station], 2, skipped=lambda error: None),
    ):
        pass


class Cli:
    """``tinyunet line-sim`` on a fake backend that takes a while."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], delay_s: float
    ) -> None:
        self.capsys = capsys
        backend = FakeBackend(contract=Contract(SIZE, SIZE), delay_s=delay_s)
        monkeypatch.setattr(live, "open_backend", lambda *_, **__: backend)

    def __call__(self, *arguments: object) -> tuple[int, str, str]:
        self.capsys.readouterr()
        code = run(tinyunet, ["line-sim", *map(str, arguments)])
        told = self.capsys.readouterr()
        return code, told.out, told.err


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(monkeypatch, capsys, 0.002)


def test_a_stalling_backend_is_caught(
    station: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cli = Cli(monkeypatch, capsys, 0.15)
    belt = ("--parts-per-minute", 3000, "--deadline-ms", 100, "--buffer", 2)
    code, out, err = cli(station, *belt, "--seconds", 0.8, "--parts", 300)
    assert code == 6
    assert "40 of 40 parts reach the gate without a verdict: more than the 0.1 % allowed" in out
    assert err.splitlines()[-1] == (
        "error: 3,000.0 parts/min: 40 of 40 parts reach the gate without a verdict, 100 % "
        "(0.1 % allowed)"
    )


def test_a_live_run_can_be_replayed(station: Path, tmp_path: Path, fast: Cli) -> None:
    result = tmp_path / "new" / "live.json"
    belt = ("--speed-mm-s", 1000, "--pitch-mm", 20, "--deadline-ms", 20_000, "--buffer", 99)
    belt += ("--go-parts", 10, "--stop-s", 0.1, "--cameras", 2, "--max-miss-rate", 0.2)
    code, out, _ = fast(station, *belt, "--seconds", 1, "--parts", 500, "-o", result)
    assert code == 0
    assert "1,000 mm/s" in out and "within the 20 % allowed" in out
    live = json.loads(result.read_text())
    assert (live["kind"], live["mode"], live["line"]["cameras"]) == ("line-sim", "live", 2)
    assert live["outcome"]["parts"] == 33 and live["outcome"]["missed"] == 0
    assert len(live["service_ms"]) == 66 and min(live["service_ms"]) > 2
    assert "The first image after a stop took" in out
    assert live["service_p50_ms"]["first_after_stop"] > 2
    assert live["kept"] and live["shown"] and len(live["curve"]) > 10
    code, out, err = fast("--replay", result, *belt, "--parts", 500, "--format", "json")
    assert (code, err) == (0, "")
    again = json.loads(out)
    assert (again["mode"], again["recorded_images"], again["kept"]) == ("replay", 66, True)
    assert again["outcome"]["missed"] == 0
    code, _, err = fast("--replay", result, *belt, "--processes", 2, "--parts", 500)
    assert "warning: recorded with processes: 1" in err


def test_a_plain_list_of_times_is_replayed(tmp_path: Path, fast: Cli) -> None:
    path = tmp_path / "times.json"
    path.write_text(json.dumps({"service_ms": [40.0] * 3000}))
    belt = ("--parts-per-minute", 600, "--deadline-ms", 90)
    code, out, err = fast("--replay", path, *belt)
    assert code == 0
    assert "0 of 10,000 parts" in out and "The belt may run at 1,425.0 parts/min" in out
    assert err == (
        "warning: the times were recorded without pauses, after which an image may be slow; "
        "a live run has them\n"
    )
    code, out, _ = fast("--replay", path, "--parts-per-minute", 900, "--deadline-ms", 90,
                        "--cameras", 2)  # fmt: skip
    assert code == 6
    assert "It takes 2 processes" in out
    path.write_text(json.dumps({"service_ms": [40.0] * 30}))
    code, out, _ = fast("--replay", path, *belt)
    assert code == 0
    assert "only shown to be below 9.5 %" in out
    assert "30 recorded images are too few to promise a speed (no miss in 2,995" in out


def test_the_predicted_speed_is_tried(station: Path, tmp_path: Path, fast: Cli) -> None:
    result = tmp_path / "live.json"
    belt = ("--parts-per-minute", 3000, "--deadline-ms", 20_000, "--buffer", 10_000)
    tried = ("--seconds", 0.5, "--verify-live", 0.5, "--max-miss-rate", 0.5, "-o", result)
    belt += ("--parts", 500)
    code, out, _ = fast(station, *belt, *tried)
    assert code == 0
    assert "tried live for 0.5 s at the predicted safe speed" in out
    assert out.endswith("The prediction holds.\n")
    fields = json.loads(result.read_text())
    speed = fields["fastest_shown_parts_per_minute"]
    assert fields["verified"]["line"]["parts_per_minute"] == speed
    assert fields["verified"]["kept"]
    code, _, err = fast(station, *belt, "--seconds", 0.2, "--verify-live", 0.5)
    assert code == 4
    assert "10 recorded parts cannot show a miss rate of 0.1 % (it takes 2,995:" in err


@pytest.fixture
def slow_later(monkeypatch: pytest.MonkeyPatch, fast: Cli) -> Callable[[float, int], Cli]:
    """A backend that takes 10 ms while it is recorded, and at every n-th image more after that."""

    def cli(slow_s: float, every: int) -> Cli:
        calls = 0

        def score(image: Any) -> Any:
            nonlocal calls
            calls += 1
            slow = calls > live.WARM_UP + 50 and calls % every == 0
            time.sleep(slow_s if slow else 0.0)
            return image

        backend = FakeBackend(score, contract=Contract(SIZE, SIZE), delay_s=0.01)
        monkeypatch.setattr(live, "open_backend", lambda *_, **__: backend)
        return fast

    return cli


SLOW_LATER = ("--parts-per-minute", 3000, "--deadline-ms", 180, "--buffer", 3, "--seconds", 1,
              "--verify-live", 0.5, "--max-miss-rate", 0.3, "--parts", 500)  # fmt: skip


def test_a_promise_that_is_not_kept_is_lowered(
    station: Path, tmp_path: Path, slow_later: Callable[[float, int], Cli]
) -> None:
    result = tmp_path / "live.json"
    code, out, _ = slow_later(0.04, 1)(station, *SLOW_LATER, "-o", result)
    assert code == 0
    assert "The prediction does not hold.\n\ntried live for 0.5 s at what these times" in out
    assert out.endswith("The prediction holds.\n")
    fields = json.loads(result.read_text())
    assert fields["recorded_parts_per_minute"] > 3000
    assert fields["service_p50_ms"]["others"] > 45
    (broken,) = fields["not_kept"]
    assert not broken["kept"]
    assert broken["line"]["parts_per_minute"] == fields["recorded_parts_per_minute"]
    lower = fields["fastest_shown_parts_per_minute"]
    assert fields["verified"]["line"]["parts_per_minute"] == lower < 1300


def test_a_promise_that_no_speed_keeps_is_told(
    station: Path, slow_later: Callable[[float, int], Cli]
) -> None:
    code, out, err = slow_later(0.4, 2)(station, *SLOW_LATER)
    assert code == 6
    assert out.endswith("The prediction does not hold.\n")
    assert out.count("tried live") == 1
    assert "parts reach the gate without a verdict" in err and "(30 % allowed)" in err


def test_unusable_images_are_skipped_and_none_is_refused(tmp_path: Path, fast: Cli) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    write_png(photos / "large.png", np.zeros((80, 80), np.uint8))
    belt = ("--parts-per-minute", 3000, "--deadline-ms", 9000, "--seconds", 0.1, "--parts", 100)
    code, _, err = fast(photos, *belt)
    assert code == 4
    assert err == f"error: {photos}: holds no usable image\n"
    write_png(photos / "good.png", np.zeros((SIZE, SIZE), np.uint8))
    code, _, err = fast(photos, *belt)
    assert code == 3
    assert "skipped: " in err and "has 80x80 pixels, the model takes 64x64" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "give IMAGES"),
        (("PHOTOS", "--replay", "a.json"), "give IMAGES"),
        (("--replay", "a.json"), "either --parts-per-minute or --speed-mm-s"),
        (("--replay", "a.json", "--parts-per-minute", 1), "either --deadline-ms or --gate-mm"),
        (("--replay", "a.json", "--speed-mm-s", 1, "--deadline-ms", 1), "needs --pitch-mm"),
        (("--replay", "a.json", "--parts-per-minute", 1, "--gate-mm", 1), "needs --pitch-mm"),
        (("PHOTOS", "--parts-per-minute", 0, "--deadline-ms", 1), "0.001<=x"),
        (("PHOTOS", "--parts-per-minute", "nan", "--deadline-ms", 1), "nan is no number"),
        (("PHOTOS", "--parts-per-minute", 1, "--deadline-ms", "inf"), "0.001<=x"),
        (("PHOTOS", "--jitter", "nan"), "nan is no number"),
        (("PHOTOS", "--parts-per-minute", 1, "--deadline-ms", 1, "--stop-s", 1), "go together"),
        (("--replay", "a.json", "--verify-live", 1), "--verify-live runs on IMAGES"),
        (("PHOTOS", "--max-miss-rate", 2), "2"),
    ],
)
def test_options_that_make_no_sense(
    station: Path, fast: Cli, arguments: tuple[object, ...], said: str
) -> None:
    code, out, err = fast(*(station if word == "PHOTOS" else word for word in arguments))
    assert (code, out) == (2, "")
    assert said in err.splitlines()[-1]
    assert err.splitlines()[-1].startswith("Error: ")


def test_a_missing_recording_is_one_line(tmp_path: Path, fast: Cli) -> None:
    belt = ("--parts-per-minute", 600, "--deadline-ms", 90)
    code, out, err = fast("--replay", tmp_path / "no.json", *belt)
    assert (code, out) == (4, "")
    assert err == f"error: {tmp_path / 'no.json'}: cannot be read: No such file or directory\n"
