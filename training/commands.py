"""Options, logging and result files that the training commands share.

``python -m training``, ``python -m training.recipe_comparison`` and ``python -m training.speed``
take the same options under the same names.
"""

from __future__ import annotations

import json
import logging
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

import click

from tinyunet_deploy.cli.options import ClassList
from tinyunet_deploy.files import write_atomic

__all__ = [
    "HELP", "amp_option", "classes_option", "device_option", "end_process", "log_to_stderr",
    "result_option", "runs_option", "say_result", "steps_option", "tune_malloc", "write_result",
]  # fmt: skip

HELP: Final[dict[str, Any]] = {"help_option_names": ["-h", "--help"]}
"""Context settings of every command."""

classes_option = click.option(
    "--classes", type=ClassList(), help="Use only these classes, such as 1,3-5."
)
steps_option = click.option(
    "--steps", type=click.IntRange(min=1), help="Number of steps. Default: the recipe's."
)
device_option = click.option(
    "--device", default="cpu", show_default=True, help="cpu, cuda, or one GPU such as cuda:1."
)
amp_option = click.option(
    "--amp", is_flag=True, help="Mixed precision: fp16 on CUDA, bf16 on a CPU."
)

_Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def runs_option(folder: str, text: str) -> _Decorator:
    """Return ``--runs``, the folder of the runs that a command trains.

    Args:
        folder: the default.
        text: help text about runs that the folder already contains.
    """
    return click.option(
        "--runs",
        default=Path(folder),
        show_default=True,
        type=click.Path(path_type=Path, file_okay=False),
        help=text,
    )


def result_option(name: str) -> _Decorator:
    """Return ``-o/--output``, the result file; ``name`` in benchmarks/results if not given."""
    return click.option(
        "-o",
        "--output",
        default=Path("benchmarks/results") / name,
        show_default=True,
        type=click.Path(path_type=Path, dir_okay=False),
        help="File of the result.",
    )


def write_result(path: Path, fields: Mapping[str, Any]) -> None:
    """Write a result as JSON, with ``schema_version`` 1 as its first field.

    Raises:
        RuntimeUnavailable: the disk is full, read-only or failing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"schema_version": 1, **fields}, indent=1, allow_nan=False)
    write_atomic(path, text.encode(), durable=True)


def say_result(output: Path, checkpoint: Path, folders: Sequence[Path]) -> None:
    """Print what a finished run reached, its checkpoint as the last line, and what comes next.

    Args:
        folders: the run's data folders, which the export is to name.
    """
    from training.run_result import describe_result, read_result

    result = read_result(output)
    for line in describe_result(result) if result is not None else ():
        click.echo(line)
    click.echo(f"{checkpoint}")
    words = [str(checkpoint)]
    for folder in dict.fromkeys(map(str, folders)):
        words += ["--data", folder]
    click.echo(f"next: python -m export {shlex.join(words)} --output engines/NAME.onnx", err=True)


def log_to_stderr(level: int = logging.INFO) -> None:
    """Print the log of a run to stderr, as lines without a prefix."""
    logging.basicConfig(level=level, format="%(message)s", stream=sys.stderr)
    for package in ("matplotlib", "tensorboard"):
        logging.getLogger(package).setLevel(logging.WARNING)


def tune_malloc() -> None:
    """Make glibc keep freed memory, in huge pages, so that it is used again.

    The activations of a step are some 100 MB each; to release and touch them anew takes more than a
    third of a step on a CPU. glibc reads its tunables when a process starts, so this function
    restarts the process, before torch is imported.
    """
    if sys.platform == "linux" and "GLIBC_TUNABLES" not in os.environ:
        os.environ["GLIBC_TUNABLES"] = ":".join(
            (
                "glibc.malloc.hugetlb=1",
                "glibc.malloc.mmap_max=0",
                f"glibc.malloc.trim_threshold={2**31 - 1}",
            )
        )
        os.execv(sys.executable, sys.orig_argv)


def end_process(code: int) -> NoReturn:
    """End this process with an exit code, without torch's own shutdown under torchrun.

    DDP keeps gloo's threads alive after ``destroy_process_group``, and now and then they abort a
    process that ends in the usual way ("terminate called without an active exception", torch
    2.13).
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
