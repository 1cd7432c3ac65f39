"""Seeded mutations of images, models, sidecars and recipes, and what the library makes of them.

A case is named by its family and its seed alone. Cases run in a worker process that is fed seeds
and is started again when it dies, so that a crash or a hang is found and has a name::

    python -m tests.hostile.mutate                     # every family, 10,000 each
    python -m tests.hostile.mutate png --seeds 17      # one case, in this process
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import random
import selectors
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import click
import numpy as np

from tests.hostile import judged_images
from tests.hostile.judged_images import Images
from tinyunet_deploy.errors import TinyUNetError

HANG_S: Final = 10
REPOSITORY: Final = Path(__file__).resolve().parent.parent.parent

PAST: Final[dict[str, tuple[int, ...]]] = {
    **dict.fromkeys(judged_images.FAMILIES, ()),
    "png": (310, 429),  # a wrong checksum of gAMA and eXIf
    "jpeg": (89, 284),  # a second scan of the same components
    "bmp": (6409,),  # pixels that begin in the palette
    "webp": (3085, 5091),  # a chunk that ends early; data behind the end
    "tiff": (6542,),  # an unknown planar configuration
    "tiff-deflate": (883,),  # a tag without a value
    "tiff-packbits": (0, 21),  # runs that hold more than the strip
    "safetensors": (),
    "onnx": (1976, 9024),  # a dimension's name that is no UTF-8; a bias of a wrong length
    "sidecars": (1370,),  # half a surrogate pair, which could not be written again
    "recipes": (),
}
"""Family -> seeds that once failed; they run before all others."""


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Bytes with one to eight changes: flipped, set, cut out, doubled, moved, made extreme."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 3, 8))):
        at = rng.randrange(len(changed) or 1)
        size = min(rng.choice((1, 2, 4, 8, 64)), len(changed) - at)
        match rng.randrange(7):
            case 0 if changed:
                changed[at] ^= 1 << rng.randrange(8)
            case 1:
                changed[at : at + size] = rng.randbytes(size)
            case 2:
                del changed[at : at + size]
            case 3:
                changed[at:at] = changed[at : at + size]
            case 4:
                changed[at : at + size] = rng.choice((b"\0", b"\xff", b"\x7f", b"\x80")) * size
            case 5:
                del changed[rng.randrange(len(changed) + 1) :]
            case 6:
                other = rng.randrange(len(changed) or 1)
                changed[at : at + size] = changed[other : other + size]
    return bytes(changed)


def mutated_text(text: str, rng: random.Random) -> bytes:
    """Text with words exchanged for others that a reader may stumble over, or mutated as bytes."""
    if rng.random() < 0.3:
        return mutated(text.encode(), rng)
    values = [
        "0", "-1", "1e400", "nan", "inf", "NaN", "null", "true", "[]", "{}", '""', '"\\u0000"',
        "1" * 400, "1" * 5000, "[" * 3000, "9223372036854775808", "0.5", '"a"', "[1]", "{a=1}",
        "2026-11-23", '"\\ud800"', "0x10", "1e-400", '"' + "x" * 5000 + '"',
    ]  # fmt: skip
    lines = text.splitlines()
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(lines))
        key, sign, _ = lines[at].partition("=" if "=" in lines[at] else ":")
        match rng.randrange(5):
            case 0 | 1 | 2 if sign:
                comma = "," if lines[at].endswith(",") else ""
                lines[at] = f"{key}{sign} {rng.choice(values)}{comma}"
            case 3:
                lines.insert(at, lines[rng.randrange(len(lines))])
            case _:
                del lines[at]
        lines = lines or [""]
    return "\n".join(lines).encode()


class Models:
    """Files of one kind: with their sidecar, refused by the hash; and the bytes as an attacker
    would describe them, who writes a matching sidecar or leaves it away."""

    suffix = ""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="mutate-"))
        self.path = self.folder / f"model{self.suffix}"
        self.original = self.make(self.path)

    def make(self, path: Path) -> bytes:
        raise NotImplementedError

    def use(self) -> None:
        raise NotImplementedError

    def run(self, seed: int) -> str:
        from tinyunet_deploy.artifacts.sidecar import (
            digest,
            read_artifact,
            read_sidecar,
            write_artifact,
        )

        rng = random.Random(seed)
        head = min(len(self.original), 1 << 14)  # where the structure is
        data = mutated(self.original[:head], rng) + self.original[head:]
        sidecar = read_sidecar(self.path)
        self.path.write_bytes(data)
        try:
            if data != self.original:
                with contextlib.suppress(TinyUNetError):
                    read_artifact(self.path)
                    raise AssertionError("a file that differs from its sidecar's hash is read")
            write_artifact(self.path, data, replace(sidecar, sha256=digest(data)))
            self.use()
        finally:
            write_artifact(self.path, self.original, sidecar)
        return "loaded"

    def close(self) -> None:
        shutil.rmtree(self.folder)


class Safetensors(Models):
    """A checkpoint with the tensors of ``tiny``, two channels wide: most bytes are structure.

    Two megabytes of weights would be written and hashed three times a case.
    """

    suffix = ".safetensors"

    def make(self, path: Path) -> bytes:
        import torch

        from tinyunet_deploy.artifacts.architectures import Architecture
        from tinyunet_deploy.artifacts.checkpoint import save_checkpoint
        from tinyunet_deploy.artifacts.network import make_network
        from tinyunet_deploy.contract import Contract

        torch.set_num_threads(1)
        network = make_network("thin", Architecture(encoder=(2, 2, 2, 2), bottleneck=2, head=2))
        for parameter in network.parameters():
            torch.nn.init.zeros_(parameter)
        save_checkpoint(path, network, Contract(64, 64), origin={})
        return path.read_bytes()

    def use(self) -> None:
        from tinyunet_deploy.artifacts.checkpoint import load_checkpoint

        load_checkpoint(self.path)


class ONNX(Models):
    """A small graph of the contract's form, on ONNX Runtime.

    A crash of the runtime is no failure here: a file without our sidecar is tried in a process of
    its own, which this worker is. That it is contained there is for tests/test_hostile_models.py.
    """

    suffix = ".onnx"
    may_die = True

    def make(self, path: Path) -> bytes:
        from tinyunet_deploy.artifacts.sidecar import Sidecar, digest, write_artifact
        from tinyunet_deploy.contract import Contract

        data = small_graph().SerializeToString(deterministic=True)
        sidecar = Sidecar("onnx", "fp32", digest(data), None, Contract(16, 16))
        write_artifact(path, data, sidecar)
        return data

    def use(self) -> None:
        from tinyunet_deploy.artifacts.onnx_guard import check_onnx_file
        from tinyunet_deploy.artifacts.sidecar import read_artifact
        from tinyunet_deploy.backends import sandbox_process

        artifact = read_artifact(self.path)
        contract = check_onnx_file(artifact.data, self.path)
        if contract.height * contract.width > 1 << 20:
            return  # what it says it takes is not given to it here
        sandbox_process.run_once(
            sandbox_process.unknown(self.path, artifact.data, contract), "onnxruntime"
        )


def small_graph() -> Any:
    """An ONNX model: [N, 1, 16, 16] through one convolution."""
    from onnx import TensorProto, helper, numpy_helper

    tensors = {
        "weight": np.full((1, 1, 3, 3), 0.01, np.float32),
        "bias": np.zeros(1, np.float32),
        "full": np.float32(255),
        "half": np.array([0.5], np.float16),
    }
    nodes = [
        helper.make_node("Cast", ["image"], ["x"], "first", to=TensorProto.FLOAT),
        helper.make_node("Conv", ["x", "weight", "bias"], ["y"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node("Sigmoid", ["y"], ["s"], "sigmoid"),
        helper.make_node("Mul", ["s", "full"], ["m"], "scale"),
        helper.make_node("Round", ["m"], ["r"], "round"),
        helper.make_node("Cast", ["r"], ["score"], "last", to=TensorProto.UINT8),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.UINT8, ["N", 1, 16, 16])
        for name in ("image", "score")
    ]
    weights = [numpy_helper.from_array(np.asarray(value), name) for name, value in tensors.items()]
    graph = helper.make_graph(nodes, "small", ends[:1], ends[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


class Sidecars:
    """Sidecars of every kind of artifact, half of them with a digest that fits."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="mutate-"))

    def run(self, seed: int) -> str:
        from tinyunet_deploy.artifacts.facts import (
            NetworkFacts,
            PlanFacts,
            PrecisionAudit,
            Profile,
        )
        from tinyunet_deploy.artifacts.sidecar import (
            Sidecar,
            digest,
            read_artifact,
            sidecar_path,
            write_artifact,
        )
        from tinyunet_deploy.artifacts.sidecar_schema import _digest_of_fields
        from tinyunet_deploy.contract import Contract
        from tinyunet_deploy.testing.fake_backend import FakeBackend

        rng = random.Random(seed)
        kind, suffix = rng.choice(
            (("checkpoint", ".safetensors"), ("onnx", ".onnx"), ("plan", ".plan"))
        )
        path = self.folder / f"model{suffix}"
        audit = PrecisionAudit({"encoder.0.0": "Half"}, None, "built without a GPU")
        plan = PlanFacts(
            "tensorrt", "10.16.1", "NVIDIA L4", "8.9", Profile(), "tinyunet build", audit, 5, 1.5
        )
        contract = Contract(64, 64, max_batch=16)
        sidecar = Sidecar(
            kind, "fp16", digest(b"x"), digest(b"y"), contract, 0.4, 9, {"recipe": {"steps": 3}},
            network=NetworkFacts.of("tiny"), kept_in_float32=("encoder.0.2",),
            tuned_on=(digest(b"z"),), plan=plan if kind == "plan" else None, step=3,
        )  # fmt: skip
        write_artifact(path, b"x", sidecar)
        text = mutated_text(sidecar.as_json(), rng)
        if rng.random() < 0.8:
            with contextlib.suppress(ValueError, TypeError, AttributeError, RecursionError):
                fields = json.loads(text)
                fields.pop("sidecar_sha256", None)
                fields["sidecar_sha256"] = _digest_of_fields(fields)
                text = json.dumps(fields).encode()
        sidecar_path(path).write_bytes(text)
        artifact = read_artifact(path)
        backend = FakeBackend(contract=artifact.sidecar.contract)
        backend.artifact = artifact
        assert backend.min_batch >= 1
        assert (backend.max_batch or 1) >= 1
        artifact.sidecar.as_json().encode()
        return "read"

    def close(self) -> None:
        shutil.rmtree(self.folder)


class Recipes:
    """Recipes and files of limits."""

    def __init__(self) -> None:
        from tinyunet_deploy.quality.parity_limits import LIMITS
        from training.recipe import RECIPES

        self.folder = Path(tempfile.mkdtemp(prefix="mutate-"))
        self.texts = [path.read_text() for path in sorted(RECIPES.glob("*.toml"))]
        self.limits = LIMITS.read_text()

    def run(self, seed: int) -> str:
        from tinyunet_deploy.quality.parity_limits import read_limits
        from training.recipe import read_recipe

        rng = random.Random(seed)
        path = self.folder / "file.toml"
        if rng.random() < 0.25:
            path.write_bytes(mutated_text(self.limits, rng))
            read_limits(path)
        else:
            path.write_bytes(mutated_text(rng.choice(self.texts), rng))
            read_recipe(str(path))
        return "read"

    def close(self) -> None:
        shutil.rmtree(self.folder)


FAMILIES: Final[dict[str, Callable[[], Any]]] = {
    **{name: functools.partial(Images, name, mutated) for name in judged_images.FAMILIES},
    "safetensors": Safetensors,
    "onnx": ONNX,
    "sidecars": Sidecars,
    "recipes": Recipes,
}


def outcome(family: Any, seed: int) -> str:
    """What became of a case: accepted, or refused in one line of ours."""
    try:
        return family.run(seed)
    except TinyUNetError as error:
        line = f"error: {error}"
        assert line.isprintable(), line
        return getattr(error, "reason", None) or f"refused: {type(error).__name__}"


def work(name: str) -> None:
    """The worker: seeds come in, outcomes go out, a line each."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    os.fsync = lambda _descriptor: None  # no file of a worker outlives it
    family = FAMILIES[name]()
    answers.write("ready\n")
    for line in sys.stdin:
        try:
            answers.write(outcome(family, int(line)) + "\n")
        except BaseException as error:
            answers.write(f"FAILED {type(error).__name__}: {str(error)[:200]!r}\n")
    getattr(family, "close", lambda: None)()


class Worker:
    """A worker process, started again when it dies."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.scratch = tempfile.mkdtemp(prefix="mutate-worker-")
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.hostile.mutate", self.name, "--work"],
            cwd=REPOSITORY,
            env={**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": self.scratch},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        if self._answer(process, 120) != "ready":
            raise RuntimeError(f"the worker for {self.name} does not start")
        return process

    def run(self, seed: int) -> str:
        """The outcome of a case; ``died ...`` and ``hung`` are outcomes as well."""
        if self.process is None:
            self.process = self.start()
        process = self.process
        assert process.stdin is not None
        process.stdin.write(b"%d\n" % seed)
        process.stdin.flush()
        answer = self._answer(process, HANG_S)
        if answer:
            return answer
        hung = answer is None
        self.process = None
        process.kill()
        code = process.wait()
        process.stdin.close()
        process.stdout.close()
        return "hung" if hung else f"died {code}"

    def _answer(self, process: subprocess.Popen[bytes], seconds: float) -> str | None:
        """One line; None after too long, nothing from a dead process."""
        assert process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            if not selector.select(seconds):
                return None
        return process.stdout.readline().decode().rstrip("\n")

    def close(self) -> list[str]:
        """End the process; gives the files that it left where it may write none."""
        if self.process is not None:
            self.process.communicate(timeout=60)
        left = sorted(path.name for path in Path(self.scratch).rglob("*") if path.is_file())
        shutil.rmtree(self.scratch)
        return left


def run_family(name: str, seeds: Iterable[int]) -> dict[str, Any]:
    """Run cases; gives counts of outcomes, and the seeds of those that failed."""
    worker, counts, failed = Worker(name), Counter[str](), dict[str, str]()
    contained = getattr(FAMILIES[name], "may_die", False)
    for seed in (*PAST[name], *seeds):
        answer = worker.run(seed)
        died = answer.startswith("died")
        if answer.startswith("FAILED") or answer == "hung" or (died and not contained):
            failed[str(seed)] = answer
        words = answer.split(" ")
        counts[
            "died in its own process" if died else words[0] if words[0] == "FAILED" else answer
        ] += 1
    left = worker.close()
    if left and not contained:
        failed["files left"] = ", ".join(left[:5])
    return {
        "cases": sum(counts.values()),
        "outcomes": dict(sorted(counts.items())),
        "failed": failed,
    }


@click.command()
@click.argument("families", nargs=-1, type=click.Choice(list(FAMILIES)))
@click.option("--count", default=10_000, show_default=True, help="Cases per family.")
@click.option("--first", default=0, show_default=True, help="The first seed.")
@click.option("--seeds", type=int, multiple=True, help="Only these, in this process.")
@click.option("--work", "as_worker", is_flag=True, hidden=True)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="Counts as JSON."
)
def main(
    families: tuple[str, ...],
    count: int,
    first: int,
    seeds: tuple[int, ...],
    as_worker: bool,
    output: Path | None,
) -> None:
    """Run mutated files of FAMILIES, of all if none is given. Exit 1 on a crash, hang or bug."""
    if as_worker:
        work(families[0])
        return
    if seeds:
        for name in families:
            family = FAMILIES[name]()
            for seed in seeds:
                click.echo(f"{name} {seed}: {outcome(family, seed)}")
            getattr(family, "close", lambda: None)()
        return
    from tinyunet_deploy.files import write_atomic

    results: dict[str, Any] = {}
    for name in families or FAMILIES:
        found = run_family(name, range(first, first + count))
        results[name] = found
        accepted = sum(found["outcomes"].get(word, 0) for word in ("decoded", "loaded", "read"))
        click.echo(
            f"{name}: {found['cases']} cases, {accepted} usable, {len(found['failed'])} failures"
            + "".join(f"; seed {seed}: {what}" for seed, what in found["failed"].items())
        )
        if output:
            # read now: nightly tests may have put their counts there in the meantime
            known = json.loads(output.read_text()) if output.exists() else {}
            counted = known.get("families", {}) | {name: found}
            known |= {"schema_version": 1, "hang_s": HANG_S, "families": counted}
            text = json.dumps(known, indent=2, sort_keys=True)
            write_atomic(output, text.encode() + b"\n", durable=True)
    sys.exit(any(found["failed"] for found in results.values()))


if __name__ == "__main__":
    main()
