from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from benchmarks import acceptance
from benchmarks.acceptance import (
    AcceptanceTest,
    SyntheticLine,
    accept_all,
    kept_verdicts,
    make_line,
)
from benchmarks.page_tables import accuracy
from tests.quality.acceptance.evidence import accepted
from tests.quality.acceptance.test_result_and_page import picture, write
from tests.quality.conftest import CONTRACT, SIZE, brightness_network
from tinyunet_deploy.artifacts.sidecar import Sidecar, digest, write_artifact
from tinyunet_deploy.data.layouts import read_dataset

SMALL = SyntheticLine(parts=24, defective=0.25, inspected=20, photographed=8, size=SIZE)


def test_the_verdicts_of_two_tests_are_kept_without_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = []
    for name, evidence in (
        ("one", accepted()),
        ("two", dataclasses.replace(accepted(), line=None)),
    ):
        (tmp_path / name).mkdir()
        results.append(write(tmp_path / name, evidence, picture("near escape")))
    text = json.dumps(kept_verdicts(results))
    assert "jpeg" not in text and str(tmp_path) not in text
    monkeypatch.setattr(accuracy, "read_result", lambda _: json.loads(text))
    head, *rows = accuracy.acceptance()
    assert head == ["requirement", *["net.onnx: 1900 good, 100 defective parts"] * 2]
    assert ["Escapes", "met", "met"] in rows
    assert ["Line speed", "met", "not shown"] in rows
    assert rows[-1] == ["the page says", "MAY RUN", "NOT SHOWN YET"]


def test_the_line_is_made_once_and_what_was_interrupted_is_made_again(tmp_path: Path) -> None:
    half = tmp_path / "synthetic-photographs.unfinished" / "synthetic,9"
    half.mkdir(parents=True)
    data, others, photographs = make_line(tmp_path, SMALL)
    items = {i.image.stem: i for i in read_dataset(data).items if i.split == "test"}
    assert (len(items), sum(i.defective for i in items.values())) == (24, 6)
    assert len(list(others.glob("*.PNG"))) == 20
    folders = sorted(photographs.iterdir())
    assert [folder.name for folder in folders] == ["synthetic,1", "synthetic,2", "synthetic,3"]
    names = [[path.name for path in sorted(folder.iterdir())] for folder in folders]
    assert names[0] == names[1] == names[2] and len(names[0]) == 8
    assert sum(items[Path(name).stem].defective for name in names[0]) == 4
    assert len({(folder / names[0][0]).read_bytes() for folder in folders}) == 3
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    make_line(tmp_path, SMALL)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == times


@pytest.mark.nightly
def test_a_model_gets_all_evidence_and_is_judged_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from export.graph import onnx_graph

    graph = onnx_graph(brightness_network(), CONTRACT)
    model = tmp_path / "net.onnx"
    write_artifact(model, graph, Sidecar("onnx", "fp32", digest(graph), None, CONTRACT))
    data, others, photographs = make_line(tmp_path, SMALL)
    declared = (data / "Class1" / "Train",)
    tests = [
        AcceptanceTest(model, data, others, photographs, declared, 60_000, 1000),
    ]
    results = accept_all(tests, tmp_path)
    evidence = json.loads(results[0].read_text())["evidence"]
    assert evidence["line"]["parts"] >= 2995
    assert evidence["drift"]["comparison"]["images_before"] == 20
    assert (evidence["repeatability"]["parts"], evidence["repeatability"]["simulated"]) == (
        8,
        False,
    )
    assert evidence["seen"]["known"] and evidence["seen"]["images"] == 24

    def never(_: object) -> None:
        raise AssertionError("was measured again")

    monkeypatch.setattr(acceptance, "_run", never)
    assert accept_all(tests, tmp_path) == results
    (tmp_path / "other").mkdir()
    with pytest.raises(AssertionError, match="measured again"):
        accept_all(tests, tmp_path / "other")
