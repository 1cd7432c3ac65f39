from __future__ import annotations

from types import SimpleNamespace

import pytest

from tinyunet_deploy.errors import TinyUNetError
from tinyunet_deploy.speed import peaks
from tinyunet_deploy.speed.benchmark_result import Ceiling
from tinyunet_deploy.speed.peaks import cpu_ceilings, measure_ceilings


def test_the_machine_is_measured_through_the_runtimes_that_run_the_network() -> None:
    ceilings = dict(cpu_ceilings(size=64, layers=1, megabytes=1))
    assert all(isinstance(ceiling, Ceiling) for ceiling in ceilings.values()), ceilings
    kinds = {ceiling.kind for ceiling in ceilings.values() if isinstance(ceiling, Ceiling)}
    assert kinds == {"float32", "int8", "memory"}
    for ceiling in ceilings.values():
        assert isinstance(ceiling, Ceiling)
        assert ceiling.value == max(ceiling.samples) > 0


def test_a_runtime_that_is_missing_leaves_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peaks, "why_not", lambda runtime: f"no {runtime}")
    ceilings = dict(cpu_ceilings(size=64, layers=1, megabytes=1))
    missing = {
        name: str(error) for name, error in ceilings.items() if not isinstance(error, Ceiling)
    }
    assert missing == {
        "float32 openvino": "openvino: no openvino",
        "float32 onnxruntime": "onnxruntime: no onnxruntime",
        "int8 openvino": "openvino: no openvino",
        "int8 onnxruntime": "onnxruntime: no onnxruntime",
    }
    assert {"float32 numpy", "memory copy", "memory triad"} < ceilings.keys()


def test_a_gpu_that_is_missing_leaves_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_gpu(device: str) -> list[Ceiling]:
        raise TinyUNetError(device, "torch sees no such GPU")

    monkeypatch.setattr(peaks, "gpu_ceilings", no_gpu)
    ((name, error),) = measure_ceilings("cuda:0")
    assert (name, str(error)) == ("cuda:0", "cuda:0: torch sees no such GPU")


def test_the_largest_of_the_counted_rates_is_the_ceiling(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0, 2, 10, 11, 20, 24, 30, 32, 40, 48])
    monkeypatch.setattr(peaks, "time", SimpleNamespace(perf_counter=lambda: next(times)))
    calls: list[None] = []
    rates = peaks._rate(4e9, lambda: calls.append(None))
    assert rates == (2, 4, 1, 2, 0.5)
    assert len(calls) == 6  # the first is not counted
