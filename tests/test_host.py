from __future__ import annotations

import math
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


@pytest.mark.parametrize(
    ("own", "limits", "processors", "memory_bytes"),
    [
        ("0::/\n", {"cpu.max": "150000 100000\n", "memory.max": "1073741824\n"}, 1.5, 1 << 30),
        ("0::/\n", {"cpu.max": "max 100000\n", "memory.max": "max\n"}, math.inf, None),
        (
            "3:cpu:/x\n0::/pod/box\n",
            {"pod/cpu.max": "50000 100000", "pod/box/cpu.max": "max 100000", "memory.max": "9"},
            0.5,
            9,
        ),
        *(  # the strictest of all groups counts, the inner or an outer one
            (
                "0::/pod/box\n",
                {
                    f"{first}/cpu.max": "50000 100000",
                    f"{second}/cpu.max": "400000 100000",
                    f"{first}/memory.max": "9",
                    f"{second}/memory.max": "99",
                },
                0.5,
                9,
            )
            for first, second in (("pod", "pod/box"), ("pod/box", "pod"))
        ),
        ("0::/../other\n", {"cpu.max": "200000 100000"}, 2.0, None),
        ("3:cpu:/x\n", {"cpu.max": "1 1"}, math.inf, None),
        ("0::/\n", {"cpu.max": "nonsense"}, math.inf, None),
        ("", {}, math.inf, None),
    ],
)
def test_the_quota_of_a_container_counts(
    tmp_path: Path, own: str, limits: dict[str, str], processors: float, memory_bytes: int | None
) -> None:
    texts = {f"sys/fs/cgroup/{name}": text for name, text in limits.items()}
    for name, text in {"proc/self/cgroup": own, **texts}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert host.container_limits(tmp_path) == (processors, memory_bytes)


def test_a_part_of_a_processor_counts_as_one(
    files: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for granted, count in ((0.2, 1), (1.2, 2), (7.0, 2)):
        limits = host.ContainerLimits(granted, 1 << 30)
        monkeypatch.setattr(host, "container_limits", lambda limits=limits: limits)
        assert host.processor_count() == count
        assert host.describe_machine()["memory_gib"] == 1.0
