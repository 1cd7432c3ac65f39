"""`make gpu` on a fake GPU and TensorRT: every step, in one process, and what a second run does."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks.example_engine import example_files, example_report
from benchmarks.gpu import gpu
from benchmarks.gpu_suite import steps
from benchmarks.gpu_suite.__main__ import run_suite
from benchmarks.gpu_suite.bars import judge_bars
from benchmarks.gpu_suite.progress import Outcome, run_command, run_steps
from benchmarks.gpu_suite.steps import Step, suite_steps
from tests.fake_machine import PLAN, fake_machine, make_plan
from tinyunet_deploy.artifacts.sidecar import DEFAULT_CHECKPOINT, write_artifact
from tinyunet_deploy.cli import run, tinyunet
from tinyunet_deploy.speed.engine.report_file import report_json


class Clock:
    """Time that commands take."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def option(words: Sequence[str], name: str) -> Path:
    return Path(words[words.index(name) + 1])


class FakeMachineCommands:
    """Runs what fakes can run in this process, and writes what the other commands would write."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def __call__(self, words: Sequence[str], limit_s: float) -> tuple[int | None, str]:
        module, *rest = words[2:]
        self.names.append(" ".join([module, *rest[:1]]))
        if module == "benchmarks.gpu":
            if not rest[1].endswith(".plan"):  # no fake has ONNX Runtime's or PyTorch's CUDA
                return 5, f"error: {rest[1]}: no such provider"
            small = [*rest, "--calls", "2", "--rounds", "1", "--batch-size", "1,2"]
            return run(gpu, small), ""
        if (module, rest[0]) == ("tinyunet_deploy", "build"):
            path = option(rest, "-o")
            path.parent.mkdir(parents=True, exist_ok=True)
            write_artifact(path, PLAN, make_plan(size=64).sidecar)
            return 0, ""
        if (module, rest[0]) == ("tinyunet_deploy", "benchmark"):
            plan = next(word for word in rest if word.endswith("fp16.plan"))
            report, output = option(rest, "--engine-report"), option(rest, "--output")
            few = ["--samples", "2", "--images", "2", "-b", "1", "--reference", plan, "-m", plan]
            return run(tinyunet, ["benchmark", *few, "--engine-report", str(report),
                                  "--output", str(output)]), ""  # fmt: skip
        if module == "training.speed":
            rates = {"results": [{"images_per_s": 400.0}, {"images_per_s": 800.0}]}
            option(rest, "--output").write_text(json.dumps(rates))
        elif module == "benchmarks.files_to_masks":
            option(rest, "--output").write_text("{}")
        elif module == "benchmarks.cuda_options":
            return 5, f"error: {rest[1]}: no such provider"
        elif rest[0] == "parity":
            option(rest, "--output").mkdir()
            return 6, "error: a limit is broken"
        return 0, ""


@pytest.fixture
def quiet_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-ins' files are not results that the report could read."""
    monkeypatch.setattr(
        "benchmarks.gpu_suite.__main__.read_results", lambda paths: [*paths[0].glob("*.json")]
    )
    monkeypatch.setattr(
        "benchmarks.gpu_suite.__main__.write_report",
        lambda results, output, command: output.write_text(str(len(results))),
    )


def test_it_runs_end_to_end_on_the_fake_and_again_only_what_is_left(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    quiet_report: None,
) -> None:
    fake_machine(monkeypatch, tmp_path, example_files("fp16", "11").layers)
    monkeypatch.setattr(steps, "PRECISIONS_BY_WORTH", ("fp16",))  # the others take the same path
    commands = FakeMachineCommands()
    where: dict[str, Any] = {"runs": tmp_path / "runs", "command": commands}
    assert run_suite("cuda:0", 540.0, tmp_path / "out", **where) == 5  # ONNX Runtime has no CUDA
    suite = json.loads((tmp_path / "out" / "suite.json").read_text())
    states = {step["step"]: step["state"] for step in suite["steps"]}
    stem = DEFAULT_CHECKPOINT.stem
    assert states[f"gpu-{stem}.fp16-tensorrt"] == states["benchmark"] == "finished"
    assert states[f"gpu-{stem}.fp16-onnxruntime"] == "failed"
    assert states["parity"] == "finished"  # with a broken limit, which is a result
    assert suite["gpu"]["name"] == "Fake GPU"
    assert (tmp_path / "out" / "report.md").exists()
    assert list((tmp_path / "out" / "engines").glob("*.html"))
    rows = json.loads((tmp_path / "out" / f"gpu-{stem}.fp16-tensorrt.json").read_text())["results"]
    assert [(row["batch_size"], row["cuda_graphs"]) for row in rows] == [
        (1, True), (1, False), (2, True), (2, False),
    ]  # fmt: skip
    printed = capsys.readouterr().out
    assert "met: training, images/s: at least 765, measured 800" in printed
    assert "not measured: fp16 at batch 16 with TensorRT, images/s: at least 4115" in printed
    assert "failed: " in printed and "make gpu goes on" in printed

    first = len(commands.names)
    assert run_suite("cuda:0", 540.0, tmp_path / "out", **where) == 5
    again = commands.names[first:]
    tried = {name.partition(" ")[0] for name in again}
    assert tried == {"benchmarks.gpu", "benchmarks.cuda_options"}


def step(name: str, limit_s: float = 100.0, **fields: Any) -> Step:
    return Step(name, (name,), limit_s, **fields)


def outcomes(
    chosen: list[Step], folder: Path, takes_s: dict[str, float], code: int | None = 0
) -> tuple[list[Outcome], list[str]]:
    """Run steps whose commands take a number of seconds, within 100 s."""
    clock, begun = Clock(), []

    def command(words: Sequence[str], limit_s: float) -> tuple[int | None, str]:
        begun.append(words[0])
        takes = takes_s.get(words[0], 1.0)
        clock.now_s += min(takes, limit_s)
        return (None, "") if takes > limit_s else (code, "last line")

    result = run_steps(
        chosen, folder, limit_s=100.0, say=lambda line: None, run=command, clock=clock
    )
    return result, begun


def test_the_time_limit_holds_and_the_rest_is_for_the_next_run(tmp_path: Path) -> None:
    four = [step("a", 40.0), step("b", 40.0), step("c", 40.0), step("d", needs=("b",))]
    takes = {"a": 39.0, "b": 50.0, "c": 5.0}
    first, _ = outcomes(four, tmp_path, takes)
    assert [part.state for part in first] == [
        "finished", "out of time", "finished", "not begun",
    ]  # fmt: skip
    assert first[3].why == "needs b"
    second, begun = outcomes(four, tmp_path, {"b": 39.0})
    assert begun == ["b", "d"]
    assert {part.state for part in second} == {"finished"}
    (tmp_path / "other").mkdir()
    late, _ = outcomes([step("x", 98.0), step("y")], tmp_path / "other", {"x": 97.0})
    assert (late[1].state, late[1].why) == ("not begun", "no time was left")


def test_a_command_without_its_file_or_with_a_fault_is_not_finished(tmp_path: Path) -> None:
    lost = step("a", result=tmp_path / "missing.json")
    assert outcomes([lost], tmp_path, {})[0][0].why == "did not write missing.json"
    assert outcomes([step("b")], tmp_path, {}, code=4)[0][0] == Outcome(
        "b", "failed", 1.0, "last line"
    )
    assert outcomes([step("c")], tmp_path, {}, code=6)[0][0].state == "failed"
    gate = outcomes([step("d", gates=True)], tmp_path, {}, code=6)[0][0]
    assert (gate.state, gate.why) == ("finished", "last line")


def test_commands_are_ended_at_their_limit() -> None:
    assert run_command(["sh", "-c", "echo one; echo two >&2; exit 3"], 10.0) == (3, "two")
    assert run_command(["sleep", "5"], 0.1) == (None, "")


def test_without_tensorrt_no_step_needs_a_plan(tmp_path: Path) -> None:
    without = suite_steps([DEFAULT_CHECKPOINT], tmp_path, "cuda:0", tensorrt=False)
    assert not [word for part in without for word in part.words if ".plan" in word]
    for with_plans in (True, False):
        known: set[str] = set()
        both = [DEFAULT_CHECKPOINT, Path("slim.safetensors")]
        for part in suite_steps(both, tmp_path, "cuda:0", tensorrt=with_plans):
            assert set(part.needs) <= known
            assert part.name not in known and part.limit_s < 540
            known.add(part.name)
        assert {"gpu-slim.int8-onnxruntime", "gpu-tinyunet-torch", "gpu-slim-torch-bf16"} <= known
        assert {"cuda-options-tinyunet.fp16", "pipeline-slim", "benchmark-slim"} <= known


def measured(folder: Path, **rates: tuple[str, str, float]) -> None:
    """Write the rates of batch 16: name=(backend, precision, images/s)."""
    for name, (backend, precision, rate) in rates.items():
        row = {"model": "m.onnx", "backend": backend, "precision": precision, "batch_size": 16}
        row |= {"images_per_s": rate, "device_ms": 1.0}
        one = {**row, "batch_size": 1, "device_ms": 0.9, "images_per_s": 5.0}
        (folder / f"gpu-m.{name}.json").write_text(json.dumps({"results": [row, one]}))


def test_bars_are_met_short_or_not_measured(tmp_path: Path) -> None:
    assert {bar.met for bar in judge_bars(tmp_path, "m")} == {None}
    measured(
        tmp_path, a=("onnxruntime", "fp16", 2999.0), b=("torch", "fp32", 9000.0),
        c=("tensorrt", "fp16", 4115.0), d=("tensorrt", "int8", 4115.0),
    )  # fmt: skip
    bars = {bar.name.split(",")[0]: bar for bar in judge_bars(tmp_path, "m")}
    assert bars["fp16 at batch 16 without TensorRT"].met is False
    assert bars["fp16 at batch 16 with TensorRT"].met is True
    assert bars["one image on the device"].met is True
    assert (bars["int8 over fp16 with TensorRT"].met, bars["training"].met) == (False, None)
    measured(tmp_path, a=("onnxruntime", "fp16", 3000.0))
    assert judge_bars(tmp_path, "m")[0].met is True
    measured(tmp_path, a=("onnxruntime", "fp16", 1.0), e=("torch-bf16", "bf16", 3100.0))
    assert judge_bars(tmp_path, "m")[0].measured == 1.0, "bfloat16 rounds more than the bar allows"
    measured(tmp_path, f=("torch-fp16", "fp16", 3100.0))
    assert judge_bars(tmp_path, "m")[0].measured == 3100.0


def test_a_missed_bar_is_explained_by_the_engines_reports(tmp_path: Path) -> None:
    measured(tmp_path, c=("tensorrt", "fp16", 4000.0), d=("tensorrt", "int8", 3900.0))
    (tmp_path / "engines").mkdir()
    for precision in ("fp16", "int8"):
        report = dataclasses.replace(example_report(precision).report, model=f"m.{precision}.plan")
        path = tmp_path / "engines" / f"m.{precision}-batch16.json"
        path.write_text(report_json(report))
    (tmp_path / "engines" / "m.x-batch16.json").write_text("{}")  # of another version
    bars = {bar.name.split(",")[0]: bar for bar in judge_bars(tmp_path, "m")}
    assert "Memory traffic is the limit" in bars["fp16 at batch 16 with TensorRT"].why
    assert "copies" in bars["int8 over fp16 with TensorRT"].why
