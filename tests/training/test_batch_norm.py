"""Batch normalisation helps a network to learn; the checkpoint does the same without it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.training.small_runs import SMALL, final_bytes, load_until
from tinyunet_deploy.artifacts.architectures import Architecture
from tinyunet_deploy.artifacts.checkpoint import load_checkpoint
from tinyunet_deploy.artifacts.network import make_network
from tinyunet_deploy.artifacts.packaged import PACKAGED
from tinyunet_deploy.errors import RefusedError
from training.batch_norm import add_batch_norm, keep_answers, plain_network, plain_weights
from training.distributed import Ranks
from training.loop import train
from training.machine import Machine
from training.recipe import AdamW, Staircase
from training.sources import read_source

SLIM = PACKAGED["slim"].with_suffix(".safetensors")
BLOCKS = Architecture(encoder=(8, 8), bottleneck=8, head=8, space_to_depth=4)
NORMALIZED = replace(
    SMALL, variant="blocks", network=BLOCKS, batch_norm=True, optimizer=AdamW(), validate_every=2
)


def test_the_plain_network_scores_as_the_normalised_one() -> None:
    torch.manual_seed(0)
    network = make_network("blocks", BLOCKS)
    assert plain_network(network) is network
    names = set(network.state_dict())
    add_batch_norm(network)
    network.train()
    for _ in range(5):  # running means and variances of their own
        network(3.0 * torch.randn(4, 1, 32, 32) + 1.0)
    image_NCHW = torch.randn(2, 1, 64, 48)
    plain = plain_network(network.eval())
    with torch.inference_mode():
        expected = network(image_NCHW)
        assert torch.allclose(plain(image_NCHW), expected, atol=1e-4 * float(expected.std()))
    assert set(plain_weights(network)) == names
    assert torch.equal(plain.logit.weight, network.logit.weight)  # the last one is left alone


def test_a_normalised_run_resumes_to_the_same_bytes(tiny_data: Path, tmp_path: Path) -> None:
    """From random weights, and from those of the run before."""
    source = read_source(tiny_data, None, NORMALIZED)
    init = None
    for name in ("random", "trained"):
        whole, resumed = tmp_path / name / "whole", tmp_path / name / "resumed"
        checkpoint = train(NORMALIZED, [source], whole, machine=Machine(), init=init)
        with pytest.raises(OSError, match="the camera is gone"):
            train(
                NORMALIZED, [source], resumed, machine=Machine(save_every=3), init=init,
                load=load_until(source, NORMALIZED, 4),
            )  # fmt: skip
        train(NORMALIZED, [source], resumed, machine=Machine(), init=init)
        assert final_bytes(resumed) == final_bytes(whole)
        assert load_checkpoint(checkpoint)[0].facts.architecture == BLOCKS
        init = checkpoint


def test_a_trained_network_starts_with_its_answers() -> None:
    network, _ = load_checkpoint(SLIM)
    image_NCHW = torch.randn(2, 1, 64, 64)
    with torch.no_grad():
        expected = network(image_NCHW)
        add_batch_norm(network)
        keep_answers(network, image_NCHW)
        plain = plain_network(network)
        assert torch.allclose(plain(image_NCHW), expected, atol=1e-3)
        assert network.training
        assert torch.allclose(network(image_NCHW), expected, atol=1e-3)


def test_a_normalised_run_starts_from_a_checkpoint(tiny_data: Path, tmp_path: Path) -> None:
    still = replace(
        SMALL, variant="slim", start="package", steps=1, batch_norm=True,
        schedule=Staircase(rate=0.0),
    )  # fmt: skip
    source = read_source(tiny_data, None, still)
    checkpoint = train(still, [source], tmp_path, machine=Machine())
    network, _ = load_checkpoint(checkpoint)
    package, _ = load_checkpoint(SLIM)
    image_NCHW = torch.from_numpy(source.defective[0].image)[None, None] / 255.0
    with torch.no_grad():
        before, after = package(image_NCHW), network(image_NCHW)
    assert float((after - before).abs().mean()) < 0.1 * float(before.std())


def test_it_is_for_one_process(tiny_data: Path, tmp_path: Path) -> None:
    source = read_source(tiny_data, None, NORMALIZED)
    with pytest.raises(RefusedError, match="is for one process, not for 2"):
        train(NORMALIZED, [source], tmp_path, machine=Machine(), ranks=Ranks(size=2))
