"""One report of all results: HTML that opens from disk, or Markdown for a pull request."""

from __future__ import annotations

import re
from pathlib import Path

import jinja2
from markupsafe import Markup

from benchmarks.report import summary
from benchmarks.report.content import Section
from benchmarks.report.first_screen import first_screen
from benchmarks.report.results import Results
from benchmarks.report.sections.accuracy_over_latency import accuracy_over_latency
from benchmarks.report.sections.answers import answers
from benchmarks.report.sections.batch_sizes import batch_sizes
from benchmarks.report.sections.defect_finding import defect_finding
from benchmarks.report.sections.engines import engines
from benchmarks.report.sections.files_and_memory import files_and_memory
from benchmarks.report.sections.latency import latency
from benchmarks.report.sections.line_speed import line_speeds
from benchmarks.report.sections.machine import machine
from benchmarks.report.sections.machine_limit import machine_limit
from benchmarks.report.sections.operator_times import operator_times
from benchmarks.report.sections.peer_ratios import peer_ratios
from benchmarks.report.sections.published_gpu import published_gpu
from benchmarks.report.sections.stage_times import stage_times
from benchmarks.report.sections.threshold_choice import threshold_choices
from benchmarks.report.sections.worst_images import worst_images
from tinyunet_deploy.errors import DataError, printable
from tinyunet_deploy.files import write_atomic

__all__ = ["TEMPLATES", "page_environment", "write_report"]

TEMPLATES = Path(__file__).parent
"""Folder of report.html.j2 and report.md.j2."""


def write_report(
    results: Results,
    output: Path,
    *,
    data: Path | None = None,
    parts: Path | None = None,
    command: str,
) -> None:
    """Write the report, HTML or Markdown by the suffix of ``output``.

    Args:
        data: the data set that was evaluated; its worst images are put into the report.
        parts: folder of pictures of parts that a run has drawn; three are put at the top.
        command: the command that makes this report, for its last line.

    Raises:
        DataError: the suffix is neither ``.html`` nor ``.md``, ``data`` was not evaluated, or
            ``parts`` contains no such pictures.
    """
    if output.suffix not in (".html", ".md"):
        raise DataError(output, "is neither .html nor .md")
    environment = page_environment(output.suffix)
    text = environment.get_template(f"report{output.suffix}.j2").render(
        title=summary.title(results),
        facts=summary.facts(results),
        first=first_screen(results, parts),
        summary=summary.summary(results),
        key_figures=summary.key_figures(results),
        sections=_sections(results, data),
        command=command,
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(output, text.encode())


def page_environment(suffix: str) -> jinja2.Environment:
    """Return the Jinja environment of a suffix: names in the results are text, never markup."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=suffix == ".html",
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=_as_text if suffix == ".md" else _on_screen,
    )
    environment.filters["svg"] = Markup
    environment.filters["cell"] = lambda text: text.replace("|", "\\|").replace("\n", " ")
    return environment


def _on_screen(value: object) -> object:
    """Spell out control characters in a text; leave our own markup as it is."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return "\n".join(map(printable, value.split("\n")))


def _as_text(value: object) -> object:
    """Escape a text so that Markdown does not read it as HTML or a link."""
    shown = _on_screen(value)
    if not isinstance(shown, str):
        return shown
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", shown).replace("](", "] (")


def _sections(results: Results, data: Path | None) -> list[Section]:
    """Return the sections in the order of their numbers."""
    return [
        accuracy_over_latency(results),
        peer_ratios(results),
        latency(results),
        batch_sizes(results),
        stage_times(results),
        *published_gpu(results),
        files_and_memory(results),
        machine_limit(results),
        *operator_times(results),
        *line_speeds(results),
        answers(results),
        defect_finding(results),
        *threshold_choices(results),
        worst_images(results, data),
        *engines(results),
        machine(results),
    ]
