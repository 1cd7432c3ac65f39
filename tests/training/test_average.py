from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.small_runs import SMALL
from tinyunet_deploy.artifacts.checkpoint import load_checkpoint
from tinyunet_deploy.artifacts.golden import read_golden
from tinyunet_deploy.artifacts.sidecar import read_artifact, read_sidecar, write_sidecar
from tinyunet_deploy.cli import run
from tinyunet_deploy.contract import Contract
from training.average import average, write_average
from training.data_folders import DataFolders
from training.loop import train
from training.machine import Machine
from training.recipe import Recipe
from training.sources import read_source
from training.validation import OperatingPoint, choose_operating_point


def trained(folder: Path, data: Path, recipe: Recipe, init: Path | None = None) -> Path:
    """Train a run with its record of the data, as the command does; return its folder."""
    sources = [read_source(data, None, recipe)]
    folders = DataFolders((data,), None, None, ())
    train(recipe, sources, folder, machine=Machine(), init=init, data=folders)
    return folder


@pytest.fixture(scope="module")
def runs(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three runs that began with the same checkpoint."""
    root = tmp_path_factory.mktemp("runs")
    first = trained(root / "first", tiny_data, SMALL)
    start = first / "checkpoint.safetensors"
    return [
        trained(root / f"{seed}", tiny_data, dataclasses.replace(SMALL, seed=seed), start)
        for seed in (1, 2, 3)
    ]


def copied(run_folder: Path, to: Path, **record: object) -> Path:
    """Copy a run, with other facts in its record."""
    shutil.copytree(run_folder, to)
    fields = json.loads((to / "run.json").read_text()) | record
    (to / "run.json").write_text(json.dumps(fields))
    return to


def test_every_weight_is_the_mean(runs: list[Path], tmp_path: Path) -> None:
    output = tmp_path / "new" / "mean.safetensors"
    point = write_average(runs, output)
    mean, sidecar = load_checkpoint(output)
    states = [load_checkpoint(folder / "checkpoint.safetensors")[0].state_dict() for folder in runs]
    for name, value in mean.state_dict().items():
        expected = (states[0][name] + states[1][name] + states[2][name]) / 3
        torch.testing.assert_close(value, expected, atol=1e-7, rtol=1e-6)
    assert {origin["recipe"]["seed"] for origin in sidecar.origin["mean_of"]} == {1, 2, 3}
    assert (sidecar.threshold, sidecar.min_area) == (point.threshold, point.min_area)
    images, _ = read_golden(read_artifact(output))
    assert len(images), "it can be verified, as the checkpoint of a run"


def test_its_images_are_those_of_all_and_the_held_out_ones_chose(
    runs: list[Path], tmp_path: Path
) -> None:
    output = tmp_path / "mean.safetensors"
    point = write_average(runs[:2], output)
    mean = read_sidecar(output)
    for folder in runs[:2]:
        own = read_sidecar(folder / "checkpoint.safetensors")
        assert set(own.trained_on) <= set(mean.trained_on)
        assert mean.tuned_on == own.tuned_on
    assert point.as_dict()["validation_images"] == len(mean.tuned_on) > 0
    assert not set(mean.tuned_on) & set(mean.trained_on)


def test_its_rule_is_the_chosen_one(
    runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such short runs may choose 0.5 and 1 pixel, which a checkpoint has by default, too."""

    def choose(*arguments: Any) -> OperatingPoint:
        chosen = choose_operating_point(*arguments)
        return dataclasses.replace(chosen, threshold=0.35, min_area=7)

    monkeypatch.setattr("training.average.choose_operating_point", choose)
    write_average(runs[:2], tmp_path / "mean.safetensors")
    mean = read_sidecar(tmp_path / "mean.safetensors")
    assert (mean.threshold, mean.min_area) == (0.35, 7)


def test_images_and_teachers_of_any_of_them_count(runs: list[Path], tmp_path: Path) -> None:
    """The digests of one run's earlier images, and a teacher that only one of them had."""
    folders = [copied(folder, tmp_path / folder.name) for folder in runs[:2]]
    alike: dict[str, Any] = {"teacher": "a" * 64, "bits": 12}
    changes = (alike, {**alike, "trained_on": ("b" * 64,)})
    for folder, fields in zip(folders, changes, strict=True):
        checkpoint = folder / "checkpoint.safetensors"
        write_sidecar(checkpoint, dataclasses.replace(read_sidecar(checkpoint), **fields))
    write_average(folders, tmp_path / "mean.safetensors")
    mean = read_sidecar(tmp_path / "mean.safetensors")
    own = read_sidecar(runs[0] / "checkpoint.safetensors").trained_on
    assert set(mean.trained_on) == {*own, "b" * 64}
    assert (mean.teacher, mean.bits) == ("a" * 64, 12)
    write_average([folders[0], runs[1]], tmp_path / "mean.safetensors")
    assert read_sidecar(tmp_path / "mean.safetensors").teacher is None


def test_the_order_does_not_matter(runs: list[Path], tmp_path: Path) -> None:
    for name, folders in (("one", runs), ("other", runs[::-1])):
        write_average(folders, tmp_path / f"{name}.safetensors")
    for suffix in (".safetensors", ".safetensors.json"):
        assert len({(tmp_path / f"{n}{suffix}").read_bytes() for n in ("one", "other")}) == 1


def refused(folders: list[Path], output: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert run(average, [*map(str, folders), "-o", str(output)]) != 0
    assert not output.exists()
    return capsys.readouterr().err


def test_runs_that_have_no_mean_are_refused(
    runs: list[Path], tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "mean.safetensors"
    same = copied(runs[0], tmp_path / "same")
    assert f"has the same weights as {runs[0]}" in refused([runs[0], same], output, capsys)
    other = copied(runs[1], tmp_path / "other", data_sha256="0" * 64)
    assert "has another set of images than" in refused([runs[0], other], output, capsys)
    slim = trained(tmp_path / "slim", tiny_data, dataclasses.replace(SMALL, variant="slim"))
    assert "has another network than" in refused([runs[0], slim], output, capsys)
    large = copied(runs[1], tmp_path / "large")
    checkpoint = large / "checkpoint.safetensors"
    size = dataclasses.replace(read_sidecar(checkpoint), contract=Contract(512, 512))
    write_sidecar(checkpoint, size)
    assert "has another size than" in refused([runs[0], large], output, capsys)
    (other / "checkpoint.safetensors.json").unlink()
    error = refused([runs[0], other], output, capsys)
    assert f"{other}: is not finished (python -m training finish {other})" in error
    (tmp_path / "empty").mkdir()
    error = refused([runs[0], tmp_path / "empty"], output, capsys)
    assert "is not the folder of a run" in error


def test_a_run_whose_images_changed_is_refused(
    tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    shutil.copytree(tiny_data, data)
    folders = [
        trained(tmp_path / f"{seed}", data, dataclasses.replace(SMALL, seed=seed, steps=1))
        for seed in (1, 2)
    ]
    image = next(iter(sorted(data.rglob("Train/*.PNG"))))
    image.unlink()
    assert refused(folders, tmp_path / "mean.safetensors", capsys)


def test_one_run_is_not_averaged_and_none_is_replaced(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "give two runs or more" in refused(runs[:1], tmp_path / "mean.safetensors", capsys)
    checkpoint = runs[0] / "checkpoint.safetensors"
    before = checkpoint.read_bytes()
    assert run(average, [*map(str, runs), "-o", str(checkpoint)]) == 2
    assert "is of one of the runs" in capsys.readouterr().err
    assert checkpoint.read_bytes() == before


def test_a_run_starts_from_it(
    runs: list[Path], tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "mean.safetensors"
    assert run(average, [*map(str, runs), "-o", str(output)]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["threshold"] == read_sidecar(output).threshold
    new = trained(tmp_path / "run", tiny_data, SMALL, output)
    sidecar = read_sidecar(new / "checkpoint.safetensors")
    assert sidecar.origin["init_sha256"] == read_sidecar(output).sha256
