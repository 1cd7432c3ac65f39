"""Golden images: test images beside an artifact, with the scores that it must return for them.

``NAME.golden.png`` is one grey picture. Each of its rows is an image of the contract's size and, to
the right, the expected score. The artifact's sidecar has the sha256 of the picture.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from tinyunet_deploy.artifacts.sidecar import Artifact, digest, read_sidecar, write_sidecar
from tinyunet_deploy.contract import Batch, Contract
from tinyunet_deploy.data import synthetic
from tinyunet_deploy.data.decoding import decode_image
from tinyunet_deploy.errors import ArtifactError, ImageError
from tinyunet_deploy.files import read_regular, write_atomic

_AGAIN: Final = (
    "make the model again: python -m export CHECKPOINT --output NAME.onnx in a clone of the "
    "repository; another network's: tinyunet adopt ORIGINAL.onnx -o NAME.onnx"
)
IMAGES: Final = 2
TILE: Final = 64
"""Side of the square textures that an image is composed of, pixels."""


def golden_path(path: Path) -> Path:
    """Return the path of the golden images of the artifact ``path``."""
    return path.with_name(path.name + ".golden.png")


def golden_images(contract: Contract) -> Batch:
    """Draw two images of horizontal bands; each band repeats a texture with one class's defect.

    Repetition keeps the PNG small. The images are drawn once and stored with the artifact, because
    another processor may round them differently.

    Returns:
        uint8 [2, 1, H, W].
    """
    bands = -(-contract.height // TILE)
    repeats = -(-contract.width // TILE)
    images = np.empty((IMAGES, 1, contract.height, contract.width), np.uint8)
    for index in range(IMAGES):
        rows = []
        for band in range(index * bands, (index + 1) * bands):
            class_id = synthetic.CLASSES[band % len(synthetic.CLASSES)]
            sample = synthetic.sample(class_id, band, defective=True)
            assert sample.truth is not None
            corner = np.argwhere(sample.truth).mean(axis=0).astype(int) - TILE // 2
            y, x = np.clip(corner, 0, np.array(sample.image.shape) - TILE)
            tile = sample.image[y : y + TILE, x : x + TILE]
            rows.append(np.tile(tile, (1, repeats)))
        images[index, 0] = np.concatenate(rows)[: contract.height, : contract.width]
    return images


def write_golden(path: Path, score: Callable[[Batch], Batch]) -> None:
    """Write golden images beside the artifact ``path`` and record their sha256 in its sidecar.

    Args:
        path: the artifact; it and its sidecar must exist.
        score: scores uint8 [N, 1, H, W] images of the artifact's size, each image by itself. It is
            the checkpoint in PyTorch for float32, and the artifact itself for a precision that
            rounds differently, such as int8.
    """
    sidecar = read_sidecar(path)
    image = golden_images(sidecar.contract)
    pairs = np.concatenate([image, score(image)], axis=3)
    ok, data = cv2.imencode(
        ".png", pairs[:, 0].reshape(-1, pairs.shape[-1]), [cv2.IMWRITE_PNG_COMPRESSION, 9]
    )
    assert ok
    _put(path, data.tobytes())


def inherit_golden(path: Path, parent: Path) -> None:
    """Copy the golden images of ``parent``, if it has any, to the artifact ``path``."""
    expected = read_sidecar(parent).golden
    if expected is not None:
        _put(path, _read(parent, expected))


def read_golden(artifact: Artifact) -> tuple[Batch, Batch]:
    """Return the golden images of an artifact and their scores, each uint8 [N, 1, H, W].

    Raises:
        ArtifactError: the artifact has no golden images, or their sha256 is not the sidecar's.
    """
    path, contract = golden_path(artifact.path), artifact.sidecar.contract
    if artifact.sidecar.golden is None:
        raise ArtifactError(artifact.path, "has no golden images", _AGAIN)
    data = _read(artifact.path, artifact.sidecar.golden)
    try:
        pairs = decode_image(data, path).reshape(-1, 1, contract.height, 2 * contract.width)
    except (ImageError, ValueError) as error:
        raise ArtifactError(path, "does not fit the artifact's contract") from error
    return pairs[..., : contract.width], pairs[..., contract.width :]


def _read(path: Path, expected: str) -> bytes:
    where = golden_path(path)
    try:
        data = read_regular(where, limit=64 * 1024 * 1024)
    except OSError as error:
        raise ArtifactError(where, f"cannot be read: {error.strerror}") from error
    if digest(data) != expected:
        raise ArtifactError(
            where, f"is not the file that the sidecar of {path.name} describes", _AGAIN
        )
    return data


def _put(path: Path, data: bytes) -> None:
    """Write the images, then the sidecar, so that it never describes a missing file."""
    sidecar = read_sidecar(path)
    write_atomic(golden_path(path), data, durable=True)
    write_sidecar(path, replace(sidecar, golden=digest(data)))
