from __future__ import annotations

import dataclasses
import importlib
import importlib.machinery
import importlib.metadata
import importlib.util
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tinyunet_deploy.artifacts.sidecar import Artifact, read_artifact
from tinyunet_deploy.backends import registry
from tinyunet_deploy.backends.base import Backend
from tinyunet_deploy.backends.install_hint import install_hint
from tinyunet_deploy.backends.registry import open_backend
from tinyunet_deploy.backends.table import why_not
from tinyunet_deploy.contract import Batch, Contract
from tinyunet_deploy.errors import ArtifactError, RefusedError, RuntimeUnavailable
from tinyunet_deploy.testing.fake_backend import FakeBackend

ONNX_BACKENDS = ["openvino", "onnxruntime"]
CPU_BACKENDS = [*ONNX_BACKENDS, "torch"]


def images(count: int) -> Batch:
    """Noise, gradients, black and white."""
    batch = np.random.default_rng(1).integers(0, 256, (count, 1, 64, 64), dtype=np.uint8)
    batch[0] = np.arange(64)[None, :] * 4
    batch[-1] = 255
    batch[-2] = 0
    return batch


def steps_apart(one: Batch, other: Batch) -> int:
    return int(np.abs(one.astype(int) - other).max())


@pytest.fixture(scope="module", params=CPU_BACKENDS)
def backend(
    request: pytest.FixtureRequest, tiny_checkpoint: Path, tiny_onnx: Path
) -> Iterator[Backend]:
    """The tiny network on each backend."""
    model = tiny_checkpoint if request.param == "torch" else tiny_onnx
    with open_backend(model, request.param) as opened:
        yield opened


@pytest.fixture(scope="module")
def reference(tiny_checkpoint: Path) -> Batch:
    """Scores of ``images(5)`` by the network itself in PyTorch."""
    import torch

    from tinyunet_deploy.artifacts.checkpoint import load_checkpoint

    network, _ = load_checkpoint(tiny_checkpoint)
    with torch.inference_mode():
        logits = network(torch.from_numpy(images(5)).float() / 127.5 - 1.0)
        return (torch.sigmoid(logits) * 255.0).round().to(torch.uint8).numpy()


def test_every_backend_answers_as_the_network_that_was_trained(
    backend: Backend, reference: Batch
) -> None:
    assert int(reference.max()) - int(reference.min()) > 100, "an answer worth comparing"
    result = backend.run(images(5))
    assert result.score.dtype == np.uint8
    assert result.score.shape == (5, 1, 64, 64)
    assert steps_apart(result.score, reference) <= 1
    assert result.device_ms > 0


@pytest.mark.parametrize("size", [1, 3])
def test_the_batch_changes_no_answer(backend: Backend, size: int) -> None:
    together = backend.run(images(5)).score
    parts = [backend.run(images(5)[at : at + size]).score for at in range(0, 5, size)]
    apart = np.concatenate(parts)
    if backend.name == "torch":  # sums in another order
        assert steps_apart(apart, together) <= 1
    else:
        assert np.array_equal(apart, together)


def test_the_place_in_the_batch_changes_no_answer(backend: Backend) -> None:
    order = [3, 0, 4, 1, 2]
    together = backend.run(images(5)).score
    assert steps_apart(backend.run(images(5)[order]).score, together[order]) <= 1


def test_an_answer_stays_when_the_next_one_comes(backend: Backend) -> None:
    first = backend.run(images(3)).score
    kept = first.copy()
    backend.run(255 - images(3))
    assert np.array_equal(first, kept)


def test_many_batches_are_scored_in_their_order(backend: Backend) -> None:
    batches = [images(5)[at : at + size] for at, size in ((0, 2), (2, 1), (1, 4), (0, 5), (4, 1))]
    runs = list(backend.run_many(iter(batches)))
    for run, batch in zip(runs, batches, strict=True):
        assert steps_apart(run.score, backend.run(batch).score) <= 1
        assert run.device_ms > 0


def test_many_batches_may_be_left_unfinished(backend: Backend) -> None:
    runs = iter(backend.run_many(images(5)[at : at + 2] for at in (0, 1, 2, 3)))
    first = next(runs).score
    del runs
    assert steps_apart(first, backend.run(images(5)[:2]).score) <= 1


def test_what_is_wrong_with_one_of_many_batches_is_told(backend: Backend) -> None:
    with pytest.raises(ValueError, match="expected"):
        list(backend.run_many([images(3), np.zeros((1, 1, 64, 80), np.uint8)]))


def test_the_image_itself_is_left_alone(backend: Backend) -> None:
    batch = images(3)
    backend.run(batch)
    assert np.array_equal(batch, images(3))


def test_any_thread_may_call(backend: Backend) -> None:
    scores = []
    thread = threading.Thread(target=lambda: scores.append(backend.run(images(3)).score))
    thread.start()
    thread.join()
    assert np.array_equal(scores[0], backend.run(images(3)).score)


def test_memory_of_any_layout_is_taken(backend: Backend) -> None:
    wide = np.zeros((3, 1, 64, 128), np.uint8)
    wide[..., ::2] = images(3)
    assert np.array_equal(backend.run(wide[..., ::2]).score, backend.run(images(3)).score)


@pytest.mark.parametrize(
    "batch",
    [
        np.zeros((1, 1, 64, 64), np.float32),
        np.zeros((1, 1, 64, 64), np.int8),
        np.zeros((1, 64, 64), np.uint8),
        np.zeros((64, 64), np.uint8),
        np.zeros((1, 3, 64, 64), np.uint8),
        np.zeros((1, 64, 64, 1), np.uint8),
        np.zeros((1, 1, 64, 80), np.uint8),
        np.zeros((1, 1, 512, 512), np.uint8),
        np.zeros((0, 1, 64, 64), np.uint8),
    ],
    ids=lambda batch: f"{batch.dtype}{list(batch.shape)}",
)
def test_what_breaks_the_contract_is_a_value_error(backend: Backend, batch: Batch) -> None:
    with pytest.raises(ValueError, match="expected"):
        backend.run(batch)


def test_a_backend_names_its_package_and_version(backend: Backend) -> None:
    assert backend.versions == {backend.name: importlib.metadata.version(backend.name)}


def test_it_knows_its_contract(backend: Backend) -> None:
    assert backend.contract == Contract(64, 64)
    assert backend.max_batch is None
    assert backend.device == "cpu"


def test_more_than_the_largest_batch_is_a_value_error() -> None:
    backend = FakeBackend(contract=Contract(64, 64, max_batch=4))
    assert len(backend.run(images(4)).score) == 4
    with pytest.raises(ValueError, match=r"expected a batch of 1\.\.4, got 5"):
        backend.run(images(5))


def test_a_checkpoint_takes_images_of_another_size(tiny_checkpoint: Path) -> None:
    with open_backend(tiny_checkpoint, size=(48, 80)) as backend:
        assert backend.contract == Contract(48, 80)
        image = np.zeros((2, 1, 48, 80), np.uint8)
        assert backend.run(image).score.shape == image.shape
        with pytest.raises(ValueError, match=r"expected uint8 \[N, 1, 48, 80\]"):
            backend.run(images(3))


@pytest.mark.parametrize("size", [(0, 64), (-16, 64), (64, 72)])
def test_a_size_that_the_network_does_not_take_is_refused(
    tiny_checkpoint: Path, size: tuple[int, int]
) -> None:
    with pytest.raises(RefusedError, match=r"cannot take images of .* multiple of 16"):
        open_backend(tiny_checkpoint, size=size)


@pytest.mark.parametrize("name", ONNX_BACKENDS)
def test_a_graph_takes_its_own_size_only(tiny_onnx: Path, name: str) -> None:
    with open_backend(tiny_onnx, name, size=(64, 64)) as backend:
        assert backend.contract == Contract(64, 64)
    with pytest.raises(RefusedError, match="takes images of 64x64, not 64x128"):
        open_backend(tiny_onnx, name, size=(64, 128))


def test_any_batch_lifts_the_verified_one_but_not_that_of_the_file(tiny_onnx: Path) -> None:
    artifact = read_artifact(tiny_onnx)
    contract = dataclasses.replace(artifact.sidecar.contract, max_batch=4)
    sidecar = dataclasses.replace(artifact.sidecar, contract=contract, verified_batch=2)
    artifact = dataclasses.replace(artifact, sidecar=sidecar)
    assert registry.load(artifact, "onnxruntime", "cpu").max_batch == 2
    assert registry.load(artifact, "onnxruntime", "cpu", any_batch=True).max_batch == 4


def test_the_first_installed_backend_that_fits_is_taken(
    tiny_checkpoint: Path, tiny_onnx: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert open_backend(tiny_checkpoint).name == "torch"
    assert open_backend(tiny_onnx).name == "openvino"
    hide(monkeypatch, "openvino")
    assert open_backend(tiny_onnx).name == "onnxruntime"


def hide(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    """Let modules look as if they were not installed."""
    really_find = importlib.util.find_spec

    def find_spec(name: str, package: str | None = None) -> importlib.machinery.ModuleSpec | None:
        return None if name in modules else really_find(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)


@pytest.mark.parametrize(
    ("name", "module", "extra"),
    [
        ("openvino", "openvino", "cpu"),
        ("onnxruntime", "onnxruntime", "cpu"),
        ("torch", "torch", "train"),
        ("torch", "safetensors", "train"),
    ],
)
def test_a_missing_runtime_says_what_to_install(
    name: str,
    module: str,
    extra: str,
    tiny_checkpoint: Path,
    tiny_onnx: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert why_not(name) is None
    hide(monkeypatch, module)
    reason = f"{module} is not installed: pip install 'tinyunet-deploy[{extra}]'"
    assert why_not(name) == reason
    model = tiny_checkpoint if name == "torch" else tiny_onnx
    with pytest.raises(RuntimeUnavailable) as caught:
        open_backend(model, name)
    assert str(caught.value) == f"{name}: {reason}"
    assert caught.value.exit_code == 5


def test_no_runtime_at_all_says_all_that_could_be_installed(
    tiny_onnx: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hide(monkeypatch, "openvino", "onnxruntime", "torch")
    with pytest.raises(
        RuntimeUnavailable, match="no backend on this machine can run the kind onnx"
    ) as caught:
        open_backend(tiny_onnx)
    assert caught.value.hint is not None
    for name in ONNX_BACKENDS:
        assert f"{name} is not installed: pip install 'tinyunet-deploy[cpu]'" in caught.value.hint


def test_two_onnxruntimes_in_one_place_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda package: "1.23")
    reason = why_not("onnxruntime")
    assert reason is not None
    assert "onnxruntime and onnxruntime-gpu overwrite each other" in reason
    assert why_not("openvino") is None


def test_a_runtime_that_cannot_be_imported_is_named(
    tiny_onnx: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(name: str) -> None:
        raise ImportError("libcudart.so.13: cannot open shared object file")

    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(RuntimeUnavailable, match=r"^onnxruntime: .*libcudart\.so\.13"):
        open_backend(tiny_onnx, "onnxruntime")


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "cuda:-1", "CPU", "", "mps", "meta"])
def test_an_unknown_device(tiny_checkpoint: Path, tiny_onnx: Path, device: str) -> None:
    for name in CPU_BACKENDS:
        model = tiny_checkpoint if name == "torch" else tiny_onnx
        with pytest.raises(RuntimeUnavailable, match=r"is not a device \(use cpu or cuda:0\)"):
            open_backend(model, name, device)


def test_a_missing_gpu_is_never_replaced_by_the_cpu(tiny_onnx: Path) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    for name in (None, "onnxruntime"):
        with pytest.raises(RuntimeUnavailable) as caught:
            open_backend(tiny_onnx, name, "cuda:0")
        assert caught.value.exit_code == 5
        assert str(caught.value) == (
            "cuda:0: this onnxruntime has no CUDAExecutionProvider "
            f"({install_hint('onnxruntime', 'gpu')})"
        )


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_provider_that_does_not_start_is_never_replaced_by_the_cpu(
    tiny_onnx: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """onnxruntime itself warns and goes on with the CPU."""
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    with pytest.raises(RuntimeUnavailable, match=r"CUDAExecutionProvider d(oes|id) not start"):
        open_backend(tiny_onnx, "onnxruntime", "cuda:0")


def test_a_gpu_that_torch_does_not_see(tiny_checkpoint: Path) -> None:
    with pytest.raises(RuntimeUnavailable, match="torch sees no such GPU"):
        open_backend(tiny_checkpoint, device="cuda:63")


def test_openvino_runs_on_the_cpu_only(tiny_onnx: Path) -> None:
    with pytest.raises(RuntimeUnavailable, match="use --device cpu"):
        open_backend(tiny_onnx, "openvino", "cuda:0")


def test_a_model_that_the_backend_does_not_run(tiny_checkpoint: Path, tiny_onnx: Path) -> None:
    with pytest.raises(RefusedError) as caught:
        open_backend(tiny_onnx, "torch")
    assert caught.value.exit_code == 4
    assert str(caught.value) == (
        f"{tiny_onnx}: is of kind onnx, which torch does not run "
        "(openvino, onnxruntime, onnxruntime-tensorrt, openvino-bf16, openvino-fp16)"
    )
    for name in ONNX_BACKENDS:
        with pytest.raises(RefusedError, match=rf"{name} does not run \(torch, torch-fp16"):
            open_backend(tiny_checkpoint, name)


@pytest.mark.parametrize("name", CPU_BACKENDS)
def test_a_changed_model_is_refused_before_it_is_loaded(
    name: str, tiny_checkpoint: Path, tiny_onnx: Path, tmp_path: Path
) -> None:
    model = tiny_checkpoint if name == "torch" else tiny_onnx
    for suffix in ("", ".json"):
        shutil.copy(f"{model}{suffix}", tmp_path)
    copy = tmp_path / model.name
    data = bytearray(copy.read_bytes())
    data[len(data) // 2] ^= 1
    copy.write_bytes(data)
    with pytest.raises(ArtifactError, match="is not the file that its sidecar describes"):
        open_backend(copy, name)


def load(name: str, artifact: Artifact) -> Backend:
    return registry.load(artifact, name, "cpu")


@pytest.mark.parametrize("name", ONNX_BACKENDS)
@pytest.mark.parametrize("length", [0, 3, 5000])
def test_bytes_that_are_no_graph_are_refused(name: str, length: int, tiny_onnx: Path) -> None:
    artifact = read_artifact(tiny_onnx)
    with pytest.raises(ArtifactError, match=f"^[^\n]*: {name} refuses it: ."):
        load(name, dataclasses.replace(artifact, data=artifact.data[:length]))


@pytest.mark.parametrize("name", ONNX_BACKENDS)
def test_a_sidecar_that_tells_another_size_than_the_graph_is_refused(
    name: str, tiny_onnx: Path
) -> None:
    artifact = read_artifact(tiny_onnx)
    sidecar = dataclasses.replace(artifact.sidecar, contract=Contract(64, 128))
    with pytest.raises(ArtifactError, match="64x128"):
        load(name, dataclasses.replace(artifact, sidecar=sidecar))


def test_the_fake_gives_the_image_back_and_counts_its_batches() -> None:
    with FakeBackend(contract=Contract(64, 64), threshold=0.25, min_area=5) as backend:
        assert np.array_equal(backend.run(images(3)).score, images(3))
        backend.run(images(2))
        assert backend.batches == [3, 2]
        assert (backend.artifact.sidecar.threshold, backend.artifact.sidecar.min_area) == (0.25, 5)
        assert backend.versions == {}


def test_the_fake_scores_as_it_is_told() -> None:
    backend = FakeBackend(lambda image: 255 - image, contract=Contract(64, 64))
    assert np.array_equal(backend.run(images(3)).score, 255 - images(3))
    with pytest.raises(ValueError, match="expected"):
        backend.run(images(3)[:, 0])
