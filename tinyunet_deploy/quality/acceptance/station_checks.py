"""Decide the requirements on the station: speed, images, repeats, room for change, shadow run."""

from __future__ import annotations

import math

from tinyunet_deploy.quality.acceptance.evidence import Evidence
from tinyunet_deploy.quality.acceptance.finding import Finding
from tinyunet_deploy.quality.acceptance.requirements import LineLimit, Requirements
from tinyunet_deploy.quality.acceptance.wording import count, percent
from tinyunet_deploy.quality.confidence import clopper_pearson_upper, trials_to_show

__all__ = ["check_drift", "check_line", "check_plateau", "check_repeatability", "check_shadow"]


def check_line(requirements: Requirements, evidence: Evidence) -> Finding:
    """The share of parts without a verdict must be proven, for this model on this machine."""
    limit, line, model = requirements.line, evidence.line, evidence.model
    missing = (
        f"run {trials_to_show(limit.max_miss_rate):,} parts past this model on this machine: "
        f"`tinyunet line-sim IMAGES -m {model.name} --parts-per-minute "
        f"{_given(limit.parts_per_minute, 'SPEED')} --deadline-ms "
        f"{_given(limit.deadline_ms, 'TIME')} --seconds {_seconds(limit)} -o line.json`, then "
        "accept again with `--line line.json`"
    )
    if line is None:
        return Finding("not shown", "No measurement of the line was given.", missing)
    for measured, wanted, what in (
        (line.model_sha256, model.sha256, "another model file"),
        (line.backend, model.backend, f"the backend {line.backend}"),
        (line.device, model.device, f"the device {line.device}"),
        (line.processor, evidence.processor, f"another machine ({line.processor})"),
    ):
        if measured is None:
            return Finding(
                "not shown",
                f"{line.name} does not say what model and machine it measured.",
                missing,
            )
        if measured != wanted:
            return Finding("not shown", f"{line.name} was measured with {what}.", missing)
    speed = f"{line.parts_per_minute:,.4g} parts/min"
    if limit.parts_per_minute is not None and line.parts_per_minute < limit.parts_per_minute:
        return Finding(
            "not shown",
            f"The belt was measured at {speed}, not at {limit.parts_per_minute:,.4g}.",
            f"`tinyunet line-sim` with `--parts-per-minute {limit.parts_per_minute:g}`",
        )
    if limit.deadline_ms is not None and line.deadline_ms > limit.deadline_ms:
        return Finding(
            "not shown",
            f"The deadline was {line.deadline_ms:,.4g} ms, longer than the one required.",
            f"`tinyunet line-sim` with `--deadline-ms {limit.deadline_ms:g}`",
        )
    allowed = percent(limit.max_miss_rate)
    counted = (
        f"At {speed} and {line.deadline_ms:,.4g} ms, {line.missed:,} of {line.parts:,} parts have "
        f"no verdict at the gate"
    )
    if line.miss_rate > limit.max_miss_rate:
        return Finding(
            "not met",
            f"{counted}: {percent(line.miss_rate)}, more than the {allowed} allowed.",
            "slow the belt, or run a faster precision, backend or more processes",
        )
    shown = (
        f"{counted}: with 95 % confidence at most {percent(line.miss_rate_bound, 'up')} have none"
    )
    if line.miss_rate_bound > limit.max_miss_rate:
        needed = trials_to_show(limit.max_miss_rate, line.missed)
        seconds = math.ceil(60 * needed / line.parts_per_minute)
        return Finding(
            "not shown",
            f"{shown}, which does not show {allowed}.",
            f"a run of {needed:,} parts with {line.missed:,} missed at most: "
            f"`tinyunet line-sim` with `--seconds {seconds}`",
        )
    return Finding("met", f"{shown}.")


def _given(value: float | None, word: str) -> str:
    """Return a number as an option takes it; a word in its place if the requirements have none."""
    return word if value is None else f"{value:g}"


def _seconds(limit: LineLimit) -> str:
    """Return how long a belt of the required speed must run to show the limit, in seconds."""
    if limit.parts_per_minute is None:
        return "TIME"
    parts = trials_to_show(limit.max_miss_rate)
    return f"{math.ceil(60 * parts / limit.parts_per_minute)}"


def check_drift(_: Requirements, evidence: Evidence) -> Finding:
    """The good parts must look like the images of the line."""
    drift = evidence.drift
    if drift is None:
        return Finding(
            "not shown",
            "No report of the line was given to compare the images with.",
            f"inspect images of the line: `tinyunet-infer IMAGES -m {evidence.model.name} "
            "-o out-line`, then accept again with `--baseline out-line`",
        )
    if drift.comparison is None:
        return Finding("not shown", f"{drift.hint}.", "a baseline of more images of the line")
    if drift.drifted:
        return Finding(
            "not met",
            f"The good parts differ from those of {drift.name} in {', '.join(drift.drifted)}.",
            drift.hint,
        )
    images, before = drift.comparison["images"], drift.comparison["images_before"]
    return Finding(
        "met",
        f"Light and contrast of {images:,} good parts are like those of {before:,} images of "
        f"{drift.name}.",
    )


def check_repeatability(requirements: Requirements, evidence: Evidence) -> Finding:
    """The share of parts that are judged alike on all photographs must be proven."""
    limit, study = requirements.repeatability, evidence.repeatability
    fewest = trials_to_show(1 - limit.min_agreement, 0, limit.confidence)
    photograph = (
        f"photograph {fewest:,} parts or more three times each, every time into a folder of its "
        "own below DIR, then accept again with `--repeats DIR`"
    )
    again = "take these photographs again, or mend what made them unusable"
    if study is None:
        return Finding("not shown", "No repeated photographs were given.", photograph)
    if study.mismatch is not None:
        return Finding("not shown", f"{study.name} was made with {study.mismatch}.", photograph)
    if not study.parts:
        return Finding("not shown", "No part was photographed more than once.", photograph)
    wanted, sure = percent(limit.min_agreement), percent(limit.confidence)
    flips = study.parts - study.agreeing
    of = "simulated photographs" if study.simulated else "photographs"
    counted = (
        f"{study.agreeing:,} of {study.parts:,} parts are judged alike on all their {of} "
        f"({study.photographs:,})"
    )
    if study.agreeing / study.parts < limit.min_agreement:
        first = f"; the first that flips: {study.flips[0]}" if study.flips else ""
        return Finding(
            "not met",
            f"{counted}, fewer than the {wanted} required{first}.",
            "mend what changes between photographs: light, focus, the place of the part",
        )
    if study.skipped:
        unjudged = f"Not judged: {count(len(study.skipped), 'photograph')}; the first: "
        return Finding("not shown", f"{counted}. {unjudged}{study.skipped[0]}.", again)
    if study.simulated:
        return Finding("not shown", f"{counted}; a simulation proves no camera.", photograph)
    bound = 1 - clopper_pearson_upper(flips, study.parts, limit.confidence)
    shown = f"{counted}: with {sure} confidence at least {percent(bound, 'down')} are"
    if bound < limit.min_agreement:
        needed = trials_to_show(1 - limit.min_agreement, flips, limit.confidence)
        return Finding(
            "not shown",
            f"{shown}, which does not show {wanted}.",
            f"repeated photographs of {needed - study.parts:,} more parts ({needed:,} in all) that "
            "are judged alike",
        )
    return Finding("met", f"{shown}.")


def check_plateau(requirements: Requirements, evidence: Evidence) -> Finding:
    """The threshold must stand away from the edges of a plateau that is wide enough."""
    limit, study = requirements.plateau, evidence.plateau
    if study is None:
        return Finding("not shown", "The plateau under the threshold was not measured.")
    span = f"No verdict changes for thresholds from {study.lowest:.3g} to {study.highest:.3g}"
    stands = f"{span}; the chosen {study.threshold:.3g} stands"
    if study.margin is not None and study.margin < limit.min_margin:
        return Finding(
            "not met",
            f"{stands} {study.margin:.2g} from the edge.",
            "choose a threshold in the middle: `tinyunet tune`",
        )
    share = study.share_of_reference
    if share is None and evidence.model.precision != "fp32":
        return Finding(
            "not shown",
            f"{span}, but the plateau of the fp32 network was not measured.",
            "give its checkpoint: `--reference CHECKPOINT`, or `--search` with the folder of the "
            "checkpoint or adopted file that it was made from",
        )
    if share is not None and share < limit.min_share:
        return Finding(
            "not met",
            f"{span}; that is {percent(share)} of the plateau of the fp32 network.",
            "calibrate the quantised file on more images, or run fp32",
        )
    far = "away from any edge" if study.margin is None else f"{study.margin:.2g} from the edge"
    return Finding("met", f"{stands} {far}.")


def check_shadow(requirements: Requirements, evidence: Evidence) -> Finding:
    """The model must judge nearly all parts of the line as the model that runs there today."""
    limit, run = requirements.shadow, evidence.shadow
    again = (
        f"`tinyunet-infer IMAGES -m LEADER --shadow {evidence.model.name} -o OUT`, then "
        "accept again with `--shadow OUT/shadow/shadow.json`"
    )
    if run is None:
        return Finding("not shown", "No report of a shadow run was given.", again)
    if run.mismatch is not None:
        return Finding("not shown", f"{run.name} was made with {run.mismatch}.", again)
    unseen = run.offered - run.seen
    if run.failure is not None:
        return Finding(
            "not met",
            f"In the shadow run the model {run.failure}, after {run.seen:,} of "
            f"{count(run.offered, 'part')}.",
            "find out why it ended, then repeat the shadow run",
        )
    if not run.seen:
        return Finding("not shown", f"The model saw none of {count(run.offered, 'part')}.", again)
    flips = run.new_rejects + run.new_passes
    counted = (
        f"{flips:,} of {count(run.seen, 'part')} are judged otherwise than by {run.leader} "
        f"({run.new_rejects:,} newly rejected, {run.new_passes:,} newly passed)"
    )
    missed = f" It did not see {unseen:,} of {count(run.offered, 'part')}." if unseen else ""
    allowed = percent(limit.limit)
    if flips / run.seen > limit.limit:
        return Finding(
            "not met",
            f"{counted}: {percent(flips / run.seen)}, more than the {allowed} allowed.{missed}",
            "look at every part that flips: if the model is right, agree on a larger max_rate",
        )
    bound = clopper_pearson_upper(flips, run.seen, limit.confidence)
    shown = (
        f"{counted}: with {percent(limit.confidence)} confidence at most {percent(bound, 'up')} are"
    )
    if bound > limit.limit:
        needed = trials_to_show(limit.limit, flips, limit.confidence)
        return Finding(
            "not shown",
            f"{shown}, which does not show {allowed}.{missed}",
            f"a shadow run of {needed - run.seen:,} more parts ({needed:,} in all) that are judged "
            "alike",
        )
    return Finding("met", f"{shown}.{missed}")
