"""Cheap statistics of every image, and a test of whether two reports differ in them.

They reveal a moved camera, an ageing lamp or a new material before the first defect escapes, and
need no labels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import cv2
import numpy as np

from tinyunet_deploy.contract import Image, Score, score_threshold
from tinyunet_deploy.errors import DataError
from tinyunet_deploy.inspection.drawing import draw_svg
from tinyunet_deploy.inspection.run_json import read_run
from tinyunet_deploy.inspection.run_report import REPORT, read_report

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "FORMULAS",
    "OF_THE_IMAGE",
    "STATISTICS",
    "Drift",
    "Shift",
    "compare_reports",
    "compare_statistics",
    "draw_distributions",
    "image_statistics",
    "ks_distance",
    "read_statistics",
]

NEAR_STEPS: Final = 25
"""Largest distance of a score from the threshold to count as near it, steps of 255 (0.1 in
probability); it is at most half of the way to 0 or 255, where the certain scores are."""
LEAST_DISTANCE: Final = 0.1
"""Smallest distance that counts as drift: with enough images every difference is significant."""

STATISTICS: Final = {
    "mean_grey": "mean grey value, 0..255: exposure and light",
    "contrast_grey": "standard deviation of the grey values: focus, light and surface",
    "near_threshold_share": f"pixels whose score is at most {NEAR_STEPS} of 255 and half the way "
    "to 0 or 255 from the threshold / pixels: how unsure the model is",
    "defect_share": "pixels whose score is over the threshold / pixels",
}
"""Statistic -> its definition and what it shows."""
OF_THE_IMAGE: Final = ("mean_grey", "contrast_grey")
"""Statistics that do not depend on model and threshold."""

FORMULAS: Final = {
    "distance": "largest difference of the two empirical distribution functions: "
    "Kolmogorov-Smirnov",
    "critical": "sqrt(-ln(alpha / 2 / statistics) / 2) sqrt((n + m) / (n m)): Smirnov 1948, with "
    "Bonferroni's correction for several statistics",
    "shift": "(mean - mean before) / sqrt((variance + variance before) / 2): Cohen 1988, d",
    "drift": f"distance > critical and distance >= {LEAST_DISTANCE}",
}


def image_statistics(image: Image, score: Score, threshold: float) -> dict[str, float]:
    """Return the :data:`STATISTICS` of one image.

    Args:
        image, score: uint8 [H, W].
        threshold: probability in [0, 1].
    """
    mean, deviation = (float(np.ravel(value)[0]) for value in cv2.meanStdDev(image))
    limit = score_threshold(threshold)
    reach = min(NEAR_STEPS, limit // 2, (255 - limit) // 2)
    near = np.count_nonzero((score >= limit - reach) & (score <= limit + reach))
    return {
        "mean_grey": mean,
        "contrast_grey": deviation,
        "near_threshold_share": near / score.size,
        "defect_share": np.count_nonzero(score > limit) / score.size,
    }


@dataclass(frozen=True)
class Shift:
    """Difference of one statistic between two reports, by :data:`FORMULAS`."""

    statistic: str
    """One of :data:`STATISTICS`."""
    mean: float
    mean_before: float
    shift: float
    """Standardised difference of the means; infinite if they differ and neither report has any
    spread."""
    distance: float
    """Kolmogorov-Smirnov distance, 0..1."""
    critical: float
    """Distance that chance alone exceeds with probability alpha."""

    @property
    def drift(self) -> bool:
        """True if the difference is more than chance and large enough to matter."""
        return self.distance > self.critical and self.distance >= LEAST_DISTANCE


@dataclass(frozen=True)
class Drift:
    """Comparison of a report with an earlier one."""

    images: int
    images_before: int
    alpha: float
    """Upper bound on the probability of a false alarm over all statistics together."""
    shifts: list[Shift]
    note: str | None
    """Statistics that were not compared, and the reason; None if all were."""

    @property
    def drifted(self) -> list[str]:
        """Names of the statistics that have drifted."""
        return [shift.statistic for shift in self.shifts if shift.drift]

    @property
    def hint(self) -> str:
        """Advice on where to look for the cause."""
        if any(name in OF_THE_IMAGE for name in self.drifted):
            return "look at camera and light"
        return "look at the parts, then at the model"

    def as_fields(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        shifts = [{**asdict(shift), "drift": shift.drift} for shift in self.shifts]
        for fields in shifts:
            if math.isinf(fields["shift"]):
                fields["shift"] = None
        return {
            **asdict(self),
            "shifts": shifts,
            "drifted": self.drifted,
            "formulas": FORMULAS,
            "statistics": STATISTICS,
        }


def compare_reports(report: Path, before: Path, alpha: float = 0.01) -> Drift:
    """Test whether the images of one report look like those of an earlier one.

    Args:
        report, before: ``report.jsonl`` files, or the folders that contain them.
        alpha: largest probability of a false alarm over all statistics together.

    Raises:
        DataError: a report cannot be read, has no statistics, or too few images.
    """
    different = _different_run(report, before)
    return compare_statistics(
        read_statistics(report),
        read_statistics(before),
        alpha,
        OF_THE_IMAGE if different else tuple(STATISTICS),
        where=(report, before),
        note=different
        and f"made with another {different}: statistics of the score are not compared",
    )


def compare_statistics(
    new: Sequence[Mapping[str, float]],
    old: Sequence[Mapping[str, float]],
    alpha: float,
    names: Sequence[str],
    *,
    where: tuple[Path, Path],
    note: str | None,
) -> Drift:
    """Test whether the statistics of images are like those of earlier ones.

    Args:
        new, old: :data:`STATISTICS` of each image, at least two images each.
        alpha: largest probability of a false alarm over all statistics together.
        names: statistics to compare.
        where: places of the new and the old images, for errors.
        note: statistics that are not compared, and the reason; None if all are.

    Raises:
        DataError: there are too few images.
    """
    n, m = len(new), len(old)
    scale = math.sqrt(-math.log(alpha / 2 / len(names)) / 2)
    if scale * math.sqrt((n + m) / (n * m)) >= 1:
        raise DataError(
            where[0] if n <= m else where[1],
            f"has too few images: {n} against {m} show nothing at alpha {alpha:g}",
            f"each report needs at least {math.floor(2 * scale**2) + 1}",
        )
    shifts = []
    for name in names:
        a, b = (np.array([image[name] for image in images]) for images in (new, old))
        spread = math.sqrt((a.var(ddof=1) + b.var(ddof=1)) / 2)
        difference = float(a.mean() - b.mean())
        if spread:
            shift = difference / spread
        else:
            shift = math.copysign(math.inf, difference) if difference else 0.0
        shifts.append(
            Shift(
                statistic=name,
                mean=float(a.mean()),
                mean_before=float(b.mean()),
                shift=shift,
                distance=ks_distance(a.tolist(), b.tolist()),
                critical=scale * math.sqrt((n + m) / (n * m)),
            )
        )
    return Drift(n, m, alpha, shifts, note)


def ks_distance(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the largest difference of the empirical distribution functions of two samples."""
    a, b = np.sort(np.asarray(one)), np.sort(np.asarray(other))
    both = np.concatenate([a, b])
    below_a = np.searchsorted(a, both, side="right") / len(a)
    below_b = np.searchsorted(b, both, side="right") / len(b)
    return float(np.abs(below_a - below_b).max())


def draw_distributions(report: Path, before: Path, comparison: Drift) -> bytes:
    """Draw the distribution functions of each statistic that :func:`compare_reports` compared.

    Returns:
        An SVG file.

    Raises:
        RuntimeUnavailable: matplotlib is not installed.
    """
    runs = (
        ("before", "0.45", read_statistics(before)),
        ("now", "tab:blue", read_statistics(report)),
    )

    def draw(figure: Figure) -> None:
        for axes, shift in zip(figure.subplots(rows, 2).flat, comparison.shifts, strict=True):
            for label, color, images in runs:
                values = [image[shift.statistic] for image in images]
                axes.ecdf(values, color=color, label=f"{label}: {len(values)} images")
            sign, word = (">", "drift") if shift.drift else ("of", "no drift")
            axes.set_title(
                f"{word}: distance {shift.distance:.2f} {sign} {shift.critical:.2f}",
                fontsize="medium",
                color="tab:red" if shift.drift else "black",
            )
            axes.set(xlabel=shift.statistic, ylabel="share of images")
            axes.locator_params(axis="x", nbins=5)
            axes.grid(alpha=0.3)
        figure.axes[0].legend(fontsize="small")

    rows = len(comparison.shifts) // 2
    return draw_svg(9, 3 * rows, draw)


def _report_path(path: Path) -> Path:
    return path / REPORT if path.is_dir() else path


def read_statistics(path: Path) -> list[dict[str, float]]:
    """Return the :data:`STATISTICS` of the images of a report.

    Args:
        path: a ``report.jsonl``, or the folder that contains it.

    Raises:
        DataError: it cannot be read, or has the statistics of fewer than two images.
    """
    where = _report_path(path)
    try:
        lines, _ = read_report(where)
    except OSError as error:
        raise DataError(where, f"cannot be read: {error.strerror}") from error
    statistics = [line["statistics"] for line in lines if "statistics" in line]
    if len(statistics) < 2:
        raise DataError(
            where, "has statistics of fewer than two images", "write it again with tinyunet infer"
        )
    return statistics


def _different_run(one: Path, other: Path) -> str | None:
    """Name the differences in model and threshold between two runs; None if there are none."""
    runs = []
    for path in (one, other):
        try:
            runs.append(read_run(_report_path(path).parent))
        except (OSError, ValueError):
            return "or an unreadable run.json"
    named = {"model_sha256": "model", "threshold": "threshold"}
    changed = [word for key, word in named.items() if runs[0].get(key) != runs[1].get(key)]
    return " and ".join(changed) or None
