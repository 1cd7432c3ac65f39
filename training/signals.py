"""Ending a run on a signal, its state saved."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["stopped_by_signals"]

log = logging.getLogger("training")


@contextmanager
def stopped_by_signals(save: Callable[[], None]) -> Iterator[None]:
    """Let SIGTERM, SIGINT and SIGHUP end the process with 128 + signal, once ``save`` has run.

    A step of large images on a CPU takes longer than whoever sent SIGTERM waits, and a Python
    handler would run only after the step. So the signal wakes a thread, which saves the state of
    the last whole step while the main thread still computes the next.
    """
    waker, woken = socket.socketpair()
    waker.setblocking(False)

    def wait() -> None:
        received = woken.recv(1)
        if received:
            try:
                save()
            except Exception as error:
                log.error("the state is not saved: %s", error)
            os._exit(128 + received[0])

    watcher = threading.Thread(target=wait, daemon=True)
    watcher.start()
    before = {
        number: signal.signal(number, lambda *_: None)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        if signal.getsignal(number) is not signal.SIG_IGN  # nohup ignores SIGHUP
    }
    signal.set_wakeup_fd(waker.fileno())
    try:
        yield
    finally:
        signal.set_wakeup_fd(-1)
        for number, handler in before.items():
            signal.signal(number, handler)
        waker.close()
        watcher.join()
        woken.close()
