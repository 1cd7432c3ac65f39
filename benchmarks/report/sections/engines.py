"""Section on TensorRT engines: build and precision, from their sidecars."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from benchmarks.report.content import Section, Table
from benchmarks.report.results import Results
from tinyunet_deploy.artifacts.facts import PrecisionAudit
from tinyunet_deploy.artifacts.sidecar import Sidecar


def engines(results: Results) -> list[Section]:
    """Return one section for each plan."""
    timed = {measurement.model_sha256 for measurement in results.measurements}
    return [_section(path, plan, plan.sha256 in timed) for path, plan in results.plans.items()]


def _section(path: Path, plan: Sidecar, timed: bool) -> Section:
    facts = plan.plan
    assert facts is not None, f"{path} was read as a plan"
    audit = facts.audit or PrecisionAudit({}, None)
    section = Section(f"TensorRT engine {path.name}")
    engine, untested = audit.engine, audit.not_inspected
    section.lead = [
        f"Not inspected: {untested}."
        if untested
        else "Layers as TensorRT's own inspector reports them."
    ]
    parsed = audit.parsed_network
    where = f"{facts.gpu_name or 'none at hand'}, compute capability {facts.compute_capability}"
    parameters = [
        ("precision", plan.precision),
        ("convolutions of the parsed network", _mix(parsed)),
        ("convolutions of the engine", _mix(engine)),
        ("plan size", _with_unit(facts.size_bytes, 2**20, ".2f", "MiB")),
        ("build time", _with_unit(facts.build_s, 1, ".1f", "s")),
        ("batch, least / best / most", " / ".join(map(str, facts.profile.sizes))),
        ("GPU", where),
        ("TensorRT", f"{facts.flavour} {facts.version}"),
    ]
    layers = [
        (name, type_, (engine or {}).get(name, "not inspected")) for name, type_ in parsed.items()
    ]
    section.tables = [
        Table(("Parameter", "Value"), parameters, numbers=2),
        Table(("layer", "parsed network", "engine"), layers, numbers=3),
    ]
    if not timed:
        section.notes = ["This engine was not timed on hardware: no result has its sha256."]
    section.commands = [facts.rebuild]
    return section


def _with_unit(value: float | None, divisor: int, digits: str, unit: str) -> str:
    return "not recorded" if value is None else f"{value / divisor:{digits}} {unit}"


def _mix(types: dict[str, str] | None) -> str:
    """Count the layers of each type, the most common first."""
    if not types:
        return "not inspected"
    return ", ".join(f"{count} {type_}" for type_, count in Counter(types.values()).most_common())
