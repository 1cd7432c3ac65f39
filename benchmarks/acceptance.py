"""``python -m benchmarks.acceptance``: keep the verdicts of acceptance tests.

The tests of the documentation are ``tinyunet accept dagm2007 --classes 1 -m tiny`` on real images,
and a line that is synthetic: ``tinyunet data synthesize LINE --classes 1 --train 1 --test 2000
--defective 0.05 --size 256``, ``python -m export slim -o NAME.onnx --size 256``, ``tinyunet accept
LINE -m NAME.onnx --parity-images 60 --trained-on LINE/Class1/Train``.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from benchmarks.options import HELP, output_option, write_result
from tinyunet_deploy.cli import run
from tinyunet_deploy.quality.acceptance.result_file import read_result


@click.command(context_settings=HELP)
@click.argument(
    "results", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False)
)
@output_option("acceptance.json")
def acceptance(results: tuple[Path, ...], output: Path) -> None:
    """Write the verdicts of several acceptance.json into one result, without pictures and parts."""
    write_result(
        output,
        {"kind": "acceptances", "acceptances": [_kept(read_result(path)) for path in results]},
    )
    click.echo(output)


def _kept(result: dict[str, Any]) -> dict[str, Any]:
    evidence = result["evidence"]
    detection = evidence["detection"] or {}
    return {
        **{name: result[name] for name in ("made", "decision", "requirements", "machine")},
        "model": evidence["model"],
        "data": evidence["data"],
        "detection": {
            name: detection.get(name)
            for name in ("defective", "escapes", "good", "overkills", "iou_defective", "auroc")
        },
        "result_sha256": result["result_sha256"],
    }


if __name__ == "__main__":
    sys.exit(run(acceptance))
