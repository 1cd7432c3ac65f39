"""Directories of TIFF files, written byte by byte."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import pytest

from tinyunet_deploy.data.formats.header import FormatError
from tinyunet_deploy.data.formats.tiff_directory import Directory, read_directories

SIZES = {
    1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4,
    16: 8, 17: 8, 18: 8,
}  # fmt: skip
"""Type -> bytes, as TIFF 6.0 page 15 and the BigTIFF proposal list them."""
UNSIGNED = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
Field = tuple[int, int, int, bytes]
"""Tag, type, number of values, and their bytes."""


def tiff(fields: Sequence[Field], *, order: str = "<", big: bool = False) -> bytes:
    """A file of one directory; values that do not fit into their field stand behind it."""
    word, count = ("Q", "Q") if big else ("I", "H")
    inline = struct.calcsize("=" + word)
    mark = b"II" if order == "<" else b"MM"
    head = mark + (struct.pack(order + "HHHQ", 43, 8, 0, 16) if big else struct.pack(
        order + "HI", 42, 8))  # fmt: skip
    entry = 4 + 2 * inline
    behind = len(head) + struct.calcsize("=" + count) + entry * len(fields) + inline
    entries, heap = b"", b""
    for tag, kind, number, values in fields:
        place = values.ljust(inline, b"\0")
        if len(values) > inline:
            place = struct.pack(order + word, behind + len(heap))
            heap += values
        entries += struct.pack(order + "HH" + word, tag, kind, number) + place
    return head + struct.pack(order + count, len(fields)) + entries + bytes(inline) + heap


def only(data: bytes) -> Directory:
    directories = read_directories(data)
    assert not directories.more
    (directory,) = directories.directories
    return directory


def refusal(data: bytes) -> FormatError:
    with pytest.raises(FormatError) as caught:
        read_directories(data)
    return caught.value


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("big", [False, True])
def test_values_of_every_type_have_its_size_and_stand_in_their_field_up_to_its_end(
    order: str, big: bool
) -> None:
    sizes = SIZES | dict.fromkeys((0, 14, 15, 19, 999), 1)  # unknown types: a byte each
    field = 8 if big else 4
    for kind, size in sizes.items():
        fitting = field // size
        for number in {1, fitting, fitting + 1, 2 * fitting + 1} - {0}:
            values = bytes(range(1, number * size + 1))
            data = tiff([(700, kind, number, values), (701, 1, 1, b"x")], order=order, big=big)
            directory = only(data)
            assert directory.raw(700) == values, (kind, number)
            assert directory.raw(701) == b"x"


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", range(20))
def test_unsigned_integers_are_read_and_other_types_are_refused(order: str, kind: int) -> None:
    if kind not in UNSIGNED:
        with pytest.raises(FormatError, match="wrong type in tag 700"):
            only(tiff([(700, kind, 2, bytes(16))], order=order)).array(700)
        return
    largest = 2 ** (8 * SIZES[kind]) - 1
    values = (1, 2, min(largest, 2**63 - 1))
    packed = struct.pack(order + 3 * UNSIGNED[kind], *values)
    directory = only(tiff([(700, kind, 3, packed)], order=order))
    assert directory.array(700).tolist() == list(values)
    assert directory.numbers(700) == values
    assert directory.number(700) == 1


def test_a_value_of_more_than_63_bits_is_refused() -> None:
    directory = only(tiff([(700, 16, 2, struct.pack("<QQ", 1, 2**63))]))
    with pytest.raises(FormatError, match="out of range in tag 700"):
        directory.array(700)


def test_a_tag_without_values_is_refused() -> None:
    with pytest.raises(FormatError, match="no value in tag 700"):
        only(tiff([(700, 4, 0, b"")])).array(700)


def test_a_missing_tag_has_no_values_and_a_number_by_default_only() -> None:
    directory = only(tiff([(700, 1, 1, b"\7")]))
    assert directory.has(700) and not directory.has(699)
    assert directory.raw(699) == b""
    assert directory.array(699).tolist() == []
    assert directory.numbers(699) == ()
    assert directory.number(699, 0) == 0
    assert directory.number(700, 0) == 7
    with pytest.raises(FormatError, match="lacks tag 699"):
        directory.number(699)


def test_sixteen_numbers_are_made_of_a_long_list() -> None:
    directory = only(tiff([(700, 1, 20, bytes(range(20)))]))
    assert directory.numbers(700) == tuple(range(16))


def test_values_end_with_the_file_and_not_behind_it() -> None:
    data = tiff([(700, 1, 9, b"123456789")])
    assert only(data).raw(700) == b"123456789"
    directory = only(data[:-1])
    with pytest.raises(EOFError):
        directory.raw(700)


@pytest.mark.parametrize("big", [False, True])
def test_a_file_that_ends_in_its_directory_is_cut_off(big: bool) -> None:
    data = tiff([(700, 1, 1, b"x"), (701, 1, 1, b"y")], big=big)
    only(data)
    for size in range(4, len(data)):
        with pytest.raises((EOFError, struct.error)):
            read_directories(data[:size])


def test_a_directory_may_have_4096_tags() -> None:
    fields = [(tag, 3, 1, b"\1\0") for tag in range(4096)]
    assert len(only(tiff(fields)).entries) == 4096
    error = refusal(tiff([*fields, (4096, 3, 1, b"\1\0")]))
    assert error.reason == "corrupt"
    assert error.what == "has a directory of 4097 tags, more than 4096"


def test_a_tag_that_stands_twice_is_refused() -> None:
    assert "tag 700 twice" in refusal(tiff([(700, 1, 1, b"x"), (700, 1, 1, b"x")])).what


def test_a_header_without_a_directory_is_refused() -> None:
    error = refusal(b"II*\0" + bytes(4))
    assert (error.reason, error.what) == ("corrupt", "has no directory")


@pytest.mark.parametrize("sizes", [(4, 0), (8, 1)])
def test_a_bigtiff_header_of_other_sizes_is_refused(sizes: tuple[int, int]) -> None:
    data = tiff([(700, 1, 1, b"x")], big=True)
    damaged = data[:4] + struct.pack("<HH", *sizes) + data[8:]
    assert "damaged BigTIFF header" in refusal(damaged).what


@pytest.mark.parametrize(("count", "more"), [(999, False), (1000, False), (1001, True)])
def test_a_thousand_directories_are_counted(count: int, more: bool) -> None:
    data = b"MM\0*" + struct.pack(">I", 8)
    for index in range(count):
        following = 8 + 18 * (index + 1) if index < count - 1 else 0
        data += struct.pack(">HHHIII", 1, 256, 4, 1, index, following)
    directories = read_directories(data)
    assert directories.more == more
    assert [directory.number(256) for directory in directories.directories] == list(
        range(min(count, 1000))
    )
