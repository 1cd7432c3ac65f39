"""Short training runs on tiny images, and what is read from them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.conftest import REPOSITORY
from tinyunet_deploy.artifacts.sidecar import digest
from training.recipe import Data, Recipe

SMALL = Recipe(
    steps=6, batch=4, data=Data(defect_free=0.25, crop=32, crop_on_defect=0.5, validation=0.25)
)


def final_bytes(run: Path) -> str:
    return digest((run / "checkpoint.safetensors").read_bytes())


def write_recipe(path: Path, lines: str) -> Path:
    path.write_text(
        f"batch = 4\n{lines}\n"
        "[data]\ndefect_free = 0.25\ncrop = 32\ncrop_on_defect = 0.5\nvalidation = 0.25\n"
    )
    return path


def launch(*arguments: object, restarts: int = 0) -> subprocess.Popen[str]:
    """``python -m training`` as two processes on this machine."""
    return subprocess.Popen(
        [
            sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2",
            "--max-restarts", str(restarts), "--standalone", "-m", "training",
            *map(str, arguments),
        ],
        cwd=REPOSITORY, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"},
    )  # fmt: skip


def losses(output: Path) -> list[float]:
    events = EventAccumulator(str(output / "tensorboard"))
    events.Reload()
    return [event.value for event in events.Scalars("loss")]
