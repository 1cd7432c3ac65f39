"""Numbers and names as the report writes them."""

from __future__ import annotations

import math
from typing import Any, Final

from tinyunet_deploy.artifacts.precision import PRECISIONS
from tinyunet_deploy.backends.table import BACKENDS

__all__ = [
    "backend_label", "cell_label", "configuration", "data_name", "in_ms", "limit_in_words",
    "model_label", "number", "percent", "share",
]  # fmt: skip

_PEERS: Final = {
    "pytorch-eager": "plain PyTorch",
    "pytorch-channels-last": "PyTorch, channels last",
    "pytorch-compile": "torch.compile",
    "onnxruntime-by-hand": "ONNX Runtime by hand",
    "benchmark_app": "OpenVINO's benchmark_app",
    "benchmark_app-defaults": "benchmark_app, defaults",
}
"""Runner of a matrix -> name that people read; any other runner is shown by its own name."""


def limit_in_words(limit: str) -> str:
    """Write ``<= 0.005`` as "must be at most 0.005"."""
    side, _, value = limit.partition(" ")
    return f"must be at {'most' if side == '<=' else 'least'} {value}"


def in_ms(value: float) -> str:
    """Write milliseconds with three significant digits, whole from 100 up."""
    return f"{value:.3g} ms" if value < 100 else f"{value:.0f} ms"


def number(value: float | None) -> str:
    """Write a figure of a table, with fewer decimals the larger it is; a dash for None and NaN."""
    if value is None or math.isnan(value):
        return "-"
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 1000 else f"{value:,.0f}"


def share(value: float | None) -> str:
    """Write a share of 1 with three decimals; a dash for None."""
    return "-" if value is None else f"{value:.3f}"


def percent(value: float) -> str:
    """Write a share of 1 as a percentage with two significant digits."""
    return f"{100 * value:.2g} %"


def model_label(model: str, precision: str | None = None) -> str:
    """Name a model by its file and its precision: ``tinyunet int8``.

    Args:
        model: file name.
        precision: None takes it from the file name, which states it for all except fp32.
    """
    base = model.removesuffix(".onnx").removesuffix(".safetensors").removesuffix(".plan")
    for_cpus = base.endswith(".int8-cpu")
    base = base.removesuffix("-cpu") if for_cpus else base
    named = next((known for known in PRECISIONS if base.endswith(f".{known}")), None)
    if named is not None:
        base = base.removesuffix(f".{named}")
    label = f"{base} {precision or named}" if precision or named else base
    return f"{label} for CPUs" if for_cpus else label


def backend_label(backend: str) -> str:
    """Name a backend or a peer as its makers write it."""
    row = BACKENDS.get(backend)
    return (row.title or row.name) if row is not None else _PEERS.get(backend, backend)


def configuration(model: str, precision: str | None, backend: str) -> str:
    """Name a model on a backend: ``tinyunet int8 on OpenVINO``."""
    return f"{model_label(model, precision)} on {backend_label(backend)}"


def cell_label(matrix: dict[str, Any], name: str) -> str:
    """Name a cell of a matrix; the cell's own name if the matrix lacks it."""
    for cell in matrix["cells"]:
        if cell["name"] == name:
            label = configuration(cell["model"], cell["precision"], cell["runner"])
            size = cell["batch_size"]
            return label + (f", {size} images a call" if size > 1 else "")
    return name


def data_name(evaluation: dict[str, Any]) -> str:
    """Name the images of an evaluation: ``dagm2007 (class 1, test, 40 images)``."""
    data = evaluation["dataset"]
    classes = data["classes"]
    which = f"class {classes[0]}, " if len(classes) == 1 else f"{len(classes)} classes, "
    return (
        f"{data['name']} ({which if classes else ''}{data['split']}, {evaluation['images']} images)"
    )
