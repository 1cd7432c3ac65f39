"""The command line: ``tinyunet VERB`` and ``tinyunet-infer``.

A verb's module is imported when the verb is called, and imports its heavy packages only when it
runs, so that ``--help`` answers at once.
"""

# ruff: noqa: E402
from __future__ import annotations

import os
import signal
import sys
from typing import Final, NoReturn

# Before the other imports, which take a tenth of a second: until our own handlers are set, SIGINT
# ends the program. Python's handler would raise an exception, which the import system may swallow.
# Nothing is changed in programs of others.
_is_ours = sys.argv[0].removesuffix(".exe").endswith(("tinyunet", "tinyunet-infer"))
if _is_ours and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _end(number: int, _: object) -> NoReturn:
    os._exit(128 + number)


# To the first process of a container the kernel gives no signal without a handler.
if _is_ours and os.getpid() == 1:
    for _number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(_number, _end)

import contextlib
import importlib
import tempfile
import traceback

import click

from tinyunet_deploy import __version__, systems
from tinyunet_deploy.cli import stopping
from tinyunet_deploy.cli.streams import open_streams
from tinyunet_deploy.errors import RuntimeUnavailable, TinyUNetError, lacks_memory

VERBS: Final = {
    "accept": "tinyunet_deploy.cli.accept:accept",
    "adopt": "tinyunet_deploy.cli.adopt:adopt",
    "benchmark": "tinyunet_deploy.cli.benchmark:benchmark",
    "build": "tinyunet_deploy.cli.build:build",
    "data": "tinyunet_deploy.cli.data:data",
    "doctor": "tinyunet_deploy.cli.doctor:doctor",
    "drift": "tinyunet_deploy.cli.drift:drift",
    "engine": "tinyunet_deploy.cli.engine:engine",
    "evaluate": "tinyunet_deploy.cli.evaluate:evaluate",
    "infer": "tinyunet_deploy.cli.infer:infer",
    "info": "tinyunet_deploy.cli.info:info",
    "line-sim": "tinyunet_deploy.cli.line_sim:line_sim",
    "parity": "tinyunet_deploy.cli.parity:parity",
    "repeatability": "tinyunet_deploy.cli.repeatability:repeatability",
    "triton": "tinyunet_deploy.cli.triton:triton",
    "tune": "tinyunet_deploy.cli.tune:tune",
    "verify": "tinyunet_deploy.cli.verify:verify",
    "watch": "tinyunet_deploy.cli.watch:watch",
}
"""Verb -> ``module:name`` of its command."""


_LEAST_ADDRESS_SPACE: Final = 512 << 20
"""Bytes of address space below which imports have failed at a place that varies from run to run.
OpenBLAS, which numpy loads, then ends the process itself."""

_COMPLETION: Final = """\b
Completion of verbs and options, one line for your shell:
  bash  echo 'eval "$(_TINYUNET_COMPLETE=bash_source tinyunet)"' >> ~/.bashrc
  zsh   echo 'eval "$(_TINYUNET_COMPLETE=zsh_source tinyunet)"' >> ~/.zshrc
  fish  _TINYUNET_COMPLETE=fish_source tinyunet > ~/.config/fish/completions/tinyunet.fish
For tinyunet-infer the variable is _TINYUNET_INFER_COMPLETE."""


class _Verbs(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        module, _, name = VERBS[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command


@click.group(
    cls=_Verbs,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=_COMPLETION,
)
@click.version_option(__version__, prog_name="tinyunet")
def tinyunet() -> None:
    """Take a trained defect-segmentation network to the production line."""


def run(command: click.Command, arguments: list[str] | None = None) -> int:
    """Run a command; return its exit code after at most one line on stderr for an error."""
    arguments = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in arguments
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")  # our own error says what cannot be decoded
    try:
        _check_address_space()
        with stopping.ended_by_signals():
            outcome = command.main(args=arguments, standalone_mode=False)
        return outcome if isinstance(outcome, int) else 0
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.ClickException as problem:
        problem.show()
        return problem.exit_code
    except (click.Abort, KeyboardInterrupt):  # before signals are handled, or at a prompt
        _say(stopping.farewell(resumable=False))
        return 128 + signal.SIGINT
    except SystemExit as stop:  # click's own: 0 after completion, 1 for a closed pipe
        return 128 + systems.SIGPIPE if stop.code else 0
    except TinyUNetError as error:
        if debug:
            traceback.print_exc()
        _say(f"error: {error}")
        return error.exit_code
    except (MemoryError, OSError) as error:
        if debug:
            traceback.print_exc()
        _say(f"error: {_of_the_machine(error)}")
        return 5
    except Exception as error:
        if debug:
            traceback.print_exc()
        if isinstance(error, (RuntimeError, ImportError)) and lacks_memory(str(error)):
            limits = "the limit of processes or of memory is reached"
            _say(f"error: {error} ({limits})")
            return RuntimeUnavailable.exit_code
        _say(f"error: a bug of ours: {error!r} ({_keep_trace()})")
        return 70


def _check_address_space() -> None:
    limit = systems.address_space_bytes()
    if limit is not None and limit < _LEAST_ADDRESS_SPACE:
        raise RuntimeUnavailable(
            "tinyunet",
            f"does not work in an address space of {limit >> 20} MiB",
            f"ulimit -v {_LEAST_ADDRESS_SPACE >> 10}, or more",
        )


def _of_the_machine(error: MemoryError | OSError) -> str:
    """Return one line for a system error that no module turned into one of the library's errors."""
    if isinstance(error, OSError) and isinstance(error.filename, str):
        return str(TinyUNetError(error.filename, error.strerror or "fails"))
    return str(error) or "out of memory"


def _keep_trace() -> str:
    trace = traceback.format_exc().encode("utf-8", "backslashreplace")
    try:
        with tempfile.NamedTemporaryFile(
            prefix="tinyunet-crash-", suffix=".txt", delete=False
        ) as file:
            file.write(trace)
    except OSError:
        return "--debug shows the trace"
    return f"the trace is in {file.name}"


def _say(line: str) -> None:
    """Write a line to stderr, which may be closed or full."""
    with contextlib.suppress(OSError, ValueError):
        click.echo(line, err=True)


def main() -> None:
    """Entry point of ``tinyunet``."""
    open_streams()
    end(run(tinyunet))


def infer_main() -> None:
    """Entry point of ``tinyunet-infer``, the same as ``tinyunet infer``."""
    from tinyunet_deploy.cli.infer import infer

    open_streams()
    end(run(infer))


def end(code: int) -> NoReturn:
    """End this process with an exit code, even if stdout or stderr cannot be written.

    If stdout cannot take the results, as on a full disk, a code of 0 becomes 5. Python by itself
    would exit with 120.
    """
    for stream, name in ((sys.stdout, "stdout"), (sys.stderr, "stderr")):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError) as error:
            with contextlib.suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            if name == "stdout" and not code:
                _say(f"error: {name}: cannot write: {getattr(error, 'strerror', None) or error}")
                code = RuntimeUnavailable.exit_code
    with contextlib.suppress(ValueError):  # only the main thread may
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # nothing is left that Ctrl-C could harm
    sys.exit(code)
