"""One report of all results: HTML that opens from disk, or Markdown for a pull request."""

from __future__ import annotations

import math
import statistics
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from benchmarks.figures import MARKERS
from benchmarks.gather import (
    Results,
    best_cell,
    best_measurement,
    data_name,
    in_ms,
    machines_of,
    model_name,
    one_per_data_set,
    red_answers,
    share,
)
from benchmarks.matrix import ms_per_image
from benchmarks.ratio import ratio_in_run
from benchmarks.sections import (
    Section,
    Table,
    accuracy,
    answers,
    batches,
    engines,
    evaluations,
    files_to_masks,
    gate_of,
    latency,
    line_sentence,
    line_speeds,
    machine_and_versions,
    operating_points,
    operators,
    peers,
    promise_broken,
    published,
    roofline,
    stages,
)
from benchmarks.worst import worst_images
from tinyunet_deploy.errors import DataError
from tinyunet_deploy.files import write_atomic


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
        accuracy(results),
        peers(results),
        latency(results),
        batches(results),
        stages(results),
        *published(results),
        files_to_masks(results),
        roofline(results),
        *operators(results),
        *line_speeds(results),
        answers(results),
        evaluations(results),
        *operating_points(results),
        worst_images(results, data),
        *engines(results),
        machine_and_versions(results),
    ]


# --- the top ----------------------------------------------------------------------------------


def _title(results: Results) -> str:
    return "TensorRT benchmark report" if results.plans else "Benchmark report"


def _facts(results: Results) -> list[tuple[str, str]]:
    """What stands beside the title."""
    found: dict[str, Any] = {}
    for benchmark in results.benchmarks.values():
        found.setdefault("date", benchmark.started_utc[:10])
    machine = machines_of(results)
    facts = [("Date", found["date"])] if found else []
    if machine:
        first = machine[0]
        facts.append(("Machine", f"{first['processor']}, {first['processors']} processors"))
        facts.append(("System", first["system"]))
        facts.append(("Version", f"tinyunet_deploy {first['tinyunet_deploy']}"))
    return facts


def _summary(results: Results) -> list[str]:
    """Sentences for who reads nothing else."""
    said = []
    best = best_measurement(results)
    if best is not None:
        latency = best.call
        said.append(
            f"The fastest configuration whose answers pass is {best.model} ({best.precision}) on "
            f"{best.backend}: {in_ms(statistics.median(latency.samples_ms))} for one image, "
            f"{best.throughput.images_per_s:.3g} images per second."
        )
    cell = best_cell(results)
    if cell is not None:
        matrix, ours = cell
        ratio = ours["times_as_fast"]
        said.append(
            f"In one run with its peers, {ours['name']} is {ratio['value']:.2f} times as fast as "
            f"{matrix['matrix']['reference']} (99 % interval {ratio['low']:.2f} to "
            f"{ratio['high']:.2f}, noise floor {matrix['noise']['floor']:.3f})."
        )
    for evaluation in one_per_data_set(results):
        all_ = evaluation["all"]
        said.append(
            f"On {data_name(evaluation)} {evaluation['model']['name']} finds defects with an "
            f"IoU of {share(evaluation['mean']['iou_defective'])}, lets {all_['escapes']} of "
            f"{all_['defective']} defective parts through and rejects {all_['overkills']} of "
            f"{all_['images'] - all_['defective']} good ones."
        )
    said += map(line_sentence, results.lines.values())
    for (sha256, backend), reasons in red_answers(results).items():
        said.append(
            f"Not to be shipped: {model_name(results, sha256)} on {backend}: {reasons[0]}"
            + (f", and {len(reasons) - 1} more" if len(reasons) > 1 else "")
            + "."
        )
    return said or ["Nothing was timed; the sections below say which commands do that."]


def _key_figures(results: Results) -> Table | None:
    """Parameter, condition, value, as on a data sheet."""
    rows: list[tuple[str, ...]] = []
    best = best_measurement(results)
    if best is not None:
        what = f"{best.model}, {best.backend}"
        where = f"{what}, 1 image, n = {len(best.call.samples_ms)}"
        for name, label in (("p50", "typical (p50)"), ("p99", "p99"), ("p99_9", "p99.9")):
            value = best.call.percentile_ms(name)
            if not math.isnan(value):
                rows.append((f"Latency, {label}", where, in_ms(value)))
        rows.append(("Latency, worst seen", where, in_ms(max(best.call.samples_ms))))
        end = statistics.median(best.end_to_end.samples_ms)
        rows.append(("File to verdict, typical", where, in_ms(end)))
        rate = f"{best.throughput.images_per_s:.3g} images/s"
        rows.append(("Throughput", f"{what}, in memory", rate))
        roof = best.roofline
        if roof is not None:
            share_of_roof = f"{roof.latency_percent:.0f} %"
            rows.append(
                ("Share of the roofline", f"{what}, bound by {roof.bound_by}", share_of_roof)
            )
    found = best_cell(results)
    if found is not None:
        matrix, ours = found
        for other in matrix["cells"]:
            if other["runner"] not in MARKERS and _same_work(other, ours):
                factor = ratio_in_run(*(ms_per_image(cell["rounds"], 1) for cell in (other, ours)))
                rows.append(
                    ("Times as fast", f"{ours['name']} against {other['name']}, "
                     f"99 % interval {factor.low:.2f} to {factor.high:.2f}", f"{factor.value:.2f}")
                )  # fmt: skip
    for evaluation in one_per_data_set(results):
        mean = evaluation["mean"]
        rows.append(
            ("IoU on defective images", data_name(evaluation), share(mean["iou_defective"]))
        )
        all_ = evaluation["all"]
        rows.append(("Escapes", data_name(evaluation), f"{all_['escapes']} / {all_['defective']}"))
        good = all_["images"] - all_["defective"]
        rows.append(("Overkill", data_name(evaluation), f"{all_['overkills']} / {good}"))
    for line in results.lines.values():
        speed = line["fastest_shown_parts_per_minute"]
        condition = f"gate {gate_of(line)} behind the camera, "
        condition += f"{100 * line['max_miss_rate']:g} % may be missed"
        if promise_broken(line):
            speed = None
        rows.append(("Safe line speed", condition, f"{speed:,.0f} / min" if speed else "not shown"))
    return Table(("Parameter", "Condition", "Value"), rows, numbers=2) if rows else None


def _same_work(other: dict[str, Any], ours: dict[str, Any]) -> bool:
    return all(other[key] == ours[key] for key in ("precision", "batch_size", "device"))
