"""No code path of ours runs what it reads, and what a station installs is locked."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from tests.conftest import REPOSITORY

PACKAGES = ("tinyunet_deploy", "training", "export", "benchmarks")

MODULES = {
    "pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "copyreg",
    "subprocess", "multiprocessing", "pty", "runpy", "code", "codeop", "ctypes", "cffi",
    "socket", "ssl", "urllib", "http", "ftplib", "smtplib", "telnetlib", "xmlrpc", "webbrowser",
    "requests", "httpx", "aiohttp", "urllib3", "huggingface_hub", "boto3", "yaml",
}  # fmt: skip
CALLS = re.compile(
    r"(builtins\.)?(eval|exec|compile|__import__|breakpoint)"
    r"|importlib\.import_module|importlib\.util\.(spec_from_.*|module_from_spec)"
    r"|os\.(system|popen|exec\w*|spawn\w*|posix_spawnp?|startfile|fork\w*)"
    r"|(asyncio\.)?create_subprocess_\w+"
    r"|torch\.(load|jit\.load|package\..*|hub\..*)|(np|numpy)\.load|np\.fromregex"
    r"|\w*\.?load_from_checkpoint|pandas\.read_pickle|yaml\.(?!safe_load$)\w*load\w*"
)
ALLOWED = {
    "tinyunet_deploy/__init__.py": {
        "importlib.import_module": "a literal table of names",
    },
    "tinyunet_deploy/backends/__init__.py": {
        "importlib.import_module": "a literal table of names",
    },
    "tinyunet_deploy/backends/install_hint.py": {
        "ctypes": "asks whether NVIDIA's driver can be loaded",
    },
    "tinyunet_deploy/backends/nvidia_probe.py": {
        "ctypes": "asks whether NVIDIA's driver can be loaded",
        "importlib.import_module": "the names of two flavours",
    },
    "tinyunet_deploy/backends/sandbox.py": {
        "subprocess": "a model without a sidecar is tried there",
    },
    "tinyunet_deploy/backends/server.py": {
        "urllib.parse": "takes an address apart",
    },
    "tinyunet_deploy/backends/server_transport.py": {
        "http.client": "the server that --server names",
        "importlib.import_module": "tritonclient",
        "socket": "the server that --server names",
        "ssl": "the server that --server names",
        "urllib.parse": "takes an address apart",
    },
    "tinyunet_deploy/backends/row.py": {
        "importlib.import_module": "classes of its rows",
    },
    "tinyunet_deploy/cli/__init__.py": {
        "importlib.import_module": "a literal table of verbs",
    },
    "tinyunet_deploy/cli/stopping.py": {
        "socket": "a socket pair wakes a thread on a signal",
    },
    "tinyunet_deploy/data/conversion/yolo.py": {
        "yaml": "safe_load of data.yaml, which makes plain values only",
    },
    "tinyunet_deploy/inspection/child_process.py": {
        "subprocess": "starts our own program, which decodes files",
    },
    "tinyunet_deploy/inspection/folder_lock.py": {
        "socket": "the name of this host",
    },
    "tinyunet_deploy/inspection/ray_cluster.py": {
        "importlib.import_module": "ray, where it is asked for",
    },
    "tinyunet_deploy/line/station.py": {
        "multiprocessing": "starts itself for --processes",
        "multiprocessing.connection": "pipes to these alone",
    },
    "tinyunet_deploy/systems.py": {
        "ctypes": "tells the C library to keep freed memory",
    },
    "benchmarks/cluster.py": {
        "subprocess": "runs our own commands",
    },
    "benchmarks/free_backend.py": {
        "subprocess": "measures in a process of its own",
    },
    "benchmarks/gpu_suite/progress.py": {
        "subprocess": "runs our own commands one after the other",
    },
    "benchmarks/local_triton.py": {
        "socket": "finds a free port",
        "subprocess": "starts Triton",
        "urllib.request": "asks Triton on this machine whether it is ready",
    },
    "benchmarks/matrix_result.py": {
        "np.load": "arrays of our own runs, without objects",
    },
    "benchmarks/matrix_run.py": {
        "subprocess": "a process for each cell",
    },
    "benchmarks/peer_programs.py": {
        "subprocess": "benchmark_app and trtexec",
    },
    "benchmarks/peers.py": {
        "np.load": "arrays of our own runs, without objects",
    },
    "benchmarks/picture.py": {
        "subprocess": "a browser photographs our own report",
    },
    "benchmarks/training_throughput.py": {
        "subprocess": "runs our own trainer",
    },
    "tinyunet_deploy/quality/shadow/run.py": {
        "subprocess": "starts the challenger's process, a module of our own; frames are JSON",
    },
    "training/commands.py": {
        "os.execv": "starts itself again with malloc's tunables",
    },
}
"""File -> what it uses -> why that is harmless; look at every use before adding a line."""


def uses(source: str) -> Iterator[str]:
    """What a file imports or calls of the above."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
            yield from (name for name in names if name.partition(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            if node.module.partition(".")[0] in MODULES:
                yield node.module
            for alias in node.names:
                if CALLS.fullmatch(f"{node.module}.{alias.name}"):
                    yield f"{node.module}.{alias.name}"
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if CALLS.fullmatch(called):
                yield called
            for keyword in node.keywords:
                value = getattr(keyword.value, "value", None)
                if (keyword.arg, value) in {
                    ("shell", True), ("allow_pickle", True), ("weights_only", False),
                    ("trust_remote_code", True),
                }:  # fmt: skip
                    yield f"{keyword.arg}={value}"


def found() -> set[tuple[str, str]]:
    return {
        (path.relative_to(REPOSITORY).as_posix(), use)
        for package in PACKAGES
        for path in sorted((REPOSITORY / package).rglob("*.py"))
        for use in uses(path.read_text())
    }


def allowed() -> set[tuple[str, str]]:
    return {(file, use) for file, reasons in ALLOWED.items() for use in reasons}


def test_nothing_unpickles_evaluates_shells_out_or_downloads() -> None:
    assert found() - allowed() == set()


def test_no_allowance_is_left_over() -> None:
    assert allowed() - found() == set()


@pytest.mark.parametrize(
    "line",
    [
        "import pickle", "from pickle import loads", "import urllib.request", "eval(x)", "exec(x)",
        "from os import system", "os.system(x)", "torch.load(x)", "np.load(x)", "f(shell=True)",
        "torch.hub.load(x)", "__import__(x)", "f(x, allow_pickle=True)", "import http.client as h",
        "f(weights_only=False)", "os.execvp(x, y)",
    ],
)  # fmt: skip
def test_the_search_finds(line: str) -> None:
    assert list(uses(line))


def test_the_search_lets_harmless_code_pass() -> None:
    source = "network.eval()\nre.compile(x)\nsafetensors.torch.load(x)\nf(shell=False)\n"
    assert list(uses(source)) == []


def locked() -> dict[str, str]:
    text = (REPOSITORY / "requirements-cpu.lock").read_text()
    return {
        name.lower(): version for name, version in re.findall(r"(?m)^([\w.-]+)==(\S+) \\$", text)
    }


def test_the_lock_has_hashes_the_pinned_versions_and_no_address() -> None:
    text = (REPOSITORY / "requirements-cpu.lock").read_text()
    assert not re.search(r"://|--index|--find-links|--trusted", text)
    requirements = re.split(r"(?m)^(?=[\w.-]+==)", re.sub(r"(?m)^\s*#.*\n", "", text))
    assert len(requirements) > 10
    for requirement in requirements:
        if requirement.strip():
            assert re.search(r"--hash=sha256:[0-9a-f]{64}", requirement), requirement
    pinned = dict(
        line.lower().split("==") for line in (REPOSITORY / "constraints.txt").read_text().split()
    )
    for name, version in locked().items():
        assert pinned[name] == version, name
    assert {"numpy", "click", "rich", "onnxruntime", "openvino"} <= locked().keys()


def test_every_promise_names_a_test_that_exists() -> None:
    text = (REPOSITORY / "SECURITY.md").read_text()
    promised = text.partition("## Promised")[2].partition("## Not promised")[0]
    tests = set()
    for path in (REPOSITORY / "tests").rglob("test_*.py"):
        tests |= set(re.findall(r"(?m)^def (test_\w+)", path.read_text()))
    assert set(re.findall(r"`(test_\w+)`", promised)) - tests == set()
    rows = re.findall(r"(?m)^\| (?!promise|---)(.+) \|$", promised)
    assert len(rows) > 30
    assert [row for row in rows if "`test_" not in row] == []


def test_every_file_of_tests_that_is_named_exists() -> None:
    text = (REPOSITORY / "SECURITY.md").read_text()
    names = re.findall(r"tests/[\w/]+\.py", text)
    assert names
    assert [name for name in names if not (REPOSITORY / name).exists()] == []
