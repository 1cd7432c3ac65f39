"""Two engines of one network side by side, lined up by the layers of the network."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass

from tinyunet_deploy.speed.engine.finding import Finding, ms_text, percent_text
from tinyunet_deploy.speed.engine.report import EngineReport, NetworkLayer

__all__ = ["ComparedLayer", "Comparison", "compare"]


@dataclass(frozen=True)
class ComparedLayer:
    """One layer of the network in both engines; None where an engine has no such layer."""

    name: str
    first: NetworkLayer | None
    second: NetworkLayer | None

    @property
    def change_ms(self) -> float:
        """Time of the second minus the time of the first; a missing layer takes none."""
        first = self.first.median_ms if self.first else 0.0
        return (self.second.median_ms if self.second else 0.0) - first


@dataclass(frozen=True)
class Comparison:
    """Two reports and their layers, lined up."""

    first: EngineReport
    second: EngineReport
    layers: tuple[ComparedLayer, ...]

    def findings(self) -> list[Finding]:
        """Return the sentences that hold, a limit first."""
        sentences = [part for part in (self._total(), self._copies(), self._losers()) if part]
        return sorted(sentences, key=lambda finding: finding.kind != "limit")

    @property
    def names(self) -> tuple[str, str]:
        """Names of the two engines, with TensorRT's version where that is the difference."""
        if self.first.model != self.second.model:
            return self.first.model, self.second.model
        versions = (part.build.version if part.build else "?" for part in (self.first, self.second))
        first, second = (f"{self.first.model} of TensorRT {version}" for version in versions)
        return first, second

    def _total(self) -> Finding | None:
        times = [_batch_ms(report) for report in (self.first, self.second)]
        if not all(times):
            return None
        first, second = self.names
        ratio = times[0] / times[1]
        words = f"{ratio:.2f} times as fast" if ratio >= 1 else f"{1 / ratio:.2f} times slower"
        text = f"{second} computes a batch in {ms_text(times[1])}, {first} in {ms_text(times[0])}"
        return Finding("total", "fact", f"{text}: it is {words}.")

    def _copies(self) -> Finding | None:
        first, second = (
            math.fsum(layer.copy_ms for layer in report.network_layers())
            for report in (self.first, self.second)
        )
        saved = (self.first.profiled_ms - first) - (self.second.profiled_ms - second)
        added = second - first
        if added <= 0:
            return None
        name = self.names[1]
        if saved <= 0:
            text = f"{name} adds {ms_text(added)} of copies and computes no faster."
            return Finding("copies", "limit", text)
        share = percent_text(added / saved)
        words = f"{share} of that" if added < saved else "more than that"
        return Finding(
            "copies",
            "limit" if added >= 0.5 * saved else "fact",
            f"The computing layers of {name} save {ms_text(saved)}, but its copies and changes of "
            f"format or type cost {ms_text(added)} more, {words}.",
        )

    def _losers(self) -> Finding | None:
        slower = [layer for layer in self.layers if layer.change_ms > 0]
        if not slower:
            return None
        slower.sort(key=lambda layer: -layer.change_ms)
        names = ", ".join(f"{layer.name} (+{ms_text(layer.change_ms)})" for layer in slower[:3])
        more = f" and {len(slower) - 3} others" if len(slower) > 3 else ""
        return Finding("slower", "fact", f"Slower in {self.names[1]}: {names}{more}.")


def compare(first: EngineReport, second: EngineReport) -> Comparison:
    """Line up two engines by the layers of the network, in the order of the first."""
    left = {layer.name: layer for layer in first.network_layers()}
    right = {layer.name: layer for layer in second.network_layers()}
    order = [*left, *(name for name in right if name not in left)]
    layers = tuple(ComparedLayer(name, left.get(name), right.get(name)) for name in order)
    return Comparison(first, second, layers)


def _batch_ms(report: EngineReport) -> float:
    """Return the median computing time of a batch, else the sum of the profiled layers."""
    calls = report.call_times(True) or (report.calls[0] if report.calls else None)
    return statistics.median(calls.compute.samples_ms) if calls else report.profiled_ms
