"""The engine report as dataclasses whose field names are those of its JSON."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from tinyunet_deploy.artifacts.facts import PlanFacts
from tinyunet_deploy.backends.tensorrt import EngineMemory
from tinyunet_deploy.speed.benchmark_result import Ceiling, ClockRates
from tinyunet_deploy.speed.engine.layer_info import EngineLayer, EngineTensor, LayerInfo
from tinyunet_deploy.speed.engine.layer_profile import LayerProfile
from tinyunet_deploy.speed.engine.network_names import NetworkNames
from tinyunet_deploy.speed.time_samples import TimeSamples

__all__ = ["CallTimes", "EngineReport", "LayerRow", "NetworkLayer", "layer_rows"]

_CEILINGS: Final = {
    "Float": ("tf32", "float32"), "Half": ("float16",), "BFloat16": ("float16",), "Int8": ("int8",)
}  # fmt: skip
"""Type that a layer computes in -> kinds of its ceiling; the highest counts. TensorRT computes
Float in TF32 where the GPU has it."""


@dataclass(frozen=True)
class LayerRow:
    """One layer of the engine: what it is, how long it takes, and its limit."""

    name: str
    network_layer: str
    """Layer of the network that it computes or serves; the engine's own name if that is unknown."""
    type: str
    tactic: str
    computed_type: str | None
    inputs: tuple[EngineTensor, ...]
    outputs: tuple[EngineTensor, ...]
    stream: int | None
    copy: bool
    """True if it only copies, or changes format or type."""
    convolution: bool
    median_ms: float
    """Median over the profiled calls; NaN if the profile lacks the layer."""
    p99_ms: float
    share: float
    """Share of the sum of all layers' total times, 0..1; NaN if the profile lacks the layer."""
    flop: float | None
    """Multiplications and additions of its convolution for the batch; None if unknown."""
    bytes: float | None
    """Bytes of its inputs, outputs and weights, each moved once; None if unknown."""
    bound_ms: float | None
    """Least time by the machine's ceilings: max(flop / rate, bytes / bandwidth)."""
    bound_by: str | None
    """``compute`` or ``memory``."""


@dataclass(frozen=True)
class CallTimes:
    """Times of calls, one at a time, with or without a CUDA graph; one sample for each call."""

    graph: bool | None
    """None if it is not known, in times made elsewhere."""
    enqueue: TimeSamples
    copy_in: TimeSamples
    compute: TimeSamples
    copy_out: TimeSamples
    images_per_s: float | None = None
    """Throughput with as many batches in flight as the backend overlaps; None if not measured."""


@dataclass(frozen=True)
class NetworkLayer:
    """All layers of the engine that belong to one layer of the network."""

    name: str
    rows: tuple[LayerRow, ...]

    @property
    def median_ms(self) -> float:
        """Sum of the medians of the layers that have times."""
        return _sum(row.median_ms for row in self.rows)

    @property
    def copy_ms(self) -> float:
        """Part of :attr:`median_ms` that is copies."""
        return _sum(row.median_ms for row in self.rows if row.copy)

    @property
    def share(self) -> float:
        """Share of the profiled time, 0..1."""
        return _sum(row.share for row in self.rows)

    @property
    def computed_types(self) -> tuple[str, ...]:
        """Types that its layers compute in, without those of copies."""
        types = (row.computed_type for row in self.rows if not row.copy)
        return tuple(dict.fromkeys(kind for kind in types if kind))


@dataclass(frozen=True)
class EngineReport:
    """What every layer of an engine does and how long it takes."""

    model: str
    model_sha256: str | None
    precision: str | None
    batch_size: int | None
    origin: str
    """Where the figures come from: ``measured``, ``files of trtexec`` or ``example``."""
    boundary: str
    """Start and end of the times, in words."""
    layers: tuple[LayerRow, ...]
    detailed: bool
    """False if the engine was built without detailed verbosity."""
    profiled_calls: int | None
    calls: tuple[CallTimes, ...] = ()
    """Timed calls, in a run without the profiler."""
    memory: EngineMemory | None = None
    build: PlanFacts | None = None
    clocks_before: ClockRates | None = None
    clocks_after: ClockRates | None = None
    energy_j_per_image: float | None = None
    """Energy of the GPU during the timed calls, divided by their images."""
    ceilings: tuple[Ceiling, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def copies(self) -> tuple[LayerRow, ...]:
        """Layers that only copy or change format or type."""
        return tuple(row for row in self.layers if row.copy)

    @property
    def convolutions(self) -> tuple[LayerRow, ...]:
        """Layers that compute convolutions."""
        return tuple(row for row in self.layers if row.convolution and not row.copy)

    @property
    def profiled_ms(self) -> float:
        """Sum of all layers' medians, milliseconds."""
        return _sum(row.median_ms for row in self.layers)

    def call_times(self, graph: bool) -> CallTimes | None:
        """Return the calls with or without a CUDA graph."""
        return next((calls for calls in self.calls if calls.graph is graph), None)

    def network_layers(self) -> tuple[NetworkLayer, ...]:
        """Group the layers by the network's, in the order in which they first run."""
        groups: dict[str, list[LayerRow]] = {}
        for row in self.layers:
            groups.setdefault(row.network_layer, []).append(row)
        return tuple(NetworkLayer(name, tuple(rows)) for name, rows in groups.items())


def _sum(values: Iterable[float]) -> float:
    return math.fsum(value for value in values if not math.isnan(value))


def layer_rows(
    info: LayerInfo,
    profile: LayerProfile,
    names: NetworkNames,
    batch_size: int | None,
    ceilings: Sequence[Ceiling],
) -> tuple[tuple[LayerRow, ...], tuple[str, ...]]:
    """Join what is known about every layer.

    Args:
        names: names and operations of the ONNX file's nodes.
        batch_size: images in a profiled call; None if unknown, then there are no operations.
        ceilings: measured peak rates of the GPU; empty leaves the limits out.

    Returns:
        One row for each layer of either file, and notes on layers that only one of them has.
    """
    times = {time.name: time for time in profile.layers}
    total = math.fsum(time.total_ms for time in profile.layers)
    known = {layer.name for layer in info.layers}
    layers = [*info.layers, *(EngineLayer(name) for name in times if name not in known)]
    highest: dict[str, float] = {}
    for ceiling in ceilings:
        highest[ceiling.kind] = max(ceiling.value, highest.get(ceiling.kind, 0.0))
    rows = []
    for layer in layers:
        time = times.get(layer.name)
        flop = _flop(layer, names, batch_size)
        moved = _bytes(layer)
        bound_ms, bound_by = _bound(layer, flop, moved, highest)
        rows.append(
            LayerRow(
                layer.name,
                names.layer_of(layer.onnx_nodes) or layer.name,
                layer.type,
                layer.tactic,
                layer.computed_type,
                layer.inputs,
                layer.outputs,
                layer.stream,
                layer.is_copy,
                layer.is_convolution,
                time.median_ms if time else math.nan,
                time.p99_ms if time else math.nan,
                time.total_ms / total if time and total else math.nan,
                flop,
                moved,
                bound_ms,
                bound_by,
            )
        )
    notes = []
    untimed = sum(layer.name not in times for layer in info.layers)
    if untimed:
        notes.append(f"{untimed} layers of the layer information have no time in the profile.")
    unknown = len(layers) - len(info.layers)
    if unknown:
        notes.append(f"{unknown} layers of the profile are not in the layer information.")
    return tuple(rows), tuple(notes)


def _flop(layer: EngineLayer, names: NetworkNames, batch_size: int | None) -> float | None:
    """Return the operations of a batch: by the ONNX file, else by the layer's own weights."""
    if layer.is_copy or batch_size is None:
        return None
    from_network = [names.flop[node] for node in layer.onnx_nodes if node in names.flop]
    if from_network:
        return batch_size * math.fsum(from_network)
    count = layer.weight_count
    if not layer.is_convolution or count is None or not layer.outputs or not layer.inputs:
        return None
    transposed = "deconv" in f"{layer.type} {layer.extra.get('ParameterType', '')}".lower()
    places = (layer.inputs if transposed else layer.outputs)[0].shape
    if len(places) != 4 or min(places) < 0:
        return None
    return 2.0 * count * places[0] * places[2] * places[3]


def _bytes(layer: EngineLayer) -> float | None:
    sizes = [tensor.bytes for tensor in (*layer.inputs, *layer.outputs)]
    if not sizes or None in sizes:
        return None
    value = {"Half": 2, "BFloat16": 2, "Int8": 1, "FP8": 1}.get(layer.computed_type or "", 4)
    return float(sum(size or 0 for size in sizes) + value * (layer.weight_count or 0))


def _bound(
    layer: EngineLayer, flop: float | None, moved: float | None, highest: dict[str, float]
) -> tuple[float | None, str | None]:
    """Return the least time and what gives it; the ceilings are in GFLOP/s and GB/s."""
    kinds = _CEILINGS.get(layer.computed_type or "", ())
    rate = max((highest.get(kind, 0.0) for kind in kinds), default=0.0)
    compute_ms = flop / rate / 1e6 if flop and rate else 0.0
    memory_ms = moved / highest["memory"] / 1e6 if moved and highest.get("memory") else 0.0
    if (not compute_ms and not memory_ms) or (flop and not rate):
        return None, None
    return max(compute_ms, memory_ms), "compute" if compute_ms >= memory_ms else "memory"
