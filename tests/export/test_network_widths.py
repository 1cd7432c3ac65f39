"""Speed of networks that were not trained: the rows are those of the candidates."""

from __future__ import annotations

import pytest

from export import network_widths
from tinyunet_deploy.artifacts.architectures import NETWORKS, Architecture


def test_every_candidate_is_measured_against_tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"tiny": NETWORKS["tiny"], "less": Architecture((8,), 8, 8, 4)}
    monkeypatch.setattr(network_widths, "CANDIDATES", small)
    tiny, less = network_widths.measure_widths(3, side=64)
    assert (tiny["network"], tiny["times_as_fast_as_tiny"]) == ("tiny", 1.0)
    assert tiny["gmac"] == pytest.approx(18.337 / 64, abs=1e-3) and tiny["parameters"] == 1_850_305
    assert less["times_as_fast_as_tiny"] > 1.0 and less["size_multiple"] == 8
    assert less["reach_px"] == list(small["less"].reach)
