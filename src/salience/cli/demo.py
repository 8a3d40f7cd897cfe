"""``salience demo``."""

import importlib.resources
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from salience import __version__
from salience.cli._shared import DEFAULT_MODEL, progress, tell
from salience.cli.explain import COLUMNS, cells, print_results

if TYPE_CHECKING:
    from salience.core.explanation import Explanation
    from salience.show.batch import Row

DEMO_PHOTOGRAPHS = ("chelsea.png", "coffee.png", "rocket.jpg")
DEMO_METHODS = ("gradient", "smoothgrad", "fusiongrad", "gradcam", "rise")


def demo(out: Annotated[Path, typer.Option(help="Folder for the pictures and the page.", metavar="DIR")] = Path("out/demo")) -> None:
    """Explain three photographs by five methods and write a page about it."""
    folder = importlib.resources.files("skimage") / "data"
    photographs = [Path(str(folder / name)) for name in DEMO_PHOTOGRAPHS]
    from salience.show.batch import Request, explain_files

    with progress() as report:
        found = list(explain_files(Request(photographs, out, DEMO_METHODS, DEFAULT_MODEL), report))
        found.sort(key=lambda each: photographs.index(Path(each[0].image)))
        report("drawing the page", 0, None)
        _report_page(found, out)
    print_results([row for row, _ in found])
    tell(f"Open {out / 'index.html'}: the maps side by side and one by one.")


def _report_page(results: "Sequence[tuple[Row, Explanation]]", out: Path) -> None:
    """The contact sheet and the page of the demo."""
    from salience.core.files import write_whole
    from salience.show.figures import contact_sheet
    from salience.show.overlay import to_png
    from salience.show.page import template

    by_image: dict[str, list] = {}
    for row, e in results:
        by_image.setdefault(row.image, []).append((row, e))
    titles = [f"{Path(image).name}: {found[0][0].label}, probability {found[0][0].probability:.3f}" for image, found in by_image.items()]
    sheet = to_png(contact_sheet([e for _, e in results]))
    sections = [
        {"title": title, "shots": [{"caption": _caption(row), "png": Path(row.overlay).read_bytes(), "record": e.record | {"method": e.method, "score": e.score}} for row, e in found]}
        for title, found in zip(titles, by_image.values(), strict=True)
    ]
    lead = (
        f"What {DEFAULT_MODEL} saw in {len(by_image)} photographs, by {len(DEMO_METHODS)} methods. Every map of a random method comes with the standard error of each of its pixels. "
        f"Made by salience {__version__}."
    )
    text = template("show/page.html").render(title="What the model saw", lead=lead, columns=COLUMNS, rows=[cells(row) for row, _ in results], sheet=sheet, sections=sections)
    for name, content in (("contact_sheet.png", sheet), ("index.html", text.encode())):
        write_whole(out / name, content)


def _caption(row: "Row") -> str:
    return row.method if row.relative_error is None else f"{row.method}, {row.samples} samples, relative error {row.relative_error:.3f}"
