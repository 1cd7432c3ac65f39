"""The table of an adoption: what was found in the file, what the contract wants, what was done."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tinyunet_deploy.artifacts.facts import AdoptionFacts
from tinyunet_deploy.artifacts.onnx_guard import GraphEnds
from tinyunet_deploy.artifacts.sidecar import Sidecar
from tinyunet_deploy.quality.adoption_proof import MOST_STEPS, Proof

__all__ = ["Row", "adoption_table"]


class Row(NamedTuple):
    """One line of the table."""

    what: str
    found: str
    wanted: str
    done: str


def adoption_table(
    ends: GraphEnds,
    channels: int,
    facts: AdoptionFacts,
    sidecar: Sidecar,
    reason: str,
    proof: Proof,
    note: str | None = None,
) -> tuple[Row, ...]:
    """Return the rows of an adoption.

    Args:
        ends: inputs and outputs of the original.
        channels: number of its output channels.
        reason: where the activation is known from.
        note: why the reach was not measured.
    """
    contract, network = sidecar.contract, sidecar.network
    size = f"{contract.height}x{contract.width}"
    classes = ", ".join(map(str, facts.defect_channels))
    normalized = "none, it takes the bytes"
    if facts.mean is not None and facts.std is not None:
        numbers = (" ".join(f"{value:g}" for value in values) for values in (facts.mean, facts.std))
        low, high = _normalized_range(facts.mean, facts.std)
        normalized = "(grey - {}) / {}".format(*numbers) + f": {low:.3g} to {high:.3g}"
    reach = "a score may depend on the whole image: tiles only approximate, seams are possible"
    if network is not None and network.reach is not None:
        reach = f"{network.reach[0]} px before, {network.reach[1]} px after"
    if note is not None:
        reach = f"{note}; until then, {reach}"
    multiple = "unknown" if network is None else network.size_multiple or "unknown"
    repeated = "grey repeated to 3" if facts.input_channels == 3 else "-"
    stated = "in the graph" if facts.mean is None else "not in the file"
    batch = "free" if facts.batch == "free" else "fixed at 1"
    several = f", their {facts.combine}" if len(facts.defect_channels) > 1 else ""
    return (
        Row("input", str(ends.inputs[0]), "image uint8 [N, 1, H, W]", f"from {facts.input_layout}"),
        Row("channels", str(facts.input_channels), "1", repeated),
        Row("normalisation", stated, "in the graph", normalized),
        Row("output", ", ".join(map(str, ends.outputs)), "score uint8 [N, 1, H, W]", "from "
            + facts.output_layout),
        Row("activation", reason, "probability of a defect", facts.activation),
        Row("classes", str(channels), "1", f"{classes} are defects{several}"),
        Row("batch", str(ends.inputs[0].dims[0] or "free"), "free", batch),
        Row("size", facts.size, "fixed", f"{size}, size multiple {multiple}"),
        Row("reach", facts.reach, "known", reach),
        Row("proof", f"{proof.largest_steps} of 255 on {proof.images} images, mean "
            f"{proof.mean_steps:.2g}", f"at most {MOST_STEPS} of 255",
            f"scores {proof.lowest_score} to {proof.highest_score}"),
    )  # fmt: skip


def _normalized_range(mean: Sequence[float], std: Sequence[float]) -> tuple[float, float]:
    """Return the values that grey values 0 and 255 become, the lowest and highest of the channels.

    Shown because a wrong normalisation gives plausible scores: most networks expect about -2..3.
    """
    number = max(len(mean), len(std))
    pairs = [
        (mean[min(channel, len(mean) - 1)], std[min(channel, len(std) - 1)])
        for channel in range(number)
    ]
    return min(-m / s for m, s in pairs), max((255 - m) / s for m, s in pairs)
