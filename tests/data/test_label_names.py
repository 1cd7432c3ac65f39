"""Which files and folders are masks, by their names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyunet_deploy.data.layouts.label_names import image_of_label, is_mask_folder, label_files


@given(
    st.lists(st.text("aA_gtGT ()mask.", max_size=8).map(lambda stem: f"{stem}.png"), unique=True)
)
def test_every_mask_that_is_passed_over_has_its_image_among_the_inspected(files: list[str]) -> None:
    labels = label_files(files)
    images = [name.removesuffix(".png") for name in files if name not in labels]
    for label in labels:
        assert any(label.startswith(f"{image.partition(' (')[0]}_") for image in images)


@pytest.mark.parametrize(
    ("label", "image"),
    [
        ("a_mask", "a"),
        ("a_b_GT", "a_b"),
        ("10301_GT (copy)", "10301 (copy)"),
        ("_mask", None),
        ("a_masks", None),
        ("mask", None),
    ],
)
def test_the_image_of_a_label(label: str, image: str | None) -> None:
    assert image_of_label(label) == image


def test_a_folder_of_masks_lies_beside_one_of_images() -> None:
    assert is_mask_folder("Masks", ["Images", "Masks"])
    assert is_mask_folder("ground_truth", ["ground_truth", "Test"])
    assert not is_mask_folder("masks", ["masks", "parts"])
    assert not is_mask_folder("images", ["images", "masks"])
