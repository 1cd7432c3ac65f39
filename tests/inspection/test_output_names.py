from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from tinyunet_deploy.data.decoding import IMAGE_SUFFIXES
from tinyunet_deploy.inspection.output_names import (
    clashing_names,
    folded_name,
    ignores_case,
    mask_name,
    overlay_name,
)

SUFFIXES = tuple(IMAGE_SUFFIXES)


@pytest.mark.parametrize(
    ("name", "mask", "overlay"),
    [
        ("a.png", "a.png", "a.jpg"),
        ("a/0001.PNG", "a/0001.PNG", "a/0001.JPG"),
        ("a.Png", "a.Png", "a.Jpg"),
        ("a.jpg", "a-jpg.png", "a-jpg.jpg"),
        ("a.JPG", "a-JPG.png", "a-JPG.jpg"),
        ("a.bmp", "a-bmp.png", "a-bmp.jpg"),
        ("part.0001.png", "part.0001.png", "part.0001.jpg"),
        ("a.jpg.png", "a.jpg.png", "a.jpg.jpg"),
        ("a-jpg.png", "a-jpg-png.png", "a-jpg-png.jpg"),
        ("a", "a-file.png", "a-file.jpg"),
        ("a.raw", "a.raw-file.png", "a.raw-file.jpg"),
        ("a-file.png", "a-file-png.png", "a-file-png.jpg"),
        ("part-1.png", "part-1.png", "part-1.jpg"),
    ],
)
def test_files_are_named_as_their_image(name: str, mask: str, overlay: str) -> None:
    assert (mask_name(name), overlay_name(name)) == (mask, overlay)


def test_a_change_of_a_file_has_a_mask_of_its_own() -> None:
    assert mask_name("a.png", 1) == "a-change1.png"
    assert overlay_name("a.jpg", 2) == "a-jpg-change2.jpg"


endings = [
    *sorted(IMAGE_SUFFIXES), ".PNG", ".Jpg", ".x", ".", "-", "-png", "-PNG", "-jpg", "-file",
    "-change1", "-change12",
]  # fmt: skip
images = st.tuples(
    st.lists(st.sampled_from(endings), max_size=4).map(lambda parts: "part" + "".join(parts)),
    st.integers(0, 12),
)


@settings(max_examples=1000)
@given(images, images)
@example(("a", 0), ("a.png", 0))
@example(("a.png", 1), ("a-change1.png", 0))
@example(("a.jpg", 0), ("a-jpg.png", 0))
@example(("a.png", 0), ("a.PNG", 0))
@example(("a.png", 1), ("a.PNG", 1))
def test_two_images_never_share_a_file(one: tuple[str, int], other: tuple[str, int]) -> None:
    assume(one != other)
    assert mask_name(*one) != mask_name(*other)
    assert overlay_name(*one) != overlay_name(*other)
    assert mask_name(*one).lower().endswith(".png")
    assert overlay_name(*one).lower().endswith(".jpg")


@given(images)
def test_a_name_never_gets_a_second_suffix(image: tuple[str, int]) -> None:
    dots = image[0].count(".")
    assert mask_name(*image).count(".") == dots + (not image[0].lower().endswith(SUFFIXES))
    assert overlay_name(*image).count(".") == mask_name(*image).count(".")


@given(images, images)
def test_masks_and_overlays_clash_for_the_same_names(
    one: tuple[str, int], other: tuple[str, int]
) -> None:
    """So it is enough to look at the masks where upper and lower case are the same."""
    masks, overlays = (
        folded_name(name(*one)) == folded_name(name(*other)) for name in (mask_name, overlay_name)
    )
    assert masks == overlays


def test_names_that_a_file_system_takes_for_the_same_clash() -> None:
    composed = unicodedata.normalize("NFC", "é.png")
    decomposed = unicodedata.normalize("NFD", composed)
    names = ["A.png", "a.PNG", "b/C.png", "B/c.png", composed, decomposed, "d /e.png", "d/e.png"]
    alone = ["a.jpg", "f.png", "g/A.png"]
    assert clashing_names([*names, *alone]) == set(names)
    assert folded_name("Straße") == folded_name("STRASSE")


def test_a_file_system_that_tells_case_apart_is_recognised(tmp_path: Path) -> None:
    assert not ignores_case(tmp_path), "nothing to look at"
    (tmp_path / "run.json").touch()
    assert not ignores_case(tmp_path)
    (tmp_path / "RUN.JSON").symlink_to("run.json")  # as such a file system shows it
    assert ignores_case(tmp_path)
