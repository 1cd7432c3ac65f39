"""Hostile file names in the files that people and programs open: HTML, Markdown, JUnit, SVG.

Those in defects.csv are in tests/inspection/test_defects_csv.py.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure

from benchmarks.report.drawing import figure_style, new_figure, svg_of
from benchmarks.report.page import page_environment
from tinyunet_deploy.errors import printable
from tinyunet_deploy.inspection.drawing import draw_svg
from tinyunet_deploy.quality.parity_report import parity_junit

names = st.text(
    st.one_of(
        st.sampled_from("<>&\"'\x1b\x00\r\t\u202e\udcff|[](!)`/="),
        st.characters(exclude_characters="\n"),
    ),
    min_size=1,
    max_size=16,
)


class Tags(HTMLParser):
    """Names of the tags of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)


@given(names)
@example("<script>alert(1)</script>")
@example('" onload="alert(1)')
@example("\x1b]0;owned\x07")
def test_a_name_is_text_in_html(name: str) -> None:
    template = '<p title="{{ name }}">{{ name }}</p>'
    page = page_environment(".html").from_string(template).render(name=name)
    assert Tags(page).tags == ["p"]
    assert page.isprintable()
    page.encode()


@given(names)
@example("<img src=x onerror=alert(1)>")
@example("![x](http://example.com/a.png)")
@example("a|b")
def test_a_name_is_text_in_markdown(name: str) -> None:
    template = "| {{ row | map('cell') | join(' | ') }} |"
    page = page_environment(".md").from_string(template).render(row=[name, "b"])
    assert Tags(page).tags == []
    assert "](" not in page
    assert page.replace("\\|", "").count("|") == 3
    assert page.isprintable()
    page.encode()


def draw_names(figure: Figure, name: str) -> None:
    """Put a name wherever a figure has text, as titles, labels, ticks, legends and notes."""
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], label=f"a {name}")
    axes.set_title(name)
    axes.set(xlabel=name, ylabel=name)
    axes.set_yticks([0, 1], [name, f"{name}$"])
    axes.annotate(name, (0, 0))
    figure.legend(loc="outside upper left")


@settings(max_examples=30)
@given(names)
@example("<script>alert(1)</script>")
@example("]]><script/>")
@example("$x$")
@example("$\\frac{")
@example("a\nb")
@example("-->")
@example('"/><a xlink:href="http://example.com">')
@pytest.mark.filterwarnings("ignore:Glyph", "ignore:constrained_layout", "ignore:Matplotlib")
def test_a_name_is_text_in_svg(name: str) -> None:
    """Those of drift and tune, and those within the page of the benchmarks."""
    with figure_style():
        figure, _ = new_figure(3.0, 5.0)
        figure.clear()
        draw_names(figure, name)
        inline = svg_of(figure, "a", "A title")
    drawn = draw_svg(5, 3, lambda figure: draw_names(figure, name))
    for text in (inline, drawn.decode()):
        image = ET.fromstring(text)
        tags = {element.tag.rpartition("}")[2] for element in image.iter()}
        assert not tags & {"script", "a", "image", "foreignObject"}
        shown = [element.text or "" for element in image.iter() if element.tag.endswith("}text")]
        assert all(line.isprintable() for line in shown)
        assert all(char.isprintable() or char.isspace() for char in text)
        wanted = printable(name.split("\n")[0]).strip()
        assert any(wanted in line for line in shown), "the name is shown as it is"


@given(names, names)
@example("\x1b.onnx", "\udcff")
def test_a_name_is_text_in_junit(name: str, reason: str) -> None:
    artifact: Any = SimpleNamespace(
        model=Path("engines") / name.replace("/", "_"),
        backend="openvino",
        device="cpu",
        skipped=reason,
        checks=[],
    )
    parity: Any = SimpleNamespace(artifacts=[artifact], refused=[])
    suites = ET.fromstring(parity_junit(parity))
    assert len(suites) == 1 and len(suites[0]) == 1
    shown = suites[0].get("name")
    assert shown is not None and shown.isprintable() and shown.endswith(" on openvino cpu")
