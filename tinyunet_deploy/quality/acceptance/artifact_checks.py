"""Decide the requirements on the artifact: its answers, its batches and its lineage."""

from __future__ import annotations

from tinyunet_deploy.quality.acceptance.evidence import Evidence
from tinyunet_deploy.quality.acceptance.finding import Finding
from tinyunet_deploy.quality.acceptance.requirements import Requirements
from tinyunet_deploy.quality.acceptance.wording import count

__all__ = ["check_batches", "check_lineage", "check_parity", "check_self_test"]


def check_parity(_: Requirements, evidence: Evidence) -> Finding:
    """The artifact must keep the limits of parity against another file than itself.

    An adopted file has no other: it was compared with its original when it was adopted, and is
    compared with itself only to show that its backend answers as the others.
    """
    comparison = evidence.parity
    if comparison is None:
        return Finding("not shown", "The artifact was not compared with a reference.")
    if comparison.skipped is not None:
        return Finding("not shown", f"The artifact was not compared: {comparison.skipped}.")
    if comparison.vacuous is not None and comparison.proof is None:
        return Finding(
            "not shown",
            f"The artifact was compared with itself only, as {comparison.vacuous}.",
            "give its checkpoint: `--reference CHECKPOINT`, or `--search` with the folder of the "
            "checkpoint or adopted file that it was made from",
        )
    if comparison.otherwise is not None and not comparison.tuned:
        return Finding(
            "not met",
            f"The artifact {comparison.otherwise}, and it was not tuned itself.",
            comparison.hint,
        )
    broken = [check for check in comparison.checks if not check.holds]
    against = f"on {count(comparison.images, 'image')} against {comparison.reference}"
    if broken:
        first = broken[0]
        return Finding(
            "not met",
            f"{first.figure} is {first.value:.4g}, but must be {first.limit}, {against}."
            + (f" {_more_broken(len(broken) - 1)}" if len(broken) > 1 else ""),
            "`tinyunet parity --explain` names the stage at which the two first differ",
        )
    if not comparison.checks:
        return Finding("not shown", "No limit of parity applies to this precision.")
    kept = count(len(comparison.checks), "limit")
    rule = ""
    if comparison.otherwise is not None:
        rule = f" By the artifact's own rule for both: it was tuned and {comparison.otherwise}."
    proof = "" if comparison.proof is None else f"When {comparison.proof}. "
    return Finding("met", f"{proof}{kept} of parity kept {against}.{rule}")


def _more_broken(number: int) -> str:
    return f"{count(number, 'more limit')} {'is' if number == 1 else 'are'} broken."


def check_batches(_: Requirements, evidence: Evidence) -> Finding:
    """The scores of batches must be those of single images."""
    batches = evidence.batches
    if batches is None or batches.check is None:
        return Finding("not shown", "No batches were compared with single images.")
    sizes = ", ".join(map(str, batches.sizes))
    check = batches.check
    shown = f"scores in batches of {sizes} differ from those of single images by {check.value:g}"
    if not check.holds:
        return Finding(
            "not met",
            f"The {shown} of 255; allowed: {check.limit}.",
            "run the model with a batch of one",
        )
    return Finding("met", f"The {shown} of 255 at most; allowed: {check.limit}.")


def check_self_test(_: Requirements, evidence: Evidence) -> Finding:
    """The artifact must return its golden scores."""
    result = evidence.self_test
    if result is None or result.outcome == "missing":
        return Finding(
            "not shown",
            "The artifact has no golden images.",
            "export or build it again; that writes them",
        )
    if result.outcome == "failed":
        return Finding("not met", f"{result.detail}.", "export or build the artifact again")
    return Finding("met", f"{result.detail}.")


def check_lineage(_: Requirements, evidence: Evidence) -> Finding:
    """The artifact and its ancestors must be unchanged, back to where the network came from."""
    changed = [link for link in evidence.lineage if link.outcome == "changed"]
    if changed:
        return Finding(
            "not met",
            f"{changed[0].name} {changed[0].detail}.",
            "take the file from where it was made, or make it again",
        )
    for link in evidence.lineage:
        if link.outcome == "unchecked":
            return Finding(
                "not shown",
                f"{link.name} has no sidecar, so nothing says what it was made from.",
                "accept a model with a sidecar: tinyunet adopt, or python -m export",
            )
        if link.outcome == "missing":
            return Finding(
                "not shown",
                f"The ancestor {link.sha256[:12]}... was not found.",
                "give its folder: `--search DIR`",
            )
    last = evidence.lineage[-1]
    if last.kind not in ("checkpoint", "adopted"):
        return Finding("not shown", f"The lineage ends at {last.name}, a file of {last.kind}.")
    names = " from ".join(link.name or "" for link in evidence.lineage)
    return Finding("met", f"Unchanged by sha256, back to the {last.kind} file: {names}.")
