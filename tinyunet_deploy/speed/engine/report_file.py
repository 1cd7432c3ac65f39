"""The engine report as a JSON file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final, cast

from tinyunet_deploy.artifacts.strict_json import read_json
from tinyunet_deploy.files import json_value
from tinyunet_deploy.speed.benchmark_file import dataclass_from_json, dataclass_json
from tinyunet_deploy.speed.engine.findings import findings
from tinyunet_deploy.speed.engine.layer_info import read_file
from tinyunet_deploy.speed.engine.report import EngineReport

__all__ = ["KIND", "SCHEMA_VERSION", "read_report", "report_json"]

SCHEMA_VERSION: Final = 1
KIND: Final = "engine-report"


def report_json(report: EngineReport) -> str:
    """Return the JSON of a report: its fields, and the findings that follow from them."""
    fields = {
        "schema_version": SCHEMA_VERSION,
        "kind": KIND,
        **dataclass_json(report),
        "findings": [finding._asdict() for finding in findings(report)],
    }
    return json.dumps(json_value(fields), indent=1, allow_nan=False) + "\n"


def read_report(path: Path) -> EngineReport:
    """Read a file that :func:`report_json` made.

    Raises:
        DataError: the file cannot be read or is not such a report.
    """
    return read_file(path, _parse, "tinyunet benchmark --engine-report writes one")


def _parse(text: bytes) -> EngineReport:
    fields: Any = read_json(text)
    try:
        if (fields["schema_version"], fields["kind"]) != (SCHEMA_VERSION, KIND):
            raise ValueError("it has another kind or schema version")
        return cast(EngineReport, dataclass_from_json(EngineReport, fields))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"it lacks a field or has another type in it: {error}") from error
