"""``python -m benchmarks.example_engine``: an engine report of made-up figures.

It shows the page where there is no GPU, and gives the tests files in the forms of TensorRT 10 and
11. Layers, shapes and operations are those of the network in the package; times follow from assumed
rates, and are no measurement.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any, Final, NamedTuple

import click

from benchmarks.options import HELP
from tinyunet_deploy.artifacts.facts import PlanFacts, Profile
from tinyunet_deploy.artifacts.onnx_reader import Convolution, read_graph
from tinyunet_deploy.artifacts.sidecar import DEFAULT_ONNX
from tinyunet_deploy.backends.tensorrt import EngineMemory
from tinyunet_deploy.cli import run
from tinyunet_deploy.contract import INPUT_NAME, OUTPUT_NAME
from tinyunet_deploy.files import write_atomic
from tinyunet_deploy.speed.benchmark_result import Ceiling, ClockRates
from tinyunet_deploy.speed.engine.layer_info import Form, parse_layer_info
from tinyunet_deploy.speed.engine.layer_profile import parse_profile
from tinyunet_deploy.speed.engine.measurement import BOUNDARY, MeasuredEngine, write_engine_report
from tinyunet_deploy.speed.engine.network_names import network_names
from tinyunet_deploy.speed.engine.page import write_page
from tinyunet_deploy.speed.engine.report import CallTimes, EngineReport, layer_rows
from tinyunet_deploy.speed.time_samples import TimeSamples

__all__ = ["ExampleFiles", "example_files", "example_report"]

_TYPES: Final = {"fp16": "Half", "int8": "Int8"}
_LAYOUTS: Final = {
    "Half": "Channel major FP16 format where channel % 8 == 0",
    "Int8": "Thirty-two wide channel vectorized row major Int8 format",
    "UInt8": "Row major linear UInt8 format",
}
_RATE: Final = {"Half": 350e9, "Int8": 700e9}
"""Assumed multiplications and additions a millisecond."""
_BYTES_PER_MS: Final = 1.6e9
_START_MS: Final = 0.004
"""Assumed time to start a kernel."""
_CALLS: Final = 100


class ExampleFiles(NamedTuple):
    """JSON texts as trtexec writes them."""

    layers: str
    profile: str
    times: str


class _Layer(NamedTuple):
    """One made-up layer of an engine, and its time."""

    fields: dict[str, Any]
    ms: float


def _tensor(name: str, shape: tuple[int, ...], kind: str, form: Form) -> dict[str, Any]:
    fields: dict[str, Any] = {"Name": name, "Location": "Device", "Dimensions": list(shape)}
    if form == "10":
        return {**fields, "Format/Datatype": _LAYOUTS[kind]}
    return {**fields, "Format": f"{_LAYOUTS[kind]} (kVECTORIZED)", "Datatype": kind}


def _convolution(
    node: str, source: str, sizes: Convolution, kind: str, batch: int, form: Form
) -> _Layer:
    shapes = ((batch, *sizes.image[1:]), (batch, *sizes.output[1:]))
    maps, channels, _, side = sizes.weight
    count = _product(sizes.weight)
    moved = sum(map(_product, shapes)) * (2 if kind == "Half" else 1) + count
    flop = 2.0 * count * batch * _product(sizes.output[2:])
    few = channels < 8 or maps < 8  # too few channels for a tensor core
    family = "implicit_gemm_f16f16" if kind == "Half" else "implicit_gemm_i8i8_i8i32_f32"
    tactic = f"sm90_xmma_fprop_{family}_nhwckrsc_nhwc_tilesize128x64x64_stage4_tensor16x8x32"
    if few:
        tactic = (
            "sm50_xmma_conv_fprop_fused_conv_act_nhwc" if kind == "Int8" else "conv_direct_fp16"
        )
    ms = max(flop / _RATE[kind] * (6 if few else 1), moved / _BYTES_PER_MS) + _START_MS
    fields = {
        "Name": f"{node} + {node.replace('conv2d', 'relu')}",
        "LayerType": "CaskConvolution",
        "Inputs": [_tensor(source, shapes[0], kind, form)],
        "Outputs": [_tensor(f"{node}_out", shapes[1], kind, form)],
        "ParameterType": "Convolution",
        "Kernel": [side, side],
        "Groups": 1,
        "Weights": {"Type": kind, "Count": count},
        "Activation": "RELU",
        "TacticName": tactic,
        "StreamId": 0,
        "Metadata": f"[ONNX Layer: {node}]\x1e[ONNX Layer: {node.replace('conv2d', 'relu')}]",
    }
    return _Layer(fields, ms)


def _product(sizes: tuple[int, ...]) -> int:
    result = 1
    for size in sizes:
        result *= size
    return result


def _copy(
    node: str, source: str, shape: tuple[int, ...], kinds: tuple[str, str], form: Form
) -> _Layer:
    name = f"Reformatting CopyNode for Input Tensor 0 to {node}"
    fields = {
        "Name": name,
        "LayerType": "Reformat",
        "Inputs": [_tensor(source, shape, kinds[0], form)],
        "Outputs": [_tensor(f"{source} reformatted for {node}", shape, kinds[1], form)],
        "ParameterType": "Reformat",
        "Origin": "REFORMAT",
        "TacticName": "",
        "StreamId": 0,
        "Metadata": "",
    }
    return _Layer(fields, 3 * _product(shape) / _BYTES_PER_MS + _START_MS)


def _layers(precision: str, batch: int, form: Form) -> list[_Layer]:
    graph = read_graph(DEFAULT_ONNX.read_bytes())
    convolutions = graph.convolutions()
    nodes = [node.name for node in graph.nodes if node.operator == "Conv"]
    assert convolutions is not None
    layers: list[_Layer] = []
    source = INPUT_NAME
    for number, (node, sizes) in enumerate(zip(nodes, convolutions, strict=True)):
        kind = _TYPES[precision]
        if precision == "int8" and number in (0, len(nodes) - 1):
            kind = "Half"  # the first and last convolution stay in fp16
        shape = (batch, *sizes.image[1:])
        before = "UInt8" if number == 0 else layers[-1].fields["Weights"]["Type"]
        resized = number and shape[1:] != tuple(layers[-1].fields["Outputs"][0]["Dimensions"][1:])
        if before != kind or (precision == "int8" and resized):
            layers.append(_copy(node, source, shape, (before, kind), form))
            source = layers[-1].fields["Outputs"][0]["Name"]
        layers.append(_convolution(node, source, sizes, kind, batch, form))
        source = layers[-1].fields["Outputs"][0]["Name"]
    shape = (batch, *convolutions[-1].output[1:])
    layers.append(_copy(nodes[-1], source, shape, ("Half", "UInt8"), form))
    layers[-1].fields["Name"] = f"Reformatting CopyNode for Output Tensor 0 to {nodes[-1]}"
    layers[-1].fields["Outputs"][0]["Name"] = OUTPUT_NAME
    return layers


def example_files(precision: str, form: Form, batch: int = 16) -> ExampleFiles:
    """Return what trtexec of a release would export for an engine, with made-up times.

    Args:
        precision: ``fp16`` or ``int8``.
        batch: images per call.
    """
    layers = _layers(precision, batch, form)
    ends: dict[str, Any] = {"Bindings": [INPUT_NAME, OUTPUT_NAME]}
    if form == "11":
        pairs = ((INPUT_NAME, "Input"), (OUTPUT_NAME, "Output"))
        shape = [batch, 1, 512, 512]
        ends = {
            "I/O Tensors": [
                {"Name": name, "IOMode": mode, "DataType": "UInt8", "Dimensions": shape}
                for name, mode in pairs
            ]
        }
    total = sum(layer.ms for layer in layers)
    profile: list[dict[str, Any]] = [{"count": _CALLS}]
    profile += [
        {
            "name": layer.fields["Name"],
            "timeMs": layer.ms * _CALLS,
            "averageMs": layer.ms,
            "medianMs": layer.ms,
            "percentage": 100 * layer.ms / total,
        }
        for layer in layers
    ]
    times = []
    for call in range(_CALLS):
        start = call * (total + 0.1)
        compute = total * (0.93 + 0.0005 * (call % 7))
        h2d, d2h = (0.17, 0.16) if form == "10" else (0.0, 0.0)  # TensorRT 11 copies nothing
        times.append(
            {
                "startEnqMs": start, "endEnqMs": start + 0.2, "startH2dMs": start,
                "endH2dMs": start + h2d, "startComputeMs": start + h2d,
                "endComputeMs": start + h2d + compute, "startD2hMs": start + h2d + compute,
                "endD2hMs": start + h2d + compute + d2h, "h2dMs": h2d, "computeMs": compute,
                "d2hMs": d2h, "latencyMs": h2d + compute + d2h,
            }
        )  # fmt: skip
    info = json.dumps({"Layers": [layer.fields for layer in layers], **ends})
    return ExampleFiles(info, json.dumps(profile), json.dumps(times))


def example_report(precision: str, form: Form = "11", batch: int = 16) -> MeasuredEngine:
    """Return the report that a measurement of such an engine would give; origin ``example``."""
    files = example_files(precision, form, batch)
    info, profile = parse_layer_info(files.layers), parse_profile(files.profile)
    profile = dataclasses.replace(
        profile,
        layers=tuple(
            dataclasses.replace(time, p99_ms=1.06 * time.median_ms) for time in profile.layers
        ),
    )
    ceilings = (
        Ceiling("float16 example", "float16", "cuda:0", 700e3, "GFLOP/s", "none", "made up", ()),
        Ceiling("int8 example", "int8", "cuda:0", 1400e3, "GFLOP/s", "none", "made up", ()),
        Ceiling("memory example", "memory", "cuda:0", 3300.0, "GB/s", "none", "made up", ()),
    )
    names = network_names(DEFAULT_ONNX.read_bytes())
    rows, notes = layer_rows(info, profile, names, batch, ceilings)
    total = sum(row.median_ms for row in rows)
    clocks = ClockRates((), None, 1755, 2619, 52, 410.0, (), 1000.0)
    report = EngineReport(
        model=f"tinyunet.{precision}.plan",
        model_sha256=None,
        precision=precision,
        batch_size=batch,
        origin="example",
        boundary=BOUNDARY,
        layers=rows,
        detailed=True,
        profiled_calls=_CALLS,
        calls=(_calls(False, 0.96 * total, 0.16, batch), _calls(True, 0.93 * total, 0.02, batch)),
        memory=EngineMemory(4 << 20, 3_700_000, 700 << 20, 4 * batch << 18, 760 << 20),
        build=PlanFacts(
            "tensorrt", "11.4.0.106" if form == "11" else "10.16.1.11", "Example GPU", "9.0",
            Profile(1, batch, batch), level=3, flags=("TF32",), timing_cache="empty", build_s=41.0,
        ),
        clocks_before=clocks,
        clocks_after=dataclasses.replace(clocks, gpu_temperature_c=57),
        energy_j_per_image=0.4 * total / batch,
        ceilings=ceilings,
        notes=notes,
    )  # fmt: skip
    return MeasuredEngine(report, info, profile)


def _calls(graph: bool, compute_ms: float, enqueue_ms: float, batch: int) -> CallTimes:
    def series(value: float) -> TimeSamples:
        return TimeSamples(tuple(value * (1 + 0.002 * (call % 5)) for call in range(200)))

    compute = series(compute_ms)
    images_per_s = 1e3 * batch / compute_ms
    return CallTimes(graph, series(enqueue_ms), series(0.18), compute, series(0.16), images_per_s)


@click.command(context_settings=HELP)
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the example.",
)  # fmt: skip
def example_engine(output: Path) -> None:
    """Write an example of every file of an engine report, with made-up figures."""
    reports = []
    for precision in ("fp16", "int8"):
        measured = example_report(precision)
        reports.append(measured.report)
        click.echo(write_engine_report(measured, output)[0])
    page = output / "fp16-and-int8.html"
    write_page(reports, page)
    click.echo(page)
    for precision, form in (("fp16", "10"), ("fp16", "11")):
        files = example_files(precision, "10" if form == "10" else "11")
        for name, text in files._asdict().items():
            write_atomic(output / f"trtexec-{form}-{name}.json", text.encode())


if __name__ == "__main__":
    sys.exit(run(example_engine))
