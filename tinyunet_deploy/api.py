"""Use a model from Python in five lines, on any backend; :mod:`tinyunet_deploy` shows them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from tinyunet_deploy.backends.base import Backend
from tinyunet_deploy.backends.registry import open_backend
from tinyunet_deploy.backends.table import BackendRow
from tinyunet_deploy.contract import defect_mask
from tinyunet_deploy.inspection.defects import Defect, find_defects

__all__ = ["Model", "load"]


def load(
    model: str | os.PathLike[str] | None = None,
    *,
    backend: str | BackendRow | type[Backend] | None = None,
    device: str | None = None,
    batch_size: int = 4,
) -> Model:
    """Load a model, its hash checked against its sidecar.

    Args:
        model: a ``.onnx``, ``.plan`` or ``.safetensors`` file; None is the model in the package.
        backend: ``openvino``, ``onnxruntime``, ``torch``, ``tensorrt`` or
            ``onnxruntime-tensorrt``, or a :class:`~tinyunet_deploy.backends.base.Backend` class or
            row of your own; None takes the first that is installed and fits the file.
        device: ``cpu`` or ``cuda:N``; None is the first GPU for a TensorRT plan, else the CPU.
        batch_size: images that are run at once; cut to what the model takes.

    Raises:
        ArtifactError: the file is missing, changed or cannot be loaded.
        RuntimeUnavailable: no runtime for it is installed, or the device is not here.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size {batch_size} is not a positive number")
    return Model(
        open_backend(Path(model) if model is not None else None, backend, device), batch_size
    )


class Model:
    """A loaded model: images in, scores out.

    May be called from any thread, by one at a time. ``threshold`` and ``min_area`` are those of the
    model's sidecar and may be set to others.

    Args:
        backend: what runs it.
        batch_size: images that are run at once.
    """

    threshold: float
    """Probability in [0, 1] over which a pixel is a defect."""
    min_area: int
    """Pixels that a defect must have."""

    def __init__(self, backend: Backend, batch_size: int = 4) -> None:
        self.backend = backend
        self.batch_size = backend.batch_size(batch_size)
        self.threshold, self.min_area = backend.artifact.sidecar.decision()

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of an image, pixels."""
        return self.backend.contract.height, self.backend.contract.width

    def __call__(
        self, images: NDArray[np.uint8] | Sequence[NDArray[np.uint8]]
    ) -> NDArray[np.uint8]:
        """Score images, any number of them.

        Args:
            images: uint8 [N, H, W] or [N, 1, H, W], raw grey values, or a sequence of [H, W];
                H and W are ``size``.

        Returns:
            uint8 of the shape of ``images``: defect probability x 255, rounded.

        Raises:
            ValueError: not such images.
            RuntimeUnavailable: the device is lost or its memory is full.
        """
        given = np.asarray(images)
        if given.ndim not in (3, 4):
            raise ValueError(
                f"{given.dtype} {list(given.shape)} given, "
                f"uint8 [N, {self.size[0]}, {self.size[1]}] wanted"
            )
        batch = given[:, None] if given.ndim == 3 else given
        starts = range(0, len(batch), self.batch_size)
        runs = self.backend.run_many(batch[start : start + self.batch_size] for start in starts)
        scores = [run.score for run in runs]
        return np.concatenate(scores).reshape(given.shape) if scores else np.empty_like(given)

    def masks(self, scores: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the masks, uint8 {0, 255} of the shape of ``scores``; 255 is a defect."""
        return defect_mask(scores, self.threshold)

    def defects(self, scores: NDArray[np.uint8]) -> list[list[Defect]]:
        """Return the defects of each image, largest first; a part without defects is good.

        Args:
            scores: uint8 [N, H, W] or [N, 1, H, W], as calling the model gives them.
        """
        planes = scores[:, 0] if scores.ndim == 4 else scores
        return [find_defects(score, self.threshold, self.min_area) for score in planes]

    def close(self) -> None:
        """Release memory and device; the model must not be called any more."""
        self.backend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
