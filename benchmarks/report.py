"""One report of all results: HTML that opens from disk, or Markdown for a pull request.

Results are told apart by what is in them: `tinyunet benchmark`, `python -m benchmarks matrix`,
`tinyunet evaluate`, tinyunet parity, `tinyunet line-sim`, and the sidecars of TensorRT plans.
They are joined by the sha256 of the artifact and the name of the backend.
"""

from __future__ import annotations

import base64
import json
import shlex
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import cv2
import jinja2
import numpy as np
from markupsafe import Markup

from benchmarks import figures
from benchmarks.figures import MARKERS, Measured, Point, Series
from benchmarks.matrix import AGAIN
from tinyunet_deploy.artifact import KINDS, MODELS, Sidecar, read_sidecar
from tinyunet_deploy.backends import Backend, open_backend
from tinyunet_deploy.contract import defect_mask
from tinyunet_deploy.dagm2007 import Item, read_dataset, read_mask
from tinyunet_deploy.errors import ArtifactError, DataError
from tinyunet_deploy.files import read_regular, write_atomic
from tinyunet_deploy.images import overlay, read_image
from tinyunet_deploy.timing import Benchmark, Measurement, Roofline, read_benchmark

WORST: Final = 6
"""Images that are shown."""
THUMBNAIL: Final = 240
"""Side of one, pixels."""
_LARGEST: Final = 256 * 1024 * 1024


@dataclass
class Results:
    """Everything that was read; each with the file it came from."""

    benchmarks: dict[Path, Benchmark] = field(default_factory=dict)
    matrices: dict[Path, dict[str, Any]] = field(default_factory=dict)
    evaluations: dict[Path, dict[str, Any]] = field(default_factory=dict)
    parities: dict[Path, dict[str, Any]] = field(default_factory=dict)
    lines: dict[Path, dict[str, Any]] = field(default_factory=dict)
    plans: dict[Path, Sidecar] = field(default_factory=dict)
    """By the plan's path."""

    @property
    def measurements(self) -> list[Measurement]:
        """Of all benchmarks."""
        return [found for each in self.benchmarks.values() for found in each.measurements]


@dataclass(frozen=True)
class Table:
    """Text cells; columns from ``numbers`` on are set flush right."""

    head: tuple[str, ...]
    rows: list[tuple[str, ...]]
    numbers: int = 1


@dataclass(frozen=True)
class Picture:
    """A thumbnail as a data URI, and what is to be said of it."""

    uri: str
    title: str
    text: str


@dataclass
class Section:
    """One numbered part of the report."""

    title: str
    lead: list[str] = field(default_factory=list)
    svg: str | None = None
    tables: list[Table] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    """What made the figures."""
    absent: bool = False
    """There are no results for it; ``commands`` would make them."""


# --- reading ----------------------------------------------------------------------------------


def read_results(paths: Sequence[Path]) -> Results:
    """All results in files and folders. In a folder, what is no result is passed over.

    Raises:
        DataError: a file is no result, or there is none at all.
    """
    results = Results()
    for path in paths:
        if path.is_dir():
            runs = {found.parent for found in path.rglob("run.json")}
            for found in sorted(path.rglob("*.json")):
                if not any((run / "cells") in found.parents for run in runs):
                    _take(results, found)
        elif not _take(results, path):
            raise DataError(path, "is no result that the report knows", _COMMANDS)
    if not any(vars(results).values()):
        raise DataError(paths[0], "holds no result", _COMMANDS)
    return results


_COMMANDS: Final = (
    "they come from tinyunet benchmark, evaluate, parity, line-sim, build, "
    "and python -m benchmarks matrix"
)


def _take(results: Results, path: Path) -> bool:
    plan = path.with_suffix("")
    try:
        if plan.suffix in KINDS:
            if KINDS[plan.suffix] == "plan":
                results.plans[plan] = read_sidecar(plan)
            return KINDS[plan.suffix] == "plan"
        fields = json.loads(read_regular(path, limit=_LARGEST))
    except ArtifactError:
        raise
    except (OSError, ValueError) as error:
        raise DataError(path, f"cannot be read: {error}") from error
    keys = set(fields) if isinstance(fields, dict) else set()
    if not keys or fields.get("schema_version") != 1:
        return False
    if fields.get("kind") == "benchmark":
        results.benchmarks[path] = read_benchmark(path)
    elif fields.get("kind") == "matrix":
        results.matrices[path] = fields
    elif {"per_image", "mean", "model"} <= keys:
        results.evaluations[path] = fields
    elif {"comparisons", "reference"} <= keys:
        results.parities[path] = fields
    elif {"curve", "line", "max_miss_rate"} <= keys:
        results.lines[path] = fields
    else:
        return False
    return True


# --- writing ----------------------------------------------------------------------------------


def write_report(results: Results, output: Path, *, data: Path | None, command: str) -> None:
    """Write the report: ``.html`` or ``.md`` by the name.

    Args:
        data: the data set that was evaluated; its worst images are put into an HTML report.
        command: the one that makes this report, for its last line.

    Raises:
        DataError: the suffix is neither, or ``data`` is not what was evaluated.
    """
    if output.suffix not in (".html", ".md"):
        raise DataError(output, "is neither .html nor .md")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=output.suffix == ".html",
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["svg"] = Markup
    environment.filters["cell"] = lambda text: text.replace("|", "\\|").replace("\n", " ")
    text = environment.get_template(f"report{output.suffix}.j2").render(
        title=_title(results),
        facts=_facts(results),
        summary=_summary(results),
        key_figures=_key_figures(results),
        sections=_sections(results, data),
        command=command,
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(output, text.encode())


def _sections(results: Results, data: Path | None) -> list[Section]:
    return [
        _accuracy(results),
        _peers(results),
        _latency(results),
        _batches(results),
        _stages(results),
        _roofline(results),
        *_lines(results),
        _answers(results),
        _evaluations(results),
        _worst(results, data),
        *_engines(results),
        _machine(results),
    ]


# --- joining ----------------------------------------------------------------------------------


def _key(sha256: str, runner: str) -> tuple[str, str]:
    return sha256, runner


def _red(results: Results) -> dict[tuple[str, str], list[str]]:
    """(sha256, backend) -> every limit that its answers break, over all results."""
    found: dict[tuple[str, str], list[str]] = {}
    for path, parity in results.parities.items():
        for each in parity["comparisons"]:
            for check in each.get("checks", ()):
                if not check["holds"]:
                    found.setdefault(_key(each["sha256"], each["backend"]), []).append(
                        f"{check['figure']} is {check['value']:.3g}, {_wanted(check['limit'])}, "
                        f"on {parity['data']} ({parity['images']} images, {path.name})"
                    )
    for path, benchmark in results.benchmarks.items():
        for each in benchmark.red:
            for broken in each.check.broken:
                found.setdefault(_key(each.model_sha256, each.backend), []).append(
                    f"{broken.figure} {broken.value:.4g}, {broken.limit} wanted "
                    f"(the timed answers; {path.name})"
                )
    for path, matrix in results.matrices.items():
        for cell in matrix["cells"]:
            answers = cell["answers"]
            if answers and answers["holds"] is False:
                found.setdefault(_key(cell["model_sha256"], cell["runner"]), []).append(
                    f"agreement is {answers['agreement']:.4f}, {_wanted(answers['limit'])} ({path.name})"
                )
    return found


def _ours(results: Results) -> list[Measurement]:
    """Measurements of one image a call, fastest first."""
    alone = [found for found in results.measurements if found.batch_size == 1]
    return sorted(alone, key=lambda found: statistics.median(found.call.samples_ms))


def _best(results: Results) -> Measurement | None:
    """The fastest for one image whose answers no result calls red."""
    red = _red(results)
    for found in _ours(results):
        if found.check.outcome != "red" and _key(found.model_sha256, found.backend) not in red:
            return found
    return None


def _best_cell(results: Results) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """The same, of the first matrix: the matrix and our cell."""
    red = _red(results)
    for matrix in results.matrices.values():
        cells = [
            cell
            for cell in matrix["cells"]
            if cell["runner"] in MARKERS
            and cell["batch_size"] == 1
            and not cell["name"].endswith(AGAIN)
            and _key(cell["model_sha256"], cell["runner"]) not in red
        ]
        if cells:
            return matrix, min(cells, key=lambda cell: cell["median_ms_per_image"])
    return None


def _series(model: str, precision: str, backend: str) -> Series:
    return Series(f"{_stem(model)} · {backend}", precision, backend)


def _stem(model: str) -> str:
    return model.removesuffix(".onnx").removesuffix(".safetensors")


def _of(found: Measurement) -> Series:
    return _series(found.model, found.precision, found.backend)


# --- the top ----------------------------------------------------------------------------------


def _title(results: Results) -> str:
    return "TensorRT benchmark report" if results.plans else "Benchmark report"


def _facts(results: Results) -> list[tuple[str, str]]:
    """What stands beside the title."""
    found: dict[str, Any] = {}
    for benchmark in results.benchmarks.values():
        found.setdefault("date", benchmark.started_utc[:10])
    machine = _machines(results)
    facts = [("Date", found["date"])] if found else []
    if machine:
        first = machine[0]
        facts.append(("Machine", f"{first['processor']}, {first['processors']} processors"))
        facts.append(("System", first["system"]))
        facts.append(("Version", f"tinyunet_deploy {first['tinyunet_deploy']}"))
    return facts


def _machines(results: Results) -> list[dict[str, Any]]:
    """The different machines of all results that name theirs."""
    all_ = [each.machine for each in results.benchmarks.values()]
    tables = (results.matrices, results.parities, results.lines)
    all_ += [each["machine"] for table in tables for each in table.values() if "machine" in each]
    different: list[dict[str, Any]] = []
    for machine in all_:
        if machine not in different:
            different.append(machine)
    return different


def _summary(results: Results) -> list[str]:
    """Sentences for who reads nothing else."""
    said = []
    best = _best(results)
    if best is not None:
        latency = best.call
        said.append(
            f"The fastest configuration whose answers pass is {best.model} ({best.precision}) on "
            f"{best.backend}: {_ms(statistics.median(latency.samples_ms))} for one image, "
            f"{best.throughput.images_per_s:.3g} images per second."
        )
    cell = _best_cell(results)
    if cell is not None:
        matrix, ours = cell
        ratio = ours["times_as_fast"]
        said.append(
            f"In one run with its peers, {ours['name']} is {ratio['value']:.2f} times as fast as "
            f"{matrix['matrix']['reference']} (99 % interval {ratio['low']:.2f} to "
            f"{ratio['high']:.2f}, noise floor {matrix['noise']['floor']:.3f})."
        )
    for evaluation in _first_of_each_data(results):
        all_ = evaluation["all"]
        said.append(
            f"On {_data_name(evaluation)} {evaluation['model']['name']} finds defects with an IoU of "
            f"{_number(evaluation['mean']['iou_defective'])}, lets {all_['escapes']} of "
            f"{all_['defective']} defective parts through and rejects {all_['overkills']} of "
            f"{all_['images'] - all_['defective']} good ones."
        )
    said += map(_line_sentence, results.lines.values())
    for (sha256, backend), reasons in _red(results).items():
        said.append(
            f"Not to be shipped: {_name_of(results, sha256)} on {backend}: {reasons[0]}"
            + (f", and {len(reasons) - 1} more" if len(reasons) > 1 else "")
            + "."
        )
    return said or ["Nothing was timed; the sections below say which commands do that."]


def _name_of(results: Results, sha256: str) -> str:
    names = {found.model_sha256: found.model for found in results.measurements}
    for matrix in results.matrices.values():
        names |= {cell["model_sha256"]: cell["model"] for cell in matrix["cells"]}
    for parity in results.parities.values():
        names |= {each["sha256"]: each["model"] for each in parity["comparisons"]}
    return names.get(sha256, sha256[:12])


def _data_name(evaluation: dict[str, Any]) -> str:
    """``dagm2007 (class 1, test, 40 images)``."""
    data = evaluation["dataset"]
    classes = data["classes"]
    which = f"class {classes[0]}, " if len(classes) == 1 else f"{len(classes)} classes, "
    return (
        f"{data['name']} ({which if classes else ''}{data['split']}, {evaluation['images']} images)"
    )


def _first_of_each_data(results: Results) -> list[dict[str, Any]]:
    """One evaluation per data set: of the best configuration where it has one."""
    best = _best(results)
    chosen: dict[str, dict[str, Any]] = {}
    for evaluation in results.evaluations.values():
        name = json.dumps(evaluation["dataset"])
        ours = best is not None and (
            evaluation["model"]["sha256"],
            evaluation["backend"],
        ) == (best.model_sha256, best.backend)
        if name not in chosen or ours:
            chosen[name] = evaluation
    return list(chosen.values())


def _key_figures(results: Results) -> Table | None:
    """Parameter, condition, value, as on a data sheet."""
    rows: list[tuple[str, ...]] = []
    best = _best(results)
    if best is not None:
        where = f"{best.model}, {best.backend}, 1 image, n = {len(best.call.samples_ms)}"
        for name, label in (("p50", "typical (p50)"), ("p99", "p99"), ("p99_9", "p99.9")):
            value = best.call.percentile_ms(name)
            if value == value:
                rows.append((f"Latency, {label}", where, _ms(value)))
        rows.append(("Latency, worst seen", where, _ms(max(best.call.samples_ms))))
        end = statistics.median(best.end_to_end.samples_ms)
        rows.append(("File to verdict, typical", where, _ms(end)))
        rows.append(
            ("Throughput", f"{best.model}, {best.backend}, in memory",
             f"{best.throughput.images_per_s:.3g} images/s")
        )  # fmt: skip
        if best.roofline is not None:
            rows.append(
                ("Share of the roofline", f"{best.model}, {best.backend}, bound by {best.roofline.bound_by}",
                 f"{best.roofline.latency_percent:.0f} %")
            )  # fmt: skip
    cell = _best_cell(results)
    if cell is not None:
        matrix, ours = cell
        for other in matrix["cells"]:
            if other["runner"] not in MARKERS and other["precision"] == ours["precision"]:
                factor = other["median_ms_per_image"] / ours["median_ms_per_image"]
                rows.append(
                    ("Times as fast", f"{ours['name']} against {other['name']}", f"{factor:.2f} x")
                )
    for evaluation in _first_of_each_data(results):
        mean = evaluation["mean"]
        rows.append(
            ("IoU on defective images", _data_name(evaluation), _number(mean["iou_defective"]))
        )
        all_ = evaluation["all"]
        rows.append(("Escapes", _data_name(evaluation), f"{all_['escapes']} / {all_['defective']}"))
        good = all_["images"] - all_["defective"]
        rows.append(("Overkill", _data_name(evaluation), f"{all_['overkills']} / {good}"))
    for line in results.lines.values():
        speed = line["fastest_shown_parts_per_minute"]
        condition = f"deadline {line['line']['deadline_ms']:g} ms, {100 * line['max_miss_rate']:g} % may be missed"
        rows.append(("Safe line speed", condition, f"{speed:,.0f} / min" if speed else "not shown"))
    return Table(("Parameter", "Condition", "Value"), rows, numbers=2) if rows else None


# --- sections ---------------------------------------------------------------------------------


def _accuracy(results: Results) -> Section:
    section = Section("Accuracy against latency")
    speeds = _speeds(results)
    parity_of = [
        (path, parity)
        for path, parity in results.parities.items()
        if parity["truth"] and any(_joined(parity, speeds))
    ]
    if not parity_of:
        section.absent = True
        section.lead = ["It takes accuracy and latency of the same files."]
        section.commands = [
            "tinyunet parity DATA -m engines/ -o out",
            "tinyunet benchmark IMAGES -m engines/ -o benchmarks/results/benchmark.json",
        ]
        return section
    path, parity = parity_of[0]
    points = []
    reference = next(
        (each["iou_defective_of_reference"] for each in parity["comparisons"]
         if each.get("iou_defective_of_reference") is not None), None,
    )  # fmt: skip
    allowed = [
        float(check["limit"].removeprefix("<= "))
        for each in parity["comparisons"]
        for check in each.get("checks", ())
        if check["figure"] == "iou_drop"
    ]
    gate = reference - min(allowed) if reference is not None and allowed else None
    rows = []
    for each, ms in _joined(parity, speeds):
        series = _series(each["model"], each["precision"], each["backend"])
        points.append(Point(series, ms, each["iou_defective"]))
        rows.append(
            (series.label, f"{ms:.1f}", f"{each['iou_defective']:.4f}",
             f"{each['agreement']:.4f}", str(each["flips"]), each["outcome"])
        )  # fmt: skip
    deadlines = [line["line"]["deadline_ms"] for line in results.lines.values()]
    section.svg = figures.pareto(points, gate, min(deadlines, default=None))
    section.lead = [
        f"Accuracy of {parity['data']} ({parity['images']} images) as tinyunet parity counts it; "
        "the line joins what nothing else beats in both."
    ]
    if gate is not None:
        section.lead.append(
            f"The IoU gate is the reference's {reference:.4f} less the {min(allowed):g} allowed."
        )
    section.tables = [
        Table(
            ("", "ms/image", "iou_defective", "agreement", "flips", "gate"),
            sorted(rows, key=lambda row: float(row[1])),
        )
    ]
    section.commands = [_parity_command(parity, path), *_speed_commands(results)]
    return section


def _speeds(results: Results) -> dict[tuple[str, str], float]:
    """(sha256, backend) -> median ms per image at batch 1: of one matrix, else of benchmarks."""
    for matrix in results.matrices.values():
        return {
            _key(cell["model_sha256"], cell["runner"]): cell["median_ms_per_image"]
            for cell in matrix["cells"]
            if cell["batch_size"] == 1 and not cell["name"].endswith(AGAIN)
        }
    return {
        _key(found.model_sha256, found.backend): statistics.median(found.call.samples_ms)
        for found in _ours(results)
    }


def _speed_commands(results: Results) -> list[str]:
    if results.matrices:
        return [next(iter(results.matrices.values()))["command"]]
    return [each.command for each in results.benchmarks.values()]


def _joined(
    parity: dict[str, Any], speeds: dict[tuple[str, str], float]
) -> list[tuple[dict[str, Any], float]]:
    return [
        (each, speeds[key])
        for each in parity["comparisons"]
        if (key := _key(each["sha256"], each["backend"])) in speeds
        and each.get("iou_defective") is not None
    ]


def _peers(results: Results) -> Section:
    section = Section("Against the peers")
    if not results.matrices:
        section.absent = True
        section.lead = ["Ratios against what a user would run instead, in one run."]
        section.commands = ["python -m benchmarks matrix -o runs/matrix"]
        return section
    matrix = next(iter(results.matrices.values()))
    floor = matrix["noise"]["floor"]
    cells = sorted(matrix["cells"], key=lambda cell: cell["median_ms_per_image"])
    rows, table = [], []
    for cell in cells:
        ratio = cell["times_as_fast"]
        label = f"{_stem(cell['model'])} · {cell['runner']}"
        label += f" · {cell['batch_size']}" if cell["batch_size"] > 1 else ""
        label += AGAIN if cell["name"].endswith(AGAIN) else ""
        series = Series(label, cell["precision"], cell["runner"])
        rows.append((series, ratio["value"], ratio["low"], ratio["high"]))
        answers = cell["answers"]
        table.append(
            (label, f"{cell['median_ms_per_image']:.2f}", f"{ratio['value']:.2f}",
             f"{ratio['low']:.2f} to {ratio['high']:.2f}",
             "-" if answers is None else f"{answers['agreement']:.4f}")
        )  # fmt: skip
    section.svg = figures.ratios(rows, floor)
    section.lead = [
        f"Same {matrix['matrix']['images']} images, {matrix['matrix']['rounds']} rounds in drawn "
        f"order, every cell of every round its own process; against "
        f"{matrix['matrix']['reference']}, per image.",
        f"The same cell timed as two differs by a factor of up to {floor:.3f}: nothing inside "
        "that is a difference.",
    ]
    section.tables = [
        Table(
            (
                "model · runner · batch above 1",
                "ms/image",
                "times as fast",
                "99 % interval",
                "agreement",
            ),
            table,
        )
    ]
    section.notes = [matrix["statistics"]]
    section.notes += [
        f"{cell['what']}: {cell['boundary']}."
        for cell in {
            cell["runner"]: cell for cell in cells if cell["runner"] not in MARKERS
        }.values()
    ]
    section.notes += [f"Skipped: {each['name']}: {each['reason']}" for each in matrix["skipped"]]
    section.commands = [matrix["command"]]
    return section


def _latency(results: Results) -> Section:
    section = Section("Latency")
    alone = _ours(results)
    if not alone:
        return _no_benchmark(section, "Every call's time, none left out.")
    section.svg = figures.ecdf([(_of(found), found.call.samples_ms) for found in alone])
    first = next(iter(results.benchmarks.values()))
    section.lead = ["One image a call, every sample drawn."]
    names = ("p50", "p90", "p95", "p99", "p99_9")
    rows = []
    for found in sorted(results.measurements, key=lambda each: (each.batch_size, each.model)):
        series = found.call
        rows.append(
            (_of(found).label, str(found.batch_size), str(len(series.samples_ms)),
             *(_cell(series.percentile_ms(name)) for name in names),
             _cell(max(series.samples_ms)), _cell(found.first_inference_ms),
             _cell(found.load_ms))
        )  # fmt: skip
    head = (
        "ms per call",
        "batch",
        "n",
        "p50",
        "p90",
        "p95",
        "p99",
        "p99.9",
        "max",
        "first",
        "load",
    )
    section.tables = [Table(head, rows)]
    device = [
        (_of(found).label, str(found.batch_size),
         _cell(statistics.median(found.device_time.samples_ms)),
         _cell(statistics.median(found.call.samples_ms)),
         _cell(statistics.median(found.end_to_end.samples_ms)), found.check.outcome)
        for found in alone
    ]  # fmt: skip
    head = ("medians, ms", "batch", "device", "call", "file to verdict", "answers")
    section.tables.append(Table(head, device))
    section.notes = [first.timing_boundary, f"Percentiles: {first.percentile_formula}."]
    section.commands = [each.command for each in results.benchmarks.values()]
    return section


def _no_benchmark(section: Section, lead: str) -> Section:
    section.absent = True
    section.lead = [lead]
    section.commands = [
        "tinyunet benchmark IMAGES -m engines/ -o benchmarks/results/benchmark.json"
    ]
    return section


def _batches(results: Results) -> Section:
    section = Section("Batch size")
    groups: dict[Series, list[Measurement]] = {}
    for found in results.measurements:
        groups.setdefault(_of(found), []).append(found)
    rows, table = [], []
    for series, group in groups.items():
        group.sort(key=lambda found: found.batch_size)
        sizes = [found.batch_size for found in group]
        rates = [found.throughput.images_per_s for found in group]
        rows.append((series, sizes, rates))
        for found in group:
            windows = found.throughput.window_images_per_s
            table.append(
                (series.label, str(found.batch_size), f"{found.throughput.images_per_s:.2f}",
                 f"{min(windows):.2f} to {max(windows):.2f}" if windows else "-",
                 _cell(statistics.median(found.call.samples_ms)))
            )  # fmt: skip
    if not rows:
        return _no_benchmark(section, "Throughput and latency as batches grow.")
    section.svg = figures.batch_sweep(rows)
    section.lead = ["A backend that always has its next batch ready in memory."]
    head = ("", "batch", "images/s", "windows", "ms per call, p50")
    section.tables = [Table(head, table)]
    section.commands = [each.command for each in results.benchmarks.values()]
    return section


def _stages(results: Results) -> Section:
    section = Section("Where the time goes")
    tables = [table for each in results.benchmarks.values() for table in each.stages]
    if not tables:
        return _no_benchmark(section, "From file to mask and report, stage by stage.")
    labels = [(f"{_stem(table.model)}\n{table.backend} · {table.mode}", table) for table in tables]
    section.svg = figures.stages(labels)
    worst = max(abs(table.unaccounted_share) for table in tables)
    section.lead = [
        "An image's own way from file to mask and line of the report. In the pipeline images "
        "overlap, so that way is longer than the time between two images.",
        f"At most {100 * worst:.1f} % is unaccounted for.",
    ]
    names = list(dict.fromkeys(row.stage for table in tables for row in table.rows))
    rows = []
    for name in names:
        by = [next((row for row in table.rows if row.stage == name), None) for table in tables]
        rows.append((name, *("-" if row is None else _cell(row.ms_per_image) for row in by)))
    rows.append(("sum", *(_cell(table.total_ms_per_image) for table in tables)))
    rows.append(("images/s", *(f"{table.images_per_s:.2f}" for table in tables)))
    rows.append(("of the raw backend", *(f"{100 * table.share_of_raw:.0f} %" for table in tables)))
    head = ("ms per image", *(label.replace("\n", " ") for label, _ in labels))
    section.tables = [Table(head, rows)]
    section.commands = [each.command for each in results.benchmarks.values() if each.stages]
    return section


def _roofline(results: Results) -> Section:
    section = Section("The limit of this machine")
    chosen = next(
        (each for each in results.benchmarks.values()
         if each.ceilings and any(found.roofline for found in each.measurements)), None,
    )  # fmt: skip
    if chosen is None:
        return _no_benchmark(section, "Measured ceilings against the network's own needs.")
    points, rows = [], []
    for found in chosen.measurements:
        roof = found.roofline
        if roof is not None:
            label = Series(
                f"{_of(found).label} · {found.batch_size}", found.precision, found.backend
            )
            points.append(Measured(label, _intensity(roof, found.batch_size), roof.gflop_per_s))
            rows.append(
                (label.label, f"{roof.gflop_per_s:,.0f}", _cell(roof.bound_ms), roof.bound_by,
                 f"{roof.latency_percent:.0f} %", f"{roof.throughput_percent:.0f} %")
            )  # fmt: skip
    section.svg = figures.roofline(points, chosen.ceilings)
    section.lead = [
        "Rates reached, below what this machine reached in the same run on nothing but matrix "
        "products and copies."
    ]
    head = ("model · backend · batch", "GFLOP/s", "least ms", "bound by", "latency", "throughput")
    section.tables = [
        Table(head, rows),
        Table(
            ("ceiling", "kind", "value", "what was run"),
            [(c.name, c.kind, f"{c.value:,.3g} {c.unit}", c.what) for c in chosen.ceilings],
            numbers=4,
        ),
    ]
    section.notes = [
        "Least time of a batch = max(sum(FLOP / rate), least bytes / bandwidth) (Williams, "
        "Waterman, Patterson 2009); percentages are that over the measured time."
    ]
    section.commands = [chosen.command]
    return section


def _intensity(roof: Roofline, batch: int) -> float:
    return sum(roof.flop_per_image.values()) * batch / roof.minimum_bytes


def _lines(results: Results) -> list[Section]:
    if not results.lines:
        section = Section("Line speed", absent=True)
        section.lead = ["How fast the belt may run before parts reach the gate without a verdict."]
        section.commands = [
            "tinyunet line-sim IMAGES -m MODEL --parts-per-minute 300 --deadline-ms 300 "
            "-o benchmarks/results/line.json"
        ]
        return [section]
    sections = []
    for path, line in results.lines.items():
        section = Section("Line speed")
        section.svg = figures.line_speed(
            line["curve"],
            line["max_miss_rate"],
            line["fastest_shown_parts_per_minute"],
            line["line"]["parts_per_minute"],
        )
        section.lead = [_line_sentence(line)]
        rows = []
        for name, each in (("as asked", line), ("verified live", line.get("verified"))):
            if each is not None:
                found = each["outcome"]
                rows.append(
                    (name, f"{each['line']['parts_per_minute']:,.0f}",
                     f"{found['missed']} / {found['parts']}",
                     f"{100 * found['miss_rate_bound']:.2g} %", str(found["longest_run"]),
                     _cell(found["p50_ms"]), _cell(found["p99_ms"]), _cell(found["p999_ms"]))
                )  # fmt: skip
        head = ("", "parts/min", "missed", "at most", "longest run", "p50 ms", "p99 ms", "p99.9 ms")
        section.tables = [Table(head, rows)]
        section.notes = [f"{name}: {text}." for name, text in line.get("formulas", {}).items()]
        section.commands = [_line_command(line, path)]
        sections.append(section)
    return sections


def _line_sentence(line: dict[str, Any]) -> str:
    belt = line["line"]
    what = f"{line['model']} on {line['backend']}" if "model" in line else "The recorded times"
    shown = line["fastest_shown_parts_per_minute"]
    allowed = f"{100 * line['max_miss_rate']:g} %"
    if shown:
        return (
            f"With {what} the belt may run at {shown:,.0f} parts per minute, if {belt['deadline_ms']:g} ms "
            f"pass from trigger to gate and {allowed} of the parts may be missed."
        )
    return f"{what} showed no line speed at which at most {allowed} of the parts are missed."


def _line_command(line: dict[str, Any], path: Path) -> str:
    belt = line["line"]
    words = ["tinyunet", "line-sim"]
    words += (
        ["IMAGES", "-m", line["model"], "--backend", line["backend"]]
        if "model" in line
        else ["--replay", "TIMES.json"]
    )
    words += ["--parts-per-minute", f"{belt['parts_per_minute']:g}"]
    words += ["--deadline-ms", f"{belt['deadline_ms']:g}"]
    words += ["--cameras", str(belt["cameras"]), "--processes", str(belt["processes"])]
    words += ["--buffer", str(belt["buffer"]), "--jitter", f"{belt['jitter']:g}"]
    words += ["--max-miss-rate", f"{line['max_miss_rate']:g}", "-o", str(path)]
    return shlex.join(words)


def _answers(results: Results) -> Section:
    section = Section("Whether it answers as the network did")
    if not results.parities:
        section.absent = True
        section.lead = ["Every artifact on every backend against its checkpoint."]
        section.commands = ["tinyunet parity DATA -m engines/ -o out"]
        return section
    for path, parity in results.parities.items():
        rows = []
        for each in parity["comparisons"]:
            series = _series(each["model"], each["precision"], each["backend"])
            if "skipped" in each:
                section.notes.append(f"Skipped: {series.label}: {each['skipped']}")
                continue
            drop = each["iou_drop"]
            broken = [check for check in each["checks"] if not check["holds"]]
            section.notes += [
                f"Red: {series.label}, {parity['data']}: {check['figure']} is "
                f"{check['value']:.3g}, {_wanted(check['limit'])}: {check['reason']}."
                for check in broken
            ]
            rows.append(
                (series.label, str(each["largest_steps"]), str(each["p999_steps"]),
                 f"{each['agreement']:.5f}", str(each["flips"]),
                 "-" if drop is None else f"{-drop:+.4f}", each["outcome"])
            )  # fmt: skip
        head = (
            f"{parity['data']}, {parity['images']} images", "largest step", "p99.9 step",
            "agreement", "verdicts flipped", "IoU change", "gate",
        )  # fmt: skip
        section.tables.append(Table(head, rows))
        section.commands.append(_parity_command(parity, path))
    section.lead = ["A step is 1/255 of probability; agreement is the IoU of the two masks."]
    return section


def _parity_command(parity: dict[str, Any], path: Path) -> str:
    models = dict.fromkeys(each["model"] for each in parity["comparisons"])
    words = ["tinyunet", "parity", parity["data"]]
    for model in models:
        words += ["-m", f"engines/{model}"]
    words += ["--reference", parity["reference"]["name"], "-o", "FOLDER"]
    return f"{shlex.join(words)}  # parity.json kept as {path.name}"


def _evaluations(results: Results) -> Section:
    section = Section("How well it finds defects")
    if not results.evaluations:
        section.absent = True
        section.lead = ["IoU, escapes and overkill on labelled images."]
        section.commands = ["tinyunet evaluate DATA -m MODEL -o benchmarks/results/NAME.json"]
        return section
    rows = []
    for path, each in results.evaluations.items():
        mean, all_ = each["mean"], each["all"]
        good = all_["images"] - all_["defective"]
        rows.append(
            (f"{each['model']['name']} · {each['backend']}, {_data_name(each)}",
             _number(mean["iou_defective"]), _number(mean["iou_global"]), _number(mean["dice"]),
             _number(mean["dice_nothing"]), f"{all_['escapes']} / {all_['defective']}",
             f"{all_['overkills']} / {good}", _number(mean["auroc"]))
        )  # fmt: skip
        data = each["dataset"]
        section.commands.append(
            shlex.join(
                [
                    "tinyunet",
                    "evaluate",
                    data["name"],
                    "-m",
                    each["model"]["name"],
                    "--backend",
                    each["backend"],
                    *(
                        ["--classes", ",".join(map(str, data["classes"]))]
                        if data["classes"]
                        else []
                    ),
                    "--split",
                    data["split"],
                    "-o",
                    str(path),
                ]
            )  # fmt: skip
        )
    head = (
        "",
        "iou_defective",
        "iou_global",
        "dice",
        "dice of nothing",
        "escapes",
        "overkill",
        "AUROC",
    )
    section.tables = [Table(head, rows)]
    formulas = next(iter(results.evaluations.values()))
    section.notes = [f"Notation: {formulas['notation']}."]
    section.notes += [f"{name}: {text}." for name, text in formulas["formulas"].items()]
    return section


# --- worst images -----------------------------------------------------------------------------


def _worst(results: Results, data: Path | None) -> Section:
    section = Section("The worst images")
    evaluations = [
        each
        for each in results.evaluations.values()
        if data is None or each["dataset"]["name"] == data.resolve().name
    ]
    if not evaluations:
        if data is not None:
            raise DataError(data, "is not the data set of any evaluation among the results")
        section.absent = True
        section.lead = ["Escapes, false alarms and poor outlines, one by one."]
        section.commands = ["tinyunet evaluate DATA -m MODEL -o benchmarks/results/NAME.json"]
        return section
    names = {id(each) for each in _first_of_each_data(results)}
    evaluation = next((each for each in evaluations if id(each) in names), evaluations[0])
    worst = sorted(evaluation["per_image"], key=lambda image: _badness(image, evaluation))[:WORST]
    section.lead = [
        f"Of {_data_name(evaluation)} by {evaluation['model']['name']} on {evaluation['backend']}: "
        "escapes first, then false alarms, then the poorest outlines."
    ]
    section.tables = [
        Table(
            ("image", "truth px", "predicted px", "in both px", "verdict"),
            [
                (
                    image["name"],
                    f"{image['truth_px']:,}",
                    f"{_pixels(image, evaluation)[0]:,}",
                    f"{_pixels(image, evaluation)[1]:,}",
                    _fault(image),
                )
                for image in worst
            ],  # fmt: skip
        )
    ]
    if data is None:
        section.notes = ["The pictures are drawn where --data gives the folder of the images."]
    else:
        section.pictures = _pictures(worst, evaluation, data)
        section.notes = ["Left the image with its label outlined, right with what is found."]
    return section


def _pixels(image: dict[str, Any], evaluation: dict[str, Any]) -> tuple[int, int]:
    """Predicted pixels, and those that are in the truth too, at the operating threshold."""
    threshold = str(evaluation["threshold"])
    return image["predicted_px"][threshold], image["intersection_px"][threshold]


def _badness(image: dict[str, Any], evaluation: dict[str, Any]) -> tuple[int, float]:
    predicted, both = _pixels(image, evaluation)
    if image["defective"] and image["verdict"] == "OK":
        return 0, -image["truth_px"]
    if not image["defective"] and image["verdict"] == "NG":
        return 1, -predicted
    union = image["truth_px"] + predicted - both
    return 2, both / union if union and image["defective"] else 1.0


def _fault(image: dict[str, Any]) -> str:
    right = "NG" if image["defective"] else "OK"
    if image["verdict"] == right:
        return str(image["verdict"])
    return "OK: an escape" if image["defective"] else "NG: a false alarm"


def _pictures(
    worst: Sequence[dict[str, Any]], evaluation: dict[str, Any], data: Path
) -> list[Picture]:
    items = {
        item.image.relative_to(dataset.root).as_posix(): item
        for dataset in [read_dataset(data)]
        for item in dataset.items
    }
    backend = _backend_of(evaluation)
    pictures = []
    for image in worst:
        item = items.get(image["name"])
        if item is None:
            raise DataError(data / image["name"], "was evaluated and is not there")
        predicted, both = _pixels(image, evaluation)
        union = image["truth_px"] + predicted - both
        pictures.append(
            Picture(
                _thumbnail(item, image, evaluation["threshold"], backend),
                image["name"],
                f"{_fault(image)}, IoU {both / union:.2f}" if union else _fault(image),
            )
        )
    if backend is not None:
        backend.close()
    return pictures


def _backend_of(evaluation: dict[str, Any]) -> Backend | None:
    """The evaluated artifact among the package's models and in engines/; None if it is not there."""
    for folder in (MODELS, Path("engines")):
        for path in sorted(folder.glob("*.json")):
            artifact = path.with_suffix("")
            if artifact.suffix in KINDS and artifact.is_file():
                try:
                    found = read_sidecar(artifact).sha256
                except ArtifactError:
                    continue
                if found == evaluation["model"]["sha256"]:
                    return open_backend(artifact, evaluation["backend"])
    return None


def _thumbnail(
    item: Item, counts: dict[str, Any], threshold: float, backend: Backend | None
) -> str:
    """The image with its label, and beside it with the prediction, as a JPEG in a data URI."""
    image = read_image(item.image)
    truth = read_mask(item, (image.shape[0], image.shape[1]))
    if int(np.count_nonzero(truth)) != counts["truth_px"]:
        raise DataError(item.image, "is not the image that was evaluated", "another data set?")
    views = [overlay(image, truth)]
    if backend is not None:
        score = backend.run(image[None, None]).score[0, 0]
        views.append(overlay(image, defect_mask(score, threshold)))
    small = [cv2.resize(v, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA) for v in views]
    done, jpeg = cv2.imencode(".jpg", np.hstack(small), [cv2.IMWRITE_JPEG_QUALITY, 82])
    assert done
    return "data:image/jpeg;base64," + base64.b64encode(jpeg.tobytes()).decode()


# --- engines and machine ----------------------------------------------------------------------


def _engines(results: Results) -> list[Section]:
    sections = []
    for path, plan in results.plans.items():
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
        gpu, profile = origin["gpu"], origin["profile"]
        section.tables = [
            Table(
                ("Parameter", "Value"),
                [
                    ("precision", plan.precision),
                    ("convolutions of the parsed network", _mix(audit.get("parsed_network"))),
                    ("convolutions of the engine", _mix(engine)),
                    ("plan size", f"{origin['plan_bytes'] / 2**20:.2f} MiB"),
                    ("build time", f"{origin['build_s']:.1f} s"),
                    ("batch, least / best / most", " / ".join(str(profile[k]) for k in ("min", "opt", "max"))),
                    ("GPU", f"{gpu['name'] or 'none at hand'}, compute capability {gpu['compute_capability']}"),
                    ("TensorRT", f"{origin['tensorrt']['flavour']} {origin['tensorrt']['version']}"),
                ],
            ),
            Table(
                ("layer", "parsed network", "engine"),
                [
                    (name, type_, (engine or {}).get(name, "not inspected"))
                    for name, type_ in (audit.get("parsed_network") or {}).items()
                ],
            ),
        ]  # fmt: skip
        timed = [found for found in results.measurements if found.model_sha256 == plan.sha256]
        if not timed:
            section.notes = ["This engine was not timed: no result has its sha256."]
        section.commands = [origin["rebuild"]]
        sections.append(section)
    return sections


def _mix(types: dict[str, str] | None) -> str:
    if not types:
        return "not inspected"
    return ", ".join(f"{count} {type_}" for type_, count in Counter(types.values()).most_common())


def _machine(results: Results) -> Section:
    section = Section("The machine")
    machines = _machines(results)
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
    keys = list(dict.fromkeys(key for machine in machines for key in machine))
    rows = [
        (key.replace("_", " "), *(str(machine.get(key, "-")) for machine in machines))
        for key in keys
    ]
    section.tables = [Table(("", *("" for _ in machines)), rows, numbers=len(machines) + 1)]
    versions: dict[str, str] = {}
    for found in results.measurements:
        versions |= found.versions
    for matrix in results.matrices.values():
        for each in matrix["versions"].values():
            versions |= each
    rows = [(name, version) for name, version in sorted(versions.items())]
    models = {found.model: found.model_sha256 for found in results.measurements}
    for matrix in results.matrices.values():
        models |= {cell["model"]: cell["model_sha256"] for cell in matrix["cells"]}
    rows += [(f"sha256 of {name}", sha256) for name, sha256 in sorted(models.items())]
    if rows:
        section.tables.append(Table(("", ""), rows, numbers=2))
    for found in results.measurements:
        now = found.clocks_after.cpu_throttle_count
        before = found.clocks_before.cpu_throttle_count
        if now is not None and before is not None and now > before:
            section.notes.append(f"{_of(found).label}: the processor was throttled for heat.")
        if found.clocks_after.gpu_throttle_reasons:
            reasons = ", ".join(found.clocks_after.gpu_throttle_reasons)
            section.notes.append(f"{_of(found).label}: the GPU was held back: {reasons}.")
    section.commands = ["tinyunet doctor"]
    return section


# --- words ----------------------------------------------------------------------------------


def _wanted(limit: str) -> str:
    """``<= 0.005`` in words."""
    side, _, value = limit.partition(" ")
    return f"at {'most' if side == '<=' else 'least'} {value} wanted"


def _ms(value: float) -> str:
    return f"{value:.3g} ms" if value < 100 else f"{value:.0f} ms"


def _cell(value: float | None) -> str:
    if value is None or value != value:
        return "-"
    return f"{value:.2f}" if value < 100 else f"{value:,.0f}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
