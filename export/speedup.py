"""Time a file against the next wider precision, in turn, on every runtime of this machine."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Final

from tinyunet_deploy.artifacts.sidecar import Artifact
from tinyunet_deploy.artifacts.speed_facts import RuntimeSpeed, SpeedFacts
from tinyunet_deploy.backends.base import Backend
from tinyunet_deploy.backends.registry import load
from tinyunet_deploy.backends.table import rows_for, why_not
from tinyunet_deploy.contract import Batch, Image
from tinyunet_deploy.errors import ArtifactError
from tinyunet_deploy.host import processor_count, processor_name
from tinyunet_deploy.speed.ratio import ratio_in_run
from tinyunet_deploy.speed.turns import time_in_turns

__all__ = ["measure_speedup"]

_AGAIN: Final = "wider, again"
"""Second series of the wider file; its ratio to the first one is the noise floor."""


def measure_speedup(
    file: Artifact,
    wider: Artifact,
    image: Image,
    min_speedup: float,
    log: Callable[[str], None],
) -> SpeedFacts:
    """Time a file and the same network in the next wider precision, one image at a time.

    The interval of a ratio is the 99 % bootstrap over rounds. A runtime that does not load one of
    the two is left out.

    Args:
        file: the candidate; its path is for messages only.
        wider: the same network in the wider precision, for images of the same size.
        image: uint8 [H, W].
        min_speedup: smallest ratio at which the candidate counts as faster.
        log: function that takes one line of text for each runtime.
    """
    precision = wider.sidecar.precision
    assert precision != "unknown"
    batch = image[None, None]
    runtimes = []
    for row in rows_for("onnx", "cpu", unasked_only=True):
        if why_not(row) is not None:
            continue
        with contextlib.ExitStack() as stack:
            try:
                backends = [
                    stack.enter_context(load(one, row, "cpu")) for one in (wider, file, wider)
                ]
            except ArtifactError as error:
                log(f"{file.path.name}: is not timed on {row.name}: {error.what}")
                continue
            names = ("wider", "file", _AGAIN)
            calls = {
                name: _call(backend, batch) for name, backend in zip(names, backends, strict=True)
            }
            times = time_in_turns(calls)
        ratio = ratio_in_run(times["wider"], times["file"])
        floor = ratio_in_run(times["wider"], times[_AGAIN]).floor
        runtimes.append(RuntimeSpeed(row.name, ratio.value, ratio.low, ratio.high, floor))
    facts = SpeedFacts(precision, processor_name(), processor_count(), min_speedup, tuple(runtimes))
    for speed in facts.runtimes:
        verdict = "" if facts.pays(speed.backend) else ": not faster"
        log(
            f"{file.path.name}: {speed} as {precision} on {speed.backend} "
            f"({speed.low:.2f} to {speed.high:.2f}, noise {speed.floor:.2f}){verdict}"
        )
    return facts


def _call(backend: Backend, batch: Batch) -> Callable[[], object]:
    return lambda: backend.run(batch)
