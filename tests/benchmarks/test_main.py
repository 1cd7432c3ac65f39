from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks.__main__ import benchmarks
from tests.benchmarks.made_up_results import made_up_run
from tinyunet_deploy.cli import run
from tinyunet_deploy.errors import DataError


def test_the_command_in_a_result_names_no_path_of_this_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    commands = []

    def stop(_: object, folder: Path, *, command: str, **__: object) -> Path:
        commands.append(command)
        raise DataError(folder, "is enough")

    monkeypatch.setattr("benchmarks.matrix_run.run_matrix", stop)
    assert run(benchmarks, ["matrix", "-o", "runs/m"]) == 4
    assert commands == ["python -m benchmarks matrix -o runs/m"]


def test_compare_fails_a_slower_run(tmp_path: Path) -> None:
    first = made_up_run(tmp_path / "1.json", seed=1)
    second = made_up_run(tmp_path / "2.json", seed=2, speed=0.8)
    assert run(benchmarks, ["compare", str(first), str(second)]) == 6
    shown = CliRunner().invoke(benchmarks, ["compare", str(second), str(first)])
    assert shown.exit_code == 0
    assert "faster" in shown.stdout
    assert "bootstrap" in shown.stdout
