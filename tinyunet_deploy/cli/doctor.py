"""``tinyunet doctor``: show which backends run on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from tinyunet_deploy.cli.options import debug_option, format_option

if TYPE_CHECKING:
    from tinyunet_deploy.backends.table import BackendRow


@click.command()
@format_option
@debug_option
def doctor(style: str) -> int:
    """Show which backends run here, and what the others need.

    Each backend is tried with the package's model. Exit code 5 if none runs.
    """
    import json

    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from tinyunet_deploy.backends.table import backend_rows
    from tinyunet_deploy.host import describe_machine

    reports = [_try(row) for row in backend_rows()]
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
            versions = ", ".join(f"{k} {v}" for k, v in report.get("versions", {}).items())
            table.add_row(
                escape(report["backend"]), runs, time, escape(versions or report.get("reason", ""))
            )
        Console().print(table)
    return 0 if any(report["runs"] for report in reports) else 5


def _try(row: BackendRow) -> dict[str, Any]:
    """Score one image on a backend; report its time and versions, or the reason why it fails."""
    import time

    from tinyunet_deploy.backends.registry import open_backend
    from tinyunet_deploy.backends.table import why_not
    from tinyunet_deploy.data import synthetic
    from tinyunet_deploy.errors import TinyUNetError

    report: dict[str, Any] = {"backend": row.name, "runs": False}
    reason = why_not(row)
    if reason is not None:
        return {**report, "reason": reason}
    try:
        with open_backend(None, row) as backend:
            size = backend.contract.height
            image = synthetic.sample(1, 1, defective=True, size=size).image[None, None]
            backend.run(image)
            started = time.perf_counter()
            backend.run(image)
            return {
                **report,
                "device": backend.device,
                "one_image_ms": round((time.perf_counter() - started) * 1e3, 1),
                "versions": backend.versions,
                "runs": True,
            }
    except TinyUNetError as error:
        return {**report, "reason": str(error)}
    except (Exception, SystemExit) as error:  # a runtime may raise anything
        return {**report, "reason": f"fails on the model of the package: {error!r}"}


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
