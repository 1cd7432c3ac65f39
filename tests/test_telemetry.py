"""Nothing leaves the machine, and nothing is written but the output and temporary files.

Real commands run with ``watch.c`` preloaded, which sees every connection and every file opened for
writing, of Python and of the runtimes' native code alike. HOME is an empty folder of the test.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from benchmarks.local_triton import PACKAGES, serve
from tests.backends.test_server import Played
from tests.conftest import REPOSITORY, part
from tests.data.conversion.sets import SQUARE, coco, coco_annotation
from tests.foreign_networks import NETWORKS
from tinyunet_deploy import telemetry
from tinyunet_deploy.data.encoding import write_png

COMMANDS = """
import json, sys
from tinyunet_deploy.cli import run, tinyunet
code = max(run(tinyunet, words) for words in json.loads(sys.argv[1]))
sys.exit(code)
"""
HARMLESS = ("/dev/null", "/dev/shm", "/proc/self/")
CPU_BACKENDS = ("openvino", "onnxruntime", "torch")
CHOSEN = [word for name in CPU_BACKENDS for word in ("--backend", name)]


class Watched(NamedTuple):
    """What a process did."""

    code: int
    connections: list[str]
    """Family, host and port of each."""
    elsewhere: list[str]
    """Files written outside the output folder and the temporary folder."""
    inside: list[str]
    errors: str


@pytest.fixture(scope="session")
def watch_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("no C compiler, or not Linux")
    library = tmp_path_factory.mktemp("watch") / "watch.so"
    source = REPOSITORY / "tests" / "watch.c"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return library


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data set of six images for training and as many for tests, some of them defective."""
    for split in ("train", "test"):
        for name in ("images", "masks"):
            (tmp_path / "data" / split / name).mkdir(parents=True)
        for seed in range(6):
            write_png(tmp_path / "data" / split / "images" / f"{seed}.png", part(seed))
            mask = (part(seed) > 140).astype("uint8") * 255
            write_png(tmp_path / "data" / split / "masks" / f"{seed}.png", mask)
    return tmp_path / "data"


def watch(library: Path, tmp_path: Path, *command: object) -> Watched:
    """Run a command whose output is below ``tmp_path / "out"``."""
    out, temporary, home, log = (tmp_path / name for name in ("out", "tmp", "home", "log"))
    for folder in (out, temporary, home):
        folder.mkdir()
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in telemetry.SETTINGS and not name.startswith(("XDG_", "MPL", "TORCHINDUCTOR_"))
    }
    environment = {
        **kept,
        "PYTHONPATH": str(REPOSITORY),
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": str(home),
        "TMPDIR": str(temporary),
        "LD_PRELOAD": str(library),
        "WATCH_LOG": str(log),
    }
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    lines = log.read_text().splitlines() if log.exists() else []
    connections = [line.removeprefix("net ") for line in lines if line.startswith("net ")]
    files = [line.removeprefix("file ") for line in lines if line.startswith("file ")]
    within = (str(out), str(temporary))
    inside = [path for path in files if path.startswith(within)]
    elsewhere = [path for path in files if not path.startswith((*within, *HARMLESS))]
    assert list(home.iterdir()) == []
    return Watched(done.returncode, connections, elsewhere, inside, done.stderr)


@pytest.mark.parametrize(
    "code",
    [
        "from socket import *; socket(AF_INET, SOCK_DGRAM).connect(('127.0.0.1', 9))",
        "from socket import *; socket(AF_INET, SOCK_DGRAM).sendto(b'a', ('127.0.0.1', 9))",
        "import ctypes; ctypes.CDLL(None).fopen(b'elsewhere', b'w')",
        "open('elsewhere', 'w')",
        "import os; os.mkdir('elsewhere')",
        "import os; os.open('elsewhere', os.O_RDWR | os.O_CREAT, dir_fd=os.open('.', os.O_RDONLY))",
        "import os; os.symlink('a', 'elsewhere')",
        "import os; open('out/a', 'w'); os.rename('out/a', 'elsewhere')",
        "import subprocess; subprocess.run(['touch', 'elsewhere'])",
    ],
)
def test_the_watch_sees(watch_library: Path, tmp_path: Path, code: str) -> None:
    watched = watch(watch_library, tmp_path, "-c", code)
    assert watched.code == 0, watched.errors
    if "socket" in code:
        assert watched.connections == ["2 127.0.0.1 9"]
    else:
        assert watched.elsewhere == [str(tmp_path / "elsewhere")]


def test_infer_evaluate_and_benchmark_stay_inside(
    watch_library: Path, tmp_path: Path, data: Path, tiny_onnx: Path, tiny_checkpoint: Path
) -> None:
    """Every CPU backend, one after another in one process."""
    out = tmp_path / "out"
    commands: list[list[object]] = []
    for backend in CPU_BACKENDS:
        model = tiny_checkpoint if backend == "torch" else tiny_onnx
        chosen = ["--model", model, "--backend", backend]
        drawn = ["--overlays", "--scores", "-o", out / backend]
        commands.append(["infer", data / "test", *chosen, *drawn])
        commands.append(["evaluate", data, *chosen, "-o", out / f"{backend}.json"])
    models = ["--model", tiny_onnx, "--model", tiny_checkpoint, "--reference", tiny_checkpoint]
    short = ["--samples", 2, "-b", 1]
    commands.append(["benchmark", *models, *CHOSEN, *short, "-o", out / "benchmark.json"])
    words = json.dumps([[str(word) for word in words] for words in commands])
    watched = watch(watch_library, tmp_path, "-c", COMMANDS, words)
    assert watched.code == 0, watched.errors
    assert watched.connections == []
    assert watched.elsewhere == []
    for backend in CPU_BACKENDS:
        assert (out / backend / "report.jsonl").exists()
        assert (out / f"{backend}.json").exists()
    rows = json.loads((out / "benchmark.json").read_text())["measurements"]
    assert {row["backend"] for row in rows} == set(CPU_BACKENDS)


def test_doctor_and_tune_stay_inside(
    watch_library: Path, tmp_path: Path, data: Path, tiny_onnx: Path
) -> None:
    """Doctor imports every runtime, and tune draws with matplotlib."""
    out = tmp_path / "out"
    commands = [["doctor"], ["tune", data, "-m", tiny_onnx, "-o", out / "tune"]]
    words = json.dumps([[str(word) for word in words] for words in commands])
    watched = watch(watch_library, tmp_path, "-c", COMMANDS, words)
    assert watched.code == 0, watched.errors
    assert watched.connections == []
    assert watched.elsewhere == []
    assert any("fontlist" in path for path in watched.inside)
    assert list((tmp_path / "tmp").iterdir()) == []


def test_parity_verify_and_line_sim_stay_inside(
    watch_library: Path, tmp_path: Path, data: Path, tiny_onnx: Path, tiny_checkpoint: Path
) -> None:
    """Parity runs every CPU backend."""
    out = tmp_path / "out"
    models = ["-m", tiny_onnx, "--reference", tiny_checkpoint]
    belt = ["--parts-per-minute", 600, "--deadline-ms", 60000, "--seconds", 0.3]
    commands = [
        ["parity", data, *models, *CHOSEN, "-o", out / "parity"],
        ["verify", tiny_onnx, "--search", tiny_checkpoint.parent],
        ["info", tiny_onnx],
        ["data", "check", data],
        ["line-sim", data / "test" / "images", "-m", tiny_onnx, *belt, "--max-miss-rate", 1],
    ]
    words = json.dumps([[str(word) for word in words] for words in commands])
    watched = watch(watch_library, tmp_path, "-c", COMMANDS, words)
    assert watched.code == 0, watched.errors
    assert watched.connections == []
    assert watched.elsewhere == []
    assert (out / "parity" / "parity.json").exists()
    assert list((tmp_path / "tmp").iterdir()) == []


def test_watch_stays_inside(
    watch_library: Path, tmp_path: Path, data: Path, tiny_onnx: Path
) -> None:
    out = tmp_path / "out" / "watch"
    words = ["watch", data / "test" / "images", "-m", tiny_onnx, "--overlays", "-o", out]
    script = f"""
import os, signal, sys, threading, time
from pathlib import Path
from tinyunet_deploy.cli import run, tinyunet

def end():
    report = Path({str(out / "report.jsonl")!r})
    while not report.exists() or report.read_bytes().count(b"\\n") < 6:
        time.sleep(0.02)
    os.kill(os.getpid(), signal.SIGINT)

threading.Thread(target=end, daemon=True).start()
sys.exit(run(tinyunet, {[str(word) for word in words]!r}))
"""
    watched = watch(watch_library, tmp_path, "-c", script)
    assert watched.code == 0, watched.errors
    assert watched.connections == []
    assert watched.elsewhere == []
    assert '"summary"' in (out / "report.jsonl").read_text()


def test_a_server_is_the_only_thing_that_is_connected(watch_library: Path, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for seed in range(2):
        write_png(tmp_path / "images" / f"{seed}.png", part(seed, height=32, width=64))
    out = tmp_path / "out" / "infer"
    with contextlib.closing(Played()) as server:
        command = ["infer", tmp_path / "images", "-b", 2, "--server", server.url, "-o", out]
        words = json.dumps([[str(word) for word in command]])
        watched = watch(watch_library, tmp_path, "-c", COMMANDS, words)
        port = server.url.rpartition(":")[2].partition("/")[0]
    assert watched.code == 0, watched.errors
    assert set(watched.connections) == {f"2 127.0.0.1 {port}"}
    assert watched.elsewhere == []
    assert (out / "report.jsonl").exists()


@pytest.mark.nightly
def test_a_grpc_server_is_the_only_thing_that_is_connected(
    watch_library: Path, tmp_path: Path, tiny_onnx: Path
) -> None:
    """NVIDIA's client with a Triton of this machine."""
    if not all((PACKAGES / name).is_dir() for name in ("pytriton", "tritonclient")):
        pytest.skip("no nvidia-pytriton and tritonclient in .cache/triton")
    (tmp_path / "images").mkdir()
    for seed in range(2):
        write_png(tmp_path / "images" / f"{seed}.png", part(seed))
    out = tmp_path / "out" / "infer"
    with serve(tiny_onnx, tmp_path / "triton") as served:
        command = ["infer", tmp_path / "images", "--server", served.grpc, "-o", out]
        words = json.dumps([[str(word) for word in command]])
        script = f"import sys; sys.path.insert(0, {str(PACKAGES)!r})\n{COMMANDS}"
        watched = watch(watch_library, tmp_path, "-c", script, words)
        port = served.grpc.rpartition(":")[2].partition("/")[0]
    assert watched.code == 0, watched.errors
    assert {connection.split()[-1] for connection in watched.connections} == {port}
    assert all("127.0.0.1" in connection for connection in watched.connections)
    assert watched.elsewhere == []
    assert (out / "report.jsonl").exists()


@pytest.mark.nightly
def test_training_and_export_stay_inside(watch_library: Path, tmp_path: Path, data: Path) -> None:
    reference = (REPOSITORY / "training" / "recipes" / "reference.toml").read_text()
    recipe = tmp_path / "small.toml"
    recipe.write_text(
        reference.replace("crop = 512", "crop = 64").replace("batch = 16", "batch = 2")
    )
    script = f"""
import subprocess, sys
data = ["--data", {str(data)!r}]
training = ["small.toml", *data, "--output", "out/run", "--steps", "1"]
subprocess.run([sys.executable, "-m", "training", *training], check=True)
words = ["out/run/checkpoint.safetensors", "-o", "out/a.onnx", "--precision", "fp32,fp16,int8"]
subprocess.run([sys.executable, "-m", "export", *words, *data], check=True)
"""
    watched = watch(watch_library, tmp_path, "-c", script)
    assert watched.code == 0, watched.errors
    assert watched.connections == []
    assert watched.elsewhere == []


@pytest.mark.nightly
def test_the_other_verbs_stay_inside(
    watch_library: Path, tmp_path: Path, data: Path, tiny_onnx: Path
) -> None:
    """Each ends with an exit code of its own results; none with a missing runtime or a bug."""
    make, options = NETWORKS["rgb-logits"]
    (tmp_path / "foreign.onnx").write_bytes(make())
    out, images, mine = tmp_path / "out", data / "test" / "images", ["-m", tiny_onnx]
    (tmp_path / "belt").mkdir()
    for seed in range(24):  # drift tells nothing of fewer
        write_png(tmp_path / "belt" / f"{seed}.png", part(seed))
    shadowed = ["infer", tmp_path / "belt", *mine, "--shadow", tiny_onnx, "-o", out / "report"]
    simulated = ["--simulate", 2, "--noise", 5, "-o", out / "repeats"]
    coco(tmp_path / "annotated", coco_annotation([SQUARE]))
    commands = [
        ["adopt", tmp_path / "foreign.onnx", *options, "-o", out / "adopted.onnx"],
        shadowed,
        ["drift", out / "report", "--against", out / "report", "-o", out / "drift.svg"],
        ["repeatability", images, *mine, *simulated],
        ["accept", data, *mine, "-o", out / "accept"],
        ["triton", tiny_onnx, "-o", out / "models"],
        ["data", "init", data, "--dry-run"],
        ["data", "convert", tmp_path / "annotated", "--unlabelled", "good", "-o", out / "masks"],
        ["data", "synthesize", out / "made", "--classes", 1, "--train", 1, "--test", 1],
    ]
    words = json.dumps([[str(word) for word in words] for words in commands])
    watched = watch(watch_library, tmp_path, "-c", COMMANDS, words)
    assert watched.code in (0, 6), watched.errors
    assert watched.connections == []
    assert watched.elsewhere == []
    made = ("adopted.onnx", "report/shadow", "drift.svg", "repeats", "accept", "models", "masks")
    for name in made:
        assert (out / name).exists(), (name, watched.errors)


def test_what_the_user_has_set_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "0")
    monkeypatch.delenv("RAY_USAGE_STATS_ENABLED")
    telemetry.switch_off()
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "0"
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
