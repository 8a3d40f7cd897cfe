"""Figures of several panels: what an explanation shows of itself, and a sheet that compares methods."""

import dataclasses
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import matplotlib.figure
import numpy as np
import torch

from salience.core.errors import InputError
from salience.core.explanation import Explanation
from salience.show.colour import Scale, error_scale
from salience.show.overlay import FAINT, INK, colour_bar, drawing, draws_of, grey_of, label_of, name_of, notes_of, number, panels, title_of, to_png, write

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ACROSS = 360
"""Longest side of a panel, in pixels at 100 dots an inch."""

SQUARE = 300
"""Longest side of a panel of a contact sheet."""

KEY = "Red speaks for the class, blue against it (with masks: above and below the map's mean); of maps without a sign darker is more; grey: the 95% interval includes what says nothing."

MOST = 32
"""Rows of a figure at most: it is to be looked at."""


class Drawing(matplotlib.figure.Figure):
    """A matplotlib figure that Jupyter displays whatever the backend; nothing of pyplot is used."""

    def _repr_png_(self) -> bytes:
        return to_png(self)


def figure(e: Explanation) -> Drawing:
    """One row an image: the picture, the map over it and, for random methods, the standard error.

    At most `MOST` images are drawn.
    """
    rows = panels(e[:MOST], ACROSS, ACROSS)
    columns = 2 if e.stderr is None else 3
    with drawing():
        heights = [each.picture.shape[0] / 100 for each in rows]
        grid = Grid(columns, heights, ACROSS / 100, above=0.42, below=0.95)
        for row, panel in enumerate(rows):
            names = textwrap.wrap(title_of(e, row), 38 * columns)
            grid.text(row, 0, names[0] + (" …" if len(names) > 1 else ""), columns)
            if e.images is None:
                grid.note(row, 0, "the picture is not known: files of maps do not hold it")
            else:
                grid.picture(row, 0, panel.picture)
            grid.picture(row, 1, panel.overlay())
            grid.bar(row, 1, panel.shown.scale, "; ".join(filter(None, [notes_of(e, row, panel.shown)[0], grey_of(panel.shown)])))
            if panel.stderr is not None and panel.shown.stderr is not None:
                scale = error_scale(panel.shown.stderr)
                grid.picture(row, 2, panel.error(scale))
                grid.bar(row, 2, scale, f"standard error: {draws_of(e, row)}")
            elif columns == 3:
                grid.note(row, 2, f"{draws_of(e, row)}; the error of the channels' sum is not known, because this was saved without blocks")
        if len(e) > MOST:
            grid.figure.text(0.02, 0.005, f"{len(e) - MOST} more images are not drawn.", size=8, color=FAINT)
        return grid.figure


def png(e: Explanation) -> bytes:
    """`figure` as a PNG file, for Jupyter."""
    return to_png(figure(e))


def contact_sheet(explanations: Sequence[Explanation], columns: int = 7) -> Drawing:
    """Methods side by side: of each image the picture as the model saw it, every map over it, and the error of the last random one.

    Args:
        explanations: By several methods or of several targets, each of one image or more. What explains the same picture stands together.
        columns: Panels in a line at most; further ones go into the next.

    Returns:
        A figure that Jupyter displays; ``contact_sheet(...).savefig("sheet.png")`` keeps it.

    Raises:
        InputError: If there is nothing to draw, or `columns` is under 1.
    """
    if not explanations or columns < 1:
        raise InputError("A contact sheet needs one explanation at least, and one column.")
    pictures: dict[object, list[Explanation]] = {}
    for e in explanations:
        for image, pixels in enumerate(e.record["images"].get("pixels", range(len(e)))):
            pictures.setdefault(pixels, []).append(e[image])
    with drawing():
        drawn = [_sheet_panels(found) for found in list(pictures.values())[:MOST]]
        lines = [each[start : start + columns] for each in drawn for start in range(0, len(each), columns)]
        grid = Grid(max(map(len, lines)), [line[0].array.shape[0] / 100 for line in lines], SQUARE / 100, above=0.46, below=0.56, bottom=0.3)
        grid.heading, grid.caption = 14, 11.5
        for place, line in enumerate(lines):
            for column, panel in enumerate(line):
                grid.text(place, column, panel.heading)
                grid.picture(place, column, panel.array)
                grid.under(place, column, panel.caption, panel.colour)
        more = f" {len(pictures) - MOST} more images are not drawn." if len(pictures) > MOST else ""
        write(grid.figure, 1 - 2 * grid.gap / grid.across, grid.gap / grid.across, 0.12 / grid.down, KEY + more, size=grid.caption, color=INK)
        return grid.figure


@dataclass(frozen=True)
class SheetPanel:
    """One panel of a contact sheet."""

    heading: str
    array: np.ndarray
    caption: str
    colour: str = FAINT


def _sheet_panels(found: Sequence[Explanation]) -> list[SheetPanel]:
    """The panels of one picture."""
    drawn = [panels(_as_seen(e), SQUARE, SQUARE)[0] for e in found]
    names = [e.method.partition(":")[0] for e in found]
    names = [name if names.count(name) == 1 else e.method for name, e in zip(names, found, strict=True)]
    labels = [label_of(e, 0) for e in found]
    several = len(set(labels)) > 1
    captions = [f"{label}; {draws_of(e, 0)}" if several else draws_of(e, 0) for e, label in zip(found, labels, strict=True)]
    made = [SheetPanel("as the model saw it" if found[0].images is not None else "picture not in the file", drawn[0].picture, name_of(found[0], 0) if several else title_of(found[0], 0), INK)]
    made += [SheetPanel(name, panel.overlay(), caption) for name, panel, caption in zip(names, drawn, captions, strict=True)]
    random = [(name, panel, error) for name, panel in zip(names, drawn, strict=True) if (error := panel.shown.stderr) is not None]
    for name, panel, error in random[-1:]:
        scale = error_scale(error)
        made.append(SheetPanel(f"error of {name}", panel.error(scale), f"standard error, {number(scale.low)} (white) to {number(scale.high)}"))
    return made


def _as_seen(e: Explanation) -> Explanation:
    """The same explanation, drawn on the model's input instead of the original picture."""
    return e if e.images is None else dataclasses.replace(e, images=e.images.as_subclass(torch.Tensor))


def wrapped(text: str, letters: int, most: int) -> str:
    """A text in so many lines at most, of more letters where it is long: `write` makes those smaller."""
    lines = textwrap.wrap(text, letters)
    return "\n".join(lines) if len(lines) <= most else wrapped(text, letters + 4, most)


class Grid:
    """Panels of one width in rows of their own heights, with room for text above and below, in inches."""

    gap = 0.18
    heading = 10.0
    caption = 8.5

    def __init__(self, columns: int, heights: Sequence[float], width: float, *, above: float, below: float, bottom: float = 0.0) -> None:
        self.heights, self.width, self.above, self.below = heights, width, above, below
        self.across = columns * (width + self.gap) + self.gap
        self.down = sum(heights) + len(heights) * (above + below) + self.gap / 2 + bottom
        self.figure = Drawing(figsize=(self.across, self.down), dpi=100)

    def _corner(self, row: int, column: int) -> tuple[float, float]:
        """Left and top of a panel, in inches from the top left corner."""
        return self.gap + column * (self.width + self.gap), sum(self.heights[:row]) + row * (self.above + self.below) + self.above

    def _axes(self, left: float, top: float, width: float, height: float) -> "Axes":
        return self.figure.add_axes((left / self.across, 1 - (top + height) / self.down, width / self.across, height / self.down))

    def picture(self, row: int, column: int, array: np.ndarray) -> "Axes":
        """Put an RGB array into a panel, in its middle; return the axes, in pixels of the array."""
        left, top = self._corner(row, column)
        width, height = array.shape[1] / 100, array.shape[0] / 100
        axes = self._axes(left + (self.width - width) / 2, top, width, height)
        axes.imshow(array, interpolation="nearest", aspect="auto")
        axes.axis("off")
        return axes

    def text(self, row: int, column: int, text: str, columns: int = 1) -> None:
        """Write a heading above a panel, as wide as some columns."""
        left, top = self._corner(row, column)
        write(self.figure, columns * self.width / self.across, left / self.across, 1 - (top - 0.08) / self.down, text, size=self.heading, va="bottom", weight="bold")

    def under(self, row: int, column: int, text: str, color: str = FAINT) -> None:
        """Write a line below a panel."""
        left, top = self._corner(row, column)
        lines = wrapped(text, int(self.width * 130 / self.caption), 2)
        write(self.figure, self.width / self.across, left / self.across, 1 - (top + self.heights[row] + 0.06) / self.down, lines, size=self.caption, va="top", color=color)

    def note(self, row: int, column: int, text: str) -> None:
        """Write in the place of a panel."""
        left, top = self._corner(row, column)
        write(self.figure, self.width / self.across, left / self.across, 1 - (top + 0.1) / self.down, "\n".join(textwrap.wrap(text, 44)), size=9, va="top", color=FAINT)

    def bar(self, row: int, column: int, scale: Scale, text: str) -> None:
        """A colour bar below a panel, and what it is."""
        left, top = self._corner(row, column)
        top += self.heights[row] + 0.08
        colour_bar(self._axes(left, top, self.width, 0.12), scale, size=8, room=0.27)
        lines = wrapped(text, 58, 3)
        write(self.figure, self.width / self.across, left / self.across, 1 - (top + 0.36) / self.down, lines, size=8, va="top", color=INK, linespacing=1.35)
