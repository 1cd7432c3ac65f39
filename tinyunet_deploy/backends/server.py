"""A model that runs in an inference server, reached by the KServe v2 protocol.

The server is Triton, or another that has Triton's model configuration extension: the client asks
there for the sidecar that ``tinyunet triton`` put into the repository, and needs no file of its
own. HTTP needs no package; gRPC needs ``tritonclient``.
"""

from __future__ import annotations

import dataclasses
import http.client
import importlib
import json
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol, Self
from urllib.parse import SplitResult, quote, urlsplit

import numpy as np

from tinyunet_deploy.artifacts.sidecar import Artifact, Sidecar, parse_sidecar
from tinyunet_deploy.backends.base import Backend, Run
from tinyunet_deploy.contract import INPUT_NAME, OUTPUT_NAME, Batch
from tinyunet_deploy.errors import RefusedError, RuntimeUnavailable

__all__ = ["SIDECAR", "ServerBackend"]

SIDECAR: Final = "sidecar"
"""The parameter of a model's configuration that has the text of its sidecar."""
IN_FLIGHT: Final = 2
"""Requests at a time: one computes while the other travels."""
TIMEOUT_S: Final = 60.0
"""Longest wait for an answer, seconds."""
_HEADER_LENGTH: Final = "Inference-Header-Content-Length"


class Transport(Protocol):
    """One connection to a server; used by one thread at a time."""

    def server(self) -> dict[str, Any]:
        """``name`` and ``version`` of the server."""

    def config(self) -> dict[str, Any]:
        """The model's configuration, as the JSON of Triton's ``ModelConfig``."""

    def infer(self, image: Batch) -> Batch:
        """Scores of images, each uint8 [N, 1, H, W]."""

    def close(self) -> None:
        """Hang up."""


class _Address(NamedTuple):
    url: str
    host: str
    port: int
    model: str
    secure: bool

    @classmethod
    def parse(cls, url: str) -> Self:
        """An address from ``scheme://host[:port]/model``.

        Raises:
            RefusedError: it is of another form.
        """
        wanted = "such as http://localhost:8000/tinyunet or grpc://localhost:8001/tinyunet"
        try:
            parts: SplitResult = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise RefusedError(url, f"is no address of a model: {error}", wanted) from error
        model = parts.path.strip("/")
        if parts.scheme not in TRANSPORTS or not parts.hostname or not model or "/" in model:
            raise RefusedError(url, "is no address of a model", wanted)
        secure = parts.scheme.endswith("s")
        usual = 8001 if parts.scheme.startswith("grpc") else 443 if secure else 8000
        return cls(url, parts.hostname, port or usual, model, secure)


class HTTPTransport:
    """HTTP/1.1, images and scores as bytes: the protocol's binary tensor extension."""

    def __init__(self, address: _Address) -> None:
        self._address = address
        kind = http.client.HTTPSConnection if address.secure else http.client.HTTPConnection
        self._connection = kind(address.host, address.port, timeout=TIMEOUT_S)

    def server(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._answer("GET", "/v2")[0])
        return found

    def config(self) -> dict[str, Any]:
        where = f"/v2/models/{quote(self._address.model)}/config"
        found: dict[str, Any] = json.loads(self._answer("GET", where)[0])
        return found

    def infer(self, image: Batch) -> Batch:
        header = json.dumps(
            {
                "inputs": [
                    {
                        "name": INPUT_NAME,
                        "shape": image.shape,
                        "datatype": "UINT8",
                        "parameters": {"binary_data_size": image.nbytes},
                    }
                ],
                "outputs": [{"name": OUTPUT_NAME, "parameters": {"binary_data": True}}],
            }
        ).encode()
        body, length = self._answer(
            "POST",
            f"/v2/models/{quote(self._address.model)}/infer",
            header + image.tobytes(),
            {_HEADER_LENGTH: str(len(header)), "Content-Type": "application/octet-stream"},
        )
        (output,) = json.loads(body[:length])["outputs"]
        return np.frombuffer(body, np.uint8, offset=length).reshape(output["shape"])

    def close(self) -> None:
        self._connection.close()

    def _answer(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> tuple[bytes, int]:
        """Body of the answer, and how much of it is JSON."""
        for kept_alive in (self._connection.sock is not None, False):
            try:
                self._connection.request(method, path, body, headers or {})
                answer = self._connection.getresponse()
                data = answer.read()
                break
            except (OSError, http.client.HTTPException) as error:
                self._connection.close()
                if not kept_alive or isinstance(error, TimeoutError):
                    raise _no_answer(self._address, str(error) or type(error).__name__) from error
        if answer.status != 200:
            raise _refusal(self._address, data, refused=answer.status < 500)
        return data, int(answer.headers.get(_HEADER_LENGTH, len(data)))


class GRPCTransport:
    """gRPC, through NVIDIA's ``tritonclient``."""

    def __init__(self, address: _Address) -> None:
        try:
            self._grpc: Any = importlib.import_module("tritonclient.grpc")
            self._errors: Any = importlib.import_module("tritonclient.utils")
        except ImportError as error:
            raise RuntimeUnavailable(
                address.url,
                f"tritonclient cannot be imported: {error}",
                "pip install 'tinyunet-deploy[triton]', or take http://",
            ) from error
        self._address = address
        self._client = self._grpc.InferenceServerClient(
            f"{address.host}:{address.port}", ssl=address.secure
        )
        self._outputs = [self._grpc.InferRequestedOutput(OUTPUT_NAME)]

    def server(self) -> dict[str, Any]:
        found: dict[str, Any] = self._answer(self._client.get_server_metadata, as_json=True)
        return found

    def config(self) -> dict[str, Any]:
        name = self._address.model
        found: dict[str, Any] = self._answer(self._client.get_model_config, name, as_json=True)
        config: dict[str, Any] = found["config"]
        return config

    def infer(self, image: Batch) -> Batch:
        tensor = self._grpc.InferInput(INPUT_NAME, image.shape, "UINT8")
        tensor.set_data_from_numpy(image)
        name = self._address.model
        result = self._answer(self._client.infer, name, [tensor], outputs=self._outputs)
        score: Batch = result.as_numpy(OUTPUT_NAME)
        return score

    def close(self) -> None:
        self._client.close()

    def _answer(self, call: Any, *arguments: Any, **options: Any) -> Any:
        try:
            return call(*arguments, client_timeout=TIMEOUT_S, **options)
        except self._errors.InferenceServerException as error:
            status = str(error.status())
            if status.endswith(("UNAVAILABLE", "DEADLINE_EXCEEDED")):
                raise _no_answer(self._address, status) from error
            message = json.dumps({"error": error.message()}).encode()
            refused = status.endswith(("INVALID_ARGUMENT", "NOT_FOUND"))
            raise _refusal(self._address, message, refused=refused) from error


TRANSPORTS: Final[dict[str, Callable[[_Address], Transport]]] = {
    "grpc": GRPCTransport,
    "grpcs": GRPCTransport,
    "http": HTTPTransport,
    "https": HTTPTransport,
}
"""Scheme of the address -> what speaks it."""


class ServerBackend(Backend):
    """A model in a server, whose sidecar the server has.

    Args:
        url: ``scheme://host[:port]/model``, the scheme a key of :data:`TRANSPORTS`.

    Raises:
        RefusedError: no such address, no such model, or one without our sidecar.
        RuntimeUnavailable: the server does not answer.
    """

    name = "server"

    def __init__(self, url: str) -> None:
        self._address = _Address.parse(url)
        self._transports: deque[Transport] = deque()
        transport = self._connect()
        try:
            self._server = transport.server()
            sidecar = _served(url, transport.config())
        except BaseException:
            transport.close()
            raise
        self._transports.append(transport)
        super().__init__(Artifact(Path(url), b"", sidecar))
        self.device = "server"

    @property
    def versions(self) -> dict[str, str]:
        """Name -> version of the server."""
        return {str(self._server["name"]): str(self._server["version"])}

    def run_many(self, images: Iterable[Batch]) -> Iterator[Run]:
        """Score batches in their order, :data:`IN_FLIGHT` of them at a time."""
        running: deque[Future[Run]] = deque()
        with ThreadPoolExecutor(IN_FLIGHT, "request") as requests:
            for image in images:
                running.append(requests.submit(self.run, image))
                if len(running) == IN_FLIGHT:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()

    def _run(self, image: Batch) -> Run:
        transport = self._transports.pop() if self._transports else self._connect()
        try:
            started = time.perf_counter()
            score = transport.infer(image)
            seconds = time.perf_counter() - started
        finally:
            self._transports.append(transport)
        if score.dtype != np.uint8 or score.shape != image.shape:
            raise RefusedError(
                self._address.url, f"answers with {score.dtype} {list(score.shape)}", "rebuild it"
            )
        return Run(score, seconds * 1e3)

    def close(self) -> None:
        while self._transports:
            self._transports.pop().close()

    def _connect(self) -> Transport:
        return TRANSPORTS[urlsplit(self._address.url).scheme](self._address)


def _served(url: str, config: dict[str, Any]) -> Sidecar:
    """The sidecar in a model's configuration, with the largest batch that the server takes."""
    try:
        text = config["parameters"][SIDECAR]["string_value"]
    except KeyError:
        raise RefusedError(
            url, "has no sidecar, so nothing is known of it", "tinyunet triton MODEL -o ..."
        ) from None
    sidecar = parse_sidecar(text, url)
    contract = dataclasses.replace(sidecar.contract, max_batch=int(config["max_batch_size"]))
    return dataclasses.replace(sidecar, contract=contract)


def _no_answer(address: _Address, why: str) -> RuntimeUnavailable:
    return RuntimeUnavailable(address.url, f"does not answer: {why}", "is the server running?")


def _refusal(address: _Address, body: bytes, *, refused: bool) -> RefusedError | RuntimeUnavailable:
    """What a server says is wrong, with the request or with itself."""
    try:
        what = str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        what = body[:200].decode("utf-8", "replace") or "no reason given"
    error = RefusedError if refused else RuntimeUnavailable
    return error(address.url, f"the server says: {what}")
