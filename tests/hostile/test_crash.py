"""Killed with SIGKILL at every change of its files, a command ends where it would have, rerun."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.faults import Forge, record, tree
from tinyunet_deploy.artifacts.sidecar import digest, read_sidecar
from tinyunet_deploy.data import synthetic
from tinyunet_deploy.data.encoding import write_png
from tinyunet_deploy.files import is_temporary

QUICK, RANDOM = 6, 50
"""Kills of each command in ``make test``, and random ones beside all others in the nightly."""


@pytest.fixture(scope="module")
def forge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forge]:
    with Forge("infer", tmp_path_factory.mktemp("forge")) as forge:
        yield forge


@pytest.fixture(scope="module")
def training_forge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forge]:
    with Forge("training", tmp_path_factory.mktemp("forge")) as forge:
        yield forge


@pytest.fixture(scope="module")
def station(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty images in two folders, one of them broken."""
    folder = tmp_path_factory.mktemp("twenty")
    random_pixels = np.random.default_rng(0)
    for number in range(20):
        path = folder / f"day {number % 2}" / f"{number:02}.png"
        path.parent.mkdir(exist_ok=True)
        write_png(path, random_pixels.integers(0, 255, (64, 64), np.uint8))
    (folder / "day 0" / "04.png").write_bytes(b"")
    return folder


Check = Callable[[Path, dict[str, bytes]], None]


class Killed:
    """A command whose output folder is compared with that of an undisturbed run."""

    def __init__(
        self,
        forge: Forge,
        words: tuple[object, ...],
        folder: Path,
        check: Check,
        *,
        file: str = "",
    ) -> None:
        self._forge = forge
        self._file = file
        self._words = words
        self._folder = folder
        self._check = check
        self._count = 0
        output = folder / "undisturbed"
        first = forge.run(*words, "-o", output / file, folder=output)
        assert first.code in (0, 3), first
        self.reference = tree(output)
        self.changes = first.changes

    def at(self, *kills: int) -> None:
        """Kill runs on one folder at these changes, one after another, then let one finish."""
        self._count += 1
        output = self._folder / f"{self._count}"
        for kill in kills:
            outcome = self._forge.run(
                *self._words, "-o", output / self._file, folder=output, kill_at=kill
            )
            assert outcome.code in (137, 0, 3), outcome
            self._check(output, self.reference)
        outcome = self._forge.run(*self._words, "-o", output / self._file)
        assert outcome.code in (0, 3), (kills, outcome)
        assert tree(output) == self.reference, kills


def spread(count: int, most: int) -> list[int]:
    """``most`` of the numbers 1..count, the last one among them."""
    return sorted({count - round(index * count / most) for index in range(most)})


def check_inspection(output: Path, reference: dict[str, bytes]) -> None:
    for name, data in tree(output).items():
        if name in ("report.jsonl", "defects.csv"):
            lines = data.splitlines()[:-1]
            assert set(lines) <= set(reference[name].splitlines())
        elif not is_temporary(Path(name).name):
            assert data == reference[name], name


def check_run(output: Path, reference: dict[str, bytes]) -> None:
    for name, data in tree(output).items():
        if name.startswith("state-") and name.endswith(".safetensors"):
            about = json.loads((output / name).with_suffix(".json").read_text())
            assert about["sha256"] == digest(data), name
        elif name.startswith("state-") and name.endswith(".json"):
            json.loads(data)
        elif name == "checkpoint.safetensors.json":
            read_sidecar(output / "checkpoint.safetensors")
        elif not is_temporary(Path(name).name):
            assert data == reference[name], name


def check_models(output: Path, reference: dict[str, bytes]) -> None:
    for name, data in tree(output).items():
        if name.endswith(".json"):
            read_sidecar((output / name).with_suffix(""))
        elif not is_temporary(Path(name).name):
            assert data == reference[name], name


@pytest.fixture
def inspection(forge: Forge, station: Path, tiny_onnx: Path, tmp_path: Path) -> Killed:
    words = (station, "-m", tiny_onnx, "--backend", "onnxruntime", "-b", 3, "--workers", 2)
    return Killed(forge, (*words, "--threshold", 0.55), tmp_path, check_inspection)


@pytest.fixture
def run(training_forge: Forge, tmp_path: Path) -> Killed:
    data = tmp_path / "data"
    synthetic.write_dataset(data, classes=[1], train=6, test=1, defective=0.5, size=64)
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        "steps = 4\nbatch = 1\nvalidate_every = 2\n"
        "[data]\ncrop = 32\ncrop_on_defect = 0.5\nvalidation = 0.3\n"
    )
    words = (recipe, "--data", data, "--save-every", 1)
    return Killed(training_forge, words, tmp_path, check_run)


@pytest.fixture
def export(tiny_checkpoint: Path, tmp_path: Path) -> Iterator[Killed]:
    scratch = tmp_path / "forge"
    scratch.mkdir()
    with Forge("export", scratch) as forge:
        yield Killed(forge, (tiny_checkpoint,), tmp_path, check_models, file="model.onnx")


def test_an_inspection_killed_at_any_change(inspection: Killed) -> None:
    assert inspection.changes.count("rename") == 19 + 2, "masks, run.json, defects.csv"
    assert inspection.changes.count("fsync") >= 3
    for kill in spread(len(inspection.changes), QUICK):
        inspection.at(kill)


def test_an_inspection_killed_again_and_again(inspection: Killed) -> None:
    inspection.at(60, 30, 1, 10, 20)


def test_a_training_run_killed_at_any_change(run: Killed) -> None:
    assert run.changes.count("rename") >= 2 * 3 + 4
    for kill in spread(len(run.changes), QUICK):
        run.at(kill)


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("what", "family", "at_random"),
    [
        ("inspection", "crash_infer", RANDOM),
        ("run", "crash_train", RANDOM),
        ("export", "crash_export", 10),
    ],
)
def test_killed_at_every_change(
    what: str, family: str, at_random: int, request: pytest.FixtureRequest
) -> None:
    command = request.getfixturevalue(what)
    every = range(1, len(command.changes) + 1)
    for kill in every:
        command.at(kill)
    chance = random.Random(0)
    for _ in range(at_random):
        command.at(*chance.choices(every, k=chance.randint(1, 3)))
    record(family, {"boundaries": len(every), "random": at_random, "reruns_unlike_reference": 0})
