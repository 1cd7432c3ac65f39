"""Rows of layers: what is joined, and the limit of each."""

import dataclasses
import math
from pathlib import Path

import pytest

from benchmarks.example_engine import example_files, example_report
from tinyunet_deploy.errors import DataError
from tinyunet_deploy.speed.benchmark_result import Ceiling
from tinyunet_deploy.speed.engine.layer_info import parse_layer_info
from tinyunet_deploy.speed.engine.layer_profile import parse_profile
from tinyunet_deploy.speed.engine.network_names import NetworkNames
from tinyunet_deploy.speed.engine.report import EngineReport, layer_rows
from tinyunet_deploy.speed.engine.report_file import read_report, report_json


def ceiling(kind: str, value: float) -> Ceiling:
    return Ceiling(kind, kind, "cuda:0", value, "", "", "", ())


def test_operations_follow_from_the_layer_itself_without_an_onnx_file() -> None:
    files = example_files("fp16", "11", batch=4)
    info, profile = parse_layer_info(files.layers), parse_profile(files.profile)
    with_names = example_report("fp16", "11", 4).report.layers
    without, _ = layer_rows(info, profile, NetworkNames(), 4, ())
    assert [row.flop for row in without] == [row.flop for row in with_names]
    assert without[1].network_layer == "node_conv2d + node_relu"


def test_the_limit_of_a_layer_is_its_operations_or_its_bytes() -> None:
    files = example_files("fp16", "10")
    info, profile = parse_layer_info(files.layers), parse_profile(files.profile)
    slow_memory = [ceiling("float16", 1e9), ceiling("memory", 1.0)]
    rows, _ = layer_rows(info, profile, NetworkNames(), 16, slow_memory)
    row = rows[2]
    assert (row.bound_by, row.bytes) == ("memory", 2 * (2 * 16 * 32 * 512 * 512 + 9 * 32 * 32))
    assert row.bound_ms == pytest.approx(row.bytes / 1e6)
    slow_compute = [ceiling("float16", 10.0), ceiling("float16", 5.0), ceiling("memory", 1e9)]
    row = layer_rows(info, profile, NetworkNames(), 16, slow_compute)[0][2]
    assert row.flop == 2.0 * 9 * 32 * 32 * 16 * 512 * 512
    assert (row.bound_by, row.bound_ms) == ("compute", pytest.approx(row.flop / 10.0 / 1e6))
    row = layer_rows(info, profile, NetworkNames(), 16, [ceiling("memory", 1.0)])[0][2]
    assert row.bound_ms is None  # half a limit is none


def test_layers_of_one_file_alone_are_kept_and_noted() -> None:
    files = example_files("fp16", "10")
    info, profile = parse_layer_info(files.layers), parse_profile(files.profile)
    short = dataclasses.replace(profile, layers=profile.layers[1:])
    rows, notes = layer_rows(info, short, NetworkNames(), 16, ())
    assert math.isnan(rows[0].median_ms) and "1 layers of the layer information" in notes[0]
    fewer = dataclasses.replace(info, layers=info.layers[:-1])
    rows, notes = layer_rows(fewer, profile, NetworkNames(), 16, ())
    assert len(rows) == len(profile.layers) and "not in the layer information" in notes[0]


def test_layers_are_grouped_by_the_networks() -> None:
    report = example_report("int8").report
    groups = report.network_layers()
    assert [group.name for group in groups][:3] == ["encoder.0.0", "encoder.0.2", "encoder.1.0"]
    assert sum(group.median_ms for group in groups) == pytest.approx(report.profiled_ms)
    assert sum(group.share for group in groups) == pytest.approx(1.0)
    assert groups[0].copy_ms > 0 and groups[0].computed_types == ("Half",)
    assert len(report.convolutions) == 23
    assert len(report.copies) + 23 == len(report.layers)


def test_a_report_survives_its_file(tmp_path: Path) -> None:
    report = example_report("int8", "10").report
    path = tmp_path / "report.json"
    path.write_text(report_json(report))
    again = read_report(path)
    assert again == report
    assert isinstance(again, EngineReport)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"kind": "engine-report"', '"kind": "benchmark"'),
        ('"schema_version": 1', '"schema_version": 2'),
        ('"batch_size": 16', '"batch_size": "16"'),
        ('"detailed": true', '"detailed": 1'),
        ('"layers": [', '"layers": 7, "other": ['),
        ('"model": ', '"mode": '),
        ('"tactic": "', '"tactic": ["'),
    ],
)
def test_a_changed_file_is_refused(old: str, new: str, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text(report_json(example_report("fp16").report).replace(old, new, 1))
    with pytest.raises(DataError, match="is not what was expected"):
        read_report(path)
