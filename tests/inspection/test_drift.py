from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyunet_deploy.cli import run, tinyunet
from tinyunet_deploy.contract import Batch, Contract, Image
from tinyunet_deploy.data import synthetic
from tinyunet_deploy.data.encoding import write_png
from tinyunet_deploy.errors import DataError
from tinyunet_deploy.inspection.drift import (
    compare_reports,
    draw_distributions,
    image_statistics,
    ks_distance,
)
from tinyunet_deploy.inspection.infer import infer
from tinyunet_deploy.testing.fake_backend import FakeBackend

SIDE = 128
NAMES = ["mean_grey", "contrast_grey", "near_threshold_share", "defect_share"]


def bright_spots(image: Batch) -> Batch:
    """A network that takes the brightest pixels for defects, whatever the light."""
    level = np.quantile(image, 0.999, axis=(2, 3), keepdims=True)
    return np.where(image >= level, np.uint8(240), np.uint8(10))


def report(folder: Path, images: list[Image], threshold: float = 0.5) -> Path:
    source = folder / "in"
    source.mkdir(parents=True)
    for index, image in enumerate(images):
        write_png(source / f"{index:03}.png", image)
    backend = FakeBackend(bright_spots, contract=Contract(SIDE, SIDE))
    output = folder / "out"
    infer([source], output, backend, threshold=threshold, min_area=1, batch_size=8, workers=2)
    return output


@pytest.fixture(scope="module")
def parts() -> list[Image]:
    """Forty-eight of each of two classes, in turn."""
    whole = [
        synthetic.sample(k, index, defective=index % 2 == 0).image
        for index in range(3)
        for k in (1, 3)
    ]
    cut = [
        image[y : y + SIDE, x : x + SIDE]
        for y in range(0, 512, SIDE)
        for x in range(0, 512, SIDE)
        for image in whole
    ]
    return [np.ascontiguousarray(image) for image in cut]


def test_statistics_of_an_image_by_hand() -> None:
    image = np.array([[0, 100], [100, 200]], np.uint8).repeat(8, 0).repeat(8, 1)
    score = np.zeros((16, 16), np.uint8)
    score[0, :4] = [102, 103, 153, 154]  # the threshold is at 128; near is 103..153
    assert image_statistics(image, score, 0.5) == {
        "mean_grey": 100.0,
        "contrast_grey": pytest.approx(math.sqrt(5000)),
        "near_threshold_share": 2 / 256,
        "defect_share": 2 / 256,
    }


def test_sure_scores_are_not_near_a_threshold_beside_them() -> None:
    score = np.zeros((16, 16), np.uint8)
    score[0, :5] = [235, 236, 248, 249, 255]  # the threshold is at 242, 13 from the end
    image = np.zeros((16, 16), np.uint8)
    assert image_statistics(image, score, 0.95)["near_threshold_share"] == 2 / 256


def test_two_halves_of_one_set_are_no_drift(tmp_path: Path, parts: list[Image]) -> None:
    found = compare_reports(
        report(tmp_path / "a", parts[::4] + parts[1::4]),
        report(tmp_path / "b", parts[2::4] + parts[3::4]),
    )
    assert found.drifted == []
    assert [shift.statistic for shift in found.shifts] == NAMES
    assert all(0 < shift.distance < shift.critical for shift in found.shifts[:2])


def test_more_light_is_drift_before_any_defect_is_missed(
    tmp_path: Path, parts: list[Image], capsys: pytest.CaptureFixture[str]
) -> None:
    before = report(tmp_path / "before", parts[::2])
    brighter = [np.clip(image.astype(int) + 25, 0, 255).astype(np.uint8) for image in parts[1::2]]
    now = report(tmp_path / "now", brighter)
    drawing = tmp_path / "new" / "drift.svg"
    command = ["drift", str(now), "--against", str(before), "-o", str(drawing)]
    assert run(tinyunet, command) == 6
    captured = capsys.readouterr()
    assert captured.err.startswith(
        f"picture: {drawing}\nerror: {now}: has drifted from {before}: mean_grey"
    )
    assert captured.err.endswith("(look at camera and light)\n")
    rows = {line.split()[0]: line.split() for line in captured.out.splitlines() if line.strip()}
    assert rows["mean_grey"][-1] == "drift"
    assert rows["mean_grey"][-2] != "no"
    assert rows["defect_share"][-2:] == ["no", "drift"]
    text = drawing.read_text()
    distances = {name: f"{float(row[4]):.2f}" for name, row in rows.items() if name in NAMES}
    assert f">drift: distance {distances['mean_grey']} &gt; " in text
    assert f">no drift: distance {distances['defect_share']} of " in text
    assert all(f">{name}<" in text for name in NAMES)
    same = ["drift", str(before / "report.jsonl"), "--against", str(before), "--format", "json"]
    assert run(tinyunet, same) == 0
    fields = json.loads(capsys.readouterr().out)
    assert (fields["schema_version"], fields["drifted"]) == (1, [])
    assert [shift["distance"] for shift in fields["shifts"]] == [0.0] * 4


def test_another_threshold_leaves_the_statistics_of_the_image(
    tmp_path: Path, parts: list[Image]
) -> None:
    now, before = report(tmp_path / "a", parts), report(tmp_path / "b", parts[:40], threshold=0.9)
    found = compare_reports(now, before)
    assert [shift.statistic for shift in found.shifts] == NAMES[:2]
    assert found.note == ("made with another threshold: statistics of the score are not compared")
    drawing = draw_distributions(now, before, found)
    assert drawing is not None
    text = drawing.decode()
    assert [name for name in NAMES if f">{name}<" in text] == NAMES[:2]
    assert ">before: 40 images<" in text
    assert f">now: {len(parts)} images<" in text


def test_a_damaged_report_is_refused(
    tmp_path: Path, parts: list[Image], capsys: pytest.CaptureFixture[str]
) -> None:
    before, now = report(tmp_path / "before", parts[:22]), report(tmp_path / "now", parts[:22])
    lines = (now / "report.jsonl").read_text().splitlines()
    lines[4] = lines[4][:50]
    (now / "report.jsonl").write_text("\n".join(lines) + "\n")
    assert run(tinyunet, ["drift", str(now), "--against", str(before)]) == 4
    assert capsys.readouterr().err == (
        f"error: {now}/report.jsonl: has a damaged line 5 "
        "(run the command that wrote it again to repair it)\n"
    )


def test_too_few_images_are_refused(tmp_path: Path, parts: list[Image]) -> None:
    few = report(tmp_path / "a", parts[:6])
    with pytest.raises(DataError, match="has too few images: 6 against 6") as refusal:
        compare_reports(few, few)
    assert refusal.value.hint == "each report needs at least 7"
    compare_reports(*[report(tmp_path / "b", parts[:7])] * 2)
    (few / "report.jsonl").write_text("")
    with pytest.raises(DataError, match="statistics of fewer than two images"):
        compare_reports(few, few)


samples = st.lists(st.integers(0, 20), min_size=1, max_size=30)


@given(samples, samples)
def test_the_distance_is_the_largest_gap_of_the_distribution_functions(
    one: list[int], other: list[int]
) -> None:
    def share(sample: list[int], value: int) -> float:
        return sum(x <= value for x in sample) / len(sample)

    gaps = [abs(share(one, value) - share(other, value)) for value in range(-1, 22)]
    assert ks_distance(one, other) == pytest.approx(max(gaps))


def test_false_alarms_are_as_rare_as_promised(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four statistics of noise, three hundred times."""
    random = np.random.default_rng(0)
    alarms = 0
    for _ in range(300):
        sets = iter(
            [
                [dict(zip(NAMES, row, strict=True)) for row in random.random((n, 4))]
                for n in (150, 100)
            ]
        )
        monkeypatch.setattr(
            "tinyunet_deploy.inspection.drift.read_statistics", lambda _, sets=sets: next(sets)
        )
        monkeypatch.setattr("tinyunet_deploy.inspection.drift._different_run", lambda *_: None)
        alarms += bool(compare_reports(Path("a"), Path("b"), alpha=0.05).drifted)
    assert 1 <= alarms <= 15
