"""The page that customer and supplier sign, made from a result file alone."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from tinyunet_deploy.errors import printable
from tinyunet_deploy.inspection.html_page import render_page
from tinyunet_deploy.quality.acceptance.wording import count, percent
from tinyunet_deploy.quality.confidence import clopper_pearson_upper

__all__ = ["page_of"]

_TEMPLATE: Final = Path(__file__).with_name("acceptance.html.j2")
_CLASSES: Final = {
    "met": "met",
    "not met": "red",
    "not shown": "open",
    "waived": "waived",
    "MAY RUN": "met",
    "MAY NOT RUN": "red",
    "NOT SHOWN YET": "open",
}
"""Outcome or decision -> its class in the template's style."""


def page_of(result: Mapping[str, Any]) -> bytes:
    """Return the page: one HTML file, without scripts, that prints on A4.

    The same result gives the same bytes.

    Args:
        result: fields of a result file, as
            :func:`~tinyunet_deploy.quality.acceptance.result_file.read_result` returns them.

    Raises:
        RuntimeUnavailable: jinja2 is not installed.
    """
    filters: dict[str, Callable[..., Any]] = {
        "percent": percent,
        "count": count,
        "upper": clopper_pearson_upper,
        "css": _CLASSES.__getitem__,
        "base64": _base64,
        "commands": _commands,
    }
    return render_page(_TEMPLATE, filters=filters, **result)


def _commands(text: str) -> Any:
    """Return a text as markup, with what stands between backticks in the type of a command."""
    from markupsafe import Markup, escape

    escaped = str(escape(printable(text)))
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", escaped))


def _base64(text: str) -> str:
    """Return a text for the address of a picture: a script in a picture does not run."""
    return base64.b64encode(text.encode()).decode()
