"""The result of a benchmark as a JSON file.

The JSON has the fields of the dataclasses in :mod:`~tinyunet_deploy.speed.benchmark_result`, and
``schema_version`` and ``kind``. NaN is null. Every series of times has all its samples, and beside
them the percentiles for readers without this library.
"""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from types import NoneType
from typing import Any, Final, cast, get_args, get_origin, get_type_hints

from tinyunet_deploy.artifacts.strict_json import read_json
from tinyunet_deploy.errors import DataError
from tinyunet_deploy.files import json_value, read_regular
from tinyunet_deploy.speed.benchmark_result import Benchmark
from tinyunet_deploy.speed.time_samples import TimeSamples

__all__ = [
    "KIND",
    "MAX_BYTES",
    "SCHEMA_VERSION",
    "benchmark_json",
    "dataclass_from_json",
    "dataclass_json",
    "read_benchmark",
]

SCHEMA_VERSION: Final = 1
KIND: Final = "benchmark"
MAX_BYTES: Final = 256 << 20
"""Largest file of times that is read, bytes: those of ten million images."""


def benchmark_json(result: Benchmark) -> str:
    """Return the text of a result file."""
    fields = {"schema_version": SCHEMA_VERSION, "kind": KIND, **dataclass_json(result)}
    return json.dumps(json_value(fields), indent=1, allow_nan=False) + "\n"


def read_benchmark(path: Path) -> Benchmark:
    """Read a result file that :func:`benchmark_json` made.

    Raises:
        DataError: the file cannot be read or is not such a result.
    """
    try:
        fields = read_json(read_regular(path, limit=MAX_BYTES))
        if (fields["schema_version"], fields["kind"]) != (SCHEMA_VERSION, KIND):
            raise ValueError("it has another kind or schema version")
        return cast(Benchmark, dataclass_from_json(Benchmark, fields))
    except OSError as error:
        raise DataError(path, f"cannot be read: {error.strerror}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(path, f"is not a result of tinyunet benchmark: {error}") from error


def dataclass_json(value: Any) -> Any:
    """Return dataclasses as JSON objects, and series of times with their figures."""
    if isinstance(value, TimeSamples):
        return {**value.figures(), "samples_ms": value.samples_ms}
    if dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value)]
        return {name: dataclass_json(getattr(value, name)) for name in names}
    return [dataclass_json(item) for item in value] if isinstance(value, tuple) else value


_JSON_TYPES: Final[dict[Any, tuple[type, ...]]] = {
    str: (str,),
    bool: (bool,),
    int: (int,),
    float: (float, int, NoneType),
}
"""Type of a field -> types of its JSON value; None is NaN."""


def dataclass_from_json(kind: Any, value: Any) -> Any:
    """Convert the JSON value of a field to the field's type.

    Raises:
        TypeError, KeyError, ValueError: the value has another type, or lacks a field.
    """
    arguments = get_args(kind)
    if kind in _JSON_TYPES and type(value) not in _JSON_TYPES[kind]:
        raise TypeError(f"expected {kind.__name__}, got {str(value)[:80]!r}")
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, dict):
            raise TypeError(f"expected an object, got {str(value)[:80]!r}")
        hints = get_type_hints(kind)
        names = [
            field.name
            for field in dataclasses.fields(kind)
            if field.name in value or field.default is dataclasses.MISSING
        ]
        return cast(Any, kind)(
            **{name: dataclass_from_json(hints[name], value[name]) for name in names}
        )
    if NoneType in arguments:
        return None if value is None else dataclass_from_json(arguments[0], value)
    if get_origin(kind) is tuple:
        if not isinstance(value, list):
            raise TypeError(f"expected a list, got {str(value)[:80]!r}")
        return tuple(dataclass_from_json(arguments[0], item) for item in value)
    if get_origin(kind) is dict:
        return {name: dataclass_from_json(arguments[1], item) for name, item in value.items()}
    return math.nan if kind is float and value is None else value
