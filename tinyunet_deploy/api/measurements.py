"""Measure models on labelled images, and compare them with the network they were made from."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from tinyunet_deploy.api.model import Model, StrPath, lend
from tinyunet_deploy.artifacts.packaged import named_model
from tinyunet_deploy.backends.registry import default_model
from tinyunet_deploy.backends.table import BackendChoice
from tinyunet_deploy.host import processor_count
from tinyunet_deploy.quality.dataset_scoring import read_evaluated
from tinyunet_deploy.quality.evaluation import Evaluation
from tinyunet_deploy.quality.evaluation import evaluate as evaluate_dataset
from tinyunet_deploy.quality.parity import Parity, run_parity
from tinyunet_deploy.quality.parity_inputs import find_models
from tinyunet_deploy.quality.parity_limits import LIMITS, read_limits
from tinyunet_deploy.quality.parity_report import write_parity_report
from tinyunet_deploy.quality.stored_scores import StoredScores

__all__ = ["evaluate", "parity"]


def evaluate(
    data: StrPath,
    model: Model | StrPath | None = None,
    *,
    classes: Sequence[int] | None = None,
    split: Literal["train", "val", "test", "all"] | None = None,
    threshold: float | None = None,
    min_area: int | None = None,
    tile: bool = True,
    bits: int | None = None,
    max_pixels: int | None = None,
    misses: StrPath | None = None,
    overlays: StrPath | None = None,
    workers: int | None = None,
    trust_engine: bool = False,
) -> Evaluation:
    """Measure a model on the images of a labelled data set, as ``tinyunet evaluate`` does.

    >>> result = td.evaluate("data")
    >>> result.all.images, result.all.escapes, result.all.overkills
    (2, 0, 0)

    Args:
        data: folder of a data set in one of the layouts of :mod:`tinyunet_deploy.data.layouts`.
        classes: use only these; None uses all.
        split: None takes the test images, or all of a data set without splits.
        misses: folder for a picture of each missed defect; None writes none.
        overlays: folder for a picture of each image with its defects and its truth; None writes
            none.
        model, threshold, min_area, tile, bits, max_pixels, workers, trust_engine: as for
            :func:`inspect`.

    Returns:
        The figures, which :func:`~tinyunet_deploy.quality.evaluation_report.evaluation_json` turns
        into the JSON of the command. Images that cannot be used are in ``skipped``.

    Raises:
        DataError: the data set is damaged, a mask is unusable, or every image is.
        ArtifactError, RuntimeUnavailable, RuntimeError, ValueError: as for :func:`inspect`.
    """
    dataset = read_evaluated(Path(data), classes=classes, split=split)
    with lend(model, trust_engine=trust_engine) as lent:
        return evaluate_dataset(
            dataset,
            lent.backend,
            threshold=lent.threshold if threshold is None else threshold,
            min_area=lent.min_area if min_area is None else min_area,
            batch_size=lent.batch_size,
            workers=workers or processor_count(),
            tile=tile,
            bits=bits,
            max_pixels=max_pixels,
            misses=None if misses is None else Path(misses),
            overlays=None if overlays is None else Path(overlays),
        )


def parity(
    data: StrPath,
    models: StrPath | Sequence[StrPath] | None = None,
    *,
    reference: StrPath | None = None,
    backends: Sequence[BackendChoice] | None = None,
    devices: Sequence[str] = (),
    limits: StrPath | None = None,
    classes: Sequence[int] | None = None,
    threshold: float | None = None,
    min_area: int | None = None,
    tile: bool = True,
    bits: int | None = None,
    max_pixels: int | None = None,
    batch_size: int = 4,
    workers: int | None = None,
    explain: bool = False,
    output: StrPath | None = None,
    trust_engine: bool = False,
) -> Parity:
    """Compare models with the network they were made from, as ``tinyunet parity`` does.

    A broken limit raises no error: read ``outcome`` of each artifact, or call
    :func:`~tinyunet_deploy.quality.parity.require_green`.

    >>> result = td.parity("data", backends=["onnxruntime"])
    >>> [(artifact.model.name, artifact.outcome) for artifact in result.artifacts]
    [('tinyunet.onnx', 'green')]

    Args:
        data: a labelled data set, whose held-out images are used, or any folder of images.
        models: an artifact or a folder of artifacts, or several; None is the package's model.
        reference: model whose scores are taken as correct; None is the first model's checkpoint.
        backends: compare only on these: names, or rows or classes of your own; None is all.
        devices: ``cpu``, ``cuda`` or ``cuda:N``; empty is cuda:0 for a TensorRT plan, else cpu.
        limits: TOML file of limits that replaces the package's.
        batch_size: images per call, and the batch that is verified.
        explain: find the first stage at which each artifact differs from the reference.
        output: folder for parity.json, parity.xml and pictures of the worst images; None writes
            none.
        trust_engine: also take models without a sidecar. The first is then its own reference
            unless another is given, so that only backends are compared.
        classes: as for :func:`evaluate`.
        threshold, min_area, bits: None is the reference's.
        tile, max_pixels, workers: as for :func:`inspect`.

    Returns:
        The comparisons, which :func:`~tinyunet_deploy.quality.parity_report.parity_json` turns into
        the JSON of the command. A comparison that could not run has ``skipped``. The scores are not
        kept.

    Raises:
        ArtifactError: a file is not the one that its sidecar describes.
        DataError: there is no usable image.
        RefusedError: no reference is found, or the models take images of several sizes.
        RuntimeUnavailable: the reference cannot run on this machine.
    """
    if models is None:
        models = default_model()
    named = [models] if isinstance(models, str | os.PathLike) else models
    with StoredScores() as scores:
        result = run_parity(
            find_models(list(map(named_model, named))),
            Path(data),
            scores,
            limits=read_limits(LIMITS if limits is None else Path(limits)),
            reference=None if reference is None else named_model(reference),
            classes=classes,
            backends=backends,
            devices=devices,
            threshold=threshold,
            min_area=min_area,
            tile=tile,
            bits=bits,
            max_pixels=max_pixels,
            batch_size=batch_size,
            workers=workers or processor_count(),
            with_explanation=explain,
            trust_engine=trust_engine,
        )
        if output is not None:
            Path(output).mkdir(parents=True, exist_ok=True)
            write_parity_report(result, Path(output))
    return result
