"""Evidence by which every requirement is met, to be made worse by tests."""

from __future__ import annotations

import dataclasses
from typing import Any

from tinyunet_deploy.inspection.defects import SizeRecall
from tinyunet_deploy.quality.acceptance.evidence import (
    Ancestor,
    BatchFigures,
    Comparison,
    DetectionFigures,
    DriftFigures,
    Evidence,
    FigureCheck,
    LineFigures,
    ModelFacts,
    PlateauFigures,
    RepeatFigures,
    SeenImages,
    SelfTestFigures,
    ShadowFigures,
)

SHA = "a" * 64
CHECK = FigureCheck("flips", 0, "<= 0", holds=True, reason="as the network that was trained")


def detection(**changes: Any) -> DetectionFigures:
    figures = DetectionFigures(
        defective=100,
        escapes=0,
        good=1900,
        overkills=3,
        skipped=(),
        areas_hit_px=(120, 400, 900),
        areas_missed_px=(),
        by_size=(SizeRecall(64, 256, 1, 1), SizeRecall(256, 1024, 2, 2)),
        by_type=(),
        iou_defective=0.8,
        auroc=1.0,
    )
    return dataclasses.replace(figures, **changes)


def comparison(**changes: Any) -> Comparison:
    figures = Comparison("net.safetensors on torch", None, 200, (CHECK,))
    return dataclasses.replace(figures, **changes)


def line(**changes: Any) -> LineFigures:
    figures = LineFigures(
        name="line.json",
        model_sha256=SHA,
        backend="openvino",
        device="cpu",
        processor="a processor",
        mode="live",
        parts_per_minute=600.0,
        deadline_ms=150.0,
        parts=5000,
        missed=0,
        miss_rate=0.0,
        miss_rate_bound=0.0006,
        p50_ms=30.0,
        p99_ms=40.0,
        fastest_parts_per_minute=1200.0,
    )
    return dataclasses.replace(figures, **changes)


def repeats(**changes: Any) -> RepeatFigures:
    figures = RepeatFigures("repeats", 100, 100, 500, False, 1.0, ())
    return dataclasses.replace(figures, **changes)


def plateau(**changes: Any) -> PlateauFigures:
    figures = PlateauFigures(0.5, 0.2, 0.9, 0.3, 0.95)
    return dataclasses.replace(figures, **changes)


def shadow(**changes: Any) -> ShadowFigures:
    """A shadow run of 200 parts that are judged alike; it is no part of :func:`accepted`."""
    figures = ShadowFigures(
        name="shadow.json",
        leader="old.onnx (fp32) on openvino, cpu",
        leader_sha256="c" * 64,
        offered=200,
        seen=200,
        new_rejects=0,
        new_passes=0,
        flips=(),
        unseen={},
        failure=None,
        p50_ms=8.0,
        p99_ms=20.0,
        max_ms=31.0,
    )
    return dataclasses.replace(figures, **changes)


def accepted() -> Evidence:
    """Evidence of a model that may run."""
    drift = {"images": 1900, "images_before": 500, "shifts": [], "note": "grey values only"}
    model = ModelFacts("net.onnx", SHA, "onnx", "fp32", "openvino", "cpu", 0.5, 64, {"x": "1"})
    return Evidence(
        model=model,
        data="parts, folders layout",
        lineage=(
            Ancestor("net.onnx", SHA, "onnx", "ok"),
            Ancestor("net.safetensors", "b" * 64, "checkpoint", "ok"),
        ),
        seen=SeenImages(2000, 0, 0, known=True),
        detection=detection(),
        parity=comparison(),
        batches=BatchFigures((1, 4), {"one-by-one": 0}, CHECK),
        self_test=SelfTestFigures("ok", "On openvino the golden scores are met within 1 of 255"),
        line=line(),
        drift=DriftFigures("out-line", drift, (), "look at the parts, then at the model"),
        repeatability=repeats(),
        plateau=plateau(),
        processor="a processor",
    )
