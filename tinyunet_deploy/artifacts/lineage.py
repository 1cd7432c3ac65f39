"""Lineage: from which artifact another was made, back to the checkpoint."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tinyunet_deploy.artifacts.sidecar import KINDS, MODELS, read_sidecar
from tinyunet_deploy.errors import ArtifactError

__all__ = ["Link", "lineage"]


class Link(NamedTuple):
    """One artifact of a lineage."""

    sha256: str
    path: Path | None
    """Path of the artifact; None if it was not found."""


def lineage(path: Path, folders: Sequence[Path] = ()) -> list[Link]:
    """Return the lineage of an artifact, itself first: plan, ONNX file, checkpoint.

    A sidecar names its parent only by sha256. Parents are searched beside the artifact, in
    ``folders`` and among the models of the package, by their sidecars. A parent that is not found
    is the last link, with the path None.

    Raises:
        ArtifactError: the artifact's own sidecar is missing or damaged.
    """
    sidecar = read_sidecar(path)
    artifacts = {sidecar.sha256: (path, sidecar)}
    for folder in (path.parent, *folders, MODELS):
        for where in sorted(folder.glob("*.json")):
            candidate = where.with_suffix("")
            if candidate.suffix in KINDS and candidate.is_file():
                with contextlib.suppress(ArtifactError):
                    other = read_sidecar(candidate)
                    artifacts.setdefault(other.sha256, (candidate, other))
    links = []
    wanted: str | None = sidecar.sha256
    while wanted is not None:
        parent, known = artifacts.pop(wanted, (None, None))
        links.append(Link(wanted, parent))
        wanted = known.parent if known else None
    return links
