"""The threshold workbench: score a folder with truth once, choose, and write the choice down."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tinyunet_deploy import __version__
from tinyunet_deploy.artifacts.golden import inherit_golden
from tinyunet_deploy.artifacts.sidecar import (
    Artifact,
    read_artifact,
    sidecar_path,
    write_artifact,
    write_sidecar,
)
from tinyunet_deploy.backends.base import Backend
from tinyunet_deploy.contract import Image, Score
from tinyunet_deploy.data.dataset import Dataset, Item
from tinyunet_deploy.errors import DataError, GateFailed, ImageError, RefusedError
from tinyunet_deploy.files import json_value
from tinyunet_deploy.inspection.drawing import draw_svg
from tinyunet_deploy.quality.evaluation import image_digest, measure_images
from tinyunet_deploy.quality.metrics import clopper_pearson_upper
from tinyunet_deploy.quality.threshold_sweep import (
    ESCAPE_COST,
    THRESHOLDS,
    Choice,
    Sweep,
    largest_defects,
    sweep,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SCHEMA_VERSION: Final = 1
RESULT: Final = "tune.json"
CURVE: Final = "tune.svg"


@dataclass(frozen=True)
class Rule:
    """How a pair of threshold and min_area is chosen: by cost, or by a target escape rate."""

    escape_cost: float = ESCAPE_COST
    """Overkills that one escape is worth."""
    max_escape_rate: float | None = None
    """If given, this decides: the fewest overkills of the pairs whose escape rate is at most this
    with ``confidence``."""
    confidence: float = 0.95

    def __str__(self) -> str:
        if self.max_escape_rate is None:
            return f"least cost, escape : overkill = {self.escape_cost:g} : 1"
        return (
            f"fewest overkills, escape rate at most {self.max_escape_rate:g} "
            f"with {self.confidence:g} confidence"
        )


@dataclass(frozen=True)
class Tuning:
    """What a sweep found, and what was chosen."""

    dataset: Dataset
    artifact: Artifact
    backend: str
    rule: Rule
    sweep: Sweep
    chosen: Choice
    before: Choice
    """Where the artifact was run until now."""
    images: tuple[str, ...]
    """Digest of each image that was used, sorted."""
    skipped: dict[Path, ImageError]

    def bounds(self, choice: Choice) -> dict[str, float]:
        """The rates of a choice and their one-sided bounds (Clopper & Pearson 1934)."""
        fields = {}
        for name, events, trials in (
            ("escape_rate", choice.escapes, self.sweep.defective),
            ("overkill_rate", choice.overkills, self.sweep.good),
        ):
            fields[name] = events / trials if trials else math.nan
            fields[f"{name}_upper"] = clopper_pearson_upper(events, trials, self.rule.confidence)
        return fields

    def as_json(self) -> str:
        """The text of ``tune.json``: the choice, the curve, and the whole table."""

        def described(choice: Choice) -> dict[str, Any]:
            return {**dataclasses.asdict(choice), **self.bounds(choice)}

        fields = {
            "schema_version": SCHEMA_VERSION,
            "tinyunet_deploy": __version__,
            "model": {
                "name": self.artifact.path.name,
                "sha256": self.artifact.sidecar.sha256,
                "precision": self.artifact.sidecar.precision,
            },
            "backend": self.backend,
            "dataset": {"name": self.dataset.root.resolve().name, "images": list(self.images)},
            "images": len(self.images),
            "defective": self.sweep.defective,
            "good": self.sweep.good,
            "skipped": [
                {"name": path.name, "reason": error.reason, "what": error.what}
                for path, error in self.skipped.items()
            ],
            "rule": {"text": str(self.rule), **dataclasses.asdict(self.rule)},
            "chosen": described(self.chosen),
            "before": described(self.before),
            "curve": [described(choice) for choice in self.sweep.best_for_each_escape_count()],
            "table": {
                "thresholds": self.sweep.thresholds,
                "min_areas_px": self.sweep.min_areas,
                "escapes": self.sweep.escapes.tolist(),
                "overkills": self.sweep.overkills.tolist(),
            },
        }
        return json.dumps(json_value(fields), indent=2, allow_nan=False) + "\n"


class _Measured(NamedTuple):
    digest: str
    defective: bool
    largest_px: list[int]
    """At each threshold, and last at the artifact's own."""


def tune(
    dataset: Dataset,
    backend: Backend,
    rule: Rule = Rule(),
    *,
    batch_size: int,
    workers: int,
    tile: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Tuning:
    """Score every image of a data set once, try every threshold and min_area, and choose.

    Args:
        dataset: validation images with truth; what they choose is no test on them.
        tile: take images larger than the network's, too, and run them in overlapping tiles.
        progress: takes the number of images that are newly finished.

    Raises:
        DataError: no image is usable, none is defective, or none is good.
        GateFailed: no pair keeps the target escape rate.
    """
    artifact = backend.artifact
    own = artifact.sidecar
    thresholds = (*THRESHOLDS, own.threshold)

    def measure(item: Item, _: Image, score: Score) -> _Measured:
        sizes = largest_defects(score, thresholds)
        return _Measured(image_digest(item.image), item.defective, sizes)

    measured, skipped = measure_images(
        dataset,
        backend,
        measure,
        batch_size=batch_size,
        workers=workers,
        tile=tile,
        progress=progress,
    )
    defective = [image.defective for image in measured]
    for missing, what in ((not any(defective), "defective"), (all(defective), "good")):
        if missing:
            raise DataError(dataset.root, f"has no {what} image, so nothing can be chosen")
    found = sweep([image.largest_px[:-1] for image in measured], defective)
    at_own = sweep(
        [image.largest_px[-1:] for image in measured], defective, [own.threshold], [own.min_area]
    )
    return Tuning(
        dataset=dataset,
        artifact=artifact,
        backend=backend.name,
        rule=rule,
        sweep=found,
        chosen=_choose(found, rule, dataset.root),
        before=at_own.at(0, 0),
        images=tuple(sorted(image.digest for image in measured)),
        skipped=skipped,
    )


def _choose(found: Sweep, rule: Rule, where: Path) -> Choice:
    if rule.max_escape_rate is None:
        return found.cheapest(rule.escape_cost)
    chosen = found.within(rule.max_escape_rate, rule.confidence)
    if chosen is None:
        fewest = int(found.escapes.min())
        bound = clopper_pearson_upper(fewest, found.defective, rule.confidence)
        least = math.ceil(math.log(1 - rule.confidence) / math.log1p(-rule.max_escape_rate))
        raise GateFailed(
            where,
            f"{fewest} of {found.defective} missed shows an escape rate of {bound:.3g} at best, "
            f"{rule.max_escape_rate:g} is wanted",
            f"none of {least} defective parts missed would show it",
        )
    return chosen


def write_tuned(tuning: Tuning, path: Path) -> None:
    """Write the choice into the sidecar of ``path``, a copy of the model or the model itself.

    The model's bytes, and so its place in the lineage, stay as they are. The sidecar notes the
    rule, the counts, what was replaced, and the digest of every image that chose.

    Args:
        path: where the model is, or where a copy of it goes, beside its golden images.

    Raises:
        RefusedError: the model was changed meanwhile, or another file is at ``path``.
    """
    own = tuning.artifact.sidecar
    note = {
        "rule": str(tuning.rule),
        "replaced": {"threshold": own.threshold, "min_area": own.min_area},
        "defective": tuning.sweep.defective,
        "good": tuning.sweep.good,
        "escapes": tuning.chosen.escapes,
        "overkills": tuning.chosen.overkills,
        **tuning.bounds(tuning.chosen),
        "images": list(tuning.images),
    }
    sidecar = dataclasses.replace(
        own,
        threshold=tuning.chosen.threshold,
        min_area=tuning.chosen.min_area,
        origin={**own.origin, "tuned": note},
    )
    if path.exists() or sidecar_path(path).exists():
        if read_artifact(path).sidecar.sha256 != own.sha256:
            raise RefusedError(path, "is another model already", "give another -o")
        write_sidecar(path, sidecar)
        return
    write_artifact(path, tuning.artifact.data, dataclasses.replace(sidecar, golden=None))
    inherit_golden(path, tuning.artifact.path)


def draw_curve(tuning: Tuning) -> bytes | None:
    """An SVG: the cost of every pair with the choice in it, and escapes against overkills.

    None where matplotlib is not installed.
    """
    return draw_svg(9.5, 3.8, lambda figure: _draw_curve(figure, tuning))


def _draw_curve(figure: Figure, tuning: Tuning) -> None:
    from matplotlib.ticker import LogLocator, MaxNLocator

    found, chosen = tuning.sweep, tuning.chosen
    cost = tuning.rule.escape_cost * found.escapes + found.overkills
    table, curve = figure.subplots(1, 2, width_ratios=(3, 2))
    shown = table.imshow(cost.T + 1, norm="log", origin="lower", aspect="auto", cmap="cividis")
    figure.colorbar(
        shown,
        ax=table,
        label=f"1 + {tuning.rule.escape_cost:g} x escapes + overkills",
        ticks=LogLocator(subs=(1.0, 2.0, 5.0)),
        format="{x:g}",
    ).minorticks_off()
    columns = range(0, len(found.thresholds), 7)
    table.set_xticks(columns, [f"{found.thresholds[at]:g}" for at in columns])
    rows = range(0, len(found.min_areas), 3)
    table.set_yticks(rows, [f"{found.min_areas[at]}" for at in rows])
    table.set(xlabel="threshold", ylabel="min_area, px", title="cost of every pair")
    table.plot(
        found.thresholds.index(chosen.threshold),
        found.min_areas.index(chosen.min_area),
        marker="o",
        ms=10,
        mfc="none",
        mec="red",
        mew=2,
    )
    best = found.best_for_each_escape_count()
    curve.step(
        [point.escapes for point in best],
        [point.overkills for point in best],
        where="post",
        color="0.3",
    )
    for point, label, marker, size in (
        (tuning.before, "before", "s", 13),
        (chosen, "chosen", "o", 7),
    ):
        curve.plot(
            point.escapes,
            point.overkills,
            linestyle="none",
            marker=marker,
            ms=size,
            mfc="none",
            mew=2,
            mec="red" if point is chosen else "0.4",
            label=f"{label}: threshold {point.threshold:g}, min_area {point.min_area}",
        )
    curve.set(xlabel=f"escapes of {found.defective}", ylabel=f"overkills of {found.good}")
    for axis in (curve.xaxis, curve.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True))
    curve.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False)
    curve.grid(alpha=0.3)
