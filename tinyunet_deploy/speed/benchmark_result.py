"""What a benchmark found, and the JSON it is kept in.

The JSON is the dataclasses of this page, field by field, beside ``schema_version`` and ``kind``:
:meth:`Benchmark.as_json` writes it, :func:`read_benchmark` reads it. NaN is null. Of a series of
times every sample is kept; its percentiles stand beside the samples for whoever reads the file
without this library.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType
from typing import Any, Final, cast, get_args, get_origin, get_type_hints

from tinyunet_deploy.errors import DataError
from tinyunet_deploy.files import json_value, read_regular
from tinyunet_deploy.inspection.trace import UNACCOUNTED

SCHEMA_VERSION: Final = 1
KIND: Final = "benchmark"
PERCENTILES: Final = {"p50": 500, "p90": 900, "p95": 950, "p99": 990, "p99_9": 999}
"""Name -> share of the samples, in thousandths."""
PERCENTILE_FORMULA: Final = (
    "nearest rank: the ceil(p n)-th smallest of all n samples, none left out; null where no sample "
    "is above that rank (n < 1 / (1 - p)), as it would be the maximum under another name"
)


def percentile(samples: Sequence[float], thousandths: int) -> float:
    """The sample that so many thousandths of all samples do not exceed, by nearest rank.

    The ceil(p n)-th smallest (Hyndman & Fan 1996, definition 1; NumPy's ``inverted_cdf``).

    Args:
        samples: any order.
        thousandths: 1 to 999.

    Returns:
        NaN where no sample is above that rank: it would be the maximum under another name.
    """
    if not 0 < thousandths < 1000:
        raise ValueError(f"{thousandths} thousandths is no percentile")
    rank = -(-thousandths * len(samples) // 1000)
    return sorted(samples)[rank - 1] if rank < len(samples) else math.nan


@dataclass(frozen=True)
class Series:
    """One kind of time, every sample in the order in which it was taken.

    In JSON also ``n``, ``mean_ms``, ``min_ms``, ``max_ms`` and ``p50_ms`` to ``p99_9_ms``.
    """

    samples_ms: tuple[float, ...]

    def percentile_ms(self, name: str) -> float:
        """One of :data:`PERCENTILES`; NaN where there are too few samples for it."""
        return percentile(self.samples_ms, PERCENTILES[name])

    def summary(self) -> dict[str, float]:
        """The figures that are beside the samples in JSON."""
        samples = self.samples_ms
        return {
            "n": len(samples),
            "mean_ms": math.fsum(samples) / len(samples) if samples else math.nan,
            "min_ms": min(samples, default=math.nan),
            **{f"{name}_ms": self.percentile_ms(name) for name in PERCENTILES},
            "max_ms": max(samples, default=math.nan),
        }


@dataclass(frozen=True)
class Throughput:
    """Images per second of a backend that always has its next batch ready in memory."""

    images: int
    seconds: float
    window_images_per_s: tuple[float, ...]
    """Of each of a few windows, one after the other; their spread says how steady it was."""
    images_per_s: float
    """images / seconds."""


@dataclass(frozen=True)
class BrokenLimit:
    """A figure that is outside its limit in ``parity_limits.toml``."""

    figure: str
    value: float
    limit: str
    """Such as ``<= 1``."""
    reason: str


@dataclass(frozen=True)
class OutputCheck:
    """Whether the answers that were timed are those of the reference."""

    outcome: str
    """``green``, ``red``, or ``no limits`` for a precision that has none."""
    images: int
    """Different images whose timed scores were held against the reference's."""
    answers: int
    """Timed answers; one that is not bit for bit the image's first was held as well."""
    figures: dict[str, float]
    """Named as in ``parity_limits.toml``; steps are 1/255 of probability."""
    broken: tuple[BrokenLimit, ...]


@dataclass(frozen=True)
class ClockRates:
    """Clock rates at one moment, and whether something held them back."""

    cpu_mhz: tuple[float, ...]
    """One for each processor this process may use; empty if the system does not report them."""
    cpu_throttle_count: int | None
    """How often the processors were throttled for heat since the system started."""
    gpu_sm_mhz: int | None = None
    gpu_memory_mhz: int | None = None
    gpu_temperature_c: int | None = None
    gpu_power_w: float | None = None
    gpu_throttle_reasons: tuple[str, ...] | None = None
    """Named as in NVML; empty if nothing throttles. None without a GPU or nvidia-ml-py."""


@dataclass(frozen=True)
class Roofline:
    """How near a measurement comes to what this machine can do at most.

    The least time of a batch is ``max(sum(flop / rate), minimum bytes / bandwidth)`` (Williams,
    Waterman, Patterson 2009), with the rates and the bandwidth of :class:`Ceiling`.
    """

    flop_per_image: dict[str, float]
    """Kind of rate -> multiplications and additions of the convolutions, counted in the graph."""
    minimum_bytes: float
    """Image, score and weights moved once for the batch, all between kept in caches."""
    layer_bytes: float
    """Every convolution reading its input and weights and writing its output in memory."""
    ceilings: dict[str, str]
    """Kind of rate -> name of the ceiling it was held against."""
    bound_ms: float
    """The least time of one batch."""
    bound_by: str
    """``compute`` or ``memory``."""
    latency_percent: float
    """100 * bound_ms / median device time of the closed loop."""
    throughput_percent: float
    """100 * bound_ms / time of one batch at the measured throughput."""
    gflop_per_s: float
    """At the measured throughput."""


@dataclass(frozen=True)
class Measurement:
    """One artifact on one backend with one batch size."""

    model: str
    """File name."""
    model_sha256: str
    precision: str
    backend: str
    device: str
    batch_size: int
    versions: dict[str, str]
    """Package name -> version of what computes."""
    threads: int | None
    """CPU threads that compute; None on a GPU."""
    synchronization: str
    """What the device time is, and how its end is known."""
    load_ms: float
    """From the path to a backend that can be called: read, hash, compile. The runtime's package
    was imported before."""
    first_inference_ms: float
    """The first call after loading, in no series below."""
    warmup_n: int
    """Calls after the first that are in no series below."""
    device_time: Series
    """Inside the runtime, copies to and from a device left out, one batch."""
    call: Series
    """Of the backend's whole call: arrays in memory to scores in memory, one batch."""
    end_to_end: Series
    """From the files' paths to the parts' verdicts, one batch. The same requests as the above."""
    throughput: Throughput
    check: OutputCheck
    clocks_before: ClockRates
    clocks_after: ClockRates
    roofline: Roofline | None
    """None where the graph cannot be read, or without ceilings."""


@dataclass(frozen=True)
class Skipped:
    """What could not be measured here."""

    model: str
    backend: str
    device: str
    batch_size: int | None
    """None: all of them."""
    reason: str


@dataclass(frozen=True)
class StageRow:
    """One stage of the way of an image from file to mask and report."""

    stage: str
    """One of :data:`tinyunet_deploy.inspection.trace.STAGES`."""
    ms_per_image: float
    """Its part of ``StageTable.total_ms_per_image``."""
    share: float
    """ms_per_image / total_ms_per_image."""
    busy: float
    """Threads that were in this stage on average: its time over all threads / wall clock."""


@dataclass(frozen=True)
class StageTable:
    """Where the time goes between a folder of images and its masks and report."""

    model: str
    model_sha256: str
    backend: str
    device: str
    batch_size: int
    mode: str
    """``serial``: one after the other on one thread. ``pipelined``: as ``infer`` runs."""
    workers: int
    """Decoding threads, and as many that write; 0 in serial mode."""
    images: int
    wall_s: float
    images_per_s: float
    """images / wall_s."""
    share_of_raw: float
    """images_per_s / throughput of the bare backend on arrays in memory."""
    total_ms_per_image: float
    """What the rows add up to. Serial: the wall clock over the images. Pipelined: the mean wall
    clock of an image's own way, from the start of its reading to its line in the report; images
    overlap, so it is longer than 1 / images_per_s."""
    rows: tuple[StageRow, ...]

    @property
    def unaccounted_share(self) -> float:
        """What of the total no row explains."""
        return next(row.share for row in self.rows if row.stage == UNACCOUNTED)


@dataclass(frozen=True)
class Ceiling:
    """A rate that this machine reached in this run."""

    name: str
    """Such as ``float32 openvino``."""
    kind: str
    """``float32``, ``float16``, ``tf32`` or ``int8`` (matrix rate), ``memory``, ``to device``,
    ``from device``."""
    device: str
    value: float
    unit: str
    """``GFLOP/s`` or ``GB/s``, powers of ten. Of int8 a multiplication or an addition is a FLOP."""
    runtime: str
    what: str
    """Exactly what was run."""
    samples: tuple[float, ...]
    """Every repetition, in the same unit; ``value`` is the largest."""


@dataclass(frozen=True)
class Images:
    """What was measured on."""

    source: str
    """``files``, or ``synthetic`` for those that were generated."""
    folder: str
    """Name of the folder, or empty."""
    images: int
    sha256: str
    """Of all decoded pixels in their order."""
    image_px: tuple[int, int]
    """Rows, columns."""
    mean: float
    """Of all grey values, 0..255."""
    standard_deviation: float
    """Of all grey values; never 0."""
    skipped: tuple[str, ...]
    """Images that could not be used, and why."""


@dataclass(frozen=True)
class Reference:
    """Whose answers are right."""

    model: str
    model_sha256: str
    backend: str
    versions: dict[str, str]
    threshold: float
    min_area_px: int


@dataclass(frozen=True)
class Benchmark:
    """One run of ``tinyunet benchmark``."""

    command: str
    started_utc: str
    """ISO 8601."""
    machine: dict[str, Any]
    """As ``describe_machine`` says."""
    images: Images
    reference: Reference
    timing_boundary: str
    """What is between start and end of each series, in words."""
    percentile_formula: str
    measurements: tuple[Measurement, ...]
    skipped: tuple[Skipped, ...] = ()
    stages: tuple[StageTable, ...] = ()
    ceilings: tuple[Ceiling, ...] = ()
    notes: tuple[str, ...] = field(default=())
    """What else a reader of the figures must know."""

    @property
    def red(self) -> list[Measurement]:
        """Measurements whose answers are not those of the reference."""
        return [found for found in self.measurements if found.check.outcome == "red"]

    def as_json(self) -> str:
        """The text of the result file."""
        fields = {"schema_version": SCHEMA_VERSION, "kind": KIND, **_fields(self)}
        return json.dumps(json_value(fields), indent=1, allow_nan=False) + "\n"


def read_benchmark(path: Path) -> Benchmark:
    """A result that :meth:`Benchmark.as_json` wrote.

    Raises:
        DataError: it cannot be read, or is no such result.
    """
    try:
        fields = json.loads(read_regular(path))
        if (fields["schema_version"], fields["kind"]) != (SCHEMA_VERSION, KIND):
            raise ValueError("of another kind or schema version")
        return cast(Benchmark, _value(Benchmark, fields))
    except OSError as error:
        raise DataError(path, f"cannot be read: {error.strerror}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(path, f"is no result of tinyunet benchmark: {error}") from error


def _fields(value: Any) -> Any:
    """Dataclasses as tables; a series with its summary."""
    if isinstance(value, Series):
        return {**value.summary(), "samples_ms": value.samples_ms}
    if dataclasses.is_dataclass(value):
        return {f.name: _fields(getattr(value, f.name)) for f in dataclasses.fields(value)}
    return [_fields(part) for part in value] if isinstance(value, tuple) else value


def _value(kind: Any, value: Any) -> Any:
    """A value of a field's type from what JSON made of it."""
    arguments = get_args(kind)
    if dataclasses.is_dataclass(kind):
        hints = get_type_hints(kind)
        names = [each.name for each in dataclasses.fields(kind)]
        return cast(Any, kind)(**{name: _value(hints[name], value[name]) for name in names})
    if NoneType in arguments:
        return None if value is None else _value(arguments[0], value)
    if get_origin(kind) is tuple:
        return tuple(_value(arguments[0], part) for part in value)
    if get_origin(kind) is dict:
        return {name: _value(arguments[1], part) for name, part in value.items()}
    return math.nan if kind is float and value is None else value
