"""Times of single calls: the JSON of ``trtexec --exportTimes``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinyunet_deploy.artifacts.strict_json import read_json
from tinyunet_deploy.speed.engine.layer_info import MAX_ENTRIES, read_file
from tinyunet_deploy.speed.time_samples import TimeSamples

__all__ = ["TrtexecTimes", "parse_trtexec_times", "read_trtexec_times"]


@dataclass(frozen=True)
class TrtexecTimes:
    """Times of every call of trtexec."""

    enqueue: TimeSamples
    """Time of the CPU to hand the work to the GPU."""
    copy_in: TimeSamples
    compute: TimeSamples
    copy_out: TimeSamples
    latency: TimeSamples
    """Sum of the copies and computing."""

    @property
    def transfers(self) -> bool:
        """False if no call copied anything, as is the default since TensorRT 11."""
        return any(self.copy_in.samples_ms) or any(self.copy_out.samples_ms)


def read_trtexec_times(path: Path) -> TrtexecTimes:
    """Read a file of ``trtexec --exportTimes``.

    Raises:
        DataError: the file cannot be read or is not such a file.
    """
    return read_file(path, parse_trtexec_times, "trtexec --exportTimes=FILE writes one")


def parse_trtexec_times(text: str | bytes) -> TrtexecTimes:
    """Parse the JSON of ``trtexec --exportTimes``.

    Raises:
        ValueError: the text is something else; the message has the reason.
    """
    value = read_json(text)
    if not isinstance(value, list) or not 0 < len(value) <= MAX_ENTRIES:
        raise ValueError(f"expected a list of 1 to {MAX_ENTRIES} calls")
    calls = [_call(entry, index) for index, entry in enumerate(value)]
    series = (TimeSamples(tuple(samples)) for samples in zip(*calls, strict=True))
    return TrtexecTimes(*series)


def _call(entry: Any, index: int) -> tuple[float, float, float, float, float]:
    def field(key: str) -> float:
        value: Any = entry.get(key) if isinstance(entry, dict) else None
        if type(value) not in (int, float):
            raise ValueError(f"call {index} has no {key}")
        return float(value)

    enqueue = field("endEnqMs") - field("startEnqMs")
    times = (enqueue, field("h2dMs"), field("computeMs"), field("d2hMs"), field("latencyMs"))
    if min(times) < 0:
        raise ValueError(f"call {index} has a negative time")
    return times
