"""``python -m benchmarks.shadow_cost``: what a challenger in the shadow costs the leader.

Parts pass at an even pace, as on a belt. Blocks of parts with and without the challenger alternate
in one process, so that both meet the same machine. A part's latency is from its arrival to its
verdict, and contains the time for which earlier parts held it up.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any, Final

import click
import numpy as np

from benchmarks.options import HELP
from tinyunet_deploy.backends.base import Backend
from tinyunet_deploy.backends.registry import open_backend
from tinyunet_deploy.cli import run
from tinyunet_deploy.data import synthetic
from tinyunet_deploy.files import json_value, scratch_folder, write_atomic
from tinyunet_deploy.host import describe_machine
from tinyunet_deploy.inspection.inspected_part import inspect_score
from tinyunet_deploy.inspection.report_line import ReportLine
from tinyunet_deploy.quality.scored_by import ScoredBy
from tinyunet_deploy.quality.shadow.run import Challenger, ShadowRun

__all__ = ["measure"]

_IMAGES: Final = 8
"""Different parts, which pass again and again."""


def measure(
    leader: Backend,
    challenger: Path,
    output: Path,
    *,
    parts_per_second: float,
    deadline_ms: float,
    block: int,
    blocks: int,
) -> dict[str, Any]:
    """Return the leader's latencies without and with the challenger.

    Args:
        output: folder for the pictures of disagreements.
        block: number of parts in a block.
        blocks: number of blocks of each kind.
    """
    contract, decision = leader.contract, leader.artifact.sidecar.decision()
    images = [
        synthetic.sample(7, number, defective=number % 2 == 0, size=contract.height).image
        for number in range(_IMAGES)
    ]
    latencies: dict[str, list[float]] = {"alone": [], "shadowed": []}
    shadow = ShadowRun(Challenger(challenger), leader, decision, output, patient=False)

    def pass_part(number: int, due: float, shadowed: bool) -> float:
        time.sleep(max(0.0, due - time.perf_counter()))
        image = images[number % _IMAGES]
        score = leader.run(image[None, None]).score[0, 0]
        name = f"{number}.png"
        threshold, min_area = decision
        part = inspect_score(Path(name), name, image, score, threshold=threshold, min_area=min_area)
        assert part.verdict is not None
        if shadowed:
            shadow.observe(name, image, score)
            line: ReportLine = {"path": name, "status": "inspected", "verdict": part.verdict}
            shadow.reported(line)
        return (time.perf_counter() - due) * 1e3

    with shadow:
        for number in range(_IMAGES):
            pass_part(number, time.perf_counter(), shadowed=False)
        for index in range(2 * blocks):
            kind = "shadowed" if index % 2 else "alone"
            start = time.perf_counter()
            for number in range(block):
                due = start + number / parts_per_second
                latencies[kind].append(pass_part(number, due, kind == "shadowed"))
            if kind == "shadowed":  # what is left must not run beside the next block
                while shadow.report.offered > shadow.report.seen + sum(
                    shadow.report.unseen.values()
                ):
                    time.sleep(0.05)
    report = shadow.report
    return {
        "schema_version": 1,
        "machine": describe_machine(),
        "leader": ScoredBy.of(leader).as_fields(),
        "challenger": report.challenger and report.challenger.as_fields(),
        "parts_per_second": parts_per_second,
        "deadline_ms": deadline_ms,
        "seen": report.seen,
        "offered": report.offered,
        "challenger_latency_p50_ms": report.latency and report.latency.p50_ms,
        **{
            kind: {
                "parts": len(values),
                "p50_ms": float(np.quantile(values, 0.5)),
                "p99_ms": float(np.quantile(values, 0.99)),
                "max_ms": max(values),
                "late": sum(value > deadline_ms for value in values),
            }
            for kind, values in latencies.items()
        },
    }


@click.command(context_settings=HELP)
@click.option(
    "-m",
    "--model",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="The leader. Default: the package's model.",
)
@click.option(
    "--shadow",
    required=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="The challenger.",
)
@click.option("--parts-per-second", default=2.0, show_default=True, type=click.FloatRange(0.01))
@click.option("--deadline-ms", default=400.0, show_default=True, type=click.FloatRange(0.01))
@click.option("--block", default=50, show_default=True, type=click.IntRange(1))
@click.option("--blocks", default=4, show_default=True, type=click.IntRange(1))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path, dir_okay=False))
def shadow_cost(
    model: Path | None,
    shadow: Path,
    parts_per_second: float,
    deadline_ms: float,
    block: int,
    blocks: int,
    output: Path,
) -> None:
    """Measure the leader's latency without and with a challenger in its shadow."""
    with open_backend(model) as leader, scratch_folder() as folder:
        result = measure(
            leader,
            shadow,
            folder,
            parts_per_second=parts_per_second,
            deadline_ms=deadline_ms,
            block=block,
            blocks=blocks,
        )
    text = json.dumps(json_value(result), indent=2, allow_nan=False) + "\n"
    write_atomic(output, text.encode())
    for kind in ("alone", "shadowed"):
        row = result[kind]
        click.echo(
            f"{kind:9} p50 {row['p50_ms']:.1f} ms  p99 {row['p99_ms']:.1f} ms  "
            f"{row['late']} of {row['parts']} later than {deadline_ms:g} ms"
        )
    click.echo(f"challenger: {result['seen']} of {result['offered']} parts seen", err=True)


if __name__ == "__main__":
    sys.exit(run(shadow_cost))
