"""run.json: the record of the model and options that an output folder belongs to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from tinyunet_deploy.artifacts.strict_json import read_json
from tinyunet_deploy.errors import RefusedError
from tinyunet_deploy.files import is_temporary, read_regular, write_atomic

__all__ = ["RUN", "SCHEMA_VERSION", "SHARDS", "claim", "is_output", "read_run"]

SCHEMA_VERSION: Final = 3
"""Version of run.json and report.jsonl. Version 1 had no verb in run.json, and in the report no
identity of the image, no sizes of the written files and no counts of passed-over entries. Version
2 named masks and overlays with a second suffix."""
RUN: Final = "run.json"
SHARDS: Final = "shards"
"""Folder of the reports of shards that have not all finished."""

_LARGEST: Final = 1 << 20
"""Largest run.json that is read, bytes; ours have less than a kilobyte."""


def claim(folder: Path, options: dict[str, Any]) -> None:
    """Make an output folder belong to a run with these options, or check that it does.

    Args:
        options: everything on which masks and report depend, plain JSON values.

    Raises:
        RefusedError: it belongs to another model or other options, or contains something else.
        RuntimeUnavailable: the folder cannot be written.
    """
    run = {"schema_version": SCHEMA_VERSION, **options}
    record = folder / RUN
    if not record.exists():
        if not all(is_temporary(entry.name) or entry.name == SHARDS for entry in folder.iterdir()):
            raise RefusedError(
                folder, "is not empty and was not written by tinyunet", "give another -o"
            )
        write_atomic(record, json.dumps(run, indent=2).encode() + b"\n", durable=True)
        return
    try:
        earlier = read_run(folder)
        changed = [key for key in run if earlier.get(key) != run[key]]
    except (OSError, ValueError) as error:
        raise RefusedError(record, f"is not readable: {error}", "give another -o") from error
    if "schema_version" in changed:
        raise RefusedError(
            folder,
            f"was written by another version of this program, with schema_version "
            f"{earlier.get('schema_version')} where this one writes {SCHEMA_VERSION}",
            "give another -o to inspect the images again",
        )
    unknown = [key for key in changed if key not in earlier]
    if unknown:
        raise RefusedError(
            folder,
            f"was written by another version of this program, whose {RUN} has no "
            f"{', '.join(unknown)}",
            "give another -o to inspect the images again",
        )
    if changed:
        raise RefusedError(folder, f"was made with another {', '.join(changed)}", "give another -o")


def is_output(folder: Path) -> bool:
    """Return whether ``infer`` or ``watch`` wrote this folder, by its run.json."""
    try:
        run = read_run(folder)
    except (OSError, ValueError):
        return False
    return {"schema_version", "input_root", "model_sha256"} <= run.keys()


def read_run(folder: Path) -> dict[str, Any]:
    """Return the record of an output folder.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not a JSON table.
    """
    run = read_json(read_regular(folder / RUN, _LARGEST))
    if not isinstance(run, dict):
        raise ValueError("it is not a table")
    return run
