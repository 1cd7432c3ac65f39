"""``python -m benchmarks.cluster``: what Ray costs on top of plain processes.

The same PNG files go through ``infer`` twice in turn: as two processes with ``--shard``, and with
``--ray`` on a cluster of two nodes on this machine, which is started before the clock is. Each
process, and each node, has one processor of its own. The figure is the time of Ray over that of the
shards, both from the start of the commands to their end.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import click

from tinyunet_deploy.cli import run
from tinyunet_deploy.data import synthetic
from tinyunet_deploy.data.encoding import write_png
from tinyunet_deploy.errors import RuntimeUnavailable
from tinyunet_deploy.files import write_atomic
from tinyunet_deploy.host import describe_machine

REPOSITORY = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).parent / "results"
DISTINCT = 50
"""Images that are drawn; all others are copies of them."""


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--images", "count", default=2000, show_default=True, type=click.IntRange(min=1))
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(min=1))
@click.option(
    "-o",
    "--output",
    default=RESULTS / "cluster.json",
    show_default=True,
    type=click.Path(path_type=Path, dir_okay=False),
)
def cluster(count: int, rounds: int, output: Path) -> None:
    """Measure `infer --ray` on two nodes against two processes with `--shard`."""
    try:
        import ray
        from ray.cluster_utils import Cluster
    except ImportError as error:
        raise RuntimeUnavailable(
            "ray", f"cannot be imported: {error}", "pip install 'tinyunet-deploy[ray]'"
        ) from error
    os.environ["PYTHONPATH"] = str(REPOSITORY)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        images = scratch / "images"
        images.mkdir()
        for index in range(count):
            path = images / f"{index:05}.png"
            if index < DISTINCT:
                sample = synthetic.sample(1 + index % 10, index, defective=index % 4 == 0)
                write_png(path, sample.image)
            else:
                path.write_bytes((images / f"{index % DISTINCT:05}.png").read_bytes())
        node = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}
        with _on_processor(0):
            nodes = Cluster(initialize_head=True, head_node_args=node)
        try:
            with _on_processor(1):
                nodes.add_node(num_cpus=1, object_store_memory=80 * 2**20)
            nodes.wait_for_nodes()
            shard_s, ray_s = [], []
            for number in range(rounds):
                shards = [["--shard", f"{index}/2"] for index in (1, 2)]
                shard_s.append(_seconds(images, scratch / f"shards{number}", shards))
                ray_s.append(_seconds(images, scratch / f"ray{number}", [["--ray", nodes.address]]))
                click.echo(f"shards {shard_s[-1]:.1f} s  Ray {ray_s[-1]:.1f} s", err=True)
        finally:
            nodes.shutdown()
    ratios = [one / other for one, other in zip(ray_s, shard_s, strict=True)]
    result = {
        "schema_version": 1,
        "command": "python -m benchmarks.cluster",
        "formula": "ratio = seconds of infer --ray / seconds of the slower of two infer --shard",
        "machine": describe_machine(),
        "versions": {"ray": ray.__version__},
        "images": count,
        "shard_s": shard_s,
        "ray_s": ray_s,
        "ratio": ratios,
        "ratio_median": statistics.median(ratios),
    }
    write_atomic(output, json.dumps(result, indent=2).encode() + b"\n")
    click.echo(f"median ratio {statistics.median(ratios):.3f}  ({output})")


@contextlib.contextmanager
def _on_processor(index: int) -> Iterator[None]:
    """What is started inside runs on one processor alone."""
    all_of_them = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {sorted(all_of_them)[index]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, all_of_them)


def _seconds(images: Path, out: Path, commands: list[list[str]]) -> float:
    """From the start of the commands, all at once, to the end of the last."""
    program = "import sys; from tinyunet_deploy.cli import infer_main; sys.exit(infer_main())"
    words = [sys.executable, "-c", program, str(images), "-o", str(out)]
    started = time.perf_counter()
    processes = []
    for index, more in enumerate(commands):
        with _on_processor(index) if len(commands) > 1 else contextlib.nullcontext():
            processes.append(subprocess.Popen([*words, *more], cwd=REPOSITORY))
    codes = [process.wait() for process in processes]
    seconds = time.perf_counter() - started
    if any(codes):
        raise RuntimeUnavailable("infer", f"ended with {codes}")
    return seconds


if __name__ == "__main__":
    sys.exit(run(cluster))
