"""A report as one HTML file that needs nothing else: pictures, styles and records are inside."""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from salience.core.files import finite

if TYPE_CHECKING:
    from jinja2 import Template


@dataclass(frozen=True)
class Shot:
    """One overlay on the page.

    Attributes:
        caption: What it shows.
        png: The picture, a PNG file.
        record: How it was made.
    """

    caption: str
    png: bytes
    record: Mapping[str, Any]


@dataclass(frozen=True)
class Section:
    """All overlays of one image.

    Attributes:
        title: The image and its predicted class.
        shots: The overlays.
    """

    title: str
    shots: Sequence[Shot]


def template(name: str) -> "Template":
    """A page of the package to be filled in: ``inline`` makes a PNG file an address, ``record`` a dictionary JSON, ``stacked`` two lines of the two parts of a cell."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(loader=PackageLoader("salience", ""), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["inline"] = lambda png: f"data:image/png;base64,{base64.b64encode(png).decode()}"
    environment.filters["record"] = lambda record: json.dumps(finite(dict(record)), indent=2, allow_nan=False)
    environment.filters["stacked"] = lambda cell: Markup("<br>").join(cell.split(" ", 1))
    return environment.get_template(name)


def page(title: str, lead: str, columns: Sequence[str], rows: Sequence[Sequence[str]], sheet: bytes, sections: Sequence[Section]) -> str:
    """The HTML of a report; it loads nothing from anywhere and follows the reader's light or dark setting.

    Args:
        title: Of the page.
        lead: One paragraph: what was done.
        columns: Headings of the table.
        rows: Its cells.
        sheet: The contact sheet, a PNG file.
        sections: One an image.
    """
    return template("show/page.html").render(title=title, lead=lead, columns=columns, rows=rows, sheet=sheet, sections=sections)
