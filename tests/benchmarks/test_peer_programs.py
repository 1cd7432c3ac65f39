from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.example_engine import example_files
from benchmarks.peer_programs import read_benchmark_app, read_trtexec
from benchmarks.peers import time_cell
from tinyunet_deploy.errors import RuntimeUnavailable

STAND_IN = '''#!/usr/bin/env python3
"""Takes the options of trtexec {release}, and copies only where that release would."""
import json, sys
words = dict(word.partition("=")[::2] for word in sys.argv[1:])
known = {{"--loadEngine", "--shapes", "--loadInputs", "--iterations", "--duration", "--exportTimes",
         "--help"}}
new = {release} == 11
known |= {{"--includeDataTransfers"}} if new else {{"--useCudaGraph", "--useSpinWait"}}
if set(words) - known:
    print("[E] Unknown option:", *(set(words) - known), file=sys.stderr)
    sys.exit(1)
if "--help" in words:
    print("  --includeDataTransfers  Enable transfers" if new else "  --noDataTransfers")
    sys.exit(0)
print("&&&& RUNNING TensorRT.trtexec [TensorRT v{version}] [b106] # trtexec")
if {capture_fails}:
    print("[W] CUDA graph capture failed. The inference will be launched without it.")
h2d = 0.25 if not new or "--includeDataTransfers" in words else 0.0
keys = ("startEnqMs", "endEnqMs", "h2dMs", "computeMs", "d2hMs", "latencyMs")
call = dict(zip(keys, (0.0, 0.1, h2d, 1.0, h2d, 1.0 + 2 * h2d)))
with open(words["--exportTimes"], "w") as file:
    json.dump([call] * int(words["--iterations"]), file)
'''


def put_stand_in(folder: Path, release: int, version: str, *, capture_fails: bool = False) -> None:
    program = folder / "trtexec"
    text = STAND_IN.format(release=release, version=version, capture_fails=capture_fails)
    program.write_text(text)
    program.chmod(0o755)


def test_a_program_that_measured_nothing_says_why() -> None:
    report = json.dumps({"execution_results": {"error": "Numpy array shape mismatch"}})
    with pytest.raises(RuntimeUnavailable, match="Numpy array shape mismatch"):
        read_benchmark_app(report)


@pytest.mark.parametrize(
    ("release", "version", "words"),
    [(10, "101601", "of TensorRT 10.16.1"), (11, "110400", "of TensorRT 11.4.0")],
)
@pytest.mark.parametrize("capture_fails", [False, True])
def test_trtexec_of_each_release_copies_and_names_its_boundary(
    release: int,
    version: str,
    words: str,
    capture_fails: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    put_stand_in(tmp_path, release, version, capture_fails=capture_fails)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    images = np.zeros((2, 1, 64, 64), np.uint8)
    plan = tmp_path / "a.plan"
    measured, scores = time_cell("trtexec", plan, images, batch=2, repetitions=3, warm_up=1)
    assert scores is None
    assert measured["samples_ms"] == [1.5] * 3
    assert words in measured["boundary"] and "copy in, compute, copy out" in measured["boundary"]
    assert "spin wait" in measured["boundary"]
    assert ("no CUDA graph" in measured["boundary"]) is capture_fails


def test_times_without_copies_are_never_called_times_with_them() -> None:
    assert read_trtexec(example_files("fp16", "10").times, "")["samples_ms"]
    with pytest.raises(RuntimeUnavailable, match="copied neither images nor scores"):
        read_trtexec(example_files("fp16", "11").times, "")
    with pytest.raises(RuntimeUnavailable, match="exported no times"):
        read_trtexec("[]", "")
