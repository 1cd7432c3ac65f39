"""``python -m benchmarks.speedups FILE.onnx...``: where each precision pays, as exported files say.

The exporter timed them against fp32 on the runtimes of its machine; nothing is measured here.
"""

from __future__ import annotations

import dataclasses
import shlex
import sys
from pathlib import Path

import click

from benchmarks.options import HELP, output_option, write_result
from tinyunet_deploy.artifacts.sidecar import read_artifact
from tinyunet_deploy.cli import run
from tinyunet_deploy.errors import DataError

__all__ = ["speedups"]


@click.command(context_settings=HELP)
@click.argument(
    "models", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False)
)
@output_option("speedups.json")
def speedups(models: tuple[Path, ...], output: Path) -> None:
    """Collect the speeds that the exporter measured for MODELS."""
    rows = []
    for model in models:
        sidecar = read_artifact(model).sidecar
        if sidecar.speed is None:
            raise DataError(model, "was not timed by the exporter", "export it again")
        fields = {"model": model.name, "precision": sidecar.precision}
        rows.append({**fields, **dataclasses.asdict(sidecar.speed)})
    words = ["python", "-m", "benchmarks.speedups", *(model.name for model in models)]
    write_result(output, {"kind": "speedups", "command": shlex.join(words), "files": rows})
    for row in rows:
        for one in row["runtimes"]:
            click.echo(f"{row['model']:28} {one['backend']:12} {one['speedup']:.2f}")


if __name__ == "__main__":
    sys.exit(run(speedups))
