"""What a GPU reached, against what was promised for it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from benchmarks.gpu import PUBLISHED
from tinyunet_deploy.errors import DataError
from tinyunet_deploy.speed.engine.comparison import compare
from tinyunet_deploy.speed.engine.findings import findings, headline
from tinyunet_deploy.speed.engine.report import EngineReport
from tinyunet_deploy.speed.engine.report_file import read_report

__all__ = ["Bar", "judge_bars"]

WITHOUT_TENSORRT: Final = 3000.0
"""Images/s at batch 16 in fp16 on an H100, without TensorRT."""
TIMES_PUBLISHED: Final = 5.0
"""Least ratio to the published A100 at batch 16, with TensorRT."""
ONE_IMAGE_MS: Final = 1.0
TRAINING: Final = 3.0 * 255
"""Images/s; three times the published A100 with automatic mixed precision."""


class Bar(NamedTuple):
    """One promise and what was measured."""

    name: str
    wanted: str
    measured: float | None
    """None if nothing measured it."""
    met: bool | None
    why: str = ""
    """What limits it, where a profile says that."""


def judge_bars(results: Path, model: str) -> list[Bar]:
    """Compare the results in a folder with the bars.

    Args:
        model: stem of the checkpoint that the bars are for.
    """
    rows = [
        row
        for path in sorted(results.glob(f"gpu-{model}*.json"))
        for row in json.loads(path.read_text())["results"]
        if row["model"].split(".")[0] == model
    ]
    reports = _reports(results / "engines", model)
    plain = _best(_rate(rows, "fp16", 16, lambda row: row["backend"] != "tensorrt"))
    tensorrt = _best(_rate(rows, "fp16", 16, lambda row: row["backend"] == "tensorrt"))
    published = TIMES_PUBLISHED * PUBLISHED["A100 FP16"][16]
    device_ms = [row["device_ms"] for row in rows if row["batch_size"] == 1]
    limit = headline(findings(reports["fp16"])) if "fp16" in reports else ""
    return [
        _bar("fp16 at batch 16 without TensorRT, images/s", WITHOUT_TENSORRT, plain),
        _bar("fp16 at batch 16 with TensorRT, images/s", published, tensorrt, limit),
        _bar(
            "one image on the device, ms", ONE_IMAGE_MS, min(device_ms, default=None),
            limit, "less than",
        ),
        _int8(rows, reports),
        _bar("training, images/s", TRAINING, _training(results / "training_speed.json")),
    ]  # fmt: skip


def _int8(rows: list[dict[str, Any]], reports: dict[str, EngineReport]) -> Bar:
    int8, fp16 = (
        _best(_rate(rows, precision, 16, lambda row: row["backend"] == "tensorrt"))
        for precision in ("int8", "fp16")
    )
    why = ""
    if {"fp16", "int8"} <= set(reports):
        sentences = compare(reports["fp16"], reports["int8"]).findings()
        why = " ".join(finding.text for finding in sentences if finding.rule != "total")
    name = "int8 over fp16 with TensorRT, batch 16, ratio"
    return _bar(name, 1.0, int8 / fp16 if int8 and fp16 else None, why, "more than")


def _bar(
    name: str,
    wanted: float,
    measured: float | None,
    why: str = "",
    sign: Literal["at least", "more than", "less than"] = "at least",
) -> Bar:
    met = None
    if measured is not None:
        met = {
            "at least": measured >= wanted,
            "more than": measured > wanted,
            "less than": measured < wanted,
        }[sign]
    return Bar(name, f"{sign} {wanted:g}", measured, met, "" if met else why)


def _rate(
    rows: list[dict[str, Any]],
    precision: str,
    batch: int,
    matches: Callable[[dict[str, Any]], bool],
) -> Iterable[float]:
    return (
        row["images_per_s"]
        for row in rows
        if (row["precision"], row["batch_size"]) == (precision, batch) and matches(row)
    )


def _best(values: Iterable[float]) -> float | None:
    return max(values, default=None)


def _training(path: Path) -> float | None:
    if not path.exists():
        return None
    return _best(row["images_per_s"] for row in json.loads(path.read_text())["results"])


def _reports(folder: Path, model: str) -> dict[str, EngineReport]:
    """Return the engine reports at batch 16, by precision."""
    reports = {}
    for path in sorted(folder.glob(f"{model}*-batch16.json")):
        if path.name.startswith(("layers_", "profile_")):
            continue
        try:
            report = read_report(path)
        except DataError:
            continue  # a report of another version
        reports[report.precision or ""] = report
    return reports
