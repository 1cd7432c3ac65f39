"""Refusals that end in a command: which one adopts a file, or makes it a file to adopt."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from tinyunet_deploy.artifacts.onnx_guard import (
    CONTRACT_ENDS,
    adopt_command,
    check_onnx_graph,
    keeps_contract,
)
from tinyunet_deploy.errors import ArtifactError

__all__ = [
    "foreign_checkpoint",
    "foreign_model",
    "foreign_plan",
    "not_a_model",
    "require_onnx",
]

_EXPORT: Final = (
    'torch.onnx.export(network.eval(), torch.zeros(1, 3, 512, 512), "NAME.onnx", dynamo=True, '
    "external_data=False)"
)
_CHECKPOINT: Final = (
    "a PyTorch file, which is not opened: it can contain a program",
    f"in Python, beside the code of the network: {_EXPORT}; then tinyunet adopt NAME.onnx",
)
_KERAS: Final = (
    "a Keras file",
    "python -m tf2onnx.convert, from the package tf2onnx; then tinyunet adopt NAME.onnx",
)
_OTHERS: Final = {
    ".pth": _CHECKPOINT,
    ".pt": _CHECKPOINT,
    ".ckpt": _CHECKPOINT,
    ".torchscript": (
        "a TorchScript program, which is not opened: it can run code",
        'in Python: torch.onnx.export(torch.jit.load("FILE"), (torch.zeros(1, 3, 512, 512),), '
        '"NAME.onnx", dynamo=False); then tinyunet adopt NAME.onnx',
    ),
    ".pt2": (
        "a PyTorch program, which is not opened: loading it can run code",
        'in Python: program = torch.export.load("FILE.pt2"); torch.onnx.export(program, (), '
        '"NAME.onnx", dynamo=True, external_data=False); then tinyunet adopt NAME.onnx',
    ),
    ".xml": (
        "an OpenVINO file, which nothing turns back into ONNX",
        "export the network that it was made from to ONNX; then tinyunet adopt NAME.onnx",
    ),
    ".bin": (
        "the weights of an OpenVINO file, or a PyTorch file, which is not opened",
        "export the network that it was made from to ONNX; then tinyunet adopt NAME.onnx",
    ),
    ".h5": _KERAS,
    ".keras": _KERAS,
    ".tflite": (
        "a TensorFlow Lite file",
        "python -m tf2onnx.convert --tflite FILE --output NAME.onnx, from the package tf2onnx; "
        "then tinyunet adopt NAME.onnx",
    ),
}
"""Suffix -> what the file is, and how it becomes ONNX."""


def require_onnx(path: Path) -> None:
    """Check that a file is ONNX by its suffix.

    Raises:
        ArtifactError: it is not; the message says how it becomes ONNX.
    """
    if path.suffix.lower() == ".onnx":
        return
    raise _to_convert(path) or ArtifactError(
        path, "is not an ONNX file by its suffix", "adopt takes a .onnx file"
    )


def not_a_model(path: Path, suffixes: Iterable[str]) -> ArtifactError:
    """Return the error for a model whose suffix is none of ``suffixes``: what next, if known."""
    return _to_convert(path) or ArtifactError(
        path, "is not a model by its suffix", f"known: {' '.join(suffixes)}"
    )


def foreign_checkpoint(path: Path) -> ArtifactError:
    """Return the error for a .safetensors file without a sidecar."""
    what, how = "has no sidecar, so it is not a checkpoint of this package", _CHECKPOINT[1]
    return ArtifactError(path, what, f"for weights of another network {how}")


def foreign_plan(path: Path) -> ArtifactError:
    """Return the error for a TensorRT plan without a sidecar."""
    return ArtifactError(
        path,
        "has no sidecar, so nothing is known about it",
        "--trust-engine takes it as it is; "
        f"tinyunet build MODEL.onnx --output {shlex.quote(str(path))} builds one with a sidecar",
    )


def _to_convert(path: Path) -> ArtifactError | None:
    """Return the error for a file of another framework, by its suffix; None if it is unknown."""
    if path.suffix.lower() not in _OTHERS:
        return None
    what, how = _OTHERS[path.suffix.lower()]
    return ArtifactError(path, f"is {what}", how)


def foreign_model(path: Path, data: bytes) -> ArtifactError:
    """Return the error for an ONNX file without a sidecar: what it takes and gives, what next.

    Args:
        path: of the file, for the error.
        data: its bytes.
    """
    try:
        ends = check_onnx_graph(data, path)
    except ArtifactError as error:
        return error
    if keeps_contract(ends):
        return ArtifactError(
            path,
            "has no sidecar, so nothing is known about it",
            f"--trust-engine takes it as it is; {adopt_command(path)} also tests and describes it",
        )
    return ArtifactError(path, f"has {ends}; expected {CONTRACT_ENDS}", adopt_command(path))
