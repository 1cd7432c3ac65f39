from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.small_runs import SMALL
from tinyunet_deploy.errors import DataError, RefusedError
from tinyunet_deploy.inspection.folder_lock import lock_folder
from training.loop import train
from training.machine import Machine
from training.recipe import Recipe
from training.run_folder import claim_folder
from training.sources import read_source


def test_a_folder_of_another_run_is_refused(finished: Path, tiny_data: Path):
    source = read_source(tiny_data, None, SMALL)
    for other, what in ((Recipe(steps=5), "recipe"), (SMALL, "precision")):
        with pytest.raises(DataError, match=what):
            train(other, [source], finished, machine=Machine(amp=True))


def test_a_folder_in_use_is_refused(tiny_data: Path, tmp_path: Path):
    lock = lock_folder(tmp_path)
    try:
        with pytest.raises(RefusedError, match="is in use by process"):
            train(SMALL, [read_source(tiny_data, None, SMALL)], tmp_path, machine=Machine())
    finally:
        lock.close()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("damage", ["", "{", "[]", "[" * 100_000, '{"amp": 1, "amp": 1}'])
def test_a_folder_whose_record_is_damaged_is_refused(tmp_path: Path, damage: str) -> None:
    (tmp_path / "run.json").write_text(damage)
    with pytest.raises(DataError, match=r"run\.json: is not readable: ") as caught:
        claim_folder(tmp_path, {})
    assert "\n" not in str(caught.value)
