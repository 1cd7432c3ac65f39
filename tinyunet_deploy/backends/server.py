"""A model that runs on an inference server, reached by the KServe v2 protocol.

The server is Triton, or another that has Triton's model configuration extension: the client reads
the sidecar that ``tinyunet triton`` put into the model repository, and needs no file of its own.
HTTP needs no package; gRPC needs ``tritonclient``.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from tinyunet_deploy.artifacts.sidecar import Artifact
from tinyunet_deploy.backends.base import Backend, Run
from tinyunet_deploy.backends.server_transport import TRANSPORTS, Address, Transport
from tinyunet_deploy.contract import Batch
from tinyunet_deploy.errors import ArtifactError

__all__ = ["IN_FLIGHT", "ServerBackend"]

IN_FLIGHT: Final = 2
"""Requests at a time: one computes while the other travels."""


class ServerBackend(Backend):
    """A model on a server, which also has the model's sidecar.

    Args:
        url: ``scheme://host[:port]/model``, the scheme a key of ``TRANSPORTS``.

    Raises:
        RefusedError: the address, the model or its sidecar is unusable, or the server's answers
            break the protocol.
        RuntimeUnavailable: the server does not answer.
    """

    name = "server"

    def __init__(self, url: str) -> None:
        self._address = Address.parse(url)
        self._transports: deque[Transport] = deque()
        transport = self._connect()
        try:
            self._versions = transport.server()
            sidecar = self._address.protocol.served(transport.config())
        except BaseException:
            transport.close()
            raise
        self._transports.append(transport)
        super().__init__(Artifact(Path(url), b"", sidecar))
        self.device = "server"

    @property
    def versions(self) -> dict[str, str]:
        """Name -> version of the server."""
        return self._versions

    def run_many(self, images: Iterable[Batch]) -> Iterator[Run]:
        """Score batches in their order, :data:`IN_FLIGHT` of them at a time.

        Raises:
            ArtifactError: the server runs another model at the end than at the start.
        """
        running: deque[Future[Run]] = deque()
        with ThreadPoolExecutor(IN_FLIGHT, "request") as requests:
            for image in images:
                running.append(requests.submit(self.run, image))
                if len(running) == IN_FLIGHT:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        self.check_model()

    def check_model(self) -> None:
        """Read the model's hash again.

        Raises:
            ArtifactError: the server runs another model than when this backend was opened.
        """
        with self._transport() as transport:
            sidecar = self._address.protocol.served(transport.config())
        if sidecar != self.artifact.sidecar:
            raise ArtifactError(
                self._address.url,
                f"serves model {sidecar.sha256[:12]} now, "
                f"but served {self.artifact.sidecar.sha256[:12]} at the start",
                "the scores since then are in doubt: inspect these images again with another -o",
            )

    def _run(self, image: Batch) -> Run:
        with self._transport() as transport:
            started = time.perf_counter()
            score = transport.infer(image)
            seconds = time.perf_counter() - started
        return Run(score, seconds * 1e3)

    def close(self) -> None:
        """Close all connections."""
        while self._transports:
            self._transports.pop().close()

    @contextlib.contextmanager
    def _transport(self) -> Iterator[Transport]:
        """Lend a connection that no other thread uses; it is kept for the next request."""
        transport = self._transports.pop() if self._transports else self._connect()
        try:
            yield transport
        finally:
            self._transports.append(transport)

    def _connect(self) -> Transport:
        return TRANSPORTS[urlsplit(self._address.url).scheme](self._address)
