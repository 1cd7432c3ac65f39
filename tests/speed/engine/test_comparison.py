"""Two engines side by side."""

import dataclasses

from benchmarks.example_engine import example_report
from tinyunet_deploy.speed.engine.comparison import compare
from tinyunet_deploy.speed.engine.report import EngineReport


def scaled(report: EngineReport, factor: float, *, copies: float = 1.0) -> EngineReport:
    rows = tuple(
        dataclasses.replace(row, median_ms=row.median_ms * (copies if row.copy else factor))
        for row in report.layers
    )
    return dataclasses.replace(report, layers=rows, calls=(), build=None)


def texts(first: EngineReport, second: EngineReport) -> dict[str, str]:
    return {finding.rule: finding.text for finding in compare(first, second).findings()}


def test_layers_line_up_by_the_names_of_the_network() -> None:
    fp16, int8 = example_report("fp16").report, example_report("int8", "10").report
    comparison = compare(fp16, int8)
    names = [layer.name for layer in comparison.layers]
    assert len(names) == 23 and len(set(names)) == 23  # however many copies each engine has
    assert all(layer.first and layer.second for layer in comparison.layers)
    without = dataclasses.replace(int8, layers=int8.layers[:-3])
    last = compare(fp16, without).layers[-1]
    assert last.second is None and last.change_ms == -last.first.median_ms  # type: ignore[union-attr]


def test_it_says_how_much_faster_and_what_copies_eat() -> None:
    fp16, int8 = example_report("fp16").report, example_report("int8").report
    halved = scaled(fp16, 0.5)
    assert "it is 1.98 times as fast." in texts(scaled(fp16, 1.0), halved)["total"]  # copies stay
    assert "times slower." in texts(halved, scaled(fp16, 1.0))["total"]
    assert "copies" not in texts(scaled(fp16, 1.0), halved)
    more_copies = texts(scaled(int8, 1.0), scaled(int8, 0.9, copies=1.5))["copies"]
    assert "more than that" in more_copies
    some = texts(scaled(int8, 1.0), scaled(int8, 0.5, copies=1.2))["copies"]
    assert some.startswith("The computing layers of tinyunet.int8.plan of TensorRT ? save")
    assert "% of that" in some
    worse = texts(scaled(int8, 1.0), scaled(int8, 1.0, copies=3.0))["copies"]
    assert worse.endswith("of copies and computes no faster.")


def test_it_names_the_layers_that_lost_most() -> None:
    report = scaled(example_report("fp16").report, 1.0)
    slow = report.layers[5]
    rows = tuple(
        dataclasses.replace(row, median_ms=row.median_ms + 1.0) if row is slow else row
        for row in report.layers
    )
    found = texts(report, dataclasses.replace(report, layers=rows))
    assert found["slower"].endswith(f"{slow.network_layer} (+1 ms).")
    assert "slower" not in texts(report, report)


def test_two_releases_of_one_engine_are_told_apart() -> None:
    older, newer = example_report("fp16", "10").report, example_report("fp16", "11").report
    first, second = compare(older, newer).names
    assert first == "tinyunet.fp16.plan of TensorRT 10.16.1.11"
    assert second == "tinyunet.fp16.plan of TensorRT 11.4.0.106"
