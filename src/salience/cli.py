"""The command line: ``salience explain``, ``list`` and ``demo``.

Nothing heavy is imported before a command needs it, so that ``--help`` and mistakes answer at once.
"""

# ruff: noqa: ARG001  # --debug is read by `main`

import dataclasses
import errno
import importlib.resources
import json
import os
import re
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from salience import __version__
from salience.core.errors import InputError, unknown

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from salience.core.explanation import Explanation
    from salience.core.registry import Entry
    from salience.show.batch import Report, Row

DEFAULT_MODEL = "efficientnet-lite0"
DEFAULT_METHOD = "rise"
"""Works for any model, and its map has an error bar."""

DEMO_PHOTOGRAPHS = ("chelsea.png", "coffee.png", "rocket.jpg")
DEMO_METHODS = ("gradient", "smoothgrad", "fusiongrad", "gradcam", "rise")

INTERRUPTED = 130
"""Exit code after Ctrl-C; newer versions of typer return it, older ones raise."""

PRECISIONS = ("float32", "bfloat16")
COLUMNS = ("image", "class", "prob.", "method", "samples", "rel. error", "seconds")
NUMBERS = ("prob.", "samples", "rel. error", "seconds")

EXAMPLES = """[bold]Examples[/bold]

salience explain cat.jpg

salience explain *.jpg --method smoothgrad --method rise:samples=1000 --target top3

salience explain cat.jpg --method 'smoothgrad:noise_level=0.2,base=(integrated_gradients:steps=16)'

salience explain cat.jpg --target "Egyptian cat" --tolerance 0.1 --json | jq .relative_error

salience explain cat.jpg --model python:my_package.models:make --out maps
"""

app = typer.Typer(name="salience", rich_markup_mode="rich", add_completion=False, context_settings={"help_option_names": ["-h", "--help"]})
listing = typer.Typer(help="List the methods or the models.", rich_markup_mode="rich", no_args_is_help=False)
app.add_typer(listing, name="list")

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object a line on standard output.")]


def _version(asked: bool) -> bool:
    if asked:
        typer.echo(f"salience {__version__}")
        raise typer.Exit
    return asked


@app.callback(epilog="salience COMMAND --help shows a command's options and examples.")
def salience(version: Annotated[bool, typer.Option("--version", help="Show the version.", callback=_version, is_eager=True)] = False, debug: Debug = False) -> None:
    """Explain what an image classifier saw, with an error bar on the map."""


@app.command(epilog=EXAMPLES, no_args_is_help=False)
def explain(
    images: Annotated[list[Path], typer.Argument(help="Photographs: JPEG, PNG, ...", metavar="IMAGE", show_default=False)],
    model: Annotated[str, typer.Option(metavar="M", help="efficientnet-lite0, torchvision:NAME, timm:NAME or python:package.module:factory.", rich_help_panel="What is explained")] = DEFAULT_MODEL,
    target: Annotated[
        list[str] | None, typer.Option(help="auto (the predicted class), top3, a class index or a class name; may be repeated.", show_default="auto", metavar="T", rich_help_panel="What is explained")
    ] = None,
    score: Annotated[str | None, typer.Option(help="logit, probability, log_probability or sigmoid.", show_default="the method's own", metavar="S", rich_help_panel="What is explained")] = None,
    fit: Annotated[
        str | None, typer.Option(help="How a picture is brought to the model's size: crop, squash or pad.", show_default="the model's own", metavar="F", rich_help_panel="What is explained")
    ] = None,
    method: Annotated[
        list[str] | None, typer.Option(help="NAME or NAME:key=value,...; may be repeated; see salience list methods.", show_default=DEFAULT_METHOD, metavar="M", rich_help_panel="How")
    ] = None,
    samples: Annotated[int | None, typer.Option(help="Draws, for every method that has this option.", show_default="the method's own", metavar="N", rich_help_panel="How")] = None,
    tolerance: Annotated[float | None, typer.Option(help="Stop an image once the relative error of its map is at most this.", show_default="never", metavar="T", rich_help_panel="How")] = None,
    seed: Annotated[int, typer.Option(help="Of all draws: the same seed gives the same map.", metavar="N", rich_help_panel="How")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...", metavar="D", rich_help_panel="Speed")] = "cpu",
    precision: Annotated[str, typer.Option(help="float32, or bfloat16 for speed.", metavar="P", rich_help_panel="Speed")] = "float32",
    out: Annotated[Path, typer.Option(help="Folder for the overlays (.png) and the maps (.npz).", metavar="DIR", rich_help_panel="Output")] = Path("out"),
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Explain photographs: for each image and method an overlay and a map with its error.

    Writes IMAGE.METHOD.png and .npz; where an option is not the default, six digits that stand for the options follow the method.
    """
    from salience.show.batch import Request, explain_files

    if precision not in PRECISIONS:
        raise unknown("precision", precision, PRECISIONS)
    request = Request(images, out, method or [DEFAULT_METHOD], model, target or ["auto"], score, seed, samples, tolerance, fit, device, precision)
    if model.startswith("python:"):
        sys.path.append(str(Path.cwd()))
    rows = []
    with _progress() as report:
        for row, _ in explain_files(request, report):
            rows.append(row)
            if as_json:
                print(row.json(), flush=True)  # noqa: T201  # the output itself
    if not as_json:
        _print_results(rows)
        _console().print(f"{len(rows)} overlay(s) (.png) and map(s) with errors (.npz) are in {out}.", highlight=False, markup=False, soft_wrap=True)


@listing.command()
def methods(name: Annotated[str | None, typer.Argument(help="A method, to see its options.", show_default=False)] = None, as_json: Json = False, debug: Debug = False) -> None:
    """List the methods, or the options of one."""
    from rich.text import Text

    from salience.core.registry import entries

    known = {key.replace("*", "NAME"): entry for key, entry in entries("explainer").items()}
    if name is not None and name not in known:
        raise unknown("method", name, known)
    chosen = known if name is None else {name: known[name]}
    if as_json:
        for key, each in chosen.items():
            options = [{"name": field.name, "default": _default(field), "help": field.metadata.get("help", "")} for field in dataclasses.fields(each.cls)]
            print(json.dumps({"name": key, "summary": each.summary, **each.facts, "options": options}, allow_nan=False))  # noqa: T201  # the output itself
    elif name is not None:
        _print_options(known[name])
    else:
        table = _table("method", "map", "random", "gradients", "what it is")
        for key, each in chosen.items():
            facts = ("yes" if each.facts.get(fact) else "" for fact in ("stochastic", "needs_gradient"))
            table.add_row(*map(Text, (key, "signed" if each.facts.get("signed") else "unsigned", *facts, each.summary)))
        _console().print(table)
        _console().print("random: its map has an error bar. gradients: needs more of a model than its scores.\nsalience list methods NAME shows the options of one.", style="dim", highlight=False)


@listing.command()
def models(as_json: Json = False, debug: Debug = False) -> None:
    """List the models."""
    from salience.zoo.models import list_models

    for name in list_models():
        print(json.dumps({"name": name, "default": name == DEFAULT_MODEL}) if as_json else f"{name}  (the default)" if name == DEFAULT_MODEL else name)  # noqa: T201  # the output itself


@app.command()
def demo(out: Annotated[Path, typer.Option(help="Folder for the pictures and the page.", metavar="DIR")] = Path("out/demo"), debug: Debug = False) -> None:
    """Explain three photographs by five methods and write a page about it."""
    folder = importlib.resources.files("skimage") / "data"
    photographs = [Path(str(folder / name)) for name in DEMO_PHOTOGRAPHS]
    from salience.show.batch import Request, explain_files

    with _progress() as report:
        found = list(explain_files(Request(photographs, out, DEMO_METHODS, DEFAULT_MODEL), report))
        found.sort(key=lambda each: photographs.index(Path(each[0].image)))
        report("drawing the page", 0, None)
        _report_page(found, out)
    _print_results([row for row, _ in found])
    _console().print(f"Open {out / 'index.html'}: the maps side by side and one by one.", highlight=False, markup=False, soft_wrap=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; mistakes become one line on standard error.

    Args:
        arguments: Without the program's name; by default those of the process.

    Returns:
        The exit code: 0, 1 for a bug or a full memory, 2 for bad input, 130 after Ctrl-C.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    command = typer.main.get_command(app)
    with warnings.catch_warnings():
        warnings.filterwarnings("always", category=UserWarning, module=r"salience\.")
        warnings.showwarning = lambda message, *_, **__: _say(f"Warning: {message}")
        try:
            code = command.main(args=arguments, prog_name="salience", standalone_mode=False)
            sys.stdout.flush()
        except BaseException as error:
            if "--debug" in arguments:
                traceback.print_exc()
            return _failed(error)
    return _failed(KeyboardInterrupt()) if code == INTERRUPTED else 0


def _failed(error: BaseException) -> int:
    """Say what went wrong in one line; the exit code."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 1
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        _say("Interrupted: every file that was written is whole.")
        return INTERRUPTED
    if isinstance(error, InputError):
        _say(f"Error: {error}")
        return 2
    if hasattr(error, "format_message"):  # a usage error; its class differs between versions of typer
        _say(f"Error: {error.format_message().rstrip('.')}; see salience --help.")
        return 2
    if isinstance(error, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # whoever read the output has left
        return 1
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        _say("Error: There is no space left to write to: free some.")
        return 2
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or re.search(r"allocate memory|not enough memory", str(error)):
        _say("Error: The memory is full: close other programs, explain smaller pictures, or take a smaller model.")
        return 1
    _say(f"Error: {type(error).__name__}: {error}. This is a bug in salience or in the model's own code: --debug shows where.")
    return 1


def _say(message: str) -> None:
    """One line on standard error."""
    print(" ".join(message.split()), file=sys.stderr, flush=True)  # noqa: T201  # the output itself


def _console() -> "Console":
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=160)


def _table(*headings: str) -> "Table":
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in headings:
        table.add_column(heading, justify="right" if heading in NUMBERS else "left", overflow="fold")
    return table


def _cells(row: "Row") -> list[str]:
    """What tables show of a result, in the order of `COLUMNS`."""
    error = "-" if row.relative_error is None else f"{row.relative_error:.3f}"
    return [Path(row.image).name, row.label, f"{row.probability:.3f}", row.method, str(row.samples or "-"), error, f"{row.seconds:.1f}"]


def _print_results(rows: "Sequence[Row]") -> None:
    from rich.text import Text

    order = {key: place for place, key in enumerate(dict.fromkeys((row.image, row.target) for row in rows))}
    images = {image: place for place, image in enumerate(dict.fromkeys(row.image for row in rows))}
    table, last = _table(*COLUMNS), None
    for row in sorted(rows, key=lambda each: (images[each.image], order[each.image, each.target])):
        same = (row.image, row.target) == last
        table.add_row(*(Text("" if same and place < 3 else cell) for place, cell in enumerate(_cells(row))))
        last = (row.image, row.target)
    _console().print(table)


def _print_options(entry: "Entry") -> None:
    from rich.text import Text

    console = _console()
    console.print(Text(entry.summary), highlight=False)
    table = _table("option", "default", "what it is")
    for field in dataclasses.fields(entry.cls):
        table.add_row(*map(Text, (field.name, _default(field), field.metadata.get("help", ""))))
    console.print(table if table.row_count else "It has no options.")


def _default(field: dataclasses.Field) -> str:
    value = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    return "" if value is dataclasses.MISSING else str(value).lower() if value is None or isinstance(value, bool) else str(value)


@contextmanager
def _progress() -> "Iterator[Report]":
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


def _report_page(results: "Sequence[tuple[Row, Explanation]]", out: Path) -> None:
    """The contact sheet and the page of the demo."""
    from salience.core.files import atomic
    from salience.show.figures import contact_sheet
    from salience.show.page import Section, Shot, page

    by_image: dict[str, list] = {}
    for row, e in results:
        by_image.setdefault(row.image, []).append((row, e))
    titles = [f"{Path(image).name}: {found[0][0].label}, probability {found[0][0].probability:.3f}" for image, found in by_image.items()]
    sheet = contact_sheet([[e for _, e in found] for found in by_image.values()], titles)
    sections = []
    for title, found in zip(titles, by_image.values(), strict=True):
        sections.append(Section(title, [Shot(_caption(row), Path(row.overlay).read_bytes(), e.record | {"method": e.method, "score": e.score}) for row, e in found]))
    lead = (
        f"What {DEFAULT_MODEL} saw in {len(by_image)} photographs, by {len(DEMO_METHODS)} methods. Every map of a random method comes with the standard error of each of its pixels. "
        f"Made by salience {__version__}."
    )
    text = page("What the model saw", lead, COLUMNS, [_cells(row) for row, _ in results], sheet, sections)
    for name, content in (("contact_sheet.png", sheet), ("index.html", text.encode())):
        with atomic(out / name) as file:
            file.write(content)


def _caption(row: "Row") -> str:
    return row.method if row.relative_error is None else f"{row.method}, {row.samples} samples, relative error {row.relative_error:.3f}"


if __name__ == "__main__":
    sys.exit(main())
