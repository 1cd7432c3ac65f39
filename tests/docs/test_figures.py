"""The figures of README.md and docs/ are those of benchmarks/results."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from benchmarks.capacity import ASSUMED, WORKLOADS, Workload, needs, read_rates
from benchmarks.options import RESULTS
from benchmarks.page_tables.__main__ import TABLES, pages, render


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.stem)
def test_the_tables_of_a_page_are_those_of_the_results(page: Path) -> None:
    text = page.read_text()
    assert render(text) == text, "run: python -m benchmarks.page_tables"


def test_every_table_is_shown_and_none_is_left_open() -> None:
    shown = [
        name
        for page in pages()
        for name in re.findall(
            r"<!-- table: ([\w-]+) -->\n\|.*?<!-- /table -->", page.read_text(), re.DOTALL
        )
    ]
    assert set(shown) == set(TABLES)


def test_a_changed_figure_is_put_right() -> None:
    page = "before\n\n<!-- table: server -->\n| 9.99 |\n<!-- /table -->\nafter\n"
    made = render(page)
    assert "9.99" not in made
    ratio = json.loads((RESULTS / "server.json").read_text())["ratio_median"]
    assert f"| {ratio:.2f} |" in made
    assert made.startswith("before\n")
    assert made.endswith("<!-- /table -->\nafter\n")


def test_the_accuracy_of_the_table_is_that_of_the_evaluation() -> None:
    """Counted again from the images, apart from the code that makes the table."""
    evaluation = json.loads((RESULTS / "class1-test-openvino.json").read_text())
    shares = []
    for image in evaluation["per_image"]:
        if image["defective"]:
            inside = image["intersection_px"]["0.9"]
            shares.append(inside / (image["predicted_px"]["0.9"] + image["truth_px"] - inside))
    escapes = sum(i["defective"] and i["verdict"] == "OK" for i in evaluation["per_image"])
    row = TABLES["accuracy"]()[1]
    assert row[2].startswith(f"{sum(shares) / len(shares):.3f} (")
    low, high = map(float, re.findall(r"\((\S+) to (\S+)\)", row[2])[0])
    assert low < sum(shares) / len(shares) < high
    assert row[3].startswith(f"{escapes} / {len(shares)},")


def test_the_stored_capacity_is_that_of_the_stored_results() -> None:
    stored = json.loads((RESULTS / "capacity.json").read_text())
    rates = read_rates(RESULTS)
    assert stored["rates"] == rates._asdict()
    assert stored["workloads"] == [needs(workload, rates, ASSUMED) for workload in WORKLOADS]


def test_a_need_grows_with_the_load_and_names_its_bound() -> None:
    rates = read_rates(RESULTS)._replace(processor_images_per_s=10.0, ray_cost=1.0)
    assumed = {**ASSUMED, "load": 0.5, "disk_mb_per_s": 1e9, "file_operations_per_s": 100}
    one = needs(Workload("one", 4, None, 1), rates, assumed)
    many = needs(Workload("many", 40, None, 10), rates, assumed)
    assert (one["processors"], many["processors"]) == (1, 10)
    together = needs(Workload("together", 40, None, 0), rates, assumed)
    assert (together["processors"], together["nodes"]) == (8, 1)
    assert together["bound"] == "file operations of one file server"
    assert together["file_servers"] == 2
    archive = needs(Workload("archive", 1000, 100, 0), rates, assumed)
    assert (archive["processors"], archive["bound"]) == (1, "processors")
