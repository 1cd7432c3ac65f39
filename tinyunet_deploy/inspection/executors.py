"""Thread pools that may have no threads, so that one code path runs overlapped or in sequence."""

from __future__ import annotations

import functools
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any

__all__ = ["executor"]


def executor(workers: int, name: str) -> Executor:
    """Return an executor of ``workers`` threads called ``name``.

    With 0 workers there are no threads: each call runs when its result is requested, on the
    requesting thread.
    """
    return ThreadPoolExecutor(workers, name) if workers else _InTurn()


class _InTurn(Executor):
    """Runs each call when its result is requested, on the requesting thread."""

    def submit(self, call: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        return _Deferred(functools.partial(call, *args, **kwargs))


class _Deferred(Future[Any]):
    def __init__(self, call: Callable[[], Any]) -> None:
        super().__init__()
        self._call = call

    def result(self, timeout: float | None = None) -> Any:
        return self._call()
