"""Tables of speed: peers, latency, roofline, GPU, files to masks, the line."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import numpy as np

from benchmarks.page_tables.stored import Rows, read_result

__all__ = ["gpu", "latency", "line", "operators", "peers", "pipeline", "roofline", "speed"]

_RUNNERS: Final = {
    "tinyunet.int8.onnx@openvino/1": "int8, OpenVINO",
    "tinyunet.int8.onnx@benchmark_app/1": "int8, OpenVINO's benchmark_app",
    "tinyunet.onnx@openvino/1": "fp32, OpenVINO",
    "tinyunet.onnx@onnxruntime/1": "fp32, ONNX Runtime",
    "tinyunet.onnx@onnxruntime-by-hand/1": "fp32, ONNX Runtime by hand",
    "tinyunet.onnx@benchmark_app/1": "fp32, benchmark_app in float32",
    "tinyunet.onnx@benchmark_app-defaults/1": "fp32 file, benchmark_app's defaults (bfloat16)",
    "tinyunet.int8.onnx@onnxruntime/1": "int8, ONNX Runtime",
    "tinyunet.safetensors@pytorch-compile/1": "torch.compile",
    "tinyunet.safetensors@pytorch-channels-last/1": "PyTorch, channels last",
    "tinyunet.safetensors@pytorch-eager/1": "PyTorch, eager",
}
"""Cell of the matrix -> its name in a table."""
_MACHINES: Final = (("EPYC", ""), ("Xeon", "xeon/"))
"""Name of a machine -> folder of its results."""
_BUSY: Final = ("Xeon, busy host", "xeon-busy/")
"""The Xeon on a day on which its host gave it less than half of its speed."""
_FIRST_SLIM: Final = "the first `slim`, on blocks of 4x4"
"""Network that was measured on the EPYC under the name of slim."""


def _matrix_rows(names: Iterable[str], cell_text: Callable[[dict[str, Any]], str]) -> Rows:
    matrices = [read_result(f"{folder}matrix.json") for _, folder in _MACHINES]
    cells = [{cell["name"]: cell for cell in matrix["cells"]} for matrix in matrices]
    return [[_RUNNERS[name], *(cell_text(by_name[name]) for by_name in cells)] for name in names]


def peers(names: Sequence[str] = tuple(_RUNNERS)) -> Rows:
    floors = [read_result(f"{folder}matrix.json")["noise"]["floor"] for _, folder in _MACHINES]
    return [
        ["times as fast as eager PyTorch", *(f"{name}" for name, _ in _MACHINES)],
        *_matrix_rows(names, lambda cell: _times(cell["times_as_fast"])),
        ["noise floor", *(f"{floor:.2f}" for floor in floors)],
    ]


def speed() -> Rows:
    """Return the short form of :func:`peers`, for the README."""
    return peers([*list(_RUNNERS)[:4], "tinyunet.safetensors@pytorch-compile/1"])


def latency() -> Rows:
    """Return the median time of an image of each runner."""
    head = ["ms per image, median", *(name for name, _ in _MACHINES)]
    return [head, *_matrix_rows(_RUNNERS, lambda cell: f"{cell['median_ms_per_image']:.1f}")]


def roofline() -> Rows:
    """Return the share of the machine's limit that single images reach."""
    machines = (*_MACHINES, _BUSY)
    rows = [["one image at a time", *(name for name, _ in machines)]]
    tiny = [read_result(f"{folder}benchmark.json") for _, folder in machines]
    slim = [None, None, read_result("xeon-busy/slim/benchmark.json")]
    for model, measured, precision, backend in (
        ("tiny", tiny, "int8", "openvino"), ("tiny", tiny, "fp32", "openvino"),
        ("tiny", tiny, "fp32", "onnxruntime"), ("slim", slim, "int8", "openvino"),
        ("slim", slim, "fp32", "openvino"),
    ):  # fmt: skip
        shares = [_share_of_limit(result, precision, backend) for result in measured]
        rows.append([f"`{model}`, {precision}, {backend}", *shares])
    return rows


def _share_of_limit(benchmark: dict[str, Any] | None, precision: str, backend: str) -> str:
    if benchmark is None:
        return "-"
    wanted = (precision, backend, 1)
    measurement = next(
        row
        for row in benchmark["measurements"]
        if (row["precision"], row["backend"], row["batch_size"]) == wanted
    )
    kind = "int8" if precision == "int8" else "float32"
    limit = max(row["value"] for row in benchmark["ceilings"] if row["kind"] == kind)
    return f"{measurement['roofline']['latency_percent']:.0f} % of {limit:,.0f} GFLOP/s"


def gpu() -> Rows:
    """Return images per second on a GPU, beside published figures."""
    sizes = ("1", "8", "16")
    rows = [["images/s, batch of", *sizes]]
    for precision in ("fp32", "fp16"):
        results = read_result(f"h200/gpu-{precision}.json")["results"]
        for graphs in (True, False):
            found = {
                str(r["batch_size"]): f"{r['images_per_s']:.0f}"
                for r in results
                if r["cuda_graphs"] is graphs
            }
            label = f"H200, {precision}, ONNX Runtime, {'with' if graphs else 'no'} CUDA graphs"
            rows.append([label, *(found[size] for size in sizes)])
    for name, rates in read_result("h200/gpu-fp16.json")["published_images_per_s"].items():
        rows.append([f"published, {name}", *(str(rates[size]) for size in sizes)])
    return rows


def pipeline() -> Rows:
    """Return the rate from files to masks, divided by the rate of the bare backend."""
    rows = [["", "share of the bare backend", "images/s from files"]]
    for machine, folder in (*_MACHINES, _BUSY, ("H200", "h200/")):
        fields = read_result(f"{folder}pipeline.json")
        for result in fields["results"]:
            rate = float(np.median([r["from_files_images_per_s"] for r in result["rounds"]]))
            network = "`tiny`"
            if result["model"].startswith("slim."):
                network = _FIRST_SLIM if machine == "EPYC" else "`slim`"
            label = f"{machine}, {network}, {result['precision']}, {result['backend']}"
            rows.append([label, f"{result['ratio_median']:.2f}", f"{rate:.0f}"])
        for number, runs in fields.get("free_backend", {"runs": {}})["runs"].items():
            rate = float(np.median([run["images_per_s"] for run in runs]))
            rows.append([f"{machine}, files alone, processors: {number}", "", f"{rate:.0f}"])
        if apart := fields.get("free_backend", {}).get("apart"):
            rate = float(np.median([sum(run["images_per_s"] for run in turn) for turn in apart]))
            rows.append([f"{machine}, files alone, one run for each", "", f"{rate:.0f}"])
    return rows


def line() -> Rows:
    """Return the predicted belt speeds, and whether they held in a live run."""
    rows = [["machine", "processes", "promised, parts/min", "run live, parts", "late", "kept"]]
    for machine, folder in _MACHINES:
        study = read_result(f"{folder}line-sim.json")
        trials = [*study.get("not_kept", []), *study.get("kept_once", []), study["verified"]]
        for trial in filter(None, trials):
            belt, outcome = trial["line"], trial["outcome"]
            rows.append(
                [
                    machine,
                    str(belt["processes"]),
                    f"{belt['parts_per_minute']:,.0f}",
                    f"{outcome['parts']:,}",
                    str(outcome["missed"]),
                    "yes" if trial["kept"] else "no",
                ]
            )
    return rows


def operators() -> Rows:
    """Return the eight slowest operators of the int8 file with their times."""
    results = read_result("xeon/operators.json")["results"]
    result = next(result for result in results if result["precision"] == "int8")
    slowest = sorted(result["operators"], key=lambda operator: -operator["ms"])
    total = sum(operator["ms"] for operator in slowest)
    rows = [["operator, int8 on the Xeon", "kind", "ms", "share"]]
    rows += [
        [f"`{o['name']}`", o["kind"], f"{o['ms']:.2f}", f"{o['ms'] / total:.0%}"]
        for o in slowest[:8]
    ]
    return [*rows, ["all", "", f"{total:.1f}", "100%"]]


def _times(ratio: dict[str, float]) -> str:
    return f"{ratio['value']:.1f} ({ratio['low']:.1f} to {ratio['high']:.1f})"
