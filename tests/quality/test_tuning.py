from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tinyunet_deploy.artifacts.lineage import lineage
from tinyunet_deploy.artifacts.sidecar import read_artifact, read_sidecar
from tinyunet_deploy.cli import run, tinyunet
from tinyunet_deploy.contract import Contract
from tinyunet_deploy.data.encoding import write_png
from tinyunet_deploy.data.layouts import read_dataset
from tinyunet_deploy.errors import DataError, GateFailed
from tinyunet_deploy.quality.tuning import Rule, Tuning, tune
from tinyunet_deploy.quality.tuning_report import draw_curve, tuning_json
from tinyunet_deploy.testing.fake_backend import FakeBackend

Uint8 = NDArray[np.uint8]


def blob(side: int, value: int) -> Uint8:
    image = np.zeros((64, 64), np.uint8)
    image[20 : 20 + side, 20 : 20 + side] = value
    return image


def write_parts(root: Path, defective: list[Uint8], good: list[Uint8]) -> Path:
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for kind, images in (("bad", defective), ("good", good)):
        for index, image in enumerate(images):
            write_png(root / "images" / f"{kind}{index}.png", image)
            truth = np.where(image > 0, np.uint8(255), np.uint8(0)) if kind == "bad" else 0 * image
            write_png(root / "masks" / f"{kind}{index}.png", truth)
    return root


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """Defects of 20x20 px at 200 of 255; false ones are small and sure, or large and unsure."""
    defective = [blob(20, 200 + index) for index in range(8)]
    good = [blob(0, 0), blob(0, 1), blob(6, 250), blob(6, 240), blob(30, 100), blob(30, 101)]
    return write_parts(tmp_path / "parts", defective, good)


def measure(root: Path, **rule: float) -> Tuning:
    backend = FakeBackend(contract=Contract(64, 64), threshold=0.2, min_area=1)
    return tune(read_dataset(root), backend, Rule(**rule), batch_size=4, workers=2)


def test_a_clean_separation_is_found_and_its_middle_taken(parts: Path) -> None:
    tuning = measure(parts)
    chosen, before = tuning.chosen, tuning.before
    assert (before.threshold, before.min_area) == (0.2, 1)
    assert (before.escapes, before.overkills) == (0, 4)
    assert (chosen.escapes, chosen.overkills) == (0, 0)
    # faultless are thresholds from 101/255 to 200/255 with 37..400 px
    assert 0.5 <= chosen.threshold <= 0.7
    assert 64 <= chosen.min_area <= 256


def test_cost_decides_between_an_escape_and_overkills(tmp_path: Path) -> None:
    """One defect is fainter than three false ones: let it through, or reject three parts."""
    defective = [blob(20, 230), blob(20, 60)]
    root = write_parts(
        tmp_path / "p", defective, [blob(0, 0), *(blob(20, 100 + i) for i in range(3))]
    )
    careful, careless = measure(root).chosen, measure(root, escape_cost=2).chosen
    assert (careful.escapes, careful.overkills) == (0, 3)
    assert (careless.escapes, careless.overkills) == (1, 0)
    curve = [(c.escapes, c.overkills) for c in measure(root).sweep.best_for_each_escape_count()]
    assert curve == [(0, 3), (1, 0)]


def test_a_target_escape_rate_counts_only_if_the_parts_can_show_it(parts: Path) -> None:
    chosen = measure(parts, max_escape_rate=0.35).chosen
    assert (chosen.escapes, chosen.overkills) == (0, 0)
    with pytest.raises(
        GateFailed, match=r"0 of 8 missed shows an escape rate of 0\.312"
    ) as failure:
        measure(parts, max_escape_rate=0.05)
    assert failure.value.hint == "no miss in 59 defective parts would show it"
    # with more leave to miss, a defect may go
    loose = measure(parts, max_escape_rate=0.9).sweep.within(0.9)
    assert loose is not None
    assert loose.overkills == 0


def test_without_both_kinds_of_parts_nothing_is_chosen(tmp_path: Path) -> None:
    for name, defective, good in [("good", [blob(9, 99)], []), ("defective", [], [blob(0, 0)])]:
        root = write_parts(tmp_path / name, defective, good)
        with pytest.raises(DataError, match=f"has no {name} image"):
            measure(root)


# --- the command, with the untrained network ----------------------------------------------------


def tuned_parts(folder: Path) -> Path:
    random = np.random.default_rng(3)
    noise = [random.integers(0, 256, (64, 64), dtype=np.uint8) for _ in range(4)]
    return write_parts(folder, noise, [blob(0, 0), blob(10, 90)])


def test_the_choice_goes_into_a_copy_whose_bytes_and_lineage_are_the_same(
    tiny_onnx: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = tuned_parts(tmp_path / "data"), tmp_path / "tuned"
    before = {path.name: path.read_bytes() for path in tiny_onnx.parent.iterdir()}
    command = ["tune", str(data), "-m", str(tiny_onnx), "-o", str(out), "--format", "json"]
    assert run(tinyunet, command) == 0
    result = json.loads(capsys.readouterr().out)
    assert json.loads((out / "tune.json").read_text()) == result
    assert {path.name: path.read_bytes() for path in tiny_onnx.parent.iterdir()} == before
    copy = read_artifact(out / tiny_onnx.name)
    original = read_sidecar(tiny_onnx)
    assert copy.data == tiny_onnx.read_bytes()
    assert copy.sidecar.parent == original.parent
    assert copy.sidecar.threshold == result["chosen"]["threshold"]
    assert copy.sidecar.min_area == result["chosen"]["min_area"]
    note = copy.sidecar.origin["tuned"]
    assert note["replaced"] == {"threshold": 0.45, "min_area": 3}
    assert list(copy.sidecar.tuned_on) == result["dataset"]["images"]
    assert len(copy.sidecar.tuned_on) == 6
    folders = (tiny_onnx.parent,)
    copied, known = lineage(copy.path, folders), lineage(tiny_onnx)
    assert [link.sha256 for link in copied] == [link.sha256 for link in known]
    assert len(copied) == 2, "the checkpoint is found, too"
    shape = np.shape(result["table"]["escapes"])
    assert shape == (len(result["table"]["thresholds"]), len(result["table"]["min_areas_px"]))
    assert (out / "tune.svg").read_bytes().startswith(b"<?xml")

    assert run(tinyunet, ["evaluate", str(data), "-m", str(copy.path), "--format", "json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["tuned_on_these_images"] is True
    assert captured.err == (
        "note: the model's threshold and min_area were chosen on 6 of these 6 images, "
        "so these figures do not test them\n"
    )
    assert run(tinyunet, ["evaluate", str(data), "-m", str(tiny_onnx), "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["tuned_on_these_images"] is False


def test_in_place_only_the_sidecar_is_renewed(
    tiny_onnx: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, model = tuned_parts(tmp_path / "data"), tmp_path / "model" / "m.onnx"
    model.parent.mkdir()
    shutil.copy(tiny_onnx, model)
    shutil.copy(f"{tiny_onnx}.json", f"{model}.json")
    command = ["tune", str(data), "-m", str(model)]
    assert run(tinyunet, command) == 0
    captured = capsys.readouterr()
    assert captured.err == "nothing written: give -o FOLDER or --in-place\n"
    assert captured.out.startswith("4 defective and 2 good parts; least cost, escape : overkill =")
    assert max(map(len, captured.out.splitlines())) <= 80
    rows = [line.split() for line in captured.out.splitlines()]
    (chosen,) = [row[1:] for row in rows if row[:1] == ["chosen"]]
    assert chosen not in rows, "not a second time, without its name"
    assert read_sidecar(model).tuned_on == ()
    assert run(tinyunet, [*command, "-o", str(model.parent)]) == 4
    assert "is the model's own folder" in capsys.readouterr().err
    assert run(tinyunet, [*command, "--in-place", "--cost", "10:2"]) == 0
    assert model.read_bytes() == tiny_onnx.read_bytes()
    assert read_artifact(model).sidecar.origin["tuned"]["rule"].endswith("= 5 : 1")
    assert run(tinyunet, [*command, "--cost", "20"]) == 2


def test_a_target_that_is_not_kept_is_exit_6_and_writes_nothing(
    tiny_onnx: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = tuned_parts(tmp_path / "data"), tmp_path / "tuned"
    command = ["tune", str(data), "-m", str(tiny_onnx), "-o", str(out), "--max-escape-rate", "0.1"]
    assert run(tinyunet, command) == 6
    assert capsys.readouterr().err.startswith("error: ")
    assert list(out.iterdir()) == []


def test_without_good_parts_a_fixed_threshold_is_written(tiny_onnx: Path, tmp_path: Path) -> None:
    """The rates that cannot be shown are null in the sidecar."""
    data, out = write_parts(tmp_path / "data", [blob(20, 200), blob(20, 201)], []), tmp_path / "out"
    command = ["tune", str(data), "-m", str(tiny_onnx), "-o", str(out), "--threshold", "0.5"]
    assert run(tinyunet, command) == 0
    sidecar = read_artifact(out / tiny_onnx.name).sidecar
    assert sidecar.threshold == 0.5
    note = sidecar.origin["tuned"]
    assert (note["good"], note["overkill_rate"], note["overkill_rate_upper"]) == (0, None, None)


@pytest.mark.parametrize(("defective", "good", "missing"), [(4, 0, "good"), (0, 4, "defective")])
def test_without_good_or_defective_parts_the_threshold_must_be_given(
    tmp_path: Path, defective: int, good: int, missing: str
) -> None:
    root = write_parts(
        tmp_path / "p", [blob(20, 200 + n) for n in range(defective)], [blob(6, 250)] * good
    )
    with pytest.raises(DataError, match=rf"has no {missing} image, .*--threshold"):
        measure(root)
    tuning = measure(root, threshold=0.5)
    assert tuning.chosen.threshold == 0.5
    assert (tuning.chosen.escapes, tuning.chosen.overkills) == (0, 0)
    assert 36 < tuning.chosen.min_area <= 400 if good else tuning.chosen.min_area <= 400
    event = "overkill" if missing == "good" else "escapes"
    assert tuning.notes[-1] == f"there are no {missing} images, so {event} cannot be shown"
    result = json.loads(tuning_json(tuning))
    rate = "overkill_rate" if missing == "good" else "escape_rate"
    assert result["chosen"][rate] is None and result["chosen"][f"{rate}_upper"] is None
    assert result["rule"]["text"].endswith("threshold 0.5 fixed")
    assert b"<svg" in draw_curve(tuning)


def test_a_fixed_threshold_is_kept_where_another_would_be_better(parts: Path) -> None:
    free, fixed = measure(parts).chosen, measure(parts, threshold=0.3).chosen
    assert free.threshold != 0.3
    assert (fixed.threshold, fixed.escapes, fixed.overkills) == (0.3, 0, 2)
