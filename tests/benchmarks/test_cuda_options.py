from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnxruntime
import pytest

from benchmarks.cuda_options import OPTION_SETS, compare_sets, winner_of
from tinyunet_deploy.artifacts.sidecar import read_artifact
from tinyunet_deploy.backends.onnxruntime import ONNXRuntimeBackend
from tinyunet_deploy.errors import RuntimeUnavailable


def row(name: str, *ratios: float, error: str = "") -> dict[str, Any]:
    return {"set": name, "error": error, "ratio_to_default": dict(enumerate(ratios))}


def test_the_winner_is_fastest_over_all_batch_sizes_and_does_not_round() -> None:
    assert winner_of([]) == "default"
    assert winner_of([row("nhwc", 1.0, 1.02), row("bias", 0.9, 1.3)]) == "bias"
    assert winner_of([row("nhwc", 1.01, 1.01)]) == "default", "too little is noise"
    assert winner_of([row("tf32", 2.0, 2.0), row("nhwc", 1.1, 1.1)]) == "nhwc"
    assert winner_of([row("bias", 1.5, error="does not start"), row("nhwc")]) == "default"


def test_the_options_reach_the_provider(tiny_onnx: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def session(data: bytes, options: Any, providers: Any) -> None:
        asked.extend(providers)
        raise ValueError("no GPU")

    providers = ["CUDAExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: providers)
    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    artifact = read_artifact(tiny_onnx)
    for options in ({}, OPTION_SETS["nhwc and bias"], OPTION_SETS["tf32"]):
        with pytest.raises(RuntimeUnavailable, match="no GPU"):
            ONNXRuntimeBackend(artifact, "cuda:0", provider_options=options)
    default, nhwc, tf32 = (options for _, options in asked)
    assert default == {"device_id": 0, "use_tf32": 0, "enable_cuda_graph": 1}
    assert nhwc == {**default, "prefer_nhwc": 1, "fuse_conv_bias": 1}
    assert tf32 == {**default, "use_tf32": 1}


def test_each_set_is_held_against_the_default_or_says_why_it_does_not_run(
    tiny_onnx: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Refusing(ONNXRuntimeBackend):
        def __init__(
            self, *args: Any, provider_options: Mapping[str, Any] | None = None, **options: Any
        ) -> None:
            if provider_options == {"fuse_conv_bias": 1}:
                raise RuntimeUnavailable("cuda:0", "knows no such option")
            super().__init__(*args, **options)

    monkeypatch.setattr(
        "tinyunet_deploy.backends.table.BackendRow.load_class", lambda row: Refusing
    )
    sets = {name: OPTION_SETS[name] for name in ("nhwc", "bias")}
    first, second = compare_sets(read_artifact(tiny_onnx), "cpu", sets, [1, 2], 1, 1)
    assert (first["set"], first["error"], first["steps_from_default"]) == ("nhwc", "", 0)
    assert list(first["ratio_to_default"]) == [1, 2]
    assert all(ratio > 0 for ratio in first["ratio_to_default"].values())
    assert second["error"] == "cuda:0: knows no such option"
    assert second["ratio_to_default"] == {}
