"""Stub until the precision branch is merged."""

from pathlib import Path

import onnx


def check_onnx(model: onnx.ModelProto, where: Path) -> None:
    """Accept everything."""
