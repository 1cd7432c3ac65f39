"""What limits an engine: sentences that follow from the numbers of its report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tinyunet_deploy.speed.engine.call_rules import CALL_RULES
from tinyunet_deploy.speed.engine.finding import Finding, Kind
from tinyunet_deploy.speed.engine.layer_rules import LAYER_RULES
from tinyunet_deploy.speed.engine.report import EngineReport

__all__ = ["findings", "headline"]

_ORDER: Final = (
    "example", "throttled", "transfer-bound", "launch", "copies", "precision", "matrix-unit",
    "small", "roof", "hot", "graph", "no-transfers", "unsteady", "distortion", "names-only",
    "memory", "energy",
)  # fmt: skip
"""Rules in the order of their sentences; the first limit is the headline."""


def findings(report: EngineReport) -> list[Finding]:
    """Return the sentences that hold: limits first, then warnings and facts."""
    rules = CALL_RULES | LAYER_RULES
    results = [finding for name in _ORDER if (finding := rules[name](report)) is not None]
    kinds: tuple[Kind, ...] = ("limit", "warning", "fact")
    return sorted(results, key=lambda finding: kinds.index(finding.kind))


def headline(results: Sequence[Finding]) -> str:
    """Return the first limit, or say that there is none."""
    limits = [finding.text for finding in results if finding.kind == "limit"]
    return limits[0] if limits else "No rule names a single limit of this engine."
