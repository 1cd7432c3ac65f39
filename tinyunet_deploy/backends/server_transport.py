"""Connections to an inference server: HTTP/1.1, and gRPC through NVIDIA's ``tritonclient``.

Every request has one deadline, and a limit on the size of its answer: a server that sends too
slowly or without end costs at most :data:`TIMEOUT_S`, and does not stop the line.
"""

from __future__ import annotations

import contextlib
import http.client
import importlib
import json
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple, Protocol, Self
from urllib.parse import SplitResult, quote, urlsplit

from tinyunet_deploy.backends import kserve
from tinyunet_deploy.contract import INPUT_NAME, OUTPUT_NAME, Batch
from tinyunet_deploy.errors import RefusedError, RuntimeUnavailable

__all__ = ["TIMEOUT_S", "TRANSPORTS", "Address", "GRPCTransport", "HTTPTransport", "Transport"]

TIMEOUT_S: Final = 60.0
"""Longest time from a request to the last byte of its answer, seconds."""
MAX_HEADER_BYTES: Final = 1 << 20
"""Largest JSON before the score of an inference."""
_HEADER_LENGTH: Final = "Inference-Header-Content-Length"
_EXAMPLES: Final = "such as http://localhost:8000/tinyunet or grpc://localhost:8001/tinyunet"


class Transport(Protocol):
    """One connection to a server; used by one thread at a time."""

    def server(self) -> dict[str, str]:
        """Return name -> version of the server."""

    def config(self) -> dict[str, Any]:
        """Return the model's configuration, as the JSON of Triton's ``ModelConfig``."""

    def infer(self, image: Batch) -> Batch:
        """Return the scores of images, each uint8 [N, 1, H, W]."""

    def close(self) -> None:
        """Close the connection."""


class Address(NamedTuple):
    """Address of a model on an inference server."""

    url: str
    host: str
    port: int
    model: str
    secure: bool

    @classmethod
    def parse(cls, url: str) -> Self:
        """Return the address in ``scheme://host[:port]/model``.

        Raises:
            RefusedError: it has another form.
        """
        try:
            parts: SplitResult = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise RefusedError(url, f"is not the address of a model: {error}", _EXAMPLES) from error
        model = parts.path.strip("/")
        if parts.scheme not in TRANSPORTS or not parts.hostname or not model or "/" in model:
            raise RefusedError(url, "is not the address of a model", _EXAMPLES)
        secure = parts.scheme.endswith("s")
        usual = 8001 if parts.scheme.startswith("grpc") else 443 if secure else 8000
        return cls(url, parts.hostname, port or usual, model, secure)

    @property
    def protocol(self) -> kserve.Protocol:
        """The checks of this model's answers."""
        return kserve.Protocol(self.url, self.model)


class _Deadline:
    """Socket with one deadline for all its reads and writes."""

    deadline = 0.0
    """Time at which every read or write ends, seconds of ``time.monotonic``."""

    def _remaining(self) -> float:
        seconds = self.deadline - time.monotonic()
        if seconds <= 0:
            raise TimeoutError("timed out")
        return seconds

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        """Receive before the deadline."""
        self.settimeout(self._remaining())  # type: ignore[attr-defined]
        count: int = super().recv_into(*args, **kwargs)  # type: ignore[misc]
        return count

    def sendall(self, *args: Any, **kwargs: Any) -> None:
        """Send before the deadline."""
        self.settimeout(self._remaining())  # type: ignore[attr-defined]
        super().sendall(*args, **kwargs)  # type: ignore[misc]


class _PlainSocket(_Deadline, socket.socket):
    pass


class _SecureSocket(_Deadline, ssl.SSLSocket):
    pass


class HTTPTransport:
    """HTTP/1.1, images and scores as bytes: the protocol's binary tensor extension."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._protocol = address.protocol
        self._model_path = f"/v2/models/{quote(address.model, safe='')}"
        self._connection: http.client.HTTPConnection
        if address.secure:
            context = ssl.create_default_context()
            context.sslsocket_class = _SecureSocket
            self._connection = http.client.HTTPSConnection(
                address.host, address.port, timeout=TIMEOUT_S, context=context
            )
        else:
            self._connection = http.client.HTTPConnection(
                address.host, address.port, timeout=TIMEOUT_S
            )

    def server(self) -> dict[str, str]:
        """Return name -> version of the server."""
        data, _ = self._answer("GET", "/v2", limit=kserve.MAX_JSON_BYTES)
        return self._protocol.server(self._protocol.json(data))

    def config(self) -> dict[str, Any]:
        """Return the model's configuration."""
        data, _ = self._answer("GET", f"{self._model_path}/config", limit=kserve.MAX_JSON_BYTES)
        return self._protocol.json(data)

    def infer(self, image: Batch) -> Batch:
        """Return the scores of images, each uint8 [N, 1, H, W]."""
        tensor = {
            "name": INPUT_NAME,
            "shape": image.shape,
            "datatype": "UINT8",
            "parameters": {"binary_data_size": image.nbytes},
        }
        output = {"name": OUTPUT_NAME, "parameters": {"binary_data": True}}
        header = json.dumps({"inputs": [tensor], "outputs": [output]}).encode()
        data, headers = self._answer(
            "POST",
            f"{self._model_path}/infer",
            header + image.tobytes(),
            {_HEADER_LENGTH: str(len(header)), "Content-Type": "application/octet-stream"},
            limit=MAX_HEADER_BYTES + image.nbytes,
        )
        text = headers.get(_HEADER_LENGTH, "")
        if not (text.isascii() and text.isdigit() and int(text[:12]) <= len(data)):
            self._protocol.broken(f"has the {_HEADER_LENGTH} {text!r} for {len(data)} bytes")
        length = int(text)
        return self._protocol.score(self._protocol.json(data[:length]), data[length:], image)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _answer(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: dict[str, str] | None = None,
        *,
        limit: int,
    ) -> tuple[bytes, http.client.HTTPMessage]:
        """Return the body, of at most ``limit`` bytes, and the headers of the answer.

        The server may have closed a connection that was kept alive; it is then reopened once.
        """
        deadline = time.monotonic() + TIMEOUT_S
        for kept_alive in (self._connection.sock is not None, False):
            try:
                self._connect(deadline)
                self._connection.request(method, path, body, headers or {})
                with self._connection.getresponse() as answer:
                    data = answer.read(limit + 1)
                    complete = not answer.length  # None or 0: nothing more was promised
                break
            except (OSError, http.client.HTTPException, ValueError) as error:
                self._connection.close()
                if not kept_alive or isinstance(error, TimeoutError):
                    reason = str(error) or type(error).__name__
                    raise _no_answer(self._address, reason[:200]) from error
        if len(data) > limit or not complete:
            self._connection.close()
            if len(data) > limit:
                self._protocol.broken(f"is longer than {limit} bytes")
            raise _no_answer(self._address, "the connection ended within the answer")
        if answer.status != 200:
            raise _refusal(self._address, data, refused=answer.status < 500)
        return data, answer.headers

    def _connect(self, deadline: float) -> None:
        if self._connection.sock is None:
            self._connection.connect()
        connected: Any = self._connection.sock
        if not isinstance(connected, _Deadline):
            connected = self._connection.sock = _PlainSocket(fileno=connected.detach())
        connected.deadline = deadline


class GRPCTransport:
    """gRPC, through NVIDIA's ``tritonclient``."""

    def __init__(self, address: Address) -> None:
        try:
            self._grpc: Any = importlib.import_module("tritonclient.grpc")
            self._errors: Any = importlib.import_module("tritonclient.utils")
        except ImportError as error:
            raise RuntimeUnavailable(
                address.url,
                f"tritonclient cannot be imported: {error}",
                "pip install 'tinyunet-deploy[triton]', or use http://",
            ) from error
        self._address = address
        self._protocol = address.protocol
        self._client = self._grpc.InferenceServerClient(
            f"{address.host}:{address.port}",
            ssl=address.secure,
            channel_args=[
                ("grpc.max_send_message_length", -1),
                ("grpc.max_receive_message_length", 1 << 30),
            ],
        )
        self._outputs = [self._grpc.InferRequestedOutput(OUTPUT_NAME)]

    def server(self) -> dict[str, str]:
        """Return name -> version of the server."""
        return self._protocol.server(self._answer(self._client.get_server_metadata, as_json=True))

    def config(self) -> dict[str, Any]:
        """Return the model's configuration."""
        answer = self._answer(self._client.get_model_config, self._address.model, as_json=True)
        config = answer.get("config") if isinstance(answer, dict) else None
        if not isinstance(config, dict):
            self._protocol.broken("has no configuration")
        return config

    def infer(self, image: Batch) -> Batch:
        """Return the scores of images, each uint8 [N, 1, H, W]."""
        tensor = self._grpc.InferInput(INPUT_NAME, image.shape, "UINT8")
        tensor.set_data_from_numpy(image)
        result = self._answer(
            self._client.infer, self._address.model, [tensor], outputs=self._outputs
        )
        answer = result.get_response(as_json=True)
        self._protocol.check_output(answer, image)
        raw = result.get_response().raw_output_contents
        size = {"parameters": {"binary_data_size": image.nbytes}}  # gRPC frames the bytes itself
        described = {**answer, "outputs": [{**answer["outputs"][0], **size}]}
        return self._protocol.score(described, raw[0] if len(raw) == 1 else b"", image)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _answer(self, call: Any, *arguments: Any, **options: Any) -> Any:
        try:
            return call(*arguments, client_timeout=TIMEOUT_S, **options)
        except self._errors.InferenceServerException as error:
            status = str(error.status())
            if status.endswith(("UNAVAILABLE", "DEADLINE_EXCEEDED")):
                raise _no_answer(self._address, status) from error
            message = json.dumps({"error": error.message()}).encode()
            refused = status.endswith(("INVALID_ARGUMENT", "NOT_FOUND", "RESOURCE_EXHAUSTED"))
            raise _refusal(self._address, message, refused=refused) from error


TRANSPORTS: Final[dict[str, Callable[[Address], Transport]]] = {
    "grpc": GRPCTransport,
    "grpcs": GRPCTransport,
    "http": HTTPTransport,
    "https": HTTPTransport,
}
"""Scheme of an address -> class that speaks its protocol."""


def _no_answer(address: Address, why: str) -> RuntimeUnavailable:
    return RuntimeUnavailable(address.url, f"does not answer: {why}", "is the server running?")


def _refusal(address: Address, body: bytes, *, refused: bool) -> RefusedError | RuntimeUnavailable:
    """Return the error for an answer with an error status: the request's fault or the server's."""
    what = body[:200].decode("utf-8", "replace") or "no reason given"
    with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
        what = str(json.loads(body)["error"])[:500]
    error = RefusedError if refused else RuntimeUnavailable
    return error(address.url, f"the server says: {what}")
