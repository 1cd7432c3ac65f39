"""``python -m benchmarks.plateau``: keep the plateaus of parity runs.

A run is ``tinyunet parity DATA -m NAME.onnx -m NAME.fp16.onnx -m NAME.int8.onnx --reference
CHECKPOINT --backend openvino --backend onnxruntime -o FOLDER``; ``make parity`` makes both that the
documentation shows.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from benchmarks.options import HELP, output_option
from tinyunet_deploy.cli import run
from tinyunet_deploy.files import write_atomic


@click.command(context_settings=HELP)
@click.argument(
    "runs", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False)
)
@output_option("plateau.json")
def plateau(runs: tuple[Path, ...], output: Path) -> None:
    """Write the plateaus of several parity.json into one result; the first run is drawn."""
    rows = []
    for path in runs:
        result = json.loads(path.read_text())
        rows += [
            {
                "data": result["data"],
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
    fields = {"schema_version": 1, "plateaus": rows}
    write_atomic(output, f"{json.dumps(fields, indent=2)}\n".encode())
    click.echo(output)
    click.echo("next: python -m benchmarks.picture plateau.svg", err=True)


if __name__ == "__main__":
    sys.exit(run(plateau))
