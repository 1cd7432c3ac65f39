"""``python -m benchmarks.server``: what an inference server costs on top of the local backend.

The same PNG files go through ``infer`` twice in turn: with ONNX Runtime in this process, and in a
Triton on this machine that runs the same file in ONNX Runtime. The figure is the second rate over
the first.

The Triton is that of the package ``nvidia-pytriton`` in ``.cache/triton``. It has no ONNX Runtime
backend, only the one for Python, in which :data:`STAND_IN` calls ONNX Runtime.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click

from tinyunet_deploy.artifacts.sidecar import DEFAULT_ONNX
from tinyunet_deploy.backends.base import Backend
from tinyunet_deploy.backends.registry import open_backend
from tinyunet_deploy.backends.server import ServerBackend
from tinyunet_deploy.backends.triton_repository import write_repository
from tinyunet_deploy.cli import run
from tinyunet_deploy.data import synthetic
from tinyunet_deploy.data.encoding import write_png
from tinyunet_deploy.errors import RuntimeUnavailable
from tinyunet_deploy.files import write_atomic
from tinyunet_deploy.host import describe_machine, processor_count
from tinyunet_deploy.inspection.infer import infer

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGES = REPOSITORY / ".cache" / "triton"
RESULTS = Path(__file__).parent / "results"

STAND_IN = f"import sys; sys.path[:0] = {sys.path!r}"
STAND_IN += """
from pathlib import Path
import numpy as np, onnxruntime
import triton_python_backend_utils as triton

class TritonPythonModel:
    def initialize(self, args):
        folder = Path(args["model_repository"])
        self.sizes = folder / "batches"
        path = folder / args["model_version"] / "model.onnx"
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def execute(self, requests):
        given = [triton.get_input_tensor_by_name(each, "image") for each in requests]
        images = [np.from_dlpack(tensor) for tensor in given]  # its numpy() is of numpy 1
        (scores,) = self.session.run(["score"], {"image": np.concatenate(images)})
        with self.sizes.open("a") as file:
            print(len(scores), file=file)
        parts = np.split(scores, np.cumsum([len(each) for each in images])[:-1])
        tensors = [triton.Tensor.from_dlpack("score", part) for part in parts]
        return [triton.InferenceResponse([tensor]) for tensor in tensors]
"""
"""The model of Triton's Python backend: an ONNX file in ONNX Runtime."""


class Served(NamedTuple):
    """A model in a Triton that runs."""

    http: str
    """Its address."""
    grpc: str
    """Its other address."""
    folder: Path
    """Its folder in the repository, where ``batches`` has the size of each batch it ran."""


@contextlib.contextmanager
def serve(model: Path, scratch: Path) -> Iterator[Served]:
    """Start Triton on what ``tinyunet triton`` makes of an ONNX file.

    Raises:
        RuntimeUnavailable: there is no Triton in ``.cache/triton``, or it does not start.
    """
    server = PACKAGES / "pytriton" / "tritonserver"
    if not server.is_dir():
        raise RuntimeUnavailable(
            PACKAGES,
            "has no Triton",
            f"pip install --no-deps --target {PACKAGES} -c constraints.txt "
            "nvidia-pytriton tritonclient python-rapidjson",
        )
    folder = write_repository(model, scratch / "models")
    config = (folder / "config.pbtxt").read_text()
    config = config.replace('platform: "onnxruntime_onnx"', 'backend: "python"')
    (folder / "config.pbtxt").write_text(config)
    (folder / "1" / "model.py").write_text(STAND_IN)
    backend = scratch / "backends" / "python"
    shutil.copytree(server / "backends" / "python", backend)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = "triton_python_backend_stub"
    shutil.copy(server / "python_backend_stubs" / version / stub, backend / stub)
    for program in (backend / stub, server / "bin" / "tritonserver"):
        program.chmod(0o755)
    http, grpc = _free_port(), _free_port()
    command = [server / "bin" / "tritonserver", "--model-repository", scratch / "models"]
    command += ["--backend-directory", backend.parent, "--allow-metrics", "false"]
    command += ["--http-address", "127.0.0.1", "--http-port", http]
    command += ["--grpc-address", "127.0.0.1", "--grpc-port", grpc]
    environment = {**os.environ, "LD_LIBRARY_PATH": str(PACKAGES / "nvidia_pytriton.libs")}
    log = scratch / "log"
    with (
        log.open("w") as file,
        subprocess.Popen(
            [str(word) for word in command], env=environment, stdout=file, stderr=file
        ) as process,
    ):
        try:
            _wait(http, process, log)
            yield Served(
                f"http://127.0.0.1:{http}/{folder.name}",
                f"grpc://127.0.0.1:{grpc}/{folder.name}",
                folder,
            )
        finally:
            process.terminate()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def _wait(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(1200):
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/ready").close()
            return
        if process.poll() is not None:
            break
        time.sleep(0.1)
    raise RuntimeUnavailable("tritonserver", "does not start", log.read_text()[-4000:])


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "-m",
    "--model",
    default=DEFAULT_ONNX,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
)
@click.option("--images", "count", default=200, show_default=True, type=click.IntRange(min=1))
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(min=1))
@click.option("-b", "--batch-size", default=8, show_default=True, type=click.IntRange(min=1))
@click.option(
    "-o",
    "--output",
    default=RESULTS / "server.json",
    show_default=True,
    type=click.Path(path_type=Path, dir_okay=False),
)
def server(model: Path, count: int, rounds: int, batch_size: int, output: Path) -> None:
    """Measure the rate of `infer --server` against that of `infer` on the same runtime."""
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        images = scratch / "images"
        images.mkdir()
        for index in range(count):
            image = synthetic.sample(1 + index % 10, index, defective=index % 4 == 0).image
            write_png(images / f"{index:04}.png", image)
        served = stack.enter_context(serve(model, scratch))
        local = stack.enter_context(open_backend(model, "onnxruntime"))
        remote = stack.enter_context(ServerBackend(served.http))
        rates: dict[str, list[float]] = {"local": [], "server": []}
        for number in range(rounds):
            for name, backend in (("local", local), ("server", remote)):
                seconds = _seconds(images, scratch / f"{name}{number}", backend, batch_size)
                rates[name].append(count / seconds)
                click.echo(f"{name:6} {rates[name][-1]:6.2f} images/s", err=True)
        ratios = [far / near for near, far in zip(*rates.values(), strict=True)]
        result = {
            "schema_version": 1,
            "command": "python -m benchmarks.server",
            "formula": "ratio = images/s of infer --server / images/s of infer",
            "machine": describe_machine(),
            "model_sha256": local.artifact.sidecar.sha256,
            "precision": local.artifact.sidecar.precision,
            "versions": {**local.versions, **remote.versions},
            "transport": "http",
            "server_backend": "python, calling onnxruntime",
            "images": count,
            "image_px": [local.contract.height, local.contract.width],
            "batch_size": batch_size,
            "local_images_per_s": rates["local"],
            "server_images_per_s": rates["server"],
            "ratio": ratios,
            "ratio_median": statistics.median(ratios),
        }
    write_atomic(output, json.dumps(result, indent=2).encode() + b"\n")
    click.echo(f"median ratio {statistics.median(ratios):.3f}  ({output})")


def _seconds(images: Path, out: Path, backend: Backend, batch_size: int) -> float:
    sidecar = backend.artifact.sidecar
    started = time.perf_counter()
    infer(
        [images],
        out,
        backend,
        threshold=sidecar.threshold,
        min_area=sidecar.min_area,
        batch_size=batch_size,
        workers=processor_count(),
    )
    return time.perf_counter() - started


if __name__ == "__main__":
    sys.exit(run(server))
