"""Run an acceptance test and write its folder: the page, the result, and the list of the data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from tinyunet_deploy.artifacts.strict_json import read_json
from tinyunet_deploy.files import write_atomic
from tinyunet_deploy.inspection.html_page import require_jinja2
from tinyunet_deploy.quality.acceptance.gathering import Progress, RunOptions, Sources, gather
from tinyunet_deploy.quality.acceptance.page import page_of
from tinyunet_deploy.quality.acceptance.requirements import read_requirements
from tinyunet_deploy.quality.acceptance.result_file import read_result, result_json
from tinyunet_deploy.quality.acceptance.verdicts import Decision, decide, judge

__all__ = ["DATA", "PAGE", "RESULT", "accept", "accept_again"]

PAGE: Final = "acceptance.html"
RESULT: Final = "acceptance.json"
DATA: Final = "data.sha256"
"""sha256 and name of every file of the data set, which ``sha256sum -c`` checks."""


def accept(
    sources: Sources,
    options: RunOptions,
    output: Path,
    *,
    progress: Progress,
    on_total: Callable[[int], None],
) -> Decision:
    """Gather the evidence, judge every requirement, and write the page and the result.

    Args:
        output: folder for the three files; made if it does not exist.
        progress: called for each scored image.
        on_total: called with the number of images that will be scored, when it becomes known.

    Raises:
        ArtifactError, DataError, RuntimeUnavailable: as for
            :func:`~tinyunet_deploy.quality.acceptance.gathering.gather`.
        RuntimeUnavailable: jinja2 is not installed, or the folder cannot be written.
    """
    require_jinja2()
    requirements = read_requirements(sources.requirements)
    output.mkdir(parents=True, exist_ok=True)
    gathered = gather(sources, options, requirements, progress=progress, on_total=on_total)
    verdicts = judge(requirements, gathered.evidence)
    decision = decide(verdicts)
    text = result_json(gathered, decision, verdicts)
    listing = gathered.listing.encode("utf-8", "surrogateescape")
    write_atomic(output / DATA, listing, durable=True)
    write_atomic(output / RESULT, text.encode(), durable=True)
    _write_page(read_json(text), output)
    return decision


def accept_again(result: Path, output: Path) -> Decision:
    """Write the page of an earlier result again, byte for byte.

    Args:
        result: ``acceptance.json``.
        output: folder for the page; made if it does not exist.

    Raises:
        DataError: the result cannot be read, or was edited.
        RuntimeUnavailable: jinja2 is not installed, or the folder cannot be written.
    """
    require_jinja2()
    fields = read_result(result)
    output.mkdir(parents=True, exist_ok=True)
    _write_page(fields, output)
    decision = fields["decision"]
    return Decision(decision["word"], decision["sentence"])


def _write_page(fields: Any, output: Path) -> None:
    write_atomic(output / PAGE, page_of(fields), durable=True)
