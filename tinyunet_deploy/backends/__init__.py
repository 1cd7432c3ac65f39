"""Backends: each runs one loaded artifact.

>>> backend = open_backend(Path("tinyunet.onnx"))               # doctest: +SKIP
>>> backend.run(images).score                                   # doctest: +SKIP

Everything behind these names is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tinyunet_deploy.backends.base import Backend, Run
    from tinyunet_deploy.backends.registry import open_backend
    from tinyunet_deploy.backends.table import BACKENDS, BackendRow, why_not

__all__ = ["BACKENDS", "Backend", "BackendRow", "Run", "open_backend", "why_not"]

_WHERE = {
    "BACKENDS": "table",
    "Backend": "base",
    "BackendRow": "table",
    "Run": "base",
    "open_backend": "registry",
    "why_not": "table",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
