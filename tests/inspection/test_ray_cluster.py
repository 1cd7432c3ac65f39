"""``infer --ray`` on a cluster of two nodes on this machine.

Left out unless asked for (``-m ray``): starting the cluster alone takes half a minute.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from tests.conftest import REPOSITORY, SIZE, part
from tinyunet_deploy.cli import run, tinyunet
from tinyunet_deploy.data.encoding import write_png
from tinyunet_deploy.inspection.run_report import read_report

IMAGES = 400


class Nodes(NamedTuple):
    address: str
    cluster: Any

    def workers(self) -> list[int]:
        """Process ids of the actors that inspect, all of them children of the nodes' raylets."""
        raylets = {
            info.process.pid
            for node in self.cluster.list_all_nodes()
            for info in node.all_processes["raylet"]
        }
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
                if parent in raylets and b"_Inspector" in (process / "cmdline").read_bytes():
                    found.append(int(process.name))
            except OSError:
                continue
        return found


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    """Two nodes of one processor each."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    os.environ["PYTHONPATH"] = str(REPOSITORY)
    memory = {"object_store_memory": 80 * 2**20, "num_cpus": 1, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=memory)
    try:
        cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20)
        cluster.wait_for_nodes()
        yield Nodes(cluster.address, cluster)
    finally:
        del os.environ["PYTHONPATH"]
        cluster.shutdown()


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archive")
    for seed in range(IMAGES):
        path = folder / f"lot {seed % 7}" / f"{seed}.png"
        path.parent.mkdir(exist_ok=True)
        write_png(path, part(seed))
    (folder / "lot 3" / "cut.png").write_bytes(b"\x89PNG")
    write_png(folder / os.fsdecode(b"\xff.png"), np.zeros((SIZE, SIZE), np.uint8))
    return folder


@pytest.fixture(scope="module")
def model(tiny_onnx: Path) -> list[str]:
    words = ["--model", str(tiny_onnx), "--backend", "onnxruntime", "--threshold", "0.55"]
    return [*words, "-b", "2", "--scores", "--format", "json"]


def tree(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def wanted(
    archive: Path, model: list[str], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    """What one process leaves."""
    out = tmp_path_factory.mktemp("one") / "out"
    assert run(tinyunet, ["infer", str(archive), "-o", str(out), *model]) == 3
    return tree(out)


def start(archive: Path, out: Path, nodes: Nodes, model: list[str]) -> subprocess.Popen[str]:
    program = "from tinyunet_deploy.cli import infer_main; infer_main()"
    words = [str(archive), "-o", str(out), "--ray", nodes.address, *model]
    return subprocess.Popen(
        [sys.executable, "-c", program, *words],
        cwd=REPOSITORY,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.mark.ray
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kill", ["nothing", "a worker", "the driver"])
def test_a_cluster_leaves_the_tree_of_one_process(
    archive: Path,
    tmp_path: Path,
    nodes: Nodes,
    model: list[str],
    wanted: dict[str, bytes],
    kill: str,
) -> None:
    out = tmp_path / "out"
    process = start(archive, out, nodes, model)
    if kill != "nothing":
        while len(list(out.rglob("masks/**/*.png"))) < 40:
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.01)
        before = nodes.workers()
        assert len(before) == 2, "one actor per node"
        os.kill(before[0] if kill == "a worker" else process.pid, signal.SIGKILL)
    told, errors = process.communicate()
    if kill == "the driver":
        assert read_report(out / "report.jsonl")[1] is None
        process = start(archive, out, nodes, model)
        told, errors = process.communicate()
    assert process.returncode == 3, errors
    assert json.loads(told)["images"] == IMAGES + 2
    assert tree(out) == wanted, "nothing lost, nothing twice, not a byte different"


@pytest.mark.ray
@pytest.mark.filterwarnings("ignore")
def test_what_is_wrong_on_a_node_is_told_in_one_line(
    archive: Path, tmp_path: Path, nodes: Nodes, model: list[str]
) -> None:
    process = start(
        archive, tmp_path / "out", nodes, [*model, "--model", str(tmp_path / "no.onnx")]
    )
    told, errors = process.communicate()
    assert (process.returncode, told) == (4, "")
    assert errors.startswith(f"error: {tmp_path / 'no.onnx'}: does not exist")
    process = start(archive, tmp_path / "out", nodes, [*model, "--device", "cuda:0"])
    told, errors = process.communicate()
    assert (process.returncode, told) == (5, "")
    assert errors == f"error: {nodes.address}: has no node with a GPU\n"
    assert not (tmp_path / "out").exists()


def test_no_cluster_is_told_and_nothing_is_written(
    station: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    infer = ["infer", str(station), "-o", str(tmp_path / "out"), "--ray", "auto"]
    assert run(tinyunet, [*infer, "--shard", "1/2"]) == 2
    assert "--ray cannot be combined with" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
