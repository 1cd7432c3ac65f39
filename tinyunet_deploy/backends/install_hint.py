"""Say how to install what a backend lacks, in a way that fits this machine.

The extras ``cpu`` and ``gpu`` exclude each other, as onnxruntime and onnxruntime-gpu overwrite each
other's files. No hint names one of them where the other is installed.
"""

from __future__ import annotations

import ctypes
import importlib.metadata

__all__ = ["has_nvidia_driver", "install_hint"]

_OTHER: dict[str, str] = {"cpu": "onnxruntime-gpu", "gpu": "onnxruntime"}
"""Extra -> package of the extra that excludes it."""


def install_hint(module: str, extra: str | None) -> str:
    """Return the command that installs a module, or why none would help on this machine.

    Args:
        module: what is missing.
        extra: the extra of this package that has it; None if none has.
    """
    if extra is None:
        return f"pip install {module}"
    if extra == "gpu" and not has_nvidia_driver():
        return "it needs an NVIDIA GPU with its driver, and this machine has none"
    command = f"pip install 'tinyunet-deploy[{extra}]'"
    other = _OTHER.get(extra)
    if other is None or not _installed(other):
        return command
    if extra == "gpu":
        return f"pip uninstall {other}; {command}"
    # onnxruntime-gpu runs on the CPU as well; the rest of the extra may be added alone
    return f"pip install {module}"


def has_nvidia_driver() -> bool:
    """Return whether NVIDIA's driver is installed; it is not started."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def _installed(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
