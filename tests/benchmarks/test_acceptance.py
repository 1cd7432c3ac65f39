from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from benchmarks.acceptance import acceptance
from benchmarks.page_tables import accuracy
from tests.quality.acceptance.evidence import accepted
from tests.quality.acceptance.test_result_and_page import picture, write
from tinyunet_deploy.cli import run


def test_the_verdicts_of_two_tests_are_kept_without_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = []
    for name, evidence in (
        ("one", accepted()),
        ("two", dataclasses.replace(accepted(), line=None)),
    ):
        (tmp_path / name).mkdir()
        words.append(str(write(tmp_path / name, evidence, picture("near escape"))))
    output = tmp_path / "acceptance.json"
    assert run(acceptance, [*words, "-o", str(output)]) == 0
    text = output.read_text()
    assert "jpeg" not in text and str(tmp_path) not in text
    monkeypatch.setattr(accuracy, "read_result", lambda _: json.loads(text))
    head, *rows = accuracy.acceptance()
    assert head == ["requirement", *["net.onnx: 1900 good, 100 defective parts"] * 2]
    assert ["Escapes", "met", "met"] in rows
    assert ["Line speed", "met", "not shown"] in rows
    assert rows[-1] == ["the page says", "MAY RUN", "NOT SHOWN YET"]
