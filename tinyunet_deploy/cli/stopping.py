"""End a command on SIGTERM, SIGINT or SIGHUP: always within ten seconds, with code 128 + signal.

A handler that raises an exception cannot do this. Python runs handlers in the main thread between
two instructions, so not while a runtime computes or compiles. And if the exception is raised inside
the import system, a destructor or a callback, Python prints it and continues.

So the handlers do nothing. The signal wakes a thread instead, which ends the process:

- at once if the command has nothing to finish: temporary files and child processes are removed
  first, and a file under its final name is always complete;
- at the next call of :func:`safe_place`, if the command calls it: it removes its files itself;
- within :func:`reacting`, after the reaction, such as saving the state of a training.

A command that has not ended after :data:`GRACE_S` is killed. A second signal ends it at once.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final, NoReturn

from tinyunet_deploy import files, systems

__all__ = ["Interrupted", "ended_by_signals", "reacting", "safe_place"]

GRACE_S: Final = 7.0
"""Time that a command may take to end by itself, seconds. We promise ten, as the senders of SIGTERM
(systemd, Docker, a PLC) usually kill a process after ten."""


class Interrupted(BaseException):
    """Raised when a signal ends the command; :func:`ended_by_signals` catches it."""


class _Command:
    """State of the running command: its reaction to a signal."""

    def __init__(self, waker: socket.socket | None = None) -> None:
        self.waker = waker
        """Socket to which Python's C handler writes signal numbers; kept open with the command."""
        self.number: int | None = None
        """Number of the signal that arrived; None before."""
        self.reaction: Callable[[], None] | None = None
        self.waits = False
        """True if the command ends by itself after the signal."""
        self.answered = False
        """True once the command has ended by itself, with its own exit code."""
        self.resumable = False
        """True if the same command, run again, resumes this one's work."""


_running: _Command | None = None
_leaving: Final = threading.Lock()


def safe_place() -> None:
    """Mark a point between two results, at which a command that can be resumed may stop.

    Raises:
        Interrupted: a signal came.
    """
    if _running is None:
        return
    _running.waits = _running.resumable = True
    if _running.number is not None:
        raise Interrupted


@contextlib.contextmanager
def reacting(reaction: Callable[[], None], *, waits: bool) -> Iterator[None]:
    """Call ``reaction``, in another thread, when a signal comes; then end the command.

    Args:
        reaction: saves what can be resumed, or asks the command to end.
        waits: the command ends by itself after the reaction, with the exit code of its results.
    """
    with ended_by_signals() as command:
        before = command.reaction, command.waits, command.resumable
        command.reaction, command.waits, command.resumable = reaction, waits, True
        try:
            yield
            command.answered = waits and command.number is not None
        finally:
            command.reaction, command.waits, command.resumable = before


@contextlib.contextmanager
def ended_by_signals() -> Iterator[_Command]:
    """Let a signal end this process while the block runs.

    A signal that is ignored, as ``nohup`` ignores SIGHUP, stays ignored. Only the main thread can
    set this up; in another thread, and within a block of this kind, it changes nothing.
    """
    global _running
    if _running is not None or threading.current_thread() is not threading.main_thread():
        yield _running or _Command()
        return
    waker, woken = socket.socketpair()
    waker.setblocking(False)
    command = _running = _Command(waker)
    thread = threading.Thread(target=_wait, args=(command, woken), name="signals", daemon=True)
    thread.start()
    before = {
        number: signal.signal(number, lambda *_: None)
        for number in systems.ENDING_SIGNALS
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
    try:
        yield command
    finally:
        if command.number is not None and not command.answered:
            _leave(command)
        _running = None
        if command.number is None:
            signal.set_wakeup_fd(-1)
            for number, handler in before.items():
                signal.signal(number, handler)
            waker.close()
            thread.join()
            woken.close()
        # else the thread still sees to it that the process ends


def _wait(command: _Command, woken: socket.socket) -> None:
    """Wait for the number of a signal, one byte from ``woken``, then end the process."""
    while (received := woken.recv(1)) and not _ends(received):
        pass
    if not received:
        return
    command.number = received[0]
    deadline = time.monotonic() + GRACE_S
    woken.settimeout(0.05)
    # in a thread of its own: it may wait for a disk that does not answer
    reaction = threading.Thread(target=_react, args=(command,), daemon=True)
    if command.reaction is not None:
        reaction.start()
    while time.monotonic() < deadline:
        if not (command.waits or command.answered or reaction.is_alive()):
            break
        with contextlib.suppress(TimeoutError):
            if _ends(woken.recv(1)):
                break  # a second signal
    _leave(command)


def _ends(number: bytes) -> bool:
    """Return whether a signal ends a command.

    Numbers of other signals arrive, too, if a library handles them, as PyTorch's DataLoader does
    with SIGCHLD.
    """
    return number[0] in systems.ENDING_SIGNALS


def _react(command: _Command) -> None:
    if command.reaction is None:
        return
    try:
        command.reaction()
    except Exception as error:
        command.resumable = False
        say(f"error: the state is not saved: {error}")


def _leave(command: _Command) -> NoReturn:
    """Clean up after this process, and end it."""
    assert command.number is not None
    if not _leaving.acquire(blocking=False):
        threading.Event().wait()  # another thread is about to end the process
    for child in systems.child_processes():
        with contextlib.suppress(OSError):
            systems.kill(child)
    files.put_away()
    say(farewell(command.resumable))
    os._exit(128 + command.number)


def farewell(resumable: bool) -> str:
    """Return the line that reports an interrupt."""
    return "interrupted; run the same command again to resume" if resumable else "interrupted"


def say(line: str) -> None:
    """Write a line to stderr, which may be closed or full; a progress bar on a terminal ends."""
    with contextlib.suppress(OSError, ValueError):
        bar_end = "\x1b[?25h\n" if os.isatty(2) else ""  # shows the cursor
        os.write(2, f"{bar_end}{line}\n".encode("utf-8", "backslashreplace"))


def _forget() -> None:
    """In a forked child, restore the default signal handling."""
    global _running
    if _running is not None:
        _running = None
        signal.set_wakeup_fd(-1)
        for number in systems.ENDING_SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, signal.SIG_DFL)
    systems.unblock_signals()


# Signals are held back while a child still has the parent's end of the socket pair.
systems.after_fork(
    before=systems.block_signals, in_parent=systems.unblock_signals, in_child=_forget
)
