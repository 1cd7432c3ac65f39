"""Load a model and score images that are in memory."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from tinyunet_deploy.backends.base import Backend
from tinyunet_deploy.backends.registry import open_backend
from tinyunet_deploy.backends.table import BackendChoice
from tinyunet_deploy.contract import Image, Score, defect_mask
from tinyunet_deploy.inspection.defects import Defect, find_defects
from tinyunet_deploy.inspection.inspected_part import inspect_score
from tinyunet_deploy.inspection.notes import log_notes, run_notes

__all__ = ["Model", "StrPath", "lend", "load"]

StrPath = str | os.PathLike[str]
"""A path, as text or as a ``Path``."""


def load(
    model: StrPath | None = None,
    *,
    backend: BackendChoice | None = None,
    device: str | None = None,
    batch_size: int = 4,
    trust_engine: bool = False,
) -> Model:
    """Load a model after checking its hash against its sidecar.

    >>> td.load()
    <Model tinyunet.onnx: fp32, openvino on cpu, threshold 0.9, min_area 64 px>

    Args:
        model: a ``.onnx``, ``.plan`` or ``.safetensors`` file; None is the package's model.
        backend: ``openvino``, ``onnxruntime``, ``torch``, ``tensorrt`` or
            ``onnxruntime-tensorrt``, or a :class:`~tinyunet_deploy.backends.base.Backend` class or
            row of your own; None takes the first installed one that can run the file.
        device: ``cpu`` or ``cuda:N``; None is the first GPU for a TensorRT plan, else the CPU.
        batch_size: images per call of the backend; reduced to what the model accepts.
        trust_engine: load a model that has no sidecar. A TensorRT plan can run any code; an ONNX
            file is first tried in a separate process.

    Raises:
        ArtifactError: the file is missing, was changed, or cannot be loaded.
        RefusedError: the backend does not run this kind of file.
        RuntimeUnavailable: no runtime for it is installed, or the device is not available.
        ValueError: ``batch_size`` is less than 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size {batch_size} is not a positive number")
    path = None if model is None else Path(model)
    return Model(open_backend(path, backend, device, trust_engine=trust_engine), batch_size)


class Model:
    """A loaded model: images in, scores out.

    It may be called from any thread; calls wait for each other.

    >>> with td.load() as model:
    ...     scores = model([td.read_image("photos/0.png"), td.read_image("photos/1.png")])
    >>> scores.shape, scores.dtype
    ((2, 512, 512), dtype('uint8'))

    Args:
        backend: a loaded backend, which runs the model.
        batch_size: images per call of the backend; reduced to what the model accepts.
    """

    threshold: float
    """Probability in [0, 1] above which a pixel is a defect: the sidecar's, until it is set."""
    min_area: int
    """Smallest defect that makes a part NG, pixels: the sidecar's, until it is set."""

    def __init__(self, backend: Backend, batch_size: int = 4) -> None:
        self._highest_score = 0
        self.backend = backend
        self.batch_size = backend.batch_size(batch_size)
        self.threshold, self.min_area = backend.artifact.sidecar.decision()
        self._calls = threading.Lock()
        self._lent = False

    def __repr__(self) -> str:
        artifact = self.backend.artifact
        return (
            f"<Model {artifact.path.name}: {artifact.sidecar.precision}, {self.backend.name} on "
            f"{self.backend.device}, threshold {self.threshold:g}, min_area {self.min_area} px>"
        )

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of an image, pixels."""
        return self.backend.contract.height, self.backend.contract.width

    def __call__(
        self, images: NDArray[np.uint8] | Sequence[NDArray[np.uint8]]
    ) -> NDArray[np.uint8]:
        """Score any number of images.

        >>> model([])
        array([], shape=(0, 512, 512), dtype=uint8)

        Args:
            images: uint8 [N, H, W] or [N, 1, H, W], raw grey values, or a sequence of [H, W];
                H and W are :attr:`size`. An empty sequence gives an empty array.

        Returns:
            uint8 of the shape of ``images``: defect probability x 255, rounded.

        Raises:
            ValueError: the images have another dtype or shape.
            RuntimeError: the model is in use by an unfinished :func:`inspect`.
            RuntimeUnavailable: the device is lost or its memory is full.
        """
        given = _stacked(images, self.size)
        batch = given[:, None] if given.ndim == 3 else given
        starts = range(0, len(batch), self.batch_size)
        with self._calls:
            self._require_free()
            runs = self.backend.run_many(batch[start : start + self.batch_size] for start in starts)
            scores = [run.score for run in runs]
        self._highest_score = max([self._highest_score, *(int(score.max()) for score in scores)])
        return np.concatenate(scores).reshape(given.shape) if scores else np.empty_like(given)

    def masks(self, scores: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the masks of scores: uint8 {0, 255} of the same shape; 255 is a defect."""
        return defect_mask(scores, self.threshold)

    def defects(self, scores: NDArray[np.uint8]) -> list[list[Defect]]:
        """Return the defects of each image, the largest first; a part without defects is good.

        Args:
            scores: uint8 [N, H, W] or [N, 1, H, W], as calling the model returns them.
        """
        planes = scores[:, 0] if scores.ndim == 4 else scores
        return [find_defects(score, self.threshold, self.min_area) for score in planes]

    def overlay(self, image: Image, score: Score | None = None) -> NDArray[np.uint8]:
        """Return the picture that ``infer --overlays`` writes: defects, and a caption below.

        >>> image = td.read_image("photos/0.png")
        >>> model.overlay(image).shape
        (548, 512, 3)

        Args:
            image: uint8 [H, W], raw grey values.
            score: uint8 [H, W], if the image has been scored already; None scores it.

        Returns:
            uint8 [H + caption, W, 3], BGR as OpenCV has it; ``[..., ::-1]`` is RGB.

        Raises:
            ValueError: the image has another dtype or shape.
        """
        if score is None:
            score = self(image[None])[0]
        part = inspect_score(
            Path("image"), "image", image, score, threshold=self.threshold, min_area=self.min_area
        )
        return part.overlay()

    def close(self) -> None:
        """Release memory and device; the model must not be called afterwards.

        Logs a note if no score of all calls was above 1, as of a model that gives labels.
        """
        log_notes(run_notes(self._highest_score, approximate=0, padded=0, tiled=0))
        self._highest_score = 0
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

    def _require_free(self) -> None:
        if self._lent:
            raise RuntimeError(
                "the model is in use by an unfinished inspection: its parts have score and "
                "overlay(); close() the inspection, or load the model again, to score others"
            )

    @contextlib.contextmanager
    def _lend(self) -> Iterator[Self]:
        """Give the backend to one user at a time, as only one thread at a time may call it."""
        with self._calls:
            self._require_free()
            self._lent = True
        try:
            yield self
        finally:
            self._lent = False


@contextlib.contextmanager
def lend(model: Model | StrPath | None) -> Iterator[Model]:
    """Yield a model for one user at a time; a model that is given as a file is loaded and closed.

    Raises:
        ArtifactError, RefusedError, RuntimeUnavailable: as for :func:`load`.
        RuntimeError: the model is in use by an unfinished inspection.
    """
    if isinstance(model, Model):
        with model._lend():
            yield model
    else:
        with load(model) as loaded, loaded._lend():
            yield loaded


def _stacked(
    images: NDArray[np.uint8] | Sequence[NDArray[np.uint8]], size: tuple[int, int]
) -> NDArray[np.uint8]:
    """Return images as one array [N, H, W] or [N, 1, H, W]."""
    if len(images) == 0 and not isinstance(images, np.ndarray):
        return np.empty((0, *size), np.uint8)
    expected = f"expected uint8 [N, {size[0]}, {size[1]}]"
    try:
        given = np.asarray(images)
    except ValueError:
        shapes = sorted({str(list(np.shape(image))) for image in images})
        raise ValueError(f"{expected}, got images of {' and '.join(shapes)}") from None
    if given.ndim not in (3, 4):
        raise ValueError(f"{expected}, got {given.dtype} {list(given.shape)}")
    return given
