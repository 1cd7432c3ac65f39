from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from tinyunet_deploy.cli import run, tinyunet
from tinyunet_deploy.contract import Contract, Image
from tinyunet_deploy.data.encoding import write_png
from tinyunet_deploy.errors import DataError
from tinyunet_deploy.quality.repeatability.measure import (
    simulate_repeatability,
    study_repeatability,
)
from tinyunet_deploy.quality.repeatability.output import study_lines, write_study
from tinyunet_deploy.quality.repeatability.pictures import inline_study, write_flips
from tinyunet_deploy.quality.repeatability.study import RepeatabilityStudy, Simulation
from tinyunet_deploy.testing.fake_backend import FakeBackend


def backend(min_area: int = 16) -> FakeBackend:
    """Bright pixels are defects, above 128."""
    return FakeBackend(contract=Contract(64, 64), threshold=0.5, min_area=min_area)


INSIDE = 64
"""Area in the inside of a spot, pixels: a shift makes its edge brighter or darker."""


def spot(value: int) -> Image:
    image = np.zeros((64, 64), np.uint8)
    image[20:30, 20:30] = value
    return image


def photographs(root: Path, values: dict[str, dict[str, int]]) -> Path:
    for repeat, parts in values.items():
        (root / repeat).mkdir(parents=True)
        for name, value in parts.items():
            write_png(root / repeat / f"{name}.png", spot(value))
    return root


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return photographs(
        tmp_path / "photos",
        {
            "lamp=new,1": {"good": 20, "faint": 120, "bad": 240},
            "lamp=new,2": {"good": 22, "faint": 126, "bad": 240},
            "lamp=old,1": {"good": 10, "faint": 134, "bad": 230, "once": 9},
        },
    )


def test_every_photograph_is_judged_and_the_flipping_part_named(
    folder: Path, tmp_path: Path
) -> None:
    (folder / "lamp=old,1" / "good.png").write_bytes(b"no image")
    study = study_repeatability(folder, backend(), batch_size=2)
    scores = {
        part.name: [(photo.deciding_score, photo.verdict) for photo in part.photographs]
        for part in study.parts
    }
    assert scores == {
        "bad.png": [(240, "NG"), (240, "NG"), (230, "NG")],
        "faint.png": [(120, "OK"), (126, "OK"), (134, "NG")],
        "good.png": [(20, "OK"), (22, "OK")],
    }
    assert [part.name for part in study.flips] == ["faint.png"]
    assert study.alone == ("once.png",)
    (skipped,) = study.skipped
    assert skipped.startswith("lamp=old,1/good.png: ")
    assert study.repeats[2] == ("lamp=old,1", {"lamp": "old"})
    assert study.variance is not None
    (lamp,) = study.variance.conditions
    assert (lamp.condition, lamp.levels) == ("lamp", 2)

    assert write_flips(study, folder, backend(), tmp_path / "flips") == 1
    picture = cv2.imread(str(tmp_path / "flips" / "faint.jpg"))
    assert picture is not None and picture.shape[1] == 2 * 340 + 8
    # the passed photograph has no outline of a defect, the rejected one beside it has
    left, right = (half.astype(int) for half in (picture[:64, :64], picture[:64, 348:412]))
    assert not (left[..., 2] - left[..., 0] > 60).any()
    assert (right[..., 2] - right[..., 0] > 60).any()


def test_the_files_hold_the_study(folder: Path, tmp_path: Path) -> None:
    study = study_repeatability(folder, backend())
    write_study(study, tmp_path)
    fields = json.loads((tmp_path / "repeatability.json").read_text())
    assert RepeatabilityStudy.from_fields(fields) == study
    assert fields["source"] == "camera"
    assert "9 photographs of 3 parts" in inline_study(study)
    lines = study_lines(study)
    assert lines[0] == "9 photographs of 3 parts, 3 repeats"
    assert "flips: faint.png: 1 of 3 photographs are NG, scores differ by 14" in lines


def test_a_simulation_is_named_as_one_everywhere(tmp_path: Path) -> None:
    parts = tmp_path / "parts"
    parts.mkdir()
    for name, value in (("a", 20), ("b", 128), ("c", 230)):
        write_png(parts / f"{name}.png", spot(value))
    (parts / "broken.png").write_bytes(b"no image")
    simulation = Simulation(repeats=6, noise_grey=0.3)
    study = simulate_repeatability(parts, backend(INSIDE), simulation)
    assert [len(part.photographs) for part in study.parts] == [6, 6, 6]
    assert [part.name for part in study.flips] == ["b.png"], "it lies on the threshold"
    (skipped,) = study.skipped
    assert skipped.startswith("broken.png: ")
    assert study_lines(study)[0].startswith("SIMULATED: 18 photographs of 3 parts")
    assert "simulated photographs" in inline_study(study)
    assert study.as_fields()["source"] == "simulated"
    assert study == simulate_repeatability(parts, backend(INSIDE), simulation), "the seed decides"
    assert write_flips(study, parts, backend(), tmp_path / "flips") == 1
    assert (tmp_path / "flips" / "b.jpg").stat().st_size > 1000


def test_the_pictures_of_a_simulation_show_the_photographs_that_were_judged(
    tmp_path: Path,
) -> None:
    parts = tmp_path / "parts"
    parts.mkdir()
    write_png(parts / "a.png", spot(20))
    write_png(parts / "b.png", spot(128))
    judged: list[Image] = []

    def remember(images: np.ndarray) -> np.ndarray:
        judged.extend(images[:, 0].copy())
        return images.copy()

    fake = FakeBackend(remember, contract=Contract(64, 64), threshold=0.5, min_area=INSIDE)
    study = simulate_repeatability(parts, fake, Simulation(repeats=6, noise_grey=0.3), batch_size=1)
    before = [image.tobytes() for image in judged]
    judged.clear()
    write_flips(study, parts, fake, tmp_path / "flips")
    assert len(judged) == 2
    assert all(image.tobytes() in before for image in judged)


@pytest.mark.parametrize("simulation", [None, Simulation(repeats=2, noise_grey=0)])
def test_the_depth_of_the_data_set_counts(tmp_path: Path, simulation: Simulation | None) -> None:
    """At 16 bits the spot would be black, and no part would flip between the pictures."""
    judged: list[int] = []

    def remember(images: np.ndarray) -> np.ndarray:
        judged.extend(int(image.max()) for image in images)
        return images.copy()

    root = tmp_path / "photos"
    for folder in ("1", "2"):
        (root / folder).mkdir(parents=True)
        image = np.zeros((64, 64), np.uint16)
        image[20:30, 20:30] = 2048 if folder == "1" else 2100
        cv2.imwrite(str(root / folder / "a.png"), image)
    (root / "dataset.toml").write_text("[images]\nbit_depth = 12\n")
    fake = FakeBackend(remember, contract=Contract(64, 64), threshold=0.505, min_area=16)
    if simulation is None:
        study = study_repeatability(root, fake)
        assert judged == [128, 131]
        assert [part.name for part in study.flips] == ["a.png"]
        judged.clear()
        assert write_flips(study, root, fake, tmp_path / "flips") == 1
    else:
        simulate_repeatability(root, fake, simulation)
        assert len(judged) == 4
    assert min(judged) > 100


def test_parts_without_two_usable_photographs_are_refused(tmp_path: Path) -> None:
    root = photographs(tmp_path / "p", {"1": {"a": 9}, "2": {"a": 9}})
    (root / "2" / "a.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="no part with two usable photographs"):
        study_repeatability(root, backend())


def test_the_verb_writes_its_files_and_exits_3_for_skipped_photographs(
    folder: Path, tiny_onnx: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = ["repeatability", str(folder), "-m", str(tiny_onnx)]
    assert run(tinyunet, [*command, "-o", str(out), "--format", "json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out) == json.loads((out / "repeatability.json").read_text())
    assert (out / "repeatability.svg").read_bytes().startswith(b"<?xml")
    assert "flips" in captured.err
    (folder / "lamp=new,1" / "bad.png").write_bytes(b"no image")
    assert run(tinyunet, command) == 3
    captured = capsys.readouterr()
    assert "skipped: lamp=new,1/bad.png: " in captured.err
    assert captured.out.startswith("8 photographs of 3 parts, 3 repeats\n")
    simulated = ["repeatability", str(folder / "lamp=new,2"), "-m", str(tiny_onnx)]
    assert run(tinyunet, [*simulated, "--simulate", "3", "--noise", "5"]) == 0
    assert "SIMULATED" in capsys.readouterr().out
    for wrong in (["--noise", "5"], ["--simulate", "1"], ["--simulate", "3", "--no-tile"]):
        assert run(tinyunet, [*simulated, *wrong]) == 2
