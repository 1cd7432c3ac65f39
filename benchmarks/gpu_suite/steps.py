"""The commands of the suite: tests, export, plans, speed, files to masks, training, parity."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from tinyunet_deploy.artifacts.precision import PRECISIONS, Precision
from tinyunet_deploy.backends.table import COMPUTES

__all__ = ["Step", "suite_steps"]

BATCHES: Final = "1,8,16,32"
_PYTHON: Final = (sys.executable, "-m")
PRECISIONS_BY_WORTH: Final[tuple[Precision, ...]] = ("fp16", "int8", "fp32")
"""Precisions in order of their worth: if the time runs out, float32 is missing."""
FLOATS: Final[tuple[Precision, ...]] = ("fp16", "fp32")
"""Precisions of which options of ONNX Runtime's CUDA provider are compared."""
_TORCH: Final = ("torch", *(f"torch-{compute}" for compute in COMPUTES))


class Step(NamedTuple):
    """One command and what it makes."""

    name: str
    words: tuple[str, ...]
    limit_s: float
    """Longest time it may take, seconds."""
    result: Path | None = None
    """File or folder that it writes and that belongs to the results; None for a preparation."""
    gates: bool = False
    """True if exit code 6 is a result: a limit was broken, and the file says which."""
    needs: tuple[str, ...] = ()
    """Names of the steps that must be finished."""


def suite_steps(
    checkpoints: Sequence[Path], folder: Path, device: str, *, tensorrt: bool
) -> list[Step]:
    """Return the steps in their order.

    Args:
        checkpoints: models to measure, the one that the bars are for first.
        folder: folder of this run.
        device: ``cuda:N``.
        tensorrt: build and measure plans.
    """
    results, engines, data = folder / "results", folder / "engines", folder / "data"
    steps = [
        Step("tests", _module("pytest", "-m", "gpu", "tests/test_gpu.py"), 90),
        Step(
            "data",
            _tinyunet(
                "data", "synthesize", data, "--classes", "1", "--train", "48", "--test", "16",
                "--defective", "0.5",
            ),
            60,
        ),
    ]  # fmt: skip
    for checkpoint in checkpoints:
        steps += _export(checkpoint, engines)
    for checkpoint in checkpoints:
        for compute in COMPUTES:
            steps.append(_measure(checkpoint, f"torch-{compute}", (), results, device))
        for precision in PRECISIONS_BY_WORTH:
            steps += _speed(checkpoint, precision, engines, results, device, tensorrt=tensorrt)
        steps.append(_measure(checkpoint, "torch", (), results, device))
    first = checkpoints[0]
    built = PRECISIONS_BY_WORTH if tensorrt else ()
    plans = [_plan(first, precision, engines) for precision in built]
    fp16 = _onnx(first, "fp16", engines)
    runs = folder / "training"
    steps += [
        Step(
            "training",
            _module(
                "training.speed", "reference", "--data", data, "--steps", "160",
                "--resident-steps", "60", "--device", device, "--runs", runs,
                "--output", results / "training_speed.json",
            ),
            120,
            results / "training_speed.json",
            needs=("data",),
        ),
        *(
            step
            for checkpoint in checkpoints
            for step in _in_use(checkpoint, first, engines, results, data, device, built)
        ),
        *(_provider_options(first, precision, engines, results, device) for precision in FLOATS),
        Step(
            "parity",
            _tinyunet(
                "parity", data, "--reference", first, *_models([fp16, *plans]), "--device", device,
                "--output", results / "parity",
            ),
            120,
            results / "parity",
            gates=True,
            needs=("data", f"export-{first.stem}"),
        ),
        Step(
            "parity-torch",
            _tinyunet(
                "parity", data, "--model", first, *_words("--backend", _TORCH), "--device", device,
                "--output", results / "parity-torch",
            ),
            60,
            results / "parity-torch",
            gates=True,
            needs=("data",),
        ),
    ]  # fmt: skip
    return steps


def _in_use(
    checkpoint: Path,
    first: Path,
    engines: Path,
    results: Path,
    data: Path,
    device: str,
    built: Sequence[Precision],
) -> list[Step]:
    """Files to masks, and latency on checked answers; the first model's results have no suffix."""
    suffix = "" if checkpoint == first else f"-{checkpoint.stem}"
    plans = [_plan(checkpoint, precision, engines) for precision in built]
    fp16 = _onnx(checkpoint, "fp16", engines)
    exported = f"export-{checkpoint.stem}"
    builds = [f"build-{checkpoint.stem}-{precision}" for precision in built]
    masks, times = results / f"pipeline{suffix}.json", results / f"benchmark{suffix}.json"
    return [
        Step(
            f"pipeline{suffix}",
            _module(
                "benchmarks.files_to_masks", "--model", plans[0] if plans else fp16, "--device",
                device, "--images", "600", "--rounds", "2", "--batch-size", "16",
                "--output", masks,
            ),
            90,
            masks,
            needs=(builds[0] if plans else exported,),
        ),
        Step(
            f"benchmark{suffix}",
            _tinyunet(
                "benchmark", data / "Class1" / "Test", "--reference", checkpoint,
                *_models([fp16, *plans]), "--device", device, "--batch-size", "1,16",
                "--duration", "2", "--images", "16",
                "--engine-report", results / "engines", "--output", times,
            ),
            150,
            times,
            gates=True,
            needs=(exported, *builds),
        ),
    ]  # fmt: skip


def _provider_options(
    checkpoint: Path, precision: Precision, engines: Path, results: Path, device: str
) -> Step:
    """Compare options of ONNX Runtime's CUDA provider in one precision."""
    name = f"cuda-options-{checkpoint.stem}.{precision}"
    output = results / f"{name}.json"
    return Step(
        name,
        _module(
            "benchmarks.cuda_options", "--model", _onnx(checkpoint, precision, engines),
            "--device", device, "--output", output,
        ),
        75,
        output,
        needs=(f"export-{checkpoint.stem}",),
    )  # fmt: skip


def _export(checkpoint: Path, engines: Path) -> list[Step]:
    words = ("export", checkpoint, "-o", _onnx(checkpoint, "fp32", engines))
    return [
        Step(f"export-{checkpoint.stem}", _module(*words, "--precision", ",".join(PRECISIONS)), 200)
    ]


def _speed(
    checkpoint: Path,
    precision: Precision,
    engines: Path,
    results: Path,
    device: str,
    *,
    tensorrt: bool,
) -> list[Step]:
    """Build one precision, and measure plan and ONNX file."""
    exported = (f"export-{checkpoint.stem}",)
    onnx = _onnx(checkpoint, precision, engines)
    steps = []
    if tensorrt:
        plan = _plan(checkpoint, precision, engines)
        build = Step(
            f"build-{checkpoint.stem}-{precision}",
            _tinyunet(
                "build", onnx, "-o", plan, "--batch", "1,16,32",
                "--timing-cache", engines / "timing.cache",
            ),
            150,
            needs=exported,
        )  # fmt: skip
        steps += [build, _measure(plan, "tensorrt", (build.name,), results, device)]
    return [*steps, _measure(onnx, "onnxruntime", exported, results, device)]


def _measure(model: Path, backend: str, needs: tuple[str, ...], results: Path, device: str) -> Step:
    stem = model.name.rpartition(".")[0]
    name = f"gpu-{stem}-{backend}"
    output = results / f"{name}.json"
    words = ("benchmarks.gpu", "--model", model, "--backend", backend, "--device", device)
    return Step(
        name,
        _module(
            *words, "--batch-size", BATCHES, "--calls", "60", "--rounds", "3", "--output", output
        ),
        60,
        output,
        needs=needs,
    )


def _onnx(checkpoint: Path, precision: Precision, engines: Path) -> Path:
    """Return the file that ``python -m export`` writes for a precision."""
    middle = "" if precision == "fp32" else f".{precision}"
    return engines / f"{checkpoint.stem}{middle}.onnx"


def _plan(checkpoint: Path, precision: Precision, engines: Path) -> Path:
    return engines / f"{checkpoint.stem}.{precision}.plan"


def _models(models: Sequence[Path]) -> list[str]:
    return _words("--model", models)


def _words(option: str, values: Sequence[object]) -> list[str]:
    return [word for value in values for word in (option, str(value))]


def _module(*words: object) -> tuple[str, ...]:
    return (*_PYTHON, *map(str, words))


def _tinyunet(*words: object) -> tuple[str, ...]:
    return _module("tinyunet_deploy", *words)
