"""Extension of griffe: turn the reStructuredText of our docstrings into Markdown.

They use roles such as ``:class:`Model```, a double colon before a block, examples that begin with
``>>>``, and one entry for several arguments that mean the same as elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import griffe

_ROLE = re.compile(r":(?:class|func|data|mod|meth|attr|exc):`~?(?:[\w.]*\.)?(\w+)`")
_SHARED = re.compile(
    r"^(?P<indent> +)(?P<names>\w+(?:, \w+)+): (?P<text>.*(?:\n(?P=indent) +.*)*)$", re.M
)


class Markdown(griffe.Extension):
    """Rewrites each docstring when it is read."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of one object."""
        if obj.docstring:
            text = _ROLE.sub(r"`\1`", obj.docstring.value)
            text = re.sub(r"^::\n\n", "", text, flags=re.MULTILINE)
            text = re.sub(r"::\n", ":\n", text)
            text = _SHARED.sub(_one_each, text)
            obj.docstring.value = "\n".join(_fence_examples(text.splitlines()))


def _one_each(entry: re.Match[str]) -> str:
    """Return one entry for each of the arguments or errors that share one."""
    names = entry["names"].split(", ")
    return "\n".join(f"{entry['indent']}{name}: {entry['text']}" for name in names)


def _fence_examples(lines: list[str]) -> Iterator[str]:
    """Yield the lines with a fence around each example, which ends at an empty line."""
    inside = False
    for line in lines:
        if not inside and line.startswith(">>>"):
            inside = True
            yield "```python"
        elif inside and not line.strip():
            inside = False
            yield "```"
        yield line
    if inside:
        yield "```"
