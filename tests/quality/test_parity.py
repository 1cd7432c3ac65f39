"""The parity gate on small data: what is green on every backend that runs here, and what is red."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tests.quality.conftest import PRECISIONS, SIZE, write_onnx
from tinyunet_deploy.artifacts.sidecar import (
    Decision,
    Sidecar,
    digest,
    read_sidecar,
    write_artifact,
    write_sidecar,
)
from tinyunet_deploy.backends.registry import open_backend
from tinyunet_deploy.cli import run, tinyunet
from tinyunet_deploy.contract import Contract
from tinyunet_deploy.data.encoding import write_png
from tinyunet_deploy.errors import DataError, RefusedError
from tinyunet_deploy.quality.dataset_scoring import image_digest
from tinyunet_deploy.quality.decision_check import DecisionCheck
from tinyunet_deploy.quality.parity import ArtifactParity, run_parity
from tinyunet_deploy.quality.parity_limits import read_limits
from tinyunet_deploy.quality.stored_scores import StoredScores


@contextlib.contextmanager
def compared(project: Path, *models: Path, **options: Any) -> Iterator[list[ArtifactParity]]:
    with StoredScores() as scores:
        result = run_parity(
            models or [project / "engines" / name for name in PRECISIONS.values()],
            project / "data",
            scores,
            **{"limits": read_limits(), "batch_size": 3, **options},
        )
        yield result.artifacts


@pytest.fixture(scope="module")
def comparisons(project: Path) -> Iterator[dict[tuple[str, str], ArtifactParity]]:
    with compared(project) as found:
        yield {(c.sidecar.precision, c.backend): c for c in found}


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_every_artifact_on_every_backend_is_green(
    comparisons: dict[tuple[str, str], ArtifactParity], precision: str, backend: str
) -> None:
    found = comparisons[precision, backend]
    assert found.skipped is None
    assert found.outcome == "green", [check for check in found.checks if not check.holds]
    comparison = found.comparison
    assert comparison.images == 6
    assert comparison.histogram.sum() == 6 * SIZE * SIZE
    assert comparison.union_px > 300
    assert len(comparison.ious) == 3
    assert found.batch is not None and found.batch.largest == 3


def test_int8_is_really_rounded(comparisons: dict[tuple[str, str], ArtifactParity]) -> None:
    assert comparisons["int8", "onnxruntime"].figures["largest_steps"] > 1
    assert comparisons["fp32", "onnxruntime"].figures["largest_steps"] <= 1


# --- the red --------------------------------------------------------------------------------------


Tamper = Callable[[onnx.ModelProto], None]


def initializer(model: onnx.ModelProto, wanted: Callable[[Any], bool]) -> onnx.TensorProto:
    found = [tensor for tensor in model.graph.initializer if wanted(tensor)]
    assert found
    return found[0]


def change(tensor: onnx.TensorProto, edit: Callable[[Any], Any]) -> None:
    values = onnx.numpy_helper.to_array(tensor).copy()
    tensor.CopyFrom(
        onnx.numpy_helper.from_array(np.asarray(edit(values), values.dtype), tensor.name)
    )


def one_weight(model: onnx.ModelProto) -> None:
    def edit(values: Any) -> Any:
        values[0, 0, 1, 1] *= 1.1
        return values

    change(initializer(model, lambda t: t.name.endswith("encoder.0.0.weight")), edit)


def normalization(model: onnx.ModelProto) -> None:
    def is_scale(tensor: onnx.TensorProto) -> bool:
        values = onnx.numpy_helper.to_array(tensor)
        return values.size == 1 and bool(np.isclose(values, 1 / 127.5).all())

    change(initializer(model, is_scale), lambda values: values * 127.5 / 120.0)


def qdq_scale(model: onnx.ModelProto) -> None:
    last = [node for node in model.graph.node if node.op_type == "Conv"][-1]
    quantizer = next(node for node in model.graph.node if last.input[0] in node.output)
    assert quantizer.op_type == "DequantizeLinear"
    scale = onnx.TensorProto()
    scale.CopyFrom(initializer(model, lambda t: t.name == quantizer.input[1]))
    scale.name = quantizer.input[1] = "tampered"  # all activations share one
    change(scale, lambda values: values * 0.5)
    model.graph.initializer.append(scale)


def grey(model: onnx.ModelProto) -> None:
    subtract = next(node for node in model.graph.node if node.op_type == "Sub")
    change(initializer(model, lambda t: t.name == subtract.input[1]), lambda values: values + 20)


@pytest.mark.parametrize(
    ("precision", "tamper", "stage"),
    [
        ("fp32", one_weight, "logits"),
        ("fp32", normalization, "graph input"),
        ("int8", qdq_scale, "logits"),
        ("int8", grey, "graph input"),
    ],
)
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_tampered_file_is_red_even_with_a_matching_sidecar(
    project: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    precision: str,
    tamper: Tamper,
    stage: str,
    backend: str,
) -> None:
    source = project / "engines" / PRECISIONS[precision]
    sidecar = read_sidecar(source)
    model = onnx.load(source)
    tamper(model)
    assert sidecar.parent is not None
    tampered = tmp_path / source.name
    write_onnx(tampered, model.SerializeToString(), precision, sidecar.parent)
    command = [
        "parity",
        str(project / "data"),
        "--model",
        str(tampered),
        "--backend",
        backend,
    ]
    command += ["--reference", str(project / "engines" / "net.safetensors")]
    command += ["--explain", "--format", "json"]
    assert run(tinyunet, command) == 6
    told = capsys.readouterr()
    assert str(tampered) in told.err and "but must be" in told.err
    (found,) = json.loads(told.out)["comparisons"]
    assert found["outcome"] == "red"
    assert found["explanation"]["first"] == stage


def test_record_writes_the_batch_and_larger_ones_are_refused(project: Path, tmp_path: Path) -> None:
    for name in ("net.safetensors", "net.onnx"):
        for suffix in ("", ".json"):
            shutil.copy(project / "engines" / (name + suffix), tmp_path)
    model = tmp_path / "net.onnx"
    command = ["parity", str(project / "data"), "--model", str(model), "--batch-size", "2"]
    command += ["--record", "--backend", "onnxruntime"]
    assert run(tinyunet, command) == 0
    assert read_sidecar(model).verified_batch == 2
    with open_backend(model, "onnxruntime") as backend:
        assert backend.max_batch == 2
        with pytest.raises(ValueError, match=r"1\.\.2"):
            backend.run(np.zeros((3, 1, SIZE, SIZE), np.uint8))
    command[command.index("--batch-size") + 1] = "5"
    assert run(tinyunet, command) == 0
    assert read_sidecar(model).verified_batch == 5


def test_a_folder_without_truth_and_what_cannot_run(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = project / "data" / "Class1" / "Test"
    command = ["parity", str(folder), "-m", str(project / "engines" / "net.onnx")]
    command += ["--device", "cpu", "--device", "cuda:7", "--backend", "openvino"]
    command += ["--format", "json"]
    assert run(tinyunet, command) == 0
    fields = json.loads(capsys.readouterr().out)
    ran, skipped = fields["comparisons"]
    assert not fields["truth"] and ran["iou_drop"] is None and ran["outcome"] == "green"
    assert skipped["outcome"] == "skipped" and "cuda:7" in skipped["skipped"]
    assert run(tinyunet, [*command[:3], command[3], "--device", "cuda:7"]) == 5


def test_without_a_checkpoint_there_is_no_reference(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for suffix in ("", ".json"):
        shutil.copy(project / "engines" / f"net.onnx{suffix}", tmp_path)
    assert run(tinyunet, ["parity", str(project / "data"), "-m", str(tmp_path)]) == 4
    assert "--reference" in capsys.readouterr().err


def test_images_without_content_are_refused(project: Path, tmp_path: Path) -> None:
    """Every file answers alike on them."""
    write_png(tmp_path / "a.png", np.full((SIZE, SIZE), 80, np.uint8))
    with StoredScores() as scores, pytest.raises(DataError, match="grey value 80 throughout"):
        model = project / "engines" / PRECISIONS["fp32"]
        run_parity([model], tmp_path, scores, limits=read_limits())


def test_an_unusable_mask_ends_it_with_exit_code_4_and_the_reason(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is not the fault of a backend, of which the next one might do better."""
    rng = np.random.default_rng(0)
    mask = np.zeros((SIZE, SIZE + 1), np.uint8)
    mask[9:19, 9:19] = 255
    for folder, pixels in (
        ("images", rng.integers(0, 99, (SIZE, SIZE), np.uint8)),
        ("masks", mask),
    ):
        (tmp_path / folder).mkdir()
        write_png(tmp_path / folder / "a.png", pixels)
    model = project / "engines" / PRECISIONS["fp32"]
    command = ["parity", str(tmp_path), "-m", str(model), "--backend", "onnxruntime"]
    assert run(tinyunet, command) == 4
    line = f"error: {tmp_path}/masks/a.png: is {SIZE + 1}x{SIZE} pixels, but its image is"
    assert capsys.readouterr().err.splitlines()[-1].startswith(line)


@pytest.mark.parametrize("damage", ["[" * 100_000, '{"kind": 1, "kind": 2}', "\ufeff{}"])
def test_a_damaged_sidecar_does_not_hide_its_neighbours(
    damage: str, project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are compared; the damaged one is named, and the exit code is not 0."""
    models = tmp_path / "engines"
    shutil.copytree(project / "engines", models)
    (models / "a.onnx").write_bytes(b"x")
    (models / "a.onnx.json").write_text(damage)
    out = tmp_path / "out"
    command = ["parity", str(project / "data"), "-m", str(models), "--backend", "onnxruntime"]
    assert run(tinyunet, [*command, "-o", str(out), "--format", "json"]) == 4
    written = capsys.readouterr()
    fields = json.loads(written.out)
    assert {c["model"]: c["outcome"] for c in fields["comparisons"]} == dict.fromkeys(
        PRECISIONS.values(), "green"
    )
    assert [refused["model"] for refused in fields["refused"]] == ["a.onnx.json"]
    assert f"refused: {models / 'a.onnx.json'}: is not a " in written.err
    assert written.err.splitlines()[-1].startswith(f"error: {models / 'a.onnx.json'}: is not a ")
    suites = {suite.get("name"): suite for suite in ET.parse(out / "parity.xml").getroot()}
    assert suites["a.onnx.json"].get("errors") == "1"
    for name in PRECISIONS.values():
        (models / name).unlink()
    assert run(tinyunet, command) == 4, "nothing else is there"


def test_the_total_is_met_also_when_a_backend_cannot_run(project: Path) -> None:
    totals: list[int] = []
    counts: list[int] = []
    model = project / "engines" / PRECISIONS["fp32"]
    with compared(
        project,
        model,
        backends=["onnxruntime", "onnxruntime-tensorrt"],
        progress=lambda _, count: counts.append(count),
        on_total=totals.append,
    ) as rows:
        assert [row.skipped is None for row in rows] == [True, False]
    assert totals == [3 * 6]
    assert sum(counts) == 18


def test_without_onnx_only_the_stages_inside_a_graph_are_unknown(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    model = project / "engines" / PRECISIONS["fp16"]
    with compared(project, model, backends=["onnxruntime"], with_explanation=True) as (row,):
        assert row.skipped is None and row.explanation is not None
        known = {stage.stage: stage.difference is not None for stage in row.explanation.stages}
    assert known == {
        "decoded bytes": True,
        "graph input": False,
        "logits": False,
        "score": True,
        "mask": True,
    }


# --- the rule for verdicts ------------------------------------------------------------------------


def test_a_file_that_was_not_changed_with_its_reference_is_red(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`tune` changes one file: its sibling keeps the old rule, by which the station then judges."""
    for name in ("net.onnx", "net.int8.onnx"):
        for suffix in ("", ".json"):
            shutil.copy(project / "engines" / (name + suffix), tmp_path)
    tuned, sibling = tmp_path / "net.onnx", tmp_path / "net.int8.onnx"
    sidecar = read_sidecar(tuned)
    chosen = dataclasses.replace(sidecar, threshold=0.4, min_area=48, tuned_on=("0" * 16,))
    write_sidecar(tuned, chosen)
    out = tmp_path / "out"
    command = ["parity", str(project / "data"), "-m", str(sibling), "--reference", str(tuned)]
    command += ["--backend", "onnxruntime"]
    assert run(tinyunet, [*command, "-o", str(out)]) == 6
    told = capsys.readouterr()
    rules = "decides by threshold 0.5, min_area 8 px, but its reference net.onnx by threshold 0.4, "
    assert f"another rule: net.int8.onnx {rules}min_area 48 px\n" in told.out
    assert f"error: {sibling}: {rules}min_area 48 px (tinyunet tune DATA -m CHECKPOINT" in told.err
    assert "by one rule: --threshold 0.4 --min-area 48" in told.err
    (found,) = json.loads((out / "parity.json").read_text())["comparisons"]
    assert (found["outcome"], found["threshold"], found["min_area_px"]) == ("red", 0.5, 8)
    assert not found["decides_alike"] and all(check["holds"] for check in found["checks"])
    (suite,) = ET.parse(out / "parity.xml").getroot()
    assert (suite.get("failures"), suite[0].get("name")) == ("1", "decision")
    assert int(suite.get("tests", 0)) == len(suite)
    assert run(tinyunet, [*command, "--threshold", "0.4", "--min-area", "48"]) == 0
    assert "another rule" not in capsys.readouterr().out
    other = {"reference": tuned, "backends": ["onnxruntime"], "other_network": True}
    with compared(project, sibling, **other) as (row,):
        assert row.decides_alike, "each decides by its own rule"


@pytest.mark.parametrize(
    ("threshold", "min_area", "holds"),
    [(0.5, 8, True), (0.5001, 8, True), (0.51, 8, False), (0.5, 9, False)],
)
def test_rules_that_judge_every_score_alike_are_one(
    threshold: float, min_area: int, holds: bool
) -> None:
    check = DecisionCheck(Decision(threshold, min_area), Decision(0.5, 8), "net.onnx")
    assert check.holds is holds


def test_the_hint_keeps_the_rule_that_was_chosen() -> None:
    rules = Decision(0.9, 48), Decision(0.5, 1), "net.onnx"
    for tuned_alone, options in (
        (False, "--threshold 0.5 --min-area 1"),
        (True, "--threshold 0.9 --min-area 48"),
    ):
        check = DecisionCheck(*rules, adopted=True, tuned_alone=tuned_alone)
        assert check.hint == f"tinyunet adopt the original again with {options}"


# --- images of any size ---------------------------------------------------------------------------


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """A data set of own images: one of the models' size, two smaller, two larger, and its masks."""
    rng = np.random.default_rng(4)
    for number, (height, width) in enumerate([(64, 64), (40, 50), (64, 63), (150, 130), (65, 20)]):
        image = rng.integers(40, 90, (height, width), dtype=np.uint8)
        mask = np.zeros((height, width), np.uint8)
        if number % 2:
            mask[height - 30 : height - 15, 6:18] = 255
            image[mask > 0] = 220
        for folder, pixels in (("images", image), ("masks", mask)):
            (tmp_path / "mixed" / folder).mkdir(parents=True, exist_ok=True)
            write_png(tmp_path / "mixed" / folder / f"{number}.png", pixels)
    return tmp_path / "mixed"


def test_images_of_any_size_are_compared_on_the_same_tiles(
    project: Path,
    mixed: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The files' sidecars say nothing of the network: the tiles are those of the checkpoint."""
    command = ["parity", str(mixed), "-m", str(project / "engines"), "-o", str(tmp_path / "out")]
    assert run(tinyunet, [*command, "--explain", "--format", "json"]) == 0
    fields = json.loads(capsys.readouterr().out)
    assert (fields["images"], fields["padded"], fields["tiled"]) == (5, 2, 2)
    assert fields["approximate"] == 2, "tiles of 64 pixels are too small for this network"
    assert "2 padded by mirroring, 2 inspected in tiles" in fields["notes"][0]
    assert [record.getMessage() for record in caplog.records] == [
        f"note: {note}" for note in fields["notes"]
    ]
    for comparison in fields["comparisons"]:
        if comparison["outcome"] != "skipped":
            assert comparison["outcome"] == "green"
            assert comparison["batches"]["sizes"] == [4]
            stages = comparison["explanation"]["largest_difference"]
            assert stages["decoded bytes"] == 0
            assert comparison["union_px"] > 200
            assert comparison["largest_steps"] >= stages["score"]
    assert {c["backend"] for c in fields["comparisons"]} >= {"onnxruntime", "openvino"}


def test_a_model_without_facts_is_run_on_the_tiles_of_the_reference(
    tiny_onnx: Path, mixed: Path
) -> None:
    """On its own tiles, which start on another grid, the untrained network has other scores."""
    assert read_sidecar(tiny_onnx).network is None
    with StoredScores() as scores:
        result = run_parity(
            [tiny_onnx], mixed, scores, limits=read_limits(), backends=["onnxruntime"]
        )
    (row,) = result.artifacts
    assert (result.tally.tiled, row.figures["largest_steps"]) == (2, pytest.approx(0, abs=1))


def test_the_tile_that_differs_most_is_explained(project: Path, tmp_path: Path) -> None:
    """At the right of a wide image, whose other tiles are dark and do not differ."""
    image = np.full((64, 300), 30, np.uint8)
    image[20:40, 260:290] = np.random.default_rng(7).integers(60, 220, (20, 30))
    write_png(tmp_path / "a.png", image)
    model = project / "engines" / PRECISIONS["int8"]
    with StoredScores() as scores:
        options = {"backends": ["onnxruntime"], "with_explanation": True}
        result = run_parity([model], tmp_path, scores, limits=read_limits(), **options)
    (row,) = result.artifacts
    assert row.explanation is not None
    stages = {stage.stage: stage.difference for stage in row.explanation.stages}
    assert row.figures["largest_steps"] > 1
    assert stages["score"] == row.figures["largest_steps"]


def test_no_tile_compares_images_of_the_models_size_alone(
    project: Path, mixed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = project / "engines" / PRECISIONS["fp32"]
    command = ["parity", str(mixed), "-m", str(model), "--backend", "openvino", "--no-tile"]
    assert run(tinyunet, [*command, "--format", "json"]) == 3
    fields = json.loads(capsys.readouterr().out)
    assert (fields["images"], fields["padded"], fields["tiled"]) == (1, 0, 0)
    assert {skipped["reason"] for skipped in fields["skipped"]} == {"wrong-size"}
    for name in ("images", "masks"):
        (mixed / name / "0.png").unlink()
    assert run(tinyunet, command) == 4
    assert "has no usable image" in capsys.readouterr().err


def test_another_network_is_held_against_its_teacher(project: Path, tmp_path: Path) -> None:
    """The same weights with a threshold so high that nothing is found: every defect is lost."""
    data = (project / "engines/net.onnx").read_bytes()
    image = next((project / "data/Class1/Test").glob("*.PNG"))
    models = {}
    for name, fields in (
        ("alike", {"threshold": 0.5, "min_area": 8}),
        ("blind", {"threshold": 1.0, "min_area": 8}),
        ("seen", {"trained_on": (image_digest(image),)}),
    ):
        models[name] = tmp_path / f"{name}.onnx"
        sidecar = Sidecar("onnx", "fp32", digest(data), None, Contract(SIZE, SIZE), **fields)
        write_artifact(models[name], data, sidecar)
    options = {
        "reference": project / "engines/net.safetensors",
        "backends": ["onnxruntime"],
        "other_network": True,
    }
    with compared(project, models["alike"], models["blind"], **options) as (alike, blind):
        checks = [check.limit.figure for check in alike.checks]
        assert checks == ["new_alarms", "lost_defective", "iou_drop"]
        assert (alike.outcome, blind.outcome) == ("green", "red")
        assert alike.figures["lost_defective"] == 0 and blind.figures["lost_defective"] == 3
    with (
        pytest.raises(RefusedError, match="was trained on 1 of these 6 images"),
        compared(project, models["seen"], **options),
    ):
        pass
