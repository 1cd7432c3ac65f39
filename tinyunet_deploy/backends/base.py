"""What every backend is: one loaded artifact that scores batches."""

from __future__ import annotations

import abc
import contextlib
import importlib.metadata
from collections.abc import Iterable, Iterator
from types import TracebackType
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
    """What one call of a backend gave."""

    score: Batch
    """uint8 [N, 1, H, W]."""
    device_ms: float
    """Time inside the runtime, copies to and from a device left out, milliseconds."""
    copy_in_ms: float = 0.0
    """Copying the images to where the runtime reads them; 0 where it reads them as they are."""
    copy_out_ms: float = 0.0
    """Copying the scores from where the runtime left them."""


class Backend(abc.ABC):
    """One artifact, loaded on one device.

    A backend may be called from any thread, by one at a time.

    Args:
        artifact: the file and its sidecar, its hash checked.
        device: ``cpu`` or ``cuda:N``.

    Raises:
        ArtifactError: the runtime cannot load the file.
        RuntimeUnavailable: the runtime or the device is not here.
    """

    name: ClassVar[str]
    """As in ``--backend``."""
    failures: ClassVar[tuple[type[Exception], ...]] = (MemoryError, RuntimeError)
    """What the runtime raises when memory or the device fails it."""

    def __init__(self, artifact: Artifact, device: str = "cpu") -> None:
        device_type(device)
        self.artifact = artifact
        self.device = device

    @property
    def contract(self) -> Contract:
        """What goes in and out."""
        return self.artifact.sidecar.contract

    @property
    def max_batch(self) -> int | None:
        """Images of the largest batch, None where only memory limits it."""
        return self.artifact.sidecar.max_batch

    def batch_size(self, wanted: int) -> int:
        """Return the number of images per call: as many as wanted, or as many as it takes."""
        return min(wanted, self.max_batch or wanted)

    @property
    def min_batch(self) -> int:
        """Images of the smallest batch: 1, or what the profile of a plan says."""
        plan = self.artifact.sidecar.plan
        return 1 if plan is None else plan.profile.min

    @property
    def versions(self) -> dict[str, str]:
        """Package name -> version of what computes here."""
        return {self.name: importlib.metadata.version(self.name)}

    @property
    def threads(self) -> int | None:
        """Threads that compute on the CPU; None on a GPU."""
        return processor_count() if self.device == "cpu" else None

    @property
    def synchronization(self) -> str:
        """What ``Run.device_ms`` is the time of, and how its end is known."""
        return "wall clock of the runtime's call, which returns when the scores are there"

    def run(self, image: Batch) -> Run:
        """Score a batch.

        Args:
            image: uint8 [N, 1, H, W] of the contract's H and W, N up to ``max_batch``.

        Raises:
            ValueError: not such an array.
            ArtifactError: the artifact cannot be run, or what it gave is no score of the image.
            OutOfMemory: there is no memory for so many images.
            RuntimeUnavailable: the device failed.
        """
        checked = self._checked(image)
        with self._failures_told():
            run = self._run(checked)
        return self._checked_run(run, checked)

    @contextlib.contextmanager
    def _failures_told(self) -> Iterator[None]:
        """What the runtime raises, as what :meth:`run` says it raises."""
        try:
            yield
        except self.failures as error:
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> TinyUNetError:
        """A failure of the runtime: of the memory or the device, or else of the artifact."""
        lines = (str(error).strip() or "out of memory").splitlines()
        reason = lines[-1 if lines[0].startswith("Exception from") else 0].strip()
        if self.device == "cpu" and not lacks_memory(reason):
            return ArtifactError(self.artifact.path, f"{self.name} cannot run it: {reason}")
        return unavailable(self.device, f"{self.name} failed: {reason}")

    def run_many(self, images: Iterable[Batch]) -> Iterator[Run]:
        """Score batches in their order, which a backend may overlap.

        Batches are taken ahead of the results that are given: up to two where copies to a GPU
        overlap computing, or processors take up the next batch one by one.

        Raises:
            ValueError: as ``run`` does.
        """
        return map(self.run, images)

    def score_alone(self, images: Batch) -> Batch:
        """Score each image by itself; where the smallest batch is larger, among copies of it.

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
                f"{image.dtype} {list(image.shape)} given, "
                f"uint8 [N, {', '.join(map(str, shape))}] wanted"
            )
        if not 1 <= len(image) <= (self.max_batch or len(image)):
            raise ValueError(f"batch of {len(image)} given, 1..{self.max_batch or ''} wanted")
        return np.ascontiguousarray(image)

    def _checked_run(self, run: Run, image: Batch) -> Run:
        if run.score.dtype != np.uint8 or run.score.shape != image.shape:
            raise ArtifactError(
                self.artifact.path,
                f"gives {run.score.dtype} {list(run.score.shape)} for "
                f"uint8 {list(image.shape)}, the same was wanted",
            )
        return run

    def _check_input(self, shape: Iterable[object]) -> None:
        """Refuse a graph whose input, [N, 1, H, W], is not the one that the sidecar describes."""
        _, *given = map(str, shape)
        if given != ["1", str(self.contract.height), str(self.contract.width)]:
            raise ArtifactError(
                self.artifact.path,
                f"takes images of [N, {', '.join(given)}], its sidecar says "
                f"{self.contract.height}x{self.contract.width} rows and columns",
            )

    @abc.abstractmethod
    def _run(self, image: Batch) -> Run:
        """Score a batch that keeps the contract."""

    def close(self) -> None:  # noqa: B027  most runtimes free themselves
        """Give memory and device back; the backend is not to be called any more."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
