from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import REPOSITORY
from tinyunet_deploy.artifacts import foreign
from tinyunet_deploy.artifacts.sidecar import Artifact, read_artifact
from tinyunet_deploy.backends.registry import open_backend
from tinyunet_deploy.errors import RuntimeUnavailable

BROKEN = {
    "ImportError": "raise ImportError('libtbb.so.12: cannot open shared object file')",
    "RuntimeError": "raise RuntimeError('Could not determine home directory.')",
    "SystemExit": "raise SystemExit('no licence')",
    "KeyError": "raise KeyError('getpwuid(): uid not found: 54321')",
}


@pytest.fixture(params=list(BROKEN))
def broken_openvino(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package openvino whose import fails."""
    (tmp_path / "openvino.py").write_text(BROKEN[request.param])
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in list(sys.modules):
        if name.partition(".")[0] == "openvino" or name == "tinyunet_deploy.backends.openvino":
            monkeypatch.delitem(sys.modules, name)


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime", "torch"])
def test_a_model_swapped_after_its_hash_was_checked_is_not_what_runs(
    backend: str, tiny_onnx: Path, tiny_checkpoint: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The file is junk, then gone, from the moment when its bytes have been checked."""
    source = tiny_checkpoint if backend == "torch" else tiny_onnx
    path = tmp_path / source.name
    shutil.copy(source, path)
    shutil.copy(f"{source}.json", f"{path}.json")

    def read_and_swap(model: Path) -> Artifact:
        artifact = read_artifact(model)
        model.write_bytes(b"junk")
        return artifact

    monkeypatch.setattr(foreign, "read_artifact", read_and_swap)
    image = np.random.default_rng(0).integers(0, 255, (1, 1, 64, 64), np.uint8)
    with open_backend(path, backend) as swapped:
        path.unlink()
        score = swapped.run(image).score
    monkeypatch.undo()
    with open_backend(source, backend) as untouched:
        assert (untouched.run(image).score == score).all()


@pytest.mark.usefixtures("broken_openvino")
def test_where_none_was_named_the_next_backend_takes_over(
    tiny_onnx: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), open_backend(tiny_onnx) as backend:
        assert backend.name == "onnxruntime"
    (notice,) = caplog.messages
    assert notice.startswith("openvino: is installed but cannot be imported: ")
    assert notice.endswith("; another backend is tried")


@pytest.mark.usefixtures("broken_openvino")
def test_one_that_was_named_does_not_run_here(tiny_onnx: Path) -> None:
    with pytest.raises(RuntimeUnavailable, match="openvino: is installed but cannot be imported"):
        open_backend(tiny_onnx, "openvino")


def test_a_user_without_a_name_and_a_home(tmp_path: Path) -> None:
    """As in containers that run under a number."""
    capability = "dac_read_search"  # Python may lie in a folder that is closed to that user
    become = ["setpriv", "--reuid=54321", "--regid=54321", "--clear-groups"]
    become += [f"--inh-caps=+{capability}", f"--ambient-caps=+{capability}"]
    if shutil.which("setpriv") is None or subprocess.run([*become, "true"]).returncode:
        pytest.skip("no process can become another user here")
    tmp_path.chmod(0o777)
    script = """
import getpass, sys
from tinyunet_deploy.cli import run, tinyunet
try:
    getpass.getuser()
except (KeyError, OSError):
    sys.exit(run(tinyunet, ["doctor"]))
"""
    done = subprocess.run(
        [*become, sys.executable, "-c", script],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    for name in ("openvino", "onnxruntime", "torch"):
        assert f"│ {name} " in done.stdout
    assert done.stdout.count("│ yes ") >= 3
