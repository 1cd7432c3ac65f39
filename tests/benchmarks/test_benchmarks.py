from __future__ import annotations

import json
import shutil
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import files_to_masks as files_to_masks_module
from benchmarks import labels
from benchmarks.__main__ import benchmarks
from benchmarks.files_to_masks import files_to_masks
from benchmarks.matrix_definition import read_matrix
from benchmarks.matrix_result import KIND, SCHEMA_VERSION, read_run
from benchmarks.operators import operators
from benchmarks.peer_programs import read_benchmark_app, read_trtexec
from benchmarks.peers import RUNNERS, time_cell, why_not_here
from benchmarks.ratio import STATISTICS, Ratio, ratio_in_run
from benchmarks.run_comparison import compare_runs
from tinyunet_deploy.backends.table import BACKENDS
from tinyunet_deploy.cli import run
from tinyunet_deploy.data import synthetic
from tinyunet_deploy.errors import DataError, RuntimeUnavailable

MATRIX = """
rounds = 1
repetitions = 2
warm_up = 1
images = 2
reference = "tiny.onnx@openvino/1"
twice = "tiny.onnx@openvino/1"

[[cells]]
artifacts = ["{artifact}"]
runners = ["openvino", "onnxruntime-by-hand"]
batches = [1]
"""


@pytest.fixture(scope="module")
def finished(tiny_onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with matrix.toml, tiny.onnx and run/, the finished run. Not to be changed: copy."""
    folder = tmp_path_factory.mktemp("matrix")
    for suffix in (".onnx", ".onnx.json"):
        shutil.copy(tiny_onnx.with_suffix(suffix), folder / f"tiny{suffix}")
    (folder / "matrix.toml").write_text(MATRIX.format(artifact=folder / "tiny.onnx"))
    assert run(benchmarks, ["matrix", str(folder / "matrix.toml"), "-o", str(folder / "run")]) == 0
    return folder


def again(folder: Path) -> int:
    return run(benchmarks, ["matrix", str(folder / "matrix.toml"), "-o", str(folder / "run")])


# --- the matrix -------------------------------------------------------------------------------


def test_a_run_has_every_cell_and_the_pair(finished: Path) -> None:
    result = read_run(finished / "run")
    names = [cell["name"] for cell in result["cells"]]
    assert names == [
        "tiny.onnx@openvino/1",
        "tiny.onnx@onnxruntime-by-hand/1",
        "tiny.onnx@openvino/1 again",
    ]
    assert all(len(cell["rounds"][0]["samples_ms"]) == 2 for cell in result["cells"])
    assert all(cell["answers"]["agreement"] > 0.999 for cell in result["cells"])
    assert result["cells"][0]["times_as_fast"]["value"] == 1.0
    assert result["noise"]["floor"] >= 1.0


def test_only_what_is_missing_is_run_again(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished / "run", tmp_path / "run")
    cells = sorted((tmp_path / "run" / "cells").glob("*.json"))
    kept = {path: path.stat().st_mtime_ns for path in cells[1:]}
    before = cells[0].read_bytes()
    cells[0].unlink()
    shutil.copy(finished / "matrix.toml", tmp_path)
    assert again(tmp_path) == 0
    assert cells[0].read_bytes() != before
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [("repetitions = 2", "repetitions = 3", "matrix"), ("images = 2", "images = 4", "matrix")],
)
def test_another_matrix_is_never_mixed_in(
    finished: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    old: str,
    new: str,
    what: str,
) -> None:
    shutil.copytree(finished / "run", tmp_path / "run")
    text = (finished / "matrix.toml").read_text().replace(old, new)
    (tmp_path / "matrix.toml").write_text(text)
    assert again(tmp_path) == 4
    assert f"holds a run of other {what}" in capsys.readouterr().err


def test_another_version_or_artifact_is_never_mixed_in(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(finished / "run", tmp_path / "run")
    shutil.copy(finished / "matrix.toml", tmp_path)
    path = tmp_path / "run" / "identity.json"
    fields = json.loads(path.read_text())
    fields["versions"]["openvino"]["openvino"] = "2020.1"
    fields["artifacts"]["tiny.onnx"]["sha256"] = "0" * 64
    path.write_text(json.dumps(fields))
    assert again(tmp_path) == 4
    assert "other artifacts, versions" in capsys.readouterr().err


def test_a_folder_of_something_else_is_refused(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("mine")
    shutil.copy(finished / "matrix.toml", tmp_path)
    assert again(tmp_path) == 4
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["thesis.txt"]


def test_a_fast_wrong_cell_cannot_win(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(finished / "run", tmp_path / "run")
    shutil.copy(finished / "matrix.toml", tmp_path)
    (scores,) = (tmp_path / "run" / "cells").glob("*by-hand*.npy")
    right = np.load(scores)
    np.save(scores, np.where(right > 114, np.uint8(0), np.uint8(255)))
    assert again(tmp_path) == 6
    assert "tiny.onnx@onnxruntime-by-hand/1: agrees" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("rounds = 1", "rounds = 1\nfancy = 2", "unknown key fancy"),
        ("rounds = 1", "", "rounds is missing"),
        ("rounds = 1", "rounds = 0", "rounds is 0"),
        ("rounds = 1", "rounds = true", "rounds is True"),
        ('"openvino", "onnx', '"tensorflow", "onnx', "'tensorflow' is not a runner"),
        ('"openvino", "onnx', '"torch", "onnx', "torch does not run tiny.onnx"),
        ("batches = [1]", "batches = [3]", "batch 3 does not divide the 2 images"),
        ("batches = [1]", "batches = []", "batches must be a list"),
        ("batches = [1]", "batches = [1, 1]", "is given twice"),
        ("batches = [1]", "batches = [1]\nthreads = 4", "unknown key cells.threads"),
        ('twice = "tiny', 'twice = "other', "twice is 'other.onnx@openvino/1'"),
        ("[[cells]]", "[cells]", "[[cells]] is missing"),
        ("rounds = 1", "rounds =", "is not a valid matrix"),
    ],
)
def test_a_matrix_is_read_strictly(tmp_path: Path, old: str, new: str, said: str) -> None:
    path = tmp_path / "matrix.toml"
    path.write_text(MATRIX.format(artifact="tiny.onnx").replace(old, new, 1))
    with pytest.raises(DataError, match=said.replace("[", r"\[")):
        read_matrix(path)


def test_the_matrix_of_the_repository_is_valid() -> None:
    matrix = read_matrix(Path(__file__).parent.parent.parent / "benchmarks" / "matrix.toml")
    runners = {cell.runner for cell in matrix.cells}
    assert {"pytorch-eager", "pytorch-channels-last", "pytorch-compile"} <= runners
    assert {"benchmark_app", "onnxruntime-by-hand", "openvino"} <= runners


def test_the_command_in_a_result_names_no_path_of_this_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = []

    def stop(_: object, folder: Path, *, command: str, **__: object) -> Path:
        told.append(command)
        raise DataError(folder, "is enough")

    monkeypatch.setattr("benchmarks.matrix_run.run_matrix", stop)
    assert run(benchmarks, ["matrix", "-o", "runs/m"]) == 4
    assert told == ["python -m benchmarks matrix -o runs/m"]


# --- files to masks ---------------------------------------------------------------------------


def test_models_take_turns_and_memory_is_told(
    tiny_onnx: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result, other = tmp_path / "pipeline.json", tmp_path / "other.onnx"
    for suffix in (".onnx", ".onnx.json"):
        shutil.copy(tiny_onnx.with_suffix(suffix), other.with_suffix(suffix))
    how = ["--images", "20", "--rounds", "2", "-o", str(result)]
    models = ["-m", str(tiny_onnx), "-m", str(other)]
    assert run(files_to_masks, [*models, *how]) == 0
    turns = [line.split()[0] for line in capsys.readouterr().err.splitlines()]
    assert turns == ["tiny.onnx", "other.onnx"] * 2
    fields = json.loads(result.read_text())
    assert fields["command"].endswith(
        "--model tiny.onnx --model other.onnx --images 20 --rounds 2 --batch-size 4"
    )
    assert [found["precision"] for found in fields["results"]] == ["fp32", "fp32"]
    for found in fields["results"]:
        first, second = found["rounds"]
        low, high = sorted([first["ratio"], second["ratio"]])
        assert 0 < low <= found["ratio_median"] <= high
        resident = first["resident_mib"]
        assert list(resident) == ["start", "after_a_tenth", "end"]
        assert all(10 < value < 1e5 for value in resident.values())


def test_a_rate_counts_only_if_every_image_got_its_mask(
    tiny_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = files_to_masks_module._write_as_opencv

    def damaged(path: Path, image: Any) -> None:
        written(path, image[:-1] if path.name == "0003.png" else image)

    monkeypatch.setattr(files_to_masks_module, "_write_as_opencv", damaged)
    result = tmp_path / "pipeline.json"
    assert run(files_to_masks, ["-m", str(tiny_onnx), "--images", "5", "-o", str(result)]) == 4
    assert not result.exists()


# --- the peers --------------------------------------------------------------------------------


@pytest.mark.parametrize("runner", ["pytorch-eager", "pytorch-channels-last"])
def test_a_pytorch_peer_answers_as_our_backend(
    tiny_checkpoint: Path, tiny_onnx: Path, runner: str
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 1, 64, 64), dtype=np.uint8)
    how: dict[str, Any] = {"batch": 2, "repetitions": 1, "warm_up": 1}
    measured, scores = time_cell(runner, tiny_checkpoint, images, **how)
    _, ours = time_cell("onnxruntime", tiny_onnx, images, **how)
    assert scores is not None
    assert ours is not None
    assert scores.shape == images.shape
    assert np.abs(scores.astype(int) - ours).max() <= 1
    assert len(measured["samples_ms"]) == 1


def test_benchmark_app_measures_our_file(tiny_onnx: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 1, 64, 64), dtype=np.uint8)
    measured, scores = time_cell(
        "benchmark_app", tiny_onnx, images, batch=2, repetitions=3, warm_up=1
    )
    assert scores is None
    assert measured["samples_ms"][0] > 0
    assert measured["boundary"] == "its own median of 3 calls"


def test_a_program_that_measured_nothing_says_why() -> None:
    report = json.dumps({"execution_results": {"error": "Numpy array shape mismatch"}})
    with pytest.raises(RuntimeUnavailable, match="Numpy array shape mismatch"):
        read_benchmark_app(report)


def test_times_of_trtexec_are_its_latencies() -> None:
    text = '[{"startInputUs": 1, "latencyMs": 2.5}, {"startInputUs": 9, "latencyMs": 2.25}]'
    assert read_trtexec(text)["samples_ms"] == [2.5, 2.25]


def test_a_missing_program_is_skipped_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert why_not_here("trtexec") == "trtexec is not on the PATH"
    assert set(BACKENDS) < set(RUNNERS)


# --- ratios and comparisons -------------------------------------------------------------------


@settings(max_examples=25)
@given(st.lists(st.floats(1, 100), min_size=1, max_size=12), st.floats(0.1, 10))
def test_a_ratio_lies_in_its_interval_and_scales(figures: list[float], factor: float) -> None:
    ratio = ratio_in_run([factor * figure for figure in figures], figures)
    assert ratio.value == pytest.approx(factor)
    assert ratio.low == pytest.approx(factor)
    assert ratio.high == pytest.approx(factor)


def test_the_floor_is_the_further_end() -> None:
    assert Ratio(1.0, 0.8, 1.1).floor == pytest.approx(1.25)
    assert Ratio(1.0, 0.9, 1.3).floor == pytest.approx(1.3)
    assert Ratio(1.2, 1.1, 1.3).outside(1.05)
    assert not Ratio(1.2, 1.02, 1.3).outside(1.05)


def test_as_many_rounds_of_both_are_needed() -> None:
    with pytest.raises(ValueError, match="2 rounds given against 1"):
        ratio_in_run([1.0, 2.0], [1.0])


def made_up_run(
    path: Path,
    *,
    speed: float = 1.0,
    drift: float = 1.0,
    rounds: int = 9,
    seed: int = 0,
    **changes: Any,
) -> Path:
    """A run whose cell ``a.onnx@openvino/1`` is ``speed`` times as fast as the usual 40 ms."""
    random = np.random.default_rng(seed)
    cells = []
    for name, ms in (
        ("ref.onnx@peer/1", 100.0),
        ("a.onnx@openvino/1", 40.0 / speed),
        ("b.onnx@openvino/1", 20.0),
        ("b.onnx@openvino/1 again", 20.0),
    ):
        times = drift * ms * np.exp(random.normal(0, 0.01, (rounds, 1)))
        samples = times * np.exp(random.gamma(2, 0.01, (rounds, 20)))
        cells.append(
            {
                "name": name,
                "batch_size": 1,
                "model_sha256": "0" * 64,
                "versions": {},
                "rounds": [{"samples_ms": row.tolist()} for row in samples],
            }
        )
    pair = [[float(np.median(r["samples_ms"])) for r in cell["rounds"]] for cell in cells[2:]]
    noise = ratio_in_run(*pair)
    fields = {
        "schema_version": SCHEMA_VERSION,
        "kind": KIND,
        "statistics": STATISTICS,
        "machine": {"processor": "P", "processors": 2, "system": "S"},
        "matrix": {"reference": "ref.onnx@peer/1", "images": 16},
        "noise": {"ratio": noise.as_dict(), "floor": noise.floor},
        "cells": cells,
        **changes,
    }
    path.write_text(json.dumps(fields))
    return path


def calls(first: Path, second: Path) -> dict[str, str]:
    return {each.cell: each.call for each in compare_runs(first, second).differences}


def test_noise_is_not_called_a_difference(tmp_path: Path) -> None:
    first = made_up_run(tmp_path / "1.json", seed=1)
    for seed in range(2, 12):
        second = made_up_run(tmp_path / "2.json", seed=seed, speed=1.005)
        assert set(calls(first, second).values()) == {"inside the noise floor"}


def test_a_true_difference_is_called(tmp_path: Path) -> None:
    first = made_up_run(tmp_path / "1.json", seed=1)
    second = made_up_run(tmp_path / "2.json", seed=2, speed=1.2)
    assert calls(first, second) == {
        "a.onnx@openvino/1": "faster",
        "b.onnx@openvino/1": "inside the noise floor",
    }
    assert calls(second, first)["a.onnx@openvino/1"] == "slower"


def test_a_slow_day_is_no_difference(tmp_path: Path) -> None:
    first = made_up_run(tmp_path / "1.json", seed=1)
    second = made_up_run(tmp_path / "2.json", seed=2, drift=1.5)
    assert set(calls(first, second).values()) == {"inside the noise floor"}


def test_few_rounds_say_nothing(tmp_path: Path) -> None:
    first = made_up_run(tmp_path / "1.json", seed=1)
    second = made_up_run(tmp_path / "2.json", seed=2, speed=2, rounds=4)
    assert set(calls(first, second).values()) == {"fewer than 5 rounds"}


def test_other_machines_are_not_compared(tmp_path: Path) -> None:
    first = made_up_run(tmp_path / "1.json")
    machine = {"processor": "Q", "processors": 2, "system": "S"}
    second = made_up_run(tmp_path / "2.json", machine=machine)
    with pytest.raises(DataError, match="another machine"):
        compare_runs(first, second)


def test_compare_fails_a_slower_run(tmp_path: Path) -> None:
    first = made_up_run(tmp_path / "1.json", seed=1)
    second = made_up_run(tmp_path / "2.json", seed=2, speed=0.8)
    assert run(benchmarks, ["compare", str(first), str(second)]) == 6
    shown = CliRunner().invoke(benchmarks, ["compare", str(second), str(first)])
    assert shown.exit_code == 0
    assert "faster" in shown.stdout
    assert "bootstrap" in shown.stdout


def test_a_broken_run_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text('{"kind": "matrix"}')
    with pytest.raises(DataError, match="not a result of python -m benchmarks matrix"):
        read_run(path)


# --- what weak labels allow -----------------------------------------------------------------------


def test_loose_labels_limit_what_a_network_can_reach(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where every label is the same the limit is 1; as they are drawn it is well below."""
    result = tmp_path / "labels.json"
    assert run(labels.labels, ["--defects", "1", "-o", str(result)]) == 0
    found = json.loads(result.read_text())
    assert set(found["classes"]) == {str(class_id) for class_id in range(1, 11)}
    assert all(0.5 < value < 0.95 for value in found["classes"].values())
    assert found["mean"] == pytest.approx(statistics.fmean(found["classes"].values()))
    same = synthetic.sample(9, 0, defective=True, seed=labels.SEED).ellipse
    monkeypatch.setattr(labels, "weak_label", lambda *_: same)
    assert labels.limit(9, 0) == 1.0


# --- the operators ----------------------------------------------------------------------------


def test_the_operators_take_what_the_network_takes(tiny_onnx: Path, tmp_path: Path) -> None:
    output = tmp_path / "operators.json"
    assert run(operators, [str(tiny_onnx), "--calls", "5", "-o", str(output)]) == 0
    fields = json.loads(output.read_text())
    assert str(tmp_path) not in output.read_text(), "names, no folders of this machine"
    (found,) = fields["results"]
    assert (found["model"], found["backend"]) == (tiny_onnx.name, "openvino")
    convolutions = [each for each in found["operators"] if each["kind"] == "Convolution"]
    assert len(convolutions) == 23, "of the network"
    assert all(each["ms"] >= 0 and each["kernel"] for each in found["operators"])
    together = sum(each["ms"] for each in found["operators"])
    assert 0.1 * found["call_ms"] < together < 10 * found["call_ms"]
    report = tmp_path / "report.md"
    assert run(benchmarks, ["report", str(output), "-o", str(report)]) == 0
    part = report.read_text().partition("Which operators take the time")[2].partition("\n## ")[0]
    rows = [line.split(" | ") for line in part.splitlines() if line.startswith("| ")][2:]
    times = [float(row[3]) for row in rows]
    assert times[:12] == sorted(times[:12], reverse=True)
    assert times[-1] == pytest.approx(together, abs=0.01)
    assert sum(times[:-1]) == pytest.approx(times[-1], abs=0.1)
