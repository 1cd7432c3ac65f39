"""Engine report from files that trtexec wrote elsewhere."""

from __future__ import annotations

from pathlib import Path

from tinyunet_deploy.artifacts.onnx_guard import check_onnx_file
from tinyunet_deploy.errors import ArtifactError
from tinyunet_deploy.files import read_regular
from tinyunet_deploy.speed.engine.layer_info import LayerInfo, read_layer_info
from tinyunet_deploy.speed.engine.layer_profile import read_profile
from tinyunet_deploy.speed.engine.network_names import NetworkNames, network_names
from tinyunet_deploy.speed.engine.report import CallTimes, EngineReport, layer_rows
from tinyunet_deploy.speed.engine.trtexec_times import read_trtexec_times

__all__ = ["import_report"]


def import_report(
    layers: Path,
    profile: Path,
    times: Path | None = None,
    model: Path | None = None,
    batch_size: int | None = None,
) -> EngineReport:
    """Make a report from files of ``--exportLayerInfo``, ``--exportProfile``, ``--exportTimes``.

    Args:
        model: ONNX file that the engine was built from, for names and operations.
        batch_size: images per call; None takes it from the first layer's input.

    Raises:
        ArtifactError, DataError: a file is not what it should be.
    """
    info, timed = read_layer_info(layers), read_profile(profile)
    calls: tuple[CallTimes, ...] = ()
    notes = []
    boundary = "No times of whole calls."
    if times is not None:
        measured = read_trtexec_times(times)
        calls = (
            CallTimes(
                None, measured.enqueue, measured.copy_in, measured.compute, measured.copy_out
            ),
        )
        boundary = (
            "Times of trtexec: "
            + ("copy in, compute, copy out" if measured.transfers else "compute alone, no copies")
            + "; CUDA graph and spin wait as trtexec was told, which its file does not say."
        )
    batch = batch_size or _batch_of(info)
    if batch is None:
        notes.append("The batch size is not known: give --batch-size.")
    rows, more = layer_rows(info, timed, _names(model), batch, ())
    return EngineReport(
        model=layers.name,
        model_sha256=None,
        precision=None,
        batch_size=batch,
        origin="files of trtexec",
        boundary=boundary,
        layers=rows,
        detailed=info.detailed,
        profiled_calls=timed.calls,
        calls=calls,
        notes=(*notes, *more),
    )


def _batch_of(info: LayerInfo) -> int | None:
    """Return the first dimension of the first input of an engine; None if it is free or unknown."""
    shapes = (tensor.shape for layer in info.layers for tensor in layer.inputs)
    first = next((shape for shape in shapes if len(shape) == 4), ())
    return first[0] if first and first[0] > 0 else None


def _names(model: Path | None) -> NetworkNames:
    if model is None:
        return NetworkNames()
    try:
        data = read_regular(model)
        check_onnx_file(data, model)
        return network_names(data)
    except (OSError, ValueError) as error:
        raise ArtifactError(model, f"cannot be read as ONNX: {error}") from error
