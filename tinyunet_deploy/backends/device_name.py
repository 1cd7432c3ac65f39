"""Names of devices: ``cpu``, ``cuda:0``, ``cuda:1`` ...; ``cuda`` is the first GPU."""

from __future__ import annotations

from typing import Literal, TypeAlias

from tinyunet_deploy.errors import RuntimeUnavailable

__all__ = ["DeviceType", "device_type", "full_name"]

DeviceType: TypeAlias = Literal["cpu", "cuda"]


def device_type(device: str) -> DeviceType:
    """Return the type of a device, such as ``cuda`` for ``cuda:1``.

    Raises:
        RuntimeUnavailable: it is not ``cpu``, ``cuda`` or ``cuda:N``.
    """
    kind, _, index = full_name(device).partition(":")
    if device == "cpu":
        return "cpu"
    if kind == "cuda" and index.isascii() and index.isdigit():
        return "cuda"
    raise RuntimeUnavailable(device, "is not a device", "use cpu or cuda:0")


def full_name(device: str) -> str:
    """Return the name of a device with its index: ``cuda:0`` for ``cuda``."""
    return "cuda:0" if device == "cuda" else device
