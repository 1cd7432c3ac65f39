"""Engine report as a page: HTML that opens from disk, or Markdown."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tinyunet_deploy.backends.install_hint import install_hint
from tinyunet_deploy.errors import DataError, RuntimeUnavailable, printable
from tinyunet_deploy.files import write_atomic
from tinyunet_deploy.speed.engine.comparison import compare
from tinyunet_deploy.speed.engine.finding import mib_text, ms_text
from tinyunet_deploy.speed.engine.findings import findings, headline
from tinyunet_deploy.speed.engine.report import EngineReport
from tinyunet_deploy.speed.time_samples import TimeSamples, percentile

if TYPE_CHECKING:
    import jinja2

__all__ = ["write_page"]

_TEMPLATES: Final = Path(__file__).parent


def write_page(reports: Sequence[EngineReport], output: Path) -> None:
    """Write the page of one engine, or of two side by side; the format follows the suffix.

    Raises:
        DataError: the suffix is neither ``.html`` nor ``.md``.
        RuntimeUnavailable: jinja2 is not installed, or the disk does not take the file.
    """
    if output.suffix not in (".html", ".md"):
        raise DataError(output, "is neither .html nor .md")
    first, second = (*reports, None)[:2]
    assert first is not None
    comparison = None if second is None else compare(first, second)
    text = (
        _environment(output.suffix)
        .get_template(f"engine{output.suffix}.j2")
        .render(
            engines=[
                (report, (results := findings(report)), headline(results)) for report in reports
            ],
            comparison=comparison,
        )
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(output, text.encode())


def _environment(suffix: str) -> jinja2.Environment:
    """Return the Jinja environment of a suffix; names in the results are text, never markup."""
    try:
        import jinja2
    except ImportError as error:
        raise RuntimeUnavailable(
            "jinja2", "is not installed", install_hint("jinja2", "pictures")
        ) from error
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=suffix == ".html",
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=_cell if suffix == ".md" else _on_screen,
    )
    environment.filters.update(
        ms=_ms,
        percent=_percent,
        mib=mib_text,
        median=_median,
        p99=_p99,
        shape=_shape,
        tensor=_tensor,
    )
    return environment


def _on_screen(value: Any) -> Any:
    return printable(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def _cell(value: Any) -> Any:
    """Escape a text so that Markdown reads it as neither HTML, a link nor the end of a cell."""
    if not isinstance(value, str):
        return value
    text = re.sub(r"<(?=[A-Za-z/!?])", "&lt;", printable(value))
    return text.replace("](", "] (").replace("|", "\\|")


def _ms(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else ms_text(value)


def _percent(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{100 * value:.1f} %"


def _median(series: TimeSamples) -> float:
    return statistics.median(series.samples_ms)


def _p99(series: TimeSamples) -> float:
    return percentile(series.samples_ms, 990)


def _shape(value: Sequence[int]) -> str:
    return "x".join(map(str, value)) or "-"


def _tensor(tensors: Sequence[Any]) -> str:
    """Return type, shape and format of a layer's tensors in words."""
    parts = (
        f"{tensor.type or '?'} {_shape(tensor.shape)}"
        + (f", {tensor.format}" if tensor.format and tensor.format != tensor.type else "")
        for tensor in tensors
    )
    return "; ".join(parts) or "-"
