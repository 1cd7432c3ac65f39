from __future__ import annotations

import numpy as np

from tinyunet_deploy.quality.stored_scores import StoredScores


def test_scores_come_back_in_any_order_and_size() -> None:
    random = np.random.default_rng(0)
    scores = [
        random.integers(0, 256, shape, dtype=np.uint8) for shape in [(16, 16), (48, 32), (16, 64)]
    ]
    with StoredScores() as stored:
        stored.append(scores[0])
        assert (stored[0] == scores[0]).all()
        for score in scores[1:]:
            stored.append(score)
        assert len(stored) == 3
        for index in (2, 0, 1, 1):
            assert stored[index].shape == scores[index].shape
            assert (stored[index] == scores[index]).all()
