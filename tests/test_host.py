from __future__ import annotations

import os
from pathlib import Path

import pytest

from tinyunet_deploy import host

CPUINFO = """\
processor\t: 0
model name\t: Example 9000
cpu MHz\t\t: 2100.000
flags\t\t: fpu avx512_vnni amx_int8

processor\t: 1
model name\t: Example 9000
cpu MHz\t\t: 3500.500

processor\t: 12
model name\t: Example 9000
cpu MHz\t\t: 900.25
"""


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What the system says in its files; a file that is not listed cannot be read."""
    texts = {"/proc/cpuinfo": CPUINFO}

    def read_text(path: Path) -> str:
        if str(path) not in texts:
            raise FileNotFoundError(path)
        return texts[str(path)]

    monkeypatch.setattr(Path, "read_text", read_text)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: {12, 1})
    return texts


def test_only_the_processors_of_this_process_count(files: dict[str, str]) -> None:
    assert host.processors() == (1, 12)
    assert host.processor_count() == host.describe_machine()["processors"] == 2
    assert host.processor_mhz() == (3500.5, 900.25)


def test_throttling_is_summed_over_them(files: dict[str, str]) -> None:
    assert host.processor_throttle_count() is None
    for number, count in ((0, 100), (1, 3), (12, 4)):
        name = f"/sys/devices/system/cpu/cpu{number}/thermal_throttle/core_throttle_count"
        files[name] = f"{count}\n"
    assert host.processor_throttle_count() == 7


def test_the_processor_is_named_with_the_instructions_that_speed_depends_on(
    files: dict[str, str],
) -> None:
    assert host.describe_machine()["processor"] == "Example 9000 avx512_vnni amx_int8"


def test_a_system_without_these_files_is_described_all_the_same(files: dict[str, str]) -> None:
    files.clear()
    assert host.processor_mhz() == ()
    assert host.describe_machine()["processor"]
