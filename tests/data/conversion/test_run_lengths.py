from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.conversion.sets import encode
from tinyunet_deploy.data.conversion.run_lengths import decode_runs, parse_coco_string

# Encoded with pycocotools 2.0.11, of a mask that has an ellipse and stripes.
STRIPES = (
    "01l00G0m00SO090G00090G0b00UO090_O6k02TOHb00B:7F0<;2^OB;>61M2H_OM`06@G`01@7`070]O@`0b02NM@C`05@3"
    "`090_O@=`05NNB_O>9BO>4BJ<OD:::NYOH?0A6=JN0D0`0090G0m00SO0m00SO090G0m00SO0m00SO090G00090G0m00SO"
    "0m00SO090G02"
)


def test_a_string_of_the_public_tool_gives_its_mask():
    y, x = np.mgrid[:37, :53]
    expected = (((y - 15) / 9) ** 2 + ((x - 20) / 13) ** 2 <= 1) | ((y * 7 + x * 3) % 29 == 0)
    pixels = decode_runs(parse_coco_string(STRIPES), 37 * 53)
    np.testing.assert_array_equal(pixels.reshape(53, 37).T, expected)
    assert parse_coco_string("0PVe3") == [0, 300 * 400]


@given(st.lists(st.integers(0, 1 << 26), min_size=1))
def test_every_list_of_runs_survives_its_string(runs):
    assert parse_coco_string(encode(runs)) == runs


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("0~", "the character"),
        ("é", "the character"),
        ("0P", "ends inside"),
        ("o" * 9, "more than"),
    ],
)
def test_a_damaged_string_is_an_error(text, what):
    with pytest.raises(ValueError, match=what):
        parse_coco_string(text)


@pytest.mark.parametrize("runs", [[3, 2], [10], [-1, 7], []])
def test_runs_must_add_up_to_the_mask(runs):
    with pytest.raises(ValueError, match="the mask has 6"):
        decode_runs(runs, 6)
