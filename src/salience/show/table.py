"""Tables for a terminal and for Jupyter."""

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text


def table(headings: Sequence[str], rows: Sequence[Sequence[str | Text]]) -> Table:
    """A table that rich prints; what is in a cell is no markup. Columns of numbers stand to the right.

    Args:
        headings: One a column; two may be equal.
        rows: A cell a column each.
    """
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for place, heading in enumerate(headings):
        cells = [text for row in rows if (text := str(row[place])) not in ("", "-")]
        made.add_column(Text(heading), justify="right" if cells and all(map(_is_number, cells)) else "left", overflow="fold")
    for row in rows:
        made.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in row))
    return made


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
