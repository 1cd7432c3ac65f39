"""Loss curves in the format of TensorBoard."""

from __future__ import annotations

import time
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from tinyunet_deploy.errors import RuntimeUnavailable


class Curves:
    """A file of events, each written as it happens, without a thread that could fail unseen."""

    def __init__(self, folder: Path, first_step: int) -> None:
        """Start a file in which steps from ``first_step`` on replace those of earlier files.

        Raises:
            RuntimeUnavailable: the disk is full, read-only or failing.
        """
        folder.mkdir(exist_ok=True)
        self._path = folder / f"events.out.tfevents.{time.time_ns()}"
        self._write(Event(file_version="brain.Event:2"))
        start = SessionLog(status=SessionLog.START)
        self._write(Event(step=first_step, session_log=start))

    def add(self, step: int, **values: float) -> None:
        """Add a point to each named curve."""
        named = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._write(Event(step=step, summary=Summary(value=named)))

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        try:
            with self._path.open("ab") as file:
                RecordWriter(file).write(event.SerializeToString())
        except OSError as error:
            raise RuntimeUnavailable(self._path, f"cannot write: {error.strerror}") from error
