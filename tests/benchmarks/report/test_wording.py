from __future__ import annotations

import pytest

from benchmarks.report.wording import backend_label, configuration, model_label
from tinyunet_deploy.backends.table import BACKENDS


@pytest.mark.parametrize(
    ("model", "precision", "label"),
    [
        ("tinyunet.int8.onnx", "int8", "tinyunet int8"),
        ("tinyunet.int8.onnx", None, "tinyunet int8"),
        ("tinyunet.int8-cpu.onnx", "int8", "tinyunet int8 for CPUs"),
        ("tinyunet-cpu.onnx", None, "tinyunet-cpu"),
        ("tinyunet.onnx", "fp32", "tinyunet fp32"),
        ("tinyunet.onnx", None, "tinyunet"),
        ("mine.v2.fp16.plan", "fp16", "mine.v2 fp16"),
        ("a.int8.onnx", "fp32", "a fp32"),
        (".onnx", "fp32", " fp32"),
    ],
)
def test_a_model_is_named_by_its_file_and_precision(
    model: str, precision: str | None, label: str
) -> None:
    assert model_label(model, precision) == label


def test_backends_have_the_names_that_their_makers_use() -> None:
    assert configuration("tinyunet.int8.onnx", "int8", "openvino") == "tinyunet int8 on OpenVINO"
    assert all(backend_label(name) != name for name in BACKENDS)
    assert backend_label("pytorch-eager") == "plain PyTorch"
    assert backend_label("someone's own") == "someone's own"
