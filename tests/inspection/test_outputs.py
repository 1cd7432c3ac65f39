from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyunet_deploy.data.decoding import IMAGE_SUFFIXES
from tinyunet_deploy.inspection.outputs import png_name


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("a.png", "a.png"),
        ("a/0001.PNG", "a/0001.PNG"),
        ("a.jpg", "a.jpg.png"),
        ("a.bmp", "a.bmp.png"),
        ("a", "a.png"),
        ("part.0001.png", "part.0001.png"),
        ("a.jpg.png", "a.jpg.png.png"),
    ],
)
def test_a_mask_is_named_as_its_image(name: str, wanted: str) -> None:
    assert png_name(name) == wanted


suffixes = st.lists(
    st.sampled_from([*sorted(IMAGE_SUFFIXES), ".PNG", ".Jpg", ".x"]), min_size=1, max_size=4
)


@given(suffixes, suffixes)
def test_two_images_never_share_a_mask(one: list[str], other: list[str]) -> None:
    first, second = ("part" + "".join(parts) for parts in (one, other))
    if all(Path(name).suffix.lower() in IMAGE_SUFFIXES for name in (first, second)):
        assert (png_name(first) == png_name(second)) == (first == second)
    assert png_name(first).lower().endswith(".png")
