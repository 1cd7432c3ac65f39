"""``python -m export.network_widths``: what networks of other widths would cost in int8.

Before a network is trained, its speed is known: random weights take as long as trained ones. Each
candidate is quantised as the exporter does it and timed in turns with ``tiny`` in OpenVINO, on one
thread and in processor time, which other programs on the machine disturb little.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any, Final

import click
import numpy as np
import onnx
import openvino
import torch

from export.calibrate import histograms, ranges
from export.equalize import in_steps
from export.graph import onnx_graph
from export.quantize import quantize
from tinyunet_deploy.artifacts.architectures import NETWORKS, Architecture
from tinyunet_deploy.artifacts.network import make_network, multiply_accumulates, parameter_count
from tinyunet_deploy.cli import run
from tinyunet_deploy.cli.options import debug_option
from tinyunet_deploy.contract import Contract
from tinyunet_deploy.files import write_atomic
from tinyunet_deploy.host import describe_machine

__all__ = ["CANDIDATES", "measure_widths"]

CANDIDATES: Final = {
    "tiny": NETWORKS["tiny"],
    "half as wide": Architecture((16, 16, 32, 64), 128, 16),
    "blocks of 2, 16 to 128": Architecture((16, 32, 64), 128, 16, 2),
    "blocks of 2, 32 to 256": Architecture((32, 32, 64, 128), 256, 32, 2),
    "blocks of 4, 32 to 128": Architecture((32, 64, 128), 128, 32, 4),
    "blocks of 4, 48 to 256, three pools": Architecture((48, 64, 128), 256, 48, 4),
    "blocks of 4, 48 to 192": Architecture((48, 96), 192, 48, 4),
    "blocks of 4, 48 to 256": Architecture((48, 96), 256, 48, 4),
    "blocks of 4, 48 and 64 to 256": Architecture((48, 64), 256, 48, 4),
    "slim": NETWORKS["slim"],
}
"""Label -> network; ``tiny``, the first, is what the others are measured against."""
_SIDE: Final = 512
_WARM_UP: Final = 3


def measure_widths(calls: int, side: int = _SIDE) -> list[dict[str, Any]]:
    """Measure the candidates in turns, one image at a time.

    Args:
        calls: timed calls of each.
        side: height and width of the image, pixels.

    Returns:
        A row for each candidate: work, size, reach, and median processor time of one image.
    """
    image = np.random.default_rng(0).integers(0, 256, (side, side), dtype=np.uint8)
    tensor = openvino.Tensor(np.ascontiguousarray(image[None, None]))
    requests, times = {}, {label: list[float]() for label in CANDIDATES}
    for label, widths in CANDIDATES.items():
        requests[label] = _compiled(_int8(widths, image), side).create_infer_request()
        for _ in range(_WARM_UP):
            requests[label].infer([tensor])
    for _ in range(calls):
        for label, request in requests.items():
            began = time.process_time()
            request.infer([tensor])
            times[label].append(1e3 * (time.process_time() - began))
    medians = {label: statistics.median(ms) for label, ms in times.items()}
    return [
        {
            "network": label,
            "encoder": list(widths.encoder),
            "bottleneck": widths.bottleneck,
            "head": widths.head,
            "space_to_depth": widths.space_to_depth,
            "size_multiple": widths.size_multiple,
            "reach_px": list(widths.reach),
            "gmac": multiply_accumulates("candidate", side, side, widths) / 1e9,
            "parameters": parameter_count(make_network("candidate", widths)),
            "processor_ms": medians[label],
            "times_as_fast_as_tiny": medians["tiny"] / medians[label],
        }
        for label, widths in CANDIDATES.items()
    ]


def _int8(widths: Architecture, image: np.ndarray[Any, np.dtype[np.uint8]]) -> bytes:
    torch.manual_seed(0)
    network = make_network("candidate", widths).eval()
    model = onnx.load_from_string(onnx_graph(network, Contract(*image.shape)))
    return quantize(in_steps(model, ranges(histograms(model, [image]), "minmax")))


def _compiled(data: bytes, side: int) -> Any:
    core = openvino.Core()
    model = core.read_model(data, b"")
    model.reshape([1, 1, side, side])
    options = {
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": 1,
        "INFERENCE_PRECISION_HINT": "f32",
    }
    return core.compile_model(model, "CPU", options)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--calls", default=30, show_default=True, type=click.IntRange(min=1), help="Calls of each."
)
@click.option(
    "-o",
    "--output",
    default=Path("benchmarks/results/network_widths.json"),
    show_default=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="File of the result.",
)
@debug_option
def network_widths(calls: int, output: Path) -> None:
    """Time networks of other widths in int8, with random weights, in turns with tiny."""
    rows = measure_widths(calls)
    fields = {
        "schema_version": 1,
        "command": f"python -m export.network_widths --calls {calls}",
        "machine": describe_machine(),
        "openvino": openvino.__version__,
        "side_px": _SIDE,
        "precision": "int8",
        "weights": "random",
        "time": "processor time on one thread, median of the calls, in turns",
        "networks": rows,
    }
    write_atomic(output, (json.dumps(fields, indent=1) + "\n").encode(), durable=True)
    for row in rows:
        click.echo(
            f"{row['network']:38}{row['gmac']:6.2f} GMAC  {row['processor_ms']:6.2f} ms  "
            f"{row['times_as_fast_as_tiny']:.1f} times tiny"
        )


if __name__ == "__main__":
    sys.exit(run(network_widths))
