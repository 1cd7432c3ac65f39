"""Short training runs on tiny images, and what is read from them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.conftest import REPOSITORY
from tinyunet_deploy.artifacts.network import TinyUNet
from tinyunet_deploy.artifacts.sidecar import digest
from tinyunet_deploy.contract import Contract
from tinyunet_deploy.data.tiles import Tiling
from training.batches import Load, batch_loader
from training.recipe import Data, Recipe
from training.sources import Source
from training.validation import OperatingPoint

SMALL = Recipe(
    steps=6, batch=4, data=Data(defect_free=0.25, crop=32, crop_on_defect=0.5, validation=0.25)
)

AS_THEY_ARE = Tiling(Contract(16, 16), 16)
"""Of a model for which images with sides of multiples of 16 are not extended by mirroring."""


def final_bytes(run: Path) -> str:
    return digest((run / "checkpoint.safetensors").read_bytes())


def write_recipe(path: Path, lines: str) -> Path:
    path.write_text(
        f"batch = 4\n{lines}\n"
        "[data]\ndefect_free = 0.25\ncrop = 32\ncrop_on_defect = 0.5\nvalidation = 0.25\n"
    )
    return path


def torchrun(logs: Path, *words: object, restarts: int = 0) -> subprocess.Popen[str]:
    """Run a program as two processes on this machine; torchrun keeps its logs in a folder."""
    return subprocess.Popen(
        [
            sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2",
            "--max-restarts", str(restarts), "--log-dir", str(logs), "--standalone",
            *map(str, words),
        ],
        cwd=REPOSITORY, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={
            **os.environ,
            "PYTHONPATH": str(REPOSITORY),
            "OMP_NUM_THREADS": "1",
            "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
        },
    )  # fmt: skip


def losses(output: Path) -> list[float]:
    events = EventAccumulator(str(output / "tensorboard"))
    events.Reload()
    return [event.value for event in events.Scalars("loss")]


class ScriptedValidation:
    """Takes the place of the validation: an outcome for new weights, the same for known ones."""

    def __init__(self, *outcomes: tuple[int, float]) -> None:
        """Take escapes and iou_defective of each of 4 images, in the order of the steps."""
        self._outcomes = iter(outcomes)
        self._known: dict[bytes, OperatingPoint] = {}

    def __call__(self, network: TinyUNet, *_: object) -> OperatingPoint:
        weights = network.logit.weight.detach().numpy().tobytes()
        if weights not in self._known:
            escapes, iou = next(self._outcomes)
            self._known[weights] = OperatingPoint(0.35, 8, 4, 2, iou, escapes, 0, (1, 0))
        return self._known[weights]

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for module in ("loop", "validation"):
            monkeypatch.setattr(f"training.{module}.choose_operating_point", self)


def load_until(source: Source, recipe: Recipe, last: int) -> Load:
    """Batches of a run whose images are gone after step ``last``."""
    load = batch_loader([source], recipe, AS_THEY_ARE, torch.device("cpu"))

    def failing(step: int) -> Sequence[torch.Tensor]:
        if step >= last:
            raise OSError("the camera is gone")
        return load(step)

    return failing
