"""A report as one HTML file that needs nothing else: pictures, styles and records are inside."""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from salience.core.explanation import finite


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
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(loader=PackageLoader("salience.show", ""), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["inline"] = lambda png: f"data:image/png;base64,{base64.b64encode(png).decode()}"
    environment.filters["record"] = lambda record: json.dumps(finite(dict(record)), indent=2, allow_nan=False)
    return environment.get_template("page.html").render(title=title, lead=lead, columns=columns, rows=rows, sheet=sheet, sections=sections)
