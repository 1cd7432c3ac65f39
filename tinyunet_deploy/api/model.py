"""Load a model and score images that are in memory."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self, overload

import numpy as np
from numpy.typing import NDArray

from tinyunet_deploy.artifacts.packaged import named_model
from tinyunet_deploy.artifacts.sidecar import kind_of
from tinyunet_deploy.backends.base import Backend
from tinyunet_deploy.backends.compute_choice import computing
from tinyunet_deploy.backends.registry import open_backend
from tinyunet_deploy.backends.table import BackendChoice, Compute
from tinyunet_deploy.contract import Image, Score, defect_mask
from tinyunet_deploy.inspection.defects import Defect, find_defects
from tinyunet_deploy.inspection.inspected_part import inspect_score
from tinyunet_deploy.inspection.notes import ScoreTally, log_notes
from tinyunet_deploy.inspection.scoring import LEAST_SIDE, score_decoded

__all__ = ["Model", "StrPath", "lend", "load"]

StrPath = str | os.PathLike[str]
"""A path, as text or as a ``Path``."""


def load(
    model: StrPath | None = None,
    *,
    backend: BackendChoice | None = None,
    device: str | None = None,
    compute: Compute | None = None,
    batch_size: int = 4,
    trust_engine: bool = False,
) -> Model:
    """Load a model after checking its hash against its sidecar.

    >>> td.load()
    <Model tinyunet.onnx: fp32, openvino on cpu, threshold 0.9, min_area 64 px>

    Args:
        model: a ``.onnx``, ``.plan`` or ``.safetensors`` file, or the name of a model in the
            package, such as ``"tiny"``, which is the default.
        backend: ``openvino``, ``onnxruntime``, ``torch``, ``tensorrt`` or
            ``onnxruntime-tensorrt``, or a :class:`~tinyunet_deploy.backends.base.Backend` class or
            row of your own; None takes the first installed one that can run the file.
        device: ``cpu`` or ``cuda:N``; None is the first GPU for a TensorRT plan, else the CPU.
        compute: ``bf16`` or ``fp16`` computes a float32 file in that number type: an ONNX file
            with OpenVINO on a CPU that has it, a checkpoint with PyTorch on a GPU; None computes
            in the file's own precision.
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
    path = None if model is None else named_model(model)
    chosen = computing(backend, compute, None if path is None else kind_of(path), device)
    return Model(open_backend(path, chosen, device, trust_engine=trust_engine), batch_size)


class Model:
    """A loaded model: images in, scores out.

    Images may have any size: one smaller than :attr:`size` is padded by mirroring, a larger one is
    scored in overlapping tiles (:mod:`tinyunet_deploy.data.tiles`).

    The model may be called from any thread; calls wait for each other.

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
        self._tally = ScoreTally()
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
        """Height and width of the network's images, pixels."""
        return self.backend.contract.height, self.backend.contract.width

    @overload
    def __call__(self, images: NDArray[np.uint8], *, tile: bool = True) -> NDArray[np.uint8]: ...

    @overload
    def __call__(
        self, images: Sequence[NDArray[np.uint8]], *, tile: bool = True
    ) -> NDArray[np.uint8] | list[NDArray[np.uint8]]: ...

    def __call__(
        self, images: NDArray[np.uint8] | Sequence[NDArray[np.uint8]], *, tile: bool = True
    ) -> NDArray[np.uint8] | list[NDArray[np.uint8]]:
        """Score any number of images of any size.

        >>> model([])
        array([], shape=(0, 512, 512), dtype=uint8)
        >>> image = td.read_image("photos/0.png")
        >>> [score.shape for score in model([image, image[:200, :90]])]
        [(512, 512), (200, 90)]

        Args:
            images: uint8 [N, H, W] or [N, 1, H, W], raw grey values, or a sequence of [H, W], which
                may have different sizes; H and W of 16 pixels at least. An empty sequence gives an
                empty array.
            tile: False refuses images that are not of :attr:`size`.

        Returns:
            uint8 of the shape of ``images``: defect probability x 255, rounded. A sequence of
            images of different sizes gives a list of [H, W].

        Raises:
            ValueError: the images have another dtype or shape.
            RuntimeError: the model is in use by an unfinished :func:`inspect`.
            RuntimeUnavailable: the device is lost or its memory is full.
        """
        given = _given(images, self.size, tile)
        if isinstance(given, np.ndarray) and given.shape[-2:] == self.size:
            return self._score_whole(given)
        planes = given.reshape(-1, *given.shape[-2:]) if isinstance(given, np.ndarray) else given
        scores = []
        with self._calls:
            self._require_free()
            for scored in score_decoded(planes, self.backend, batch_size=self.batch_size):
                assert scored.score is not None
                self._tally.add(scored)
                scores.append(scored.score)
        if isinstance(given, list):
            return scores
        return np.stack(scores).reshape(given.shape) if scores else np.empty_like(given)

    def _score_whole(self, given: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Score images of the network's size, [N, H, W] or [N, 1, H, W]."""
        batch = given[:, None] if given.ndim == 3 else given
        starts = range(0, len(batch), self.batch_size)
        with self._calls:
            self._require_free()
            runs = self.backend.run_many(batch[start : start + self.batch_size] for start in starts)
            scores = [run.score for run in runs]
        highest = [self._tally.highest_score, *(int(score.max()) for score in scores)]
        self._tally.highest_score = max(highest)
        self._tally.whole += len(batch)
        return np.concatenate(scores).reshape(given.shape) if scores else np.empty_like(given)

    @overload
    def masks(self, scores: NDArray[np.uint8]) -> NDArray[np.uint8]: ...

    @overload
    def masks(self, scores: list[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]: ...

    def masks(
        self, scores: NDArray[np.uint8] | list[NDArray[np.uint8]]
    ) -> NDArray[np.uint8] | list[NDArray[np.uint8]]:
        """Return the masks of scores: uint8 {0, 255} of the same shape; 255 is a defect.

        A list of scores gives a list of masks.

        Raises:
            ValueError: the scores have another dtype.
        """
        if isinstance(scores, list):
            return [defect_mask(_checked_score(score), self.threshold) for score in scores]
        return defect_mask(_checked_score(scores), self.threshold)

    def defects(
        self, scores: NDArray[np.uint8] | Sequence[NDArray[np.uint8]]
    ) -> list[list[Defect]]:
        """Return the defects of each image, the largest first; a part without defects is good.

        Args:
            scores: uint8 [N, H, W], [N, 1, H, W] or a list of [H, W], as calling the model returns
                them.

        Raises:
            ValueError: the scores have another dtype or shape.
        """
        if isinstance(scores, np.ndarray) and scores.ndim == 4 and scores.shape[1] == 1:
            scores = scores[:, 0]
        planes = [_checked_score(score, dimensions=2) for score in scores]
        return [find_defects(score, self.threshold, self.min_area) for score in planes]

    def overlay(self, image: Image, score: Score | None = None) -> NDArray[np.uint8]:
        """Return the picture that ``infer --overlays`` writes: defects, and a caption below.

        >>> image = td.read_image("photos/0.png")
        >>> model.overlay(image).shape
        (548, 512, 3)

        Args:
            image: uint8 [H, W], raw grey values, of any size.
            score: uint8 [H, W], if the image has been scored already; None scores it.

        Returns:
            uint8 [H + caption, W, 3], BGR as OpenCV has it; ``[..., ::-1]`` is RGB.

        Raises:
            ValueError: the image or the score has another dtype or shape, or they differ in size.
        """
        image = np.asarray(image)
        if image.ndim != 2:
            raise ValueError(f"expected an image of uint8 [H, W], got {_form(image)}")
        _check_image(image.dtype, image.shape, "expected an image of uint8 [H, W]")
        if score is None:
            score = self(image[None])[0]
        elif _checked_score(score, dimensions=2).shape != image.shape:
            raise ValueError(f"expected a score of {_form(image)}, the image's, got {_form(score)}")
        part = inspect_score(
            Path("image"), "image", image, score, threshold=self.threshold, min_area=self.min_area
        )
        return part.overlay()

    def close(self) -> None:
        """Release memory and device; the model must not be called afterwards.

        Logs notes on the scores of all calls, as ``tinyunet infer`` does at its end: none was above
        1, images had another size, or tiles only approximate the whole image.
        """
        log_notes(self._tally.notes)
        self._tally = ScoreTally()
        self.backend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
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
def lend(model: Model | StrPath | None, *, trust_engine: bool = False) -> Iterator[Model]:
    """Yield a model for one user at a time; a model that is given as a file is loaded and closed.

    Raises:
        ArtifactError, RefusedError, RuntimeUnavailable: as for :func:`load`.
        RuntimeError: the model is in use by an unfinished inspection.
    """
    if isinstance(model, Model):
        with model._lend():
            yield model
    else:
        with load(model, trust_engine=trust_engine) as loaded, loaded._lend():
            yield loaded


def _given(
    images: NDArray[np.uint8] | Sequence[NDArray[np.uint8]], size: tuple[int, int], tile: bool
) -> NDArray[np.uint8] | list[NDArray[np.uint8]]:
    """Return images of one size as an array [N, H, W] or [N, 1, H, W], and others as a list.

    Raises:
        ValueError: they are not images, or not of ``size`` although ``tile`` is False.
    """
    if len(images) == 0 and not isinstance(images, np.ndarray):
        return np.empty((0, *size), np.uint8)
    expected = "expected uint8 [N, H, W] or images of [H, W]"
    if not tile:
        expected = f"expected uint8 [N, {size[0]}, {size[1]}]"
    if not isinstance(images, np.ndarray):
        shapes = sorted({np.shape(image) for image in images})
        if len(shapes) > 1:
            if not tile or any(len(shape) != 2 for shape in shapes):
                got = " and ".join(str(list(shape)) for shape in shapes)
                raise ValueError(f"{expected}, got images of {got}")
            mixed = [np.asarray(image) for image in images]
            for image in mixed:
                _check_image(image.dtype, image.shape, expected)
            return mixed
    given = np.asarray(images)
    if given.ndim not in (3, 4) or (given.ndim == 4 and given.shape[1] != 1):
        raise ValueError(f"{expected}, got {given.dtype} {list(given.shape)}")
    if not tile and given.shape[-2:] != size:
        raise ValueError(f"{expected}, got {given.dtype} {list(given.shape)}")
    _check_image(given.dtype, given.shape, expected)
    return given


def _checked_score(score: NDArray[np.uint8], dimensions: int | None = None) -> NDArray[np.uint8]:
    """Return a score that is checked: a fraction or a mask of bools is below every threshold.

    Raises:
        ValueError: it is not uint8, or does not have this number of dimensions.
    """
    if not isinstance(score, np.ndarray) or score.dtype != np.uint8:
        raise ValueError(
            f"expected scores of uint8, probability x 255, got {_form(np.asarray(score))}"
        )
    if dimensions not in (None, score.ndim):
        raise ValueError(f"expected uint8 [N, H, W] or scores of [H, W], got {_form(score)}")
    return score


def _form(array: NDArray[Any]) -> str:
    return f"{array.dtype} {list(array.shape)}"


def _check_image(dtype: np.dtype[Any], shape: tuple[int, ...], expected: str) -> None:
    if dtype != np.uint8:
        raise ValueError(f"{expected}, got {dtype} {list(shape)}")
    if min(shape[-2:]) < LEAST_SIDE:
        what = f"which has fewer than {LEAST_SIDE} pixels on a side"
        raise ValueError(f"{expected}, got {dtype} {list(shape)}, {what}")
