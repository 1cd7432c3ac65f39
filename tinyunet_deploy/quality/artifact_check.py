"""Check the hashes, the lineage and the answers of an artifact."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from tinyunet_deploy.artifacts.foreign import read_model
from tinyunet_deploy.artifacts.golden import golden_images
from tinyunet_deploy.artifacts.lineage import lineage
from tinyunet_deploy.artifacts.sidecar import read_artifact
from tinyunet_deploy.backends.registry import open_backend
from tinyunet_deploy.errors import RefusedError, TinyUNetError
from tinyunet_deploy.quality.parity_inputs import backends_and_devices
from tinyunet_deploy.quality.self_test import self_test

__all__ = ["ArtifactCheck", "check_artifact"]


class ArtifactCheck(NamedTuple):
    """Outcome of one check."""

    file: str
    """File name, or the first digits of the sha256 of a file that was not found."""
    check: str
    """``sha256``, ``lineage``, ``self-test``, or the backend that ran the self-test."""
    outcome: Literal["ok", "refused", "skipped", "missing", "unchecked"]
    """``unchecked``: a file without a sidecar gives nothing to compare with."""
    detail: str


def check_artifact(
    model: Path,
    folders: Sequence[Path],
    device: str | None = None,
    *,
    trust_engine: bool = False,
) -> Iterator[ArtifactCheck]:
    """Check an artifact and its parents, and run its self-test on the backends that take it.

    Args:
        folders: folders to search for parents, besides the artifact's folder and the package.
        device: ``cpu`` or ``cuda:N``; None takes the device on which each backend runs by default.
        trust_engine: also take a model without a sidecar. Of such a file, the checks only show
            whether it runs, which is no success: their outcome is ``unchecked``.

    Yields:
        The artifact's sha256, each parent, then each backend. A changed artifact ends the checks.
    """
    try:
        artifact = read_model(model, trust_engine=trust_engine)
        if not artifact.has_sidecar:
            yield from _check_foreign(model, device)
            return
        links = lineage(model, folders)
    except RefusedError as error:
        yield ArtifactCheck(model.name, "sha256", "refused", str(error))
        return
    for link in links:
        digits = f"{link.sha256[:12]}..."
        if link.path is None:
            detail = f"{model}: was made from {digits}, which was not found"
            yield ArtifactCheck(digits, "lineage", "missing", detail)
            continue
        try:
            sidecar = read_artifact(link.path).sidecar
        except RefusedError as error:
            yield ArtifactCheck(link.path.name, "sha256", "refused", str(error))
        else:
            detail = f"{sidecar.kind} {sidecar.precision} {digits}"
            yield ArtifactCheck(link.path.name, "sha256", "ok", detail)
    if artifact.sidecar.golden is None:
        yield ArtifactCheck(model.name, "self-test", "missing", f"{model}: has no golden images")
        return
    for row, where in backends_and_devices(model, None, [device] if device else []):
        try:
            with open_backend(model, row, where) as backend:
                result = self_test(backend)
        except RefusedError as error:
            yield ArtifactCheck(model.name, row.name, "refused", str(error))
        except TinyUNetError as error:
            yield ArtifactCheck(model.name, row.name, "skipped", str(error))
        else:
            detail = (
                f"at most {result.largest_steps} steps from the golden scores, "
                f"{result.mean_steps:.2g} on average, in {result.seconds:.2f} s"
            )
            yield ArtifactCheck(model.name, row.name, "ok", detail)


def _check_foreign(model: Path, device: str | None) -> Iterator[ArtifactCheck]:
    """Run a trusted model without a sidecar; nothing is there to compare its bytes or scores."""
    for check, what in (("sha256", "its bytes"), ("lineage", "its lineage")):
        detail = f"{model}: has no sidecar, so {what} cannot be checked"
        yield ArtifactCheck(model.name, check, "unchecked", detail)
    for row, where in backends_and_devices(model, None, [device] if device else []):
        try:
            with open_backend(model, row, where, trust_engine=True) as backend:
                backend.score_alone(golden_images(backend.contract))
        except RefusedError as error:
            yield ArtifactCheck(model.name, row.name, "refused", str(error))
        except TinyUNetError as error:
            yield ArtifactCheck(model.name, row.name, "skipped", str(error))
        else:
            detail = f"{model}: runs on {row.name}, but has no golden scores to compare with"
            yield ArtifactCheck(model.name, row.name, "unchecked", detail)
