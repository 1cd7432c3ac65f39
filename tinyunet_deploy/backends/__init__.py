"""Backends: one loaded artifact that runs.

>>> backend = open_backend(Path("tinyunet.onnx"))               # doctest: +SKIP
>>> backend.run(images).score                                   # doctest: +SKIP
"""

from tinyunet_deploy.backends.base import Backend, Run
from tinyunet_deploy.backends.registry import BACKENDS, open_backend, why_not

__all__ = ["BACKENDS", "Backend", "Run", "open_backend", "why_not"]
