"""``python -m benchmarks.up_step FILE.onnx...``: other forms of the network's up-steps.

An up-step repeats each pixel twice in both directions and then applies a 2x2 convolution that is
padded right and bottom. Two other graphs compute the same function:

    low-resolution   one 2x2 convolution before the enlargement, to four times the channels, whose
                     outputs are sorted into 2x2 blocks of pixels (depth to space)
    transposed       one transposed 3x3 convolution of stride 2: 9 products a pixel instead of 16

Both fold the weights exactly but for rounding. This command rewrites the up-steps of exported
files, compares the scores with those of the file, and times all forms in turn on every runtime.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import click
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from benchmarks.options import HELP, output_option, write_result
from benchmarks.synthetic_images import draw_images
from tinyunet_deploy.artifacts.sidecar import Artifact, digest, read_artifact
from tinyunet_deploy.backends.registry import load, why_not
from tinyunet_deploy.backends.table import rows_for
from tinyunet_deploy.cli import run
from tinyunet_deploy.errors import ArtifactError
from tinyunet_deploy.host import describe_machine
from tinyunet_deploy.speed.ratio import STATISTICS, ratio_in_run
from tinyunet_deploy.speed.turns import ROUNDS, time_in_turns

__all__ = ["FORMS", "low_resolution", "transposed", "up_step"]

_AGAIN: Final = "as exported, again"
"""Name of the second series of the exported file; its ratio to the first is the noise floor."""


@click.command(context_settings=HELP)
@click.argument(
    "models", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False)
)
@click.option("--rounds", default=ROUNDS, show_default=True, type=click.IntRange(min=2))
@output_option("up-step.json")
def up_step(models: tuple[Path, ...], rounds: int, output: Path) -> None:
    """Compare and time other forms of the up-steps of MODELS, exported .onnx files."""
    rows = [row for model in models for row in _rows(read_artifact(model), rounds)]
    words = ["python", "-m", "benchmarks.up_step", *(model.name for model in models)]
    write_result(
        output,
        {
            "kind": "up-step",
            "command": shlex.join([*words, "--rounds", str(rounds)]),
            "machine": describe_machine(),
            "statistics": STATISTICS,
            "rows": rows,
        },
    )


def _rows(artifact: Artifact, rounds: int) -> Iterator[dict[str, Any]]:
    """Time every form of one file on every runtime that is installed."""
    sidecar = artifact.sidecar
    contract = sidecar.contract
    batch = draw_images(1, contract.height, contract.width, defective_every=1)
    files = {"as exported": artifact, _AGAIN: artifact}
    for name, form in FORMS.items():
        data = form(onnx.load_from_string(artifact.data)).SerializeToString(deterministic=True)
        changed = dataclasses.replace(sidecar, sha256=digest(data), golden=None)
        files[name] = dataclasses.replace(artifact, data=data, sidecar=changed)
    for row in rows_for("onnx", "cpu", unasked_only=True):
        if why_not(row) is not None:
            continue
        with contextlib.ExitStack() as stack:
            refused, calls, scores = {}, {}, {}
            for name, file in files.items():
                try:
                    backend = stack.enter_context(load(file, row, "cpu"))
                    scores[name] = backend.run(batch).score.astype(int)
                except ArtifactError as error:
                    refused[name] = error.what
                else:
                    calls[name] = _call(backend.run, batch)
            times = time_in_turns(calls, rounds)
        expected = scores["as exported"]
        for name in files:
            fields = {"model": artifact.path.name, "precision": sidecar.precision}
            fields |= {"backend": row.name, "form": name}
            if name in refused:
                yield {**fields, "refused": refused[name]}
                continue
            ratio = ratio_in_run(times[name], times["as exported"])
            steps = np.abs(scores[name] - expected)
            click.echo(
                f"{sidecar.precision} {row.name:12} {name:20} {ratio.value:.3f} times the time "
                f"({ratio.low:.3f} to {ratio.high:.3f})"
            )
            yield {
                **fields,
                "time_ratio": ratio.as_dict(),
                "median_ms": float(np.median(times[name])),
                "largest_steps": int(steps.max()),
                "pixels_that_differ": int(np.count_nonzero(steps)),
            }


def _call(run_batch: Callable[..., object], batch: NDArray[np.uint8]) -> Callable[[], object]:
    return lambda: run_batch(batch)


# --- the forms ------------------------------------------------------------------------------------


def low_resolution(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph with each up-step as a 2x2 convolution and depth to space.

    Output pixel 2i + a of a row reads input pixels i + (a + u) // 2 for the taps u = 0, 1; so phase
    (a, b) of a block is a convolution of its own, all of the same input.
    """
    other = _copy(model)
    for node, weight in _up_steps(other):
        phases = np.zeros((2, 2, *weight.shape))
        for a, b, u, v in np.ndindex(2, 2, 2, 2):
            phases[a, b, :, :, (a + u) // 2, (b + v) // 2] += weight[:, :, u, v]
        _set_weight(other, node, phases.reshape(-1, *weight.shape[1:]), axis=0)
        if len(node.input) > 2:
            bias = np.tile(numpy_helper.to_array(_tensor(other, node.input[2])), 4)
            node.input[2] = f"{node.input[1]}.bias"  # the exporter shares equal tensors
            other.graph.initializer.append(numpy_helper.from_array(bias, node.input[2]))
        last = _after_relu(other, node)
        blocks = f"{last.output[0]}.blocks"
        for reader in other.graph.node:
            reader.input[:] = [blocks if x == last.output[0] else x for x in reader.input]
        to_space = helper.make_node(
            "DepthToSpace", [last.output[0]], [blocks], blocks, blocksize=2, mode="DCR"
        )
        other.graph.node.insert(list(other.graph.node).index(last) + 1, to_space)
    return _finished(other)


def transposed(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph with each up-step as one transposed 3x3 convolution.

    Input pixel i reaches output pixels 2i - 1, 2i and 2i + 1 by w[1], w[0] + w[1] and w[0].
    """
    other = _copy(model)
    spread = np.array([[0.0, 1.0], [1.0, 1.0], [1.0, 0.0]])
    for node, weight in _up_steps(other):
        kernel = np.einsum("au,bv,oiuv->ioab", spread, spread, weight)
        _set_weight(other, node, kernel, axis=1)
        node.op_type = "ConvTranspose"
        del node.attribute[:]
        node.attribute.extend(
            helper.make_attribute(name, values)
            for name, values in (
                ("kernel_shape", [3, 3]),
                ("strides", [2, 2]),
                ("pads", [1, 1, 1, 1]),
                ("output_padding", [1, 1]),
            )
        )
    return _finished(other)


FORMS: Final[dict[str, Callable[[onnx.ModelProto], onnx.ModelProto]]] = {
    "low-resolution": low_resolution,
    "transposed": transposed,
}
"""Name of a form -> function that rewrites a graph, float32 or quantised."""


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    other = onnx.ModelProto()
    other.CopyFrom(model)
    del other.graph.value_info[:]
    return other


def _finished(model: onnx.ModelProto) -> onnx.ModelProto:
    onnx.checker.check_model(model, full_check=True)
    return model


def _up_steps(model: onnx.ModelProto) -> list[tuple[onnx.NodeProto, NDArray[np.float64]]]:
    """Connect each 2x2 convolution to the tensor before its enlargement, and list these
    convolutions with their weights in float, [C_out, C_in, 2, 2]."""
    makers = {node.output[0]: node for node in model.graph.node}
    steps = []
    for node in [node for node in model.graph.node if node.op_type == "Conv"]:
        weight = _weight(model, node)
        if weight.shape[2:] != (2, 2):
            continue
        reader = node
        while makers[reader.input[0]].op_type in ("QuantizeLinear", "DequantizeLinear", "Pad"):
            reader = makers[reader.input[0]]
        resize = makers[reader.input[0]]
        assert resize.op_type == "Resize", resize.op_type
        reader.input[0] = resize.input[0]
        model.graph.node.remove(resize)
        steps.append((node, weight))
    return steps


def _tensor(model: onnx.ModelProto, name: str) -> onnx.TensorProto:
    tensors: dict[str, onnx.TensorProto] = {x.name: x for x in model.graph.initializer}
    return tensors[name]


def _dequantizer(model: onnx.ModelProto, node: onnx.NodeProto) -> onnx.NodeProto | None:
    """Return the node that dequantises the weight of a convolution; None for a float weight."""
    return next((other for other in model.graph.node if node.input[1] in other.output), None)


def _weight(model: onnx.ModelProto, node: onnx.NodeProto) -> NDArray[np.float64]:
    dequantizer = _dequantizer(model, node)
    if dequantizer is None:
        return np.asarray(numpy_helper.to_array(_tensor(model, node.input[1])), np.float64)
    values, step = (numpy_helper.to_array(_tensor(model, x)) for x in dequantizer.input[:2])
    weight: NDArray[np.float64] = values.astype(np.float64) * step[:, None, None, None]
    return weight


def _set_weight(
    model: onnx.ModelProto, node: onnx.NodeProto, weight: NDArray[np.float64], axis: int
) -> None:
    """Store a weight as the old one was: as float, or rounded to int8 per output channel.

    Args:
        axis: axis of the output channels.
    """
    dequantizer = _dequantizer(model, node)
    if dequantizer is None:
        old = _tensor(model, node.input[1])
        kind = numpy_helper.to_array(old).dtype
        old.CopyFrom(numpy_helper.from_array(weight.astype(kind), old.name))
        return
    others = tuple(x for x in range(4) if x != axis)
    step = np.abs(weight).max(axis=others, keepdims=True) / 127
    values = np.rint(weight / np.where(step > 0, step, 1.0)).astype(np.int8)
    parts = (values, step.ravel().astype(np.float32), np.zeros(step.size, np.int8))
    for name, part in zip(dequantizer.input, parts, strict=True):
        _tensor(model, name).CopyFrom(numpy_helper.from_array(part, name))
    del dequantizer.attribute[:]
    dequantizer.attribute.append(helper.make_attribute("axis", axis))


def _after_relu(model: onnx.ModelProto, node: onnx.NodeProto) -> onnx.NodeProto:
    """Return the last of a convolution's own ReLU and the Q/DQ pair behind it."""
    last = node
    for kinds in (("Relu",), ("QuantizeLinear",), ("DequantizeLinear",)):
        readers = [other for other in model.graph.node if last.output[0] in other.input]
        if len(readers) == 1 and readers[0].op_type in kinds:
            last = readers[0]
    return last


if __name__ == "__main__":
    sys.exit(run(up_step))
