"""Pages that are one HTML file: they load nothing from anywhere and follow the reader's light or dark setting."""

import base64
import json
from typing import TYPE_CHECKING

from salience.core.files import finite

if TYPE_CHECKING:
    from jinja2 import Template


def template(name: str) -> "Template":
    """A page of the package to be filled in: ``inline`` makes a PNG file an address, ``record`` a dictionary JSON, ``stacked`` two lines of the two parts of a cell."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(loader=PackageLoader("salience", ""), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["inline"] = lambda png: f"data:image/png;base64,{base64.b64encode(png).decode()}"
    environment.filters["record"] = lambda record: json.dumps(finite(dict(record)), indent=2, allow_nan=False)
    environment.filters["stacked"] = lambda cell: Markup("<br>").join(cell.split(" ", 1))
    return environment.get_template(name)
