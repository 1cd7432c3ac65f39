from __future__ import annotations

from tinyunet_deploy.data.formats.header import FormatError, Header, several_images


def test_a_header_is_of_8_bit_grey_values_by_default() -> None:
    header = Header(4, 5)
    assert (header.height, header.width, header.bits, header.depth) == (4, 5, 8, None)
    assert not any((header.left_justified, header.colour, header.indirect, header.lossy))
    assert header.details is None


def test_a_header_can_be_the_key_of_a_dictionary() -> None:
    assert {Header(4, 5): "small"}[Header(4, 5, bits=8)] == "small"


def test_an_error_keeps_its_parts() -> None:
    error = FormatError("corrupt", "cannot be decoded")
    assert (error.reason, error.what, error.hint) == ("corrupt", "cannot be decoded", None)
    error = several_images("1000 or more", "save each page as a file of its own")
    assert error.reason == "several-images"
    assert error.what == "contains 1000 or more images, not one"
    assert error.hint == "save each page as a file of its own"
