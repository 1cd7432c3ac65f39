"""A real model on a real line of small parts, accepted, and then made worse one way at a time."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import helper, numpy_helper

from export.calibrate import histograms, ranges
from export.equalize import in_steps
from export.quantize import quantize
from tests.foreign_networks import rgb_logits
from tests.quality.acceptance.evidence import accepted
from tests.quality.conftest import CONTRACT, SIZE, brightness_network
from tinyunet_deploy.artifacts.adoption.form import NORMALIZATIONS
from tinyunet_deploy.artifacts.checkpoint import save_checkpoint
from tinyunet_deploy.artifacts.golden import write_golden
from tinyunet_deploy.artifacts.sidecar import (
    Sidecar,
    digest,
    read_sidecar,
    write_artifact,
    write_sidecar,
)
from tinyunet_deploy.backends.registry import open_backend
from tinyunet_deploy.cli import tinyunet
from tinyunet_deploy.data.encoding import write_png
from tinyunet_deploy.host import describe_machine
from tinyunet_deploy.quality.acceptance.artifact_checks import check_parity
from tinyunet_deploy.quality.acceptance.comparison_evidence import (
    ArtifactComparison,
    compare_artifact,
)
from tinyunet_deploy.quality.acceptance.evidence import ModelFacts
from tinyunet_deploy.quality.acceptance.requirements import DEFAULTS, read_requirements
from tinyunet_deploy.quality.adoption import AdoptionOptions, adopt
from tinyunet_deploy.quality.dataset_scoring import image_digest
from tinyunet_deploy.quality.scored_by import ScoredBy
from tinyunet_deploy.quality.shadow.report import ChallengerLatency, ShadowFlip, ShadowReport

REQUIREMENTS = """
[escapes]
max_rate = 0.3
[overkills]
max_rate = 0.3
[repeatability]
min_agreement = 0.8
"""


def write_parts(
    root: Path, good: int, defective: int, *, light: float = 1.0, seed: int = 3
) -> None:
    """Write parts whose defects are bright spots; `light` scales every grey value."""
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    random = np.random.default_rng(seed)
    for number in range(good + defective):
        noise = random.normal(0, 60, (SIZE, SIZE)).astype(np.float32)
        image = cv2.GaussianBlur(noise, (0, 0), 2) + 70
        mask = np.zeros((SIZE, SIZE), np.uint8)
        if number >= good:
            center = tuple(int(place) for place in random.integers(18, 46, 2))
            cv2.circle(mask, center, 9, 255, -1)
            image += cv2.GaussianBlur(mask, (0, 0), 2) * 0.6
        write_png(
            root / "images" / f"{number:03}.png", np.clip(light * image, 0, 255).astype(np.uint8)
        )
        write_png(root / "masks" / f"{number:03}.png", mask)


def write_line(path: Path, model: Path, **outcome: Any) -> None:
    """Write a result as line-sim writes it, of 5,000 parts without a miss."""
    figures = {"parts": 5000, "missed": 0, "miss_rate": 0.0, "miss_rate_bound": 0.0006}
    fields = {
        "kind": "line-sim",
        "mode": "live",
        "model_sha256": read_sidecar(model).sha256,
        "backend": "onnxruntime",
        "device": "cpu",
        "machine": describe_machine(),
        "line": {"parts_per_minute": 600.0, "deadline_ms": 150.0},
        "outcome": {**figures, "p50_ms": 3.0, "p99_ms": 4.0, **outcome},
        "fastest_shown_parts_per_minute": 900.0,
    }
    path.write_text(json.dumps(fields))


def write_shadow(path: Path, model: Path) -> None:
    """Write the report of a shadow run in which the model judged 200 parts, one otherwise."""
    sidecar = read_sidecar(model)
    facts = ("fp32", "onnxruntime", "cpu")
    report = ShadowReport(
        leader=ScoredBy("old.onnx", "c" * 64, *facts),
        leader_threshold=0.5,
        leader_min_area_px=8,
        challenger=ScoredBy(model.name, sidecar.sha256, *facts),
        challenger_threshold=sidecar.threshold,
        challenger_min_area_px=sidecar.min_area,
        offered=300,
        seen=300,
        new_rejects=1,
        new_passes=0,
        flips=(ShadowFlip("7.png", "OK", "NG", 90, 140, "7.jpg"),),
        unseen={},
        failure=None,
        latency=ChallengerLatency(8.0, 20.0, 31.0),
        leader_plateau=None,
        challenger_plateau=None,
    )
    path.write_text(json.dumps(report.as_fields()))


def write_baseline(root: Path, *, light: float = 1.0) -> None:
    """Inspect images of the line: other good parts under the same light, if it is 1."""
    write_parts(root / "of-the-line", 40, 0, light=light, seed=8)
    arguments = ["infer", str(root / "of-the-line" / "images"), "-m", str(root / "net.onnx")]
    arguments += ["--backend", "onnxruntime", "--workers", "1", "-o", str(root / "out-line")]
    ended = CliRunner().invoke(tinyunet, arguments, standalone_mode=False)
    assert ended.exception is None, ended.output


def write_repeats(root: Path) -> None:
    """Photograph every part of the test a second time, a grey value brighter."""
    for number, brighter in enumerate((0, 1)):
        folder = root / "repeats" / f"day={number}"
        folder.mkdir(parents=True)
        for path in sorted((root / "data" / "images").iterdir()):
            image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
            assert image is not None
            write_png(
                folder / path.name, np.clip(image.astype(int) + brighter, 0, 255).astype("u1")
            )


@pytest.fixture(scope="module")
def accepted_station(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything that an accepted model needs; not to be changed: copy it."""
    from export.graph import onnx_graph

    root = tmp_path_factory.mktemp("line")
    write_parts(root / "data", 12, 12)
    write_parts(root / "trained", 3, 0, light=0.9)
    network = brightness_network()
    checkpoint = root / "net.safetensors"
    parent = save_checkpoint(checkpoint, network, CONTRACT, min_area=8, origin={})
    data = onnx_graph(network, CONTRACT)
    trained_on = tuple(image_digest(path) for path in (root / "trained" / "images").iterdir())
    sidecar = Sidecar(
        *("onnx", "fp32", digest(data), parent.sha256, CONTRACT),
        threshold=parent.threshold,
        min_area=8,
        trained_on=trained_on,
    )
    write_artifact(root / "net.onnx", data, sidecar)
    with open_backend(root / "net.onnx", "onnxruntime", "cpu") as backend:
        write_golden(root / "net.onnx", backend.score_alone)
    write_line(root / "line.json", root / "net.onnx")
    write_shadow(root / "shadow.json", root / "net.onnx")
    write_baseline(root)
    write_repeats(root)
    (root / "acceptance.toml").write_text(REQUIREMENTS)
    return root


@pytest.fixture
def station(accepted_station: Path, tmp_path: Path) -> Path:
    root = tmp_path / "line"
    shutil.copytree(accepted_station, root)
    return root


def run(root: Path, *options: str) -> tuple[int, str, dict[str, Any]]:
    """Accept the station's model; return exit code, line on stdout, and the result."""
    arguments = ["accept", str(root / "data"), "-m", str(root / "net.onnx")]
    arguments += ["--backend", "onnxruntime", "--requirements", str(root / "acceptance.toml")]
    arguments += ["--line", str(root / "line.json"), "--baseline", str(root / "out-line")]
    arguments += ["--repeats", str(root / "repeats")]
    arguments += ["--workers", "1", "-o", str(root / "acceptance"), *options]
    ended = CliRunner().invoke(tinyunet, arguments, standalone_mode=False)
    assert ended.exception is None, ended.output
    result = json.loads((root / "acceptance" / "acceptance.json").read_text())
    return ended.return_value, ended.stdout, result


def outcomes(result: dict[str, Any], outcome: str) -> set[str]:
    return {row["name"] for row in result["requirements"] if row["outcome"] == outcome}


def resign(root: Path, data: bytes, precision: Any = "fp32", *, golden: bool = True) -> None:
    """Replace the model and describe it anew, as one would who does not want to be found out."""
    model = root / "net.onnx"
    changed = dataclasses.replace(read_sidecar(model), sha256=digest(data), precision=precision)
    write_artifact(model, data, changed if golden else dataclasses.replace(changed, golden=None))
    if not golden:
        with open_backend(model, "onnxruntime", "cpu") as backend:
            write_golden(model, backend.score_alone)
    write_line(root / "line.json", model)


@pytest.fixture(scope="module")
def accepted_run(accepted_station: Path) -> tuple[int, str, dict[str, Any]]:
    declared = [accepted_station / name / "images" for name in ("trained", "of-the-line")]
    trained_on = [option for folder in declared for option in ("--trained-on", str(folder))]
    return run(accepted_station, "--shadow", str(accepted_station / "shadow.json"), *trained_on)


def test_a_model_with_all_evidence_may_run(
    accepted_run: tuple[int, str, dict[str, Any]],
) -> None:
    code, line, result = accepted_run
    assert outcomes(result, "not met") == outcomes(result, "not shown") == set()
    assert (code, result["decision"]["word"]) == (0, "MAY RUN")
    assert line.startswith("MAY RUN: All 14 requirements are met.")
    assert line.endswith("acceptance.html)\n")
    evidence = result["evidence"]
    assert evidence["detection"]["defective"] == evidence["detection"]["good"] == 12
    assert [link["name"] for link in evidence["lineage"]] == ["net.onnx", "net.safetensors"]
    assert evidence["parity"]["reference"].startswith("net.safetensors on torch")
    figures = {check["figure"] for check in evidence["parity"]["checks"]}
    assert not figures & {"batch_steps", "plateau_kept", "margin_steps"}, "rows of their own"
    assert {p["kind"] for p in result["pictures"]} == {"near escape", "near reject"}
    assert evidence["shadow"]["mismatch"] is None
    assert [flip["name"] for flip in evidence["shadow"]["flips"]] == ["7.png"]
    assert len(result["parts"]) == 24
    unseen = next(row for row in result["requirements"] if row["name"] == "unseen_images")
    assert unseen["sentence"].endswith("(declared: trained/images, of-the-line/images).")


def test_every_input_has_its_sha256_and_no_path_of_the_machine_is_told(
    accepted_station: Path, accepted_run: tuple[int, str, dict[str, Any]]
) -> None:
    root, (_, _, result) = accepted_station, accepted_run
    digests = {file["role"]: file["sha256"] for file in result["inputs"]}
    for role, name in {
        "model": "net.onnx",
        "sidecar": "net.onnx.json",
        "golden images": "net.onnx.golden.png",
        "ancestor": "net.safetensors",
        "requirements": "acceptance.toml",
        "line": "line.json",
        "shadow run": "shadow.json",
        "baseline": "out-line/report.jsonl",
        "images and masks": "acceptance/data.sha256",
    }.items():
        assert digests[role] == digest((root / name).read_bytes()), role
    listing = (root / "acceptance" / "data.sha256").read_text().splitlines()
    assert len(listing) == 48
    for line in listing:
        sha256, name = line.split("  ")
        assert sha256 == digest((root / "data" / name).read_bytes())
    for name in ("acceptance.json", "acceptance.html"):
        assert str(root.parent) not in (root / "acceptance" / name).read_text()


def compare(
    model: Path, root: Path, facts: ModelFacts, reference: Path | None = None
) -> ArtifactComparison:
    return compare_artifact(
        model,
        root / "data",
        facts,
        reference=reference,
        search=(),
        trust_engine=False,
        classes=None,
        tile=True,
        bits=None,
        max_pixels=None,
        batch_size=4,
        workers=1,
        most_images=6,
        progress=lambda *_: None,
        on_total=lambda _: None,
    )


def test_an_adopted_file_shows_parity_by_the_proof_of_its_adoption(
    accepted_station: Path, tmp_path: Path
) -> None:
    """It has no checkpoint; a file made from it is not what was proven."""
    (tmp_path / "original.onnx").write_bytes(rgb_logits())
    options = AdoptionOptions(normalization=NORMALIZATIONS["imagenet"], reach=8)
    model = tmp_path / "net.onnx"
    sidecar = adopt(tmp_path / "original.onnx", model, options).sidecar
    facts = ModelFacts("net.onnx", sidecar.sha256, "onnx", "fp32", "onnxruntime", "cpu", 0.5, 1, {})
    parity = compare(model, accepted_station, facts).parity
    assert sidecar.adoption is not None
    steps, images = sidecar.adoption.proof_steps, sidecar.adoption.proof_images
    proof = f"from those of original.onnx by at most {steps} of 255 on {images} images"
    finding = check_parity(read_requirements(), dataclasses.replace(accepted(), parity=parity))
    assert (finding.outcome, finding.missing) == ("met", "")
    assert finding.sentence.startswith(f"When adopted, its scores differed {proof}. 3 limits of")
    assert "as an adopted network has no checkpoint" in finding.sentence
    broken = dataclasses.replace(parity.checks[0], holds=False)
    worse = dataclasses.replace(parity, checks=(broken,))
    evidence = dataclasses.replace(accepted(), parity=worse)
    assert check_parity(read_requirements(), evidence).outcome == "not met"

    write_sidecar(model, dataclasses.replace(read_sidecar(model), parent="0" * 64))
    parity = compare(model, accepted_station, facts).parity
    finding = check_parity(read_requirements(), dataclasses.replace(accepted(), parity=parity))
    assert (parity.proof, finding.outcome) == (None, "not shown")
    assert finding.missing.endswith("or adopted file that it was made from")


def test_a_file_with_another_rule_is_compared_by_its_own(
    accepted_station: Path, tmp_path: Path
) -> None:
    for path in accepted_station.glob("net.*"):
        shutil.copy(path, tmp_path)
    model = tmp_path / "net.onnx"
    sidecar = dataclasses.replace(read_sidecar(model), threshold=0.4)
    write_sidecar(model, sidecar)
    facts = ModelFacts("net.onnx", sidecar.sha256, "onnx", "fp32", "onnxruntime", "cpu", 0.4, 8, {})
    parity = compare(model, accepted_station, facts).parity
    assert parity.otherwise == (
        "decides by threshold 0.4, min_area 8 px, but its reference net.safetensors by threshold "
        "0.5, min_area 8 px"
    )
    assert not parity.tuned and "tinyunet tune DATA -m CHECKPOINT" in parity.hint
    assert all(check.holds for check in parity.checks)


@pytest.mark.parametrize(
    ("given", "reason"),
    [(True, "it was given as its own reference"), (False, "the checkpoint was not found")],
)
def test_a_file_that_is_its_own_reference_shows_no_parity(
    accepted_station: Path, tmp_path: Path, given: bool, reason: str
) -> None:
    for path in accepted_station.glob("net.onnx*"):
        shutil.copy(path, tmp_path)  # without its checkpoint
    model = tmp_path / "net.onnx"
    sha256 = read_sidecar(model).sha256
    facts = ModelFacts("net.onnx", sha256, "onnx", "fp32", "onnxruntime", "cpu", 0.5, 8, {})
    compared = compare(model, accepted_station, facts, model if given else None)
    assert compared.parity.vacuous == reason
    assert compared.parity.proof is None
    assert (compared.parity.images, compared.plateau_kept) == (6, None)
    assert compared.batches is not None and compared.batches.check is not None


def test_the_page_is_made_again_from_the_result_byte_for_byte(
    accepted_station: Path, accepted_run: tuple[int, str, dict[str, Any]], tmp_path: Path
) -> None:
    folder = accepted_station / "acceptance"
    arguments = ["accept", "--from", str(folder / "acceptance.json"), "-o", str(tmp_path)]
    ended = CliRunner().invoke(tinyunet, arguments, standalone_mode=False)
    assert (ended.exception, ended.return_value) == (None, accepted_run[0])
    page = (tmp_path / "acceptance.html").read_bytes()
    assert page == (folder / "acceptance.html").read_bytes()


def tuned(sidecar: Sidecar, threshold: float) -> Sidecar:
    return dataclasses.replace(sidecar, threshold=threshold, tuned_on=("0" * 16,))


def threshold_down(root: Path) -> None:
    sidecar = read_sidecar(root / "net.onnx")
    write_sidecar(root / "net.onnx", tuned(sidecar, 0.02))


def threshold_up(root: Path) -> None:
    sidecar = read_sidecar(root / "net.onnx")
    write_sidecar(root / "net.onnx", tuned(sidecar, 0.999))


def weight_changed(root: Path) -> None:
    data = bytearray((root / "net.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (root / "net.onnx").write_bytes(bytes(data))


def weight_changed_and_signed(root: Path) -> None:
    model = onnx.load_from_string((root / "net.onnx").read_bytes())
    weight = next(w for w in model.graph.initializer if len(w.dims) == 4 and w.dims[1] == 1)
    values = numpy_helper.to_array(weight) * np.float32(0.9)
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    resign(root, model.SerializeToString())


def int8_by_minmax(root: Path) -> None:
    """Quantise by largest values that an outlier has made sixty times too large."""
    model = onnx.load_from_string((root / "net.onnx").read_bytes())
    pixels = [np.full((SIZE, SIZE), 255, np.uint8)]
    largest = ranges(histograms(model, pixels), "minmax")
    made = quantize(in_steps(model, {name: 60 * value for name, value in largest.items()}))
    resign(root, made, "int8", golden=False)


def other_normalisation(root: Path) -> None:
    model = onnx.load_from_string((root / "net.onnx").read_bytes())
    cast = next(node for node in model.graph.node if node.op_type == "Cast")
    scale = numpy_helper.from_array(np.float32(0.8), "scale")
    model.graph.initializer.append(scale)
    name, cast.output[0] = cast.output[0], "unscaled"
    position = list(model.graph.node).index(cast) + 1
    model.graph.node.insert(position, helper.make_node("Mul", ["unscaled", "scale"], [name]))
    resign(root, model.SerializeToString(), golden=False)


def slow_backend(root: Path) -> None:
    late = {"missed": 400, "miss_rate": 0.08, "miss_rate_bound": 0.09}
    write_line(root / "line.json", root / "net.onnx", **late)


def drifted(root: Path) -> None:
    shutil.rmtree(root / "out-line")
    shutil.rmtree(root / "of-the-line")
    write_baseline(root, light=1.3)


def tuned_on_the_test(root: Path) -> None:
    images = sorted((root / "data" / "images").iterdir())
    sidecar = read_sidecar(root / "net.onnx")
    tuned_on = tuple(image_digest(path) for path in images[:5])
    write_sidecar(root / "net.onnx", dataclasses.replace(sidecar, tuned_on=tuned_on))


def unrepeatable_camera(root: Path) -> None:
    """Of every second part the second photograph is too dark to see a defect."""
    for path in sorted((root / "repeats" / "day=1").iterdir())[::2]:
        image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        assert image is not None
        write_png(path, (image // 3).astype(np.uint8))


def skipped_part(root: Path) -> None:
    (root / "data" / "images" / "000.png").write_bytes(b"torn")


WAYS: list[tuple[Callable[[Path], None], str, set[str]]] = [
    (threshold_down, "overkills", {"plateau"}),
    (threshold_up, "escapes", {"smallest_defect", "plateau"}),
    (weight_changed_and_signed, "self_test", {"parity"}),
    (int8_by_minmax, "parity", set()),
    (other_normalisation, "parity", set()),
    (slow_backend, "line", set()),
    (drifted, "drift", set()),
    (tuned_on_the_test, "unseen_images", set()),
    (unrepeatable_camera, "repeatability", set()),
    (skipped_part, "verdicts", set()),
]
"""A way to make the station worse, the requirement that must turn red, and those that state the
same fact."""


@pytest.mark.nightly
@pytest.mark.parametrize(("worse", "red", "following"), WAYS)
def test_what_was_made_worse_turns_one_requirement_red(
    station: Path, worse: Callable[[Path], None], red: str, following: set[str]
) -> None:
    worse(station)
    code, line, result = run(station)
    rows = {row["name"]: row for row in result["requirements"] if row["outcome"] == "not met"}
    assert {name: row["follows"] for name, row in rows.items()} == {
        red: "",
        **dict.fromkeys(following, red),
    }
    assert outcomes(result, "not shown") == set()
    assert (code, result["decision"]["word"]) == (6, "MAY NOT RUN")
    title = rows[red]["title"].lower()
    assert line.startswith(f"MAY NOT RUN: 1 of 13 requirements is not met: {title}.")


@pytest.mark.nightly
def test_declared_training_images_count_where_the_sidecar_names_none(station: Path) -> None:
    sidecar = read_sidecar(station / "net.onnx")
    write_sidecar(station / "net.onnx", dataclasses.replace(sidecar, trained_on=()))
    assert outcomes(run(station)[2], "not shown") == {"unseen_images"}
    _, line, _ = run(station, "--trained-on", str(station / "trained"))
    assert line.startswith("MAY RUN")
    _, _, result = run(station, "--trained-on", str(station / "data" / "images"))
    assert outcomes(result, "not met") == {"unseen_images"}
    assert result["evidence"]["seen"]["trained_on"] == 24


@pytest.mark.nightly
def test_a_line_of_2000_parts_meets_the_requirements_of_the_package(station: Path) -> None:
    for name in ("data", "repeats"):
        shutil.rmtree(station / name)
    write_parts(station / "data", 1900, 100)
    write_repeats(station)
    shutil.copy(DEFAULTS, station / "acceptance.toml")
    code, line, result = run(station, "--parity-images", "60")
    assert line.startswith("MAY RUN: All 13 requirements are met.")
    detection = result["evidence"]["detection"]
    assert (detection["defective"], detection["good"]) == (100, 1900)
    assert (code, len(result["parts"])) == (0, 2000)


def test_a_file_that_its_sidecar_does_not_describe_is_not_run(station: Path) -> None:
    weight_changed(station)
    code, line, result = run(station)
    assert outcomes(result, "not met") == {"lineage"}
    assert outcomes(result, "met") == set()
    assert code == 6
    assert line.startswith("MAY NOT RUN: 1 of 13 requirements is not met: lineage.")
    assert result["parts"] == result["pictures"] == []
    assert (station / "acceptance" / "acceptance.html").stat().st_size > 5000
