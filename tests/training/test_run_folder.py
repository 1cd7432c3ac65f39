from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.small_runs import SMALL
from tinyunet_deploy.errors import DataError, RefusedError
from tinyunet_deploy.inspection.folder_lock import lock_folder
from training.loop import train
from training.machine import Machine
from training.recipe import Recipe
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
