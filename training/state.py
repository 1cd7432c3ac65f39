"""The state of a run on disk: what it goes on from after a crash, a signal or a power cut.

No random number generator is part of it: a batch and its augmentation are functions of the seed and
the step (:mod:`training.data`), and so is the learning rate; the network draws no numbers.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from tinyunet_deploy.artifacts.network import TinyUNet
from tinyunet_deploy.artifacts.sidecar import digest
from tinyunet_deploy.files import write_atomic
from training.validation import OperatingPoint

log = logging.getLogger("training")


@dataclass(frozen=True)
class Best:
    """The best weights so far and how they did."""

    step: int
    point: OperatingPoint
    weights: dict[str, Tensor]
    """On the CPU."""


@dataclass
class State:
    """All that the next step depends on."""

    network: TinyUNet
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    step: int = 0
    """Steps done."""
    best: Best | None = None
    changing: threading.RLock = field(default_factory=threading.RLock)
    """Held while a step changes the above, and while it is written."""

    def consider(self, point: OperatingPoint) -> None:
        """Keep the present weights if none before did better."""
        if self.best is None or point.merit >= self.best.point.merit:
            weights = {
                name: value.detach().to("cpu", copy=True)
                for name, value in self.network.state_dict().items()
            }
            self.best = Best(self.step, point, weights)


def save_state(folder: Path, state: State) -> None:
    """Write a state; keep the one before as well."""
    with state.changing:
        tensors = {f"network.{k}": v.detach() for k, v in state.network.state_dict().items()}
        for index, values in state.optimizer.state_dict()["state"].items():
            for key, value in values.items():
                tensors[f"optimizer.{index}.{key}"] = torch.as_tensor(value)
        about: dict[str, Any] = {"step": state.step, "scaler": state.scaler.state_dict()}
        if state.best is not None:
            tensors |= {f"best.{name}": value for name, value in state.best.weights.items()}
            about["best"] = {"step": state.best.step, "point": state.best.point.as_dict()}
        data = safetensors.torch.save({k: v.cpu().contiguous() for k, v in tensors.items()})
        about["sha256"] = digest(data)
        path = folder / f"state-{state.step:08d}.safetensors"
        write_atomic(path.with_suffix(".json"), json.dumps(about).encode(), durable=True)
        write_atomic(path, data, durable=True)
        for old in states(folder)[2:]:
            old.unlink()
            old.with_suffix(".json").unlink(missing_ok=True)


def restore_state(folder: Path, state: State) -> None:
    """Go back to the newest whole state in the folder, if there is one."""
    for path in states(folder):
        try:
            about = json.loads(path.with_suffix(".json").read_text())
            data = path.read_bytes()
            if digest(data) != about["sha256"]:
                raise ValueError("it is not what was written")
        except (OSError, ValueError, KeyError) as error:
            log.warning("%s is skipped: %s", path, error)
            continue
        parts: dict[str, dict[str, Tensor]] = {"network": {}, "optimizer": {}, "best": {}}
        for name, value in safetensors.torch.load(data).items():
            part, _, name = name.partition(".")
            parts[part][name] = value
        by_index: dict[int, dict[str, Tensor]] = {}
        for name, value in parts["optimizer"].items():
            index, _, key = name.partition(".")
            by_index.setdefault(int(index), {})[key] = value
        state.network.load_state_dict(parts["network"])
        state.optimizer.load_state_dict({**state.optimizer.state_dict(), "state": by_index})
        if about["scaler"]:
            state.scaler.load_state_dict(about["scaler"])
        state.step = int(about["step"])
        if best := about.get("best"):
            state.best = Best(best["step"], OperatingPoint(**best["point"]), parts["best"])
        return


def states(folder: Path) -> list[Path]:
    """The states in a folder, newest first."""
    return sorted(folder.glob("state-*.safetensors"), reverse=True)


def remove_states(folder: Path) -> None:
    """Remove what a finished run no longer needs."""
    for path in folder.glob("state-*"):
        path.unlink()


@contextmanager
def stopped_by_signals(save: Callable[[], None]) -> Iterator[None]:
    """Let SIGTERM, SIGINT and SIGHUP end the process with 128 + signal, once ``save`` has run.

    A step of large images on a CPU takes longer than whoever sent SIGTERM waits, and a Python
    handler would run only after it. Here the signal wakes a thread, which saves what the last whole
    step left while the main thread still computes the next.
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
        if signal.getsignal(number) is not signal.SIG_IGN  # as nohup has it
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
