"""Building plans with TensorRT-RTX, whose parser and builder need no GPU."""

import ctypes
import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from export.__main__ import export
from export.calibrate import histograms, ranges
from export.equalize import in_steps
from export.graph import onnx_graph
from export.quantize import quantize
from tinyunet_deploy.artifacts.facts import Profile
from tinyunet_deploy.artifacts.network import TinyUNet
from tinyunet_deploy.artifacts.precision import Precision
from tinyunet_deploy.artifacts.sidecar import (
    DEFAULT_CHECKPOINT,
    DEFAULT_ONNX,
    Sidecar,
    digest,
    read_artifact,
    read_sidecar,
    sidecar_path,
    write_artifact,
)
from tinyunet_deploy.backends import (
    build_options,
    nvidia_probe,
    tensorrt_builder,
)
from tinyunet_deploy.backends.plan_check import check_gpu, check_release
from tinyunet_deploy.backends.precision_audit import (
    check_precision,
    engine_convolutions,
    mixture,
)
from tinyunet_deploy.backends.tensorrt_builder import Options
from tinyunet_deploy.cli import run, tinyunet
from tinyunet_deploy.contract import Contract
from tinyunet_deploy.errors import ArtifactError, GateFailed, RefusedError, RuntimeUnavailable

SIZE = 64
TARGET = Options(Profile(1, 2, 4), compute_capability="8.6")
TYPES = {"fp32": "Float", "fp16": "Half", "int8": "Int8"}


def quantized(float32: bytes) -> bytes:
    """As the exporter makes int8, by the largest values on noise."""
    model = onnx.load_from_string(float32)
    images = np.random.default_rng(1).integers(0, 256, (2, SIZE, SIZE), dtype=np.uint8)
    return quantize(in_steps(model, ranges(histograms(model, images), "minmax")))


@pytest.fixture(scope="session")
def onnx_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the same network as tinyunet.{fp32,fp16,int8}.onnx."""
    folder = tmp_path_factory.mktemp("onnx")
    torch.manual_seed(0)
    network = TinyUNet().eval()
    contract = Contract(SIZE, SIZE)

    def write(precision: Precision, data: bytes) -> None:
        sidecar = Sidecar("onnx", precision, digest(data), "0" * 64, contract, 0.4, 7)
        write_artifact(folder / f"tinyunet.{precision}.onnx", data, sidecar)

    float32 = onnx_graph(network, contract)
    write("fp32", float32)
    write("int8", quantized(float32))
    write("fp16", onnx_graph(network.half(), contract))
    return folder


@pytest.fixture(scope="session")
def rtx() -> str:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx-cu13 is not installed")
    return "tensorrt_rtx"


@pytest.fixture
def edited(onnx_files: Path, tmp_path: Path) -> Callable[..., Path]:
    """A copy of a file whose sidecar says something else."""

    def edit(held: str, data: bytes | None = None, **fields: Any) -> Path:
        source = read_artifact(onnx_files / f"tinyunet.{held}.onnx")
        data = source.data if data is None else data
        sidecar = dataclasses.replace(source.sidecar, sha256=digest(data), **fields)
        path = tmp_path / "model.onnx"
        write_artifact(path, data, sidecar)
        return path

    return edit


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_each_precision_is_built_and_audited(
    precision: Precision, onnx_files: Path, rtx: str, tmp_path: Path
) -> None:
    model = onnx_files / f"tinyunet.{precision}.onnx"
    tensorrt_builder.build(model, tmp_path, TARGET, rtx)

    plan = read_artifact(tmp_path / f"tinyunet.{precision}.plan")
    source = read_artifact(model)
    sidecar, facts = plan.sidecar, plan.sidecar.plan
    assert facts is not None and facts.audit is not None
    assert (sidecar.kind, sidecar.precision) == ("plan", precision)
    assert sidecar.parent == source.sidecar.sha256
    assert sidecar.contract == Contract(SIZE, SIZE, max_batch=4)
    assert (sidecar.threshold, sidecar.min_area) == (0.4, 7)
    assert facts.profile == Profile(1, 2, 4)
    assert (facts.gpu_name, facts.compute_capability) == (None, "8.6")
    assert facts.size_bytes == len(plan.data)
    assert mixture(facts.audit.parsed_network) == {TYPES[precision]: 23}
    assert facts.audit.engine is None
    assert "never run on hardware" in (facts.audit.not_inspected or "")

    here = nvidia_probe.tensorrt(rtx)
    check_release(plan, here)
    check_gpu(plan, nvidia_probe.GPU("any", "8.6"))
    with pytest.raises(ArtifactError) as caught:
        check_release(plan, here._replace(version="1.9.0.1"))
    assert str(model) in str(caught.value) and "--compute-capability 8.6" in str(caught.value)


def test_the_model_of_the_package_is_what_export_makes_of_it(rtx: str, tmp_path: Path) -> None:
    """Build the file that `python -m export` makes at its own size."""
    output = tmp_path / "tinyunet.onnx"
    assert run(export, [str(DEFAULT_CHECKPOINT), "-o", str(output)]) == 0
    assert output.read_bytes() == DEFAULT_ONNX.read_bytes()
    sidecar = tensorrt_builder.build(output, tmp_path / "plans", TARGET, rtx).sidecar
    assert (sidecar.contract.height, sidecar.contract.width) == (512, 512)
    assert sidecar.plan is not None and sidecar.plan.audit is not None
    assert mixture(sidecar.plan.audit.parsed_network) == {"Float": 23}


@pytest.mark.nightly
def test_the_model_of_the_package_in_every_precision(rtx: str, tmp_path: Path) -> None:
    """Build what `python -m export` makes of it at its own size, calibrated 18 times."""
    words = [str(DEFAULT_CHECKPOINT), "-o", str(tmp_path / "tinyunet.onnx")]
    assert run(export, [*words, "--precision", "fp32,fp16,int8", "--min-speedup", "0"]) == 0
    assert (tmp_path / "tinyunet.onnx").read_bytes() == DEFAULT_ONNX.read_bytes()
    assert (tmp_path / "tinyunet.int8.onnx").stat().st_size <= 2_200_000
    for name, kind in (("", "Float"), (".fp16", "Half"), (".int8", "Int8")):
        model = tmp_path / f"tinyunet{name}.onnx"
        sidecar = tensorrt_builder.build(model, tmp_path / "plans", TARGET, rtx).sidecar
        assert (sidecar.contract.height, sidecar.contract.width) == (512, 512)
        assert sidecar.plan is not None and sidecar.plan.audit is not None
        assert mixture(sidecar.plan.audit.parsed_network) == {kind: 23}


def test_the_rebuild_command_builds_it_again(onnx_files: Path, rtx: str, tmp_path: Path) -> None:
    plan = tensorrt_builder.build(onnx_files / "tinyunet.fp16.onnx", tmp_path, TARGET, rtx)
    plan.path.unlink()
    assert plan.sidecar.plan is not None
    words = plan.sidecar.plan.rebuild.split()
    assert run(tinyunet, words[1:]) == 0
    assert read_artifact(plan.path).sidecar.contract == plan.sidecar.contract


@pytest.mark.parametrize(
    ("held", "said", "mix"),
    [
        ("fp32", "fp16", "23 Float"),
        ("fp32", "int8", "23 Float"),
        ("fp16", "fp32", "23 Half"),
        ("int8", "fp16", "23 Int8"),
    ],
)
def test_a_file_of_another_precision_than_said_is_refused(
    held: str, said: str, mix: str, edited: Callable[..., Path], rtx: str, tmp_path: Path
) -> None:
    with pytest.raises(ArtifactError, match=f"should be {said}, but .* are {mix}"):
        tensorrt_builder.build(edited(held, precision=said), tmp_path / "out", TARGET, rtx)
    assert not (tmp_path / "out").exists()


def test_convolutions_are_kept_in_float_only_where_the_sidecar_says_so(
    onnx_files: Path, edited: Callable[..., Path], rtx: str, tmp_path: Path
) -> None:
    import onnx

    model = onnx.load(onnx_files / "tinyunet.int8.onnx")
    last = [node for node in model.graph.node if node.op_type == "Conv"][-1]
    makers = {node.output[0]: node for node in model.graph.node}
    quantize = makers[makers[last.input[0]].input[0]]
    last.input[0] = quantize.input[0]
    dequantize = makers[last.input[1]]
    tensors = {
        tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer
    }
    values, scales = (tensors[name] for name in dequantize.input[:2])
    weights = values * scales.reshape(-1, 1, 1, 1)
    last.input[1] = "network.logit.weight"
    model.graph.initializer.append(
        onnx.numpy_helper.from_array(weights.astype(np.float32), last.input[1])
    )
    model.graph.node.remove(dequantize)
    data = model.SerializeToString()

    with pytest.raises(ArtifactError, match=f"22 Int8, 1 Float.*{last.name}"):
        tensorrt_builder.build(edited("int8", data), tmp_path, TARGET, rtx)
    mixed = edited("int8", data, kept_in_float32=("logit",))
    plan = tensorrt_builder.build(mixed, tmp_path, TARGET, rtx)
    assert plan.sidecar.plan is not None and plan.sidecar.plan.audit is not None
    assert plan.sidecar.plan.audit.parsed_network[last.name] == "Float"


def test_the_parsers_refusal_is_one_line_in_its_words(
    onnx_files: Path,
    edited: Callable[..., Path],
    rtx: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import onnx

    monkeypatch.setattr(
        tensorrt_builder, "check_onnx", lambda model, where: None
    )  # it would see it first
    model = onnx.load(onnx_files / "tinyunet.fp16.onnx")
    relu = next(node for node in model.graph.node if node.op_type == "Relu")
    relu.op_type = "Nonsense"
    with pytest.raises(
        ArtifactError, match="TensorRT's parser refuses it: Nonsense node_relu: "
    ) as caught:
        tensorrt_builder.build(edited("fp16", model.SerializeToString()), tmp_path, TARGET, rtx)
    assert "\n" not in str(caught.value)


def test_the_builders_refusal_is_one_line_in_its_words(
    onnx_files: Path, rtx: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensorrt_builder, "INPUT_NAME", "another")
    with pytest.raises(ArtifactError, match=r"does not build it: .*Dynamic input tensor image"):
        tensorrt_builder.build(onnx_files / "tinyunet.fp16.onnx", tmp_path, TARGET, rtx)


def test_what_tensorrt_rtx_cannot_do_is_refused(onnx_files: Path, rtx: str, tmp_path: Path) -> None:
    model = onnx_files / "tinyunet.fp16.onnx"
    cached = dataclasses.replace(TARGET, timing_cache=tmp_path / "cache")
    with pytest.raises(RefusedError, match="TensorRT-RTX has no timing cache"):
        tensorrt_builder.build(model, tmp_path, cached, rtx)
    hopper = dataclasses.replace(TARGET, compute_capability="9.0")
    with pytest.raises(RuntimeUnavailable, match=r"it builds for 7\.5, 8\.0"):
        tensorrt_builder.build(model, tmp_path, hopper, rtx)


def test_without_a_driver_the_target_is_to_be_named(
    onnx_files: Path, rtx: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_driver(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", no_driver)
    with pytest.raises(RuntimeUnavailable, match="--compute-capability"):
        tensorrt_builder.build(onnx_files / "tinyunet.fp16.onnx", tmp_path, Options(), rtx)


def test_a_file_that_is_no_graph_is_refused(
    edited: Callable[..., Path], rtx: str, tmp_path: Path
) -> None:
    with pytest.raises(ArtifactError, match="is not a usable ONNX file"):
        tensorrt_builder.build(edited("fp16", b"no graph"), tmp_path, TARGET, rtx)


def test_a_changed_or_stale_onnx_file_is_refused(
    edited: Callable[..., Path], rtx: str, tmp_path: Path
) -> None:
    path = edited("fp16")
    data = path.read_bytes()
    path.write_bytes(data + b" ")
    with pytest.raises(ArtifactError, match="is not the file that its sidecar describes"):
        tensorrt_builder.build(path, tmp_path, TARGET, rtx)
    sidecar_path(path).unlink()
    with pytest.raises(ArtifactError, match="is not a usable ONNX file"):
        tensorrt_builder.build(path, tmp_path, TARGET, rtx)
    path.write_bytes(data)
    with pytest.raises(ArtifactError, match="has no sidecar"):
        tensorrt_builder.build(path, tmp_path, TARGET, rtx)


@pytest.mark.parametrize(
    ("batch", "code"),
    [("1,8", 2), ("8,4,16", 2), ("0,1,2", 2), ("a", 2), ("-1,1,1", 2), ("3", 0), ("1,2,4", 0)],
)
def test_batches_on_the_command_line(
    batch: str, code: int, onnx_files: Path, rtx: str, tmp_path: Path
) -> None:
    model = str(onnx_files / "tinyunet.fp16.onnx")
    words = ["build", model, "-o", str(tmp_path), f"--batch={batch}", "--flavour", rtx]
    assert run(tinyunet, [*words, "--compute-capability", "8.6"]) == code
    assert (tmp_path / "tinyunet.fp16.plan").exists() == (code == 0)


@pytest.mark.parametrize(
    ("name", "precision", "expected"),
    [
        ("tinyunet.onnx", "fp32", "tinyunet.fp32.plan"),
        ("tinyunet.fp16.onnx", "fp16", "tinyunet.fp16.plan"),
        ("line.3.onnx", "int8", "line.3.int8.plan"),
    ],
)
def test_a_plans_name_says_its_precision(name: str, precision: Precision, expected: str) -> None:
    assert tensorrt_builder.plan_name(Path(name), precision) == expected


def layer(name: str, **fields: Any) -> dict[str, Any]:
    return {"Name": name, "LayerType": "CaskConvolution", **fields}


NAMES = {"conv_1": "", "conv_2": ""}


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        # TensorRT 8: joined names, type at the end of a sentence, weights spelled out
        (
            [
                layer(
                    "conv_1 + relu_1",
                    Inputs=[{"Format/Datatype": "Row major linear FP32"}],
                    Weights={"Type": "Int8", "Count": 9},
                )
            ],
            {"conv_1": "Int8"},
        ),
        # TensorRT 10: metadata
        (
            [
                {
                    "Name": "__myl_ConvAct_fused",
                    "LayerType": "kgen",
                    "Inputs": [{"Format/Datatype": "Half"}],
                    "Metadata": "[ONNX Layer: conv_1]\x1e[ONNX Layer: relu_1]",
                }
            ],
            {"conv_1": "Half"},
        ),
        # TensorRT 11: format and type apart
        (
            [layer("conv_2", Inputs=[{"Format": "Channel major", "DataType": "Float"}])],
            {"conv_2": "Float"},
        ),
        # a copy for a convolution is not the convolution; bytes are not int8
        (
            [
                {
                    "Name": "conv_1",
                    "LayerType": "Reformat",
                    "Inputs": [{"Format/Datatype": "Row major linear FP32"}],
                },
                layer("conv_1", Inputs=[{"DataType": "UInt8"}]),
            ],
            {},
        ),
        (["only a name"], {}),
    ],
)
def test_reading_the_engine_inspector(layers: list[Any], expected: dict[str, str]) -> None:
    assert engine_convolutions(json.dumps({"Layers": layers}), NAMES) == expected


def test_a_plan_in_another_precision_fails_the_gate(onnx_files: Path) -> None:
    source = read_artifact(onnx_files / "tinyunet.fp16.onnx")
    report = {"Layers": [layer(n, Inputs=[{"DataType": "Float"}]) for n in NAMES]}
    found = engine_convolutions(json.dumps(report), NAMES)
    with pytest.raises(GateFailed, match=r"should be fp16, but .* the plan are 2 Float"):
        check_precision(found, source, frozenset(), GateFailed, "the plan")


def test_the_message_names_a_few_convolutions(onnx_files: Path) -> None:
    source = read_artifact(onnx_files / "tinyunet.fp16.onnx")
    found = {f"conv_{index}": "Float" for index in range(9)}
    with pytest.raises(GateFailed) as caught:
        check_precision(found, source, frozenset(), GateFailed, "the plan")
    assert re.search(r"conv_0, conv_1, conv_2, \.\.\.;", str(caught.value))


@pytest.mark.parametrize(
    ("words", "level", "workspace"), [([], 3, None), (["--builder-level", "1"], 1, 64)]
)
def test_the_builder_is_configured_as_the_command_says(
    words: list[str],
    level: int,
    workspace: int | None,
    onnx_files: Path,
    rtx: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here = nvidia_probe.tensorrt(rtx)
    configs = []

    class Builder(here.module.Builder):  # type: ignore[misc, name-defined]
        def create_builder_config(self) -> Any:
            configs.append(super().create_builder_config())
            return configs[-1]

    module = SimpleNamespace(**{**vars(here.module), "Builder": Builder})
    monkeypatch.setattr(nvidia_probe, "tensorrt", lambda flavour: here._replace(module=module))
    words = [*words, *(["--workspace-mb", str(workspace)] if workspace else [])]
    words += ["--compute-capability", "8.6", "--batch", "1,2,4", "--flavour", rtx]
    model = onnx_files / "tinyunet.fp16.onnx"
    assert run(tinyunet, ["build", str(model), "-o", str(tmp_path), *words]) == 0
    (config,) = configs
    assert config.builder_optimization_level == level
    if workspace is not None:
        pool = here.module.MemoryPoolType.WORKSPACE
        assert config.get_memory_pool_limit(pool) == workspace << 20
    assert f"--builder-level {level}" in str(read_sidecar(next(tmp_path.glob("*.plan"))).plan)


def test_a_plan_keeps_the_images_that_chose_its_files_threshold(
    edited: Callable[..., Path], rtx: str, tmp_path: Path
) -> None:
    """Evaluation warns when it meets images that the threshold was tuned on, for a plan too."""
    images = (digest(b"an image"), digest(b"another"))
    model = edited("fp16", tuned_on=images)
    plan = tensorrt_builder.build(model, tmp_path / "plans", TARGET, rtx)
    assert read_sidecar(plan.path).tuned_on == images


def test_a_plan_with_several_profiles_is_built_and_remembers_them(
    onnx_files: Path, rtx: str, tmp_path: Path
) -> None:
    options = dataclasses.replace(TARGET, more_profiles=(Profile(4, 8, 8),))
    artifact = tensorrt_builder.build(onnx_files / "tinyunet.fp16.onnx", tmp_path, options, rtx)
    sidecar = read_artifact(artifact.path).sidecar
    assert sidecar.plan is not None
    assert sidecar.plan.profiles == (Profile(1, 2, 4), Profile(4, 8, 8))
    assert sidecar.contract.max_batch == 8
    assert "--batch 1,2,4 --batch 4,8,8" in sidecar.plan.rebuild
    assert (sidecar.plan.level, sidecar.plan.timing_cache) == (3, "off")
    assert "TF32" in sidecar.plan.flags


# --- compatible and refittable plans --------------------------------------------------------------


def test_flags_and_level_of_compatibility_are_set(rtx: str) -> None:
    trt = nvidia_probe.tensorrt(rtx).module
    config = SimpleNamespace(flags=[], hardware_compatibility_level=None)
    config.set_flag = config.flags.append
    build_options.set_compatibility(config, trt, Options())
    assert (config.flags, config.hardware_compatibility_level) == ([], None)
    build_options.set_compatibility(config, trt, Options(version_compatible=True, refittable=True))
    assert config.flags == [trt.BuilderFlag.VERSION_COMPATIBLE, trt.BuilderFlag.REFIT]
    levels = trt.HardwareCompatibilityLevel
    for name, level in (
        ("ampere-plus", levels.AMPERE_PLUS),
        ("same-compute-capability", levels.SAME_COMPUTE_CAPABILITY),
    ):
        build_options.set_compatibility(config, trt, Options(hardware_compatible=name))
        assert config.hardware_compatibility_level == level


@pytest.mark.parametrize(
    ("precision", "flavour", "options", "reason"),
    [
        ("fp32", "tensorrt_rtx", {"version_compatible": True}, "--version-compatible: is not for"),
        ("fp32", "tensorrt_rtx", {"hardware_compatible": "ampere-plus"}, "--hardware-compatible: "),
        ("fp32", "tensorrt_rtx", {"refittable": True}, "--refittable: is not for TensorRT-RTX"),
        ("fp32", "tensorrt", {"refittable": True, "version_compatible": True}, "lean runtime has"),
        ("int8", "tensorrt", {"refittable": True}, "is not for int8"),
        ("int8", "tensorrt", {"version_compatible": True}, None),
        ("fp16", "tensorrt", {"refittable": True, "hardware_compatible": "ampere-plus"}, None),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    precision: Precision, flavour: str, options: Any, reason: str | None, onnx_files: Path
) -> None:
    source = read_artifact(onnx_files / f"tinyunet.{precision}.onnx")
    library = nvidia_probe.TensorRT(flavour, "11.4.0", SimpleNamespace())
    if reason is None:
        build_options.check_options(Options(**options), source, library)
    else:
        with pytest.raises(RefusedError, match=reason):
            build_options.check_options(Options(**options), source, library)


def test_ampere_plus_is_built_on_ampere_or_newer() -> None:
    options = Options(hardware_compatible="ampere-plus")
    build_options.check_gpu_option(options, nvidia_probe.GPU("NVIDIA A100", "8.0"))
    with pytest.raises(RefusedError, match=r"but Tesla T4 has 7\.5"):
        build_options.check_gpu_option(options, nvidia_probe.GPU("Tesla T4", "7.5"))
    build_options.check_gpu_option(Options(), nvidia_probe.GPU("Tesla T4", "7.5"))


def test_what_compatibility_costs_is_said() -> None:
    assert Options().costs == []
    costs = Options(version_compatible=True, hardware_compatible="ampere-plus").costs
    assert [text.partition(":")[0] for text in costs] == ["version-compatible", "ampere-plus"]
    assert Options(refittable=True).costs[0].startswith("refittable: fewer fusions")


def test_the_command_refuses_what_rtx_lacks(
    onnx_files: Path, rtx: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["build", str(onnx_files / "tinyunet.fp32.onnx"), "-o", str(tmp_path)]
    words += ["--flavour", rtx, "--compute-capability", "8.6"]
    assert run(tinyunet, [*words, "--hardware-compatible", "ampere-plus"]) == 4
    assert "use --flavour tensorrt, or leave it out" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
