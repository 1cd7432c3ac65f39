"""Times of the layers of an engine: the JSON of ``trtexec --exportProfile``."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinyunet_deploy.artifacts.strict_json import read_json
from tinyunet_deploy.backends.layer_profiler import LayerTimes
from tinyunet_deploy.speed.engine.layer_info import MAX_ENTRIES, read_file, unique_names
from tinyunet_deploy.speed.time_samples import percentile

__all__ = [
    "LayerProfile",
    "LayerTime",
    "parse_profile",
    "profile_json",
    "profile_of",
    "read_profile",
]


@dataclass(frozen=True)
class LayerTime:
    """Time of one layer over the profiled calls, milliseconds a call."""

    name: str
    total_ms: float
    """Sum over all calls."""
    mean_ms: float
    median_ms: float
    p99_ms: float = math.nan
    """NaN if there are too few calls, or if trtexec wrote the file: it exports no samples."""


@dataclass(frozen=True)
class LayerProfile:
    """Times of all layers."""

    calls: int | None
    """Number of profiled calls; None if the file does not say it."""
    layers: tuple[LayerTime, ...]


def profile_of(layers: Sequence[LayerTimes]) -> LayerProfile:
    """Return the profile of measured samples."""
    return LayerProfile(
        max((len(layer.samples_ms) for layer in layers), default=0),
        tuple(
            LayerTime(
                layer.name,
                math.fsum(layer.samples_ms),
                math.fsum(layer.samples_ms) / len(layer.samples_ms),
                statistics.median(layer.samples_ms),
                percentile(layer.samples_ms, 990),
            )
            for layer in layers
        ),
    )


def read_profile(path: Path) -> LayerProfile:
    """Read a file of ``trtexec --exportProfile``.

    Raises:
        DataError: the file cannot be read or is not such a file.
    """
    return read_file(path, parse_profile, "trtexec --exportProfile=FILE writes one")


def parse_profile(text: str | bytes) -> LayerProfile:
    """Parse the JSON of ``trtexec --exportProfile``.

    Raises:
        ValueError: the text is something else; the message has the reason.
    """
    value = read_json(text)
    if not isinstance(value, list) or len(value) > MAX_ENTRIES:
        raise ValueError(f"expected a list of at most {MAX_ENTRIES} layer times")
    calls = None
    if value and isinstance(value[0], dict) and set(value[0]) == {"count"}:
        calls = value.pop(0)["count"]
        if type(calls) is not int or calls < 1:
            raise ValueError("its count is not a number of calls")
    if not value:
        raise ValueError("it has no layer times")
    times = [_time(entry, index) for index, entry in enumerate(value)]
    names = unique_names([time.name for time in times])
    return LayerProfile(
        calls,
        tuple(
            LayerTime(name, time.total_ms, time.mean_ms, time.median_ms, time.p99_ms)
            for name, time in zip(names, times, strict=True)
        ),
    )


def _time(entry: Any, index: int) -> LayerTime:
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise ValueError(f"layer time {index} has no name")
    values = []
    for key in ("timeMs", "averageMs", "medianMs"):
        value: Any = entry.get(key)
        if type(value) not in (int, float) or value < 0:
            raise ValueError(f"{key} of layer {entry['name'][:100]!r} is not a time")
        values.append(float(value))
    return LayerTime(entry["name"], *values)


def profile_json(profile: LayerProfile) -> str:
    """Return a profile as the JSON of ``trtexec --exportProfile``."""
    total = math.fsum(time.total_ms for time in profile.layers)
    entries: list[dict[str, Any]] = [] if profile.calls is None else [{"count": profile.calls}]
    entries += [
        {
            "name": time.name,
            "timeMs": time.total_ms,
            "averageMs": time.mean_ms,
            "medianMs": time.median_ms,
            "percentage": 100 * time.total_ms / total if total else 0.0,
        }
        for time in profile.layers
    ]
    return json.dumps(entries, indent=1, allow_nan=False) + "\n"
