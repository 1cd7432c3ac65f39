"""Contract tests that every backend must pass, including backends of other packages.

They need pytest. Subclass :class:`BackendContract` and provide the loaded backend::

    class TestMine(BackendContract):
        @pytest.fixture
        def backend(self):
            with open_backend(Path("small.onnx"), MyBackend) as backend:
                yield backend

The model's scores must depend on the image; otherwise the tests cannot detect a mixed-up batch.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest

from tinyunet_deploy.backends.base import Backend
from tinyunet_deploy.backends.device_name import device_type
from tinyunet_deploy.contract import Batch

__all__ = ["BackendContract"]


class BackendContract:
    """Tests of one loaded backend, which a subclass provides as the fixture ``backend``."""

    steps = 1
    """Largest change of a score when the other images of its batch change, in steps of 1/255."""

    @pytest.fixture
    def backend(self) -> Iterator[Backend]:
        """Load the backend; a subclass must define it."""
        raise NotImplementedError("a subclass defines the fixture backend")

    @pytest.fixture
    def images(self, backend: Backend) -> Batch:
        """Return noise, a gradient, a black and a white image, or fewer for a small batch."""
        height, width = backend.contract.height, backend.contract.width
        batch = np.random.default_rng(1).integers(0, 256, (4, 1, height, width), dtype=np.uint8)
        batch[0] = np.linspace(0, 255, width).astype(np.uint8)
        batch[2], batch[3] = 0, 255
        count = max(backend.batch_size(4), backend.min_batch)
        return batch[np.arange(count) % 4]

    def assert_near(self, scores: Batch, expected: Batch) -> None:
        """Assert that scores differ by at most :attr:`steps`."""
        assert int(np.abs(scores.astype(int) - expected).max()) <= self.steps

    def test_it_names_itself_its_device_and_its_versions(self, backend: Backend) -> None:
        assert backend.name
        device_type(backend.device)
        assert all(isinstance(text, str) for pair in backend.versions.items() for text in pair)
        assert backend.synchronization

    def test_a_batch_gets_one_score_for_each_pixel(self, backend: Backend, images: Batch) -> None:
        run = backend.run(images)
        assert run.score.dtype == np.uint8
        assert run.score.shape == images.shape
        assert min(run.device_ms, run.copy_in_ms, run.copy_out_ms) >= 0

    def test_the_score_depends_on_the_image(self, backend: Backend, images: Batch) -> None:
        score = backend.run(images).score
        assert any(not np.array_equal(score[0], other) for other in score[1:]) or len(score) == 1

    def test_the_batch_changes_no_score(self, backend: Backend, images: Batch) -> None:
        self.assert_near(backend.score_alone(images), backend.run(images).score)

    def test_the_place_in_the_batch_changes_no_score(self, backend: Backend, images: Batch) -> None:
        expected = backend.run(images).score[::-1]
        self.assert_near(backend.run(images[::-1]).score, expected)

    def test_a_score_stays_when_the_next_one_comes(self, backend: Backend, images: Batch) -> None:
        first = backend.run(images).score
        kept = first.copy()
        backend.run(255 - images)
        assert np.array_equal(first, kept)

    def test_many_batches_are_scored_in_their_order(self, backend: Backend, images: Batch) -> None:
        batches = [images, images[::-1], 255 - images, images]
        runs = list(backend.run_many(iter(batches)))
        for run, batch in zip(runs, batches, strict=True):
            self.assert_near(run.score, backend.run(batch).score)

    def test_many_batches_may_be_left_unfinished(self, backend: Backend, images: Batch) -> None:
        runs = iter(backend.run_many(images for _ in range(4)))
        first = next(runs).score
        del runs
        self.assert_near(first, backend.run(images).score)

    def test_memory_is_used_for_scores_only_while_it_is_given(
        self, backend: Backend, images: Batch
    ) -> None:
        given: list[Batch] = []

        def memory(batch: Batch) -> Batch:
            given.append(np.empty_like(batch))
            return given[-1]

        batches = [images, 255 - images]
        with backend.scores_into(memory):
            runs = list(backend.run_many(iter(batches)))
        used = len(given)
        for run, batch in zip(runs, batches, strict=True):
            self.assert_near(run.score, backend.run(batch).score)
        for run, scores in zip(runs, given, strict=False):  # a runtime may need its own memory
            assert np.shares_memory(run.score, scores)
        assert len(given) == used

    def test_the_image_is_not_changed(self, backend: Backend, images: Batch) -> None:
        given = images.copy()
        backend.run(given)
        assert np.array_equal(given, images)

    def test_memory_of_any_layout_is_read(self, backend: Backend, images: Batch) -> None:
        wide = np.repeat(images, 2, axis=3)
        wide[..., 1::2] = 0
        self.assert_near(backend.run(wide[..., ::2]).score, backend.run(images).score)

    def test_any_thread_may_call(self, backend: Backend, images: Batch) -> None:
        scores: list[Batch] = []
        thread = threading.Thread(target=lambda: scores.append(backend.run(images).score))
        thread.start()
        thread.join()
        self.assert_near(scores[0], backend.run(images).score)

    def test_what_breaks_the_contract_is_a_value_error(
        self, backend: Backend, images: Batch
    ) -> None:
        wrong = [
            images.astype(np.float32),
            images[:, 0],
            images[:0],
            np.repeat(images, 3, axis=1),
            np.repeat(images, 2, axis=3),
        ]
        if backend.max_batch is not None:
            wrong.append(np.repeat(images[:1], backend.max_batch + 1, axis=0))
        for batch in wrong:
            with pytest.raises(ValueError, match=r"expected .*, got "):
                backend.run(batch)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"expected .*, got "):
            list(backend.run_many([images, images[:, 0]]))
