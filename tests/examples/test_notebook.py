"""The notebook: it is kept without outputs, and runs from the first cell to the picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPOSITORY

NOTEBOOK = REPOSITORY / "examples" / "notebook" / "training_to_picture.ipynb"
CELLS = json.loads(NOTEBOOK.read_text())["cells"]
CODE = ["".join(cell["source"]) for cell in CELLS if cell["cell_type"] == "code"]


def test_it_is_kept_without_outputs_and_its_cells_are_python() -> None:
    for cell in CELLS:
        if cell["cell_type"] == "code":
            assert (cell["outputs"], cell["execution_count"]) == ([], None)
    for code in CODE:
        compile(code, str(NOTEBOOK), "exec")


@pytest.mark.nightly
def test_it_runs_from_training_to_a_picture_of_a_defect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = tmp_path / "examples"
    examples.mkdir()
    (tmp_path / "training").symlink_to(REPOSITORY / "training")
    monkeypatch.chdir(examples)
    namespace: dict[str, Any] = {}
    exec(CODE[0], namespace)
    namespace["repository"] = REPOSITORY
    for code in CODE[1:]:
        exec(code, namespace)
    total = namespace["total"]
    assert total.images == 40
    assert total.iou_defective > 0.2, "it has learned something"
    assert namespace["picture"].mode == "RGB"
    assert namespace["picture"].size[0] >= 256
    namespace["model"].close()
