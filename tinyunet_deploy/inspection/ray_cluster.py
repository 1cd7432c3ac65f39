"""Inspect one input tree with the nodes of a Ray cluster, into one output folder.

Ray Data gives the images to one actor per device, and gives them out again when an actor or a node
is lost. The actors read images and write masks themselves, so input, output and model must be on
storage that all nodes see under the same paths. Only the driver writes the report.
"""

from __future__ import annotations

import importlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from tinyunet_deploy.artifacts.sidecar import kind_of
from tinyunet_deploy.backends.base import Backend
from tinyunet_deploy.backends.device_name import device_type
from tinyunet_deploy.backends.registry import default_model, open_backend
from tinyunet_deploy.backends.table import default_device, find_row
from tinyunet_deploy.data.description_file import described_bits
from tinyunet_deploy.errors import RuntimeUnavailable, TinyUNetError
from tinyunet_deploy.files import sweep_tree
from tinyunet_deploy.inspection.infer import inspect_images
from tinyunet_deploy.inspection.notes import log_notes
from tinyunet_deploy.inspection.outputs import Inspection, Outputs
from tinyunet_deploy.inspection.report_line import ReportLine, RunSummary
from tinyunet_deploy.inspection.resume import Resume
from tinyunet_deploy.inspection.run_report import Report
from tinyunet_deploy.inspection.shards import refuse_shards
from tinyunet_deploy.inspection.walk import common_root, no_images, walk_images

__all__ = ["Loader", "infer_on_ray"]

TASK_IMAGES: Final = 32
"""Number of images that an actor gets at a time; if the actor is lost, they are scored again."""


@dataclass(frozen=True)
class Loader:
    """Arguments of ``open_backend`` with which every node loads the model."""

    model: Path | None = None
    backend: str | None = None
    device: str | None = None
    trust_engine: bool = False
    check: Callable[[Backend], object] | None = None
    """Function that is called with the loaded backend before its first use; it raises an error to
    refuse it."""

    def open(self) -> Backend:
        """Load the model on this node."""
        backend = open_backend(
            self.model, self.backend, self.device, trust_engine=self.trust_engine
        )
        if self.check is not None:
            self.check(backend)
        return backend

    @property
    def on_gpu(self) -> bool:
        """True if the model runs on a GPU; Ray shows each actor its own as ``cuda:0``."""
        row = None if self.backend is None else find_row(self.backend)
        device = self.device or default_device(kind_of(self.model or default_model(row)), row)
        return device_type(device) == "cuda"


def infer_on_ray(
    address: str,
    sources: Sequence[Path],
    output: Path,
    loader: Loader,
    *,
    threshold: float | None,
    min_area: int | None,
    batch_size: int,
    workers: int,
    tile: bool,
    outputs: Outputs,
    bits: int | None = None,
    max_pixels: int | None = None,
    on_line: Callable[[ReportLine], None] | None = None,
    on_total: Callable[[int], None] | None = None,
) -> RunSummary:
    """Write the masks and the report that ``infer`` writes, on a Ray cluster.

    Args:
        address: address of the cluster, ``HOST:6379``, or ``auto`` for the one on this machine.
        sources: image files and folders.
        output: as for ``infer``; a run that stopped is resumed, whichever command began it.
        loader: loads the model on each node.
        threshold: probability in [0, 1]; None takes the one in the sidecar.
        min_area: smallest defect that makes a part NG, pixels; None takes the one in the sidecar.
        batch_size: images per call of a backend.
        workers: threads per actor that decode, and as many that write.
        tile: take images of any size; False skips those that are not of the network's size.
        outputs: optional files beside masks and report.
        bits: depth of 16-bit files, 8..16; None takes the one that a ``dataset.toml`` of the
            sources states, else the one in the sidecar.
        max_pixels: largest accepted height x width of an image; None is 64 megapixels.
        on_line: called with the report line of each image, in the order in which they finish.
        on_total: called once with the number of images that this run will inspect.

    Raises:
        RefusedError: the output folder belongs to another run, or there is no image at all.
        RuntimeUnavailable: Ray is not installed, no cluster answers, or it has no device for the
            model; the disk is full or read-only.
    """
    loader = replace(loader, model=loader.model and loader.model.resolve())
    ray = _connect(address)
    try:
        actors, resources = _devices(ray, address, loader)
        inspection, options = _result_of(
            ray,
            ray.remote(**resources)(_describe).remote(
                loader,
                common_root(sources),
                output.resolve(),
                threshold,
                min_area,
                tile,
                outputs,
                described_bits(sources, bits),
                max_pixels,
            ),
        )
        refuse_shards(output)
        resume = Resume(inspection, lambda: map(inspection.name, walk_images(sources, output)))
        passed_over = Counter[str]()
        with Report(output, options, resume.keep) as report:
            refuse_shards(output)  # check again, now that no shard can begin
            resume.log_faults()
            rows = [
                {"name": os.fsencode(name)}
                for path in walk_images(sources, output, passed_over)
                if (name := inspection.name(path)) not in report
            ]
            if not rows and not report.summary.images:
                raise no_images(inspection.root)
            if on_total:
                on_total(len(rows))
            reported: set[str] = set()
            for line in _lines(
                ray, rows, actors, resources, (loader, resume.inspection, batch_size, workers)
            ):
                if line["path"] not in reported:
                    reported.add(line["path"])
                    report.add(line)
                    if on_line:
                        on_line(line)
            if len(reported) < len(rows):
                raise RuntimeUnavailable(
                    address, f"lost {len(rows) - len(reported)} images", "run it again to resume"
                )
            sweep_tree(output)
            report.finish(passed_over, sort=True)
            log_notes(report.summary.notes)
            return report.summary
    finally:
        ray.shutdown()


def _connect(address: str) -> Any:
    try:
        ray = importlib.import_module("ray")
        importlib.import_module("ray.data")
    except ImportError as error:
        raise RuntimeUnavailable(
            "ray", f"cannot be imported: {error}", "pip install 'tinyunet-deploy[ray]'"
        ) from error
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, RuntimeError, ValueError) as error:
        what = str(error).strip().splitlines()[0]
        raise RuntimeUnavailable(
            address, f"no Ray cluster answers: {what}", "start one: ray start --head"
        ) from error
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    return ray


def _devices(ray: Any, address: str, loader: Loader) -> tuple[int, dict[str, Any]]:
    """Return the number of actors and the resources of each: a GPU, or the CPUs of a node."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    device = "GPU" if loader.on_gpu else "CPU"
    devices = [int(node[device]) for node in nodes if node.get(device, 0) >= 1]
    if not devices:
        raise RuntimeUnavailable(address, f"has no node with a {device}")
    if loader.on_gpu:
        return sum(devices), {"num_gpus": 1}
    return len(devices), {"num_cpus": min(devices), "scheduling_strategy": "SPREAD"}


def _describe(
    loader: Loader,
    root: Path,
    output: Path,
    threshold: float | None,
    min_area: int | None,
    tile: bool,
    outputs: Outputs,
    bits: int | None,
    max_pixels: int | None,
) -> tuple[Inspection, dict[str, Any]]:
    """Return the inspection and the options of the report, as a node computes them."""
    with loader.open() as backend:
        inspection = Inspection.for_backend(
            backend, root, output, threshold, min_area, tile, outputs, bits, max_pixels
        )
        return inspection, inspection.options(backend, "infer")


class _Inspector:
    """Actor with a loaded model on its device."""

    def __init__(
        self, loader: Loader, inspection: Inspection, batch_size: int, workers: int
    ) -> None:
        self._backend = loader.open()
        self._inspection = inspection
        self._batch_size = batch_size
        self._workers = workers

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        lines = inspect_images(
            [self._inspection.root / os.fsdecode(name) for name in batch["name"]],
            self._backend,
            self._inspection,
            batch_size=self._batch_size,
            workers=self._workers,
        )
        return {"line": np.array([json.dumps(line) for line in lines], object)}


def _lines(
    ray: Any,
    rows: list[dict[str, bytes]],
    actors: int,
    resources: dict[str, Any],
    arguments: tuple[Any, ...],
) -> Iterator[ReportLine]:
    """Yield the report lines of all rows, in the order in which they finish."""
    if not rows:
        return
    blocks = -(-len(rows) // TASK_IMAGES)
    data = ray.data.from_items(rows, override_num_blocks=blocks).map_batches(
        _Inspector,
        fn_constructor_args=arguments,
        batch_size=None,
        compute=ray.data.ActorPoolStrategy(size=min(actors, blocks)),
        **resources,
    )
    try:
        for row in data.iter_rows():
            yield json.loads(row["line"])
    except ray.exceptions.RayError as error:
        raise _ours(ray, error) from error


def _result_of(ray: Any, reference: Any) -> Any:
    try:
        return ray.get(reference)
    except ray.exceptions.RayError as error:
        raise _ours(ray, error) from error


def _ours(ray: Any, error: BaseException) -> BaseException:
    """Return the error of this library that Ray wrapped in its own error."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, TinyUNetError) and not isinstance(seen, ray.exceptions.RayError):
            return seen
        seen = getattr(seen, "cause", None) or seen.__cause__
    what = str(error).strip().splitlines()[-1]
    return RuntimeUnavailable("ray", f"failed: {what}", "run it again to resume")
