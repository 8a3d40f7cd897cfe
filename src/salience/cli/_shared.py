"""What the commands share: options, tables, the progress bar."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated

import typer

from salience.core.files import finite

if TYPE_CHECKING:
    from rich.console import Console

    from salience.core.types import Report

DEFAULT_MODEL = "efficientnet-lite0"
MODEL_HELP = "A name of salience list models, trained:FOLDER, torchvision:NAME, timm:NAME or python:package.module:factory."

Json = Annotated[bool, typer.Option("--json", help="One JSON object a line on standard output.")]


def say(message: str) -> None:
    """One line on standard error."""
    print(" ".join(message.split()), file=sys.stderr, flush=True)  # noqa: T201  # the output itself


def print_json(value: object) -> None:
    """A line of JSON on standard output, at once, in which NaN and infinity are null, and what JSON does not know is text."""
    print(json.dumps(finite(value), allow_nan=False, default=lambda each: float(each) if isinstance(each, Decimal) else str(each)), flush=True)  # noqa: T201  # the output itself


def tell(sentence: str, style: str | None = None) -> None:
    """A sentence on standard output, on one line however narrow the terminal is."""
    console().print(sentence, style=style, highlight=False, markup=False, soft_wrap=True)


def console() -> "Console":
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=160)


@contextmanager
def progress() -> "Iterator[Report]":
    """A bar on standard error, if that is a terminal; what is reported to it is shown until the block ends."""
    if not sys.stderr.isatty():
        yield lambda what, done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.text import Text

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=sys.stdout.isatty()) as progress:
        task = progress.add_task("", total=None)
        shown = ""

        def report(what: str, done: int, total: int | None) -> None:
            nonlocal shown
            if what != shown:
                progress.reset(task, description=Text(what).plain.replace("[", "\\["), total=total)
                shown = what
            progress.update(task, completed=done, total=total)

        yield report
