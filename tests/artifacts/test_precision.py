from __future__ import annotations

from typing import Any, cast

import numpy as np
import onnx
import pytest

from tinyunet_deploy.artifacts.precision import PRECISIONS, Precision, precision_facts
from tinyunet_deploy.speed.peak_graph import matrix_graph


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_row_agrees_with_numpy_and_onnx(precision: Precision) -> None:
    row = precision_facts(precision)
    dtype = np.dtype(row.number_type)
    assert row.name == precision
    assert row.value_bytes == dtype.itemsize
    assert onnx.helper.np_dtype_to_tensor_dtype(dtype) == row.onnx_type


@pytest.mark.parametrize("fact", ["number_type", "onnx_type", "color"])
def test_no_two_precisions_share_a_fact(fact: str) -> None:
    values = [getattr(precision_facts(precision), fact) for precision in PRECISIONS]
    assert len(set(values)) == len(values)


def test_no_type_of_tensorrt_belongs_to_two_precisions() -> None:
    types = [type_ for name in PRECISIONS for type_ in precision_facts(name).tensorrt_types]
    assert len(set(types)) == len(types)


def test_a_precision_without_a_row_never_takes_the_branch_of_another() -> None:
    bf16 = cast("Any", "bf16")
    with pytest.raises(AssertionError):
        precision_facts(bf16)
    with pytest.raises(AssertionError):
        matrix_graph(bf16, 64, 1)
    with pytest.raises(ValueError, match="in float32"):
        matrix_graph("fp16", 64, 1)
