"""What every backend inherits: checked batches, checked scores, failures in the user's words."""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tinyunet_deploy.artifacts.facts import PlanFacts, Profile
from tinyunet_deploy.artifacts.sidecar import Artifact, Sidecar, digest
from tinyunet_deploy.backends.base import Backend, Run
from tinyunet_deploy.contract import Batch, Contract
from tinyunet_deploy.errors import ArtifactError, OutOfMemory, RuntimeUnavailable
from tinyunet_deploy.host import processor_count
from tinyunet_deploy.testing.fake_backend import FakeBackend

CONTRACT = Contract(16, 32, max_batch=4)


def zeros(*shape: int) -> Batch:
    return np.zeros(shape, np.uint8)


def failing(error: Exception, device: str = "cpu") -> Backend:
    def score(image: Batch) -> Batch:
        raise error

    backend = FakeBackend(score, contract=CONTRACT)
    backend.device = device
    return backend


class Numpy(Backend):
    """A backend that keeps every default of the base class."""

    name = "numpy"

    def _run(self, image: Batch) -> Run:
        assert image.flags.c_contiguous
        return Run(255 - image, 1.0)


def artifact(
    contract: Contract = CONTRACT, *, verified_batch: int | None = None, least: int | None = None
) -> Artifact:
    sidecar = Sidecar("plan", "fp32", digest(b""), None, contract)
    sidecar = dataclasses.replace(sidecar, verified_batch=verified_batch)
    if least is not None:
        facts = PlanFacts("tensorrt", "11.4.0", None, "8.6", Profile(least, least, least))
        sidecar = dataclasses.replace(sidecar, plan=facts)
    return Artifact(Path("model.plan"), b"", sidecar)


@pytest.mark.parametrize("device", ["cpu", "cuda:0", "cuda:12"])
def test_a_device_is_cpu_or_cuda_with_its_number(device: str) -> None:
    assert Numpy(artifact(), device).device == device


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:x", "cpu:0", "xcpu", "cuda:0 "])
def test_another_device_is_refused_with_what_to_say(device: str) -> None:
    with pytest.raises(RuntimeUnavailable) as caught:
        Numpy(artifact(), device)
    assert str(caught.value).startswith(device.strip())
    assert caught.value.hint == "use cpu or cuda:0"


def test_it_says_what_computes_and_on_how_many_threads() -> None:
    cpu, cuda = Numpy(artifact()), Numpy(artifact(), "cuda:1")
    assert cpu.versions == {"numpy": importlib.metadata.version("numpy")}
    assert cpu.threads == processor_count()
    assert cuda.threads is None
    assert "wall clock" in cpu.synchronization
    assert cpu.contract == CONTRACT


@pytest.mark.parametrize(
    ("most", "verified", "limit"),
    [(None, None, None), (4, None, 4), (None, 3, 3), (4, 3, 3), (2, 3, 2)],
)
def test_the_largest_batch_is_the_smaller_limit(
    most: int | None, verified: int | None, limit: int | None
) -> None:
    backend = Numpy(artifact(Contract(16, 32, max_batch=most), verified_batch=verified))
    assert backend.max_batch == limit
    assert [backend.batch_size(wanted) for wanted in (1, 9)] == [1, limit or 9]
    assert len(backend.run(zeros(limit or 9, 1, 16, 32)).score) == (limit or 9)
    if limit:
        with pytest.raises(ValueError, match=rf"expected a batch of 1\.\.{limit}, got {limit + 1}"):
            backend.run(zeros(limit + 1, 1, 16, 32))


def test_a_batch_of_no_image_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected a batch of 1\.\.4, got 0"):
        Numpy(artifact()).run(zeros(0, 1, 16, 32))
    with pytest.raises(ValueError, match=r"expected a batch of 1\.\., got 0"):
        Numpy(artifact(Contract(16, 32))).run(zeros(0, 1, 16, 32))


@pytest.mark.parametrize(
    "image",
    [
        zeros(1, 1, 32, 16),
        zeros(1, 1, 16, 48),
        zeros(1, 2, 16, 32),
        zeros(1, 16, 32),
        zeros(16, 32),
        zeros(1, 1, 16, 32, 1),
        zeros(1, 1, 16, 32).astype(np.float32),
        zeros(1, 1, 16, 32).astype(np.int8),
    ],
)
def test_an_array_that_is_no_batch_is_refused_with_found_and_wanted(image: Batch) -> None:
    with pytest.raises(ValueError, match=r"expected uint8 \[N, 1, 16, 32\]") as caught:
        Numpy(artifact()).run(image)
    assert str(caught.value).endswith(f"got {image.dtype} {list(image.shape)}")


def test_a_view_of_a_larger_image_is_handed_over_as_one_block() -> None:
    frame = np.arange(4 * 16 * 64, dtype=np.uint32).astype(np.uint8).reshape(4, 1, 16, 64)
    view = frame[::2, :, :, ::2]
    np.testing.assert_array_equal(Numpy(artifact()).run(view).score, 255 - view)


@pytest.mark.parametrize(
    "score",
    [
        lambda image: image[:, :, :8],
        lambda image: image[:1],
        lambda image: image.astype(np.float32),
        lambda image: image[:, 0],
    ],
)
def test_scores_that_are_not_of_the_images_are_refused(score: Callable[[Batch], Batch]) -> None:
    backend = FakeBackend(score, contract=CONTRACT)
    with pytest.raises(ArtifactError, match=r"for uint8 \[2, 1, 16, 32\]; type and shape must"):
        backend.run(zeros(2, 1, 16, 32))


@pytest.mark.parametrize(
    ("error", "device", "kind", "words"),
    [
        (RuntimeError("bad node\nstack"), "cpu", ArtifactError, "fake cannot run it: bad node"),
        (RuntimeError("  bad node \n"), "cpu", ArtifactError, "fake cannot run it: bad node"),
        (
            RuntimeError("Exception from src/core.cpp:1\nException from src/b.cpp:2\n bad shape"),
            "cpu",
            ArtifactError,
            "fake cannot run it: bad shape",
        ),
        (MemoryError(), "cpu", OutOfMemory, "fake failed: out of memory"),
        (RuntimeError("std::bad_alloc"), "cpu", OutOfMemory, "fake failed: std::bad_alloc"),
        (
            RuntimeError("an illegal memory access\nmore"),
            "cuda:0",
            RuntimeUnavailable,
            "fake failed: an illegal memory access",
        ),
        (RuntimeError("out of memory"), "cuda:0", OutOfMemory, "fake failed: out of memory"),
    ],
)
def test_a_failing_runtime_is_the_models_fault_or_memorys_or_the_devices(
    error: Exception, device: str, kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind) as caught:
        failing(error, device).run(zeros(1, 1, 16, 32))
    assert type(caught.value) is kind
    assert caught.value.__cause__ is error
    where = "fake.onnx" if kind is ArtifactError else device
    assert str(caught.value) == f"{where}: {words}"


def test_what_is_no_failure_of_the_runtime_stays_what_it_is() -> None:
    with pytest.raises(KeyError):
        failing(KeyError("a bug")).run(zeros(1, 1, 16, 32))


def test_many_batches_are_scored_in_their_order_and_only_as_they_are_wanted() -> None:
    taken = []

    def images() -> Batch:
        for value in (1, 2, 3):
            taken.append(value)
            yield np.full((value, 1, 16, 32), value, np.uint8)

    runs = Numpy(artifact()).run_many(images())
    first = next(runs)
    assert taken == [1]
    assert [run.score.shape[0] for run in (first, *runs)] == [1, 2, 3]


@pytest.mark.parametrize("least", [None, 1, 3])
def test_an_image_is_scored_alone_however_large_the_smallest_batch(least: int | None) -> None:
    backend = Numpy(artifact(least=least))
    assert backend.min_batch == (least or 1)
    sizes = []
    run = backend.run

    def counted(image: Batch) -> Run:
        sizes.append(len(image))
        assert (image == image[:1]).all(), "no other image in its batch"
        return run(image)

    backend.run = counted  # type: ignore[method-assign]
    images = np.random.default_rng(1).integers(0, 256, (5, 1, 16, 32), dtype=np.uint8)
    np.testing.assert_array_equal(backend.score_alone(images), 255 - images)
    assert sizes == [least or 1] * 5


@pytest.mark.parametrize(
    "shape", [[1, 1, 32, 16], ["N", 1, 16, 16], [1, 3, 16, 32], [1, 1, 16], [1, 1, 1, 16, 32]]
)
def test_a_graph_of_another_size_than_its_sidecar_is_refused(shape: list[object]) -> None:
    with pytest.raises(ArtifactError, match="its sidecar says 16x32 rows and columns"):
        Numpy(artifact())._check_input(shape)


@pytest.mark.parametrize("batch", [1, "N", "?", None])
def test_a_graph_of_the_size_is_taken_whatever_it_calls_the_batch(batch: object) -> None:
    Numpy(artifact())._check_input([batch, 1, 16, "32"])


def test_it_is_closed_at_the_end_of_with_also_after_an_error() -> None:
    closed = []

    class Closing(Numpy):
        def close(self) -> None:
            closed.append(True)

    with Closing(artifact()) as backend:
        assert isinstance(backend, Closing)
    assert closed == [True]
    with pytest.raises(KeyError), Closing(artifact()):
        raise KeyError
    assert closed == [True, True]


def test_a_class_that_cannot_run_is_no_backend() -> None:
    with pytest.raises(TypeError, match="abstract"):
        Backend(artifact())  # type: ignore[abstract]


def test_copies_take_no_time_unless_a_backend_says_so() -> None:
    run = Numpy(artifact()).run(zeros(1, 1, 16, 32))
    assert (run.copy_in_ms, run.copy_out_ms) == (0.0, 0.0)
