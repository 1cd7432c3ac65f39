"""Every name of TensorRT that the code uses exists in TensorRT 10, 11 and TensorRT-RTX.

The real Python bindings of `tensorrt` import without TensorRT's libraries as soon as nine symbols
are defined somewhere, so three stub libraries stand in. Whatever is constructed on them is
null, as it is on a machine without a driver.
"""

import ast
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tinyunet_deploy.artifacts.facts import PlanFacts, Profile
from tinyunet_deploy.artifacts.sidecar import Sidecar, digest, write_artifact
from tinyunet_deploy.backends import nvidia_probe
from tinyunet_deploy.contract import Contract

BINDINGS = REPOSITORY / ".cache" / "tensorrt-bindings"
VERSIONS = {"10.16": "10.16.1.11", "11.4": "11.4.0.106"}

SOURCES = (
    "backends/nvidia_probe.py",
    "backends/tensorrt_builder.py",
    "backends/plan_check.py",
    "backends/precision_audit.py",
    "backends/tensorrt.py",
    "backends/layer_profiler.py",
    "backends/build_options.py",
    "backends/tensorrt_refit.py",
)
CLASSES = {
    "builder": "Builder",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "error": "ParserError",
    "config": "IBuilderConfig",
    "profile": "IOptimizationProfile",
    "cache": "ITimingCache",
    "layer": "ILayer",
    "tensor": "ITensor",
    "runtime": "Runtime",
    "engine": "ICudaEngine",
    "inspector": "EngineInspector",
    "context": "IExecutionContext",
    "refitter": "Refitter",
    "onnx_refitter": "OnnxParserRefitter",
    "settings": "ISerializationConfig",
}
"""How the sources call an object -> its class."""
NOT_TENSORRT = {"error": {"where", "what", "hint"}, "profile": {"min", "opt", "max", "sizes"}}
"""Names of ours and Python's on variables of the same name."""
RTX_ONLY = {"ComputeCapability", "num_compute_capabilities", "set_compute_capability"}

_SYMBOLS = """
createInferBuilder_INTERNAL createInferRefitter_INTERNAL createInferRuntime_INTERNAL
createNvOnnxParser_INTERNAL createNvOnnxParserRefitter_INTERNAL getBuilderPluginRegistry
getPluginRegistry getNvOnnxParserVersion initLibNvInferPlugins
"""


class Names(ast.NodeVisitor):
    """Collects the names a module uses: ``trt.X.Y`` chains, and attributes of known variables."""

    def __init__(self) -> None:
        self.chains: set[str] = set()
        self.members: set[tuple[str, str]] = set()
        self.keywords: set[tuple[str, str, str]] = set()

    def visit_Attribute(self, node: ast.Attribute) -> None:
        text = ast.unparse(node)
        for prefix in ("trt.", "self._trt."):
            if text.startswith(prefix):
                self.chains.add(text.removeprefix(prefix))
        member = self._member(node)
        if member:
            self.members.add(member)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        member = self._member(node.func) if isinstance(node.func, ast.Attribute) else None
        if member:
            self.keywords |= {(*member, keyword.arg) for keyword in node.keywords if keyword.arg}
        self.generic_visit(node)

    def _member(self, node: ast.Attribute) -> tuple[str, str] | None:
        owner = node.value
        name = getattr(owner, "id", None) or getattr(owner, "attr", "")
        variable = name.lstrip("_")
        if variable not in CLASSES or node.attr in NOT_TENSORRT.get(variable, ()):
            return None
        return CLASSES[variable], node.attr


@pytest.fixture(scope="module")
def used() -> Names:
    names = Names()
    for source in SOURCES:
        text = (REPOSITORY / "tinyunet_deploy" / source).read_text()
        names.visit(ast.parse(text))
    return names


@pytest.fixture(scope="module", params=list(VERSIONS))
def environment(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """Environment in which ``import tensorrt`` gives the real bindings on stub libraries."""
    line = request.param
    bindings = BINDINGS / line
    if not bindings.is_dir():
        pytest.skip(
            f"no TensorRT {line} bindings: pip install --no-deps --target {bindings} "
            f"tensorrt_cu13_bindings=={VERSIONS[line]}"
        )
    folder = tmp_path_factory.mktemp(f"tensorrt-{line}")
    source = folder / "stub.c"
    source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in _SYMBOLS.split()))
    for library in ("nvinfer", "nvinfer_plugin", "nvonnxparser"):
        soname = f"lib{library}.so.{line.partition('.')[0]}"
        subprocess.run(
            ["cc", "-shared", "-fPIC", f"-Wl,-soname,{soname}", "-o", folder / soname, source],
            check=True,
        )
    package = folder / "tensorrt"
    package.mkdir()
    package.joinpath("__init__.py").write_text(
        "from tensorrt_bindings import *\nfrom tensorrt_bindings import __version__\n"
    )
    paths = os.pathsep.join(map(str, (folder, bindings, REPOSITORY)))
    return {**os.environ, "LD_LIBRARY_PATH": str(folder), "PYTHONPATH": paths}


_CHECK = """
import importlib, json, sys
trt = importlib.import_module(sys.argv[1])
asked = json.load(sys.stdin)
missing = []
for chain in asked["chains"]:
    value = trt
    for name in chain.split("."):
        value = getattr(value, name, missing)
        if value is missing:
            break
    if value is missing:
        missing.append(chain)
for owner, name in asked["members"]:
    if not hasattr(getattr(trt, owner), name):
        missing.append(f"{owner}.{name}")
for owner, name, keyword in asked["keywords"]:
    if f"{keyword}:" not in getattr(trt, owner).__dict__[name].__doc__:
        missing.append(f"{owner}.{name}({keyword}=)")
print(json.dumps([trt.__version__, missing]))
"""


def missing(
    module: str, names: Names, environment: dict[str, str] | None, skipped: set[str]
) -> tuple[str, list[str]]:
    asked = {
        "chains": sorted(c for c in names.chains if not skipped & set(c.split("."))),
        "members": sorted(m for m in names.members if m[1] not in skipped),
        "keywords": sorted(names.keywords),
    }
    done = subprocess.run(
        [sys.executable, "-c", _CHECK, module],
        input=json.dumps(asked),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    version, names_missing = json.loads(done.stdout)
    return version, names_missing


def test_the_walk_finds_what_the_sources_use(used: Names) -> None:
    assert {"Builder", "Runtime", "DataType.UINT8", "ILogger.Severity.ERROR"} <= used.chains
    assert {
        ("IExecutionContext", "execute_async_v3"),
        ("ICudaEngine", "device_memory_size_v2"),
        ("IBuilderConfig", "set_timing_cache"),
        ("ParserError", "desc"),
        ("Refitter", "get_missing_weights"),
        ("OnnxParserRefitter", "refit_from_bytes"),
        ("ISerializationConfig", "set_flag"),
        ("IBuilderConfig", "hardware_compatibility_level"),
        ("Runtime", "engine_host_code_allowed"),
    } <= used.members
    assert ("IBuilderConfig", "set_timing_cache", "ignore_mismatch") in used.keywords


def test_every_name_exists_in_tensorrt(used: Names, environment: dict[str, str]) -> None:
    version, absent = missing("tensorrt", used, environment, RTX_ONLY)
    assert version in VERSIONS.values()
    assert absent == []


def test_every_name_exists_in_tensorrt_rtx(used: Names) -> None:
    if importlib.util.find_spec("tensorrt_rtx") is None:
        pytest.skip("tensorrt-rtx-cu13 is not installed")
    assert missing("tensorrt_rtx", used, None, set())[1] == []


def test_a_removed_name_is_seen(environment: dict[str, str]) -> None:
    names = Names()
    names.visit(ast.parse("trt.BuilderFlag.NOTHING; config.int8_nonsense; config.set_flag(odd=1)"))
    assert missing("tensorrt", names, environment, set())[1] == [
        "BuilderFlag.NOTHING",
        "IBuilderConfig.int8_nonsense",
        "IBuilderConfig.set_flag(odd=)",
    ]


_NO_DRIVER = """
import ctypes, sys
open_library = ctypes.CDLL
def no_driver(name, *arguments, **options):
    if name == "libcuda.so.1":
        raise OSError(name)
    return open_library(name, *arguments, **options)
ctypes.CDLL = no_driver
"""


def test_building_without_a_driver_is_one_line(
    environment: dict[str, str], tiny_onnx: Path, tmp_path: Path
) -> None:
    code = f"""{_NO_DRIVER}
import tinyunet_deploy.artifacts.tensorrt_preflight
tinyunet_deploy.artifacts.tensorrt_preflight.check_onnx = lambda model, where: None
from tinyunet_deploy.cli import run, tinyunet
where = ["-o", {str(tmp_path)!r}, "--flavour", "tensorrt"]
sys.exit(run(tinyunet, ["build", {str(tiny_onnx)!r}, *where]))
"""
    done = python(code, environment)
    assert done.returncode == 5, done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "no NVIDIA driver is installed" in done.stderr
    assert not list(tmp_path.glob("*.plan*"))


@pytest.mark.parametrize("asked_first", [True, False])
def test_loading_a_plan_without_a_driver_is_one_line(
    asked_first: bool, environment: dict[str, str], tmp_path: Path
) -> None:
    data = b"not looked at"
    plan = tmp_path / "tinyunet.fp32.plan"
    facts = PlanFacts("tensorrt", "VERSION", "NVIDIA H100", "9.0", Profile(1, 2, 4))
    sidecar = Sidecar("plan", "fp32", digest(data), "0" * 64, Contract(max_batch=4), plan=facts)
    write_artifact(plan, data, sidecar)
    code = f"""{_NO_DRIVER}
import dataclasses, pathlib, click, tensorrt
from tinyunet_deploy import backends
from tinyunet_deploy.artifacts.sidecar import read_sidecar, write_sidecar
from tinyunet_deploy.cli import run
plan = pathlib.Path({str(plan)!r})
sidecar = read_sidecar(plan)
facts = dataclasses.replace(sidecar.plan, version=tensorrt.__version__)
write_sidecar(plan, dataclasses.replace(sidecar, plan=facts))
if not {asked_first}:  # as if doctor's look had missed it
    backends.why_not = lambda name: None
@click.command()
def load():
    backends.open_backend(plan, "tensorrt", "cuda:0")
sys.exit(run(load, []))
"""
    done = python(code, environment)
    assert done.returncode == 5, done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "is not installed" in done.stderr or "no NVIDIA driver" in done.stderr


def python(code: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )


def test_without_its_libraries_the_import_is_one_line(environment: dict[str, str]) -> None:
    code = """
from tinyunet_deploy.backends import nvidia_probe
from tinyunet_deploy.errors import RuntimeUnavailable
try:
    nvidia_probe.tensorrt("tensorrt")
except RuntimeUnavailable as error:
    print(error)
"""
    done = python(code, {**environment, "LD_LIBRARY_PATH": ""})
    assert done.returncode == 0, done.stderr
    assert "tensorrt: cannot be imported: lib" in done.stdout


def test_which_tensorrt_onnxruntime_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "onnxruntime"
    (package / "capi").mkdir(parents=True)
    package.joinpath("__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    assert nvidia_probe.onnxruntime_tensorrt() is None

    source, library = tmp_path / "stub.c", tmp_path / "libnvinfer.so.10"
    source.write_text("void *createInferBuilder_INTERNAL(void) { return 0; }\n")
    shared = ["cc", "-shared", "-fPIC", "-Wl,--no-as-needed"]
    subprocess.run([*shared, "-Wl,-soname,libnvinfer.so.10", "-o", library, source], check=True)
    provider = package / "capi" / "libonnxruntime_providers_tensorrt.so"
    subprocess.run([*shared, "-o", provider, source, library], check=True)
    assert nvidia_probe.onnxruntime_tensorrt() == 10
