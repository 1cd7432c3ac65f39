"""Mutated files of every family, and the files that once failed."""

from __future__ import annotations

import random
import signal
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.hostile.mutate import FAMILIES, Worker, mutated, run_family, small_graph
from tinyunet_deploy.artifacts.onnx_guard import check_onnx_file
from tinyunet_deploy.errors import ArtifactError, DataError
from tinyunet_deploy.quality.parity_limits import read_limits
from training.recipe import read_recipe

FAILURES = Path(__file__).resolve().parent / "failures"
CASES = 300


@pytest.mark.parametrize("family", FAMILIES)
def test_mutated_files_are_used_or_refused_in_one_line(family: str) -> None:
    found = run_family(family, range(CASES))
    assert found["failed"] == {}
    assert found["cases"] >= CASES
    assert len(found["outcomes"]) > 1, "some are usable, some are not"


def test_a_case_that_kills_or_hangs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Worker("recipes")
    try:
        assert worker.run(0).startswith(("read", "refused"))
        assert worker.process is not None
        worker.process.send_signal(signal.SIGSTOP)
        threading.Timer(0.3, worker.process.kill).start()
        assert worker.run(1) == "died -9"
        assert worker.run(2).startswith(("read", "refused")), "it is started again"
        monkeypatch.setattr("tests.hostile.mutate.HANG_S", 0.3)
        worker.process.send_signal(signal.SIGSTOP)
        assert worker.run(3) == "hung"
    finally:
        worker.close()


def test_a_mutation_is_known_by_its_seed() -> None:
    data = bytes(range(200))
    assert mutated(data, random.Random(7)) == mutated(data, random.Random(7))
    assert len({mutated(data, random.Random(seed)) for seed in range(50)}) > 40


@pytest.mark.parametrize("path", sorted(FAILURES.iterdir()), ids=lambda path: path.name)
def test_past_failures_stay_mended(path: Path) -> None:
    read = read_limits if path.name.endswith(".limits.toml") else read_recipe
    with pytest.raises(DataError, match="valid") as caught:
        read(path if read is read_limits else str(path))  # type: ignore[operator]
    assert "\n" not in str(caught.value)


SMALL = small_graph().SerializeToString(deterministic=True)


@given(st.binary(max_size=100))
def test_junk_is_no_onnx_file(junk: bytes) -> None:
    with pytest.raises(ArtifactError, match=r"^x\.onnx: is not a usable ONNX file: "):
        check_onnx_file(junk, Path("x.onnx"))


@given(at=st.integers(0, len(SMALL) - 1), value=st.integers(0, 255))
def test_a_changed_byte_of_an_onnx_file_is_accepted_or_refused(at: int, value: int) -> None:
    try:
        contract = check_onnx_file(SMALL[:at] + bytes([value]) + SMALL[at + 1 :], Path("x.onnx"))
    except ArtifactError:
        return
    assert contract.height >= 1 <= contract.width
