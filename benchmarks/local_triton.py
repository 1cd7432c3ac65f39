"""A Triton inference server on this machine, for measurements and tests.

It is the Triton of the package ``nvidia-pytriton`` in ``.cache/triton``. This build has Triton's
Python backend, but no ONNX Runtime backend, so :data:`_MODEL` calls ONNX Runtime from Python.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks.options import REPOSITORY
from tinyunet_deploy.backends.triton_repository import write_repository
from tinyunet_deploy.errors import RuntimeUnavailable

__all__ = ["PACKAGES", "Served", "serve"]

PACKAGES = REPOSITORY / ".cache" / "triton"
"""Folder into which ``make test`` installs Triton and its client."""

_MODEL = f"import sys; sys.path[:0] = {sys.path!r}"
_MODEL += """
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
        inputs = [triton.get_input_tensor_by_name(request, "image") for request in requests]
        images = [np.from_dlpack(tensor) for tensor in inputs]  # its numpy() is of numpy 1
        (scores,) = self.session.run(["score"], {"image": np.concatenate(images)})
        with self.sizes.open("a") as file:
            print(len(scores), file=file)
        parts = np.split(scores, np.cumsum([len(batch) for batch in images])[:-1])
        tensors = [triton.Tensor.from_dlpack("score", part) for part in parts]
        return [triton.InferenceResponse([tensor]) for tensor in tensors]
"""
"""The model of Triton's Python backend: an ONNX file in ONNX Runtime."""
_START_TRIES = 1200
"""Number of attempts, 0.1 s apart, before the start of the server has failed: two minutes."""


class Served(NamedTuple):
    """A model on a running Triton server."""

    http: str
    """Address for HTTP."""
    grpc: str
    """Address for gRPC."""
    folder: Path
    """Folder in the model repository; its file ``batches`` has the size of each batch that ran."""


@contextlib.contextmanager
def serve(model: Path, scratch: Path) -> Iterator[Served]:
    """Start Triton on the model repository that ``tinyunet triton`` makes from an ONNX file.

    Args:
        scratch: an empty folder for the repository, the backend and the server's log.

    Raises:
        RuntimeUnavailable: Triton is not in ``.cache/triton``, or does not start.
    """
    triton = PACKAGES / "pytriton" / "tritonserver"
    if not triton.is_dir():
        raise RuntimeUnavailable(
            PACKAGES,
            "has no Triton",
            f"pip install --no-deps --target {PACKAGES} -c constraints.txt "
            "nvidia-pytriton tritonclient python-rapidjson",
        )
    folder = write_repository(model, scratch / "models")
    _run_in_python(folder)
    program = triton / "bin" / "tritonserver"
    program.chmod(0o755)
    http, grpc = _free_port(), _free_port()
    command = [program, "--model-repository", folder.parent]
    command += ["--backend-directory", _python_backend(triton, scratch)]
    command += ["--allow-metrics", "false"]
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
            _wait_until_ready(http, process, log)
            yield Served(
                f"http://127.0.0.1:{http}/{folder.name}",
                f"grpc://127.0.0.1:{grpc}/{folder.name}",
                folder,
            )
        finally:
            process.terminate()


def _run_in_python(folder: Path) -> None:
    """Change a model's folder from Triton's ONNX Runtime backend to its Python backend."""
    path = folder / "config.pbtxt"
    config = path.read_text().replace('platform: "onnxruntime_onnx"', 'backend: "python"')
    path.write_text(config)
    (folder / "1" / "model.py").write_text(_MODEL)


def _python_backend(triton: Path, scratch: Path) -> Path:
    """Make a folder with Triton's Python backend and its stub for this version of Python."""
    folder = scratch / "backends"
    shutil.copytree(triton / "backends" / "python", folder / "python")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = folder / "python" / "triton_python_backend_stub"
    shutil.copy(triton / "python_backend_stubs" / version / stub.name, stub)
    stub.chmod(0o755)
    return folder


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def _wait_until_ready(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(_START_TRIES):
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/ready").close()
            return
        if process.poll() is not None:
            break
        time.sleep(0.1)
    raise RuntimeUnavailable("tritonserver", "does not start", log.read_text()[-4000:])
