"""``python -m benchmarks.cluster``: the cost of Ray beyond that of plain processes.

The same PNG files go through ``infer`` twice in turn: as two processes with ``--shard``, and with
``--ray`` on a cluster of two nodes on this machine, which is started before the timing begins. Each
process, and each node, has its own processor. The figure is the time of Ray divided by that of the
shards, both from the start of the commands to their end.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from benchmarks.options import (
    HELP,
    REPOSITORY,
    output_option,
    progress_lines,
    rounds_option,
    write_result,
)
from benchmarks.synthetic_images import draw_images
from tinyunet_deploy.cli import run
from tinyunet_deploy.data.encoding import write_png
from tinyunet_deploy.errors import RuntimeUnavailable
from tinyunet_deploy.host import describe_machine

_DISTINCT = 50
"""Images that are drawn; all others are copies of them."""
_SIZE = 512
"""Height and width of the package's model."""
_OBJECT_STORE_BYTES = 80 * 2**20
"""Shared memory of a Ray node, bytes; close to the minimum that Ray accepts."""


@click.command(context_settings=HELP)
@click.option("--images", "count", default=2000, show_default=True, type=click.IntRange(min=1))
@rounds_option
@output_option("cluster.json")
def cluster(count: int, rounds: int, output: Path) -> None:
    """Measure `infer --ray` on two nodes against two processes with `--shard`."""
    ray = _import_ray()
    os.environ["PYTHONPATH"] = str(REPOSITORY)
    shard_s, ray_s = [], []
    with (
        tempfile.TemporaryDirectory() as folder,
        _two_nodes() as address,
        progress_lines(rounds) as progress,
    ):
        scratch = Path(folder)
        images = scratch / "images"
        _write_images(images, count)
        for number in range(rounds):
            shards = [["--shard", f"{index}/2"] for index in (1, 2)]
            shard_s.append(_seconds(images, scratch / f"shards{number}", shards))
            ray_s.append(_seconds(images, scratch / f"ray{number}", [["--ray", address]]))
            progress.advance()
            click.echo(f"shards {shard_s[-1]:.1f} s  Ray {ray_s[-1]:.1f} s", err=True)
    ratios = [one / other for one, other in zip(ray_s, shard_s, strict=True)]
    fields = {
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
    write_result(output, fields)
    click.echo(f"median ratio {statistics.median(ratios):.3f}  ({output})")


def _import_ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise RuntimeUnavailable(
            "ray", f"cannot be imported: {error}", "pip install 'tinyunet-deploy[ray]'"
        ) from error
    return ray


def _write_images(folder: Path, count: int) -> None:
    folder.mkdir()
    paths = [folder / f"{index:05}.png" for index in range(count)]
    drawn = draw_images(min(count, _DISTINCT), _SIZE, _SIZE, defective_every=4)
    for path, image in zip(paths, drawn[:, 0], strict=False):
        write_png(path, image)
    for index in range(_DISTINCT, count):
        shutil.copyfile(paths[index % _DISTINCT], paths[index])


@contextlib.contextmanager
def _two_nodes() -> Iterator[str]:
    """Start a Ray cluster of two nodes, each with one processor; yield its address."""
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": _OBJECT_STORE_BYTES}
    with _on_processor(0):
        head = {**node, "include_dashboard": False}
        nodes = Cluster(initialize_head=True, head_node_args=head)
    try:
        with _on_processor(1):
            nodes.add_node(**node)
        nodes.wait_for_nodes()
        yield nodes.address
    finally:
        nodes.shutdown()


@contextlib.contextmanager
def _on_processor(index: int) -> Iterator[None]:
    """Run every process that is started inside the block on one processor."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {sorted(allowed)[index]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def _seconds(images: Path, output: Path, commands: list[list[str]]) -> float:
    """Return the time from the start of the commands, all at once, to the end of the last."""
    program = "import sys; from tinyunet_deploy.cli import infer_main; sys.exit(infer_main())"
    words = [sys.executable, "-c", program, str(images), "-o", str(output)]
    started = time.perf_counter()
    processes = []
    for index, options in enumerate(commands):
        with _on_processor(index) if len(commands) > 1 else contextlib.nullcontext():
            processes.append(subprocess.Popen([*words, *options], cwd=REPOSITORY))
    codes = [process.wait() for process in processes]
    seconds = time.perf_counter() - started
    if any(codes):
        raise RuntimeUnavailable("infer", f"ended with {codes}")
    return seconds


if __name__ == "__main__":
    sys.exit(run(cluster))
