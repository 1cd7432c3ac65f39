"""Every verb takes images of any size, says how many, and skips them if it is told to."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import SIZE, part
from tinyunet_deploy.cli import run, tinyunet
from tinyunet_deploy.contract import Contract
from tinyunet_deploy.data.encoding import write_png
from tinyunet_deploy.inspection.outputs import Outputs
from tinyunet_deploy.inspection.report_line import ReportLine
from tinyunet_deploy.inspection.watch import watch
from tinyunet_deploy.speed import benchmark
from tinyunet_deploy.testing.fake_backend import FakeBackend

SIZES = [(SIZE, SIZE), (SIZE, SIZE), (40, 50), (70, 130)]
OTHER = "images of another size than the model's: 1 padded by mirroring, 1 inspected in tiles"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two images of the model's size, a smaller and a larger one; every other one is defective."""
    for number, (height, width) in enumerate(SIZES):
        mask = np.zeros((height, width), np.uint8)
        mask[5:25, 6 : 6 + 20 * (number % 2)] = 255
        for folder, pixels in (("images", part(0, height=height, width=width)), ("masks", mask)):
            (tmp_path / "data" / folder).mkdir(parents=True, exist_ok=True)
            write_png(tmp_path / "data" / folder / f"{number}.png", pixels)
    return tmp_path / "data"


VERBS = {
    "infer": ["infer", "DATA/images", "-o", "OUT"],
    "evaluate": ["evaluate", "DATA"],
    "tune": ["tune", "DATA", "-o", "OUT"],
    "parity": ["parity", "DATA"],
    "benchmark": ["benchmark", "DATA", "--samples", "1"],
    "line-sim": [
        *("line-sim", "DATA/images", "--parts-per-minute", "600", "--deadline-ms", "60000"),
        *("--seconds", "0.2", "--parts", "50", "--max-miss-rate", "1"),
    ],
}


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_takes_images_of_any_size(
    verb: str,
    data: Path,
    tiny_onnx: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(benchmark, "measure_ceilings", lambda _device: iter(()))

    def call(*options: str) -> tuple[int, str]:
        caplog.clear()
        output = tmp_path / f"out {' '.join(options)}"
        words = {"OUT": str(output), "DATA": str(data), "DATA/images": str(data / "images")}
        command = [words.get(word, word) for word in VERBS[verb]]
        command += ["-m", str(tiny_onnx), "--backend", "onnxruntime", *options]
        code = run(tinyunet, command)
        printed = capsys.readouterr()
        return code, printed.out + printed.err + caplog.text

    code, text = call()
    assert code == 0 and OTHER in text
    code, text = call("--no-tile")
    assert code == 3 and OTHER not in text
    assert "but the model takes 64x64" in text or verb == "benchmark"
    code, text = call("--max-pixels", str(70 * 130 - 1))
    assert code == 3
    assert "1 padded by mirroring" in text and "in tiles" not in text.replace("in tiles; ", "")
    assert "has 130x70 pixels, more than 9099 in all" in text
    if verb == "infer":
        assert call("--max-pixels", str(70 * 130))[0] == 0


def test_a_watch_skips_other_sizes_if_it_is_told_to(data: Path, tmp_path: Path) -> None:
    reasons: dict[str, str | None] = {}
    stop = threading.Event()

    def signal(line: ReportLine) -> None:
        reasons[line["path"]] = line.get("reason")
        if len(reasons) == len(SIZES):
            stop.set()

    with FakeBackend(contract=Contract(SIZE, SIZE)) as backend:
        watch(
            data / "images", tmp_path / "out", backend, batch_size=2, workers=1, stop=stop,
            outputs=Outputs(), tile=False, settle_ms=1, on_line=signal,
        )  # fmt: skip
    assert reasons == {"0.png": None, "1.png": None, "2.png": "wrong-size", "3.png": "wrong-size"}
