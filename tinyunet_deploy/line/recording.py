"""Recorded service times, and the result files they are read from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from tinyunet_deploy.artifacts.strict_json import read_json
from tinyunet_deploy.errors import DataError
from tinyunet_deploy.files import read_regular
from tinyunet_deploy.line.belt import Belt, Times
from tinyunet_deploy.speed.benchmark_file import MAX_BYTES

__all__ = ["Recording", "read_recording", "split_at_stops"]

_HINT: Final = "give a result of tinyunet line-sim or benchmark, or JSON with a list service_ms"


@dataclass(frozen=True)
class Recording:
    """Service times in the order in which they were measured."""

    source: str
    """File or folder of the times, for messages."""
    stretches: tuple[Times, ...]
    """Times from one stop of the belt to the next; one stretch if it never stopped."""
    processes: int | None = None
    """Number of parallel processes; None if unknown."""
    idle: bool = False
    """True if there were pauses between images, as there are on a line."""

    @property
    def service_ms(self) -> Times:
        """Times of all stretches, milliseconds."""
        return np.concatenate(self.stretches)

    def medians_ms(self) -> tuple[float, float]:
        """Return the median time of the first images after a stop, and of all other images.

        NaN if there are none.
        """
        first = [times[0] for times in self.stretches[1:]]
        others = np.concatenate([self.stretches[0], *(times[1:] for times in self.stretches[1:])])
        return _median(first), _median(others)

    def warnings(self, belt: Belt) -> list[str]:
        """Return the respects in which a belt differs from the recorded one."""
        warnings = []
        if not self.idle:
            warnings.append(
                "the times were recorded without pauses, after which an image may be slow; "
                "a live run has them"
            )
        elif belt.go_parts and len(self.stretches) == 1:
            warnings.append("the belt did not stop where the times were recorded")
        if self.processes not in (None, belt.processes):
            warnings.append(
                f"recorded with processes: {self.processes}; processes that share processors slow "
                "each other down, which only a live run shows"
            )
        return warnings


def split_at_stops(belt_fields: dict[str, Any], times: Times) -> tuple[Times, ...]:
    """Split times into stretches between stops and leave out those that are not finite.

    Args:
        belt_fields: ``go_parts`` and ``cameras`` of the belt; the defaults are one stretch and one
            camera.
        times: [images] in the order of their triggers.

    Returns:
        The stretches that have a finite time.
    """
    stretch = (belt_fields.get("go_parts") or 0) * belt_fields.get("cameras", 1)
    stretch = stretch or max(1, len(times))
    pieces = [times[start : start + stretch] for start in range(0, len(times), stretch)]
    finite = (piece[np.isfinite(piece)] for piece in pieces)
    return tuple(piece for piece in finite if len(piece))


def read_recording(
    path: Path,
    *,
    model: str | None = None,
    backend: str | None = None,
    device: str | None = None,
) -> Recording:
    """Read service times from a result of ``line-sim`` or ``benchmark``, or any JSON with them.

    ``service_ms`` is a list of milliseconds, null for an image that was dropped. From a benchmark
    the time from file to verdict of one image at a time is taken, which includes the reading and
    decoding that an image from a camera does not need.

    Args:
        model, backend, device: file name of the model, and where it ran; they choose one of
            several measurements of a benchmark.

    Raises:
        DataError: the file is missing, is not such JSON, has no usable time in it, or has not
            exactly one matching measurement.
    """
    belt_fields: dict[str, Any] = {}
    source = str(path)
    try:
        fields = read_json(read_regular(path, limit=MAX_BYTES))
        if fields.get("kind") == "benchmark":
            measurement = _one_measurement(path, fields["measurements"], model, backend, device)
            source += f" ({measurement['model']} on {measurement['backend']}, file to verdict)"
            times = np.array(measurement["end_to_end"]["samples_ms"], np.float64)
        else:
            belt_fields = fields.get("line", {})
            times = np.array(fields["service_ms"], np.float64)
        if times.ndim != 1 or np.isinf(times).any() or (times <= 0).any():
            raise DataError(path, "has service times that are not positive milliseconds", _HINT)
        stretches = split_at_stops(belt_fields, times)
        processes = belt_fields.get("processes")
    except OSError as error:
        raise DataError(path, f"cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(path, "has no service times", _HINT) from error
    if not stretches:
        raise DataError(path, "has no service times", _HINT)
    return Recording(source, stretches, processes, idle=bool(belt_fields))


def _one_measurement(
    path: Path,
    measurements: Sequence[dict[str, Any]],
    model: str | None,
    backend: str | None,
    device: str | None,
) -> dict[str, Any]:
    """Return the only measurement of single images that the arguments, where given, allow."""
    wanted = {"model": model, "backend": backend, "device": device, "batch_size": 1}
    given = {name: value for name, value in wanted.items() if value is not None}
    matching = [fields for fields in measurements if given.items() <= fields.items()]
    if len(matching) != 1:
        raise DataError(
            path,
            f"has {len(matching)} measurements of one image at a time that match",
            "choose one with --model, --backend and --device",
        )
    return matching[0]


def _median(times: Sequence[float] | Times) -> float:
    return float(np.median(times)) if len(times) else float("nan")
