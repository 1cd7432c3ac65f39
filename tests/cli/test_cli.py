from __future__ import annotations

import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from tests.conftest import REPOSITORY
from tinyunet_deploy import __version__
from tinyunet_deploy.backends.table import BACKENDS
from tinyunet_deploy.cli import VERBS, infer_main, main, run, tinyunet
from tinyunet_deploy.cli.infer import infer
from tinyunet_deploy.errors import (
    ArtifactError,
    DataError,
    GateFailed,
    ImageError,
    RefusedError,
    RuntimeUnavailable,
    TinyUNetError,
)

HEAVY = {"torch", "onnx", "onnxruntime", "openvino", "tensorrt", "onnxscript", "safetensors"}


def failing(error: BaseException) -> click.Command:
    @click.command()
    @click.option("--debug", is_flag=True, expose_value=False)
    def fail() -> None:
        raise error

    return fail


def commands() -> Iterator[list[str]]:
    """The words of every command there is."""
    context = click.Context(tinyunet)
    yield []
    for verb in VERBS:
        yield [verb]
        command = tinyunet.get_command(context, verb)
        if isinstance(command, click.Group):
            yield from ([verb, name] for name in command.commands)


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (TinyUNetError("a", "is odd"), 70, "error: a: is odd\n"),
        (ImageError("a.png", "empty", "is empty"), 3, "error: a.png: is empty\n"),
        (RefusedError("a", "is unusable"), 4, "error: a: is unusable\n"),
        (
            ArtifactError("a.onnx", "was changed", "do it"),
            4,
            "error: a.onnx: was changed (do it)\n",
        ),
        (DataError("data", "has no label"), 4, "error: data: has no label\n"),
        (RuntimeUnavailable("cuda:0", "is not here"), 5, "error: cuda:0: is not here\n"),
        (GateFailed("a", "is too slow"), 6, "error: a: is too slow\n"),
        (OSError(28, "No space left on device"), 5, "error: [Errno 28] No space left on device\n"),
        (MemoryError(), 5, "error: out of memory\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (click.exceptions.Exit(3), 3, ""),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_each_error_has_its_exit_code_and_one_line(
    error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(failing(error), []) == code
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.lstrip("\n") == line


def test_a_traceback_only_with_debug(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for error in (RefusedError("a", "is unusable"), MemoryError(), ZeroDivisionError()):
        code = run(failing(error), [])
        assert "Traceback" not in capsys.readouterr().err
        assert run(failing(error), ["--debug"]) == code
        told = capsys.readouterr().err
        assert told.startswith("Traceback")
        assert told.splitlines()[-1].startswith("error: ")


def test_a_name_cannot_forge_lines_or_colours() -> None:
    name = "a\nerror: b\r\x1b[31m" + os.fsdecode(b"\xff")
    line = str(RefusedError(name, "is ünusable"))
    assert line == "a\\nerror: b\\r\\x1b[31m\\udcff: is ünusable"


def test_a_bug_is_one_line_and_the_trace_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert run(failing(ZeroDivisionError("two\nlines " + os.fsdecode(b"\xff"))), []) == 70
    line = capsys.readouterr().err
    (trace,) = tmp_path.iterdir()
    assert line.count("\n") == 1
    assert line.startswith("error: a bug of ours: ZeroDivisionError('two\\nlines \\udcff') (")
    assert line.endswith(f"(the trace is in {trace})\n")
    assert "Traceback" in trace.read_text()
    assert "in fail" in trace.read_text()


def test_a_bug_is_told_where_no_trace_can_be_kept(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(**_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(tempfile, "NamedTemporaryFile", fail)
    assert run(failing(ZeroDivisionError()), []) == 70
    assert capsys.readouterr().err == (
        "error: a bug of ours: ZeroDivisionError() (--debug shows the trace)\n"
    )


def test_what_a_command_returns_is_the_exit_code() -> None:
    for outcome in (0, 3, None):
        command = click.Command("fine", callback=lambda value=outcome: value)
        assert run(command, []) == (outcome or 0)


@pytest.mark.parametrize("arguments", [["--nonsense"], ["nonsense"], ["info", "--nonsense"], []])
def test_usage_errors(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tinyunet, arguments) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert "Usage:" in output.err
    assert "Traceback" not in output.err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tinyunet, ["--version"]) == 0
    assert capsys.readouterr().out == f"tinyunet, version {__version__}\n"


def test_the_group_lists_every_verb_with_a_whole_sentence(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(tinyunet, ["--help"]) == 0
    listed = capsys.readouterr().out.partition("Commands:\n")[2].partition("\n\n")[0].splitlines()
    assert [line.split()[0] for line in listed] == list(VERBS)
    assert [line for line in listed if line.endswith("...")] == []


@pytest.mark.parametrize("entry", [main, infer_main], ids=["tinyunet", "tinyunet-infer"])
def test_entry_points_exit_with_the_code(
    entry: Callable[[], None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, code in (["--help"], 0), (["--nonsense"], 2):
        monkeypatch.setattr(sys, "argv", ["tinyunet", *arguments])
        with pytest.raises(SystemExit) as caught:
            entry()
        assert caught.value.code == code
    assert "Usage:" in capsys.readouterr().out


HELP = """
import sys
from tinyunet_deploy.cli import main
try:
    main()
finally:
    print(*{name.partition(".")[0] for name in sys.modules}, file=sys.stderr)
"""


@pytest.mark.parametrize("words", list(commands()), ids=" ".join)
def test_help_answers_at_once_and_loads_no_runtime(words: list[str]) -> None:
    """Under 0.4 s of processor time, in the best of five: a busy machine is no failure."""
    seconds = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            [sys.executable, "-c", HELP, *words, "--help"],
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            capture_output=True,
            text=True,
            check=False,
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(
            after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("Usage: ")
        assert HEAVY & set(done.stderr.split()) == set()
        if seconds[-1] < 0.4:
            return
    pytest.fail(f"{seconds}")


def test_the_names_of_backends_on_the_command_line_are_those_there_are() -> None:
    help_text = " ".join(CliRunner().invoke(infer, ["--help"]).output.split())
    assert f"--backend [{'|'.join(BACKENDS)}]" in help_text
    assert CliRunner().invoke(infer, ["x", "-o", "y", "--backend", "none"]).exit_code == 2


def test_a_reader_that_goes_away_is_no_bug(tiny_onnx: Path, tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-c", HELP, "info", tiny_onnx],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "TMPDIR": str(tmp_path)},
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(write)
    assert "bug" not in done.stderr
    assert "Traceback" not in done.stderr
    assert done.returncode != 0
    assert list(tmp_path.iterdir()) == []


def test_info_says_what_a_model_is(tiny_onnx: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tinyunet, ["info", str(tiny_onnx)]) == 0
    told = capsys.readouterr().out
    digest = hashlib.sha256(tiny_onnx.read_bytes()).hexdigest()
    for fact in ("onnx, fp32", "uint8 [N, 1, 64, 64], any N", f"{digest}  (checked)", "3 px"):
        assert fact in told
    assert str(tiny_onnx) in told
    assert run(tinyunet, ["info", str(tiny_onnx), "--format", "json"]) == 0
    fields = json.loads(capsys.readouterr().out)
    assert fields == json.loads(Path(f"{tiny_onnx}.json").read_text())


def test_info_of_a_file_whose_name_looks_like_markup_or_is_no_utf_8(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, shown in (b"[red]old[b]", "[red]old[b]"), (b"\xff", "\ufffd"):
        path = tmp_path / os.fsdecode(name + b".safetensors")
        path.write_bytes(tiny_checkpoint.read_bytes())
        Path(f"{path}.json").write_bytes(Path(f"{tiny_checkpoint}.json").read_bytes())
        assert run(tinyunet, ["info", str(path)]) == 0
        assert f"{shown}.safetensors" in capsys.readouterr().out


def test_info_refuses_a_changed_file(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(tiny_checkpoint.read_bytes()[:-1])
    Path(f"{path}.json").write_bytes(Path(f"{tiny_checkpoint}.json").read_bytes())
    assert run(tinyunet, ["info", str(path)]) == 4
    assert capsys.readouterr().err.startswith(f"error: {path}: is not the file that its sidecar")


# --- the front door -------------------------------------------------------------------------------


@pytest.mark.parametrize("entry", ["tinyunet_deploy", "tinyunet", "tinyunet-infer"])
def test_every_entry_says_its_version(entry: str) -> None:
    code = "infer_main" if entry == "tinyunet-infer" else "main"
    start = ["-c", f"from tinyunet_deploy.cli import {code}; {code}()"]
    start = ["-m", entry] if entry == "tinyunet_deploy" else start
    done = subprocess.run(
        [sys.executable, *start, "--version"], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split()[-1] == __version__


def test_help_documents_completion_and_bash_can_complete(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(tinyunet, ["--help"]) == 0
    assert "'eval \"$(_TINYUNET_COMPLETE=bash_source tinyunet)\"' >> ~/.bashrc" in (
        capsys.readouterr().out
    )
    shell = {"COMP_WORDS": "tinyunet parity --ba", "COMP_CWORD": "2"}
    done = subprocess.run(
        [sys.executable, "-c", "import sys; sys.argv[0] = 'tinyunet'\n"
         "from tinyunet_deploy.cli import main; main()"],
        cwd=REPOSITORY,
        env={**os.environ, **shell, "_TINYUNET_COMPLETE": "bash_complete"},
        capture_output=True,
        text=True,
        check=True,
    )  # fmt: skip
    assert done.stdout.split() == ["plain,--backend", "plain,--batch-size"]
