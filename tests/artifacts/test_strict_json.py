"""JSON that others wrote: what Python's own reader would take and no other reader does."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyunet_deploy.artifacts.strict_json import MAX_DEPTH, read_json


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"a": 1, "b": 2, "a": 1}', "the key 'a' twice"),
        ('[{"b": {"c": 1, "c": 2}}]', "the key 'c' twice"),
        ("[NaN]", "NaN, which is not JSON"),
        ("[-Infinity]", "-Infinity, which is not JSON"),
        ("[1e999]", "not finite: 1e999"),
        ("[9223372036854775808]", "integer of 19 digits"),
        ("[" + "9" * 5000 + "]", "integer of 5000 digits"),
        ("[" * 100_000 + "]" * 100_000, "nested more than 64 deep"),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, "nested more than 64 deep"),
        ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), "nested more than 64 deep"),
        ("\ufeff{}", "byte order mark"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
        ("{}".encode("utf-16"), "not UTF-8 at byte 0"),
        (b'["\xe9"]', "not UTF-8 at byte 2"),
        ("", "Expecting value"),
        ("{} {}", "Extra data"),
    ],
)
def test_what_another_reader_would_read_otherwise_is_refused(text: str | bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        read_json(text)
    assert len(str(caught.value)) < 200


def test_numbers_and_depth_up_to_their_limits_are_read() -> None:
    assert read_json("[9223372036854775807, -9223372036854775807, 1e308]")[0] == 2**63 - 1
    assert read_json("[" * MAX_DEPTH + "]" * MAX_DEPTH)


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63) + 1, 2**63 - 1) | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)  # fmt: skip


@given(values)
def test_other_texts_are_read_as_python_reads_them(value: object) -> None:
    assert read_json(json.dumps(value)) == value
