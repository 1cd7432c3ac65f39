"""Adopted networks: proven, described, and taken by every verb."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from tests.foreign_networks import NETWORKS
from tinyunet_deploy.artifacts.sidecar import read_artifact
from tinyunet_deploy.cli import run, tinyunet


def adopt(folder: Path, name: str, *more: str) -> Path:
    """Adopt one of the networks; return the path of the adopted file."""
    make, options = NETWORKS[name]
    original = folder / f"{name}-original.onnx"
    original.write_bytes(make())
    output = folder / f"{name}.onnx"
    assert run(tinyunet, ["adopt", str(original), "-o", str(output), *options, *more]) == 0
    return output


@pytest.fixture(scope="module")
def adopted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """All networks, adopted. Not to be changed: copy them."""
    folder = tmp_path_factory.mktemp("adopted")
    return {name: adopt(folder, name) for name in NETWORKS}


def scores(path: Path, image: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(path)
    (result,) = session.run(None, {session.get_inputs()[0].name: image})
    return result


def test_every_network_is_proven_and_described(adopted: dict[str, Path]) -> None:
    facts = {}
    for name, path in adopted.items():
        sidecar = read_artifact(path).sidecar
        adoption, network = sidecar.adoption, sidecar.network
        assert adoption is not None and network is not None
        assert adoption.proof_steps <= 1 and adoption.proof_images == 5 and sidecar.golden
        facts[name] = (
            adoption.input_layout,
            adoption.activation,
            adoption.batch,
            adoption.size,
            network.size_multiple,
            network.reach,
        )
    assert facts == {
        "rgb-logits": ("NCHW", "sigmoid", "free", "fixed", 2, (6, 6)),
        "rgb-sigmoid-nhwc": ("NHWC", "probability", "free", "fixed", 2, (6, 6)),
        "grey-softmax": ("NCHW", "probability", "free", "fixed", 2, (6, 6)),
        "bytes-nhwc": ("NHWC", "bytes", "free", "fixed", 2, (6, 6)),
        "static-freeable": ("NCHW", "sigmoid", "free", "fixed", 1, (3, 3)),
        "static": ("NCHW", "sigmoid", "fixed", "fixed", 1, (3, 3)),
        "free-size": ("NCHW", "sigmoid", "free", "free", 2, (6, 6)),
        "transformer": ("NCHW", "sigmoid", "free", "fixed", None, None),
    }
