"""Decide the requirements on labelled images: what was judged, and what was missed."""

from __future__ import annotations

from tinyunet_deploy.quality.acceptance.evidence import Evidence
from tinyunet_deploy.quality.acceptance.finding import Finding
from tinyunet_deploy.quality.acceptance.requirements import RateLimit, Requirements
from tinyunet_deploy.quality.acceptance.wording import count, percent
from tinyunet_deploy.quality.confidence import clopper_pearson_upper, trials_to_show

__all__ = [
    "check_escapes",
    "check_overkills",
    "check_smallest_defect",
    "check_unseen_images",
    "check_verdicts",
]


def check_unseen_images(_: Requirements, evidence: Evidence) -> Finding:
    """No image may have trained or tuned the model."""
    seen = evidence.seen
    if seen is None:
        return Finding("not shown", "No image was judged.")
    used = [
        f"{number} {word} the model"
        for number, word in ((seen.trained_on, "trained"), (seen.tuned_on, "tuned"))
        if number
    ]
    if used:
        return Finding(
            "not met",
            f"Of {count(seen.images, 'image')}, {' and '.join(used)}.",
            "judge the model on images that neither trained nor tuned it",
        )
    if not seen.known:
        return Finding(
            "not shown",
            "The model's sidecar does not name the images that trained it, so they cannot be "
            "compared.",
            "name each folder of its training images: `--trained-on DIR`",
        )
    where = f" (declared: {', '.join(seen.folders)})" if seen.folders else ""
    return Finding(
        "met",
        f"None of {count(seen.images, 'image')} trained or tuned the model, by the digests of the "
        f"files{where}.",
    )


def check_verdicts(_: Requirements, evidence: Evidence) -> Finding:
    """Every image must have got a verdict."""
    detection = evidence.detection
    if detection is None:
        return Finding("not shown", "No image was judged.")
    judged, skipped = detection.defective + detection.good, detection.skipped
    if skipped:
        return Finding(
            "not met",
            f"{len(skipped)} of {count(judged + len(skipped), 'image')} got no verdict; the first: "
            f"{skipped[0].name} {skipped[0].what}.",
            "take these images again, or mend what made them unusable",
        )
    return Finding("met", f"Every one of {count(judged, 'image')} got a verdict.")


def _rate(limit: RateLimit, events: int, parts: int, kind: str, event: str, does: str) -> Finding:
    """Decide a rate of mistakes that was counted on parts."""
    rate, sure = percent(limit.max_rate), percent(limit.confidence)
    needed, with_another = (
        int(trials_to_show(limit.max_rate, mistakes, limit.confidence))
        for mistakes in (events, events + 1)
    )
    without = f"of which none {event} ({with_another:,} in all if one {does})"
    if not parts:
        return Finding(
            "not shown",
            f"There is no {kind} part among the images.",
            f"judge {needed:,} {kind} parts of your line {without}",
        )
    counted = f"{events:,} of {parts:,} {kind} parts {event}"
    if events / parts > limit.max_rate:
        return Finding(
            "not met",
            f"{counted}: {percent(events / parts)}, more than the {rate} allowed.",
            "choose another threshold with `tinyunet tune`, or train on such parts",
        )
    bound = clopper_pearson_upper(events, parts, limit.confidence)
    do = "do" if does == "does" else "are"
    shown = f"{counted}: with {sure} confidence at most {percent(bound, 'up')} {do}"
    if bound > limit.max_rate:
        return Finding(
            "not shown",
            f"{shown}, which does not prove at most {rate}.",
            f"judge {count(needed - parts, f'more {kind} part')} of your line, {needed:,} in all, "
            f"{without}",
        )
    return Finding("met", f"{shown}.")


def check_escapes(requirements: Requirements, evidence: Evidence) -> Finding:
    """The rate of defective parts that slip through must be proven to be low enough."""
    detection = evidence.detection
    if detection is None:
        return Finding("not shown", "No image was judged.")
    limit = requirements.escapes
    return _rate(limit, detection.escapes, detection.defective, "defective", "slip through", "does")


def check_overkills(requirements: Requirements, evidence: Evidence) -> Finding:
    """The rate of good parts that are rejected must be proven to be low enough."""
    detection = evidence.detection
    if detection is None:
        return Finding("not shown", "No image was judged.")
    return _rate(
        requirements.overkills, detection.overkills, detection.good, "good", "are rejected", "is"
    )


def check_smallest_defect(requirements: Requirements, evidence: Evidence) -> Finding:
    """Every defect of a size must be found, and defects near that size must be there."""
    detection, area = evidence.detection, requirements.smallest_defect.area_px
    if detection is None:
        return Finding("not shown", "No image was judged.")
    least = area or 1
    hit = [size for size in detection.areas_hit_px if size >= least]
    missed = [size for size in detection.areas_missed_px if size >= least]
    defects = "defects" if area is None else f"defects of at least {area:,} px"
    if missed:
        return Finding(
            "not met",
            f"{len(missed):,} of {len(hit) + len(missed):,} {defects} are missed; the largest of "
            f"these has {max(missed):,} px.",
            "look at the missed defects, then tune or train",
        )
    if not hit:
        return Finding(
            "not shown",
            f"There are no {defects} in the images.",
            "photograph parts with such defects",
        )
    if area is not None and min(hit) >= 2 * area:
        return Finding(
            "not shown",
            f"All {len(hit):,} {defects} are found, but the smallest has {min(hit):,} px.",
            f"parts with defects of {area:,} to {2 * area - 1:,} px",
        )
    rest = " Nothing is shown about smaller ones." if area is None else ""
    of_types = sum(row["defects"] for row in detection.by_type)
    missed_of_types = of_types - sum(row["hit"] for row in detection.by_type)
    if missed_of_types > len(detection.areas_missed_px):
        rest += (
            f" Counted by type, {missed_of_types:,} of {of_types:,} "
            f"{'is' if missed_of_types == 1 else 'are'} missed: defects of two types that touch "
            "are one here."
        )
    return Finding(
        "met", f"All {len(hit):,} {defects} are found; the smallest has {min(hit):,} px.{rest}"
    )
