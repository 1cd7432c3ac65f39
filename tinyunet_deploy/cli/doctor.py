"""``tinyunet doctor``: show which backends run on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tinyunet_deploy.cli.options import debug_option, format_option

if TYPE_CHECKING:
    from tinyunet_deploy.backends.base import Backend
    from tinyunet_deploy.backends.table import BackendRow


@click.command()
@click.option(
    "-m",
    "--model",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Model to try: a .onnx, .plan or .safetensors file. Default: the package's model.",
)
@format_option
@debug_option
def doctor(model: Path | None, style: str) -> int:
    """Show which backends run here, and what the others need.

    Each backend is tried with the model. Where the exporter timed the model, the speed against the
    next wider precision is shown. Exit code 5 if no backend runs.
    """
    import json

    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from tinyunet_deploy.backends.table import backend_rows
    from tinyunet_deploy.host import describe_machine

    reports = [_try(row, model) for row in backend_rows()]
    machine = {**describe_machine(), **_nvidia()}
    if style == "json":
        click.echo(json.dumps({"schema_version": 1, "machine": machine, "backends": reports}))
    else:
        console = Console(soft_wrap=True)
        for key, value in machine.items():
            console.print(f"{key:16} {value}", highlight=False)
        table = Table("backend", "runs", "one image", "version, or why not and what to do")
        for report in reports:
            runs = "yes" if report["runs"] else "no"
            time = f"{report['one_image_ms']} ms" if report["runs"] else "-"
            notes = [f"{k} {v}" for k, v in report.get("versions", {}).items()]
            notes += [report[name] for name in ("reason", "speed") if name in report]
            table.add_row(escape(report["backend"]), runs, time, escape(", ".join(notes)))
        Console().print(table)
    return 0 if any(report["runs"] for report in reports) else 5


def _try(row: BackendRow, model: Path | None) -> dict[str, Any]:
    """Score one image on a backend; report its time and versions, or the reason why it fails."""
    import time

    import numpy as np

    from tinyunet_deploy.backends.registry import open_backend
    from tinyunet_deploy.backends.table import why_not
    from tinyunet_deploy.data import synthetic
    from tinyunet_deploy.errors import TinyUNetError

    report: dict[str, Any] = {"backend": row.name, "runs": False}
    reason = why_not(row)
    if reason is not None:
        return {**report, "reason": reason}
    try:
        with open_backend(model, row) as backend:
            height, width = backend.contract.height, backend.contract.width
            drawn = synthetic.sample(1, 1, defective=True, size=max(height, width)).image
            image = np.ascontiguousarray(drawn[None, None, :height, :width])
            backend.run(image)
            started = time.perf_counter()
            backend.run(image)
            return {
                **report,
                "device": backend.device,
                "one_image_ms": round((time.perf_counter() - started) * 1e3, 1),
                "versions": backend.versions,
                "runs": True,
                **_speed(backend),
            }
    except TinyUNetError as error:
        return {**report, "reason": str(error)}
    except (Exception, SystemExit) as error:  # a runtime may raise anything
        return {**report, "reason": f"fails on the model of the package: {error!r}"}


def _speed(backend: Backend) -> dict[str, str]:
    """Return the speed that the exporter measured on this backend, if it did."""
    sidecar = backend.artifact.sidecar
    facts = sidecar.speed
    speed = None if facts is None else facts.on(backend.name)
    if facts is None or speed is None:
        return {}
    gain = "" if facts.pays(backend.name) else ": not faster"
    return {"speed": f"{sidecar.precision} {speed} as {facts.wider} when exported{gain}"}


def _nvidia() -> dict[str, str]:
    """Return the GPUs, and the facts about TensorRT that are known without starting it."""
    from tinyunet_deploy.backends import nvidia_probe
    from tinyunet_deploy.errors import RuntimeUnavailable

    try:
        gpus = ", ".join(f"{gpu.name} ({gpu.compute_capability})" for gpu in nvidia_probe.gpus())
    except RuntimeUnavailable as error:
        gpus = error.what
    facts = {"gpu": gpus or "none"}
    major = nvidia_probe.onnxruntime_tensorrt()
    if major is not None:
        facts["onnxruntime"] = f"its TensorRT provider needs TensorRT {major}"
    return facts
