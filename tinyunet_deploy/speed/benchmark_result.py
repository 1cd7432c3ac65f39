"""The result of a benchmark, as dataclasses whose field names are those of the JSON.

:mod:`~tinyunet_deploy.speed.benchmark_file` writes and reads the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tinyunet_deploy.inspection.trace import UNACCOUNTED
from tinyunet_deploy.speed.time_samples import TimeSamples

__all__ = [
    "Benchmark",
    "BrokenLimit",
    "Ceiling",
    "ClockRates",
    "MeasuredImages",
    "Measurement",
    "OutputCheck",
    "ReferenceFacts",
    "Roofline",
    "SkippedRow",
    "StageRow",
    "StageTable",
    "Throughput",
]


@dataclass(frozen=True)
class Throughput:
    """Images per second of a backend that always has its next batch ready in memory.

    An image of the model's size, or smaller, is one input of the model; of a larger one, each tile
    is.
    """

    images: int
    """Number of model inputs that were scored."""
    seconds: float
    window_images_per_s: tuple[float, ...]
    """Images per second of a few consecutive windows; they show how steady it was."""
    images_per_s: float
    """Images of the folder per second: inputs_per_s / mean number of inputs of an image."""
    inputs_per_s: float | None = None
    """images / seconds; None in a result of an earlier release, whose images were inputs."""


@dataclass(frozen=True)
class BrokenLimit:
    """A figure that is outside its limit in ``parity_limits.toml``."""

    figure: str
    value: float
    limit: str
    """Limit as text, such as ``<= 1``."""
    reason: str


@dataclass(frozen=True)
class OutputCheck:
    """Agreement of the measured scores with those of the reference."""

    outcome: str
    """``green``, ``red``, or ``no limits`` for a precision that has none."""
    images: int
    """Number of different images whose scores were compared with the reference's."""
    answers: int
    """Number of all checked answers; any that differed from the input's first was compared, too."""
    figures: dict[str, float]
    """Figures, named as in ``parity_limits.toml``; steps are 1/255 of probability."""
    broken: tuple[BrokenLimit, ...]


@dataclass(frozen=True)
class ClockRates:
    """Clock rates at one moment, and whether they were throttled."""

    cpu_mhz: tuple[float, ...]
    """Clock rate of each processor this process may use; empty if the system does not report it."""
    cpu_throttle_count: int | None
    """Number of times that heat throttled the processors since the system started."""
    gpu_sm_mhz: int | None = None
    gpu_memory_mhz: int | None = None
    gpu_temperature_c: int | None = None
    gpu_power_w: float | None = None
    gpu_throttle_reasons: tuple[str, ...] | None = None
    """Reasons, named as in NVML; empty if not throttled. None without a GPU or nvidia-ml-py."""
    gpu_energy_j: float | None = None
    """Energy since the driver was loaded, joules; None if the GPU does not count it."""


@dataclass(frozen=True)
class Roofline:
    """A measurement as a share of the limit of this machine.

    The least time of a batch is ``max(sum(flop / rate), minimum bytes / bandwidth)`` (Williams,
    Waterman, Patterson 2009), with the rates and the bandwidth of :class:`Ceiling`.
    """

    flop_per_image: dict[str, float]
    """Kind of rate -> multiplications and additions of the convolutions, counted in the graph."""
    minimum_bytes: float
    """Bytes of image, score and weights, each moved once for the batch; everything between them
    stays in caches."""
    layer_bytes: float
    """Bytes moved if every convolution reads its input and weights from memory and writes its
    output there."""
    ceilings: dict[str, str]
    """Kind of rate -> name of the ceiling used for it."""
    bound_ms: float
    """Least time of one batch."""
    bound_by: str
    """``compute`` or ``memory``."""
    latency_percent: float
    """100 * bound_ms / median device time of the closed loop."""
    throughput_percent: float
    """100 * bound_ms / time of one batch at the measured throughput."""
    gflop_per_s: float
    """Rate at the measured throughput."""


@dataclass(frozen=True)
class Measurement:
    """One artifact on one backend with one batch size."""

    model: str
    """File name of the artifact."""
    model_sha256: str
    precision: str
    backend: str
    device: str
    batch_size: int
    """Model inputs in a call, and images in a request from file to verdict."""
    versions: dict[str, str]
    """Package name -> version of the packages that compute."""
    threads: int | None
    """CPU threads that compute; None on a GPU."""
    synchronization: str
    """Definition of the device time: the calls that it includes, and how its end is determined."""
    load_ms: float
    """Time from the path to a backend that can be called: read, hash, compile. The runtime's
    package was imported before."""
    first_inference_ms: float
    """Time of the first call after loading, which no series below includes."""
    warmup_n: int
    """Number of calls after the first that no series below includes."""
    device_time: TimeSamples
    """Time inside the runtime for one batch, without copies to and from a device."""
    call: TimeSamples
    """Time of the backend's whole call for one batch: arrays in memory to scores in memory."""
    end_to_end: TimeSamples
    """Time from the files' paths to the parts' verdicts for as many images as a batch has inputs,
    in the same requests; a request of images in tiles takes several calls."""
    throughput: Throughput
    check: OutputCheck
    clocks_before: ClockRates
    clocks_after: ClockRates
    roofline: Roofline | None
    """Share of the machine's limit; None if the graph cannot be read, or without ceilings."""


@dataclass(frozen=True)
class SkippedRow:
    """An artifact on a backend that could not be measured on this machine."""

    model: str
    backend: str
    device: str
    batch_size: int | None
    """Images per call; None stands for every batch size."""
    reason: str


@dataclass(frozen=True)
class StageRow:
    """One stage between an image file and its mask and report line."""

    stage: str
    """Name of the stage, one of :data:`tinyunet_deploy.inspection.trace.STAGES`."""
    ms_per_image: float
    """Share of ``StageTable.total_ms_per_image`` in milliseconds."""
    share: float
    """ms_per_image / total_ms_per_image."""
    busy: float
    """Average number of threads in this stage: its time over all threads / wall clock."""


@dataclass(frozen=True)
class StageTable:
    """Time of each stage between a folder of images and its masks and report."""

    model: str
    model_sha256: str
    backend: str
    device: str
    batch_size: int
    mode: str
    """``serial``: one image after the other on one thread. ``pipelined``: as ``infer`` runs."""
    workers: int
    """Decoding threads, and as many that write; 0 in serial mode."""
    images: int
    wall_s: float
    images_per_s: float
    """images / wall_s."""
    share_of_raw: float
    """images_per_s / throughput of the backend alone, on arrays in memory."""
    total_ms_per_image: float
    """Sum of the rows. Serial: the wall clock over the images. Pipelined: the mean time of an image
    from the start of its reading to its line in the report; images overlap, so it is longer than
    1 / images_per_s."""
    rows: tuple[StageRow, ...]

    @property
    def unaccounted_share(self) -> float:
        """Share of the total that no stage explains."""
        return next(row.share for row in self.rows if row.stage == UNACCOUNTED)


@dataclass(frozen=True)
class Ceiling:
    """A rate that this machine reached in this run."""

    name: str
    """Name, such as ``float32 openvino``."""
    kind: str
    """``float32``, ``float16``, ``tf32`` or ``int8`` (matrix rate), ``memory``, ``to device``,
    ``from device``."""
    device: str
    value: float
    unit: str
    """``GFLOP/s`` or ``GB/s``, powers of ten. An int8 multiplication or addition is a FLOP too."""
    runtime: str
    what: str
    """The computation that was measured, in words."""
    samples: tuple[float, ...]
    """Every repetition, in the same unit; ``value`` is the largest."""


@dataclass(frozen=True)
class MeasuredImages:
    """The images that were measured with."""

    source: str
    """``files``, or ``synthetic`` if they were generated."""
    folder: str
    """Name of the folder, or empty."""
    images: int
    sha256: str
    """Hash of all decoded pixels in their order."""
    image_px: tuple[int, int]
    """Size of the model's images: rows, columns."""
    mean: float
    """Mean of all grey values, 0..255."""
    standard_deviation: float
    """Standard deviation of all grey values; never 0."""
    skipped: tuple[str, ...]
    """Images that could not be used, and the reasons."""
    padded: int = 0
    """Number of images smaller than the model's, padded by mirroring."""
    tiled: int = 0
    """Number of images larger than the model's, measured in overlapping tiles."""
    inputs: int | None = None
    """Number of model inputs, padded images and tiles among them; None in a result of an earlier
    release, whose images were inputs."""

    @property
    def inputs_per_image(self) -> float:
        """Mean number of model inputs of an image; 1 if no image needs tiles."""
        return 1.0 if self.inputs is None else self.inputs / self.images


@dataclass(frozen=True)
class ReferenceFacts:
    """The network that answers are checked against."""

    model: str
    model_sha256: str
    backend: str
    versions: dict[str, str]
    threshold: float
    min_area_px: int
    role: str | None = None
    """One of :data:`tinyunet_deploy.quality.reference.ReferenceRole`; None in a result of an
    earlier release, whose reference was named or the checkpoint."""
    reason: str | None = None
    """Reason why it is not the checkpoint; None if it is, or if the user named it."""
    golden_largest_steps: int | None = None
    """Largest difference from its golden scores, steps of 1/255; None if that was not checked."""
    description: str | None = None
    """Description of the reference and its check, one line; None in a result of an earlier
    release."""


@dataclass(frozen=True)
class Benchmark:
    """One run of ``tinyunet benchmark``."""

    command: str
    started_utc: str
    """Start of the run, ISO 8601."""
    machine: dict[str, Any]
    """Result of :func:`tinyunet_deploy.host.describe_machine`."""
    images: MeasuredImages
    reference: ReferenceFacts
    timing_boundary: str
    """Start and end of each series of times, in words."""
    percentile_formula: str
    measurements: tuple[Measurement, ...]
    skipped: tuple[SkippedRow, ...] = ()
    stages: tuple[StageTable, ...] = ()
    ceilings: tuple[Ceiling, ...] = ()
    notes: tuple[str, ...] = ()
    """Remarks that a reader of the figures must know."""

    @property
    def red(self) -> list[Measurement]:
        """Measurements whose answers do not agree with the reference."""
        return [row for row in self.measurements if row.check.outcome == "red"]
