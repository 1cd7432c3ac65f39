"""``import tinyunet_deploy as td``: its names, its examples, and what the import costs."""

from __future__ import annotations

import doctest
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import tinyunet_deploy as td
from tinyunet_deploy.api import folders, measurements, model


@pytest.mark.parametrize("module", [td, model, folders, measurements])
def test_the_examples_of_the_docstrings_run_as_they_are_written(
    module: object, example_folder: Path
) -> None:
    with td.load() as loaded:
        names = {"td": td, "model": loaded, "threading": threading}
        outcome = doctest.testmod(module, globs=names)  # type: ignore[arg-type]
    assert outcome.failed == 0
    assert outcome.attempted >= 2


def test_the_public_names_are_sorted_and_there() -> None:
    assert td.__all__ == sorted(td.__all__)
    assert set(td.__all__) <= set(dir(td))
    assert all(getattr(td, name) is not None for name in td.__all__)
    with pytest.raises(AttributeError, match="'tinyunet_deploy' has no attribute 'laod'"):
        td.laod  # noqa: B018


def test_importing_the_package_imports_next_to_nothing() -> None:
    program = "import sys, tinyunet_deploy; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    assert not loaded & {"numpy", "cv2", "click", "torch", "onnxruntime", "openvino"}
