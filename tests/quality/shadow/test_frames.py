from __future__ import annotations

import io

import numpy as np

from tinyunet_deploy.quality.shadow.frames import read_frame, write_frame

ARRAYS = [np.arange(12, dtype=np.uint8).reshape(3, 4), np.ones((2, 2), np.uint8)[:, ::2]]


def test_a_message_comes_back_and_its_end_is_noticed_anywhere() -> None:
    stream = io.BytesIO()
    write_frame(stream, {"name": "a/ä.png"}, *ARRAYS)
    write_frame(stream, {"name": "b"})
    data = stream.getvalue()
    stream.seek(0)
    first, second = read_frame(stream), read_frame(stream)
    assert first is not None and second == ({"name": "b"}, [])
    assert first[0] == {"name": "a/ä.png"}
    for made, sent in zip(first[1], ARRAYS, strict=True):
        assert (made == sent).all()
    assert read_frame(stream) is None
    for cut in range(len(data) - 1):
        short = io.BytesIO(data[:cut])
        while (frame := read_frame(short)) is not None:
            assert frame[0]["name"] == "a/ä.png"
