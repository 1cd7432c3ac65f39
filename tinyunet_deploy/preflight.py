"""Stub until the precision branch is merged."""

from pathlib import Path


def check_onnx(model: bytes, where: Path) -> None:
    """Accept everything."""
