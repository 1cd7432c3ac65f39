"""Hook of MkDocs: put the reference of the command line into its page.

The text comes from the commands themselves, so it cannot differ from ``--help``.
"""

from __future__ import annotations

import html
import importlib
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import click

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # mkdocs runs without it

COMMANDS: Final = {
    "tinyunet": "tinyunet_deploy.cli:tinyunet",
    "python -m training": "training.__main__:training",
    "python -m training finish": "training.finish:finish",
    "python -m training.recipe_comparison": "training.recipe_comparison:compare_recipes",
    "python -m training.speed": "training.speed:speed",
    "python -m export": "export.__main__:export",
    "python -m benchmarks": "benchmarks.__main__:benchmarks",
}
"""Command line -> ``module:name`` of its click command."""
PLACE: Final = "<!-- commands -->"
"""Line of the page that the reference replaces."""


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace the placeholder of a page by the reference of all commands."""
    return markdown.replace(PLACE, "\n".join(_reference())) if PLACE in markdown else markdown


def _reference() -> Iterator[str]:
    for words, place in COMMANDS.items():
        module, _, name = place.partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        yield from _describe(command, click.Context(command, info_name=words))


def _describe(command: click.Command, context: click.Context) -> Iterator[str]:
    """Yield the Markdown lines of a command and of the commands below it."""
    yield from (f"## {context.command_path}", "")
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    yield from ("```text", usage, "```", "")
    for paragraph in _paragraphs(command.help or ""):
        yield from (paragraph, "")
    rows = [row for row in map(_row, command.params) if row]
    if rows:
        yield from ("| option | meaning |", "|---|---|", *rows, "")
    if command.epilog:
        yield from ("```text", inspect.cleandoc(command.epilog.replace("\b\n", "")), "```", "")
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            yield from _describe(child, click.Context(child, parent=context, info_name=name))


def _paragraphs(text: str) -> list[str]:
    return [" ".join(part.split()) for part in text.replace("\b", "").split("\n\n")]


def _row(parameter: click.Parameter) -> str | None:
    """Return the table row of an option, or None for an argument or a hidden option."""
    record = parameter.get_help_record(click.Context(click.Command("none")))
    if record is None or isinstance(parameter, click.Argument):
        return None
    names, meaning = (_in_a_cell(text) for text in record)
    return f"| <code>{names}</code> | {meaning} |"


def _in_a_cell(text: str) -> str:
    """Return text without characters that mean something in a Markdown table or in HTML."""
    escaped = html.escape(" ".join(text.split()), quote=False)
    return escaped.replace("|", "&#124;<wbr>").replace("*", "&#42;").replace("_", "&#95;")
