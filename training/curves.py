"""Loss curves in the format of TensorBoard."""

from __future__ import annotations

import time
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from tinyunet_deploy.files import writing

__all__ = ["EVENTS", "VALIDATION", "Curves"]

EVENTS = "tensorboard"
"""Folder of the curves in the folder of a run."""
VALIDATION = ("validation/iou_defective", "validation/escapes", "validation/overkills")
"""Names of the curves of the validation images."""

_NAME = "events.out.tfevents"


class Curves:
    """A file of events; this thread writes each one at once, so that no failure is lost."""

    def __init__(self, folder: Path, first_step: int) -> None:
        """Start a file whose steps from ``first_step`` on replace those of earlier files.

        Raises:
            RuntimeUnavailable: the disk is full, read-only or failing.
        """
        with writing(folder):
            folder.mkdir(exist_ok=True)
        names = (path.suffix[1:] for path in folder.glob(f"{_NAME}.*"))
        last = max((int(name) for name in names if name.isdecimal()), default=0)
        self._path = folder / f"{_NAME}.{max(last + 1, time.time_ns())}"  # the clock may go back
        self._write(Event(file_version="brain.Event:2"))
        start = SessionLog(status=SessionLog.START)
        self._write(Event(step=first_step, session_log=start))

    def add(self, step: int, **values: float) -> None:
        """Add a point to each named curve."""
        named = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._write(Event(step=step, summary=Summary(value=named)))

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        with writing(self._path), self._path.open("ab") as file:
            RecordWriter(file).write(event.SerializeToString())
