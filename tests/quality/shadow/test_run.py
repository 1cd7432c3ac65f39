from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import REPOSITORY, part
from tinyunet_deploy.artifacts.sidecar import Decision
from tinyunet_deploy.cli import run
from tinyunet_deploy.cli.infer import infer
from tinyunet_deploy.contract import Contract
from tinyunet_deploy.data.encoding import write_png
from tinyunet_deploy.inspection.report_line import ReportLine
from tinyunet_deploy.quality.shadow import run as shadow_run
from tinyunet_deploy.quality.shadow.report import ShadowReport
from tinyunet_deploy.quality.shadow.run import Challenger, ShadowRun
from tinyunet_deploy.testing.fake_backend import FakeBackend

STUB = """
import os, signal, sys, time
sys.path.insert(0, {repository!r})
from tinyunet_deploy.quality.shadow.frames import read_frame, write_frame
out = os.fdopen(os.dup(1), "wb")
read_frame(sys.stdin.buffer)
by = dict(model="c", model_sha256="0", precision="int8", backend="fake", device="cpu")
{before}
write_frame(out, dict(ready=by, threshold=0.5, min_area=4))
seen = 0
while (frame := read_frame(sys.stdin.buffer)) is not None:
    part, (image, score) = frame
    seen += 1
    {each}
    top = int(image.max())
    write_frame(out, dict(verdict="NG" if top > 128 else "OK", deciding_score=top, largest_px=9,
        leader_score=int(score.max()), leader_largest_px=9, took_ms=2.5, picture=None))
"""
"""A challenger that rejects bright images, and misbehaves where ``before`` and ``each`` say so."""


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Any:
    def install(before: str = "", each: str = "") -> None:
        code = STUB.format(before=before, each=each, repository=str(REPOSITORY))
        monkeypatch.setattr(shadow_run, "_COMMAND", [sys.executable, "-c", code])

    return install


def shadowed(tmp_path: Path, *, patient: bool = True, drain_s: float | None = None) -> ShadowRun:
    leader = FakeBackend(contract=Contract(16, 16))
    challenger = Challenger(tmp_path / "c.onnx")
    decision = Decision(0.5, 4)
    return ShadowRun(challenger, leader, decision, tmp_path, patient=patient, drain_s=drain_s)


def offer(shadow: ShadowRun, *values: int) -> None:
    """Parts of these grey values, which the leader rejects above 128; its scores are 100 lower."""
    for value in values:
        name = f"{value}.png"
        image = np.full((16, 16), value, np.uint8)
        shadow.observe(name, image, np.full((16, 16), max(value - 100, 0), np.uint8))
        line: ReportLine = {
            "path": name, "status": "inspected", "verdict": "NG" if value > 228 else "OK",
        }  # fmt: skip
        shadow.reported(line)


def test_the_report_counts_what_both_models_judged(tmp_path: Path, stub: Any) -> None:
    stub()
    with shadowed(tmp_path) as shadow:
        offer(shadow, 10, 90, 150, 240)
        shadow.observe("skipped.png", np.zeros((16, 16), np.uint8), np.zeros((16, 16), np.uint8))
        shadow.reported({"path": "skipped.png", "status": "skipped", "reason": "truncated"})
    report = shadow.report
    assert report.complete
    assert (report.offered, report.seen) == (4, 4)
    assert (report.new_rejects, report.new_passes) == (1, 0)
    (flip,) = report.flips
    assert (flip.name, flip.leader, flip.challenger) == ("150.png", "OK", "NG")
    assert (flip.leader_score, flip.challenger_score) == (50, 150)
    assert report.latency is not None and report.latency.p50_ms == 2.5
    assert report.leader_plateau is not None and report.leader_plateau.steps == (50, 139)
    assert report.challenger_plateau is not None and report.challenger_plateau.steps == (90, 149)
    first, second = shadow.write_report(), shadow.write_report()
    assert (first.name, second.name) == ("shadow.json", "shadow-2.json")
    assert ShadowReport.from_fields(json.loads(first.read_text())) == report


def test_a_killed_challenger_costs_the_leader_nothing_and_is_reported(
    tmp_path: Path, stub: Any
) -> None:
    stub(each="if seen == 3: os.kill(os.getpid(), signal.SIGKILL)")
    with shadowed(tmp_path) as shadow:
        offer(shadow, *range(1, 200))
    report = shadow.report
    assert report.failure == "was ended by SIGKILL"
    assert (report.offered, report.seen) == (199, 2)
    assert report.unseen == {"the challenger had ended": 197}
    assert not report.complete


@pytest.mark.parametrize(
    ("before", "failure"),
    [
        ("write_frame(out, dict(error='bad sidecar')); sys.exit(4)", "failed: bad sidecar"),
        ("sys.exit(7)", "ended by itself with exit code 7"),
    ],
)
def test_a_challenger_that_does_not_load_leaves_the_leader_alone(
    tmp_path: Path, stub: Any, before: str, failure: str
) -> None:
    stub(before=before)
    with shadowed(tmp_path) as shadow:
        offer(shadow, 10, 20)
    report = shadow.report
    assert report.failure == failure
    assert report.challenger is None
    assert report.unseen == {"the challenger had ended": 2}


def test_a_challenger_that_hangs_is_given_up(
    tmp_path: Path, stub: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub(each="time.sleep(600)")
    with shadowed(tmp_path) as shadow:
        monkeypatch.setattr(shadow_run, "_SILENT_S", 0.2)
        offer(shadow, 10, 20)
    assert shadow.report.failure == "gave no answer for 0.2 s"
    assert shadow.report.unseen == {"the challenger had ended": 2}


def test_a_leader_with_a_deadline_never_waits(
    tmp_path: Path, stub: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub(each="time.sleep(600)")
    monkeypatch.setattr(shadow_run, "_WAITING_BYTES", 4 * 2 * 256)
    with shadowed(tmp_path, patient=False, drain_s=0.1) as shadow:
        offer(shadow, *range(100))
    report = shadow.report
    assert report.failure is None
    assert report.offered == 100 and report.seen == 0
    assert sum(report.unseen.values()) == 100
    assert report.unseen["the challenger was too far behind"] >= 94
    assert not report.complete


def test_an_interrupted_leader_does_not_wait_for_the_rest(tmp_path: Path, stub: Any) -> None:
    stub(each="time.sleep(600)")
    shadow = shadowed(tmp_path)
    with pytest.raises(KeyboardInterrupt), shadow:
        offer(shadow, 10)
        raise KeyboardInterrupt
    assert shadow.report.unseen == {"the run ended before its turn": 1}
    with pytest.raises(ProcessLookupError):
        os.kill(shadow._process.pid, signal.SIGTERM)


def test_infer_runs_a_real_challenger_and_its_own_output_is_the_same(
    tiny_onnx: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for seed in range(3):
        write_png(photos / f"{seed}.png", part(seed))
    (photos / "broken.png").write_bytes(b"no image")
    command = [str(photos), "-m", str(tiny_onnx), "-o"]
    challenger = tmp_path / "challenger.onnx"
    shutil.copy(tiny_onnx, challenger)
    shutil.copy(f"{tiny_onnx}.json", f"{challenger}.json")
    assert run(infer, [*command, str(tmp_path / "alone")]) == 3
    out = tmp_path / "shadowed"
    assert run(infer, [*command, str(out), "--shadow", str(challenger)]) == 3
    captured = capsys.readouterr()
    assert "shadow: 3 of 3 parts seen, 0 judged otherwise" in captured.err
    report = ShadowReport.from_fields(json.loads((out / "shadow" / "shadow.json").read_text()))
    assert report.complete and report.challenger is not None
    assert report.challenger.model == "challenger.onnx"
    assert (out / "report.jsonl").read_bytes() == (tmp_path / "alone/report.jsonl").read_bytes()
    for path in (tmp_path / "alone" / "masks").iterdir():
        assert path.read_bytes() == (out / "masks" / path.name).read_bytes()
    assert run(infer, [*command, str(out), "--shadow", str(challenger), "--shard", "1/2"]) == 2
