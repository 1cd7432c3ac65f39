"""What the library does where Linux's calls are missing: simulated, in processes without them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import REPOSITORY
from tinyunet_deploy import files, systems
from tinyunet_deploy.data import synthetic
from tinyunet_deploy.data.encoding import write_png
from tinyunet_deploy.errors import RuntimeUnavailable
from tinyunet_deploy.inspection.infer import infer
from tinyunet_deploy.inspection.run_report import read_report

SCRIPT = REPOSITORY / "tests" / "other_system.py"
API = """
import numpy, tinyunet_deploy as td
parts = list(td.inspect("photos", "model.onnx"))
assert [part.verdict for part in parts] == ["NG", "OK"], parts
assert td.evaluate("data", "model.onnx").all.escapes == 0
with td.load("model.onnx", backend="onnxruntime") as model:
    assert model([]).shape[0] == 0 and model.overlay(td.read_image("photos/0.png")).any()
"""


def as_on(system: str, folder: Path, commands: list[list[str]]) -> tuple[list[int], str]:
    """Exit codes and stderr of commands that run in a folder as on another system."""
    done = subprocess.run(
        [sys.executable, "-P", "-W", "ignore", SCRIPT, system],
        input=json.dumps(commands),
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    codes: list[int] = json.loads(done.stdout.splitlines()[-1])
    return codes, done.stderr


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two images, a data set of them, and the package's model as a file of the user's own."""
    for name in ("photos", "data/images", "data/masks"):
        (tmp_path / name).mkdir(parents=True)
    for index in range(2):
        sample = synthetic.sample(4, index, defective=index == 0)
        mask = np.zeros_like(sample.image) if sample.truth is None else sample.truth
        write_png(tmp_path / "photos" / f"{index}.png", sample.image)
        write_png(tmp_path / "data" / "images" / f"{index}.png", sample.image)
        write_png(tmp_path / "data" / "masks" / f"{index}.png", mask)
    models = REPOSITORY / "tinyunet_deploy" / "models"
    for suffix in ("", ".json", ".golden.png"):
        name = f"tinyunet.onnx{suffix}"
        (tmp_path / f"model.onnx{suffix}").write_bytes((models / name).read_bytes())
    return tmp_path


@pytest.mark.parametrize("system", ["windows", "macos"])
def test_the_station_s_verbs_run_there_with_the_answers_of_linux(system: str, folder: Path) -> None:
    commands = [
        ["infer", "photos", "-o", "out", "-m", "model.onnx", "--overlays"],
        ["infer", "photos", "-o", "out", "-m", "model.onnx", "--overlays"],
        ["evaluate", "data", "-m", "model.onnx", "-o", "evaluation.json"],
        ["verify", "model.onnx"],
        ["info", "model.onnx"],
        ["doctor"],
        ["python", API],
    ]
    codes, stderr = as_on(system, folder, commands)
    assert codes == [0] * len(commands), stderr
    lines, summary = read_report(folder / "out" / "report.jsonl")
    assert [line["verdict"] for line in lines] == ["NG", "OK"]
    assert summary is not None
    from tinyunet_deploy.backends.registry import open_backend

    with open_backend(folder / "model.onnx") as backend:
        infer([folder / "photos"], folder / "linux", backend, batch_size=4, workers=2)
    for name in ("0.png", "1.png"):
        mask = (folder / "linux" / "masks" / name).read_bytes()
        assert (folder / "out" / "masks" / name).read_bytes() == mask
    left = [path.name for path in folder.rglob("*") if files.is_temporary(path.name)]
    assert left == []


@pytest.mark.slow
def test_a_benchmark_runs_without_posix(folder: Path) -> None:
    words = ["benchmark", "photos", "-m", "model.onnx", "--backend", "openvino", "-b", "1"]
    codes, stderr = as_on("windows", folder, [[*words, *QUICK]])
    assert codes == [0], stderr


QUICK = ["--samples", "2", "--images", "2", "-o", "benchmark.json"]


@pytest.mark.parametrize("system", ["windows", "macos"])
def test_a_model_of_unknown_origin_is_refused_where_no_limits_can_be_set(
    system: str, folder: Path
) -> None:
    (folder / "model.onnx.json").unlink()
    trial = """
import os, sys, subprocess
real = subprocess.run
def run(command, **options):  # the trial's process lacks the same
    code = "import sys; sys.path.insert(0, sys.argv.pop(1)); import other_system as o; "
    code += f"o.become({sys.argv[1]!r}); import runpy; sys.argv[0] = 'x'; "
    code += "runpy.run_module('tinyunet_deploy.backends.sandbox_process', run_name='__main__')"
    at = command.index("tinyunet_deploy.backends.sandbox_process")
    tests = os.path.dirname(sys.argv[0])
    return real([sys.executable, "-c", code, tests, *command[at + 1:]], **options)
subprocess.run = run
"""
    words = ["infer", "photos", "-o", "out", "-m", "model.onnx", "--trust-engine"]
    codes, stderr = as_on(system, folder, [["python", trial], words])
    assert codes == [0, 5], stderr
    assert re.search(
        r"error: model\.onnx: must be tried in a process with limits, .*setrlimit.*Linux", stderr
    )
    assert not (folder / "out" / "masks").exists()


def test_two_processes_never_share_an_output_folder_there(folder: Path) -> None:
    hold = """
import pathlib, sys, time
from tinyunet_deploy.inspection.folder_lock import lock_folder
held = lock_folder(pathlib.Path("out"))
print("held", flush=True); sys.stdin.readline(); held.check(); held.close()
"""
    code = f"import other_system as o; o.become('windows'); exec({hold!r})"
    words = ["infer", "photos", "-o", "out", "-m", "model.onnx"]
    with subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{SCRIPT.parent}"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        codes, stderr = as_on("windows", folder, [words])
        holder.stdin.write("\n")
    assert codes == [4], stderr
    assert f"out: is in use by process {holder.pid} on " in stderr
    assert holder.returncode == 0
    assert as_on("windows", folder, [words])[0] == [0]


class _Process:
    """psutil's process on Windows; macOS has no ``cpu_affinity``."""

    def cpu_affinity(self) -> list[int]:
        return [5, 2]


def test_processors_and_memory_come_from_psutil_where_linux_calls_are_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import psutil

    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(psutil, "Process", _Process)
    assert systems.allowed_processors() == (2, 5)
    monkeypatch.setattr(psutil, "Process", object)
    assert systems.allowed_processors() == tuple(range(os.cpu_count() or 0))
    installed = systems.installed_memory_bytes()
    monkeypatch.delattr(os, "sysconf_names")
    assert systems.installed_memory_bytes() == psutil.virtual_memory().total
    assert abs(systems.installed_memory_bytes() - installed) < installed // 10


@pytest.mark.parametrize("proc", [True, False])
def test_children_are_listed_and_ended(proc: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not proc:
        monkeypatch.setattr(Path, "is_dir", lambda _: False)
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert child.pid in systems.child_processes()
    systems.kill(child.pid)
    assert child.wait() != 0
    assert child.stdin is not None
    child.stdin.close()


def test_temporary_files_are_swept_by_age_where_no_lock_can_say_whose_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(systems, "HAS_FILE_LOCKS", False)
    old, new = (tmp_path / f".tinyunet-{digit * 16}.part" for digit in "ab")
    for path in (old, new):
        path.write_bytes(b"")
    os.utime(old, (time.time() - 7200,) * 2)
    replace = os.replace

    def renamed(source: str, target: Path) -> None:
        opened = {os.path.realpath(fd) for fd in Path("/proc/self/fd").iterdir()}
        assert source not in opened, "an open file cannot be renamed on Windows"
        replace(source, target)

    monkeypatch.setattr(os, "replace", renamed)
    files.write_atomic(tmp_path / "report", b"whole", durable=True)
    assert (tmp_path / "report").read_bytes() == b"whole"
    assert sorted(path.name for path in tmp_path.iterdir()) == [new.name, "report"]


def test_limits_are_all_set_or_it_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systems, "resource", None)
    with pytest.raises(RuntimeUnavailable, match="setrlimit"):
        systems.limit_this_process(memory_bytes=1 << 30, processor_s=1)


def test_posix_stands_in_one_module() -> None:
    pattern = re.compile(
        r"^\s*(?:import|from) (?:fcntl|resource|termios|pwd|grp|pty|psutil)\b"
        r"|os\.(?:sched_|sysconf|fork|register_at_fork|getuid|geteuid|killpg|setsid|mkfifo)"
        r"|os\.O_(?:NONBLOCK|NOFOLLOW|DIRECTORY|CLOEXEC)|EREMOTEIO\b(?!\")"
        r"|signal\.(?:SIGHUP|SIGKILL|SIGPIPE|SIGUSR|pthread_)|dir_fd",
        re.MULTILINE,
    )
    package = REPOSITORY / "tinyunet_deploy"
    places = {
        path.name: pattern.findall(path.read_text())
        for path in package.rglob("*.py")
        if path.name != "systems.py" and pattern.search(path.read_text())
    }
    assert places == {"files.py": ["EREMOTEIO"]}, "guarded there"


def test_freed_memory_is_kept_for_the_next_image() -> None:
    """Counted in page faults, each of which is a page that the system had to give again."""
    code = (
        "import numpy, resource, sys\n"
        "from tinyunet_deploy import systems\n"
        "sys.argv[1] == 'keep' and systems.keep_freed_memory()\n"
        "images = lambda: [numpy.ones(300_000, numpy.uint8) for _ in range(8)]\n"
        "faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "images(), images()\n"
        "before = faults()\n"
        "for _ in range(10): images()\n"
        "print(faults() - before)\n"
    )
    faults = {
        how: int(subprocess.check_output([sys.executable, "-c", code, how], cwd=REPOSITORY))
        for how in ("keep", "give back")
    }
    if faults["give back"] < 1000:
        pytest.skip("this C library keeps freed memory by itself")
    assert faults["keep"] < faults["give back"] / 10
