"""Times of layers: read from trtexec's files, made of samples, written again."""

import json
import math

import pytest

from benchmarks.example_engine import example_files
from tinyunet_deploy.backends.layer_profiler import LayerTimes
from tinyunet_deploy.speed.engine.layer_profile import parse_profile, profile_json, profile_of


def test_samples_become_medians_percentiles_and_shares() -> None:
    samples = tuple(float(value) for value in range(1, 201))
    profile = profile_of([LayerTimes("a", samples), LayerTimes("b", (1.0,) * 200)])
    first, second = profile.layers
    assert (profile.calls, first.median_ms, first.p99_ms) == (200, 100.5, 198.0)
    assert (first.total_ms, second.mean_ms) == (20100.0, 1.0)
    written = json.loads(profile_json(profile))
    assert written[0] == {"count": 200}
    assert written[1]["percentage"] == pytest.approx(100 * 20100 / 20300)


def test_trtexecs_file_is_read_and_written_the_same() -> None:
    text = example_files("fp16", "10").profile
    profile = parse_profile(text)
    assert profile.calls == 100
    assert all(math.isnan(time.p99_ms) for time in profile.layers)  # it exports no samples
    written, original = json.loads(profile_json(profile)), json.loads(text)
    assert [set(entry) for entry in written] == [set(entry) for entry in original]
    for ours, theirs in zip(written[1:], original[1:], strict=True):
        assert ours["name"] == theirs["name"]
        assert ours["percentage"] == pytest.approx(theirs["percentage"])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{}", "expected a list"),
        ("[]", "no layer times"),
        ('[{"count": 0}]', "not a number of calls"),
        ('[{"count": 5}]', "no layer times"),
        ("[{}]", "has no name"),
        ('[{"name": "a", "timeMs": 1, "averageMs": -1, "medianMs": 1}]', "averageMs of layer 'a'"),
        ('[{"name": "a", "timeMs": 1, "averageMs": 1}]', "medianMs of layer 'a'"),
        ('[{"name": "a", "timeMs": true, "averageMs": 1, "medianMs": 1}]', "timeMs"),
        ('[{"name": "a", "percentage": -nan}]', "Expecting value"),
    ],
)
def test_other_files_are_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_profile(text)
