"""Digests of the images of a run, by which evaluation knows the images that it saw."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from tinyunet_deploy.artifacts.sidecar import read_sidecar
from tinyunet_deploy.quality.dataset_scoring import image_digest
from training.sources import Example, Source, different_sources

__all__ = ["trained_on", "validated_on"]


def trained_on(
    sources: Sequence[Source], init: Path | None, teacher: Path | None
) -> tuple[str, ...]:
    """Return the digests of all images that trained the weights, also those before the run, sorted.

    Args:
        init: checkpoint that the run started from.
        teacher: checkpoint whose scores were learned, and with them what its own images showed.
    """
    before = {d for path in (init, teacher) if path for d in read_sidecar(path).trained_on}
    own = (example for source in different_sources(sources) for example in source.trained)
    return tuple(sorted({*before, *_digests(own)}))


def validated_on(sources: Sequence[Source]) -> tuple[str, ...]:
    """Return the digests of the images that chose the step, threshold and min_area, sorted."""
    own = (example for source in different_sources(sources) for example in source.validation)
    return tuple(sorted(set(_digests(own))))


def _digests(examples: Iterable[Example]) -> Iterable[str]:
    """Yield a digest for each image file; one that is gone when a run ends has none."""
    for example in examples:
        try:
            yield image_digest(example.item.image)
        except OSError:
            continue
