"""Times of trtexec's calls, with copies as in TensorRT 10 and without as in 11."""

import json

import pytest

from benchmarks.example_engine import example_files
from tinyunet_deploy.speed.engine.layer_info import Form
from tinyunet_deploy.speed.engine.trtexec_times import parse_trtexec_times


@pytest.mark.parametrize(("form", "transfers"), [("10", True), ("11", False)])
def test_it_sees_whether_anything_was_copied(form: Form, transfers: bool) -> None:
    times = parse_trtexec_times(example_files("fp16", form).times)
    assert times.transfers is transfers
    assert len(times.compute.samples_ms) == 100
    assert times.enqueue.samples_ms[3] == pytest.approx(0.2)
    parts = (times.copy_in, times.compute, times.copy_out)
    total = sum(part.samples_ms[5] for part in parts)
    assert times.latency.samples_ms[5] == pytest.approx(total)


@pytest.mark.parametrize("key", ["startEnqMs", "computeMs", "h2dMs", "latencyMs"])
def test_a_call_without_a_time_is_refused(key: str) -> None:
    calls = json.loads(example_files("fp16", "10").times)
    del calls[4][key]
    with pytest.raises(ValueError, match=f"call 4 has no {key}"):
        parse_trtexec_times(json.dumps(calls))
    calls[4][key] = -1e9
    if key != "startEnqMs":
        with pytest.raises(ValueError, match="call 4 has a negative time"):
            parse_trtexec_times(json.dumps(calls))


def test_no_calls_are_refused() -> None:
    with pytest.raises(ValueError, match="expected a list of 1 to"):
        parse_trtexec_times("[]")
