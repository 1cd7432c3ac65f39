from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.run_comparison import compare_runs
from tests.benchmarks.made_up_results import made_up_run
from tinyunet_deploy.errors import DataError


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
