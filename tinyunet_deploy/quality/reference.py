"""Choose the network that artifacts are compared with, on this machine.

The checkpoint in PyTorch is the reference if both are present. A station usually has neither: there
the reference is the float32 ONNX file of the same checkpoint, or else the artifact itself, provided
that it still gives its golden scores, which were stored when it was exported.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from tinyunet_deploy.artifacts.foreign import is_foreign
from tinyunet_deploy.artifacts.lineage import KnownArtifact, lineage, nearby_artifacts
from tinyunet_deploy.artifacts.sidecar import kind_of, read_sidecar
from tinyunet_deploy.backends.base import Backend
from tinyunet_deploy.backends.registry import open_backend
from tinyunet_deploy.backends.table import rows_for, why_not
from tinyunet_deploy.errors import RefusedError
from tinyunet_deploy.quality.self_test import self_test

__all__ = ["Reference", "ReferenceRole", "choose_reference", "open_reference"]

ReferenceRole = Literal["given", "checkpoint", "adopted", "fp32-onnx", "golden-images", "same-file"]
"""Reason why an artifact is the reference: the user named it; it is the checkpoint; it is the
adopted file of a network of another origin; it is the float32 ONNX file of the same checkpoint; or
it is the compared artifact itself, checked on its golden images; or it is the compared artifact
itself, which has no sidecar, so that only backends are compared."""


@dataclass(frozen=True)
class Reference:
    """The artifact whose scores are taken as correct."""

    path: Path
    role: ReferenceRole
    reason: str | None = None
    """Reason why it is not the checkpoint; None if it is, or if the user named it."""

    golden_steps: int | None = None
    """Largest difference from its golden scores on this machine, steps of 1/255; None if it was not
    checked on golden images."""

    def describe(self, backend: str) -> str:
        """Return a description of the reference and of its check, in one line.

        Args:
            backend: name of the backend that runs it.
        """
        text = f"{self.path.name} on {backend}"
        if self.reason is None:
            return text
        what = {
            "fp32-onnx": "the float32 file of the same network",
            "golden-images": "the compared file itself",
            "same-file": "the compared file itself",
        }[self.role]
        if self.role == "same-file":
            return f"{text}, {what}, as {self.reason}; only backends are compared"
        checked = "it has no golden images, so only its sha256 was checked"
        if self.golden_steps is not None:
            checked = f"its golden scores are met within {self.golden_steps} of 255"
        return f"{text}, {what}, as {self.reason}; {checked}"


def choose_reference(
    model: Path,
    given: Path | None = None,
    folders: Sequence[Path] = (),
    *,
    trust_engine: bool = False,
) -> Reference:
    """Choose the reference that an artifact is compared with.

    Args:
        model: the artifact.
        given: the artifact that the user named as the reference.
        folders: folders to search for its relatives, besides its own folder, the recorded places
            and the package.
        trust_engine: a model without a sidecar is its own reference.

    Raises:
        ArtifactError: the sidecar of ``model`` is missing or damaged.
        RefusedError: no possible reference is found.
    """
    if given is not None:
        return Reference(given, "given")
    if trust_engine and is_foreign(model):
        return Reference(model, "same-file", "it has no sidecar")
    links = lineage(model, folders)
    last = links[-1]
    if last.path is not None and kind_of(last.path) == "checkpoint":
        no_torch = _why_no_backend(last.path)
        if no_torch is None:
            return Reference(last.path, "checkpoint")
        reason = f"the checkpoint does not run here ({no_torch})"
    else:
        adopted = read_sidecar(model).adoption is not None
        reason = (
            "an adopted network has no checkpoint" if adopted else "the checkpoint was not found"
        )
        child = adopted and last.sha256 != links[0].sha256
        if child and last.path is not None and _why_no_backend(last.path) is None:
            return Reference(last.path, "adopted")
    relatives = nearby_artifacts(model, folders)
    for link in links:
        if link.path is not None and link.sha256 not in relatives:
            relatives[link.sha256] = KnownArtifact(link.path, read_sidecar(link.path))
    contract = relatives[links[0].sha256].sidecar.contract
    chain = {link.sha256 for link in links}
    for sha256, (path, sidecar) in sorted(relatives.items(), key=lambda item: item[0] not in chain):
        same_size = sidecar.contract.height, sidecar.contract.width
        if (
            (sidecar.kind, sidecar.precision) == ("onnx", "fp32")
            and (sha256 in chain or sidecar.parent == last.sha256)
            and same_size == (contract.height, contract.width)
            and sha256 != links[0].sha256
            and _why_no_backend(path) is None
        ):
            return Reference(path, "fp32-onnx", reason)
    if read_sidecar(model).golden is not None:
        return Reference(model, "golden-images", reason)
    raise RefusedError(
        model,
        f"has nothing to be compared with: {reason}, and there is neither another float32 ONNX "
        "file of it nor golden images",
        "give --reference CHECKPOINT, or --search with its folder",
    )


@contextmanager
def open_reference(
    reference: Reference, size: tuple[int, int], *, trust_engine: bool = False
) -> Iterator[tuple[Reference, Backend]]:
    """Load a reference and, if it stands in for the checkpoint, check it on its golden images.

    Args:
        size: height and width of the images, pixels.
        trust_engine: also load a reference without a sidecar.

    Yields:
        The reference with its ``golden_steps``, and the backend that runs it.

    Raises:
        ArtifactError: it was changed, or does not give its golden scores.
        RefusedError: it does not take images of this size.
        RuntimeUnavailable: it cannot run here.
    """
    with open_backend(reference.path, size=size, trust_engine=trust_engine) as backend:
        if reference.reason is not None and backend.artifact.sidecar.golden is not None:
            reference = replace(reference, golden_steps=self_test(backend).largest_steps)
        yield reference, backend


def _why_no_backend(path: Path) -> str | None:
    """Return the reason why no backend runs an artifact on this machine; None if one does."""
    reasons = [why_not(row) for row in rows_for(kind_of(path), unasked_only=True)]
    return None if None in reasons else "; ".join(filter(None, reasons))
