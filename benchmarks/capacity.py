"""``python -m benchmarks.capacity``: the hardware that a station, a fleet or an archive needs.

It measures nothing. Rates come from the stored results of this folder; they are assumed to grow
with the number of processors, GPUs and nodes, and are compared with the limits in :data:`ASSUMED`.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import click

from benchmarks.options import HELP, RESULTS, output_option, write_result
from tinyunet_deploy.cli import run

__all__ = ["ASSUMED", "WORKLOADS", "Rates", "Workload", "needs", "read_rates"]

ASSUMED: Final[dict[str, float]] = {
    "node_processors": 16,
    "link_gbit_per_s": 10,
    "usable_share_of_a_link": 0.8,
    "disk_mb_per_s": 500,
    "file_operations_per_s": 10_000,
    "file_operations_per_image": 4,
    "written_bytes_per_image": 8192,
    "load": 0.7,
}
"""Assumptions, not measurements: a node's processors; the links of a node and of a file server; the
disk of a file server (a SATA SSD) and the file operations that it answers; operations of an image
(look, read, create, rename); its mask and its line in the report; the share of the processors that
a continuous load may take."""


class Workload(NamedTuple):
    """A number of images to inspect."""

    name: str
    images: float
    """Number of images in all, or per second if ``seconds`` is None."""
    seconds: float | None
    """Time to inspect them; None for a continuous load."""
    stations: int
    """Number of stations that inspect their own images; 0 if all images come from one file
    server."""


_DAY: Final = 86_400
WORKLOADS: Final = (
    Workload("one station: 1 camera, 600 parts/min", 10, None, 1),
    Workload("one station: 4 cameras, 1,200 parts/min", 80, None, 1),
    Workload("fleet: 100 stations, 2 cameras each, 600 parts/min", 100 * 20, None, 100),
    Workload("the same fleet, inspected in one room", 100 * 20, None, 0),
    Workload("archive: a million images in 8 hours", 1e6, 8 * 3600, 0),
    Workload("archive: 100 million images in a week", 1e8, 7 * _DAY, 0),
    Workload("archive: a billion images in 30 days", 1e9, 30 * _DAY, 0),
    Workload("archive: a billion images in a day", 1e9, _DAY, 0),
)


class Rates(NamedTuple):
    """Measured rates from files to masks, for images of 512x512."""

    processor_images_per_s: float
    """Rate of int8 on OpenVINO, on one processor of the slower of two machines."""
    gpu_images_per_s: float
    """Rate of fp16 on ONNX Runtime, on one H200 with 16 processors."""
    gpu_share: float
    """That rate divided by the rate of the backend alone; below 1, the host limits the rate."""
    ray_cost: float
    """Time with Ray divided by the time with plain shards."""
    image_bytes: int
    """Approximate upper bound of the size of an 8-bit grey PNG: one byte per pixel."""
    process_mib: float
    """Memory of one inspecting process, including its arrays."""


def read_rates(results: Path) -> Rates:
    """Read the rates from the results in a folder."""
    slowest, memory = math.inf, 0.0
    for name in ("pipeline.json", "xeon/pipeline.json"):
        pipeline = _read(results / name)
        row = next(row for row in pipeline["results"] if row["precision"] == "int8")
        rate = _median([r["from_files_images_per_s"] for r in row["rounds"]])
        slowest = min(slowest, rate / pipeline["machine"]["processors"])
        memory = max(memory, *(r["resident_mib"]["end"] for r in row["rounds"]))
    h200 = _read(results / "h200" / "pipeline.json")
    (gpu,) = h200["results"]
    height, width = h200["image_px"]
    return Rates(
        processor_images_per_s=slowest,
        gpu_images_per_s=_median([r["from_files_images_per_s"] for r in gpu["rounds"]]),
        gpu_share=gpu["ratio_median"],
        ray_cost=_read(results / "cluster.json")["ratio_median"],
        image_bytes=height * width,
        process_mib=memory,
    )


def needs(workload: Workload, rates: Rates, assumed: Mapping[str, float]) -> dict[str, Any]:
    """Return the hardware that a workload needs, and the part that would have to grow first.

    Stations have their own images, and each a whole number of processors. Other workloads read from
    one file server over one link, until more of them are needed.
    """
    together = not workload.stations
    places = workload.stations or 1
    load = assumed["load"] if workload.seconds is None else 1.0
    cost = rates.ray_cost if together else 1.0
    rate = workload.images / (workload.seconds or 1.0)
    at_one_place = rate / places * cost / load
    processors = places * math.ceil(at_one_place / rates.processor_images_per_s)
    image_bytes = rates.image_bytes + assumed["written_bytes_per_image"]
    moved = rate * image_bytes
    link = assumed["link_gbit_per_s"] * 1e9 / 8 * assumed["usable_share_of_a_link"]
    operations = rate * assumed["file_operations_per_image"]
    server = {
        "network": moved / link,
        "disk": moved / (assumed["disk_mb_per_s"] * 1e6),
        "file operations": operations / assumed["file_operations_per_s"],
    }
    fullest = max(server, key=lambda name: server[name])
    over = together and server[fullest] > 1
    return {
        "name": workload.name,
        "images_per_s": rate,
        "processors": processors,
        "gpus": places * math.ceil(at_one_place / rates.gpu_images_per_s),
        "nodes": math.ceil(processors / assumed["node_processors"]) if together else None,
        "moved_mb_per_s": moved / 1e6,
        "network_gbit_per_s": moved * 8 / 1e9,
        "file_operations_per_s": operations,
        "file_servers": math.ceil(server[fullest]) if together else None,
        "stored_tb": workload.images * image_bytes / 1e12 if workload.seconds else None,
        "bound": f"{fullest} of one file server" if over else "processors",
    }


def _read(path: Path) -> Any:
    return json.loads(path.read_text())


def _median(values: list[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else sum(ordered[middle - 1 : middle + 1]) / 2


@click.command(context_settings=HELP)
@output_option("capacity.json")
def capacity(output: Path) -> None:
    """Compute the hardware that each workload needs, from the stored results."""
    rates = read_rates(RESULTS)
    rows = [needs(workload, rates, ASSUMED) for workload in WORKLOADS]
    write_result(
        output,
        {
            "kind": "capacity",
            "command": "python -m benchmarks.capacity",
            "formula": "processors = images/s x Ray's cost / rate of a processor / load; a bound "
            "of one file server is named where more than one would be needed",
            "rates": rates._asdict(),
            "assumed": ASSUMED,
            "workloads": rows,
        },
    )
    for row in rows:
        click.echo(f"{row['name']:60} {row['processors']:6} processors  bound: {row['bound']}")


if __name__ == "__main__":
    sys.exit(run(capacity))
