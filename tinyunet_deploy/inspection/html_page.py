"""Render a page from a template: one HTML file, without scripts, that opens from disk."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tinyunet_deploy.errors import RuntimeUnavailable, printable

__all__ = ["render_page", "require_jinja2"]


def require_jinja2() -> None:
    """Check that a page can be written; call it before the work whose result it shows.

    Raises:
        RuntimeUnavailable: jinja2 is not installed.
    """
    if importlib.util.find_spec("jinja2") is None:
        raise RuntimeUnavailable(
            "jinja2", "is not installed", "pip install 'tinyunet-deploy[pictures]'"
        )


def render_page(
    template: Path, *, filters: Mapping[str, Callable[..., Any]] | None = None, **values: Any
) -> bytes:
    """Return a page in UTF-8; text in the values is text, never markup.

    Args:
        template: a Jinja template, ``NAME.html.j2``.
        filters: name -> function that the template may call on a value.
        values: variables of the template; a missing one is an error.

    Raises:
        RuntimeUnavailable: jinja2 is not installed.
    """
    require_jinja2()
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(template.parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=_shown,
    )
    environment.filters.update(filters or {})
    return environment.get_template(template.name).render(**values).encode("utf-8")


def _shown(value: Any) -> Any:
    """Return text as one printable line; what a macro of the template made is markup already."""
    if isinstance(value, str) and not hasattr(value, "__html__"):
        return printable(value)
    return value
