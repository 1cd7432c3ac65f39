"""acceptance.json: everything that the page shows, so that the page can be made again from it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from tinyunet_deploy import __version__
from tinyunet_deploy.artifacts.strict_json import read_json
from tinyunet_deploy.errors import DataError
from tinyunet_deploy.files import json_value, read_regular
from tinyunet_deploy.host import describe_machine
from tinyunet_deploy.quality.acceptance.gathering import Gathered
from tinyunet_deploy.quality.acceptance.verdicts import Decision, RequirementVerdict
from tinyunet_deploy.quality.evaluation import Evaluation

__all__ = ["KIND", "SCHEMA_VERSION", "read_result", "result_json"]

KIND: Final = "acceptance"
SCHEMA_VERSION: Final = 1
"""Version of the fields of the result file."""
MAX_BYTES: Final = 256 << 20
"""Largest result that is read: a million judged images take about 150 MB."""
_DIGEST: Final = "result_sha256"


def result_json(
    gathered: Gathered,
    decision: Decision,
    verdicts: Sequence[RequirementVerdict],
    now: datetime | None = None,
) -> str:
    """Return the text of the result file; its last field is the digest of all others.

    Args:
        now: time of the test, with a time zone; None takes the clock's.
    """
    made = (now or datetime.now(UTC)).astimezone(UTC)
    fields = {
        "schema_version": SCHEMA_VERSION,
        "kind": KIND,
        "tinyunet_deploy": __version__,
        "made": made.strftime("%Y-%m-%d %H:%M UTC"),
        "decision": {**dataclasses.asdict(decision), "accepted": decision.accepted},
        "requirements": [dataclasses.asdict(verdict) for verdict in verdicts],
        "evidence": dataclasses.asdict(gathered.evidence),
        "machine": describe_machine(),
        "pictures": [dataclasses.asdict(picture) for picture in gathered.pictures],
        "inputs": [dataclasses.asdict(file) for file in gathered.inputs],
        "parts": [] if gathered.evaluation is None else _parts(gathered.evaluation),
    }
    plain = json_value(fields)
    plain[_DIGEST] = _digest(plain)
    return json.dumps(plain, indent=1, allow_nan=False) + "\n"


def read_result(path: Path) -> dict[str, Any]:
    """Read a result file.

    Raises:
        DataError: it cannot be read, is not such a file, is of another version, or was edited.
    """
    try:
        fields = read_json(read_regular(path, limit=MAX_BYTES))
    except OSError as error:
        raise DataError(path, f"cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise DataError(path, f"is not JSON: {error}") from error
    if not isinstance(fields, dict) or fields.get("kind") != KIND:
        raise DataError(path, "is not a result of tinyunet accept")
    if fields.get("schema_version") != SCHEMA_VERSION:
        raise DataError(
            path,
            f"has schema_version {fields.get('schema_version')}, but must have {SCHEMA_VERSION}",
            "make the page with the version of tinyunet that made the file",
        )
    if fields.get(_DIGEST) != _digest(fields):
        raise DataError(path, "was edited after it was written", "make it again: tinyunet accept")
    return fields


def _digest(fields: dict[str, Any]) -> str:
    """Return the sha256 of all fields but the digest, in the order of their names."""
    others = {key: value for key, value in fields.items() if key != _DIGEST}
    text = json.dumps(others, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _parts(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Return what became of each judged part."""
    return [
        {
            "name": image.name,
            "defective": image.defective,
            "verdict": image.verdict,
            "max_score": image.max_score,
        }
        for image in evaluation.images
    ]
