"""Decide each requirement: met, not met, or not shown, with the sentence that says why.

A requirement is not met if the evidence speaks against it, and not shown if there is too little
evidence or none. Only "met" lets a model run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, NamedTuple

from tinyunet_deploy.quality.acceptance.artifact_checks import (
    check_batches,
    check_lineage,
    check_parity,
    check_self_test,
)
from tinyunet_deploy.quality.acceptance.causes import cause_of
from tinyunet_deploy.quality.acceptance.detection_checks import (
    check_escapes,
    check_overkills,
    check_smallest_defect,
    check_unseen_images,
    check_verdicts,
)
from tinyunet_deploy.quality.acceptance.evidence import Evidence
from tinyunet_deploy.quality.acceptance.finding import Finding, Outcome
from tinyunet_deploy.quality.acceptance.requirements import RateLimit, Requirements
from tinyunet_deploy.quality.acceptance.station_checks import (
    check_drift,
    check_line,
    check_plateau,
    check_repeatability,
    check_shadow,
)
from tinyunet_deploy.quality.acceptance.wording import percent

__all__ = ["Decision", "RequirementVerdict", "decide", "judge"]


@dataclass(frozen=True)
class RequirementVerdict:
    """One row of the page."""

    name: str
    """Name of its table in ``acceptance.toml``."""
    title: str
    outcome: Outcome
    required: str
    """Limit in words."""
    sentence: str
    """What was measured, and why it gives this outcome."""
    reason: str
    """Reason for the requirement."""
    missing: str = ""
    """What would show the requirement, or mend it; empty if it is met, or if it fails with another
    one."""
    follows: str = ""
    """Name of the requirement that is not met by the same fact; empty if it stands for itself."""


class _Row(NamedTuple):
    title: str
    required: Callable[[Requirements], str]
    check: Callable[[Requirements, Evidence], Finding]


@dataclass(frozen=True)
class Decision:
    """Answer to the question of the page."""

    word: Literal["MAY RUN", "MAY NOT RUN", "NOT SHOWN YET"]
    sentence: str

    @property
    def accepted(self) -> bool:
        """Return whether every requirement is met or waived."""
        return self.word == "MAY RUN"


def judge(requirements: Requirements, evidence: Evidence) -> tuple[RequirementVerdict, ...]:
    """Decide every requirement, in the order of ``acceptance.toml``.

    A shadow run, which needs a model that runs already, is a requirement only if a limit is named
    for it or its report is given.
    """
    with_shadow = requirements.shadow.max_rate is not None or evidence.shadow is not None
    verdicts = []
    for name, requirement in requirements.by_name().items():
        if name == "shadow" and not with_shadow:
            continue
        row = _ROWS[name]
        if evidence.blocked is not None and name != "lineage":
            finding = Finding("not shown", f"The model was not run: {evidence.blocked}.")
        else:
            finding = row.check(requirements, evidence)
        if not requirement.required:
            finding = Finding(
                "waived", f"Waived. It would be {finding.outcome}: {finding.sentence}"
            )
        verdicts.append(
            RequirementVerdict(
                name=name,
                title=row.title,
                outcome=finding.outcome,
                required=row.required(requirements),
                sentence=finding.sentence,
                reason=requirement.reason,
                missing=finding.missing,
            )
        )
    return _with_causes(verdicts, requirements, evidence)


def _with_causes(
    verdicts: Sequence[RequirementVerdict], requirements: Requirements, evidence: Evidence
) -> tuple[RequirementVerdict, ...]:
    """Let each requirement that fails by the fact of another one name that one."""
    not_met = {verdict.name for verdict in verdicts if verdict.outcome == "not met"}
    result = []
    for verdict in verdicts:
        cause = None
        if verdict.name in not_met:
            cause = cause_of(verdict.name, not_met, requirements, evidence)
        if cause is not None:
            title = _ROWS[cause.name].title
            sentence = f"{verdict.sentence} Fails with {title}: {cause.sentence}."
            verdict = replace(verdict, sentence=sentence, missing="", follows=cause.name)
        result.append(verdict)
    return tuple(result)


def decide(verdicts: Sequence[RequirementVerdict]) -> Decision:
    """Return the decision: the model may run only if no requirement is not met or not shown."""

    def titles(outcome: Outcome, *, follows: bool = False) -> list[str]:
        rows = [v for v in verdicts if v.outcome == outcome and bool(v.follows) == follows]
        return [row.title.lower() for row in rows]

    total = len(verdicts)
    not_met, following = titles("not met"), titles("not met", follows=True)
    not_shown, waived_titles = titles("not shown"), titles("waived")
    waived = f" Waived: {', '.join(waived_titles)}." if waived_titles else ""
    if not_met:
        sentence = f"{_of(len(not_met), total)} not met: {', '.join(not_met)}."
        if following:
            sentence += f" By the same facts: {', '.join(following)}."
        if not_shown:
            sentence += f" Not shown yet: {', '.join(not_shown)}."
        return Decision("MAY NOT RUN", sentence + waived)
    if not_shown:
        sentence = (
            "It may not run yet. Nothing speaks against it, but "
            f"{_of(len(not_shown), total)} not shown: {', '.join(not_shown)}."
        )
        return Decision("NOT SHOWN YET", sentence + waived)
    met = "All" if not waived else "All other"
    count = total - len(waived_titles)
    return Decision("MAY RUN", f"{met} {count} requirements are met.{waived}")


def _of(number: int, total: int) -> str:
    return f"{number} of {total} requirements {'is' if number == 1 else 'are'}"


def _rate_required(limit: RateLimit) -> str:
    return f"at most {percent(limit.max_rate)} with {percent(limit.confidence)} confidence"


def _size_required(requirements: Requirements) -> str:
    area = requirements.smallest_defect.area_px
    return "every defect is found" if area is None else f"every defect of {area:,} px or more"


def _line_required(requirements: Requirements) -> str:
    limit = requirements.line
    text = f"at most {percent(limit.max_miss_rate)} without a verdict"
    if limit.deadline_ms is not None:
        text += f" after {limit.deadline_ms:g} ms"
    if limit.parts_per_minute is not None:
        text += f" at {limit.parts_per_minute:g} parts/min"
    return text


_ROWS: Final[dict[str, _Row]] = {
    "unseen_images": _Row(
        "Unseen images", lambda _: "no image trained or tuned it", check_unseen_images
    ),
    "verdicts": _Row("A verdict for every part", lambda _: "no image is left out", check_verdicts),
    "escapes": _Row("Escapes", lambda r: _rate_required(r.escapes), check_escapes),
    "overkills": _Row("Overkill", lambda r: _rate_required(r.overkills), check_overkills),
    "smallest_defect": _Row("Smallest defect", _size_required, check_smallest_defect),
    "parity": _Row("Parity", lambda _: "the answers of the network that was trained", check_parity),
    "batches": _Row("Batches", lambda _: "the same scores alone and in batches", check_batches),
    "self_test": _Row("Self-test", lambda _: "the scores of the day it was made", check_self_test),
    "lineage": _Row("Lineage", lambda _: "unchanged files, back to the checkpoint", check_lineage),
    "line": _Row("Line speed", _line_required, check_line),
    "drift": _Row(
        "Images like the line's",
        lambda r: f"light and contrast of the line, {percent(r.drift.alpha)} false alarms",
        check_drift,
    ),
    "repeatability": _Row(
        "Repeatability",
        lambda r: (
            f"at least {percent(r.repeatability.min_agreement)} of the parts with "
            f"{percent(r.repeatability.confidence)} confidence"
        ),
        check_repeatability,
    ),
    "plateau": _Row(
        "Plateau",
        lambda r: (
            f"the threshold may move by {r.plateau.min_margin:g}; "
            f"a file of another precision keeps {percent(r.plateau.min_share)} of the room of fp32"
        ),
        check_plateau,
    ),
    "shadow": _Row(
        "Shadow run",
        lambda r: (
            f"at most {percent(r.shadow.limit)} judged otherwise with "
            f"{percent(r.shadow.confidence)} confidence"
        ),
        check_shadow,
    ),
}
"""Name of a requirement -> its title, its limit in words, and the function that decides it."""
