"""Peers that are programs and time themselves: OpenVINO's benchmark_app, NVIDIA's trtexec.

They include copies to and from their buffers in the time, and return no scores.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

from tinyunet_deploy.contract import INPUT_NAME, Batch
from tinyunet_deploy.errors import RuntimeUnavailable

__all__ = ["PROGRAMS", "read_benchmark_app", "read_trtexec", "why_no_program"]


def why_no_program(runner: str) -> str | None:
    """Return the reason why a runner of :data:`PROGRAMS` cannot run on this machine; None if it
    can."""
    program = runner.removesuffix("-defaults")
    return None if _path_of(program) else f"{program} is not on the PATH"


def _benchmark_app(
    artifact: Path, batches: list[Batch], repetitions: int, *options: str
) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "images"
        folder.mkdir()
        for index, batch in enumerate(batches):
            np.save(folder / f"{index:04}.npy", batch)
        _start(
            "benchmark_app", "-m", str(artifact), "-d", "CPU", "-hint", "latency", "-api", "sync",
            "-b", str(len(batches[0])), "-niter", str(repetitions), "-i", str(folder), *options,
            "-report_type", "no_counters", "-json_stats", "-report_folder", scratch,
        )  # fmt: skip
        return read_benchmark_app((Path(scratch) / "benchmark_report.json").read_text())


def _benchmark_app_in_float32(
    artifact: Path, batches: list[Batch], repetitions: int
) -> dict[str, Any]:
    return _benchmark_app(artifact, batches, repetitions, "-infer_precision", "f32")


def read_benchmark_app(report: str) -> dict[str, Any]:
    """Read the report of ``benchmark_app -json_stats`` into the fields of a measured cell.

    The report gives the median of the samples alone.

    Raises:
        RuntimeUnavailable: nothing was measured, for the reason in the message.
    """
    results = json.loads(report)["execution_results"]
    if "error" in results:
        raise RuntimeUnavailable("benchmark_app", f"did not measure: {results['error']}")
    load_ms = float(results["read model time (ms)"]) + float(results["compile model time (ms)"])
    return {
        "load_ms": load_ms,
        "first_ms": float(results["first inference time (ms)"]),
        "samples_ms": [float(results["latency (ms)"])],
        "boundary": f"its own median of {results['total number of iterations']} calls",
    }


def _trtexec(artifact: Path, batches: list[Batch], repetitions: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as scratch:
        images, times = Path(scratch) / "images.bin", Path(scratch) / "times.json"
        images.write_bytes(batches[0].tobytes())
        shape = "x".join(map(str, batches[0].shape))
        _start(
            "trtexec", f"--loadEngine={artifact}", f"--shapes={INPUT_NAME}:{shape}",
            f"--loadInputs={INPUT_NAME}:{images}", f"--iterations={repetitions}", "--duration=0",
            f"--exportTimes={times}",
        )  # fmt: skip
        return read_trtexec(times.read_text())


def read_trtexec(times: str) -> dict[str, Any]:
    """Read the output of ``trtexec --exportTimes`` into the fields of a measured cell."""
    return {
        "load_ms": None,
        "first_ms": None,
        "samples_ms": [entry["latencyMs"] for entry in json.loads(times)],
        "boundary": "its latency: copy in, compute, copy out",
    }


PROGRAMS: Final[dict[str, Callable[[Path, list[Batch], int], dict[str, Any]]]] = {
    "benchmark_app": _benchmark_app_in_float32,
    "benchmark_app-defaults": _benchmark_app,
    "trtexec": _trtexec,
}
"""Runner -> a function that times it on (artifact, batches of one size, repetitions)."""


def _path_of(program: str) -> str | None:
    beside = Path(sys.executable).with_name(program)
    return str(beside) if beside.is_file() else shutil.which(program)


def _start(program: str, *arguments: str) -> None:
    command = [_path_of(program) or program, *arguments]
    process = subprocess.run(command, capture_output=True, text=True)
    if process.returncode:
        output = (process.stdout + process.stderr).splitlines()
        lines = [line for line in output if line.strip()]
        errors = [line for line in lines if "error" in line.lower()] or lines or ["no output"]
        raise RuntimeUnavailable(program, f"exit {process.returncode}: {errors[0].strip()}")
