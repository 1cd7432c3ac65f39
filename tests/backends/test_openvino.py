from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tests.conftest import SIZE
from tinyunet_deploy.backends import openvino as module
from tinyunet_deploy.backends.openvino import OpenVINOBackend
from tinyunet_deploy.backends.registry import open_backend

REQUEST_S = 0.1


class ScriptedNetwork:
    """Requests that run one after the other, each for :data:`REQUEST_S` of a scripted clock."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.free_s = 0.0
        """When the processors have finished all requests that were started."""

    def create_infer_request(self) -> ScriptedRequest:
        return ScriptedRequest(self)


class ScriptedRequest:
    def __init__(self, network: ScriptedNetwork) -> None:
        self._network = network
        self._end_s = 0.0

    def set_input_tensor(self, _tensor: object) -> None:
        pass

    def start_async(self) -> None:
        self._end_s = max(self._network.now_s, self._network.free_s) + REQUEST_S
        self._network.free_s = self._end_s

    def wait(self) -> None:
        self._network.now_s = max(self._network.now_s, self._end_s)

    def get_output_tensor(self, _index: int) -> SimpleNamespace:
        return SimpleNamespace(data=np.zeros((1, 1, SIZE, SIZE), np.uint8))


@pytest.fixture
def scripted(tiny_onnx: Path, monkeypatch: pytest.MonkeyPatch) -> OpenVINOBackend:
    network = ScriptedNetwork()
    backend = open_backend(tiny_onnx, "openvino")
    assert isinstance(backend, OpenVINOBackend)
    monkeypatch.setattr(backend, "_network", lambda _images: network)
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: network.now_s))
    return backend


@pytest.mark.parametrize("batch_size", [1, 2])
def test_a_batch_begun_ahead_counts_from_the_end_of_the_one_before(
    scripted: OpenVINOBackend, batch_size: int
) -> None:
    """Each batch starts while the one before still runs: their device times do not overlap."""
    batch = np.zeros((batch_size, 1, SIZE, SIZE), np.uint8)
    runs = list(scripted.run_many([batch] * 5))
    assert [run.device_ms for run in runs] == pytest.approx([batch_size * REQUEST_S * 1e3] * 5)


def test_a_single_batch_counts_from_its_start(scripted: OpenVINOBackend) -> None:
    batch = np.zeros((3, 1, SIZE, SIZE), np.uint8)
    assert scripted.run(batch).device_ms == pytest.approx(3 * REQUEST_S * 1e3)
    assert scripted.run(batch).device_ms == pytest.approx(3 * REQUEST_S * 1e3)


def test_scores_are_put_where_the_caller_wants_them(tiny_onnx: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 1, SIZE, SIZE), np.uint8)
    with open_backend(tiny_onnx, "openvino") as backend:
        expected = backend.run(images).score
        scores = np.zeros_like(images)
        with backend.scores_into(lambda _: scores):
            assert np.shares_memory(backend.run(images).score, scores)
    assert np.array_equal(scores, expected)
