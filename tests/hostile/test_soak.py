"""Many images: neither memory nor descriptors grow, and a folder costs its names."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from tests.conftest import REPOSITORY
from tests.faults import record
from tinyunet_deploy.data.encoding import write_png
from tinyunet_deploy.inspection.run_report import Report, read_report

IMAGES = int(os.environ.get("SOAK_IMAGES", "100000"))
WARM_UP = 0.2
"""Share of the run after which growth counts: pools and arenas are filled by then."""
MOST_MB_PER_10_MINUTES = 10.0


class Sample(NamedTuple):
    seconds: float
    resident_mb: float
    descriptors: int


def sample(pid: int, started: float) -> Sample:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    resident_mb = pages * os.sysconf("SC_PAGESIZE") / 2**20
    descriptors = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return Sample(time.monotonic() - started, resident_mb, descriptors)


@pytest.mark.nightly
def test_memory_and_descriptors_stay_over_many_images(tiny_onnx: Path, tmp_path: Path) -> None:
    """Hard links to ten images through the tiny network, in folders of a thousand."""
    random = np.random.default_rng(0)
    for number in range(10):
        write_png(tmp_path / f"{number}.png", random.integers(0, 255, (64, 64), np.uint8))
    for number in range(IMAGES):
        folder = tmp_path / "station" / f"{number // 1000:03}"
        folder.mkdir(parents=True, exist_ok=True)
        os.link(tmp_path / f"{number % 10}.png", folder / f"{number % 1000:03}.png")
    entry = "from tinyunet_deploy.cli import infer_main; infer_main()"
    command = [sys.executable, "-c", entry, tmp_path / "station", "-o", tmp_path / "out"]
    command += ["-m", tiny_onnx, "--backend", "onnxruntime", "--threshold", "0.55"]
    samples = []
    started = time.monotonic()
    report = tmp_path / "out" / "report.jsonl"
    first_s = None
    with subprocess.Popen(
        command, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, stderr=subprocess.DEVNULL
    ) as process:
        while process.poll() is None:
            if first_s is None and report.exists() and report.stat().st_size:
                first_s = time.monotonic() - started
            if first_s is not None:
                samples.append(sample(process.pid, started))
            time.sleep(0.1)
    assert process.returncode == 0
    _, summary = read_report(report)
    assert summary is not None
    assert summary.inspected == IMAGES
    warm = [one for one in samples[:-2] if one.seconds > WARM_UP * samples[-1].seconds]
    seconds, resident = np.array([one[:2] for one in warm]).T
    growth_mb = float(np.polyfit(seconds, resident, 1)[0]) * 600
    descriptors = [one.descriptors for one in warm]
    assert first_s is not None
    record(
        "soak",
        {
            "images": IMAGES,
            "seconds": round(samples[-1].seconds, 1),
            "first_result_s": round(first_s, 2),
            "peak_resident_mb": round(float(resident.max()), 1),
            "rise_over_run_mb": round(float(resident[-10:].mean() - resident[:10].mean()), 2),
            "growth_mb_per_10_minutes": round(growth_mb, 2),
            "descriptors_first": max(descriptors[:50]),
            "descriptors_last": max(descriptors[-50:]),
        },
    )
    assert growth_mb < MOST_MB_PER_10_MINUTES
    assert max(descriptors[-50:]) <= max(descriptors[:50])


FOLDER = """
import sys, tracemalloc
from pathlib import Path
from tinyunet_deploy.inspection.walk import walk_images

tracemalloc.start()
walk = walk_images([Path(sys.argv[1])])
print(next(walk).name, tracemalloc.get_traced_memory()[1])
print(sum(1 for _ in walk), tracemalloc.get_traced_memory()[1])
"""


def test_a_folder_costs_its_names(tmp_path: Path) -> None:
    """Some 160 bytes a name, nothing else per image, and no look at the files.

    In a process of its own: Python keeps one table of all parts of paths.
    """
    count = 20_000
    (tmp_path / "station").mkdir()
    (tmp_path / "one").touch()
    for number in range(count):
        os.link(tmp_path / "one", tmp_path / "station" / f"{number:06}.png")
    walk = subprocess.run(
        [sys.executable, "-c", FOLDER, tmp_path / "station"],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    first, first_peak, rest, peak = walk.stdout.split()
    assert first == "000000.png"
    assert int(first_peak) < 100 * count + 200_000
    assert int(rest) == count - 1
    assert int(peak) < 180 * count + 200_000


def test_taking_up_a_long_report_costs_its_names(tmp_path: Path) -> None:
    """And no file is looked at: there are none."""
    count, options = 1500, {"threshold": 0.5}
    defects = [{"bbox": [1, 2, 3, 4], "area_px": 5, "max_score": 200}] * 20
    with Report(tmp_path, options) as report:
        for number in range(count):
            name = f"{number:06}.png"
            line = {"path": name, "status": "inspected", "verdict": "NG", "max_score": 9}
            report.add({**line, "defects": defects})
    size = (tmp_path / "report.jsonl").stat().st_size
    tracemalloc.start()
    try:
        with Report(tmp_path, options) as report:
            assert "001499.png" in report
            assert report.summary.inspected == count
            report.finish()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 300 * count + 200_000 < size / 2
