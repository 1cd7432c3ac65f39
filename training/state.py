"""The state of a run on disk, from which it resumes after a crash, a signal or a power cut.

No random number generator is part of it: a batch and its augmentation are functions of the seed and
the step (:mod:`training.sampler`), and so is the learning rate; the network draws no numbers.
"""

from __future__ import annotations

import json
import logging
import threading
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from tinyunet_deploy.artifacts.network import Network
from tinyunet_deploy.artifacts.sidecar import MAX_BYTES, digest
from tinyunet_deploy.artifacts.strict_json import read_json
from tinyunet_deploy.errors import DataError
from tinyunet_deploy.files import read_regular, write_atomic
from training.batch_norm import plain_weights
from training.validation import OperatingPoint

__all__ = ["Best", "State", "remove_states", "restore_state", "save_state", "state_files"]

log = logging.getLogger("training")
_LARGEST_FIELDS = 1 << 20
"""Largest JSON of a state that is read, bytes; ours have less than a kilobyte."""
_KEPT = 2
"""Number of states that are kept: the newest, and the one before in case the newest is torn."""


@dataclass(frozen=True)
class Best:
    """The best weights so far."""

    step: int
    point: OperatingPoint
    weights: dict[str, Tensor]
    """Parameter name -> weights of the plain network, on the CPU."""


@dataclass
class State:
    """Everything that the next step depends on."""

    network: Network
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    step: int = 0
    """Number of steps done."""
    best: Best | None = None
    changing: threading.RLock = field(default_factory=threading.RLock)
    """Lock that is held while a step changes the fields above, and while they are written."""

    def consider(self, point: OperatingPoint) -> None:
        """Keep the current weights if no earlier ones are better."""
        if self.best is None or point.merit >= self.best.point.merit:
            self.best = Best(self.step, point, plain_weights(self.network))


def save_state(folder: Path, state: State) -> None:
    """Write a state, and remove all older ones except the last.

    Raises:
        RuntimeUnavailable: the disk is full, read-only or failing.
    """
    with state.changing:
        tensors = {f"network.{k}": v.detach() for k, v in state.network.state_dict().items()}
        for index, values in state.optimizer.state_dict()["state"].items():
            for key, value in values.items():
                tensors[f"optimizer.{index}.{key}"] = torch.as_tensor(value)
        fields: dict[str, Any] = {"step": state.step, "scaler": state.scaler.state_dict()}
        if state.best is not None:
            tensors |= {f"best.{name}": value for name, value in state.best.weights.items()}
            fields["best"] = {"step": state.best.step, "point": state.best.point.as_dict()}
        data = safetensors.torch.save({k: v.cpu().contiguous() for k, v in tensors.items()})
        fields["sha256"] = digest(data)
        path = folder / f"state-{state.step:08d}.safetensors"
        write_atomic(path.with_suffix(".json"), json.dumps(fields).encode(), durable=True)
        write_atomic(path, data, durable=True)
        for old in state_files(folder)[_KEPT:]:
            old.unlink()
            old.with_suffix(".json").unlink(missing_ok=True)


def restore_state(folder: Path, state: State) -> None:
    """Load the newest complete state in the folder into ``state``, if there is one.

    Torn states are skipped with a warning.

    Raises:
        DataError: a whole state does not fit this run.
    """
    for path in state_files(folder):
        try:
            fields = read_json(read_regular(path.with_suffix(".json"), limit=_LARGEST_FIELDS))
            data = read_regular(path, limit=4 * MAX_BYTES)  # weights, two moments, the best weights
            if digest(data) != fields["sha256"]:
                raise ValueError("its bytes are not those that were written")
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("%s is skipped: %s", path, error)
            continue
        try:
            _restore(state, fields, safetensors.torch.load(data))
        except torch.OutOfMemoryError:
            raise
        except (SafetensorError, LookupError, TypeError, ValueError, RuntimeError) as error:
            what = f"is not a state of this run: {str(error).splitlines()[0]}"
            raise DataError(path, what, "give another --output") from error
        return


def _restore(state: State, fields: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    parts: dict[str, dict[str, Tensor]] = {"network": {}, "optimizer": {}, "best": {}}
    for full_name, value in tensors.items():
        part, _, name = full_name.partition(".")
        parts[part][name] = value
    by_index: dict[int, dict[str, Tensor]] = {}
    for name, value in parts["optimizer"].items():
        index, _, key = name.partition(".")
        by_index.setdefault(int(index), {})[key] = value
    state.network.load_state_dict(parts["network"])
    state.optimizer.load_state_dict({**state.optimizer.state_dict(), "state": by_index})
    if fields["scaler"]:
        state.scaler.load_state_dict(fields["scaler"])
    state.step = int(fields["step"])
    if best := fields.get("best"):
        point = OperatingPoint(**best["point"])
        state.best = Best(best["step"], replace(point, worst=tuple(point.worst)), parts["best"])


def state_files(folder: Path) -> list[Path]:
    """Return the states in a folder, newest first."""
    return sorted(folder.glob("state-*.safetensors"), reverse=True)


def remove_states(folder: Path) -> None:
    """Remove all states, which a finished run no longer needs.

    A state goes before its description, as it is written behind it: whenever the process is killed,
    every state that is left has one.
    """
    for path in sorted(folder.glob("state-*"), key=lambda path: path.suffix == ".json"):
        path.unlink()
