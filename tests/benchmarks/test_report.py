from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from benchmarks.__main__ import benchmarks
from benchmarks.picture import BROWSERS
from benchmarks.report.results import read_results
from tests.benchmarks.test_benchmarks import made_up_run
from tinyunet_deploy.artifacts.sidecar import (
    DEFAULT_ONNX,
    Sidecar,
    digest,
    read_sidecar,
    write_artifact,
)
from tinyunet_deploy.cli import run
from tinyunet_deploy.contract import Contract
from tinyunet_deploy.data import synthetic
from tinyunet_deploy.errors import DataError

EXAMPLE = Path(__file__).parent.parent / "fixtures" / "benchmark-example.json"
"""In the layout of `tinyunet benchmark`; what its figures are does not matter here."""
REPOSITORY = Path(__file__).parent.parent.parent


def made_up_benchmark(path: Path) -> Path:
    """The example with a fast int8 model whose answers are wrong, and fp32 in two batch sizes."""
    fields = json.loads(EXAMPLE.read_text())
    base = fields["measurements"][0]
    wrong = {"figure": "largest_steps", "value": 9.0, "limit": "<= 1", "reason": "same numbers"}
    made = (
        ("tiny.int8.onnx", "int8", 1, 1.0, {"outcome": "red", "broken": [wrong]}),
        ("tiny.onnx", "fp32", 1, 3.0, {"outcome": "green", "broken": []}),
        ("tiny.onnx", "fp32", 8, 20.0, {"outcome": "green", "broken": []}),
    )
    fields["measurements"] = [
        base
        | {"model": model, "precision": precision, "backend": "openvino", "batch_size": batch}
        | {"model_sha256": digest(model.encode()), "check": base["check"] | check}
        | {"call": {"samples_ms": [ms * (1 + 0.01 * (i % 7)) for i in range(40)]}}
        for model, precision, batch, ms, check in made
    ]
    path.write_text(json.dumps(fields))
    return path


def made_up_line(path: Path) -> Path:
    """What `tinyunet line-sim -o` writes, as far as the report reads it."""
    outcome = {"parts": 4000, "missed": 1, "dropped": 0, "longest_run": 1, "miss_rate": 0.00025}
    outcome |= {"miss_rate_bound": 0.0009, "p50_ms": 41.0, "p99_ms": 60.0, "p999_ms": None}
    belt = {"parts_per_minute": 300.0, "deadline_ms": 200.0, "cameras": 1, "processes": 1}
    belt |= {"pitch_mm": None, "gate_mm": None}
    belt |= {"buffer": 8, "jitter": 0.02, "go_parts": None, "stop_ms": 0.0}
    fields = {
        "schema_version": 1, "kind": "line-sim", "model": "tiny.onnx", "backend": "openvino",
        "max_miss_rate": 0.001,
        "line": belt, "outcome": outcome, "fastest_shown_parts_per_minute": 345.0,
        "verified": None, "formulas": {"missed": "no verdict at the deadline"},
        "curve": [
            {"parts_per_minute": 100.0 * k, "parts": 10_000, "miss_rate": 0.0 if k < 5 else 0.4,
             "miss_rate_bound": 0.0003 if k < 5 else 0.42} for k in range(1, 8)
        ],
    }  # fmt: skip
    path.write_text(json.dumps(fields))
    return path


def made_up_matrix(path: Path) -> Path:
    """A run with all that the report reads of one."""
    fields = json.loads(made_up_run(path, rounds=5).read_text())
    for cell in fields["cells"]:
        model, _, rest = cell["name"].partition("@")
        cell |= {"model": model, "runner": rest.partition("/")[0], "precision": "fp32"}
        cell |= {"what": "a peer", "boundary": "one call", "device": "cpu", "answers": None}
        cell |= {"median_ms_per_image": 20.0, "model_sha256": digest(model.encode())}
        cell |= {"times_as_fast": {"value": 2.0, "low": 1.9, "high": 2.1}}
    fields["matrix"] |= {"rounds": 5}
    fields |= {"command": "python -m benchmarks matrix -o runs/m", "versions": {}}
    fields |= {"skipped": [{"name": "x.plan@trtexec/1", "reason": "trtexec is not on the PATH"}]}
    fields["machine"] |= {"tinyunet_deploy": "0.1.0", "secret": "<script>alert(1)</script>"}
    path.write_text(json.dumps(fields))
    return path


def made_up_pipeline(path: Path) -> Path:
    """What `python -m benchmarks.files_to_masks` writes, as far as the report reads it."""
    rounds = [
        {"in_memory_images_per_s": 9.0, "from_files_images_per_s": files, "ratio": files / 9.0,
         "resident_mib": {"start": 300.0, "after_a_tenth": 400.0, "end": end}}
        for files, end in ((8.0, 401.0), (8.9, 412.0), (9.0, 399.0))
    ]  # fmt: skip
    found = {"model": "tiny.onnx", "backend": "openvino", "rounds": rounds, "ratio_median": 0.989}
    fields = {"schema_version": 1, "kind": "pipeline", "images": 1000, "results": [found]}
    path.write_text(
        json.dumps(fields | {"command": "python -m benchmarks.files_to_masks --images 1000"})
    )
    return path


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of everything, without pictures."""
    folder = tmp_path_factory.mktemp("report")
    made_up_benchmark(folder / "benchmark.json")
    shutil.copy(REPOSITORY / "benchmarks" / "results" / "synthetic-test.json", folder)
    red = (
        REPOSITORY / "tests" / "fixtures" / "parity-class1-red.json"
    )  # of an int8 file that failed
    shutil.copy(red, folder / "parity-class1.json")
    made_up_line(folder / "line.json")
    second = json.loads(made_up_line(folder / "line2.json").read_text())
    (folder / "line2.json").write_text(json.dumps(second | {"max_miss_rate": 0.01}))
    made_up_matrix(folder / "run.json")
    made_up_pipeline(folder / "pipeline.json")
    (folder / "notes.json").write_text('{"mine": 1}')
    made_up_plan(folder / "tiny.fp16.plan")
    output = folder / "out" / "report.html"
    assert run(benchmarks, ["report", str(folder), "-o", str(output)]) == 0
    return output


def made_up_plan(path: Path) -> None:
    data = b"no plan at all"
    origin: dict[str, Any] = {
        "rebuild": "tinyunet build tiny.fp16.onnx -o engines/",
        "tensorrt": {"flavour": "tensorrt", "version": "10.16.1"},
        "gpu": {"name": None, "compute_capability": "8.9"},
        "profile": {"min": 1, "opt": 8, "max": 16},
        "plan_bytes": 3 * 2**20,
        "build_s": 12.5,
        "precision_audit": {
            "parsed_network": {"encoder.0.0": "Half", "logit": "Half"},
            "engine": None,
            "engine_not_inspected": "built without a GPU: never run on hardware",
        },
    }
    sidecar = Sidecar("plan", "fp16", digest(data), None, Contract(64, 64), origin=origin)
    write_artifact(path, data, sidecar)


def sections(page: Path) -> list[str]:
    return re.findall(r"<h2><span>\d+</span>(.*?)</h2>", page.read_text())


class Tags(HTMLParser):
    """Tags that are not closed, ids that are there twice, and whatever is loaded from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in {"meta", "img", "br", "link", "input", "!doctype"}:
            self.open.append(tag)
        values = dict(attrs)
        if values.get("id"):
            self.ids.append(str(values["id"]))
        for key in ("src", "href", "xlink:href"):
            value = values.get(key)
            if value and not value.startswith(("#", "data:")):
                self.loads.append(value)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_every_part_is_there(report: Path) -> None:
    text = report.read_text()
    assert text.count("<svg") == 7  # two lines; no accuracy: no latency of the same file
    assert "No results yet" in text
    assert "<h1>TensorRT benchmark report</h1>" in text
    for title in ("Against the peers", "Latency", "Batch size", "The machine"):
        assert title in sections(report)


def test_the_choice_of_an_operating_point_is_shown(tmp_path: Path) -> None:
    output = tmp_path / "report.md"
    stored = REPOSITORY / "benchmarks" / "results" / "tune-class1.json"
    assert run(benchmarks, ["report", str(stored), "-o", str(output)]) == 0
    part = output.read_text().partition("Threshold and min_area")[2].partition("\n## ")[0]
    assert "least cost, escape : overkill = 20 : 1" in part
    rows = [line for line in part.splitlines() if line.startswith("| chosen")]
    assert rows == ["| chosen | 0.52 | 48 | 0 / 33 | 8.7 % | 0 / 22 | 12.7 % |"]


def test_a_page_opens_from_disk_alone(report: Path) -> None:
    text = report.read_text()
    tags = Tags()
    tags.feed(text)
    assert tags.open == []
    assert tags.loads == []
    assert len(tags.ids) == len(set(tags.ids))
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)" in text
    assert not re.search(r"url\((?!#)|@import|#0[0-9a-f]f0a", text)


def test_memory_is_that_of_the_round_in_which_it_grew_most(tmp_path: Path) -> None:
    output = tmp_path / "report.md"
    result = made_up_pipeline(tmp_path / "pipeline.json")
    assert run(benchmarks, ["report", str(result), "-o", str(output)]) == 0
    row = "| tiny · openvino | 1000 | 3 | 9.00 | 8.90 | 0.989 | 300 | 400 | 412 |"
    assert row in output.read_text().splitlines()


def made_up_gpu(path: Path) -> Path:
    """What `python -m benchmarks.gpu` writes, as far as the report reads it."""
    rows = [
        {"model": "tiny.fp16.onnx", "precision": "fp16", "backend": "onnxruntime",
         "batch_size": batch, "cuda_graphs": graphs, "images_per_s": 100.0 * batch + graphs}
        for batch in (1, 8) for graphs in (True, False)
    ]  # fmt: skip
    fields = {
        "schema_version": 1, "kind": "gpu", "command": "python -m benchmarks.gpu", "formula": "f",
        "gpu": {"name": "NVIDIA X", "compute_capability": "8.0"}, "results": rows,
        "published_images_per_s": {"A100 FP16": {"1": 248, "8": 761, "16": 823}},
    }  # fmt: skip
    path.write_text(json.dumps(fields))
    return path


def test_a_gpu_stands_beside_what_was_published(tmp_path: Path) -> None:
    output = tmp_path / "report.md"
    assert (
        run(benchmarks, ["report", str(made_up_gpu(tmp_path / "g.json")), "-o", str(output)]) == 0
    )
    lines = output.read_text().splitlines()
    assert "| published, A100 FP16 |  | 248.0 | 761.0 |" in lines
    assert "| tiny.fp16 (fp16) · onnxruntime | graphs | 101.0 | 801.0 |" in lines
    assert "| tiny.fp16 (fp16) · onnxruntime | no graphs | 100.0 | 800.0 |" in lines


def test_a_folder_with_a_report_of_its_own_is_left_to_it(tmp_path: Path) -> None:
    made_up_pipeline(tmp_path / "pipeline.json")
    (tmp_path / "other").mkdir()
    made_up_gpu(tmp_path / "other" / "gpu.json")
    output = tmp_path / "report.md"
    for own, found in ((False, True), (True, False)):
        if own:
            (tmp_path / "other" / "report.md").write_text("a report")
        assert run(benchmarks, ["report", str(tmp_path), "-o", str(output)]) == 0
        assert ("A GPU beside published figures" in output.read_text()) is found


def test_what_must_not_be_shipped_is_said_at_the_top(report: Path) -> None:
    text = report.read_text()
    summary = text[text.index("Summary") : text.index("<h2><span>1</span>")]
    assert "Not to be shipped: tinyunet.int8.onnx on openvino: iou_drop is 0.00887" in summary
    assert "Not to be shipped: tiny.int8.onnx on openvino: largest_steps of the timed" in summary
    assert "fastest configuration whose answers pass is tiny.onnx (fp32)" in summary
    assert "345 parts per minute" in summary


def test_a_promise_that_was_not_kept_is_no_safe_speed(tmp_path: Path) -> None:
    line = made_up_line(tmp_path / "line.json")
    fields = json.loads(line.read_text())
    tried = {"kept": False, "line": fields["line"], "time_to_verdict_ms": [1.0], "shown": False}
    fields["verified"] = tried | {"outcome": fields["outcome"] | {"missed": 63, "parts": 6098}}
    line.write_text(json.dumps(fields))
    output = tmp_path / "report.md"
    assert run(benchmarks, ["report", str(line), "-o", str(output)]) == 0
    text = output.read_text()
    assert "No safe line speed: 345 parts per minute were predicted" in text
    assert "live 63 of 6,098 parts were late" in text
    assert "may run at" not in text.split("## 1.")[0] and "345 / min" not in text


def test_a_promise_that_was_lowered_tells_the_first(tmp_path: Path) -> None:
    line = made_up_line(tmp_path / "line.json")
    fields = json.loads(line.read_text())
    tried = {key: fields[key] for key in ("line", "outcome")}
    fields["verified"] = tried | {"kept": True}
    faster = tried | {"line": fields["line"] | {"parts_per_minute": 3049.0}, "kept": False}
    fields["not_kept"] = [faster]
    line.write_text(json.dumps(fields))
    output = tmp_path / "report.md"
    assert run(benchmarks, ["report", str(line), "-o", str(output)]) == 0
    text = output.read_text()
    assert "may run at 345 parts per minute" in text
    assert "3,049 were predicted before and did not hold." in text
    assert "| tried live, not kept | 3,049 |" in text


def test_an_engine_that_never_ran_says_so(report: Path) -> None:
    text = report.read_text()
    assert "TensorRT engine tiny.fp16.plan" in sections(report)
    assert "Not inspected: built without a GPU: never run on hardware." in text
    assert "was not timed on hardware" in text
    for shown in ("2 Half", "3.00 MiB", "12.5 s", "tinyunet build tiny.fp16.onnx -o engines/"):
        assert shown in text


def test_a_part_without_results_names_its_command(tmp_path: Path) -> None:
    line = made_up_line(tmp_path / "line.json")
    output = tmp_path / "report.html"
    assert run(benchmarks, ["report", str(line), "-o", str(output)]) == 0
    text = output.read_text()
    assert text.count('<section class="absent">') == len(sections(output)) - 1
    for command in (
        "python -m benchmarks matrix -o",
        "tinyunet benchmark IMAGES",
        "tinyunet parity DATA",
        "tinyunet evaluate DATA",
    ):
        assert command in text


def test_markdown_says_the_same(report: Path, tmp_path: Path) -> None:
    output = tmp_path / "report.md"
    assert run(benchmarks, ["report", str(report.parent.parent), "-o", str(output)]) == 0
    text = output.read_text()
    assert [f"{n}. {t}" for n, t in enumerate(sections(report), 1)] == re.findall(
        r"^## (\d+\. .*)$", text, re.MULTILINE
    )
    tables = [line for line in text.splitlines() if line.startswith("|")]
    rules = [line for line in tables if set(line) <= set("|-: ")]
    assert len(rules) > 8
    assert "\n\n\n\n" not in text


def test_accuracy_and_latency_are_joined_by_hash(tmp_path: Path) -> None:
    path = made_up_benchmark(tmp_path / "benchmark.json")
    fields = json.loads(path.read_text())
    for measured in fields["measurements"]:
        if measured["precision"] == "fp32":
            measured["model_sha256"] = read_sidecar(DEFAULT_ONNX).sha256
    path.write_text(json.dumps(fields))
    shutil.copy(REPOSITORY / "benchmarks" / "results" / "parity-class1.json", tmp_path)
    output = tmp_path / "report.md"
    assert run(benchmarks, ["report", str(tmp_path), "-o", str(output)]) == 0
    part = output.read_text().partition("Accuracy against latency")[2].partition("\n## ")[0]
    compared = json.loads((tmp_path / "parity-class1.json").read_text())["comparisons"]
    (ours,) = [c for c in compared if (c["precision"], c["backend"]) == ("fp32", "openvino")]
    shown = rf"{ours['iou_defective']:.4f}"
    assert re.search(
        rf"\| tinyunet · openvino \| [\d.]+ \| {shown} \| 1.0000 \| 0 \| green \|", part
    )
    assert f"{ours['iou_defective_of_reference']:.4f} less the 0.005 allowed" in part


def test_the_worst_images_are_shown_from_the_folder_that_is_given(tmp_path: Path) -> None:
    data = tmp_path / "synth"
    synthetic.write_dataset(data, classes=(1,), train=0, test=4, defective=0.5, size=512, seed=0)
    result = tmp_path / "evaluation.json"
    fields = json.loads((REPOSITORY / "benchmarks/results/synthetic-test.json").read_text())
    fields["dataset"]["name"] = "synth"
    fields["model"]["sha256"] = "0" * 64  # of no model that is here: the label alone is drawn
    names = sorted(p.relative_to(data).as_posix() for p in data.rglob("Test/*.PNG"))
    from tinyunet_deploy.data.layouts import read_dataset
    from tinyunet_deploy.data.masks import read_mask

    for image, item in zip(fields["per_image"], read_dataset(data).items, strict=False):
        image["name"] = item.image.relative_to(data).as_posix()
        image["defective"] = bool(item.defective)
        image["truth_px"] = int((read_mask(item, (512, 512)) > 0).sum())
    del fields["per_image"][len(names) :]
    result.write_text(json.dumps(fields))
    output = tmp_path / "report.html"
    arguments = ["report", str(result), "-o", str(output), "--data", str(data)]
    assert run(benchmarks, arguments) == 0
    assert output.read_text().count("data:image/jpeg;base64,") == 4
    fields["per_image"][0]["truth_px"] += 1
    result.write_text(json.dumps(fields))
    assert run(benchmarks, arguments) == 4


def test_pictures_are_only_of_a_folder_that_is_given(report: Path) -> None:
    assert "The worst images" in sections(report)
    assert "data:image" not in report.read_text()


def test_what_is_no_result_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "notes.json"
    path.write_text('{"schema_version": 1}')
    with pytest.raises(DataError, match="not a result that the report knows"):
        read_results([path])
    with pytest.raises(DataError, match="contains no result"):
        read_results([tmp_path])
    made_up_line(tmp_path / "line.json")
    assert run(benchmarks, ["report", str(tmp_path), "-o", str(tmp_path / "report.pdf")]) == 4


# --- in a browser -----------------------------------------------------------------------------

FRAME = """<!doctype html><pre id="out"></pre>
<iframe src="report.html" width="390" height="800"></iframe>
<iframe src="report.html" width="1280" height="800"></iframe>
<iframe src="wide.html" width="390" height="800"></iframe>
<script>
console.log("control");
onload = () => {
  const sizes = [...document.querySelectorAll("iframe")].map(frame => {
    const root = frame.contentDocument.documentElement;
    return root.scrollWidth - root.clientWidth + " of " + frame.contentWindow.innerWidth;
  });
  document.getElementById("out").textContent = sizes.join("; ");
};
</script>"""


def test_a_browser_shows_it_without_errors_or_sideways_scrolling(
    report: Path, tmp_path: Path
) -> None:
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        pytest.skip("no Chromium on the PATH (Debian: apt-get install chromium)")
    shutil.copy(report, tmp_path / "report.html")
    (tmp_path / "wide.html").write_text("<!doctype html><div style='width:600px'>wide</div>")
    (tmp_path / "frame.html").write_text(FRAME)
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--allow-file-access-from-files"]
    command += ["--dump-dom", (tmp_path / "frame.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    said = re.findall(r'CONSOLE.*?"(.*)"', done.stderr)
    assert said == ["control"]
    shown = re.search(r'<pre id="out">(.*?)</pre>', done.stdout)
    assert shown is not None
    at_390, at_1280, wide = shown[1].split("; ")
    assert (at_390, at_1280) == ("0 of 390", "0 of 1280")
    assert wide != "0 of 390", "a page that is too wide must be seen"
