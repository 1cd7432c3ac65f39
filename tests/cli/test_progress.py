from __future__ import annotations

import io
import time

import pytest

from tinyunet_deploy.cli import progress
from tinyunet_deploy.cli.progress import Progress, duration


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def test_a_line_says_how_much_is_done_and_how_long_the_rest_takes(clock: Clock) -> None:
    bar = Progress("evaluating", 400)
    clock.now_s += 7
    assert bar.line() == "evaluating: 0 of 400 images (0 %), 7 s"
    bar.advance(100, "3 NG")
    clock.now_s += 13
    assert bar.line() == "evaluating: 100 of 400 images (25 %), 20 s, about 1 min 00 s left, 3 NG"
    bar.advance(300)
    assert bar.line() == "evaluating: 400 of 400 images (100 %), 20 s, 3 NG"


def test_without_a_total_the_work_so_far_is_said_until_the_total_is_known(clock: Clock) -> None:
    bar = Progress("inferring")
    assert bar.line() == "inferring: 0 s"
    bar.advance(8)
    clock.now_s += 4
    assert bar.line() == "inferring: 8 images, 4 s"
    bar.expect(16)
    bar.describe("writing")
    assert bar.line() == "writing: 8 of 16 images (50 %), 4 s, about 4 s left"


def test_the_work_of_an_earlier_run_does_not_count_for_the_time_left(clock: Clock) -> None:
    bar = Progress("training", 1000, "steps")
    clock.now_s += 50
    bar.resume(900)
    bar.advance(50)
    clock.now_s += 10
    assert bar.line() == "training: 950 of 1000 steps (95 %), 10 s, about 10 s left"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s"), (7625, "2 h 07 min")],
)
def test_a_duration_in_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_without_a_terminal_lines_come_while_nothing_is_counted(
    capsys: pytest.CaptureFixture[str],
) -> None:
    said = ""
    with Progress("loading", 3, "models", every_s=0.01) as bar:
        while said.count("loading: 0 of 3 models (0 %), ") < 3:
            time.sleep(0.01)
            said += capsys.readouterr().err
        bar.advance()
    assert "\x1b" not in said
    time.sleep(0.05)
    capsys.readouterr()
    time.sleep(0.05)
    assert capsys.readouterr().err == "", "no line after the end"


def test_a_command_that_is_quicker_than_ten_seconds_says_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with Progress("evaluating", 2) as bar:
        bar.advance(2)
    with Progress("training", 2, shown=False) as bar:
        bar.advance(2)
    assert capsys.readouterr().err == ""


def test_on_a_terminal_a_bar_shows_total_and_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    with Progress("evaluating", 40) as bar:
        bar.advance(10, "3 NG")
        print("a result")
    assert capsys.readouterr().out == "a result\n", "results stay on stdout"
    shown = terminal.getvalue()
    assert "evaluating" in shown and "10/40" in shown and "left" in shown and "3 NG" in shown


def test_without_a_bar_lines_are_printed_on_a_terminal_at_their_own_pace(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    with Progress("watching", unit="parts", bar=False, every_s=0.01) as progress:
        progress.advance(3)
        while not terminal.getvalue():
            time.sleep(0.01)
    assert "watching: 3 parts, 0 s\n" in terminal.getvalue()
