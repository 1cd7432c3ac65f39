"""A backend without a model, for tests."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from tinyunet_deploy.artifacts.facts import NetworkFacts
from tinyunet_deploy.artifacts.sidecar import Artifact, Sidecar, digest
from tinyunet_deploy.backends.base import Backend, Run
from tinyunet_deploy.contract import Batch, Contract


class FakeBackend(Backend):
    """A backend whose scores come from a function of the test.

    Args:
        score: uint8 [N, 1, H, W] images -> uint8 [N, 1, H, W] scores; None returns the images, so
            that bright pixels are defects.
        contract: image size, and largest batch.
        threshold: probability above which a pixel is a defect, of the sidecar.
        min_area: smallest defect of the sidecar, pixels.
        delay_s: duration of a call, seconds.
        network: facts of the network; those of ``tiny`` if None.
    """

    name = "fake"

    def __init__(
        self,
        score: Callable[[Batch], Batch] | None = None,
        *,
        contract: Contract | None = None,
        threshold: float = 0.5,
        min_area: int = 1,
        delay_s: float = 0.0,
        network: NetworkFacts | None = None,
    ) -> None:
        sidecar = Sidecar(
            kind="onnx",
            precision="fp32",
            sha256=digest(b""),
            parent=None,
            contract=contract or Contract(),
            threshold=threshold,
            min_area=min_area,
            network=network or NetworkFacts.of("tiny"),
        )
        super().__init__(Artifact(Path("fake.onnx"), b"", sidecar))
        self._score = score or (lambda image: image.copy())
        self._delay_s = delay_s
        self.batches: list[int] = []
        """Sizes of the batches that were run."""

    @property
    def versions(self) -> dict[str, str]:
        """Empty mapping, as no package computes the scores."""
        return {}

    def _run(self, image: Batch) -> Run:
        started = time.perf_counter()
        time.sleep(self._delay_s)
        self.batches.append(len(image))
        return Run(self._score(image), (time.perf_counter() - started) * 1e3)
