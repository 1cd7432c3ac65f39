"""On every backend of the table that runs on a CPU, tiles give the scores of the whole image."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from export.graph import onnx_graph
from tinyunet_deploy.artifacts.architectures import NETWORKS, Architecture
from tinyunet_deploy.artifacts.checkpoint import save_checkpoint
from tinyunet_deploy.artifacts.facts import NetworkFacts
from tinyunet_deploy.artifacts.network import DeployableGraph, TinyUNet
from tinyunet_deploy.artifacts.sidecar import Sidecar, digest, read_artifact, write_artifact
from tinyunet_deploy.backends.base import Backend
from tinyunet_deploy.backends.registry import load
from tinyunet_deploy.backends.table import BACKENDS, BackendRow, why_not
from tinyunet_deploy.contract import Contract, Image, Score
from tinyunet_deploy.data import synthetic
from tinyunet_deploy.data.tiles import Mosaic, Tiling, mirrored_window, score_in_tiles

TILE = Contract(96, 112)
WHOLE = Contract(200, 256)
SMALL = Architecture((4, 8), 8, 4)
ON_CPU = [
    row
    for row in BACKENDS.values()
    if "cpu" in row.devices and (row.compute is None or why_not(row) is None)
]
STEPS = 1
"""Largest difference that the guide to large images allows, of 255."""


LARGE = synthetic.sample(6, 1, defective=True, size=304).image


class Models(NamedTuple):
    """One network for images of one size, in each kind of file."""

    checkpoint: Path
    onnx: Path


def spread_network() -> TinyUNet:
    """A small network of two pools whose scores lie anywhere in 0..255."""
    network = TinyUNet("small")
    network.reset_parameters(torch.Generator().manual_seed(5))
    image = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        logit = network(image)
        network.logit.weight *= 1.5 / logit.std()
        assert network.logit.bias is not None
        network.logit.bias -= 1.5 * logit.mean() / logit.std()
    return network.eval()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Contract, Models]]:
    """The same weights for tiles and for the whole image."""
    folder = tmp_path_factory.mktemp("models")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(NETWORKS, "small", SMALL)
        network = spread_network()
        files = {}
        for contract in (TILE, WHOLE):
            checkpoint = folder / f"{contract.height}.safetensors"
            parent = save_checkpoint(checkpoint, network, contract, origin={})
            data = onnx_graph(network, contract)
            sidecar = Sidecar(
                "onnx", "fp32", digest(data), parent.sha256, contract, network=network.facts
            )
            write_artifact(checkpoint.with_suffix(".onnx"), data, sidecar)
            files[contract] = Models(checkpoint, checkpoint.with_suffix(".onnx"))
        yield files


@pytest.fixture(scope="module")
def graph() -> DeployableGraph:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(NETWORKS, "small", SMALL)
        return DeployableGraph(spread_network()).eval()


def opened(row: BackendRow, models: Models) -> Backend:
    path = models.onnx if "onnx" in row.kinds else models.checkpoint
    return load(read_artifact(path), row, "cpu")


def score_with(backend: Backend, image: Image) -> Score:
    score: Score = backend.run(image[None, None]).score[0, 0]
    return score


def difference(one: Score, other: Score) -> int:
    return int(np.abs(one.astype(np.int16) - other).max())


@pytest.mark.parametrize("row", ON_CPU, ids=lambda row: row.name)
def test_tiles_have_the_scores_of_the_whole_image(
    row: BackendRow, models: dict[Contract, Models]
) -> None:
    """Of one that fits the size multiple, and of one that is mirrored on to it."""
    large = synthetic.sample(6, 1, defective=True, size=256).image[: WHOLE.height]
    with opened(row, models[TILE]) as tiles, opened(row, models[WHOLE]) as whole:
        tiling = tiles.artifact.sidecar.tiling
        assert tiling.reach == SMALL.reach
        for height, width in ((200, 256), (197, 253)):
            image = np.ascontiguousarray(large[:height, :width])
            assert Mosaic(image, tiling).exact and tiling.tile_count(image.shape) > 4
            mirrored = mirrored_window(image, 0, 0, WHOLE.height, WHOLE.width)
            expected = score_with(whole, mirrored)[:height, :width]
            assert expected.std() > 20, "scores that could differ"
            score = score_in_tiles(image, lambda tile: score_with(tiles, tile), tiling)
            assert difference(score, expected) <= STEPS


@pytest.mark.parametrize("row", ON_CPU, ids=lambda row: row.name)
def test_a_padded_image_has_the_scores_of_the_mirrored_one(
    row: BackendRow, models: dict[Contract, Models]
) -> None:
    """Whatever size the model has: beyond the image it sees mirrored pixels."""
    image = np.ascontiguousarray(synthetic.sample(6, 1, defective=True, size=64).image[:, :50])
    scores = []
    with opened(row, models[TILE]) as small, opened(row, models[WHOLE]) as large:
        for backend in (small, large):
            tiling = backend.artifact.sidecar.tiling
            assert tiling.tile_count(image.shape) == 1
            scores.append(score_in_tiles(image, lambda tile: score_with(backend, tile), tiling))  # noqa: B023
    assert scores[0].shape == image.shape and scores[0].std() > 20
    assert difference(*scores) <= STEPS


@settings(max_examples=15)
@given(height=st.integers(16, 300), width=st.integers(16, 300))
def test_an_image_of_any_size_has_the_scores_of_the_whole(
    graph: DeployableGraph, height: int, width: int
) -> None:
    """Smaller, larger, or both along one side each, in PyTorch, which takes every size."""
    tiling = Tiling(TILE, SMALL.size_multiple, SMALL.reach)
    image = LARGE[:height, :width]
    whole = max(TILE.height, -(-height // 4) * 4), max(TILE.width, -(-width // 4) * 4)

    def score(pixels: Image) -> Score:
        with torch.inference_mode():
            scores: Score = graph(
                torch.from_numpy(np.ascontiguousarray(pixels))[None, None]
            ).numpy()
        return scores[0, 0]

    expected = score(mirrored_window(image, 0, 0, *whole))[:height, :width]
    assert difference(score_in_tiles(image, score, tiling), expected) <= STEPS


def test_without_a_known_reach_or_with_a_wrong_one_tiles_are_not_exact(
    models: dict[Contract, Models],
) -> None:
    """What the test above would find: scores at seams that depend on more than the tile has."""
    large = synthetic.sample(6, 1, defective=True, size=256).image[: WHOLE.height]
    row = BACKENDS["torch"]
    with opened(row, models[TILE]) as tiles, opened(row, models[WHOLE]) as whole:
        expected = score_with(whole, large)
        for facts in (NetworkFacts("x", 4, 0, 0), NetworkFacts("x", 4)):
            tiling = Tiling(TILE, facts.size_multiple, facts.reach)
            score = score_in_tiles(large, lambda tile: score_with(tiles, tile), tiling)
            assert difference(score, expected) > STEPS
            assert Mosaic(large, tiling).exact == (facts.reach is not None)
