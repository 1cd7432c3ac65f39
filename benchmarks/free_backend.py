"""``infer`` with a backend that costs nothing: the cost of files alone, and how it scales.

:func:`measure` takes turns between numbers of processors, each in a process of its own, which is
this module as a program: ``python -m benchmarks.free_backend FOLDER OUTPUT PROCESSOR...``. One run
for each processor, all at once, shows what the machine allows: they share nothing but its memory.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from tinyunet_deploy import systems
from tinyunet_deploy.backends.base import Run
from tinyunet_deploy.contract import Batch, Contract
from tinyunet_deploy.data.decoding import read_image
from tinyunet_deploy.host import processors
from tinyunet_deploy.inspection.infer import infer
from tinyunet_deploy.testing.fake_backend import FakeBackend

__all__ = ["FORMULA", "measure"]

FORMULA: Final = (
    "images_per_s = rate of infer over the last half of the files, once processes have taken over; "
    "whole_images_per_s = over all of them; ratio = the rate on all processors / that on one; "
    "apart = one run for each processor, all at once; "
    "apart_ratio = the sum of their rates / that on one; "
    "ms_of_one_processor_per_file = 1000 / the rate on one"
)
_BATCH: Final = 4
_DEFECT: Final = slice(100, 140)
"""Rows and columns of the defect in each fourth score."""


def measure(
    files: Sequence[Path], scratch: Path, count: int, numbers: Sequence[int], rounds: int
) -> dict[str, Any]:
    """Return the rates for each number of processors, and the ratio of the last to the first.

    Args:
        files: PNG files of one size, of which ``count`` links are inspected.
        scratch: an empty folder on the file system of the files.
        numbers: numbers of processors, ascending from 1.
        rounds: times that each is measured, in turn.
    """
    links = scratch / "links"
    links.mkdir()
    for index in range(count):
        (links / f"{index:06}.png").hardlink_to(files[index % len(files)])
    runs: dict[int, list[dict[str, Any]]] = {number: [] for number in numbers}
    apart: list[list[dict[str, Any]]] = []
    for turn in range(rounds):
        for number in numbers:
            output = scratch / f"free-{turn}-{number}"
            runs[number].append(_result(_start(links, output, range(number))))
        outputs = [scratch / f"free-{turn}-apart-{place}" for place in range(numbers[-1])]
        at_once = [_start(links, output, [place]) for place, output in enumerate(outputs)]
        apart.append([_result(process) for process in at_once])
    rate = {
        number: statistics.median(run["images_per_s"] for run in of_number)
        for number, of_number in runs.items()
    }
    rate_apart = statistics.median(sum(run["images_per_s"] for run in turn) for turn in apart)
    return {
        "formula": FORMULA,
        "images": count,
        "batch_size": _BATCH,
        "runs": {str(number): of_number for number, of_number in runs.items()},
        "apart": apart,
        "ms_of_one_processor_per_file": 1e3 / rate[numbers[0]],
        "ratio": rate[numbers[-1]] / rate[numbers[0]],
        "apart_ratio": rate_apart / rate[numbers[0]],
    }


def _start(folder: Path, output: Path, places: Iterable[int]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "benchmarks.free_backend", str(folder), str(output)]
    return subprocess.Popen([*command, *map(str, places)], stdout=subprocess.PIPE)


def _result(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    printed, _ = process.communicate()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, process.args)
    fields: dict[str, Any] = json.loads(printed)
    return fields


class _FreeBackend(FakeBackend):
    """Finds a defect in each fourth image."""

    def _run(self, image: Batch) -> Run:
        scores = self._new_scores(image)
        scores.fill(0)
        scores[::4, :, _DEFECT, _DEFECT] = 250
        return Run(scores, 0.0)


def _run(folder: Path, output: Path, places: Sequence[int]) -> dict[str, Any]:
    """Inspect a folder on some of this process's processors, given by their places among them."""
    systems.use_processors([processors()[place] for place in places])
    systems.keep_freed_memory()
    height, width = read_image(next(folder.iterdir())).shape
    ended: list[float] = []
    used = 0

    def count(_: object) -> None:
        nonlocal used
        ended.append(time.perf_counter())
        if len(ended) % 100 == 0:
            used = len(systems.child_processes())

    infer(
        [folder],
        output,
        _FreeBackend(contract=Contract(height, width)),
        threshold=0.5,
        batch_size=_BATCH,
        workers=len(places),
        on_line=count,
    )
    half = len(ended) // 2
    return {
        "images_per_s": (len(ended) - 1 - half) / (ended[-1] - ended[half]),
        "whole_images_per_s": (len(ended) - 1) / (ended[-1] - ended[0]),
        "processes": used,
        "load": os.getloadavg()[0],
    }


if __name__ == "__main__":
    chosen = [int(place) for place in sys.argv[3:]]
    print(json.dumps(_run(Path(sys.argv[1]), Path(sys.argv[2]), chosen)))
