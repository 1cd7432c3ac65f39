from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from benchmarks.__main__ import benchmarks
from benchmarks.picture import BROWSERS
from tests.benchmarks.made_up_results import (
    made_up_line,
    section_titles,
)
from tinyunet_deploy.cli import run


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
    assert text.count("<svg") == 14  # in two widths; two lines; no accuracy without latency
    assert "No results yet" in text
    assert "<h1>TensorRT benchmark report</h1>" in text
    for title in ("Against the peers", "Latency", "Batch size", "The machine"):
        assert title in section_titles(report)


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


def test_a_part_without_results_names_its_command(tmp_path: Path) -> None:
    line = made_up_line(tmp_path / "line.json")
    output = tmp_path / "report.html"
    assert run(benchmarks, ["report", str(line), "-o", str(output)]) == 0
    text = output.read_text()
    assert text.count('<section class="absent" id=') == len(section_titles(output)) - 1
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
    assert [f"{n}. {t}" for n, t in enumerate(section_titles(report), 1)] == re.findall(
        r"^## (\d+\. .*)$", text, re.MULTILINE
    )
    tables = [line for line in text.splitlines() if line.startswith("|")]
    rules = [line for line in tables if set(line) <= set("|-: ")]
    assert len(rules) > 8
    assert "\n\n\n\n" not in text


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


def test_the_contents_lead_to_every_section(report: Path) -> None:
    text = report.read_text()
    contents = re.findall(r'<a href="#(section-\d+)">(.*?)</a>', text)
    assert [title for _, title in contents] == section_titles(report)
    for number, (anchor, title) in enumerate(contents, start=1):
        after = text.partition(f'id="{anchor}"')[2]
        assert after.partition("<h2>")[2].startswith(f"<span>{number}</span>{title}</h2>")


def test_names_are_plain_and_repetition_is_folded(report: Path) -> None:
    text = re.sub(r"<pre>.*?</pre>|<details.*?</details>", "", report.read_text(), flags=re.DOTALL)
    assert "@openvino" not in text
    assert "tiny fp32 on OpenVINO" in text
    assert "dice_nothing:" not in text, "formulas are folded"
    assert "tinyunet benchmark --" not in text, "commands are folded where there are results"


def test_a_wide_table_says_that_it_scrolls(report: Path) -> None:
    text = report.read_text()
    for table in re.findall(r'<p class="cue">.*?</p>\s*<div class="scroll"[^>]*>(.*?)</table>',
                            text, re.DOTALL):  # fmt: skip
        assert table.count("<th") > 3
    assert text.count('<p class="cue">') > 4
    assert re.search(r"@media \(max-width: 40rem\) \{[^@]*\.cue \{ display: block; \}", text)


def test_a_figure_is_drawn_for_a_telephone_and_for_a_screen(report: Path) -> None:
    text = report.read_text()
    boxes = re.findall(
        r'<div class="narrow"><svg viewBox="0 0 ([\d.]+) .*?<div class="wide"><svg '
        r'viewBox="0 0 ([\d.]+) ', text, re.DOTALL,
    )  # fmt: skip
    assert len(boxes) == 7
    assert {(float(narrow), float(wide)) for narrow, wide in boxes} == {(360.0, 792.0)}
