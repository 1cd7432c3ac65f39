"""Every network goes every path by the facts of its row: training, export, tiles, gates."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest
import torch

from export.__main__ import export
from tests.conftest import REPOSITORY, part
from tests.quality.conftest import write_images
from tests.training.small_runs import write_recipe
from tinyunet_deploy.artifacts.architectures import NETWORKS, Architecture
from tinyunet_deploy.artifacts.checkpoint import load_checkpoint, save_checkpoint
from tinyunet_deploy.artifacts.facts import NetworkFacts
from tinyunet_deploy.artifacts.network import make_network
from tinyunet_deploy.artifacts.sidecar import read_artifact
from tinyunet_deploy.backends.registry import open_backend
from tinyunet_deploy.cli import run, tinyunet
from tinyunet_deploy.contract import Contract
from tinyunet_deploy.data.encoding import write_png
from training.__main__ import training

NETWORK = REPOSITORY / "tinyunet_deploy/artifacts/network.py"
THROWAWAY = Architecture(encoder=(4, 8, 8), bottleneck=12, head=4)
"""A row that nobody ships: three pools instead of four, so another size multiple and reach."""


@pytest.fixture
def throwaway(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(NETWORKS, "throwaway", THROWAWAY)
    return "throwaway"


def classes_of_networks() -> set[str]:
    """Names of the classes of network.py, except the graph around any network."""
    tree = ast.parse(NETWORK.read_text())
    return {node.name for node in tree.body if isinstance(node, ast.ClassDef)} - {"DeployableGraph"}


def names_in(path: Path) -> set[str]:
    """Names that a file imports, reads or takes as an attribute."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Name):
            names.add(node.id)
        elif isinstance(node, ast.Attribute):
            names.add(node.attr)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names.add(node.value)  # an annotation in quotes, or getattr
    return names


def test_no_other_module_names_a_class_of_network() -> None:
    classes = classes_of_networks()
    assert "TinyUNet" in classes
    rooms = ("tinyunet_deploy", "export", "benchmarks", "training", "examples", "docs")
    files = [path for room in rooms for path in (REPOSITORY / room).rglob("*.py")]
    assert len(files) > 200
    guilty = {str(p): names_in(p) & classes for p in files if p != NETWORK}
    assert {path: names for path, names in guilty.items() if names} == {}


def test_a_network_is_added_by_a_row(
    throwaway: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.manual_seed(0)
    network = make_network(throwaway).eval()
    path = tmp_path / "net.safetensors"
    with pytest.raises(ValueError, match="not a multiple of 8"):
        save_checkpoint(path, network, Contract(60, 64), origin={})
    save_checkpoint(path, network, Contract(160, 168), origin={})
    loaded, sidecar = load_checkpoint(path)
    assert (loaded.name, sidecar.network) == (throwaway, NetworkFacts.of(throwaway))
    assert sidecar.network is not None
    assert (sidecar.network.size_multiple, sidecar.network.reach) == (8, THROWAWAY.reach)
    write_png(tmp_path / "large.png", part(0).repeat(3, 0).repeat(3, 1))
    out = tmp_path / "out"
    words = [str(tmp_path / "large.png"), "-m", str(path), "-o", str(out)]
    assert run(tinyunet, ["infer", *words]) == 0
    report = [json.loads(line) for line in (out / "report.jsonl").read_text().splitlines()]
    assert report[0]["fit"] == "tiled"
    notes = [record.getMessage() for record in caplog.records if "note:" in record.getMessage()]
    assert notes == ["note: images of another size than the model's: 1 inspected in tiles"]


def goes_every_path(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Train, export in all precisions, and run every gate with the same commands.

    After two steps all scores lie within a few steps of 255, so that rounding moves many across the
    threshold: a file in fp16 or int8 is written if it keeps the limits, else refused with figures.
    """
    data, test = folder / "data", folder / "data/Class1/Test"
    write_images(data)
    recipe = write_recipe(folder / "short.toml", f'steps = 2\nvariant = "{name}"')
    words = [str(recipe), "--data", str(data), "--output", str(folder / "run")]
    assert run(training, words) == 0
    checkpoint = folder / "run" / "checkpoint.safetensors"
    facts = NetworkFacts.of(name)
    assert read_artifact(checkpoint).sidecar.network == facts
    onnx_file = folder / "engines" / "net.onnx"
    files = []
    for precision in ("fp32", "fp16", "int8"):
        words = [str(checkpoint), "-o", str(onnx_file), "--precision", f"fp32,{precision}"]
        code = run(export, [*words, "--data", str(data)])
        told = capsys.readouterr().err
        path = onnx_file if precision == "fp32" else onnx_file.with_suffix(f".{precision}.onnx")
        if code == 0:
            sidecar = read_artifact(path).sidecar
            assert (sidecar.network, sidecar.precision) == (facts, precision)
            files.append(path)
        else:
            assert (code, path.exists()) == (6, False) and precision != "fp32", told
            assert "but must be" in told or "budget" in told, told
    large = folder / "large.png"
    write_png(large, part(0).repeat(3, 0).repeat(3, 1))
    model = ("-m", str(onnx_file))
    belt = ("--parts-per-minute", "60", "--deadline-ms", "900", "--seconds", "1", "--parts", "20")
    build = ("--flavour", "tensorrt_rtx", "--compute-capability", "8.6")
    for command in (
        ("verify", *files, "--strict"),
        ("evaluate", data, *model),
        ("parity", data, "-m", folder / "engines", "--batch-size", "2"),
        ("benchmark", test, *model, "--samples", "2", "--images", "2"),
        ("line-sim", test, *model, *belt),
        ("infer", large, *model, "-o", folder / "out"),
        ("build", onnx_file, "-o", folder / "plans", *build),
        ("triton", onnx_file, "-o", folder / "models"),
    ):
        codes = {0, 6} if command[0] == "parity" else {0}
        assert run(tinyunet, list(map(str, command))) in codes, capsys.readouterr().err
    report = (folder / "out" / "report.jsonl").read_text().splitlines()
    assert json.loads(report[0])["fit"] == "tiled"


@pytest.mark.nightly
@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_goes_every_path(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    goes_every_path(name, tmp_path, capsys)


@pytest.mark.nightly
def test_a_row_alone_goes_every_path(
    throwaway: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    goes_every_path(throwaway, tmp_path, capsys)
    with open_backend(tmp_path / "engines" / "net.onnx") as backend:
        assert backend.artifact.sidecar.network == NetworkFacts.of(throwaway)
