from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from tinyunet_deploy.cli import run, tinyunet
from tinyunet_deploy.contract import Contract
from tinyunet_deploy.data.encoding import write_png
from tinyunet_deploy.data.layouts import read_dataset
from tinyunet_deploy.errors import DataError
from tinyunet_deploy.quality.dataset_scoring import held_out, image_digest
from tinyunet_deploy.quality.evaluation import Evaluation, evaluate
from tinyunet_deploy.quality.evaluation_report import evaluation_json
from tinyunet_deploy.testing.fake_backend import FakeBackend

Uint8 = NDArray[np.uint8]


def square(left: int, value: int, size: int = 10) -> Uint8:
    image = np.zeros((64, 64), np.uint8)
    image[20 : 20 + size, left : left + size] = value
    return image


def write_split(folder: Path, parts: list[tuple[Uint8, Uint8 | None]]) -> None:
    """Images and masks in the released layout."""
    (folder / "Label").mkdir(parents=True)
    lines = ["1"]
    for index, (image, mask) in enumerate(parts, start=1):
        name = f"{index:04d}"
        write_png(folder / f"{name}.PNG", image)
        if mask is not None:
            write_png(folder / "Label" / f"{name}_label.PNG", mask)
        label = "0" if mask is None else f"{name}_label.PNG"
        lines.append(f"{name}\t{int(mask is not None)}\t{name}.PNG\t0\t{label}")
    (folder / "Label" / "Labels.txt").write_text("\n".join(lines) + "\n")


@pytest.fixture
def station(tmp_path: Path) -> Path:
    """Two classes whose images are their own scores, because the fake gives the image back."""
    truth, nothing = square(10, 255), square(0, 0)
    root = tmp_path / "station"
    write_split(
        root / "Class1" / "Test",
        [
            (square(10, 250), truth),  # I 100 of U 100
            (nothing, None),
            (square(15, 150), truth),  # I 50 of U 150
            (square(40, 200, size=2), None),  # 4 px: a false alarm unless min_area is more
        ],
    )
    write_split(root / "Class1" / "Train", [(square(10, 250), truth)])
    write_split(root / "Class2" / "Test", [(nothing, truth), (nothing, None)])  # an escape
    return root


def fake() -> FakeBackend:
    return FakeBackend(contract=Contract(64, 64))


def measure(root: Path, *, threshold: float = 0.4, min_area: int = 1) -> Evaluation:
    return evaluate(
        read_dataset(root, split="test"),
        fake(),
        threshold=threshold,
        min_area=min_area,
        batch_size=2,
        workers=2,
    )


def result_of(evaluation: Evaluation) -> dict[str, Any]:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    result: dict[str, Any] = json.loads(evaluation_json(evaluation), parse_constant=refuse)
    return result


def test_figures_of_two_classes_computed_by_hand(station: Path) -> None:
    evaluation = measure(station)
    first, second = evaluation.classes[1], evaluation.classes[2]
    assert (first.images, first.defective, first.escapes, first.overkills) == (4, 2, 0, 1)
    assert first.iou_defective == pytest.approx((1 + 1 / 3) / 2)
    assert (first.intersection_px, first.union_px) == (150, 254)
    assert first.dice == pytest.approx((1 + 1 / 2 + 1 + 0) / 4, abs=1e-5)
    # 250 and 150 against 0 and 200
    assert first.auroc == 3 / 4
    assert (second.images, second.escape_rate, second.overkill_rate) == (2, 1.0, 0.0)
    assert second.iou_defective == 0.0
    assert second.auroc == 0.5
    assert evaluation.mean.iou_defective == pytest.approx((first.iou_defective + 0) / 2)
    assert evaluation.mean.escape_rate == 0.5
    assert evaluation.all.escape_rate == pytest.approx(1 / 3)
    assert evaluation.all.iou_global == 150 / 354


def test_min_area_changes_verdicts_but_no_pixels(station: Path) -> None:
    loose, strict = measure(station).classes[1], measure(station, min_area=5).classes[1]
    assert (loose.overkills, strict.overkills) == (1, 0)
    assert dataclasses.replace(strict, overkills=1, overkill_rate=0.5) == loose


def test_the_threshold_changes_the_operating_figures_alone(station: Path) -> None:
    low, high = measure(station).classes[1], measure(station, threshold=0.7).classes[1]
    assert high.iou_defective == pytest.approx((1 + 0) / 2)
    assert high.escapes == 1
    assert high.dice_reference == low.dice_reference
    assert high.dice == pytest.approx(high.dice_reference[0.75])


def test_the_result_does_not_depend_on_batches_and_threads(station: Path) -> None:
    dataset = read_dataset(station)
    results = [
        evaluate(dataset, fake(), threshold=0.4, min_area=1, batch_size=size, workers=workers)
        for size, workers in [(1, 1), (3, 2), (16, 4)]
    ]
    assert len({evaluation_json(result) for result in results}) == 1
    names = [Path(image.name) for image in results[0].images]
    assert names == [item.image.relative_to(station) for item in dataset.items]


def test_an_unusable_image_is_skipped_and_named(station: Path) -> None:
    broken = station / "Class1" / "Test" / "0002.PNG"
    broken.write_bytes(broken.read_bytes()[:60])
    write_png(station / "Class2" / "Test" / "0002.PNG", np.zeros((12, 64), np.uint8))
    evaluation = measure(station)
    assert len(evaluation.images) == 4
    assert evaluation.classes[1].images == 3
    result = result_of(evaluation)
    assert [(entry["name"], entry["reason"]) for entry in result["skipped"]] == [
        ("Class1/Test/0002.PNG", "truncated"),
        ("Class2/Test/0002.PNG", "wrong-size"),
    ]
    assert result["images"] == 4
    assert "Class1/Test/0002.PNG" not in [image["name"] for image in result["per_image"]]


def test_without_a_usable_image_there_is_no_result(station: Path) -> None:
    for image in station.glob("*/Test/*.PNG"):
        image.write_bytes(b"")
    with pytest.raises(DataError, match="no usable image"):
        measure(station)


def test_a_broken_mask_stops_the_evaluation(station: Path) -> None:
    mask = station / "Class1" / "Test" / "Label" / "0003_label.PNG"
    mask.write_bytes(mask.read_bytes()[:60])
    with pytest.raises(DataError, match=r"0003_label\.PNG"):
        measure(station)


def test_progress_counts_every_image(station: Path) -> None:
    (station / "Class1" / "Test" / "0001.PNG").write_bytes(b"")
    done: list[int] = []
    dataset = read_dataset(station, split="test")
    evaluate(
        dataset,
        fake(),
        threshold=0.4,
        min_area=1,
        batch_size=2,
        workers=1,
        progress=done.append,
    )
    assert sum(done) == len(dataset.items) == 6


def test_the_result_file_says_what_was_measured_on_what(station: Path) -> None:
    result = result_of(measure(station))
    assert result["schema_version"] == 1
    assert result["model"] == {
        "name": "fake.onnx",
        "sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "precision": "fp32",
    }
    assert (result["backend"], result["device"]) == ("fake", "cpu")
    assert result["dataset"] == {
        "name": "station",
        "layout": "released",
        "classes": [1, 2],
        "split": "test",
    }
    assert (result["threshold"], result["min_area_px"]) == (0.4, 1)
    assert set(result["formulas"]) <= set(result["classes"]["1"])
    assert (result["tuned_on_these_images"], result["images_tuned_on"]) == (False, 0)
    first = result["classes"]["1"]
    assert first["escape_rate_upper_95"] == pytest.approx(1 - 0.05 ** (1 / 2))
    assert first["overkill_rate_upper_95"] == pytest.approx(0.95**0.5)
    defects = result["defects"]
    assert [defects[key] for key in ("truth", "hit", "missed", "false")] == [3, 2, 1, 1]
    assert [row for row in defects["by_size"] if row["truth"]] == [
        {"from_px": 64, "below_px": 256, "truth": 3, "hit": 2}
    ]
    (missed,) = result["per_image"][4]["true_defects"]
    assert missed == {"bbox": [10, 20, 10, 10], "area_px": 100, "max_score": 0, "hit": False}
    assert result["per_image"][3]["false_defects"] == [
        {"bbox": [40, 20, 2, 2], "area_px": 4, "max_score": 200, "mean_score": 200.0}
    ]
    assert result["per_image"][2] == {
        "name": "Class1/Test/0003.PNG",
        "class": 1,
        "defective": True,
        "truth_px": 100,
        "max_score": 150,
        "deciding_score": 150,
        "largest_px": 100,
        "verdict": "NG",
        "predicted_px": dict.fromkeys(["0.4", "0.05", "0.125", "0.25", "0.5"], 100)
        | dict.fromkeys(["0.75", "0.85", "0.95", "0.99"], 0),
        "intersection_px": dict.fromkeys(["0.4", "0.05", "0.125", "0.25", "0.5"], 50)
        | dict.fromkeys(["0.75", "0.85", "0.95", "0.99"], 0),
        "true_defects": [{"bbox": [10, 20, 10, 10], "area_px": 100, "max_score": 150, "hit": True}],
        "false_defects": [],
    }


def test_an_undefined_figure_is_null(tmp_path: Path) -> None:
    write_split(tmp_path / "Class4" / "Test", [(square(0, 0), None)])
    evaluation = measure(tmp_path)
    assert math.isnan(evaluation.mean.auroc)
    result = result_of(evaluation)
    assert result["classes"]["4"]["iou_defective"] is None
    assert result["mean"]["auroc"] is None
    assert result["all"]["overkill_rate"] == 0.0


def test_images_without_classes_have_figures_too(tmp_path: Path) -> None:
    for name, image, mask in [("a", 250, 255), ("b", 0, 0)]:
        for part, value in [("images", image), ("masks", mask)]:
            (tmp_path / part).mkdir(exist_ok=True)
            write_png(tmp_path / part / f"{name}.png", square(10, value))
    evaluation = evaluate(
        held_out(read_dataset(tmp_path)),
        fake(),
        threshold=0.5,
        min_area=1,
        batch_size=4,
        workers=1,
    )
    assert evaluation.classes == {}
    assert evaluation.mean.iou_defective == evaluation.all.iou_defective == 1.0
    assert result_of(evaluation)["dataset"]["split"] is None


def test_what_cannot_be_shown_is_said(station: Path) -> None:
    dataset = read_dataset(station, split="test")
    for defective, sentence in (
        (True, "there are no good images, so overkill cannot be shown"),
        (False, "there are no defective images, so escapes cannot be shown"),
    ):
        items = tuple(item for item in dataset.items if item.defective is defective)
        some = dataclasses.replace(dataset, items=items)
        options = {"threshold": 0.4, "min_area": 1, "batch_size": 2, "workers": 1}
        evaluation = evaluate(some, fake(), **options)
        assert evaluation.notes == (sentence,)
        assert result_of(evaluation)["notes"] == [sentence]


def test_held_out_images_are_those_of_the_test_split(station: Path) -> None:
    assert {item.split for item in held_out(read_dataset(station)).items} == {"test"}
    with pytest.raises(DataError, match="no test images"):
        held_out(read_dataset(station, split="train"))


def test_silence_on_real_images_scores_their_defect_free_share(real_dagm2007: Path) -> None:
    evaluation = evaluate(
        read_dataset(real_dagm2007, classes=[1], split="test"),
        FakeBackend(np.zeros_like),
        threshold=0.5,
        min_area=1,
        batch_size=8,
        workers=2,
    )
    figures = evaluation.classes[1]
    assert (figures.images, figures.defective, figures.escapes) == (40, 14, 14)
    assert figures.iou_defective == 0.0
    assert figures.dice == figures.dice_nothing == pytest.approx(26 / 40)


def test_every_missed_defect_has_a_picture(station: Path, tmp_path: Path) -> None:
    misses = tmp_path / "misses"
    evaluate(
        read_dataset(station, split="test"),
        fake(),
        threshold=0.7,
        min_area=1,
        batch_size=2,
        workers=2,
        misses=misses,
    )
    found = sorted(path.relative_to(misses).as_posix() for path in misses.rglob("*.png"))
    assert found == ["Class1/Test/0003-1.png", "Class2/Test/0001-1.png"]
    picture = cv2.imread(str(misses / found[0]))
    height, width, _ = picture.shape
    assert width == 2 * height + 8, "the image, and beside it the score"
    assert height >= 256, "large enough to be looked at"
    green = (picture == (80, 220, 80)).all(axis=2)
    assert green[:, :height].any()
    assert green[:, height + 8 :].any()


def test_every_image_has_an_overlay_with_its_truth(station: Path, tmp_path: Path) -> None:
    folder = tmp_path / "overlays"
    dataset = read_dataset(station, split="test")
    evaluate(
        dataset, fake(), threshold=0.7, min_area=1, batch_size=2, workers=2, overlays=folder
    )  # fmt: skip
    for item in dataset.items:
        name = item.image.relative_to(dataset.root).with_suffix(".JPG")
        picture = cv2.imread(str(folder / name)).astype(int)
        green = (picture[:, :, 1] - picture[:, :, [0, 2]].max(axis=2))[:64, :64] > 50
        assert green.any() == item.defective, "the truth is outlined in green"


def test_images_that_chose_the_operating_point_are_told_of(station: Path) -> None:
    dataset = read_dataset(station, split="test")
    backend = fake()
    chose = [image_digest(item.image) for item in dataset.items[:2]]
    tuned = dataclasses.replace(backend.artifact.sidecar, tuned_on=tuple(chose))
    backend.artifact = dataclasses.replace(backend.artifact, sidecar=tuned)
    evaluation = evaluate(dataset, backend, threshold=0.4, min_area=1, batch_size=2, workers=2)
    assert evaluation.tuned_on == 4, "the black one of class 1 is both of class 2, byte for byte"
    assert result_of(evaluation)["tuned_on_these_images"] is True


def test_large_images_are_evaluated_in_tiles(tmp_path: Path) -> None:
    truth = np.zeros((150, 170), np.uint8)
    truth[120:140, 100:165] = 255
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
        write_png(tmp_path / folder / "a.png", truth)
    options: dict[str, Any] = {"threshold": 0.4, "min_area": 1, "batch_size": 4, "workers": 2}
    evaluation = evaluate(read_dataset(tmp_path), fake(), **options)
    assert evaluation.all.iou_defective == 1.0
    with pytest.raises(DataError, match="170x150 pixels, but the model takes 64x64"):
        evaluate(read_dataset(tmp_path), fake(), tile=False, **options)


# --- the command --------------------------------------------------------------------------------


@pytest.fixture
def with_fake(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command runs the fake, as no artifact is needed to test it."""
    monkeypatch.setattr(
        "tinyunet_deploy.backends.registry.open_backend",
        lambda *_, **__: FakeBackend(contract=Contract(64, 64), threshold=0.4, min_area=5),
    )


@pytest.mark.usefixtures("with_fake")
def test_the_command_prints_its_tables(station: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tinyunet, ["evaluate", str(station)]) == 0
    captured = capsys.readouterr()
    rows = [line.split() for line in captured.out.splitlines()]
    assert ["1", "4", "0.667", "0.591", "0.625", "0.500", "0/2", "0/2", "0.750"] in rows
    assert ["2", "2", "0.000", "0.000", "0.500", "0.500", "1/1", "0/1", "0.500"] in rows
    assert ["mean", "0.333", "0.295", "0.563", "0.500", "0.500", "0.000", "0.625"] in rows
    assert any(row[:2] == ["all", "6"] for row in rows)
    assert ["64..255", "3", "2", "1", "0.667"] in rows
    assert "1 of 3 defective parts let through: at most 86.5% at 95 % confidence" in captured.out
    assert ["1", *["0.625"] * 4, "0.500", "0.750", "0.750", "0.500", "0.500"] in rows
    assert captured.err == ""
    assert max(map(len, captured.out.splitlines()[1:])) <= 80


@pytest.mark.usefixtures("with_fake")
def test_the_command_writes_what_it_prints_as_json(
    station: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "new" / "result.json"
    arguments = ["evaluate", str(station), "--split", "all", "--threshold", "0.7", "--classes", "1"]
    assert run(tinyunet, [*arguments, "--format", "json", "-o", str(output)]) == 0
    printed = capsys.readouterr().out
    assert output.read_text() == printed
    result = json.loads(printed)
    assert (result["threshold"], result["min_area_px"]) == (0.7, 5)
    assert (result["images"], result["dataset"]["split"]) == (5, "all")


@pytest.mark.usefixtures("with_fake")
def test_the_command_ends_with_3_when_images_were_skipped(
    station: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (station / "Class1" / "Test" / "0002.PNG").write_bytes(b"no image")
    assert run(tinyunet, ["evaluate", str(station)]) == 3
    captured = capsys.readouterr()
    assert captured.err.startswith("skipped: ")
    assert "0002.PNG" in captured.err
    assert "0.667" in captured.out


@pytest.mark.usefixtures("with_fake")
def test_the_command_ends_with_4_when_nothing_can_be_used(
    station: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for image in station.glob("*/Test/*.PNG"):
        image.write_bytes(b"")
    assert run(tinyunet, ["evaluate", str(station)]) == 4
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
