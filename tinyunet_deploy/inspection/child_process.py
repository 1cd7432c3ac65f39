"""A process that decodes files for this one: its pipes, and the memory that both see."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from tinyunet_deploy.inspection.file_messages import receive, send

__all__ = ["ChildProcess", "shared_memory"]

_SHARED_MEMORY: Final = Path("/dev/shm")
"""A file system in memory; the temporary folder stands in where it is missing or full."""
_END_S: Final = 5.0
"""Time that a process has to end by itself, seconds."""


class ChildProcess:
    """One process with its pipes.

    Args:
        descriptor: number of the file with the memory that both map.

    Raises:
        OSError: it cannot be started.
    """

    def __init__(self, descriptor: int) -> None:
        # -P: do not import a numpy.py that lies in the current folder
        command = [sys.executable, "-P", "-m", "tinyunet_deploy.inspection.file_process"]
        library = str(Path(__file__).resolve().parent.parent.parent)
        self._popen = subprocess.Popen(
            [*command, str(descriptor)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[descriptor],
            process_group=0,  # Ctrl-C is for the run, which ends its processes
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(filter(None, [*sys.path, library])),
                "OPENBLAS_NUM_THREADS": "1",  # numpy would start threads that spin
            },
        )
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        self._requests, self._answers = self._popen.stdin, self._popen.stdout

    def send(self, message: bytes) -> None:
        """Send one encoded message.

        Raises:
            OSError: the process has ended.
        """
        send(self._requests, message)

    def receive(self) -> Any:
        """Wait for one message.

        Raises:
            EOFError: the process has ended.
        """
        return receive(self._answers)

    def kill(self) -> None:
        """End the process at once."""
        self._popen.kill()

    def close(self) -> None:
        """End the process once it has answered."""
        with contextlib.suppress(OSError):
            self._requests.close()
        try:
            self._popen.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()
        self._answers.close()


@contextlib.contextmanager
def shared_memory(size: int) -> Iterator[int]:
    """Make a file without a name, in memory where there is room; yield its descriptor.

    Its bytes are written: a full file system raises here, instead of ending the process that writes
    to the mapped memory.
    """
    folder = _SHARED_MEMORY
    if not folder.is_dir() or shutil.disk_usage(folder).free < 2 * size:
        folder = Path(tempfile.gettempdir())
    with tempfile.TemporaryFile(dir=folder) as file:
        for start in range(0, size, 1 << 20):
            file.write(bytes(min(1 << 20, size - start)))
        file.flush()
        yield file.fileno()
