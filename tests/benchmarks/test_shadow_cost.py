from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import shadow_cost
from tinyunet_deploy.contract import Contract
from tinyunet_deploy.testing.fake_backend import FakeBackend


class NoShadow:
    """In place of the run of a challenger: remembers what it was offered."""

    offered = seen = 0
    unseen: dict[str, int] = {}  # noqa: RUF012
    challenger = latency = None

    def __init__(self, *_: object, **__: object) -> None: ...

    def __enter__(self) -> NoShadow:
        return self

    def __exit__(self, *_: object) -> None: ...

    @property
    def report(self) -> NoShadow:
        return self

    def observe(self, name: str, image: np.ndarray, score: np.ndarray) -> None:
        assert image.shape == score.shape

    def reported(self, line: dict[str, str]) -> None:
        assert line["verdict"] in ("OK", "NG")
        self.offered += 1
        self.seen += 1


def test_half_of_the_parts_are_offered_and_late_ones_counted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(shadow_cost, "ShadowRun", NoShadow)
    leader = FakeBackend(contract=Contract(64, 64), delay_s=0.002)
    result = shadow_cost.measure(
        leader, tmp_path / "c", tmp_path, parts_per_second=500, deadline_ms=1, block=3, blocks=2
    )
    assert result["offered"] == result["seen"] == 6
    for kind in ("alone", "shadowed"):
        assert result[kind]["parts"] == result[kind]["late"] == 6
        assert 2 <= result[kind]["p50_ms"] <= result[kind]["max_ms"]
