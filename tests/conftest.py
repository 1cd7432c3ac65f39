from __future__ import annotations

import os
import random
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # as many processes as processors: before numpy is imported
    # OpenMP's threads wait in a loop for one another. Where processes share the processors, a step
    # of training on two threads took ninety times the processor time of one thread.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
from hypothesis import settings

from tinyunet_deploy.contract import Contract, Image
from tinyunet_deploy.data.encoding import write_png

settings.register_profile("here", deadline=None)  # a busy machine is no failure
settings.load_profile("here")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Let every test draw the same numbers in every run, whatever ran before it."""
    random.seed(0)
    np.random.seed(0)
    torch = sys.modules.get("torch")  # importing it takes seconds
    if torch is not None:
        torch.manual_seed(0)


REPOSITORY = Path(__file__).resolve().parent.parent
SIZE = 64
"""Height and width of the images of the tiny artifacts."""


@pytest.fixture(scope="session", autouse=True)
def interrupts() -> Iterator[None]:
    """Let programs take SIGINT: a shell that starts tests in the background has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def real_dagm2007() -> Path:
    """Real DAGM2007 images, which lie beside the repository where they are present."""
    folder = REPOSITORY.parent / "shared" / "dagm2007"
    if not folder.is_dir():
        pytest.skip("no real DAGM2007 images beside the repository")
    return folder


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of an untrained network for 64x64 images. Not to be changed: copy it."""
    import torch

    from tinyunet_deploy.artifacts.checkpoint import save_checkpoint
    from tinyunet_deploy.artifacts.network import TinyUNet

    network = TinyUNet()
    network.reset_parameters(torch.Generator().manual_seed(0))
    path = tmp_path_factory.mktemp("artifacts") / "tiny.safetensors"
    contract = Contract(SIZE, SIZE)
    save_checkpoint(path, network, contract, threshold=0.45, min_area=3, origin={"recipe": "none"})
    return path


@pytest.fixture(scope="session")
def tiny_onnx(tiny_checkpoint: Path) -> Path:
    """The same network as an ONNX file, beside its checkpoint. Not to be changed: copy it."""
    from export.graph import onnx_graph
    from tinyunet_deploy.artifacts.checkpoint import load_checkpoint
    from tinyunet_deploy.artifacts.sidecar import Sidecar, digest, write_artifact

    network, parent = load_checkpoint(tiny_checkpoint)
    data = onnx_graph(network, parent.contract)
    sidecar = Sidecar(
        kind="onnx",
        precision="fp32",
        sha256=digest(data),
        parent=parent.sha256,
        contract=parent.contract,
        threshold=parent.threshold,
        min_area=parent.min_area,
    )
    path = tiny_checkpoint.with_suffix(".onnx")
    write_artifact(path, data, sidecar)
    return path


def part(seed: int, *, height: int = SIZE, width: int = SIZE) -> Image:
    """A dark image with a few bright rectangles, which are the defects that the fake backend finds.

    Every third one has none.
    """
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 100, (height, width), dtype=np.uint8)
    for _ in range(seed % 3):
        y, x = rng.integers(0, height - 8), rng.integers(0, width - 8)
        image[y : y + rng.integers(2, 8), x : x + 5] = rng.integers(150, 256)
    return image


@pytest.fixture
def station(tmp_path: Path) -> Path:
    """A folder tree of seven 64x64 images as an inspection station leaves it."""
    folder = tmp_path / "station"
    names = ["day 1/a.png", "day 1/b.PNG", "day 1/left/a.png", "day 2/a.png"]
    names += ["day 2/c.png", "day-3.png", "z/y/x.png"]
    for seed, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_png(path, part(seed))
    return folder
