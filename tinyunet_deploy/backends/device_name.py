"""Names of devices: ``cpu``, ``cuda:0``, ``cuda:1`` ..."""

from __future__ import annotations

from typing import Literal, TypeAlias

from tinyunet_deploy.errors import RuntimeUnavailable

__all__ = ["DeviceType", "device_type"]

DeviceType: TypeAlias = Literal["cpu", "cuda"]


def device_type(device: str) -> DeviceType:
    """Return the type of a device, such as ``cuda`` for ``cuda:1``.

    Raises:
        RuntimeUnavailable: it is neither ``cpu`` nor ``cuda:N``.
    """
    kind, _, index = device.partition(":")
    if device == "cpu":
        return "cpu"
    if kind == "cuda" and index.isascii() and index.isdigit():
        return "cuda"
    raise RuntimeUnavailable(device, "is not a device", "use cpu or cuda:0")
