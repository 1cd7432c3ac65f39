from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.quality.conftest import SIZE
from tinyunet_deploy.cli import run, tinyunet
from tinyunet_deploy.quality.parity_report import draw_difference


def test_report_has_junit_json_and_pictures(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    limits = tmp_path / "limits.toml"
    limits.write_text(
        '[[limit]]\nprecision = "int8"\nfigure = "largest_steps"\nmost = 0\nreason = "a test"\n'
    )
    command = [
        "parity",
        str(project / "data"),
        "-m",
        str(project / "engines"),
        "-o",
        str(out),
    ]
    command += ["--limits", str(limits), "--backend", "openvino", "--explain"]
    assert run(tinyunet, command) == 6
    table = capsys.readouterr().out
    assert "net.int8.onnx" in table and "no limits" in table and "red" in table
    suites = ET.parse(out / "parity.xml").getroot()
    outcomes = {
        suite.get("name"): [case.find("failure") is not None for case in suite] for suite in suites
    }
    assert outcomes["net.int8.onnx on openvino cpu"] == [True]
    assert outcomes["net.onnx on openvino cpu"] == [False]
    fields = json.loads((out / "parity.json").read_text())
    assert fields["images"] == 6 and fields["defective"] == 3 and fields["truth"]
    pictures = sorted(path.name for path in (out / "worst").iterdir())
    assert sum(name.startswith("net.int8.onnx-openvino-") for name in pictures) == 3
    picture = cv2.imread(str(out / "worst" / pictures[0]))
    assert picture.shape == (SIZE, 3 * SIZE + 16, 3)


def test_the_picture_shows_which_mask_has_a_pixel() -> None:
    image = np.full((1, 4), 90, np.uint8)
    expected = np.array([[255, 0, 255, 10]], np.uint8)
    score = np.array([[0, 255, 255, 20]], np.uint8)
    picture = draw_difference(image, expected, score, 0.5)
    assert picture.shape == (1, 3 * 4 + 16, 3)
    wanted, mask, difference = picture[0, :4], picture[0, 12:16], picture[0, 24:]
    assert wanted[:, 0].tolist() == [255, 0, 255, 0]
    assert mask[:, 0].tolist() == [0, 255, 255, 0]
    assert difference.tolist() == [[0, 0, 255], [0, 255, 0], [30, 30, 30], [80, 30, 30]]
