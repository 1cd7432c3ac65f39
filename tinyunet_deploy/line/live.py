"""A live run: parts pass a real model on real images in real time."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import numpy as np

from tinyunet_deploy.backends.base import Backend
from tinyunet_deploy.backends.registry import open_backend
from tinyunet_deploy.contract import Contract, Image
from tinyunet_deploy.data.decoding import read_image
from tinyunet_deploy.errors import ImageError, RefusedError, RuntimeUnavailable
from tinyunet_deploy.host import describe_machine
from tinyunet_deploy.inspection.defects import Verdict, find_defects, verdict
from tinyunet_deploy.inspection.walk import walk_images
from tinyunet_deploy.line.simulation import Line, Outcome, Recording, Times, outcome, triggers_ms

Judge = Callable[[int], Verdict]
"""Takes the number of an image, gives the verdict on it."""

MOST_IMAGES: Final = 64
"""Kept in memory and shown in turn."""
WARM_UP: Final = 5
"""Images that every process judges before the belt starts."""
_PATIENCE_S: Final = 10.0
"""How long after the last trigger, besides the deadline, verdicts are waited for."""


@dataclass(frozen=True)
class LiveRun:
    """What was measured."""

    outcome: Outcome
    service_ms: Times
    """[parts x cameras]: from when both the image and a process were there to the verdict, waking
    up included; NaN if dropped, infinite if there never was a verdict."""
    largest_lateness_ms: float
    """By which a trigger came after its instant: more than a few ms, and the machine was too busy
    to keep the time of the belt."""

    def recording(self, line: Line, source: str) -> Recording:
        """The service times, to be replayed.

        Raises:
            RefusedError: no image was judged at all.
        """
        stretch = (line.go_parts or self.outcome.parts) * line.cameras
        pieces = np.split(self.service_ms, range(stretch, len(self.service_ms), stretch))
        stretches = tuple(piece[np.isfinite(piece)] for piece in pieces)
        stretches = tuple(piece for piece in stretches if len(piece))
        if not stretches:
            raise RefusedError(source, "no image was judged in all the time")
        return Recording(source, stretches, line.processes, idle=True)


def run_live(
    line: Line,
    judges: Sequence[Judge],
    *,
    parts: int,
    seed: int,
    progress: Callable[[int], None] | None = None,
) -> LiveRun:
    """Let parts pass in real time: each triggers at its instant, ready or not.

    Args:
        judges: one for each of the line's processes, called from one thread each, which must give
            the interpreter lock free while they compute or wait.
        progress: called with 1 after each part's trigger.

    Raises:
        Whatever a judge raised.
    """
    trigger_ms = triggers_ms(line, parts, seed)
    images = parts * line.cameras
    service_ms, judged_ms = np.full(images, np.nan), np.full(images, np.nan)
    changed = threading.Condition()
    waiting: deque[int] = deque()
    present = 0
    over = False
    failures: list[BaseException] = []
    started = time.perf_counter() + 0.02

    def now_ms() -> float:
        return (time.perf_counter() - started) * 1e3

    def serve(judge: Judge) -> None:
        nonlocal present
        free_ms = 0.0
        while True:
            with changed:
                changed.wait_for(lambda: waiting or over)
                if not waiting:
                    return
                image = waiting.popleft()
            try:
                judge(image)
            except BaseException as error:
                with changed:
                    failures.append(error)
                    changed.notify_all()
                return
            with changed:
                end_ms = now_ms()
                service_ms[image] = end_ms - max(free_ms, trigger_ms[image // line.cameras])
                judged_ms[image] = free_ms = end_ms
                present -= 1
                changed.notify_all()

    for judge in judges:
        threading.Thread(target=serve, args=(judge,), daemon=True).start()
    lateness_ms = 0.0
    try:
        for part, due_ms in enumerate(trigger_ms.tolist()):
            time.sleep(max(0.0, due_ms - now_ms()) / 1e3)
            lateness_ms = max(lateness_ms, now_ms() - due_ms)
            with changed:
                if failures:
                    break
                for image in range(part * line.cameras, (part + 1) * line.cameras):
                    if present < line.processes + line.buffer:
                        present += 1
                        judged_ms[image] = service_ms[image] = np.inf
                        waiting.append(image)
                changed.notify_all()
            if progress:
                progress(1)
        with changed:
            patience_s = _PATIENCE_S + line.deadline_ms / 1e3
            changed.wait_for(lambda: not present or failures, timeout=patience_s)
            judged_ms, service_ms = judged_ms.copy(), service_ms.copy()
    finally:
        with changed:
            over = True
            waiting.clear()
            changed.notify_all()
    if failures:
        raise failures[0]
    found = outcome(line, trigger_ms, service_ms, judged_ms)
    return LiveRun(found, service_ms, lateness_ms)


def read_parts(
    sources: Sequence[Path], contract: Contract, skipped: Callable[[ImageError], None]
) -> list[Image]:
    """The first usable images, at most :data:`MOST_IMAGES`, as a camera would hand them over.

    Args:
        skipped: called with what is wrong with each that is not usable.

    Returns:
        uint8 [H, W] each.

    Raises:
        RefusedError: there is none.
    """
    images: list[Image] = []
    for path in walk_images(sources):
        try:
            image = read_image(path)
            if image.shape != (contract.height, contract.width):
                size = f"{image.shape[1]}x{image.shape[0]}"
                takes = f"the model takes {contract.width}x{contract.height}"
                raise ImageError(path, "wrong-size", f"has {size} pixels, {takes}")
        except ImageError as error:
            skipped(error)
            continue
        images.append(image)
        if len(images) == MOST_IMAGES:
            break
    if not images:
        raise RefusedError(sources[0], "holds no usable image")
    return images


def judge_with(backend: Backend, images: Sequence[Image]) -> Judge:
    """A judge of images in turn, by the backend's own threshold and min_area; warmed up."""
    sidecar = backend.artifact.sidecar

    def judge(number: int) -> Verdict:
        score = backend.run(images[number % len(images)][None, None]).score[0, 0]
        return verdict(find_defects(score, sidecar.threshold, sidecar.min_area))

    for number in range(WARM_UP):
        judge(number)
    return judge


@dataclass(frozen=True)
class Station:
    """A model that is ready to judge."""

    judges: Sequence[Judge]
    """One for each process."""
    facts: dict[str, Any]
    """What a result must say of it."""


@contextlib.contextmanager
def open_station(
    sources: Sequence[Path],
    processes: int,
    *,
    model: Path | None = None,
    backend: str | None = None,
    device: str | None = None,
    trust_engine: bool = False,
    skipped: Callable[[ImageError], None],
) -> Iterator[Station]:
    """Load images and a model, in this process or in several others, and warm it up.

    Args:
        sources, skipped: as :func:`read_parts`.
        model, backend, device, trust_engine: as for ``open_backend``.

    Raises:
        RefusedError: the model or all images are unusable.
        RuntimeUnavailable: no runtime, or a process ended.
    """
    with open_backend(model, backend, device, trust_engine=trust_engine) as loaded:
        images = read_parts(sources, loaded.contract, skipped)
        facts = {
            "model": loaded.artifact.path.name,
            "model_sha256": loaded.artifact.sidecar.sha256,
            "precision": loaded.artifact.sidecar.precision,
            "backend": loaded.name,
            "device": loaded.device,
            "versions": loaded.versions,
            "images": len(images),
            "warm_up_images": WARM_UP,
            "machine": describe_machine(),
        }
        if processes == 1:
            yield Station([judge_with(loaded, images)], facts)
            return
        artifact, name, device = loaded.artifact.path, loaded.name, loaded.device
    load = {"model": artifact, "backend": name, "device": device, "trust_engine": trust_engine}
    with _judging_processes(processes, images, load) as judges:
        yield Station(judges, facts)


@contextlib.contextmanager
def _judging_processes(
    count: int, images: Sequence[Image], load: dict[str, Any]
) -> Iterator[list[Judge]]:
    """Processes that judge, each with a backend and an equal share of the processors of its own."""
    processors = sorted(os.sched_getaffinity(0))
    context = multiprocessing.get_context("spawn")
    with contextlib.ExitStack() as stack:
        pipes: list[Connection] = []
        for number in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(
                target=_judge_in_process,
                args=(theirs, images, processors[number::count] or processors, load),
                daemon=True,
            )
            process.start()
            theirs.close()
            stack.callback(process.join)
            stack.callback(process.terminate)
            pipes.append(ours)

        def ask(pipe: Connection, image: int | None) -> Verdict:
            try:
                if image is not None:
                    pipe.send(image)
                answer: Verdict | Exception = pipe.recv()
            except (EOFError, OSError) as error:
                raise RuntimeUnavailable("a judging process", "ended") from error
            if isinstance(answer, Exception):
                raise RuntimeUnavailable("a judging process", str(answer)) from answer
            return answer

        for pipe in pipes:
            ask(pipe, None)
        yield [lambda image, pipe=pipe: ask(pipe, image) for pipe in pipes]  # type: ignore[misc]


def _judge_in_process(
    pipe: Connection,
    images: Sequence[Image],
    processors: Sequence[int],
    load: dict[str, Any],
) -> None:
    """Answer image numbers with verdicts until the other end goes away; "OK" first, when ready."""
    with contextlib.suppress(EOFError, OSError, KeyboardInterrupt):
        try:
            os.sched_setaffinity(0, processors)
            with open_backend(**load) as loaded:
                judge = judge_with(loaded, images)
                pipe.send("OK")
                while True:
                    pipe.send(judge(pipe.recv()))
        except (EOFError, OSError):
            raise
        except Exception as error:
            pipe.send(RuntimeError(str(error)))
