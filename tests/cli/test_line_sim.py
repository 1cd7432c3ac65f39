"""``tinyunet line-sim``. A busy machine may be slow: deadlines are far away or far exceeded."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import SIZE, part
from tests.virtual_clock import VirtualClock
from tinyunet_deploy.cli import run, tinyunet
from tinyunet_deploy.contract import Contract
from tinyunet_deploy.data.encoding import write_png
from tinyunet_deploy.line import live, station
from tinyunet_deploy.testing.fake_backend import FakeBackend


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed in range(3):
        write_png(folder / f"{seed}.png", part(seed))
    return folder


class Cli:
    """``tinyunet line-sim`` on a fake backend that takes some time."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], delay_s: float
    ) -> None:
        self.capsys = capsys
        backend = FakeBackend(contract=Contract(SIZE, SIZE), delay_s=delay_s)
        monkeypatch.setattr(station, "open_backend", lambda *_, **__: backend)

    def __call__(self, *arguments: object) -> tuple[int, str, str]:
        self.capsys.readouterr()
        code = run(tinyunet, ["line-sim", *map(str, arguments)])
        output = self.capsys.readouterr()
        return code, output.out, output.err


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(monkeypatch, capsys, 0.002)


def test_a_stalling_backend_is_caught(
    photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cli = Cli(monkeypatch, capsys, 0.15)
    belt = ("--parts-per-minute", 3000, "--deadline-ms", 100, "--buffer", 2)
    code, out, err = cli(photos, *belt, "--seconds", 0.8, "--parts", 300)
    assert code == 6
    assert "40 of 40 parts reach the gate without a verdict: more than the 0.1 % allowed" in out
    assert err.splitlines()[-1] == (
        "error: 3,000.0 parts/min: 40 of 40 parts reach the gate without a verdict, 100 % "
        "(0.1 % allowed)"
    )


def test_a_live_run_can_be_replayed(photos: Path, tmp_path: Path, fast: Cli) -> None:
    result = tmp_path / "new" / "live.json"
    belt = ("--speed-mm-s", 1000, "--pitch-mm", 20, "--deadline-ms", 6e5, "--buffer", 9999)
    belt += ("--go-parts", 10, "--stop-s", 0.1, "--cameras", 2, "--max-miss-rate", 0.2)
    code, out, _ = fast(photos, *belt, "--seconds", 1, "--parts", 500, "-o", result)
    assert code == 0
    assert "1,000 mm/s" in out and "within the 20 % allowed" in out
    recorded = json.loads(result.read_text())
    assert (recorded["kind"], recorded["mode"], recorded["line"]["cameras"]) == (
        "line-sim",
        "live",
        2,
    )
    assert recorded["outcome"]["parts"] == 33 and recorded["outcome"]["missed"] == 0
    assert len(recorded["service_ms"]) == 66 and min(recorded["service_ms"]) > 2
    assert "The first image after a stop took" in out
    assert recorded["service_p50_ms"]["first_after_stop"] > 2
    assert recorded["kept"] and recorded["shown"] and len(recorded["curve"]) > 10
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


def test_the_predicted_speed_is_tried(photos: Path, tmp_path: Path, fast: Cli) -> None:
    result = tmp_path / "live.json"
    belt = ("--parts-per-minute", 3000, "--deadline-ms", 6e5, "--buffer", 10_000)
    tried = ("--seconds", 0.5, "--verify-live", 0.5, "--max-miss-rate", 0.5, "-o", result)
    belt += ("--parts", 500)
    code, out, _ = fast(photos, *belt, *tried)
    assert code == 0
    assert "tried live for 0.5 s at the predicted safe speed" in out
    assert out.endswith("The prediction holds.\n")
    fields = json.loads(result.read_text())
    speed = fields["fastest_shown_parts_per_minute"]
    assert fields["verified"]["line"]["parts_per_minute"] == speed
    assert fields["verified"]["kept"]
    code, _, err = fast(photos, *belt, "--seconds", 0.2, "--verify-live", 0.5)
    assert code == 4
    assert "10 recorded parts cannot show a miss rate of 0.1 % (it takes 2,995 parts:" in err


@pytest.fixture
def slow_later(monkeypatch: pytest.MonkeyPatch, fast: Cli) -> Callable[[float, int], Cli]:
    """In virtual time: 10 ms an image while it is recorded, after that more for every n-th."""

    def cli(slow_s: float, every: int) -> Cli:
        clock = VirtualClock(threads=2)
        calls = 0

        def score(image: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls > station.WARM_UP:
                slow = calls > station.WARM_UP + 50 and calls % every == 0
                clock.sleep(0.01 + slow_s * slow)
            return image

        backend = FakeBackend(score, contract=Contract(SIZE, SIZE))
        monkeypatch.setattr(station, "open_backend", lambda *_, **__: backend)
        monkeypatch.setattr(live, "run_live", functools.partial(live.run_live, clock=clock))
        return fast

    return cli


SLOW_LATER = ("--parts-per-minute", 3000, "--deadline-ms", 180, "--buffer", 3, "--seconds", 1,
              "--verify-live", 0.5, "--max-miss-rate", 0.3, "--parts", 500)  # fmt: skip


def test_a_prediction_that_does_not_hold_is_lowered(
    photos: Path, tmp_path: Path, slow_later: Callable[[float, int], Cli]
) -> None:
    result = tmp_path / "live.json"
    code, out, err = slow_later(0.04, 1)(photos, *SLOW_LATER, "-o", result)
    assert code == 0
    assert err == f"result: {result}\n"
    assert "The prediction does not hold.\n\ntried live for 0.5 s at what these times" in out
    assert out.count("The prediction holds.") == 2, "the lower speed was chosen, and is run again"
    assert "tried live for 0.5 s at this speed once more\n" in out
    assert out.endswith("The prediction holds.\n")
    fields = json.loads(result.read_text())
    assert fields["recorded_parts_per_minute"] == pytest.approx(0.95 * 6000)
    assert fields["service_p50_ms"]["others"] == pytest.approx(50)
    (broken,) = fields["not_kept"]
    assert not broken["kept"]
    assert broken["line"]["parts_per_minute"] == fields["recorded_parts_per_minute"]
    lower = fields["fastest_shown_parts_per_minute"]
    assert fields["verified"]["line"]["parts_per_minute"] == lower == pytest.approx(0.95 * 1200)


def test_a_prediction_that_no_speed_keeps_is_a_failed_gate(
    photos: Path, slow_later: Callable[[float, int], Cli]
) -> None:
    code, out, err = slow_later(0.4, 2)(photos, *SLOW_LATER)
    assert code == 6
    assert out.endswith("The prediction does not hold.\n")
    assert out.count("tried live") == 1
    assert "parts reach the gate without a verdict" in err and "(30 % allowed)" in err


def test_unusable_images_are_skipped_and_none_is_refused(tmp_path: Path, fast: Cli) -> None:
    folder = tmp_path / "mixed"
    folder.mkdir()
    write_png(folder / "large.png", np.zeros((80, 80), np.uint8))
    belt = ("--parts-per-minute", 3000, "--deadline-ms", 9000, "--seconds", 0.1, "--parts", 100)
    code, out, _ = fast(folder, *belt, "--format", "json")
    assert code == 0
    facts = json.loads(out)
    assert (facts["images"], facts["padded"], facts["tiled"]) == (1, 0, 1)
    assert "; an image is 4 tiles on average" in fast(folder, *belt)[1]
    belt += ("--no-tile",)
    code, _, err = fast(folder, *belt)
    assert code == 4
    first = f"{folder / 'large.png'}: has 80x80 pixels"
    assert f"error: {folder}: contains no usable image (the first is skipped: {first}" in err
    write_png(folder / "good.png", np.zeros((SIZE, SIZE), np.uint8))
    code, _, err = fast(folder, *belt)
    assert code == 3
    assert "skipped: " in err and "has 80x80 pixels, but the model takes 64x64" in err


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
        (("PHOTOS", "--parts-per-minute", "nan", "--deadline-ms", 1), "nan is not a number"),
        (("PHOTOS", "--parts-per-minute", 1, "--deadline-ms", "inf"), "0.001<=x"),
        (("PHOTOS", "--jitter", "nan"), "nan is not a number"),
        (("PHOTOS", "--parts-per-minute", 1, "--deadline-ms", 1, "--stop-s", 1), "go together"),
        (("--replay", "a.json", "--verify-live", 1), "--verify-live runs on IMAGES"),
        (("PHOTOS", "--max-miss-rate", 2), "2"),
    ],
)
def test_options_that_make_no_sense(
    photos: Path, fast: Cli, arguments: tuple[object, ...], said: str
) -> None:
    code, out, err = fast(*(photos if word == "PHOTOS" else word for word in arguments))
    assert (code, out) == (2, "")
    assert said in err.splitlines()[-1]
    assert err.splitlines()[-1].startswith("Error: ")


def test_a_missing_recording_is_one_line(tmp_path: Path, fast: Cli) -> None:
    belt = ("--parts-per-minute", 600, "--deadline-ms", 90)
    code, out, err = fast("--replay", tmp_path / "no.json", *belt)
    assert (code, out) == (4, "")
    assert err == f"error: {tmp_path / 'no.json'}: cannot be read: No such file or directory\n"
