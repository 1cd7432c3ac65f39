"""Peers that are programs and time themselves: OpenVINO's benchmark_app, NVIDIA's trtexec.

They include copies to and from their buffers in the time, and return no scores.
"""

from __future__ import annotations

import json
import re
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
from tinyunet_deploy.speed.engine.trtexec_times import parse_trtexec_times

__all__ = [
    "PROGRAMS",
    "read_benchmark_app",
    "read_trtexec",
    "trtexec_options",
    "why_no_program",
]


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
    equal = trtexec_options(_start("trtexec", "--help"))
    with tempfile.TemporaryDirectory() as scratch:
        images, times = Path(scratch) / "images.bin", Path(scratch) / "times.json"
        images.write_bytes(batches[0].tobytes())
        shape = "x".join(map(str, batches[0].shape))
        output = _start(
            "trtexec", f"--loadEngine={artifact}", f"--shapes={INPUT_NAME}:{shape}",
            f"--loadInputs={INPUT_NAME}:{images}", f"--iterations={repetitions}", "--duration=0",
            *equal, f"--exportTimes={times}",
        )  # fmt: skip
        return read_trtexec(times.read_text(), output)


def trtexec_options(help_text: str) -> tuple[str, ...]:
    """Return the options that make trtexec copy, use a CUDA graph and spin, as our backend does.

    Since TensorRT 11 it does not copy unless it is told to; graph and spin are its defaults.

    Args:
        help_text: output of ``trtexec --help``.
    """
    if "--includeDataTransfers" in help_text:
        return ("--includeDataTransfers",)
    return ("--useCudaGraph", "--useSpinWait")


def read_trtexec(times: str, output: str) -> dict[str, Any]:
    """Read the output of ``trtexec --exportTimes`` into the fields of a measured cell.

    Args:
        times: JSON of the times.
        output: what trtexec printed, which says its release and whether it used a graph.

    Raises:
        RuntimeUnavailable: it copied nothing, so its times are of computing alone, or the JSON is
            not such a file.
    """
    try:
        measured = parse_trtexec_times(times)
    except ValueError as error:
        raise RuntimeUnavailable("trtexec", f"exported no times: {error}") from error
    if not measured.transfers:
        raise RuntimeUnavailable(
            "trtexec",
            "copied neither images nor scores, so its times are of computing alone",
            "it copies with --includeDataTransfers since TensorRT 11",
        )
    graph = "no CUDA graph (it could not be captured)"
    if "CUDA graph capture failed" not in output:
        graph = "CUDA graph"
    return {
        "load_ms": None,
        "first_ms": None,
        "samples_ms": list(measured.latency.samples_ms),
        "boundary": f"latency of trtexec{_release(output)}: copy in, compute, copy out, from its "
        f"page-locked buffers; {graph}, spin wait, the next batch queued meanwhile",
    }


def _release(output: str) -> str:
    """Return the release out of ``[TensorRT v110100]``, `` of TensorRT 11.1.0``."""
    match = re.search(r"\[TensorRT v(\d{5,6})\]", output)
    if match is None:
        return ""
    number = int(match[1])
    return f" of TensorRT {number // 10000}.{number // 100 % 100}.{number % 100}"


PROGRAMS: Final[dict[str, Callable[[Path, list[Batch], int], dict[str, Any]]]] = {
    "benchmark_app": _benchmark_app_in_float32,
    "benchmark_app-defaults": _benchmark_app,
    "trtexec": _trtexec,
}
"""Runner -> a function that times it on (artifact, batches of one size, repetitions)."""


def _path_of(program: str) -> str | None:
    beside = Path(sys.executable).with_name(program)
    return str(beside) if beside.is_file() else shutil.which(program)


def _start(program: str, *arguments: str) -> str:
    """Run a program and return what it printed."""
    command = [_path_of(program) or program, *arguments]
    process = subprocess.run(command, capture_output=True, text=True)
    text = process.stdout + process.stderr
    if process.returncode:
        lines = [line for line in text.splitlines() if line.strip()]
        errors = [line for line in lines if "error" in line.lower()] or lines or ["no output"]
        raise RuntimeUnavailable(program, f"exit {process.returncode}: {errors[0].strip()}")
    return text
