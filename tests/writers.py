"""Processes that write one folder at the same time: ``writers.py OUTPUT ROUNDS HOSTS KIND...``

A kind is ``infer`` or ``watch``; ``stale`` leaves the lock file of a process that is dead before
they begin. With HOSTS above 1, each process believes to run on another host. A process that holds
the folder waits for all others to have ended or to hold it too, so no round passes because the
processes happened to run one after another. Prints the exit codes of each round as JSON.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import socket
import sys
import threading
from pathlib import Path

from tests.conftest import part
from tinyunet_deploy.contract import Batch, Contract
from tinyunet_deploy.data.encoding import write_png
from tinyunet_deploy.errors import TinyUNetError
from tinyunet_deploy.files import LOCK
from tinyunet_deploy.inspection.infer import infer
from tinyunet_deploy.inspection.outputs import Outputs
from tinyunet_deploy.inspection.watch import watch
from tinyunet_deploy.testing.fake_backend import FakeBackend

IMAGES = 3


def write(kind: str, folder: Path, output: Path, holds: int, go: int) -> int:
    """Inspect the folder; say so before the first image, and wait until all may go on."""

    def score(batch: Batch) -> Batch:
        nonlocal waited
        if not waited:
            os.write(holds, b"h")
            os.read(go, 1)
            waited = True
        return batch

    waited = False
    stop = threading.Event()
    backend = FakeBackend(score, contract=Contract(64, 64))
    done = 0

    def count(_: object) -> None:
        nonlocal done
        done += 1
        if done == IMAGES:
            stop.set()

    try:
        if kind == "watch":
            watch(
                folder, output, backend, batch_size=1, workers=0, stop=stop, outputs=Outputs(),
                settle_ms=0, on_line=count,
            )  # fmt: skip
        else:
            infer([folder], output, backend, batch_size=1, workers=0)
    except TinyUNetError as error:
        return error.exit_code
    return 0


def race(kinds: list[str], folder: Path, output: Path, hosts: int) -> list[int]:
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir()
    if "stale" in kinds:
        dead = os.fork()
        if not dead:
            os._exit(0)
        os.waitpid(dead, 0)
        (output / LOCK).write_text(f"{dead}\n{socket.gethostname()}\n")
    told, holds = os.pipe()
    waits, go = os.pipe()
    begin, start = os.pipe()
    children = {}
    for number, kind in enumerate(kind for kind in kinds if kind != "stale"):
        child = os.fork()
        if not child:
            code = 70
            try:
                os.close(start)
                os.close(go)
                if hosts > 1:
                    socket.gethostname = lambda number=number: f"station-{number}"
                os.read(begin, 1)  # all at once: the end of the file
                code = write(kind, folder, output, holds, waits)
            finally:
                os._exit(code)
        children[child] = 0
    for end in (holds, waits, begin, start):
        os.close(end)
    codes = {}
    holding = 0
    while len(codes) + holding < len(children):
        for child in children.keys() - codes.keys():
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                codes[child] = os.waitstatus_to_exitcode(status)
        if select.select([told], [], [], 0.01)[0]:
            holding += len(os.read(told, 100))
    os.close(go)
    for child in children.keys() - codes.keys():
        codes[child] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.close(told)
    return [codes[child] for child in children]


def main(output: Path, rounds: int, hosts: int, kinds: list[str]) -> None:
    signal.alarm(600)
    folder = output.parent / "in"
    folder.mkdir()
    for number in range(IMAGES):
        write_png(folder / f"{number}.png", part(number))
    print(json.dumps([race(kinds, folder, output, hosts) for _ in range(rounds)]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
