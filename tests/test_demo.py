"""What `make demo` runs, without running it; tests/training/test_untrained.py trains its recipe."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess

import pytest

from tests.conftest import REPOSITORY
from training.recipe import RECIPES


@pytest.mark.skipif(shutil.which("make") is None, reason="no make on the PATH")
def test_the_demo_trains_from_nothing_and_ends_with_what_was_shown() -> None:
    command = ["make", "--dry-run", "--assume-old", ".venv/.installed", "demo"]
    # A test that make itself runs would inherit its flags.
    outside = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    done = subprocess.run(
        command, cwd=REPOSITORY, env=outside, capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    assert "benchmarks.before_after demo/evaluation/untrained.json" in lines[-1]
    modules = re.findall(r"python -m ([\w.]+)", done.stdout)
    assert [name for name in modules if importlib.util.find_spec(name) is None] == []
    trained = re.findall(r"python -m training (\w+) .*", done.stdout)
    assert trained == ["demo"] and (RECIPES / "demo.toml").is_file()
    assert "--init" not in done.stdout
    backends = set(re.findall(r"--backend (\w+)", done.stdout))
    assert backends == {"torch", "onnxruntime", "openvino"}
