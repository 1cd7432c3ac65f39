"""``tinyunet doctor``."""

from __future__ import annotations

import click

from tinyunet_deploy.cli.options import debug_option, format_option


@click.command()
@format_option
@debug_option
def doctor(style: str) -> int:
    """Say what runs here, and why not.

    For each backend that does not run, what to install.

    Each backend is really tried on the model of the package. Exit 5 if none runs.
    """
    import json
    import time

    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from tinyunet_deploy.backends.registry import BACKENDS, open_backend, why_not
    from tinyunet_deploy.data import synthetic
    from tinyunet_deploy.errors import TinyUNetError
    from tinyunet_deploy.host import describe_machine

    backends = []
    for name in BACKENDS:
        found: dict[str, object] = {"backend": name, "runs": False}
        backends.append(found)
        reason = why_not(name)
        if reason is None:
            try:
                with open_backend(None, name) as backend:
                    size = backend.contract.height
                    image = synthetic.sample(1, 1, defective=True, size=size).image[None, None]
                    backend.run(image)
                    started = time.perf_counter()
                    backend.run(image)
                    found["device"] = backend.device
                    found["one_image_ms"] = round((time.perf_counter() - started) * 1e3, 1)
                    found["versions"] = backend.versions
                    found["runs"] = True
            except (TinyUNetError, ImportError) as error:
                reason = str(error)
        if reason is not None:
            found["reason"] = reason
    machine = {**describe_machine(), **_nvidia()}
    if style == "json":
        click.echo(json.dumps({"schema_version": 1, "machine": machine, "backends": backends}))
    else:
        console = Console(soft_wrap=True)
        for key, value in machine.items():
            console.print(f"{key:16} {value}", highlight=False)
        table = Table("backend", "runs", "one image", "version, or why not and what to do")
        for found in backends:
            versions = found.get("versions", {})
            assert isinstance(versions, dict)
            told = ", ".join(f"{k} {v}" for k, v in versions.items()) or str(found.get("reason"))
            took = f"{found['one_image_ms']} ms" if found["runs"] else "-"
            table.add_row(
                str(found["backend"]), "yes" if found["runs"] else "no", took, escape(told)
            )
        Console().print(table)
    return 0 if any(found["runs"] for found in backends) else 5


def _nvidia() -> dict[str, str]:
    """GPUs, and what is known of TensorRT without starting it."""
    from tinyunet_deploy.backends import nvidia_probe
    from tinyunet_deploy.errors import RuntimeUnavailable

    try:
        told = ", ".join(f"{gpu.name} ({gpu.compute_capability})" for gpu in nvidia_probe.gpus())
    except RuntimeUnavailable as error:
        told = error.what
    facts = {"gpu": told or "none"}
    major = nvidia_probe.onnxruntime_tensorrt()
    if major is not None:
        facts["onnxruntime"] = f"its TensorRT provider needs TensorRT {major}"
    return facts
