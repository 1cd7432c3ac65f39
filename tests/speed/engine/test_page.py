"""The pages: complete, safe, and the same words in both formats."""

import dataclasses
from html.parser import HTMLParser
from pathlib import Path

import pytest

from benchmarks.example_engine import example_report
from tinyunet_deploy.errors import DataError
from tinyunet_deploy.speed.engine.findings import findings
from tinyunet_deploy.speed.engine.page import write_page
from tinyunet_deploy.speed.engine.report import EngineReport


class Text(HTMLParser):
    """Collects text, and the names of elements that are open."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text = ""
        self.elements: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.elements.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def page(folder: Path, name: str, *reports: EngineReport) -> str:
    write_page(reports, folder / name)
    return (folder / name).read_text()


@pytest.mark.parametrize("suffix", [".html", ".md"])
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_page_has_every_finding_and_every_layer(
    precision: str, suffix: str, tmp_path: Path
) -> None:
    report = example_report(precision).report
    text = page(tmp_path, f"p{suffix}", report)
    shown = Text(text).text if suffix == ".html" else text
    assert "not yet run on hardware" in shown
    for finding in findings(report):
        assert finding.text in shown
    for row in report.layers:
        assert row.network_layer in shown
    assert ("(kVECTORIZED)" in shown) and ("0.0201 ms" in shown)


@pytest.mark.parametrize("suffix", [".html", ".md"])
def test_two_engines_stand_side_by_side(suffix: str, tmp_path: Path) -> None:
    reports = [example_report(name).report for name in ("fp16", "int8")]
    text = page(tmp_path, f"p{suffix}", *reports)
    assert "layer by layer" in text and "its copies" in text and "more than that" in text
    assert text.count("decoder.3.0") >= 3


def test_names_are_text_not_markup(tmp_path: Path) -> None:
    report = example_report("fp16").report
    bad = "<script>alert(1)</script>|[x](y)\x1b[31m"
    row = dataclasses.replace(report.layers[1], network_layer=bad, tactic=bad, type=bad)
    report = dataclasses.replace(report, layers=(row, *report.layers), model=bad, notes=(bad,))
    html = page(tmp_path, "p.html", report, report)
    assert "script" not in Text(html).elements and "\x1b" not in html
    text = page(tmp_path, "p.md", report, report)
    assert "<script" not in text and "](" not in text and "\x1b" not in text
    cells = [line for line in text.splitlines() if "alert" in line and line.startswith("| ")]
    assert cells and all(line.replace("\\|", "").count("|") in (5, 8) for line in cells)


def test_a_page_without_times_or_build_is_whole(tmp_path: Path) -> None:
    report = dataclasses.replace(
        example_report("fp16").report, calls=(), build=None, memory=None, clocks_before=None,
        clocks_after=None, batch_size=None, precision=None, origin="files of trtexec",
    )  # fmt: skip
    assert "made-up" not in page(tmp_path, "p.html", report)
    assert "None" not in Text(page(tmp_path, "p.html", report)).text
    empty = dataclasses.replace(report, layers=report.layers[:1])
    page(tmp_path, "q.html", empty, report)


def test_another_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"neither \.html nor \.md"):
        write_page([example_report("fp16").report], tmp_path / "p.pdf")
