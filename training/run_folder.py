"""The folder of a run: check which run it contains, and whether the run is finished."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tinyunet_deploy.artifacts.sidecar import read_artifact, sidecar_path
from tinyunet_deploy.artifacts.strict_json import read_json
from tinyunet_deploy.contract import Contract
from tinyunet_deploy.errors import DataError
from tinyunet_deploy.files import read_regular, write_atomic
from training.data_folders import DataFolders
from training.distributed import Ranks
from training.machine import Machine
from training.recipe import Recipe
from training.sources import Source, sources_digest

__all__ = [
    "CHECKPOINT",
    "claim_folder",
    "claim_scores",
    "is_finished",
    "read_record",
    "require_same_folder",
    "run_record",
]

CHECKPOINT = "checkpoint.safetensors"
_LARGEST = 1 << 20
"""Largest run.json that is read, bytes; ours have a few kilobytes."""


def run_record(
    recipe: Recipe,
    sources: Sequence[Source],
    init: Path | None,
    teacher: Path | None,
    machine: Machine,
    contract: Contract,
) -> dict[str, Any]:
    """Return the facts that identify a run, as plain values for JSON."""
    return {
        "recipe": recipe.as_dict(),
        "recipe_sha256": recipe.digest(),
        "data_sha256": sources_digest(sources),
        "init_sha256": read_artifact(init).sidecar.sha256 if init else None,
        "teacher_sha256": read_artifact(teacher).sidecar.sha256 if teacher else None,
        "size": [contract.height, contract.width],
        "amp": machine.amp,
        "compiled": machine.compiled,
    }


def claim_folder(
    output: Path,
    record: dict[str, Any],
    data: DataFolders | None = None,
    init: Path | None = None,
    teacher: Path | None = None,
) -> None:
    """Write ``run.json`` into a new folder, or check that the folder contains this run.

    Args:
        record: facts that identify the run, from :func:`run_record`.
        data: where the images are, which ``python -m training finish`` reads again; None if they
            did not come from folders.
        init: checkpoint that the run starts from.
        teacher: checkpoint that the run learns from.

    Raises:
        DataError: the folder contains another run, or its run.json is damaged.
    """
    path = output / "run.json"
    if not path.exists():
        fields = {
            **record,
            "data": None if data is None else data.as_dict(),
            "init": None if init is None else str(init.resolve()),
            "teacher": None if teacher is None else str(teacher.resolve()),
        }
        write_atomic(path, json.dumps(fields, indent=2).encode(), durable=True)
        return
    earlier = read_record(output)
    for key, name in (
        ("recipe_sha256", "recipe"),
        ("data_sha256", "data"),
        ("init_sha256", "initial checkpoint"),
        ("teacher_sha256", "teacher"),
        ("size", "size of the model"),
        ("amp", "precision"),
        ("compiled", "way to compute (--compile)"),
    ):
        if earlier.get(key) != record[key]:
            raise DataError(output, f"contains a run with another {name}", "give another --output")


def claim_scores(output: Path, sha256: str, ranks: Ranks) -> None:
    """Note the digest of the teacher's scores in ``run.json``, or check that they are the same.

    Raises:
        DataError: the scores in the folder are not those that the run began with.
    """
    earlier = read_record(output).get("scores_sha256", sha256)
    ranks.wait()
    if earlier != sha256:
        raise DataError(
            output, "has other scores of the teacher than it began with", "give another --output"
        )
    if ranks.first:
        fields = read_record(output) | {"scores_sha256": sha256}
        write_atomic(output / "run.json", json.dumps(fields, indent=2).encode(), durable=True)


def read_record(output: Path) -> dict[str, Any]:
    """Return the fields of ``run.json``, unchecked.

    Raises:
        DataError: the file is missing or damaged.
    """
    path = output / "run.json"
    try:
        record = read_json(read_regular(path, limit=_LARGEST))
        if not isinstance(record, dict):
            raise ValueError("it is not a table")
    except FileNotFoundError as error:
        raise DataError(output, "is not the folder of a run: it has no run.json") from error
    except (OSError, ValueError) as error:
        raise DataError(path, f"is not readable: {error}", "give another --output") from error
    return record


def is_finished(checkpoint: Path) -> bool:
    """Return whether a run has written its checkpoint and the sidecar, its last file."""
    return checkpoint.exists() and sidecar_path(checkpoint).exists()


def require_same_folder(ranks: Ranks, output: Path, contents: object) -> None:
    """Check that all processes see the same run in the folder.

    Args:
        contents: the run as this process sees it.

    Raises:
        DataError: another process sees another run.
    """
    if any(other != contents for other in ranks.gather([contents])):
        raise DataError(
            output,
            "is not the same folder on all nodes, or the data differ",
            "give every node the same recipe and data, and one shared --output",
        )
