"""Section on the machine, the versions and the model files of the results."""

from __future__ import annotations

from benchmarks.report.content import Section, Table
from benchmarks.report.joins import machines_of, series_of
from benchmarks.report.results import Results


def machine(results: Results) -> Section:
    """Return the section on the machines, versions and models of all results."""
    section = Section("The machine")
    machines = machines_of(results)
    if not machines:
        section.absent = True
        section.lead = ["None of the results names its machine."]
        section.commands = ["tinyunet benchmark IMAGES -o benchmarks/results/benchmark.json"]
        return section
    if len(machines) > 1:
        section.lead = [
            f"The results come from {len(machines)} machines or versions: compare times only "
            "within one result."
        ]
    names = dict.fromkeys(name for facts in machines for name in facts)
    rows = [
        (name.replace("_", " "), *(str(facts.get(name, "-")) for facts in machines))
        for name in names
    ]
    section.tables = [Table(("", *("" for _ in machines)), rows, numbers=len(machines) + 1)]
    versions = _versions_and_models(results)
    if versions:
        section.tables.append(Table(("", ""), versions, numbers=2))
    section.notes = _throttling(results)
    return section


def _versions_and_models(results: Results) -> list[tuple[str, str]]:
    versions: dict[str, str] = {}
    for measurement in results.measurements:
        versions |= measurement.versions
    models = {measurement.model: measurement.model_sha256 for measurement in results.measurements}
    for matrix in results.matrices.values():
        for of_runner in matrix["versions"].values():
            versions |= of_runner
        models |= {cell["model"]: cell["model_sha256"] for cell in matrix["cells"]}
    return [
        *sorted(versions.items()),
        *((f"sha256 of {name}", sha256) for name, sha256 in sorted(models.items())),
    ]


def _throttling(results: Results) -> list[str]:
    notes = []
    for measurement in results.measurements:
        label = series_of(measurement).label
        after = measurement.clocks_after.cpu_throttle_count
        before = measurement.clocks_before.cpu_throttle_count
        if after is not None and before is not None and after > before:
            notes.append(f"{label}: the processor was throttled for heat.")
        if measurement.clocks_after.gpu_throttle_reasons:
            reasons = ", ".join(measurement.clocks_after.gpu_throttle_reasons)
            notes.append(f"{label}: the GPU was held back: {reasons}.")
    return notes
