"""Collect the time of every layer of a TensorRT plan."""

from __future__ import annotations

from typing import Any, NamedTuple

__all__ = ["LayerTimes", "layer_profiler"]


class LayerTimes(NamedTuple):
    """Times of one layer."""

    name: str
    """Name that TensorRT reports; " #2" follows if an earlier layer has the same."""
    samples_ms: tuple[float, ...]
    """Milliseconds of each call that ran the layer."""


def layer_profiler(trt: Any) -> Any:
    """Return a TensorRT profiler with the methods ``begin`` and ``layers``.

    ``begin(counted)`` starts the next call of the engine, whose times are counted or not, and
    ``layers()`` returns a :class:`LayerTimes` for every layer.

    Args:
        trt: the module of TensorRT.
    """

    class Profiler(trt.IProfiler):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)
            self._samples: dict[tuple[str, int], list[float]] = {}
            self._seen: dict[str, int] = {}
            self._counted = True

        def begin(self, *, counted: bool) -> None:
            self._seen = {}
            self._counted = counted

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            number = self._seen[layer_name] = self._seen.get(layer_name, 0) + 1
            if self._counted:
                self._samples.setdefault((layer_name, number), []).append(ms)

        def layers(self) -> list[LayerTimes]:
            return [
                LayerTimes(name if number == 1 else f"{name} #{number}", tuple(samples))
                for (name, number), samples in self._samples.items()
            ]

    return Profiler()
