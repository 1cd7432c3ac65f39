"""Every backend of the table keeps the public contract; those of NVIDIA through the fakes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tinyunet_deploy.artifacts.facts import PlanFacts, Profile
from tinyunet_deploy.artifacts.sidecar import Artifact, Sidecar, digest
from tinyunet_deploy.backends.base import Backend
from tinyunet_deploy.backends.registry import open_backend
from tinyunet_deploy.backends.table import BACKENDS, BackendRow, why_not
from tinyunet_deploy.backends.tensorrt import TensorRTBackend
from tinyunet_deploy.contract import Batch, Contract
from tinyunet_deploy.testing.backend_contract import BackendContract
from tinyunet_deploy.testing.fake_backend import FakeBackend
from tinyunet_deploy.testing.fake_cuda import FakeDevice
from tinyunet_deploy.testing.fake_tensorrt import FakeTensorRT

ON_CPU = [
    row
    for row in BACKENDS.values()
    if "cpu" in row.devices and (row.compute is None or why_not(row) is None)
]


@pytest.mark.parametrize("row", ON_CPU, ids=lambda row: row.name)
class TestTable(BackendContract):
    @pytest.fixture
    def backend(self, row: BackendRow, tiny_checkpoint: Path, tiny_onnx: Path) -> Iterator[Backend]:
        model = tiny_onnx if "onnx" in row.kinds else tiny_checkpoint
        with open_backend(model, row, "cpu") as backend:
            yield backend


class TestTensorRT(BackendContract):
    @pytest.fixture
    def backend(self) -> Iterator[Backend]:
        facts = PlanFacts("tensorrt", "11.4.0.106", "Fake GPU", "8.6", Profile(2, 2, 4))
        contract = Contract(16, 16, max_batch=4)
        sidecar = Sidecar("plan", "fp32", digest(b"plan"), None, contract, plan=facts)
        device = FakeDevice()
        trt = FakeTensorRT(device, least=2)
        artifact = Artifact(Path("a.plan"), b"plan", sidecar)
        with TensorRTBackend(artifact, tensorrt=trt.library, gpu=device) as backend:
            yield backend


class TestFake(BackendContract):
    steps = 0

    @pytest.fixture
    def backend(self) -> Iterator[Backend]:
        with FakeBackend(contract=Contract(16, 32, max_batch=3)) as backend:
            yield backend


def test_a_backend_that_mixes_its_batch_fails_the_suite() -> None:
    def mixing(image: Batch) -> Batch:
        return np.broadcast_to(image.mean(axis=0, keepdims=True), image.shape).astype(np.uint8)

    backend = FakeBackend(mixing, contract=Contract(16, 16))
    suite = BackendContract()
    images = np.random.default_rng(1).integers(0, 256, (4, 1, 16, 16), dtype=np.uint8)
    with pytest.raises(AssertionError):
        suite.test_the_batch_changes_no_score(backend, images)
