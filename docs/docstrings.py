"""Extension of griffe: turn the reStructuredText of our docstrings into Markdown.

They use two of its marks: roles such as ``:class:`Model```, and a double colon before a block.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

_ROLE = re.compile(r":(?:class|func|data|mod|meth|attr|exc):`~?(?:[\w.]*\.)?(\w+)`")


class Markdown(griffe.Extension):
    """Rewrites each docstring when it is read."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of one object."""
        if obj.docstring:
            text = _ROLE.sub(r"`\1`", obj.docstring.value)
            text = re.sub(r"^::\n\n", "", text, flags=re.MULTILINE)
            obj.docstring.value = re.sub(r"::\n", ":\n", text)
