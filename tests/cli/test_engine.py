"""`tinyunet engine`: pages from files that were made elsewhere."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks.example_engine import example_files, example_report
from tinyunet_deploy.artifacts.sidecar import DEFAULT_ONNX
from tinyunet_deploy.cli import run
from tinyunet_deploy.cli.engine import engine
from tinyunet_deploy.speed.engine.layer_info import Form
from tinyunet_deploy.speed.engine.report_file import read_report, report_json


@pytest.fixture(params=["10", "11"])
def exported(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Form, Path]:
    """A folder of what trtexec of a release exports."""
    form: Form = request.param
    for name, text in example_files("int8", form)._asdict().items():
        (tmp_path / f"{name}.json").write_text(text)
    return form, tmp_path


def words(folder: Path, *more: object) -> list[str]:
    files = [f"--{name}={folder / name}.json" for name in ("layers", "profile", "times")]
    return [*files, *map(str, more)]


def test_files_of_trtexec_become_a_page(exported: tuple[Form, Path]) -> None:
    form, folder = exported
    output = folder / "report" / "page.md"
    assert run(engine, words(folder, "-m", DEFAULT_ONNX, "-o", output)) == 0
    text = output.read_text()
    assert "| decoder.3.0 (CaskConvolution) |" in text
    copied = "Times of trtexec: copy in, compute, copy out"
    assert (copied in text) == (form == "10")
    assert ("computing alone" in text) == (form == "11")
    assert run(engine, words(folder, "-o", folder / "report.json")) == 0
    report = read_report(folder / "report.json")
    assert (report.batch_size, report.origin) == (16, "files of trtexec")
    assert report.layers[1].network_layer == "node_conv2d + node_relu"  # no --model


def test_two_reports_become_one_page(tmp_path: Path) -> None:
    paths = []
    for precision in ("fp16", "int8"):
        paths.append(tmp_path / f"{precision}.json")
        paths[-1].write_text(report_json(example_report(precision).report))
    page = tmp_path / "both.html"
    assert run(engine, [*map(str, paths), "-o", str(page)]) == 0
    assert "layer by layer" in page.read_text()


def test_other_files_are_refused_in_one_line(
    exported: tuple[Form, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    _, folder = exported
    swapped = ["--layers", folder / "times.json", "--profile", folder / "layers.json"]
    assert run(engine, [*map(str, swapped), "-o", str(folder / "p.md")]) == 4
    assert capsys.readouterr().err.count("\n") == 1
    assert not (folder / "p.md").exists()
    assert run(engine, words(folder, "-m", folder / "times.json", "-o", "p.md")) == 4


@pytest.mark.parametrize(
    "arguments", [[], ["{layers}", "--layers={layers}", "--profile={layers}"],
                  ["--layers={layers}"], ["{layers}", "{layers}", "{layers}"]],
)  # fmt: skip
def test_what_to_read_must_be_clear(arguments: list[str], exported: tuple[Form, Path]) -> None:
    _, folder = exported
    filled = [argument.format(layers=folder / "layers.json") for argument in arguments]
    result = CliRunner().invoke(engine, [*filled, "-o", str(folder / "p.md")])
    assert result.exit_code == 2
