from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from tinyunet_deploy.files import json_value
from tinyunet_deploy.quality.confidence import clopper_pearson_upper
from tinyunet_deploy.quality.repeatability.study import (
    Photograph,
    RepeatabilityStudy,
    RepeatedPart,
    Simulation,
)
from tinyunet_deploy.quality.scored_by import ScoredBy

BY = ScoredBy("m.onnx", "ab" * 32, "fp32", "openvino", "cpu")


def study(scores: dict[str, list[int]], **options: Any) -> RepeatabilityStudy:
    """A study of deciding scores at threshold 0.5, which is 128."""
    repeats = tuple(
        (f"r{number}", {"lamp": "old" if number < 2 else "new"})
        for number in range(max(map(len, scores.values())))
    )
    parts = tuple(
        RepeatedPart(
            name,
            tuple(
                Photograph(f"r{number}", score, 9, "NG" if score > 128 else "OK")
                for number, score in enumerate(values)
            ),
        )
        for name, values in scores.items()
    )
    return RepeatabilityStudy(BY, "photos", 0.5, 128, 8, repeats, parts, **options)


def test_the_figures_by_hand() -> None:
    made = study({"a": [0, 4, 2, 2], "b": [126, 130, 128, 128], "c": [250, 250, 250, 250]})
    assert (made.photographs, made.agreeing, [part.name for part in made.flips]) == (12, 2, ["b"])
    assert made.agreement == pytest.approx(2 / 3)
    assert made.agreement_lower == pytest.approx(1 - clopper_pearson_upper(1, 3))
    # squares within: 8 and 8 and 0, over 3 x 3 degrees of freedom
    assert made.repeatability_steps == pytest.approx(math.sqrt(16 / 9))
    assert [part.range_steps for part in made.parts] == [4, 4, 0]
    assert made.variance is not None
    (lamp,) = made.variance.conditions
    assert lamp.condition == "lamp"


def test_json_gives_the_study_again() -> None:
    for made in (
        study({"a": [0, 4, 2], "b": [126, 130]}, alone=("z",), skipped=("r1/x: no image",)),
        study({"a": [0, 4]}, simulation=Simulation(noise_grey=7)),
        study({"a": [0, 4]}).__class__(BY, "f", 0.5, 128, 8, (), ()),
    ):
        fields = json_value(made.as_fields())
        text = json.dumps(fields, allow_nan=False)
        assert RepeatabilityStudy.from_fields(json.loads(text)) == made
        assert fields["source"] == ("simulated" if made.simulation else "camera")


def test_other_json_is_refused() -> None:
    fields = study({"a": [0, 4]}).as_fields()
    part = {"name": "a", "photographs": [{"repeat": "r0", "verdict": "maybe"}]}
    for broken in ({**fields, "schema_version": 2}, {}, {**fields, "per_part": [part]}):
        with pytest.raises(ValueError, match=r"schema_version|not a repeatability study"):
            RepeatabilityStudy.from_fields(broken)


def test_only_complete_parts_split_the_variance() -> None:
    made = study({"a": [10, 14, 10, 14], "b": [50, 54, 50, 54], "c": [200, 100]})
    assert [part.name for part in made.complete] == ["a", "b"]
    assert made.variance is not None
    assert made.variance.error == pytest.approx(0)
    assert study({"a": [10, 14], "c": [200]}).variance is None


def test_the_bound_covers_the_true_agreement_as_often_as_it_claims() -> None:
    """500 studies of 60 parts, each with a known chance of both verdicts in five photographs."""
    random = np.random.default_rng(3)
    chances = random.beta(0.05, 0.2, 4000)
    truth = float(np.mean(chances**5 + (1 - chances) ** 5))
    covered = 0
    for _ in range(500):
        part = random.choice(chances, 60)
        rejected = random.random((60, 5)) < part[:, None]
        made = study({str(n): [255 * bool(ng) for ng in row] for n, row in enumerate(rejected)})
        covered += made.agreement_lower <= truth
    # an exact bound covers 95 % at least; less by chance alone once in ten thousand
    assert covered / 500 > 0.95 - 4 * (0.95 * 0.05 / 500) ** 0.5
    assert 0.5 < truth < 0.99
