from __future__ import annotations

import json

import pytest

from benchmarks.peer_programs import read_benchmark_app, read_trtexec
from tinyunet_deploy.errors import RuntimeUnavailable


def test_a_program_that_measured_nothing_says_why() -> None:
    report = json.dumps({"execution_results": {"error": "Numpy array shape mismatch"}})
    with pytest.raises(RuntimeUnavailable, match="Numpy array shape mismatch"):
        read_benchmark_app(report)


def test_times_of_trtexec_are_its_latencies() -> None:
    text = '[{"startInputUs": 1, "latencyMs": 2.5}, {"startInputUs": 9, "latencyMs": 2.25}]'
    assert read_trtexec(text)["samples_ms"] == [2.5, 2.25]
