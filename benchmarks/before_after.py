"""``python -m benchmarks.before_after BEFORE.json AFTER.json``: the effect of training."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from benchmarks.agreement import require_agreement
from benchmarks.options import HELP
from tinyunet_deploy.cli import run
from tinyunet_deploy.errors import DataError, GateFailed

__all__ = ["before_after"]


@click.command(context_settings=HELP)
@click.argument("before", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.argument("after", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.argument("others", nargs=-1, type=click.Path(path_type=Path, exists=True, dir_okay=False))
def before_after(before: Path, after: Path, others: tuple[Path, ...]) -> None:
    """Compare two results of `tinyunet evaluate -o` on the same images.

    BEFORE is of the untrained network, AFTER of the trained one, OTHERS of the trained one on other
    backends. Exit 6 if training has not improved it, or if backends differ by more than 0.001.
    """
    first, last, *rest = (json.loads(path.read_bytes()) for path in (before, after, *others))
    for path, result in zip((after, *others), (last, *rest), strict=True):
        if _images_of(result) != _images_of(first):
            raise DataError(path, "is not of the same images", f"evaluate those of {before}")
    if rest:
        require_agreement([last, *rest])
        click.echo()
    rows = [
        (name, _figure(first, name), _figure(last, name))
        for name in ("iou_defective", "escapes", "overkills", "auroc")
    ]
    click.echo(f"{'':34}{'untrained':>12}{'trained':>12}")
    for name, old, new in rows:
        click.echo(f"{_LABELS[name]:34}{old:>12}{new:>12}")
    if not _improved(first["all"], last["all"]):
        raise GateFailed(after, "is no better than the untrained network", "train it longer")
    click.echo(_sentence(first, last, rest))


_LABELS = {
    "iou_defective": "IoU on defective parts, 1 is best",
    "escapes": "defective parts let through",
    "overkills": "good parts rejected",
    "auroc": "AUROC, 0.5 is a guess",
}


def _images_of(result: dict[str, Any]) -> list[tuple[str, bool]]:
    return [(image["name"], image["defective"]) for image in result["per_image"]]


def _figure(result: dict[str, Any], name: str) -> str:
    all_ = result["all"]
    if name == "escapes":
        return f"{all_['escapes']} of {all_['defective']}"
    if name == "overkills":
        return f"{all_['overkills']} of {all_['images'] - all_['defective']}"
    return "-" if all_[name] is None else f"{all_[name]:.3f}"


def _improved(before: dict[str, Any], after: dict[str, Any]) -> bool:
    """Return whether the outlines are better and fewer verdicts are wrong."""
    mistakes_before, mistakes_after = (
        counts["escapes"] + counts["overkills"] for counts in (before, after)
    )
    return bool(
        after["iou_defective"] > before["iou_defective"] and mistakes_after < mistakes_before
    )


def _sentence(first: dict[str, Any], last: dict[str, Any], rest: list[dict[str, Any]]) -> str:
    all_ = last["all"]
    caught, good = all_["defective"] - all_["escapes"], all_["images"] - all_["defective"]
    backends = [result["backend"] for result in (last, *rest)]
    agree = f", the same on {', '.join(backends)}" if rest else f", on {backends[0]}"
    return (
        f"shown: training from random weights raised the IoU on {all_['images']} unseen synthetic "
        f"parts from {first['all']['iou_defective']:.2f} to {all_['iou_defective']:.2f}; the "
        f"network now rejects {caught} of {all_['defective']} defective parts and "
        f"{all_['overkills']} of {good} good ones{agree}"
    )


if __name__ == "__main__":
    sys.exit(run(before_after))
