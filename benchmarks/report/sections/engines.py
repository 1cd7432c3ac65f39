"""TensorRT engines: what their sidecars say of build and precision."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from benchmarks.report.content import Section, Table
from benchmarks.report.results import Results
from tinyunet_deploy.artifacts.sidecar import Sidecar


def engines(results: Results) -> list[Section]:
    """Return one section for each plan."""
    timed = {measurement.model_sha256 for measurement in results.measurements}
    return [_section(path, plan, plan.sha256 in timed) for path, plan in results.plans.items()]


def _section(path: Path, plan: Sidecar, timed: bool) -> Section:
    origin = plan.origin
    audit = origin.get("precision_audit", {})
    section = Section(f"TensorRT engine {path.name}")
    engine = audit.get("engine")
    untested = audit.get("engine_not_inspected")
    section.lead = [
        f"Not inspected: {untested}."
        if untested
        else "Layers as TensorRT's own inspector reports them."
    ]
    gpu, profile, made = origin["gpu"], origin["profile"], origin["tensorrt"]
    parsed = audit.get("parsed_network") or {}
    where = f"{gpu['name'] or 'none at hand'}, compute capability {gpu['compute_capability']}"
    parameters = [
        ("precision", plan.precision),
        ("convolutions of the parsed network", _mix(parsed)),
        ("convolutions of the engine", _mix(engine)),
        ("plan size", f"{origin['plan_bytes'] / 2**20:.2f} MiB"),
        ("build time", f"{origin['build_s']:.1f} s"),
        (
            "batch, least / best / most",
            " / ".join(str(profile[limit]) for limit in ("min", "opt", "max")),
        ),
        ("GPU", where),
        ("TensorRT", f"{made['flavour']} {made['version']}"),
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
    section.commands = [origin["rebuild"]]
    return section


def _mix(types: dict[str, str] | None) -> str:
    """Count the layers of each type, the most common first."""
    if not types:
        return "not inspected"
    return ", ".join(f"{count} {type_}" for type_, count in Counter(types.values()).most_common())
