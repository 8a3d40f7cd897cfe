"""The command line: ``salience explain`` and the other commands, one file each.

Nothing heavy is imported before a command needs it, so that ``--help`` and mistakes answer at once.
"""

import atexit
import errno
import gc
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from salience import __version__
from salience.cli import attack, audit, demo, explain, listing, measure, study, train, tune
from salience.cli._shared import say
from salience.core.errors import InputError, lacks_memory

INTERRUPTED = 130
"""Exit code after Ctrl-C; newer versions of typer return it, older ones raise."""

TERMINATED = 143
"""Exit code after SIGTERM, which batch systems send when the time is over."""

WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
"""Variables by which the user may have said what threads do while they wait for each other."""

OBJECTS = 10_000
"""New objects after which Python looks for cycles among them; by default after 700, again and again while torch is loaded."""

app = typer.Typer(name="salience", rich_markup_mode="rich", add_completion=False, context_settings={"help_option_names": ["-h", "--help"]})
app.command(epilog=explain.EXAMPLES)(explain.explain)
app.command(epilog=measure.EXAMPLES)(measure.measure)
app.command(epilog=audit.EXAMPLES)(audit.audit)
app.command(epilog=attack.EXAMPLES)(attack.attack)
app.add_typer(study.app, name="study")
app.command(epilog=train.EXAMPLES)(train.train)
app.command(epilog=tune.EXAMPLES)(tune.tune)
app.add_typer(listing.app, name="list")
app.command()(demo.demo)


def _version(asked: bool) -> bool:
    if asked:
        typer.echo(f"salience {__version__}")
        raise typer.Exit
    return asked


@app.callback(epilog="salience COMMAND --help shows a command's options and examples.")
def salience(
    version: Annotated[bool, typer.Option("--version", help="Show the version.", callback=_version, is_eager=True)] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.", expose_value=False)] = False,
) -> None:
    """Explain what an image classifier saw, with an error bar on the map, and measure whether the explanation can be trusted."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; mistakes become one line on standard error.

    Args:
        arguments: Without the program's name; by default those of the process.

    Returns:
        The exit code: 0, 1 for a bug or a full memory, 2 for bad input, 130 after Ctrl-C, 143 after SIGTERM.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    command: Any = typer.main.get_command(app)
    _add_option(command, next(each for each in command.params if each.name == "debug"))
    waiting_briefly(os.environ)
    with warnings.catch_warnings(), ending_on_sigterm(), collecting_seldom():
        warnings.filterwarnings("always", category=UserWarning, module=r"salience\.")
        warnings.showwarning = lambda message, *_, **__: say(f"Warning: {message}")
        try:
            code = command.main(args=arguments, prog_name="salience", standalone_mode=False)
            sys.stdout.flush()
        except BaseException as error:
            if "--debug" in arguments:
                traceback.print_exc()
            return _failed(error)
    return _failed(KeyboardInterrupt()) if code == INTERRUPTED else 0


def _add_option(command: Any, option: Any) -> None:
    """Have all commands below one take an option that `main` looks at."""
    for each in command.commands.values():
        if hasattr(each, "commands"):
            _add_option(each, option)
        else:
            each.params.append(option)


@contextmanager
def ending_on_sigterm() -> Iterator[None]:
    """SIGTERM ends a command as Ctrl-C does: files are whole or not there, workers end too."""

    def end(*_: object) -> None:
        raise SystemExit(TERMINATED)

    if threading.current_thread() is not threading.main_thread():  # only there can a handler be set
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def collecting_seldom() -> Iterator[None]:
    """Python looks for unreachable cycles less often, and not at all among what is left at its end: both take long where torch was loaded for a single picture."""
    before = gc.get_threshold()
    gc.set_threshold(OBJECTS, *before[1:])
    atexit.register(_leave_the_rest)
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _leave_the_rest() -> None:
    """At the end of the process: what is left goes with it. DuckDB would call that a leak, so where it was used Python tidies up."""
    if "duckdb" not in sys.modules:
        gc.freeze()


def waiting_briefly(environment: MutableMapping[str, str]) -> None:
    """Have threads spin only briefly while they wait, and then sleep, unless the user has said otherwise.

    OpenMP's spin much longer: beside another busy process they take the processor from the very thread they wait for
    (`bench/busy.py` measures it). It is read once, when torch is loaded, so a library can leave this to its user alone.
    """
    if not any(name in environment for name in WAITING):
        environment["GOMP_SPINCOUNT"] = "5000"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error, what it came of, and so on: Ctrl-C within the import of a compiled module comes out as an ImportError."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _failed(error: BaseException) -> int:
    """Say what went wrong in one line; the exit code."""
    error = next((each for each in _chain(error) if isinstance(each, KeyboardInterrupt | SystemExit)), error)
    if isinstance(error, SystemExit):
        if error.code == TERMINATED:
            say("Terminated: every file that was written is whole.")
        return error.code if isinstance(error.code, int) else 1
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        say("Interrupted: every file that was written is whole.")
        return INTERRUPTED
    if isinstance(error, InputError):
        say(f"Error: {error}")
        return 2
    if hasattr(error, "format_message"):  # a usage error; its class differs between versions of typer
        message = error.format_message().rstrip(".") or "Missing command"
        say(f"Error: {message}{' See' if message.endswith('?') else '; see'} {getattr(getattr(error, 'ctx', None), 'command_path', 'salience')} --help.")
        return 2
    if isinstance(error, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # whoever read the output has left
        return 1
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        say("Error: There is no space left to write to: free some.")
        return 2
    if lacks_memory(error):
        say("Error: The memory is full: close other programs, explain smaller pictures, or take a smaller model.")
        return 1
    say(f"Error: {type(error).__name__}: {error}. This is a bug in salience or in the model's own code: --debug shows where.")
    return 1
