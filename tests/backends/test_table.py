from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import sys
import types
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinyunet_deploy as td
from tinyunet_deploy.artifacts.sidecar import KINDS, Artifact
from tinyunet_deploy.backends import table
from tinyunet_deploy.backends.base import Backend, Run
from tinyunet_deploy.backends.registry import default_model, open_backend
from tinyunet_deploy.backends.table import (
    BACKENDS,
    GROUP,
    BackendRow,
    backend_names,
    backend_rows,
    default_device,
    find_row,
    rows_for,
    why_not,
)
from tinyunet_deploy.cli import run, tinyunet
from tinyunet_deploy.contract import Batch
from tinyunet_deploy.errors import RefusedError, RuntimeUnavailable


class Inverting(Backend):
    """A backend of another package."""

    name = "inverting"

    @property
    def versions(self) -> dict[str, str]:
        return {"inverting": "1"}

    def _run(self, image: Batch) -> Run:
        return Run(255 - image, 0.1)


class Failing(Inverting):
    name = "failing"

    def __init__(self, artifact: Artifact, device: str = "cpu") -> None:
        raise KeyError("no such symbol")


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Install entry points: name -> object, or the exception that loading it raises."""

    def do(**objects: object) -> None:
        module = types.ModuleType("another_package")
        sys.modules[module.__name__] = module
        monkeypatch.setitem(sys.modules, module.__name__, module)
        for name, value in objects.items():
            if not isinstance(value, BaseException):
                setattr(module, name, value)

        class Entry(EntryPoint):
            def load(self) -> Any:
                value = objects[self.name]
                if isinstance(value, BaseException):
                    raise value
                return super().load()

        entries = [Entry(name, f"another_package:{name}", GROUP) for name in objects]
        monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: entries)

    return do


@pytest.mark.parametrize("row", BACKENDS.values(), ids=BACKENDS)
def test_a_row_tells_the_truth_about_its_class(row: BackendRow) -> None:
    if why_not(row) is not None and "cpu" not in row.devices:
        pytest.skip(str(why_not(row)))
    assert row.load_class().name == row.name
    assert (row.compute is None) == (row.runtime == "")
    assert row.compute is None or not row.unasked, "no one gets rounded numbers unasked"
    assert row.kinds and set(row.kinds) <= set(KINDS.values())
    assert row.sandbox in BACKENDS


def test_preferences_are_the_order_of_the_table_and_no_two_are_equal() -> None:
    preferences = [row.preference for row in BACKENDS.values()]
    assert preferences == sorted(set(preferences))


@pytest.mark.parametrize("kind", KINDS.values())
def test_each_kind_has_a_backend_that_may_run_unasked(kind: Any) -> None:
    assert rows_for(kind, unasked_only=True)


def test_rows_are_chosen_by_kind_and_device() -> None:
    names = [row.name for row in rows_for("onnx", "cpu", unasked_only=True)]
    assert names == ["openvino", "onnxruntime"]
    assert [row.name for row in rows_for("onnx", "cuda:1")] == [
        "onnxruntime",
        "onnxruntime-tensorrt",
    ]
    assert [row.name for row in rows_for("onnx", "cuda:1", unasked_only=True)] == ["onnxruntime"]
    with pytest.raises(RuntimeUnavailable, match="is not a device"):
        rows_for("onnx", "tpu")


def test_the_default_device_is_the_gpu_for_what_needs_one() -> None:
    assert default_device("plan") == "cuda:0"
    assert default_device("onnx") == default_device("checkpoint") == "cpu"
    assert default_device("onnx", "onnxruntime") == "cpu"
    assert default_device("onnx", "onnxruntime-tensorrt") == "cuda:0"


def test_the_default_model_fits_the_backend() -> None:
    assert default_model().suffix == ".onnx"
    assert default_model(find_row("torch")).suffix == ".safetensors"


def test_an_unknown_name_says_which_are_known() -> None:
    with pytest.raises(RefusedError, match=r"none: is not a backend \(known: openvino, "):
        open_backend(backend="none")


# --- backends of other packages -------------------------------------------------------------------


def test_a_class_of_the_caller_runs(tiny_onnx: Path) -> None:
    with td.load(tiny_onnx, backend=Inverting) as model:
        image = np.full((1, 64, 64), 9, np.uint8)
        assert np.array_equal(model(image), 255 - image)


def test_a_class_runs_only_what_its_row_says(tiny_onnx: Path, tiny_checkpoint: Path) -> None:
    with pytest.raises(RefusedError, match="which inverting does not run"):
        open_backend(tiny_checkpoint, Inverting)
    with pytest.raises(RuntimeUnavailable, match=r"use --device cpu\)"):
        open_backend(tiny_onnx, Inverting, "cuda:0")
    row = BackendRow("inverting", Inverting, kinds=("checkpoint",), devices=("cuda",))
    assert open_backend(tiny_checkpoint, row).device == "cuda:0"


def test_what_a_foreign_constructor_raises_is_an_error_of_that_backend(tiny_onnx: Path) -> None:
    with pytest.raises(RuntimeUnavailable, match=r"^failing: cannot load .*no such symbol"):
        open_backend(tiny_onnx, Failing)


def test_an_entry_point_names_a_row_or_a_class(install: Any, tiny_onnx: Path) -> None:
    install(inverting=BackendRow("inverting", Inverting, devices=("cpu", "cuda")))
    assert backend_names() == [*BACKENDS, "inverting"]
    assert find_row("inverting").devices == ("cpu", "cuda")
    assert open_backend(tiny_onnx, "inverting").name == "inverting"
    install(inverting=Inverting)
    assert open_backend(tiny_onnx, "inverting").name == "inverting"


def test_another_package_never_runs_unless_asked_for(install: Any, tiny_onnx: Path) -> None:
    install(inverting=Inverting)
    assert open_backend(tiny_onnx).name == "openvino"
    install(inverting=BackendRow("inverting", Inverting, preference=1, unasked=True))
    assert open_backend(tiny_onnx).name == "inverting", "unless its row says so"


def test_another_package_never_takes_a_name_of_ours(install: Any, tiny_onnx: Path) -> None:
    install(openvino=BackendRow("openvino", Inverting, preference=1, unasked=True))
    assert backend_rows() == list(BACKENDS.values())
    assert type(open_backend(tiny_onnx, "openvino")).__name__ == "OpenVINOBackend"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (ImportError("libfoo.so: not found"), "libfoo.so: not found"),
        (SystemExit(3), "SystemExit"),
        (BackendRow("other", Inverting), "its row is called 'other'"),
        (object(), "has no attribute 'name'"),
    ],
    ids=["import", "exit", "name", "object"],
)
def test_a_broken_entry_point_does_not_run_here_and_breaks_nothing(
    install: Any,
    value: object,
    reason: str,
    tiny_onnx: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    install(broken=value)
    assert open_backend(tiny_onnx).name == "openvino"
    assert reason in (why_not("broken") or "")
    with pytest.raises(RuntimeUnavailable, match=r"^broken: its entry point another_package:"):
        open_backend(tiny_onnx, "broken")
    assert run(tinyunet, ["doctor", "--format", "json"]) == 0
    reports = {r["backend"]: r for r in json.loads(capsys.readouterr().out)["backends"]}
    assert reports["openvino"]["runs"] and not reports["broken"]["runs"]
    assert reason in reports["broken"]["reason"]


def test_a_check_that_raises_and_a_class_that_fails_show_in_doctor(
    install: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    def check(row: BackendRow) -> str | None:
        raise ZeroDivisionError

    class Raising(Inverting):
        name = "raising"

        def _run(self, image: Batch) -> Run:
            raise IndexError("a bug of theirs")

    row = BackendRow("unchecked", Inverting, obstacle=check)
    install(unchecked=row, raising=Raising, failing=Failing)
    assert run(tinyunet, ["doctor", "--format", "json"]) == 0
    reports = {r["backend"]: r for r in json.loads(capsys.readouterr().out)["backends"]}
    assert "the check of unchecked fails: ZeroDivisionError" in reports["unchecked"]["reason"]
    assert "a bug of theirs" in reports["raising"]["reason"]
    assert "no such symbol" in reports["failing"]["reason"]


def test_a_missing_package_of_another_package_is_named() -> None:
    row = BackendRow("theirs", "theirs.backend:Theirs", modules=("no_such_runtime",))
    assert why_not(row) == "no_such_runtime is not installed: pip install no_such_runtime"
    row = dataclasses.replace(row, modules=())
    with pytest.raises(RuntimeUnavailable, match="installed but cannot be imported"):
        row.load_class()
    assert table.find_row(row) is row
