"""Tiny data to train on, and a finished run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.small_runs import SMALL
from tinyunet_deploy.data import synthetic
from training.loop import train
from training.machine import Machine
from training.sources import read_source


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two synthetic classes of 64x64 pixels."""
    root = tmp_path_factory.mktemp("training") / "data"
    synthetic.write_dataset(root, classes=[1, 9], train=8, test=2, defective=0.5, size=64)
    return root


@pytest.fixture(scope="session")
def finished(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed run of SMALL."""
    output = tmp_path_factory.mktemp("finished") / "run"
    train(SMALL, [read_source(tiny_data, None, SMALL)], output, machine=Machine())
    return output
