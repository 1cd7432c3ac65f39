"""The TensorRT backend's buffers, streams, graphs and refusals, on a fake GPU and TensorRT."""

import dataclasses
import gc
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyunet_deploy import backends
from tinyunet_deploy.artifacts.facts import PlanFacts, Profile
from tinyunet_deploy.artifacts.sidecar import (
    Artifact,
    Sidecar,
    digest,
    read_artifact,
    read_sidecar,
    write_artifact,
    write_sidecar,
)
from tinyunet_deploy.backends import nvidia_probe
from tinyunet_deploy.backends.nvidia_probe import GPU
from tinyunet_deploy.backends.plan_check import fitting_profile
from tinyunet_deploy.backends.registry import open_backend
from tinyunet_deploy.backends.tensorrt import TensorRTBackend
from tinyunet_deploy.contract import Batch, Contract
from tinyunet_deploy.errors import ArtifactError, RuntimeUnavailable
from tinyunet_deploy.testing.fake_cuda import FakeDevice, interleavings
from tinyunet_deploy.testing.fake_tensorrt import FakeTensorRT

CONTRACT = Contract(16, 16, max_batch=4)
PLAN = b"a plan"
REBUILD = "tinyunet build tinyunet.onnx -o tinyunet.fp32.plan --batch 1,2,4"


def plan(**changes: Any) -> Artifact:
    facts = PlanFacts("tensorrt", "11.4.0.106", "Fake GPU", "8.6", Profile(1, 2, 4), REBUILD)
    facts = dataclasses.replace(facts, **changes)
    sidecar = Sidecar("plan", "fp32", digest(PLAN), "0" * 64, CONTRACT, plan=facts)
    return Artifact(Path("tinyunet.fp32.plan"), PLAN, sidecar)


def inverted(image: Batch) -> Batch:
    return 255 - image


def backend(
    device: FakeDevice | None = None,
    trt: FakeTensorRT | None = None,
    artifact: Artifact | None = None,
) -> TensorRTBackend:
    device = device or FakeDevice()
    trt = trt or FakeTensorRT(device, inverted)
    return TensorRTBackend(artifact or plan(), tensorrt=trt.library, gpu=device)


def batches(sizes: list[int]) -> list[Batch]:
    random = np.random.default_rng(1)
    return [random.integers(0, 256, (size, 1, 16, 16), dtype=np.uint8) for size in sizes]


@given(
    sizes=st.lists(st.integers(1, 4), max_size=8),
    seed=st.none() | st.integers(0, 1000),
    graphs=st.booleans(),
    least=st.integers(1, 4),
)
def test_every_batch_gets_its_own_scores(
    sizes: list[int], seed: int | None, graphs: bool, least: int
) -> None:
    device = FakeDevice(seed=seed, graphs=graphs)
    trt = FakeTensorRT(device, inverted, least=least)
    images = batches(sizes)
    with backend(device, trt) as loaded:
        runs = list(loaded.run_many(images))
        once = [loaded.run(image) for image in images]
    assert [len(run.score) for run in runs] == sizes
    for image, run, single in zip(images, runs, once, strict=True):
        np.testing.assert_array_equal(run.score, inverted(image))
        np.testing.assert_array_equal(single.score, inverted(image))
        assert run.device_ms > 0
    assert device.closed


@pytest.mark.parametrize("graphs", [True, False])
def test_no_order_that_the_streams_allow_changes_a_score(graphs: bool) -> None:
    images = batches([2, 1, 2])

    def scores(switches: tuple[int, ...]) -> tuple[int, int]:
        """Score them in this order of the device's work; return where in its history they are."""
        device = FakeDevice(switches=switches, graphs=graphs)
        with backend(device) as loaded:
            list(loaded.run_many(batches([1, 1])))  # both slots make their programs
            list(loaded.run_many(batches([2, 2])))
            first = len(device.history)
            for image, run in zip(images, loaded.run_many(images), strict=True):
                np.testing.assert_array_equal(run.score, inverted(image), str(switches))
            return first, len(device.history)

    first, end = scores(())
    assert end - first >= 3 * 8, "copies, engine and events of three batches"
    for switches in interleavings(first, end):
        scores(switches)


def test_copies_overlap_computing_but_computing_does_not_overlap_computing() -> None:
    device = FakeDevice()
    with backend(device) as loaded:
        list(loaded.run_many(batches([2, 2])))  # both slots make their program
        device.history.clear()
        runs = loaded.run_many(batches([2, 2]))
        next(runs)
        uploads = [step for step in device.history if step.startswith("upload")]
        list(runs)
    assert len(uploads) >= 1
    computing = [step.split() for step in device.history if step.startswith("comput")]
    streams = [stream for _, stream in computing]
    assert streams[0::2] == streams[1::2], "one begins before the other ended"
    assert len(set(streams)) == 2


def test_the_second_batch_is_queued_before_the_first_is_waited_for() -> None:
    device = FakeDevice()
    taken = []

    def images() -> Any:
        for image in batches([1, 1, 1]):
            taken.append(len(device.history))
            yield image

    with backend(device) as loaded:
        list(loaded.run_many(batches([1, 1])))
        device.history.clear()
        list(loaded.run_many(images()))
    assert taken[0] == taken[1] == 0, "nothing was waited for until both slots were full"


def test_each_batch_size_is_captured_once_per_slot_and_then_replayed() -> None:
    device = FakeDevice()
    trt = FakeTensorRT(device, inverted)
    with backend(device, trt) as loaded:
        for _ in range(3):
            list(loaded.run_many(batches([4, 4, 4, 1])))
        assert device.launches == 12
    assert sorted(shape[0] for shape in trt.shapes) == [1, 4, 4]


def test_without_graphs_it_enqueues() -> None:
    device = FakeDevice(graphs=False)
    with backend(device) as loaded:
        (image,) = batches([3])
        np.testing.assert_array_equal(loaded.run(image).score, inverted(image))
    assert device.launches == 0


def test_any_thread_may_call() -> None:
    scores = []
    (image,) = batches([2])
    with backend() as loaded:
        thread = threading.Thread(target=lambda: scores.append(loaded.run(image).score))
        thread.start()
        thread.join()
    np.testing.assert_array_equal(scores[0], inverted(image))


def test_runs_that_are_left_half_way_keep_their_scores() -> None:
    images = batches([2, 3, 4, 1])
    with backend(FakeDevice(seed=3)) as loaded:
        many = [loaded.run_many(images), loaded.run_many(images)]
        first = [next(runs) for runs in many]
        np.testing.assert_array_equal(first[0].score, inverted(images[0]))
        np.testing.assert_array_equal(first[1].score, inverted(images[0]))
        np.testing.assert_array_equal(loaded.run(images[3]).score, inverted(images[3]))
        many[0].close()
        np.testing.assert_array_equal(loaded.run(images[3]).score, inverted(images[3]))
        rest = [run.score for run in many[1]]
    for score, image in zip(rest, images[1:], strict=True):
        np.testing.assert_array_equal(score, inverted(image))


def test_a_backend_may_be_closed_before_its_runs() -> None:
    loaded = backend()
    runs = loaded.run_many(batches([1, 1, 1]))
    next(runs)
    loaded.close()
    runs.close()


def test_a_batch_over_the_profile_is_refused() -> None:
    with backend() as loaded:
        assert loaded.max_batch == 4
        with pytest.raises(ValueError, match=r"expected a batch of 1..4, got 5"):
            loaded.run(batches([5])[0])
        with pytest.raises(ValueError, match=r"expected a batch of 1..4, got 5"):
            list(loaded.run_many(batches([1, 5])))
        loaded.run(batches([1])[0])


def test_a_failing_execution_is_one_line_with_tensorrts_words() -> None:
    device = FakeDevice()
    trt = FakeTensorRT(device, inverted, enqueues=0)
    with backend(device, trt) as loaded:
        with pytest.raises(RuntimeUnavailable, match=r"enqueueV3: no executions left") as caught:
            loaded.run(batches([1])[0])
        assert "\n" not in str(caught.value)
    assert device.closed


def test_an_execution_that_fails_later_leaves_the_backend_usable() -> None:
    device = FakeDevice(graphs=False)
    trt = FakeTensorRT(device, inverted, enqueues=2)
    (image,) = batches([1])
    with backend(device, trt) as loaded:
        loaded.run(image)
        with pytest.raises(RuntimeUnavailable):
            loaded.run(image)
        trt.enqueues = None
        np.testing.assert_array_equal(loaded.run(image).score, inverted(image))


def test_a_plan_that_tensorrt_refuses_gives_everything_back() -> None:
    device = FakeDevice()
    trt = FakeTensorRT(device, refuses="Serialization assertion failed")
    with pytest.raises(ArtifactError, match="Serialization assertion failed"):
        backend(device, trt)
    assert device.closed


def test_too_little_memory_gives_everything_back() -> None:
    device = FakeDevice(memory=3000)
    with pytest.raises(RuntimeUnavailable, match="out of memory"):
        backend(device)
    gc.collect()
    assert device.closed


def test_a_backend_that_is_forgotten_gives_everything_back() -> None:
    device = FakeDevice()
    loaded = backend(device)
    loaded.run(batches([1])[0])
    del loaded
    gc.collect()
    assert device.closed


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"version": "10.16.1.11"},
            r"was built by tensorrt 10\.16\.1, but this machine has tensorrt 11\.4\.0",
        ),
        (
            {"flavour": "tensorrt_rtx"},
            r"was built by tensorrt_rtx 11\.4\.0, but this machine has tensorrt 11\.4\.0",
        ),
        (
            {"gpu_name": "Other GPU"},
            "was built for Other GPU, but this machine has Fake GPU",
        ),
        (
            {"gpu_name": None, "compute_capability": "8.9"},
            r"was built for compute capability 8\.9, but this machine has compute capability 8\.6",
        ),
    ],
)
def test_a_plan_of_elsewhere_is_refused_before_it_is_read(
    changes: dict[str, Any], reason: str
) -> None:
    device = FakeDevice()
    trt = FakeTensorRT(device)
    with pytest.raises(ArtifactError, match=reason) as caught:
        backend(device, trt, plan(**changes))
    assert caught.value.hint == f"build it again: {REBUILD}"
    assert trt.deserialised == 0


def test_another_build_of_the_release_and_a_plan_for_any_such_gpu_are_taken() -> None:
    backend(artifact=plan(version="11.4.0.99", gpu_name=None)).close()


@pytest.mark.parametrize(
    ("dtype", "contract", "reason"),
    [
        ("FLOAT", CONTRACT, "not uint8 image and score"),
        ("UINT8", Contract(32, 16, max_batch=4), "its sidecar says otherwise"),
        ("UINT8", Contract(16, 16, max_batch=8), "its sidecar says otherwise"),
    ],
)
def test_a_plan_that_is_not_what_its_sidecar_says_is_refused(
    dtype: str, contract: Contract, reason: str
) -> None:
    device = FakeDevice()
    trt = FakeTensorRT(device, dtype=dtype, contract=contract)
    with pytest.raises(ArtifactError, match=reason):
        backend(device, trt)
    assert device.closed


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> FakeTensorRT:
    """A machine that has the fake GPU and TensorRT."""
    device = FakeDevice()
    trt = FakeTensorRT(device, inverted)
    monkeypatch.setattr(nvidia_probe, "why_no_tensorrt", lambda: None)
    monkeypatch.setattr(nvidia_probe, "tensorrt", lambda flavour=None: trt.library)
    monkeypatch.setattr(nvidia_probe, "gpu", lambda index: device.gpu)
    monkeypatch.setattr("tinyunet_deploy.backends.tensorrt.PyCUDADevice", lambda index: device)
    return trt


def written(folder: Path) -> Path:
    path = folder / "tinyunet.fp32.plan"
    write_artifact(path, PLAN, plan().sidecar)
    return path


def test_open_backend_runs_a_plan(machine: FakeTensorRT, tmp_path: Path) -> None:
    (image,) = batches([2])
    with open_backend(written(tmp_path), device="cuda:0") as loaded:
        assert loaded.name == "tensorrt"
        assert loaded.versions == {"tensorrt": "11.4.0.106"}
        np.testing.assert_array_equal(loaded.run(image).score, inverted(image))


def test_a_changed_plan_is_refused_before_it_is_read(machine: FakeTensorRT, tmp_path: Path) -> None:
    path = written(tmp_path)
    path.write_bytes(b"b plan")
    with pytest.raises(ArtifactError, match="is not the file that its sidecar describes"):
        open_backend(path, device="cuda:0")
    assert machine.deserialised == 0


def test_a_changed_version_in_the_sidecar_is_refused(machine: FakeTensorRT, tmp_path: Path) -> None:
    path = written(tmp_path)
    sidecar = read_sidecar(path)
    assert sidecar.plan is not None
    older = dataclasses.replace(sidecar.plan, version="10.9.0.34")
    write_sidecar(path, dataclasses.replace(sidecar, plan=older))
    with pytest.raises(ArtifactError, match=r"was built by tensorrt 10\.9\.0") as caught:
        open_backend(path, device="cuda:0")
    assert REBUILD in str(caught.value)
    assert machine.deserialised == 0


def test_a_foreign_plan_needs_trust(machine: FakeTensorRT, tmp_path: Path) -> None:
    path = tmp_path / "foreign.plan"
    path.write_bytes(PLAN)
    with pytest.raises(ArtifactError, match="has no sidecar"):
        open_backend(path, device="cuda:0")
    assert machine.deserialised == 0
    with open_backend(path, device="cuda:0", trust_engine=True) as loaded:
        assert loaded.contract == CONTRACT
        assert loaded.artifact.sidecar.precision == "unknown"


def test_trust_does_not_reach_past_a_sidecar(machine: FakeTensorRT, tmp_path: Path) -> None:
    path = written(tmp_path)
    path.write_bytes(b"b plan")
    with pytest.raises(ArtifactError, match="is not the file"):
        open_backend(path, device="cuda:0", trust_engine=True)


def test_a_file_problem_is_told_before_a_machine_problem(tmp_path: Path) -> None:
    path = written(tmp_path)
    path.write_bytes(b"b plan")
    with pytest.raises(ArtifactError, match="is not the file"):
        open_backend(path, "tensorrt", "cuda:0")


def test_the_cpu_is_no_device_for_a_plan(machine: FakeTensorRT, tmp_path: Path) -> None:
    with pytest.raises(RuntimeUnavailable, match="use --device cuda:0"):
        open_backend(written(tmp_path), device="cpu")


@pytest.mark.parametrize(
    ("missing", "reason"),
    [
        ({"tensorrt", "tensorrt_rtx"}, "tensorrt is not installed"),
        ({"pycuda"}, "pycuda is not installed"),
        (set(), "no NVIDIA driver is installed"),
    ],
)
def test_why_not_tensorrt(missing: set[str], reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_driver(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(nvidia_probe, "_installed", lambda module: module not in missing)
    monkeypatch.setattr(nvidia_probe.ctypes, "CDLL", no_driver)
    assert reason in (backends.why_not("tensorrt") or "")


def test_read_artifact_still_refuses_what_trust_lets_through(tmp_path: Path) -> None:
    path = tmp_path / "foreign.plan"
    path.write_bytes(PLAN)
    with pytest.raises(ArtifactError):
        read_artifact(path)


def test_a_gpu_is_named_as_its_driver_names_it() -> None:
    artifact = plan(gpu_name="NVIDIA A10")
    device = FakeDevice(GPU("NVIDIA A10", "8.6"))
    backend(device, artifact=dataclasses.replace(artifact)).close()


TWO = (Profile(1, 1, 1), Profile(3, 4, 4))


@given(
    sizes=st.lists(st.integers(1, 4), max_size=6),
    seed=st.none() | st.integers(0, 1000),
    graphs=st.booleans(),
)
def test_each_batch_runs_in_the_profile_that_suits_it(
    sizes: list[int], seed: int | None, graphs: bool
) -> None:
    device = FakeDevice(seed=seed, graphs=graphs)
    trt = FakeTensorRT(device, inverted, profiles=TWO)
    images = batches(sizes)
    with backend(device, trt, plan(profile=TWO[0], more_profiles=TWO[1:])) as loaded:
        assert (loaded.contract.max_batch, loaded.max_batch) == (4, 4)
        runs = list(loaded.run_many(images))
    for image, run in zip(images, runs, strict=True):
        np.testing.assert_array_equal(run.score, inverted(image))
    assert set(trt.chosen) <= {(0, 1), (1, 3), (1, 4)}  # 2 images fill a batch of 3
    wanted = {(0, 1) if size == 1 else (1, max(size, 3)) for size in sizes}
    assert set(trt.chosen) == wanted


@pytest.mark.parametrize(
    ("profiles", "batch", "wanted"),
    [
        ([(1, 8, 16)], 5, (0, 5)),
        ([(4, 8, 16)], 3, (0, 4)),
        ([(1, 1, 16), (1, 16, 16)], 1, (0, 1)),
        ([(1, 1, 16), (1, 16, 16)], 12, (1, 12)),
        ([(1, 1, 1), (16, 16, 16), (8, 8, 8)], 2, (2, 8)),
        ([(16, 16, 16), (4, 10, 16), (4, 4, 4)], 3, (2, 4)),
    ],
)
def test_the_fitting_profile(
    profiles: list[tuple[int, int, int]], batch: int, wanted: tuple[int, int]
) -> None:
    assert fitting_profile([Profile(*sizes) for sizes in profiles], batch) == wanted


def test_a_plan_with_another_largest_batch_than_its_sidecar_is_refused() -> None:
    device = FakeDevice()
    trt = FakeTensorRT(device, profiles=[Profile(1, 1, 1), Profile(2, 8, 8)])
    with pytest.raises(ArtifactError, match="its sidecar says otherwise"):
        backend(device, trt)


# --- plans that are compatible with other releases and GPUs ---------------------------------------


@pytest.mark.parametrize(
    ("built", "installed", "runs"),
    [
        ("11.4.0.106", "11.4.0.200", True),
        ("11.0.0.114", "11.4.0.106", True),
        ("10.16.1.11", "11.4.0.106", True),
        ("10.9.0.34", "10.16.1.11", True),
        ("11.4.0.106", "11.1.0.1", False),
        ("11.0.0.114", "10.16.1.11", False),
        ("10.16.1.11", "12.0.0.1", False),
    ],
)
def test_a_version_compatible_plan_runs_on_later_releases_only(
    built: str, installed: str, runs: bool
) -> None:
    device = FakeDevice()
    trt = FakeTensorRT(device, inverted, version=installed)
    (image,) = batches([2])
    if runs:
        with backend(device, trt, plan(version=built, version_compatible=True)) as loaded:
            np.testing.assert_array_equal(loaded.run(image).score, inverted(image))
        assert trt.host_code_allowed == [True], "it has a lean runtime"
    else:
        with pytest.raises(ArtifactError, match=r"version-compatible plans run on later releases"):
            backend(device, trt, plan(version=built, version_compatible=True))
        assert trt.deserialised == 0
    if nvidia_probe.release(built) != nvidia_probe.release(installed):
        with pytest.raises(ArtifactError, match="but this machine has tensorrt"):
            backend(device, trt, plan(version=built))


def test_a_version_compatible_plan_does_not_run_on_another_flavour() -> None:
    device = FakeDevice()
    trt = FakeTensorRT(device, flavour="tensorrt_rtx", version="11.5.0.1")
    with pytest.raises(ArtifactError, match=r"this machine has tensorrt_rtx 11\.5\.0 \(build"):
        backend(device, trt, plan(version_compatible=True))


def test_a_plan_that_says_nothing_of_a_lean_runtime_may_not_bring_programs() -> None:
    device = FakeDevice()
    trt = FakeTensorRT(device, inverted)
    backend(device, trt).close()
    assert trt.host_code_allowed == [False]


@pytest.mark.parametrize(
    ("compatible", "gpu", "reason"),
    [
        ("ampere-plus", GPU("NVIDIA H200", "9.0"), None),
        ("ampere-plus", GPU("NVIDIA A100", "8.0"), None),
        ("ampere-plus", GPU("NVIDIA RTX PRO 6000", "12.0"), None),
        ("ampere-plus", GPU("Tesla T4", "7.5"), "GPUs from compute capability 8.0 on, but .* T4"),
        ("same-compute-capability", GPU("NVIDIA A10", "8.6"), None),
        ("same-compute-capability", GPU("NVIDIA H200", "9.0"), "compute capability 8.6, but"),
        (None, GPU("NVIDIA A10", "8.6"), "Fake GPU, but this machine has NVIDIA A10"),
    ],
)
def test_a_hardware_compatible_plan_runs_on_the_gpus_that_were_promised(
    compatible: Any, gpu: GPU, reason: str | None
) -> None:
    device = FakeDevice(gpu)
    artifact = plan(hardware_compatible=compatible)
    if reason is None:
        backend(device, artifact=artifact).close()
    else:
        with pytest.raises(ArtifactError, match=reason) as caught:
            backend(device, artifact=artifact)
        assert REBUILD in str(caught.value)


def test_compatibility_is_kept_in_the_sidecar_and_nonsense_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.plan"
    made = plan(version_compatible=True, hardware_compatible="ampere-plus", refittable=True)
    write_artifact(path, made.data, made.sidecar)
    assert read_sidecar(path) == made.sidecar
    for field, value in (
        ("hardware_compatible", "all"),
        ("version_compatible", 1),
        ("structure", 3),
    ):
        with pytest.raises(ValueError, match=f"plan.{field} {value!r} is not"):
            plan(**{field: value})
