"""``python -m benchmarks.plateau``: keep the plateaus of a parity run.

The run is ``tinyunet parity DATA -m NAME.onnx -m NAME.fp16.onnx -m NAME.int8.onnx --reference
NAME.onnx --backend openvino --backend onnxruntime -o FOLDER``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from benchmarks.options import HELP, RESULTS
from tinyunet_deploy.cli import run
from tinyunet_deploy.files import write_atomic


@click.command(context_settings=HELP)
@click.argument("parity", type=click.Path(path_type=Path, exists=True, dir_okay=False))
def plateau(parity: Path) -> None:
    """Write benchmarks/results/plateau.json from a parity.json."""
    result = json.loads(parity.read_text())
    rows = [
        {
            "model_sha256": pair["sha256"],
            "precision": pair["precision"],
            "backend": pair["backend"],
            "plateau_kept": pair["plateau_kept"],
            "margin_steps": pair["margin_steps"],
            "plateau": pair["plateau"],
        }
        for pair in result["comparisons"]
        if pair.get("plateau")
    ]
    fields = {"schema_version": 1, "data": result["data"], "plateaus": rows}
    path = RESULTS / "plateau.json"
    write_atomic(path, f"{json.dumps(fields, indent=2)}\n".encode())
    click.echo(path)
    click.echo("next: python -m benchmarks.picture plateau.svg", err=True)


if __name__ == "__main__":
    sys.exit(run(plateau))
