"""A machine with a fake GPU and a fake TensorRT, and a plan for it."""

from pathlib import Path

import pytest

from tinyunet_deploy.artifacts.facts import PlanFacts, Profile
from tinyunet_deploy.artifacts.sidecar import Artifact, Sidecar, digest, write_artifact
from tinyunet_deploy.backends import nvidia_probe
from tinyunet_deploy.contract import Contract
from tinyunet_deploy.testing.fake_cuda import FakeDevice
from tinyunet_deploy.testing.fake_tensorrt import FakeTensorRT

PLAN = b"a plan"


def make_plan(path: Path = Path("tinyunet.fp32.plan"), size: int = 16) -> Artifact:
    """Return a plan for the fake GPU."""
    facts = PlanFacts("tensorrt", "11.4.0.106", "Fake GPU", "8.6", Profile(1, 2, 4))
    contract = Contract(size, size, max_batch=4)
    sidecar = Sidecar("plan", "fp32", digest(PLAN), "0" * 64, contract, plan=facts)
    return Artifact(path, PLAN, sidecar)


def fake_machine(
    monkeypatch: pytest.MonkeyPatch, folder: Path, information: str = '{"Layers": ["conv"]}'
) -> Path:
    """Give this process the fakes; return a plan for 64x64 images that runs there."""
    library = FakeTensorRT(FakeDevice()).library
    devices: list[FakeDevice] = []

    def new_device(index: int) -> FakeDevice:
        device = FakeDevice()
        contract = Contract(64, 64, max_batch=4)
        trt = FakeTensorRT(device, contract=contract, information=information)
        devices.append(device)
        library.module.__dict__.update(vars(trt.library.module))
        return device

    monkeypatch.setattr(nvidia_probe, "why_no_tensorrt", lambda: None)
    monkeypatch.setattr(nvidia_probe, "tensorrt", lambda flavour=None: library)
    monkeypatch.setattr(nvidia_probe, "gpu", lambda index: FakeDevice().gpu)
    monkeypatch.setattr("tinyunet_deploy.backends.tensorrt.PyCUDADevice", new_device)
    monkeypatch.setattr("tinyunet_deploy.speed.benchmark.measure_ceilings", lambda device: iter(()))
    plan = make_plan(folder / "tinyunet.fp32.plan", 64)
    write_artifact(plan.path, plan.data, plan.sidecar)
    return plan.path
