"""Evidence of an acceptance test: the figures that its verdicts rest on, without the images."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from tinyunet_deploy.inspection.defects import SizeRecall, Verdict

__all__ = [
    "Ancestor",
    "BatchFigures",
    "Comparison",
    "DetectionFigures",
    "DriftFigures",
    "Evidence",
    "FigureCheck",
    "FlippedPart",
    "InputFile",
    "LineFigures",
    "ModelFacts",
    "PartKind",
    "PartPicture",
    "PlateauFigures",
    "RepeatFigures",
    "SeenImages",
    "SelfTestFigures",
    "ShadowFigures",
    "SkippedPart",
]


PartKind = Literal["escape", "reject", "near escape", "near reject"]
"""Why a part is shown: it passed though it is defective, it was rejected though it is good, or it
is one that came nearest to either."""


@dataclass(frozen=True)
class ModelFacts:
    """The artifact that is to run, where it runs, and its rule for verdicts."""

    name: str
    sha256: str
    kind: str
    precision: str
    backend: str
    device: str
    threshold: float
    min_area_px: int
    versions: dict[str, str]
    """Package -> version of the packages that compute."""


@dataclass(frozen=True)
class SeenImages:
    """Judged images that also served to make the model, by the digests of their files."""

    images: int
    trained_on: int
    tuned_on: int
    known: bool
    """Whether the images that trained the model are known."""
    folders: tuple[str, ...] = ()
    """Names of folders that the user declared as training images."""


@dataclass(frozen=True)
class SkippedPart:
    """An image without a verdict."""

    name: str
    what: str


@dataclass(frozen=True)
class DetectionFigures:
    """Mistakes of the model on labelled images."""

    defective: int
    escapes: int
    good: int
    overkills: int
    skipped: tuple[SkippedPart, ...]
    areas_hit_px: tuple[int, ...]
    """Area in the truth of each defect that was found, ascending."""
    areas_missed_px: tuple[int, ...]
    """Area in the truth of each defect that was missed, ascending."""
    by_size: tuple[SizeRecall, ...]
    by_type: tuple[dict[str, Any], ...]
    """Counts and bounds of each defect type; empty where the truth has no types."""
    iou_defective: float
    """NaN without defective images."""
    auroc: float
    """NaN without images of both kinds."""
    notes: tuple[str, ...] = ()
    areas_missed_in_passed_px: tuple[int, ...] = ()
    """Those of ``areas_missed_px`` that lie in parts that pass."""


@dataclass(frozen=True)
class FigureCheck:
    """A figure beside its limit."""

    figure: str
    value: float
    limit: str
    holds: bool
    reason: str


@dataclass(frozen=True)
class Comparison:
    """Comparison of the artifact with its reference, on the backend and device on which it runs."""

    reference: str
    """The reference and its check, in one line."""
    vacuous: str | None
    """Reason why the reference is the artifact itself; None if it is another."""
    images: int
    checks: tuple[FigureCheck, ...]
    skipped: str | None = None
    """Reason why nothing was compared; None if it was."""
    otherwise: str | None = None
    """The artifact's rule for verdicts beside the reference's, in one line; None if they are the
    same. The scores of both are compared by the artifact's."""
    tuned: bool = False
    """Whether the artifact's rule was chosen on images."""
    hint: str = ""
    """Step that gives both one rule."""
    proof: str | None = None
    """What the adoption of a network of another origin proved of these very bytes; None for every
    other file, and for files that were made from an adopted one."""


@dataclass(frozen=True)
class BatchFigures:
    """Differences between the scores of images in batches and alone."""

    sizes: tuple[int, ...]
    """Batch sizes that were run."""
    steps: dict[str, int]
    """Arrangement of the batch -> largest difference, steps of 1/255."""
    check: FigureCheck | None
    """None if no limit applies."""


@dataclass(frozen=True)
class SelfTestFigures:
    """Outcome of the self-test on golden images."""

    outcome: Literal["ok", "failed", "missing"]
    detail: str


@dataclass(frozen=True)
class Ancestor:
    """The artifact or one of its ancestors, and whether its bytes are unchanged."""

    name: str | None
    """File name; None if it was not found."""
    sha256: str
    kind: str
    """``plan``, ``onnx``, ``adopted``, ``checkpoint``; ``unknown`` without a sidecar."""
    outcome: Literal["ok", "changed", "missing", "unchecked"]
    detail: str = ""


@dataclass(frozen=True)
class LineFigures:
    """A run of a belt, from a result of ``tinyunet line-sim``."""

    name: str
    """Name of the result file."""
    model_sha256: str | None
    """None if the result does not say which model it measured, as a replay of bare times."""
    backend: str | None
    device: str | None
    processor: str | None
    mode: str
    """``live``, or ``replay`` of recorded times."""
    parts_per_minute: float
    deadline_ms: float
    parts: int
    missed: int
    miss_rate: float
    miss_rate_bound: float
    """Upper bound with 95 % confidence."""
    p50_ms: float | None
    p99_ms: float | None
    fastest_parts_per_minute: float | None
    """Fastest speed that line-sim promises; None if it promises none."""


@dataclass(frozen=True)
class DriftFigures:
    """Comparison of the good judged parts with the images of an earlier report."""

    name: str
    """Name of the earlier report's folder."""
    comparison: dict[str, Any] | None
    """Fields of :class:`~tinyunet_deploy.inspection.drift.Drift`; None if none was possible."""
    drifted: tuple[str, ...]
    hint: str
    """Where to look for the cause, or why nothing was compared."""


@dataclass(frozen=True)
class RepeatFigures:
    """Verdicts on parts that were photographed several times."""

    name: str
    """Name of the folder of photographs, or of the study's file."""
    parts: int
    agreeing: int
    """Parts with the same verdict on all their photographs."""
    photographs: int
    simulated: bool
    """True if photographs were simulated from one."""
    kappa: float
    """Fleiss' kappa; NaN where it is undefined."""
    flips: tuple[str, ...]
    """Names of the parts with both verdicts."""
    skipped: tuple[str, ...] = ()
    """Photographs that could not be judged, with the reason."""
    mismatch: str | None = None
    """Difference between the studied and the accepted model, such as ``another model``."""
    svg: str = ""
    kappa_lower: float = math.nan
    """Bound of ``kappa`` with 95 % confidence; NaN where there is none."""


@dataclass(frozen=True)
class PlateauFigures:
    """Thresholds around the chosen one at which every verdict is the same."""

    threshold: float
    lowest: float
    highest: float
    margin: float | None
    """Distance of the threshold from the nearer edge, a probability; None if there is no edge."""
    share_of_reference: float | None
    """Width divided by that of the fp32 network, on the images on which both were compared; None if
    that was not measured."""
    svg: str = ""
    edge: Literal["good", "defective"] | None = None
    """Kind of the parts whose verdict changes at the nearer edge; None without an edge, or if both
    kinds are there."""


@dataclass(frozen=True)
class FlippedPart:
    """A part that the model judged otherwise than the leader of its shadow run."""

    name: str
    leader: Verdict
    model: Verdict
    leader_score: int
    """Score that decides the leader's verdict, 0..255."""
    model_score: int


@dataclass(frozen=True)
class ShadowFigures:
    """A run of the model as the challenger beside the model that decided."""

    name: str
    """Name of the report's file."""
    leader: str
    """The model that decided, its precision, backend and device, in one line."""
    leader_sha256: str
    offered: int
    """Parts that the leader judged."""
    seen: int
    """Parts that the model judged, too."""
    new_rejects: int
    """Parts that only the model rejects."""
    new_passes: int
    """Parts that only the model passes."""
    flips: tuple[FlippedPart, ...]
    """Parts that are judged otherwise; the first of them."""
    unseen: dict[str, int]
    """Reason why the model did not judge a part -> number of parts."""
    failure: str | None
    """How the model ended before its time; None if it did not."""
    p50_ms: float | None
    """Time of the model for a part, beside the leader; None if it judged none."""
    p99_ms: float | None
    max_ms: float | None
    mismatch: str | None = None
    """Difference between the challenger and the accepted model, such as ``another threshold``."""


@dataclass(frozen=True)
class PartPicture:
    """A picture of one judged part."""

    kind: PartKind
    name: str
    verdict: Verdict
    max_score: int
    jpeg: str
    """Base64 of a JPEG file."""
    width: int
    height: int


@dataclass(frozen=True)
class InputFile:
    """A file, or all files of a folder, that the test rests on."""

    role: str
    name: str
    sha256: str
    """sha256 of the file; of a folder, that of its list in the form of ``sha256sum``."""
    files: int = 1


@dataclass(frozen=True)
class Evidence:
    """Everything that the verdicts rest on; None where nothing was measured or given."""

    model: ModelFacts
    data: str
    """Name and layout of the data set, in one line."""
    lineage: tuple[Ancestor, ...]
    blocked: str | None = None
    """Reason why the model was not run; None if it was."""
    seen: SeenImages | None = None
    detection: DetectionFigures | None = None
    parity: Comparison | None = None
    batches: BatchFigures | None = None
    self_test: SelfTestFigures | None = None
    line: LineFigures | None = None
    drift: DriftFigures | None = None
    repeatability: RepeatFigures | None = None
    plateau: PlateauFigures | None = None
    shadow: ShadowFigures | None = None
    processor: str = ""
    """Processor of the machine on which the test ran."""
