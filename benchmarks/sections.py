"""The numbered parts of the report."""

from __future__ import annotations

import shlex
import statistics
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks import figures
from benchmarks.figures import MARKERS, Measured, Point, Series
from benchmarks.gather import (
    Results,
    as_series,
    data_name,
    machines_of,
    number,
    one_by_one,
    p50,
    red_answers,
    series_of,
    share,
    speeds_of,
    stem,
    wanted,
)
from benchmarks.matrix import AGAIN
from tinyunet_deploy.speed.benchmark_result import Measurement, Roofline


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


# --- sections ---------------------------------------------------------------------------------


def accuracy(results: Results) -> Section:
    section = Section("Accuracy against latency")
    speeds = speeds_of(results)
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
    points, elsewhere = [], red_answers(results)
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
        series = as_series(each["model"], each["precision"], each["backend"])
        red = each["outcome"] == "red" or (each["sha256"], each["backend"]) in elsewhere
        points.append(Point(series, ms, each["iou_defective"], not red))
        rows.append(
            (series.label, f"{ms:.1f}", f"{each['iou_defective']:.4f}",
             f"{each['agreement']:.4f}", str(each["flips"]), each["outcome"])
        )  # fmt: skip
    deadlines = [line["line"]["deadline_ms"] for line in results.lines.values()]
    section.svg = figures.pareto(points, gate, min(deadlines, default=None))
    section.lead = [
        f"Accuracy of {parity['data']} ({parity['images']} images) as tinyunet parity counts it; "
        "the line joins what no other that passes beats in both; hollow fails a limit, here or on "
        "other images."
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
        if (key := (each["sha256"], each["backend"])) in speeds
        and each.get("iou_defective") is not None
    ]


def peers(results: Results) -> Section:
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
        label = f"{stem(cell['model'])} · {cell['runner']}"
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
        "that, grey in the figure, is a difference.",
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
    others = {cell["runner"]: cell for cell in cells if cell["runner"] not in MARKERS}
    section.notes += [
        f"{runner}: {cell['what']}; {cell['boundary']}." for runner, cell in others.items()
    ]
    section.notes += [f"Skipped: {each['name']}: {each['reason']}" for each in matrix["skipped"]]
    section.commands = [matrix["command"]]
    return section


def latency(results: Results) -> Section:
    section = Section("Latency")
    alone = one_by_one(results)
    if not alone:
        return _no_benchmark(section, "Every call's time, none left out.")
    section.svg = figures.ecdf([(series_of(found), found.call.samples_ms) for found in alone])
    first = next(iter(results.benchmarks.values()))
    section.lead = ["One image a call, every sample drawn."]
    names = ("p50", "p90", "p95", "p99", "p99_9")
    rows = [
        (series_of(found).label, str(found.batch_size), str(len(found.call.samples_ms)),
         *(number(found.call.percentile_ms(name)) for name in names),
         number(max(found.call.samples_ms)),
         number(statistics.median(found.device_time.samples_ms)),
         number(statistics.median(found.end_to_end.samples_ms)),
         number(found.first_inference_ms), number(found.load_ms), found.check.outcome)
        for found in sorted(results.measurements, key=lambda each: (each.batch_size, p50(each)))
    ]  # fmt: skip
    head = (
        "ms per call", "batch", "n", "p50", "p90", "p95", "p99", "p99.9", "max", "device",
        "file to verdict", "first", "load", "answers",
    )  # fmt: skip
    larger = [row for row in rows if row[1] != "1"]
    section.tables = [Table(head, [row for row in rows if row[1] == "1"])]
    section.tables += [Table(head, larger)] if larger else []
    section.notes = ["Device and file to verdict are medians."]
    section.notes += [first.timing_boundary, f"Percentiles: {first.percentile_formula}."]
    section.commands = [each.command for each in results.benchmarks.values()]
    return section


def _no_benchmark(section: Section, lead: str) -> Section:
    section.absent = True
    section.lead = [lead]
    section.commands = [
        "tinyunet benchmark IMAGES -m engines/ -o benchmarks/results/benchmark.json"
    ]
    return section


def batches(results: Results) -> Section:
    section = Section("Batch size")
    groups: dict[Series, list[Measurement]] = {}
    for found in results.measurements:
        groups.setdefault(series_of(found), []).append(found)
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
                 number(p50(found)))
            )  # fmt: skip
    if not rows:
        return _no_benchmark(section, "Throughput and latency as batches grow.")
    section.svg = figures.batch_sweep(rows)
    section.lead = ["A backend that always has its next batch ready in memory."]
    head = ("", "batch", "images/s", "windows", "ms per call, p50")
    section.tables = [Table(head, table)]
    section.commands = [each.command for each in results.benchmarks.values()]
    return section


def stages(results: Results) -> Section:
    section = Section("Where the time goes")
    tables = [table for each in results.benchmarks.values() for table in each.stages]
    if not tables:
        return _no_benchmark(section, "From file to mask and report, stage by stage.")
    panels = []
    for mode, title in (("serial", "One after the other"), ("pipelined", "Overlapped")):
        labels = [
            (f"{stem(table.model)}\n{table.backend} · {table.batch_size}", table)
            for table in tables
            if table.mode == mode
        ]
        if labels:
            panels.append((title, labels))
    section.svg = figures.stages(panels)
    worst = max(abs(table.unaccounted_share) for table in tables)
    section.lead = [
        "An image's own way from file to mask and line of the report. In the pipeline images "
        "overlap, so that way is longer than the time between two images. The number behind a "
        "backend is the batch. Bars leave out the waiting in queues, which is in the table.",
        f"At most {100 * worst:.1f} % is unaccounted for.",
    ]
    names = list(dict.fromkeys(row.stage for table in tables for row in table.rows))
    rows = []
    for name in names:
        by = [next((row for row in table.rows if row.stage == name), None) for table in tables]
        rows.append((name, *("-" if row is None else number(row.ms_per_image) for row in by)))
    rows.append(("sum", *(number(table.total_ms_per_image) for table in tables)))
    rows.append(("images/s", *(f"{table.images_per_s:.2f}" for table in tables)))
    rows.append(("of the raw backend", *(f"{100 * table.share_of_raw:.0f} %" for table in tables)))
    head = (
        "ms per image",
        *(
            f"{stem(table.model)} · {table.backend} · {table.batch_size} {table.mode}"
            for table in tables
        ),
    )
    section.tables = [Table(head, rows)]
    section.commands = [each.command for each in results.benchmarks.values() if each.stages]
    return section


def published(results: Results) -> list[Section]:
    """What `python -m benchmarks.gpu` measured beside the reference's published figures."""
    if not results.gpus:
        return []
    section = Section("A GPU beside published figures")
    first = next(iter(results.gpus.values()))
    section.lead = [
        f"{first['gpu']['name']}, images in memory, with CUDA graphs and without, in images per "
        "second. Published are those of NVIDIA's U-Net Industrial, the same network in TensorFlow."
    ]
    batches_ = sorted(
        {row["batch_size"] for each in results.gpus.values() for row in each["results"]}
    )
    rows = [
        (f"published, {name}", "", *(number(rates.get(str(batch))) for batch in batches_))
        for name, rates in first["published_images_per_s"].items()
    ]
    for each in results.gpus.values():
        for graphs in (True, False):
            found = {
                row["batch_size"]: row for row in each["results"] if row["cuda_graphs"] is graphs
            }
            one = next(iter(found.values()))
            label = f"{stem(one['model'])} ({one['precision']}) · {one['backend']}"
            rates = (found[batch]["images_per_s"] if batch in found else None for batch in batches_)
            rows.append((label, "graphs" if graphs else "no graphs", *map(number, rates)))
    section.tables = [Table(("", "", *(f"batch {batch}" for batch in batches_)), rows)]
    section.notes = [first["formula"]]
    section.commands = [each["command"] for each in results.gpus.values()]
    return [section]


def files_to_masks(results: Results) -> Section:
    section = Section("From files to masks")
    section.lead = [
        "The rate of tinyunet infer on PNG files, masks and report written, over that of the same "
        "backend on the same images in memory."
    ]
    section.commands = [each["command"] for each in results.pipelines.values()]
    if not section.commands:
        section.absent = True
        section.commands = ["python -m benchmarks.files_to_masks --images 1000"]
        return section
    for each in results.pipelines.values():
        rows = []
        for found in each["results"]:
            rates = (
                statistics.median(one[f"{where}_images_per_s"] for one in found["rounds"])
                for where in ("in_memory", "from_files")
            )
            resident = [one["resident_mib"] for one in found["rounds"]]
            grown = max(resident, key=lambda mib: mib["end"] - mib["after_a_tenth"])
            rows.append(
                (f"{stem(found['model'])} · {found['backend']}", str(each["images"]),
                 str(len(found["rounds"])), *map(number, rates), f"{found['ratio_median']:.3f}",
                 *(f"{mib:.0f}" for mib in grown.values()))
            )  # fmt: skip
        head = ("", "images", "rounds", "in memory/s", "files/s", "ratio")
        mib = ("MiB at the start", "after a tenth", "at the end")
        section.tables.append(Table((*head, *mib), rows))
    section.notes = [
        "Medians over rounds; memory, the arrays included, of the round in which it grew most "
        "after a tenth of the images."
    ]
    return section


def roofline(results: Results) -> Section:
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
            series = series_of(found)
            points.append(Measured(series, _intensity(roof, found.batch_size), roof.gflop_per_s))
            rows.append(
                (series.label, str(found.batch_size), f"{roof.gflop_per_s:,.0f}",
                 number(roof.bound_ms), roof.bound_by, f"{roof.latency_percent:.0f} %",
                 f"{roof.throughput_percent:.0f} %")
            )  # fmt: skip
    section.svg = figures.roofline(points, chosen.ceilings)
    section.lead = [
        "Rates reached, below what this machine reached in the same run on nothing but matrix "
        "products and copies."
    ]
    head = ("", "batch", "GFLOP/s", "least ms", "bound by", "latency", "throughput")
    section.tables = [
        Table(head, rows),
        Table(
            ("ceiling", "kind", "value", "what was run"),
            [(c.name, c.kind, f"{c.value:,.4g} {c.unit}", c.what) for c in chosen.ceilings],
            numbers=4,
        ),
    ]
    section.notes = [
        "Least time of a batch = max(sum(FLOP / rate), least bytes / bandwidth) (Williams, "
        "Waterman, Patterson 2009); percentages are that over the measured time."
    ]
    section.commands = [chosen.command]
    return section


_MOST_OPERATORS: Final = 12


def operators(results: Results) -> list[Section]:
    sections = []
    for path, each in results.operators.items():
        section = Section("Which operators take the time")
        section.lead = ["One image at a time, by the runtime's own counters; the slowest first."]
        for found in each["results"]:
            slowest = sorted(found["operators"], key=lambda one: -one["ms"])
            together = sum(one["ms"] for one in slowest)
            rows = [
                (one["name"], one["kind"], one["kernel"], f"{one['ms']:.2f}",
                 f"{100 * one['ms'] / together:.0f} %")
                for one in slowest[:_MOST_OPERATORS]
            ]  # fmt: skip
            rest = sum(one["ms"] for one in slowest[_MOST_OPERATORS:])
            others = f"{max(len(slowest) - _MOST_OPERATORS, 0)} others"
            rows.append((others, "", "", f"{rest:.2f}", f"{100 * rest / together:.0f} %"))
            rows.append(("together", "", "", f"{together:.2f}", "100 %"))
            head = (f"{stem(found['model'])} · {found['backend']}", "kind", "kernel", "ms", "share")
            section.tables.append(Table(head, rows, numbers=3))
        section.notes = [f"{each['formula']}."]
        section.commands = [f"{each['command']} -o {path}"]
        sections.append(section)
    return sections


def _intensity(roof: Roofline, batch: int) -> float:
    return sum(roof.flop_per_image.values()) * batch / roof.minimum_bytes


def line_speeds(results: Results) -> list[Section]:
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
        several = len(results.lines) > 1 and "model" in line
        section = Section("Line speed" + (f" of {_line_of(line)}" if several else ""))
        section.svg = figures.line_speed(
            line["curve"],
            line["max_miss_rate"],
            line["fastest_shown_parts_per_minute"],
            line["line"]["parts_per_minute"],
        )
        section.lead = [line_sentence(line)]
        rows = []
        live = [("tried live, not kept", each) for each in line.get("not_kept", [])]
        for name, each in (("as asked", line), *live, ("verified live", line.get("verified"))):
            if each is not None:
                found = each["outcome"]
                rows.append(
                    (name, f"{each['line']['parts_per_minute']:,.0f}",
                     f"{found['missed']} / {found['parts']}",
                     f"{100 * found['miss_rate_bound']:.2g} %", str(found["longest_run"]),
                     number(found["p50_ms"]), number(found["p99_ms"]), number(found["p999_ms"]))
                )  # fmt: skip
        head = ("", "parts/min", "missed", "at most", "longest run", "p50 ms", "p99 ms", "p99.9 ms")
        section.tables = [Table(head, rows)]
        section.notes = [f"{name}: {text}." for name, text in line.get("formulas", {}).items()]
        section.commands = [_line_command(line, path)]
        sections.append(section)
    return sections


def operating_points(results: Results) -> list[Section]:
    if not results.tunings:
        section = Section("Threshold and min_area", absent=True)
        section.lead = ["Which parts are rejected, chosen by what escapes and overkills cost."]
        section.commands = ["tinyunet tune DATA -m MODEL -o tuned"]
        return [section]
    sections = []
    for path, tuning in results.tunings.items():
        name = stem(tuning["model"]["name"])
        several = len(results.tunings) > 1
        section = Section("Threshold and min_area" + (f" of {path.stem}" if several else ""))
        section.svg = figures.trade_off(
            tuning["curve"],
            tuning["chosen"],
            tuning["before"],
            (tuning["defective"], tuning["good"]),
        )
        section.lead = [
            f"{name} on {tuning['backend']}, {tuning['images']} images of "
            f"{tuning['dataset']['name']}: {tuning['rule']['text']}. These images chose, so the "
            "rates are no test; tinyunet evaluate on others gives one."
        ]
        confidence = f"at most, {tuning['rule']['confidence']:g}"
        head = ("", "threshold", "min_area px", "escapes", confidence, "overkills", confidence)
        rows = [
            (what, f"{point['threshold']:g}", f"{point['min_area']}",
             f"{point['escapes']} / {tuning['defective']}",
             f"{100 * point['escape_rate_upper']:.1f} %",
             f"{point['overkills']} / {tuning['good']}",
             f"{100 * point['overkill_rate_upper']:.1f} %")
            for what, point in (("before", tuning["before"]), ("chosen", tuning["chosen"]))
        ]  # fmt: skip
        section.tables = [Table(head, rows)]
        section.commands = [f"tinyunet tune DATA -m {tuning['model']['name']} -o tuned"]
        sections.append(section)
    return sections


def line_sentence(line: dict[str, Any]) -> str:
    """How fast the belt may run, in words."""
    what = _line_of(line) if "model" in line else "the recorded times"
    shown = line["fastest_shown_parts_per_minute"]
    allowed = f"{100 * line['max_miss_rate']:g} %"
    if not shown:
        return f"No line speed was shown at which {what} would miss at most {allowed} of the parts."
    if promise_broken(line):
        tried = line["verified"]["outcome"]
        missed, parts = tried["missed"], tried["parts"]
        return (
            f"No safe line speed: {shown:,.0f} parts per minute were predicted for {what}, but "
            f"tried live {missed:,} of {parts:,} parts were late ({allowed} allowed)."
        )
    first = [f"{each['line']['parts_per_minute']:,.0f}" for each in line.get("not_kept", [])]
    return (
        f"With {what} the belt may run at {shown:,.0f} parts per minute, if the gate is "
        f"{gate_of(line)} behind the camera and {allowed} of the parts may be missed."
        + (f" {' and '.join(first)} were predicted before and did not hold." if first else "")
    )


def promise_broken(line: dict[str, Any]) -> bool:
    """Whether the predicted speed was tried live and did not hold."""
    return bool(line["verified"]) and not line["verified"]["kept"]


def _line_of(line: dict[str, Any]) -> str:
    processes = line["line"]["processes"]
    side_by_side = f" in {processes} processes" if processes > 1 else ""
    return f"{line['model']} on {line['backend']}{side_by_side}"


def gate_of(line: dict[str, Any]) -> str:
    """How far the gate is: millimetres where they were given, else milliseconds."""
    belt = line["line"]
    return f"{belt['gate_mm']:g} mm" if belt["gate_mm"] else f"{belt['deadline_ms']:g} ms"


def _line_command(line: dict[str, Any], path: Path) -> str:
    belt = line["line"]
    live = "model" in line
    words = ["tinyunet", "line-sim", *(["IMAGES"] if live else ["--replay", "TIMES.json"])]
    words += ["-m", line["model"], "--backend", line["backend"]] if live else []
    options = {
        "parts-per-minute": belt["parts_per_minute"],
        "pitch-mm": belt["pitch_mm"],
        **(
            {"gate-mm": belt["gate_mm"]}
            if belt["gate_mm"]
            else {"deadline-ms": belt["deadline_ms"]}
        ),
        "cameras": belt["cameras"],
        "processes": belt["processes"],
        "buffer": belt["buffer"],
        "jitter": belt["jitter"],
        "max-miss-rate": line["max_miss_rate"],
    }
    if belt["go_parts"]:
        options |= {"go-parts": belt["go_parts"], "stop-s": belt["stop_ms"] / 1e3}
    for name, value in options.items():
        words += [f"--{name}", f"{value:g}"] if value is not None else []
    return shlex.join([*words, "-o", str(path)])


def answers(results: Results) -> Section:
    section = Section("Whether it answers as the network did")
    if not results.parities:
        section.absent = True
        section.lead = ["Every artifact on every backend against its checkpoint."]
        section.commands = ["tinyunet parity DATA -m engines/ -o out"]
        return section
    for path, parity in results.parities.items():
        rows = []
        for each in parity["comparisons"]:
            series = as_series(each["model"], each["precision"], each["backend"])
            if "skipped" in each:
                section.notes.append(f"Skipped: {series.label}: {each['skipped']}")
                continue
            drop = each["iou_drop"]
            broken = [check for check in each["checks"] if not check["holds"]]
            section.notes += [
                f"Red: {series.label}, {parity['data']}: {check['figure']} is "
                f"{check['value']:.3g}, {wanted(check['limit'])}: {check['reason']}."
                for check in broken
            ]
            rows.append(
                (series.label, str(each["largest_steps"]), str(each["p999_steps"]),
                 f"{each['agreement']:.5f}", str(each["flips"]),
                 "-" if drop is None else f"{round(-drop, 4) + 0.0:+.4f}", each["outcome"])
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


def evaluations(results: Results) -> Section:
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
            (f"{each['model']['name']} · {each['backend']}, {data_name(each)}",
             share(mean["iou_defective"]), share(mean["iou_global"]), share(mean["dice"]),
             share(mean["dice_nothing"]), f"{all_['escapes']} / {all_['defective']}",
             f"{all_['overkills']} / {good}", share(mean["auroc"]))
        )  # fmt: skip
        data = each["dataset"]
        words = ["tinyunet", "evaluate", data["name"], "-m", each["model"]["name"]]
        words += ["--backend", each["backend"], "--split", data["split"]]
        words += ["--classes", ",".join(map(str, data["classes"]))] if data["classes"] else []
        section.commands.append(shlex.join([*words, "-o", str(path)]))
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


# --- engines and machine ----------------------------------------------------------------------


_PROFILE: Final = ("min", "opt", "max")


def engines(results: Results) -> list[Section]:
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
        gpu, profile, made = origin["gpu"], origin["profile"], origin["tensorrt"]
        parsed = audit.get("parsed_network") or {}
        where = f"{gpu['name'] or 'none at hand'}, compute capability {gpu['compute_capability']}"
        parameters = [
            ("precision", plan.precision),
            ("convolutions of the parsed network", _mix(parsed)),
            ("convolutions of the engine", _mix(engine)),
            ("plan size", f"{origin['plan_bytes'] / 2**20:.2f} MiB"),
            ("build time", f"{origin['build_s']:.1f} s"),
            ("batch, least / best / most", " / ".join(str(profile[x]) for x in _PROFILE)),
            ("GPU", where),
            ("TensorRT", f"{made['flavour']} {made['version']}"),
        ]
        layers = [
            (name, type_, (engine or {}).get(name, "not inspected"))
            for name, type_ in parsed.items()
        ]
        section.tables = [
            Table(("Parameter", "Value"), parameters, numbers=2),
            Table(("layer", "parsed network", "engine"), layers, numbers=3),
        ]
        timed = [found for found in results.measurements if found.model_sha256 == plan.sha256]
        if not timed:
            section.notes = ["This engine was not timed on hardware: no result has its sha256."]
        section.commands = [origin["rebuild"]]
        sections.append(section)
    return sections


def _mix(types: dict[str, str] | None) -> str:
    if not types:
        return "not inspected"
    return ", ".join(f"{count} {type_}" for type_, count in Counter(types.values()).most_common())


def machine_and_versions(results: Results) -> Section:
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
            section.notes.append(f"{series_of(found).label}: the processor was throttled for heat.")
        if found.clocks_after.gpu_throttle_reasons:
            reasons = ", ".join(found.clocks_after.gpu_throttle_reasons)
            section.notes.append(f"{series_of(found).label}: the GPU was held back: {reasons}.")
    return section
