"""Adopt a network of another origin: wrap it into the contract, prove it, measure it, describe it.

The original is read within bounds and tried in a separate process before it runs in this one.
Nothing is written unless the wrapped file gives the original's scores.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

import numpy as np

from tinyunet_deploy import __version__
from tinyunet_deploy.artifacts.adoption.form import (
    NORMALIZATIONS,
    InputForm,
    Normalization,
    OutputForm,
    chosen_output,
    input_form,
    last_activation,
    output_layout,
)
from tinyunet_deploy.artifacts.adoption.hints import require_onnx
from tinyunet_deploy.artifacts.adoption.surgery import wrapped
from tinyunet_deploy.artifacts.facts import Activation, AdoptionFacts, Layout
from tinyunet_deploy.artifacts.golden import write_golden
from tinyunet_deploy.artifacts.onnx_guard import (
    CONTRACT_ENDS,
    GraphEnd,
    adopt_command,
    check_onnx_file,
    check_onnx_graph,
)
from tinyunet_deploy.artifacts.onnx_reader import read_graph
from tinyunet_deploy.artifacts.precision import AnyPrecision
from tinyunet_deploy.artifacts.sidecar import (
    MAX_BYTES,
    Artifact,
    Sidecar,
    digest,
    sidecar_path,
    write_artifact,
)
from tinyunet_deploy.backends.foreign_graph import ForeignGraph
from tinyunet_deploy.backends.onnxruntime import ONNXRuntimeBackend
from tinyunet_deploy.backends.sandbox import try_graph
from tinyunet_deploy.contract import DEFAULT_SIZE, OUTPUT_NAME, Contract, Image
from tinyunet_deploy.data.decoding import MAX_PIXELS
from tinyunet_deploy.errors import ArtifactError, GateFailed
from tinyunet_deploy.files import json_value, read_regular
from tinyunet_deploy.quality.adoption_images import adoption_images
from tinyunet_deploy.quality.adoption_output import Decided, decide_output
from tinyunet_deploy.quality.adoption_proof import (
    MOST_STEPS,
    Original,
    Proof,
    original_scores,
    prove,
    values_as_nchw,
)
from tinyunet_deploy.quality.adoption_table import Row, adoption_table
from tinyunet_deploy.quality.comparison import step_difference
from tinyunet_deploy.quality.network_measurement import measure_network

__all__ = ["Adoption", "AdoptionOptions", "Row", "adopt"]

Report = Callable[[str], None]
"""Function that takes a description of the current task."""

_NORMALIZE: Final = (
    f"--normalize {'|'.join(NORMALIZATIONS)}",
    "how grey values 0..255 are normalised (or --scale, --mean and --std)",
)
_UNIT: Final = NORMALIZATIONS["unit"]
_WHITE: Final = 255
"""Largest grey value."""
_FLOAT16: Final = 10
"""Number of the type in onnx.proto3."""


@dataclass(frozen=True)
class AdoptionOptions:
    """What the user says about a network; None leaves it to the file or to a measurement."""

    normalization: Normalization | None = None
    layout: Layout | None = None
    output_name: str | None = None
    activation: Activation | None = None
    defect: tuple[int, ...] | None = None
    """Output channels that are defects, from 0."""
    size: tuple[int, int] | None = None
    """Height and width of the images, pixels."""
    reach: int | Literal["whole"] | None = None
    """Pixels around a pixel that its score depends on."""


@dataclass(frozen=True)
class Adoption:
    """An adopted network, as it was written."""

    path: Path
    sidecar: Sidecar
    rows: tuple[Row, ...]


def adopt(
    model: Path,
    output: Path,
    options: AdoptionOptions,
    *,
    images: Path | None = None,
    threshold: float | None = None,
    min_area: int | None = None,
    bits: int | None = None,
    report: Report = lambda _: None,
) -> Adoption:
    """Adopt a network and write it with its sidecar and its golden images.

    Args:
        model: an ONNX file of any origin.
        output: file to write, ``NAME.onnx``.
        images: images for the proof, besides synthetic ones.
        threshold, min_area, bits: defaults for the sidecar.

    Raises:
        ArtifactError: the file is not a segmentation network that can be adopted, or something must
            be passed; the message names all that is missing.
        GateFailed: the wrapped file does not give the original's scores; nothing is written.
        RuntimeUnavailable: this system cannot try a file of unknown origin.
    """
    require_onnx(model)
    if output.suffix != ".onnx" or output.resolve() == model.resolve():
        raise ArtifactError(output, "cannot be written", "-o takes another file, NAME.onnx")
    if sidecar_path(model).exists():
        raise ArtifactError(model, "has a sidecar already, so it needs no adoption")
    data = _read(model)
    ends = check_onnx_graph(data, model)
    try:
        source = input_form(ends, options.layout)
        end = chosen_output(ends, options.output_name)
        normalization = _normalization(source, options.normalization)
        contract = Contract(*_size(source, options.size))
        report("trying it in a separate process")
        layout, channels = _tried(data, model, source, end, contract)
        pictures = adoption_images(contract, images, bits)
        original = Original(ForeignGraph(data, model, end.name), source, normalization or _UNIT)
        if source.type_name == "uint8":
            original = replace(original, normalization=None)
        report("running the original")
        missing = {} if normalization or source.type_name == "uint8" else dict([_NORMALIZE])
        try:
            decided = _decided(data, original, end, layout, options, pictures)
        except ValueError:
            if not missing:
                raise
            decided = Decided()  # the values of a guessed normalisation contradict nothing
        missing |= decided.missing
        if missing:
            reasons = "; ".join(missing.values())
            raise ArtifactError(
                model,
                f"has {ends}; expected {CONTRACT_ENDS}; the file does not say {reasons}",
                f"{adopt_command(model)} {' '.join(missing)}",
            )
    except ValueError as error:
        raise ArtifactError(model, str(error)) from error
    result = OutputForm(
        end.name,
        end.type_name,
        layout,
        channels,
        decided.activation,
        decided.defect,
        decided.combine,
    )
    network = measure_network(original, layout, contract, options.reach, report)
    report("wrapping it and comparing it with the original")
    adopted = _Wrapping(model, output, data, original, result, contract)
    artifact, proof = adopted.proven(pictures)
    facts = AdoptionFacts(
        original_sha256=digest(data),
        original_name=model.name,
        input_layout=source.layout,
        input_channels=source.channels,
        mean=None if original.normalization is None else original.normalization.mean,
        std=None if original.normalization is None else original.normalization.std,
        output_layout=layout,
        activation=result.activation,
        defect_channels=result.defect,
        combine=result.combine,
        batch="free" if artifact.sidecar.contract.max_batch is None else "fixed",
        size="fixed" if network.size_multiple is None else "free",
        reach=network.reach_from,
        proof_steps=proof.largest_steps,
        proof_images=proof.images,
    )
    sidecar = replace(
        artifact.sidecar,
        threshold=0.5 if threshold is None else threshold,
        min_area=min_area or 1,
        bits=bits,
        network=network.facts,
        adoption=facts,
        origin=json_value({"mean_steps": proof.mean_steps, "versions": _versions()}),
    )
    rows = adoption_table(ends, channels, facts, sidecar, decided.reason, proof, network.note)
    report("writing")
    write_artifact(output, artifact.data, sidecar)
    write_golden(output, lambda batch: original_scores(original, result, batch[:, 0], model.name))
    return Adoption(output, sidecar, rows)


@dataclass(frozen=True)
class _Wrapping:
    """The surgery of one network, and the files that it is tried as."""

    model: Path
    output: Path
    data: bytes
    original: Original
    result: OutputForm
    contract: Contract

    def proven(self, pictures: Sequence[Image]) -> tuple[Artifact, Proof]:
        """Return the wrapped file that gives the original's scores, with a free batch if it can.

        Raises:
            ArtifactError, GateFailed: neither with a free batch nor with a batch of one it does.
        """
        try:
            return self._proven(pictures, None)
        except (ArtifactError, GateFailed):
            if self.original.source.batch not in (None, 1):
                raise ArtifactError(
                    self.model,
                    f"takes batches of {self.original.source.batch} images only, and its batch "
                    "cannot be freed",
                    "export it with a free batch, or a batch of 1",
                ) from None
        return self._proven(pictures, 1)

    def _proven(self, pictures: Sequence[Image], max_batch: int | None) -> tuple[Artifact, Proof]:
        contract = replace(self.contract, max_batch=max_batch)
        source, normalization = self.original.source, self.original.normalization
        data = wrapped(self.data, self.model, source, normalization, self.result, contract)
        check_onnx_file(data, self.output)
        sidecar = Sidecar("onnx", _precision(data), digest(data), None, contract)
        artifact = Artifact(self.output, data, sidecar)
        if max_batch is None:
            self._check_batches(ForeignGraph(data, self.output, OUTPUT_NAME), pictures)
        with ONNXRuntimeBackend(artifact) as backend:
            return artifact, prove(self.original, self.result, backend, pictures)

    def _check_batches(self, graph: ForeignGraph, pictures: Sequence[Image]) -> None:
        """Raise if images in batches of 2 and 3 do not get the scores that they get alone."""
        images = np.stack(pictures)[:, None]
        for size in (2, 3):
            for batch in (images[-size:], images[-size:][::-1]):
                alone = np.concatenate([graph.run(image[None]) for image in batch])
                together = graph.run(batch)
                if together.shape != alone.shape or (
                    int(step_difference(together, alone).max()) > MOST_STEPS
                ):
                    raise GateFailed(self.output, f"mixes the images of a batch of {size}")


def _read(model: Path) -> bytes:
    try:
        return read_regular(model, limit=MAX_BYTES)
    except FileNotFoundError:
        raise ArtifactError(model, "does not exist") from None
    except OSError as error:
        raise ArtifactError(model, f"cannot be read: {error.strerror}") from error


def _normalization(source: InputForm, given: Normalization | None) -> Normalization | None:
    """Return the user's normalisation, checked; None if there is none."""
    if given is None:
        return None
    if source.type_name == "uint8":
        raise ValueError("takes uint8, so it normalises by itself: leave the normalisation out")
    if not given.fits(source.channels):
        raise ValueError(
            f"takes {source.channels} channel{'s' * (source.channels > 1)}, but the normalisation "
            f"has {max(len(given.mean), len(given.std))} numbers"
        )
    if max(given.mean) > _WHITE:
        raise ValueError(
            f"would never get a value above 0: the normalisation subtracts {max(given.mean):g} "
            "from grey values 0..255; pass --scale 1 if --mean and --std are of grey values"
        )
    return given


def _size(source: InputForm, given: tuple[int, int] | None) -> tuple[int, int]:
    """Return height and width of the images: the file's, else the user's, else the usual ones."""
    wanted = given or (DEFAULT_SIZE, DEFAULT_SIZE)
    height, width = source.height or wanted[0], source.width or wanted[1]
    if given is not None and (height, width) != given:
        raise ValueError(
            f"takes images of {height}x{width} pixels (HxW), fixed at export, not "
            f"{given[0]}x{given[1]}: leave --size out"
        )
    if height * width > MAX_PIXELS:
        raise ValueError(f"takes images of {width}x{height} pixels, more than {MAX_PIXELS}")
    return height, width


def _tried(
    data: bytes, model: Path, source: InputForm, end: GraphEnd, contract: Contract
) -> tuple[Layout, int]:
    """Try the graph in a separate process; return the layout and channels of its output."""
    batch = source.batch or 1
    shape = source.shape(contract.height, contract.width, batch)
    try:
        given = try_graph(data, model, end.name, source.type_name, shape)
    except ArtifactError as error:
        free = source.height is None or source.width is None
        hint = f"another size may fit: --size {contract.height // 2}" if free else None
        raise ArtifactError(error.where, error.what, hint) from error
    return output_layout(given, contract.height, contract.width, batch, source.layout)


def _decided(
    data: bytes,
    original: Original,
    end: GraphEnd,
    layout: Layout,
    options: AdoptionOptions,
    pictures: Sequence[Image],
) -> Decided:
    """Run the original on the images and decide what its values mean."""
    values = [values_as_nchw(original.values(picture), layout)[:1] for picture in pictures]
    if not all(np.isfinite(v).all() for v in values):
        raise ValueError("gives values that are not finite")
    if not np.array_equal(values_as_nchw(original.values(pictures[0]), layout)[:1], values[0]):
        raise ValueError("gives other values for the same image a second time: it is not a network")
    if all(np.array_equal(v, values[0]) for v in values):
        raise ValueError("gives the same values for every image, so it finds nothing")
    last = last_activation(data, end.name)
    return decide_output(values, last, options.activation, options.defect)


def _precision(data: bytes) -> AnyPrecision:
    """Return the precision of a wrapped file, by its operators and the types of its constants."""
    graph = read_graph(data)
    if any(node.operator in ("QuantizeLinear", "DequantizeLinear") for node in graph.nodes):
        return "int8"
    convolutions = graph.convolutions() or []
    half = any(convolution.element_type == _FLOAT16 for convolution in convolutions)
    return "fp16" if half else "fp32"


def _versions() -> dict[str, str]:
    packages = {name: importlib.metadata.version(name) for name in ("onnx", "numpy")}
    return {"tinyunet_deploy": __version__, **packages}
