"""Sheets of bare maps: rows and columns of panels with headings, and a legend that says what the colours mean."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from salience.show.colour import AGAINST, FOR, HEAT, PERCENTILE, Scale, scale_of
from salience.show.overlay import FAINT, drawing

SIDE, GAP, LINE = 2.05, 0.1, 0.17
"""Of a panel, between panels, and of a line of text, in inches."""

LABEL = 1.25
"""Width of the rows' headings."""


@dataclass(frozen=True)
class Panel:
    """One picture of a sheet.

    Attributes:
        picture: RGB in [0, 1], (h, w, 3).
        note: A line or two below it.
    """

    picture: np.ndarray
    note: str = ""


def photograph(image: Tensor, note: str = "") -> Panel:
    """An image (c, h, w) in [0, 1]."""
    return Panel(image.as_subclass(Tensor).expand(3, -1, -1).permute(1, 2, 0).clamp(0, 1).numpy(), note)


def map_panel(values: Tensor, note: str = "", *, signed: bool = False) -> Panel:
    """A map (h, w), each on a scale of its own: signed ones in blue and red about 0, others from 0 in one colour."""
    array = values.double().numpy()
    scale = scale_of(array, signed=True) if signed else Scale(0.0, float(np.percentile(array, PERCENTILE)) or 1.0, False, HEAT)
    return Panel(scale.colour(array), note)


def sheet(columns: Sequence[str], rows: Sequence[tuple[str, Sequence[Panel | None]]], legend: str, *, signed: bool = False) -> Figure:
    """Panels in rows and columns.

    Args:
        columns: Headings.
        rows: Each row's heading and panels; None leaves a place empty.
        legend: What is seen, below; what the colours mean is added.
        signed: Whether the maps have blue and red.
    """
    width = LABEL + len(columns) * (SIDE + GAP)
    meaning = f"red speaks for the class, blue against it, full from the {PERCENTILE}th percentile of |value|" if signed else f"from 0 (pale) to the {PERCENTILE}th percentile (dark)"
    lines = textwrap.wrap(f"{legend} Colours, a scale for each map: {meaning}.", int(width * 14))
    heads = [textwrap.wrap(heading, 28) for heading in columns]
    top, below = LINE * max(map(len, heads)) + GAP, 2 * LINE + GAP
    height = top + len(rows) * (SIDE + below) + LINE * (len(lines) + 2)
    with drawing():
        figure = Figure(figsize=(width, height), dpi=100)
        for column, heading in enumerate(heads):
            figure.text((LABEL + column * (SIDE + GAP)) / width, 1 - top / height, "\n".join(heading), size=9, weight="bold", va="bottom")
        for row, (heading, panels) in enumerate(rows):
            upper = top + row * (SIDE + below) + 0.04
            figure.text(0.06 / width, 1 - (upper + SIDE / 2) / height, "\n".join(textwrap.wrap(heading, 13)), size=9, weight="bold", va="center")
            for column, panel in enumerate(panels):
                if panel is not None:
                    left = LABEL + column * (SIDE + GAP)
                    axes = figure.add_axes((left / width, 1 - (upper + SIDE) / height, SIDE / width, SIDE / height))
                    axes.imshow(panel.picture)
                    axes.axis("off")
                    figure.text(left / width, 1 - (upper + SIDE + 0.04) / height, "\n".join(textwrap.wrap(panel.note, 34)[:2]), size=7.5, va="top", color=FAINT)
        bar = figure.add_axes((LABEL / width, (LINE * len(lines) + 0.16) / height, 2 * SIDE / width, 0.1 / height))
        strip = Scale(-1.0, 1.0, True, AGAINST + FOR[1:]) if signed else Scale(0.0, 1.0, False, HEAT)
        bar.imshow(strip.colour(np.linspace(strip.low, strip.high, 256))[None], aspect="auto")
        bar.axis("off")
        figure.text(LABEL / width, 0.06 / height, "\n".join(lines), size=8, va="bottom")
    return figure
