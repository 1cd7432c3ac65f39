"""New weights in a TensorRT plan, on a fake TensorRT whose plans compute with ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from tinyunet_deploy.artifacts.facts import PlanFacts, Profile
from tinyunet_deploy.artifacts.golden import golden_path, read_golden, write_golden
from tinyunet_deploy.artifacts.onnx_structure import structure_of, weights_of
from tinyunet_deploy.artifacts.sidecar import (
    Sidecar,
    digest,
    read_artifact,
    read_sidecar,
    write_artifact,
    write_sidecar,
)
from tinyunet_deploy.cli import run, tinyunet
from tinyunet_deploy.contract import INPUT_NAME, Batch, Contract
from tinyunet_deploy.errors import ArtifactError, RefusedError, TinyUNetError
from tinyunet_deploy.quality.refitting import refit_plan
from tinyunet_deploy.testing.fake_cuda import FakeDevice
from tinyunet_deploy.testing.fake_tensorrt import FakeTensorRT

SIZE = 64
PLAN = b"a plan"


def session_of(model: onnx.ModelProto) -> Callable[[Batch], Batch]:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return lambda image: session.run(None, {INPUT_NAME: image})[0]  # type: ignore[no-any-return]


def scaled(model: onnx.ModelProto, factor: float) -> onnx.ModelProto:
    """Return the same network after another training, so to say."""
    other = onnx.ModelProto()
    other.CopyFrom(model)
    for name, value in weights_of(other).items():
        array = (numpy_helper.to_array(value) * factor).astype(np.float32)
        value.CopyFrom(numpy_helper.from_array(array, name))
    return other


class Plant:
    """An old plan, a new ONNX file, and the fake that runs them."""

    def __init__(self, old: onnx.ModelProto, contract: Contract, folder: Path) -> None:
        self.old, self.new = old, scaled(old, 1.3)
        self.model, self.plan = folder / "new.onnx", folder / "old.plan"
        self.output = folder / "out" / "new.plan"
        self.put(self.new)
        facts = PlanFacts(
            "tensorrt", "11.4.0.106", "Fake GPU", "8.6", Profile(1, 2, 4),
            "tinyunet build old.onnx -o old.plan --batch 1,2,4 --refittable",
            refittable=True, structure=structure_of(old),
        )  # fmt: skip
        limited = replace(contract, max_batch=4)
        sidecar = Sidecar("plan", "fp32", digest(PLAN), "0" * 64, limited, 0.9, 64, plan=facts)
        write_artifact(self.plan, PLAN, sidecar)
        self.device = FakeDevice()
        self.trt = FakeTensorRT(
            self.device, contract=limited, score_with=self.score_with,
            weights={n: numpy_helper.to_array(v).tobytes() for n, v in weights_of(old).items()},
        )  # fmt: skip

    def put(self, model: onnx.ModelProto, **fields: Any) -> None:
        data = model.SerializeToString()
        fields = {"threshold": 0.4, "min_area": 7, **fields}
        sidecar = Sidecar("onnx", "fp32", digest(data), "1" * 64, Contract(SIZE, SIZE), **fields)
        write_artifact(self.model, data, sidecar)
        write_golden(self.model, session_of(model))

    def score_with(self, weights: Mapping[str, bytes]) -> Callable[[Batch], Batch]:
        model = onnx.ModelProto()
        model.CopyFrom(self.old)
        for name, value in weights_of(model).items():
            data = weights.get(name, b"")
            if len(data) == 4 * np.prod(value.dims):
                array = np.frombuffer(data, np.float32).reshape(tuple(value.dims))
                value.CopyFrom(numpy_helper.from_array(array, name))
        return session_of(model)

    def refit(self) -> tuple[Any, Any]:
        return refit_plan(
            self.plan, self.model, self.output, tensorrt=self.trt.library, gpu=self.device
        )

    def refused(self, error: type[TinyUNetError], match: str) -> None:
        with pytest.raises(error, match=match):
            self.refit()
        left = list(self.output.parent.glob("*")) if self.output.parent.exists() else []
        assert left == [], "nothing is written"


@pytest.fixture
def plant(tiny_onnx: Path, tmp_path: Path) -> Plant:
    artifact = read_artifact(tiny_onnx)
    contract = artifact.sidecar.contract
    return Plant(onnx.load_from_string(artifact.data), contract, tmp_path)


def test_the_plan_scores_as_its_new_parent_and_says_where_it_comes_from(plant: Plant) -> None:
    artifact, test = plant.refit()
    assert test.largest_steps <= 1
    sidecar = read_sidecar(plant.output)
    assert artifact.sidecar == sidecar and sidecar.plan is not None
    assert sidecar.parent == read_sidecar(plant.model).sha256
    assert sidecar.plan.refitted_from == read_sidecar(plant.plan).sha256 == digest(PLAN)
    assert (sidecar.threshold, sidecar.min_area) == (0.4, 7)
    assert sidecar.contract.max_batch == 4 and sidecar.plan.refittable
    assert sidecar.plan.rebuild.split()[2:5] == [str(plant.model), "-o", str(plant.output)]
    images, wanted = read_golden(read_artifact(plant.output))
    np.testing.assert_array_equal(wanted, session_of(plant.new)(images))
    assert not np.array_equal(wanted, session_of(plant.old)(images)), "the weights matter"
    assert plant.plan.read_bytes() == PLAN
    assert sorted(path.name for path in plant.output.parent.iterdir()) == [
        "new.plan", "new.plan.golden.png", "new.plan.json",
    ]  # fmt: skip


def test_a_weight_that_keeps_its_old_value_fails_the_self_test(plant: Plant) -> None:
    plant.trt.stuck = [name for name in weights_of(plant.old) if name.endswith("weight")]
    plant.refused(ArtifactError, "fails its self-test on tensorrt: golden_largest_steps")


def test_a_weight_without_counterpart_is_refused(plant: Plant) -> None:
    weights = dict(plant.trt.weights or {})
    name, value = weights.popitem()
    plant.trt.weights = weights
    plant.refused(RefusedError, f"keeps its own value of 1 of the weights, such as {name}")
    plant.trt.weights = {**weights, name: value, "folded": b"1234"}
    plant.device = plant.trt.device = FakeDevice()
    plant.refused(RefusedError, "does not have 1 of the weights, such as folded")
    plant.trt.weights = {**weights, name: value}
    plant.trt.unset = [name]
    plant.refused(RefusedError, f"did not set 1 of the weights, such as {name}")


def test_weights_of_another_shape_are_refused_in_tensorrts_words(plant: Plant) -> None:
    weights = dict(plant.trt.weights or {})
    name = next(iter(weights))
    plant.trt.weights = {**weights, name: b"12"}
    plant.refused(ArtifactError, f"refuses its weights: {name} has another number of weights")


def test_only_weights_may_differ(plant: Plant) -> None:
    other = scaled(plant.new, 1.0)
    other.graph.node[0].name += "x"
    plant.put(other)
    plant.refused(RefusedError, "has another structure than the file that old.plan was built from")
    constants = scaled(plant.new, 1.0)
    names = set(weights_of(constants))
    constant = next(value for value in constants.graph.initializer if value.name not in names)
    changed = np.asarray(numpy_helper.to_array(constant) + 1)
    constant.CopyFrom(numpy_helper.from_array(changed, constant.name))
    assert structure_of(constants) != structure_of(plant.new)
    assert structure_of(plant.old) == structure_of(plant.new)


def test_plans_and_files_that_cannot_be_refitted_are_refused(
    plant: Plant, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["build", str(plant.model), "-o", str(plant.output), "--refit", str(plant.plan)]
    assert run(tinyunet, [*words, "--builder-level", "3"]) == 2
    assert "--builder-level has no effect with --refit" in capsys.readouterr().err
    sidecar = read_sidecar(plant.model)
    golden_path(plant.model).unlink()
    write_sidecar(plant.model, replace(sidecar, golden=None))
    plant.refused(RefusedError, "has no golden scores")
    write_sidecar(plant.model, replace(sidecar, precision="fp16"))
    plant.refused(RefusedError, "is in fp16, but old.plan is in fp32")
    old = read_sidecar(plant.plan)
    assert old.plan is not None
    write_sidecar(plant.plan, replace(old, plan=replace(old.plan, refittable=False)))
    assert run(tinyunet, words) == 4
    assert "is not refittable (build it again: " in capsys.readouterr().err
