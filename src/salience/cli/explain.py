"""``salience explain``."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from salience.cli._shared import DEFAULT_MODEL, MODEL_HELP, Json, console, print_json, progress, tell

if TYPE_CHECKING:
    from salience.show.batch import Row

DEFAULT_METHOD = "rise"
"""Works for any model, and its map has an error bar."""

COLUMNS = ("image", "class", "prob.", "method", "samples", "rel. error", "seconds")

EXAMPLES = """[bold]Examples[/bold]

salience explain cat.jpg

salience explain *.jpg --method smoothgrad --method rise:samples=1000 --target top3

salience explain cat.jpg --method 'smoothgrad:noise_level=0.2,base=(integrated_gradients:steps=16)'

salience explain cat.jpg --target "Egyptian cat" --tolerance 0.1 --json | jq .relative_error

salience explain cat.jpg --model python:my_package.models:make --out maps
"""


def explain(
    images: Annotated[list[Path], typer.Argument(help="Photographs: JPEG, PNG, ...", metavar="IMAGE", show_default=False)],
    model: Annotated[str, typer.Option(metavar="M", help=MODEL_HELP, rich_help_panel="What is explained")] = DEFAULT_MODEL,
    target: Annotated[
        list[str] | None, typer.Option(help="auto (the predicted class), top3, a class index or a class name; may be repeated.", show_default="auto", metavar="T", rich_help_panel="What is explained")
    ] = None,
    score: Annotated[
        str | None,
        typer.Option(help="logit, probability, log_probability or sigmoid, for every method that depends on one.", show_default="the method's own", metavar="S", rich_help_panel="What is explained"),
    ] = None,
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
) -> None:
    """Explain photographs: for each image and method an overlay and a map with its error.

    Writes IMAGE.METHOD.png and .npz; where an option is not the default, six digits that stand for the options follow the method.
    """
    from salience.show.batch import Request, explain_files

    request = Request(images, out, method or [DEFAULT_METHOD], model, target or ["auto"], score, seed, samples, tolerance, fit, device, precision)
    rows = []
    with progress() as report:
        for row, _ in explain_files(request, report):
            rows.append(row)
            if as_json:
                print_json(dataclasses.asdict(row))
    if not as_json:
        print_results(rows)
        tell(f"{len(rows)} overlay(s) (.png) and map(s) with errors (.npz) are in {out}.")


def cells(row: "Row") -> list[str]:
    """What tables show of a result, in the order of `COLUMNS`."""
    error = "-" if row.relative_error is None else f"{row.relative_error:.3f}{' (too large)' if row.converged is False else ''}"
    return [Path(row.image).name, row.label, f"{row.probability:.3f}", row.method, str(row.samples or "-"), error, f"{row.seconds:.1f}"]


def print_results(rows: "Sequence[Row]") -> None:
    """The results as a table."""
    from salience.show.table import table

    order = {key: place for place, key in enumerate(dict.fromkeys((row.image, row.target) for row in rows))}
    images = {image: place for place, image in enumerate(dict.fromkeys(row.image for row in rows))}
    alike = len({Path(image).name for image in images}) < len(images)  # pictures of one name in several folders
    lines, last = [], None
    for row in sorted(rows, key=lambda each: (images[each.image], order[each.image, each.target])):
        same = (row.image, row.target) == last
        shown = [row.image if alike else Path(row.image).name, *cells(row)[1:]]
        lines.append(["" if same and place < 3 else cell for place, cell in enumerate(shown)])
        last = (row.image, row.target)
    console().print(table(COLUMNS, lines))
