"""Base class of all backends: one loaded artifact that scores batches."""

from __future__ import annotations

import abc
import contextlib
import importlib.metadata
from collections.abc import Callable, Iterable, Iterator
from typing import ClassVar, NamedTuple, Self

import numpy as np

from tinyunet_deploy.artifacts.sidecar import Artifact
from tinyunet_deploy.backends.device_name import device_type
from tinyunet_deploy.contract import Batch, Contract
from tinyunet_deploy.errors import (
    ArtifactError,
    TinyUNetError,
    lacks_memory,
    unavailable,
)
from tinyunet_deploy.host import processor_count

__all__ = ["Backend", "Run"]


class Run(NamedTuple):
    """Scores and times of one call of a backend."""

    score: Batch
    """uint8 [N, 1, H, W]."""
    device_ms: float
    """Time inside the runtime without copies to and from a device, milliseconds."""
    copy_in_ms: float = 0.0
    """Time to copy the images to the runtime, milliseconds; 0 if it reads them in place."""
    copy_out_ms: float = 0.0
    """Time to copy the scores from the runtime, milliseconds; 0 if it returns the array."""
    enqueue_ms: float | None = None
    """Time of the CPU to hand the batch to a GPU, milliseconds; None if it is not measured."""


class Backend(abc.ABC):
    """One artifact, loaded on one device.

    A backend may be called from any thread, but by one thread at a time.

    Args:
        artifact: the file, whose hash was checked, and its sidecar.
        device: ``cpu`` or ``cuda:N``.

    Raises:
        ArtifactError: the runtime cannot load the file.
        RuntimeUnavailable: the runtime or the device is missing.
    """

    name: ClassVar[str]
    """Name of the backend for ``--backend``."""
    failures: ClassVar[tuple[type[Exception], ...]] = (MemoryError, RuntimeError)
    """Exceptions that the runtime raises when memory or the device fails."""

    def __init__(self, artifact: Artifact, device: str = "cpu") -> None:
        device_type(device)
        self.artifact = artifact
        self.device = device
        self._new_scores: Callable[[Batch], Batch] = np.empty_like

    @property
    def contract(self) -> Contract:
        """Size of the images and scores, and the largest batch."""
        return self.artifact.sidecar.contract

    @property
    def max_batch(self) -> int | None:
        """Largest number of images in a batch; None if only memory limits it."""
        return self.artifact.sidecar.max_batch

    def batch_size(self, wanted: int) -> int:
        """Return the number of images per call: ``wanted``, or ``max_batch`` if that is less."""
        return min(wanted, self.max_batch or wanted)

    @property
    def min_batch(self) -> int:
        """Smallest number of images in a batch: 1, or the minimum of the plan's profile."""
        plan = self.artifact.sidecar.plan
        return 1 if plan is None else plan.profile.min

    @property
    def versions(self) -> dict[str, str]:
        """Package name -> version of each package that computes the scores."""
        return {self.name: importlib.metadata.version(self.name)}

    @property
    def threads(self) -> int | None:
        """Number of threads that compute on the CPU; None on a GPU."""
        return processor_count() if self.device == "cpu" else None

    @property
    def synchronization(self) -> str:
        """Meaning of ``Run.device_ms``, and how the end of that time is determined."""
        return "wall clock of the runtime's call, which returns when the scores are there"

    def run(self, image: Batch) -> Run:
        """Score a batch.

        Args:
            image: uint8 [N, 1, H, W] of the contract's H and W, N up to ``max_batch``.

        Raises:
            ValueError: the array has another dtype or shape.
            ArtifactError: the artifact cannot be run, or its scores have another shape or dtype.
            OutOfMemory: memory does not hold a batch of this size.
            RuntimeUnavailable: the device failed.
        """
        checked = self._checked(image)
        with self._translated_failures():
            run = self._run(checked)
        return self._checked_run(run, checked)

    @contextlib.contextmanager
    def _translated_failures(self) -> Iterator[None]:
        """Turn the runtime's exceptions into the errors that :meth:`run` documents."""
        try:
            yield
        except self.failures as error:
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> TinyUNetError:
        """Return the error for a failure of memory, of the device, or else of the artifact."""
        lines = (str(error).strip() or "out of memory").splitlines()
        reason = lines[-1 if lines[0].startswith("Exception from") else 0].strip()
        if self.device == "cpu" and not lacks_memory(reason):
            return ArtifactError(self.artifact.path, f"{self.name} cannot run it: {reason}")
        return unavailable(self.device, f"{self.name} failed: {reason}")

    def run_many(self, images: Iterable[Batch]) -> Iterator[Run]:
        """Score batches in order; a backend may overlap them.

        A backend that overlaps batches takes up to two from ``images`` before it yields the first
        result.

        Raises:
            ValueError, ArtifactError, RuntimeUnavailable: as in :meth:`run`.
        """
        return map(self.run, images)

    @contextlib.contextmanager
    def scores_into(self, memory: Callable[[Batch], Batch]) -> Iterator[None]:
        """Let scores be put where the caller needs them, if the backend can do that.

        Args:
            memory: takes a batch, and returns an array of its shape and dtype for its scores.
        """
        self._new_scores = memory
        try:
            yield
        finally:
            self._new_scores = np.empty_like

    def score_alone(self, images: Batch) -> Batch:
        """Score each image in its own batch, filled with copies up to the smallest batch.

        Args:
            images: uint8 [N, 1, H, W], any N.

        Returns:
            uint8 [N, 1, H, W].
        """
        copies = [np.repeat(image[None], self.min_batch, axis=0) for image in images]
        return np.concatenate([self.run(batch).score[:1] for batch in copies])

    def _checked(self, image: Batch) -> Batch:
        shape = (1, self.contract.height, self.contract.width)
        if image.dtype != np.uint8 or image.ndim != 4 or image.shape[1:] != shape:
            raise ValueError(
                f"expected uint8 [N, {', '.join(map(str, shape))}], "
                f"got {image.dtype} {list(image.shape)}"
            )
        if not 1 <= len(image) <= (self.max_batch or len(image)):
            raise ValueError(f"expected a batch of 1..{self.max_batch or ''}, got {len(image)}")
        return np.ascontiguousarray(image)

    def _checked_run(self, run: Run, image: Batch) -> Run:
        if run.score.dtype != np.uint8 or run.score.shape != image.shape:
            raise ArtifactError(
                self.artifact.path,
                f"gives {run.score.dtype} {list(run.score.shape)} for "
                f"uint8 {list(image.shape)}; type and shape must be the same",
            )
        return run

    def _check_input(self, shape: Iterable[object]) -> None:
        """Refuse a graph whose input, [N, 1, H, W], is not the one that the sidecar describes."""
        _, *given = map(str, shape)
        if given != ["1", str(self.contract.height), str(self.contract.width)]:
            raise ArtifactError(
                self.artifact.path,
                f"takes images of [N, {', '.join(given)}], but its sidecar says "
                f"{self.contract.height}x{self.contract.width} rows and columns",
            )

    @abc.abstractmethod
    def _run(self, image: Batch) -> Run:
        """Score a batch that keeps the contract."""

    def close(self) -> None:  # noqa: B027  most runtimes free themselves
        """Release memory and device; the backend must not be called afterwards."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
