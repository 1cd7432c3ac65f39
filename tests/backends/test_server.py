"""A server that answers whatever it likes costs one clear line: never a bug, a score or the time.

The server is a socket that plays back bytes, right ones changed in one place.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import part
from tinyunet_deploy.artifacts.sidecar import Sidecar, digest
from tinyunet_deploy.backends import kserve, server_transport
from tinyunet_deploy.backends.server import ServerBackend
from tinyunet_deploy.cli import run, tinyunet
from tinyunet_deploy.contract import Contract
from tinyunet_deploy.data.decoding import read_image
from tinyunet_deploy.data.encoding import write_png
from tinyunet_deploy.data.tiles import score_in_tiles
from tinyunet_deploy.errors import ArtifactError, RefusedError, RuntimeUnavailable, TinyUNetError

SIDECAR = Sidecar("onnx", "fp32", digest(b"model"), None, Contract(32, 64))
IMAGE = np.arange(2 * 32 * 64, dtype=np.uint32).astype(np.uint8).reshape(2, 1, 32, 64)
METADATA = {"name": "triton", "version": "2.60"}
TENSOR = {"data_type": "TYPE_UINT8", "dims": [1, 32, 64]}
CONFIG = {
    "name": "tiny",
    "max_batch_size": 4,
    "input": [{"name": "image", **TENSOR}],
    "output": [{"name": "score", **TENSOR}],
    "parameters": {"sidecar": {"string_value": SIDECAR.as_json()}},
}
ANSWER = {
    "model_name": "tiny",
    "model_version": "1",
    "outputs": [
        {
            "name": "score",
            "datatype": "UINT8",
            "shape": [2, 1, 32, 64],
            "parameters": {"binary_data_size": IMAGE.nbytes},
        }
    ],
}

Send = Callable[[bytes], None]


def response(body: bytes, status: str = "200 OK", **headers: object) -> bytes:
    fields = {"Content-Length": len(body), **{k.replace("_", "-"): v for k, v in headers.items()}}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items() if value is not None)
    return f"HTTP/1.1 {status}\r\n{lines}\r\n".encode() + body


def as_json(fields: object) -> bytes:
    return response(json.dumps(fields).encode())


def scores(answer: object, data: bytes = (255 - IMAGE).tobytes(), **headers: object) -> bytes:
    text = json.dumps(answer).encode()
    length = {"Inference_Header_Content_Length": len(text)} | headers
    return response(text + data, **length)


class Played:
    """A server that plays back what it was given for each kind of request."""

    def __init__(self) -> None:
        self.answers: dict[str, bytes | Callable[[Send], None]] = {
            "server": as_json(METADATA),
            "config": as_json(CONFIG),
            "infer": scores(ANSWER),
        }
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/tiny"
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        while not self._stopped.is_set():
            with contextlib.suppress(OSError):
                connection, _ = self._socket.accept()
                thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as requests, contextlib.suppress(OSError):
            while line := requests.readline():
                size = 0
                while (header := requests.readline()) not in (b"\r\n", b""):
                    name, _, value = header.partition(b":")
                    size = int(value) if name.lower() == b"content-length" else size
                requests.read(size)
                path = line.split()[1]
                kind = path.rpartition(b"/")[2].decode()
                answer = self.answers["server" if kind == "v2" else kind]
                if callable(answer):
                    answer(connection.sendall)
                    return
                connection.sendall(answer)

    def close(self) -> None:
        self._stopped.set()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


@pytest.fixture
def played() -> Iterator[Played]:
    server = Played()
    yield server
    server.close()


def test_right_answers_are_scores(played: Played) -> None:
    with ServerBackend(played.url) as backend:
        assert backend.versions == {"triton": "2.60"}
        assert backend.artifact.sidecar == replace(SIDECAR, contract=Contract(32, 64, 4))
        runs = list(backend.run_many([IMAGE, IMAGE]))
    for scored in runs:
        assert np.array_equal(scored.score, 255 - IMAGE)


def test_images_of_any_size_are_scored_by_a_server_in_the_tiles_of_its_sidecar(
    played: Played, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three tiles and one whole image are two batches of two, which get the same answer."""
    images = tmp_path / "in"
    images.mkdir()
    write_png(
        images / "0.png", np.arange(32 * 128, dtype=np.uint32).astype(np.uint8).reshape(32, 128)
    )
    write_png(images / "1.png", IMAGE[0, 0])
    output = tmp_path / "out"
    command = ["infer", str(images), "-o", str(output), "--server", played.url, "-b", "2"]
    assert run(tinyunet, [*command, "--workers", "1", "--scores", "--format", "json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["tiled"], summary["padded"], summary["approximate"]) == (1, 0, 1)
    first, second = 255 - IMAGE[:, 0]
    answers = iter([first, second, first])
    assert SIDECAR.tiling.tile_count((32, 128)) == 3
    composed = score_in_tiles(
        np.zeros((32, 128), np.uint8), lambda _: next(answers), SIDECAR.tiling
    )
    assert np.array_equal(read_image(output / "scores" / "0.png"), composed)
    assert np.array_equal(read_image(output / "scores" / "1.png"), second)


def changed(fields: Any, path: str, value: object) -> Any:
    """A copy with one value changed; ``path`` is such as ``outputs.0.shape``."""
    copy = deepcopy(fields)
    *parents, last = [int(key) if key.isdigit() else key for key in path.split(".")]
    place = copy
    for key in parents:
        place = place[key]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return copy


NONSENSE = [None, 0, -1, 1.5, "", "x", [], [[]], {}, True, 1 << 70, "9" * 5000]

ODD_BODIES = {
    "not json": b"scores",
    "a list": b"[]",
    "a number": b"17",
    "null": b"null",
    "deep": b"[" * 100_000,
    "a huge number": b'{"outputs": ' + b"9" * 100_000 + b"}",
    "latin 1": b'{"name": "\xe9"}',
    "empty": b"",
    "nan": b"NaN",
}


@pytest.mark.parametrize("request_", ["server", "config", "infer"])
@pytest.mark.parametrize("body", ODD_BODIES.values(), ids=ODD_BODIES.keys())
def test_what_is_not_the_json_of_an_answer_is_refused(
    played: Played, request_: str, body: bytes
) -> None:
    played.answers[request_] = response(body, Inference_Header_Content_Length=len(body))
    with pytest.raises(RefusedError, match="the server's answer"), ServerBackend(played.url) as it:
        it.run(IMAGE)


@pytest.mark.parametrize("value", NONSENSE, ids=str)
@pytest.mark.parametrize("field", ["name", "version"])
def test_metadata_that_names_no_server_is_refused(
    played: Played, field: str, value: object
) -> None:
    played.answers["server"] = as_json(changed(METADATA, field, value))
    if isinstance(value, str):
        ServerBackend(played.url).close()
        return
    with pytest.raises(RefusedError, match="does not name the server"):
        ServerBackend(played.url)


@pytest.mark.parametrize("value", [..., *NONSENSE], ids=str)
@pytest.mark.parametrize(
    "field",
    [
        "name",
        "max_batch_size",
        "input",
        "output",
        "input.0",
        "input.0.name",
        "output.0.name",
        "input.0.data_type",
        "output.0.data_type",
        "input.0.dims",
        "output.0.dims",
        "parameters",
        "parameters.sidecar",
        "parameters.sidecar.string_value",
    ],
)
def test_a_configuration_that_is_not_of_this_model_is_refused(
    played: Played, field: str, value: object
) -> None:
    played.answers["config"] = as_json(changed(CONFIG, field, value))
    with pytest.raises((RefusedError, ArtifactError)) as refusal:
        ServerBackend(played.url)
    assert len(str(refusal.value)) < 1000


@pytest.mark.parametrize("value", [..., *NONSENSE, [2, 1, 64, 32], [1, 1, 32, 64]], ids=str)
@pytest.mark.parametrize(
    "field",
    [
        "outputs",
        "outputs.0",
        "outputs.0.name",
        "outputs.0.datatype",
        "outputs.0.shape",
        "outputs.0.parameters",
        "outputs.0.parameters.binary_data_size",
    ],
)
def test_an_inference_that_breaks_the_protocol_gives_no_score(
    played: Played, field: str, value: object
) -> None:
    played.answers["infer"] = scores(changed(ANSWER, field, value))
    with ServerBackend(played.url) as backend, pytest.raises(RefusedError, match="answer"):
        backend.run(IMAGE)


ODD_SCORES = {
    "one byte less": scores(ANSWER, IMAGE.tobytes()[:-1]),
    "one byte more": scores(ANSWER, IMAGE.tobytes() + b"\0"),
    "none": scores(ANSWER, b""),
    "two outputs": scores(changed(ANSWER, "outputs", ANSWER["outputs"] * 2), IMAGE.tobytes() * 2),
    "of another model": scores(changed(ANSWER, "model_name", "other")),
    "header length missing": scores(ANSWER, Inference_Header_Content_Length=None),
    "header length negative": scores(ANSWER, Inference_Header_Content_Length=-1),
    "header length too large": scores(ANSWER, Inference_Header_Content_Length=10**12),
    "header length enormous": scores(ANSWER, Inference_Header_Content_Length="9" * 5000),
    "header length text": scores(ANSWER, Inference_Header_Content_Length="many"),
    "as numbers": scores(changed(ANSWER, "outputs.0.data", IMAGE.ravel().tolist()), b""),
}


@pytest.mark.parametrize("answer", ODD_SCORES.values(), ids=ODD_SCORES.keys())
def test_bytes_that_are_not_the_score_are_refused(played: Played, answer: bytes) -> None:
    played.answers["infer"] = answer
    with ServerBackend(played.url) as backend, pytest.raises(RefusedError, match="answer"):
        backend.run(IMAGE)


def drip(send: Send) -> None:
    """A byte now and then, for ever: each wait is short, all of them are not."""
    while True:
        send(b"H")
        time.sleep(0.05)


def endless_header(send: Send) -> None:
    send(b"HTTP/1.1 200 OK\r\n")
    while True:
        send(b"a: " + b"b" * 1000 + b"\r\n")


def endless_continue(send: Send) -> None:
    while True:
        send(b"HTTP/1.1 100 Continue\r\n\r\n")


def endless_body(send: Send) -> None:
    send(b"HTTP/1.1 200 OK\r\nInference-Header-Content-Length: 5\r\n\r\n")
    while True:
        send(b" " * 65536)


def endless_chunks(send: Send) -> None:
    send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        send(b"10000\r\n" + b" " * 65536 + b"\r\n")


def silent(send: Send) -> None:
    time.sleep(5)


def cut(send: Send) -> None:
    send(scores(ANSWER)[:-7])


def promise(send: Send) -> None:
    send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n")
    time.sleep(5)


def nothing(send: Send) -> None:
    pass


@pytest.mark.parametrize(
    "answer",
    [
        drip,
        endless_header,
        endless_continue,
        endless_body,
        endless_chunks,
        silent,
        cut,
        promise,
        nothing,
        b"220 mail.example.org ESMTP\r\n",
        b"HTTP/9.9 ok\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"\0" * 1000,
    ],
)
@pytest.mark.parametrize("request_", ["server", "config", "infer"])
def test_an_answer_without_an_end_costs_the_time_limit_and_no_more(
    played: Played,
    monkeypatch: pytest.MonkeyPatch,
    request_: str,
    answer: bytes | Callable[[Send], None],
) -> None:
    monkeypatch.setattr(server_transport, "TIMEOUT_S", 0.5)
    monkeypatch.setattr(kserve, "MAX_JSON_BYTES", 1 << 20)
    played.answers[request_] = answer
    started = time.monotonic()
    with (
        pytest.raises((RuntimeUnavailable, RefusedError)) as error,
        ServerBackend(played.url) as backend,
    ):
        backend.run(IMAGE)
    assert time.monotonic() - started < 60, "half a second for each of three requests"
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize(
    ("status", "error"),
    [
        ("404 Not Found", RefusedError),
        ("301 Moved", RefusedError),
        ("204 No Content", RefusedError),
        ("500 Error", RuntimeUnavailable),
        ("503 Busy", RuntimeUnavailable),
    ],
)
@pytest.mark.parametrize(
    "body",
    [b"", b"no", b'{"error": "why"}', b'{"error": 1}', b"[]", b"[" * 100_000, b"\xff\x1b[2J"],
)
def test_a_refusal_is_passed_on_whatever_its_form(
    played: Played, status: str, error: type[TinyUNetError], body: bytes
) -> None:
    played.answers["infer"] = response(b"" if status.startswith("204") else body, status)
    with ServerBackend(played.url) as backend, pytest.raises(error) as refusal:
        backend.run(IMAGE)
    line = str(refusal.value)
    assert line.isprintable()
    assert len(line) < 1000


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(["server", "config", "infer"]),
    at=st.floats(0, 1, exclude_max=True),
    byte=st.integers(0, 255),
)
def test_one_changed_byte_never_becomes_a_bug_or_another_score(
    played: Played, monkeypatch: pytest.MonkeyPatch, kind: str, at: float, byte: int
) -> None:
    monkeypatch.setattr(server_transport, "TIMEOUT_S", 0.5)  # a longer length is waited for
    right = {"server": as_json(METADATA), "config": as_json(CONFIG), "infer": scores(ANSWER)}
    data = bytearray(right[kind])
    place = int(at * (len(data) - IMAGE.nbytes * (kind == "infer")))  # not the score itself
    data[place] = byte
    played.answers = right | {kind: bytes(data)}
    with contextlib.suppress(TinyUNetError), ServerBackend(played.url) as backend:
        assert np.array_equal(backend.run(IMAGE).score, 255 - IMAGE)


def test_a_model_that_is_replaced_during_the_run_ends_it(played: Played) -> None:
    other = replace(SIDECAR, sha256=digest(b"another"))
    with ServerBackend(played.url) as backend:
        runs = backend.run_many([IMAGE, IMAGE])
        next(runs)
        played.answers["config"] = as_json(
            changed(CONFIG, "parameters.sidecar.string_value", other.as_json())
        )
        with pytest.raises(ArtifactError, match=r"serves model .* now, but served .* at the start"):
            list(runs)


def test_the_command_ends_with_one_line_for_an_odd_server(
    played: Played, tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "photos").mkdir()
    write_png(tmp_path / "photos" / "a.png", part(0, height=32, width=64))
    infer = ["infer", str(tmp_path / "photos"), "--server", played.url, "-b", "2", "-o"]
    for number, (answer, code) in enumerate(
        [(ODD_SCORES["one byte less"], 4), (cut, 5), (response(b""), 4)]
    ):
        played.answers["infer"] = answer
        assert run(tinyunet, [*infer, str(tmp_path / f"out{number}")]) == code
        error = capsys.readouterr().err.splitlines()[-1]
        assert error.startswith(f"error: {played.url}: ")


def test_a_model_of_one_image_per_call_has_no_axis_of_the_batch() -> None:
    sidecar = replace(SIDECAR, contract=Contract(32, 64, max_batch=1))
    tensor = {"data_type": "TYPE_UINT8", "dims": [1, 1, 32, 64]}
    config = {
        **CONFIG,
        "max_batch_size": 0,
        "input": [{"name": "image", **tensor}],
        "output": [{"name": "score", **tensor}],
        "parameters": {"sidecar": {"string_value": sidecar.as_json()}},
    }
    protocol = kserve.Protocol("http://server", "tiny")
    assert protocol.served(config).max_batch == 1
    with pytest.raises(RefusedError, match="max_batch_size 0"):
        protocol.served({**config, "parameters": CONFIG["parameters"]})
