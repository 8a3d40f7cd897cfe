"""Pictures of maps: sheets of panels with headings and a legend that says what the colours mean; and curves."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from salience.show.colour import AGAINST, FOR, HEAT, PERCENTILE, Scale, scale_of
from salience.show.overlay import FAINT, drawing

SIDE, GAP, LINE = 2.05, 0.1, 0.17
"""Of a panel, between panels, and of a line of text, in inches."""

LABEL = 1.25
"""Width of the rows' headings."""

SHARE = Scale(0.0, 1.0, False, HEAT)

BARE = SHARE, f"Colours, a scale for each map: from 0 (pale) to the {PERCENTILE}th percentile (dark)."
SIGNED = Scale(-1.0, 1.0, True, AGAINST + FOR[1:]), f"Colours, a scale for each map: red speaks for the class, blue against it, full from the {PERCENTILE}th percentile of |value|."
OVERLAID = SHARE, "Colours, a scale for each map: from its lowest value (pale) to its highest (dark), over the picture in grey."
"""The colours of a sheet and what they mean: of `map_panel`, of its signed maps, of `overlaid`."""

LINES = ("#c0392b", "#1f4e9c", "#2e8b57", "#8e5ea2", "#d98e04", "#555555", "#17a2a2")
"""Colours of lines, the same order everywhere."""


@dataclass(frozen=True)
class Panel:
    """One picture of a sheet.

    Attributes:
        picture: RGB in [0, 1], (h, w, 3).
        note: A line or two below it.
    """

    picture: np.ndarray
    note: str = ""


Rows = Sequence[tuple[str, Sequence[Panel | None]]]
"""Each row's heading and panels; None leaves a place empty."""


def picture(image: Tensor) -> np.ndarray:
    """An image (c, h, w) in [0, 1] as it is drawn."""
    return image.as_subclass(Tensor).expand(3, -1, -1).permute(1, 2, 0).clamp(0, 1).numpy()


def photograph(image: Tensor, note: str = "") -> Panel:
    """The panel of an image (c, h, w) in [0, 1]."""
    return Panel(picture(image), note)


def map_panel(values: Tensor, note: str = "", *, signed: bool = False) -> Panel:
    """A map (h, w), each on a scale of its own: signed ones in blue and red about 0, others from 0 in one colour."""
    array = values.double().numpy()
    scale = scale_of(array, signed=True) if signed else Scale(0.0, float(np.percentile(array, PERCENTILE)) or 1.0, False, HEAT)
    return Panel(scale.colour(array), note)


def grey(image: Tensor, black: float = 0.3) -> np.ndarray:
    """An image in grey, faded: so light is what is black in it."""
    return np.repeat(black + (1 - black) * (picture(image) @ np.array([0.299, 0.587, 0.114]))[..., None], 3, 2)


def overlaid(saliency: Tensor, image: Tensor) -> np.ndarray:
    """A map (h, w), brought to 0..1, in colours over its image in grey."""
    low, high = saliency.min(), saliency.max()
    values = ((saliency - low) / (high - low).clamp_min(1e-30)).double().numpy()
    return 0.78 * SHARE.colour(values) + 0.22 * grey(image)


def pointed(drawn: np.ndarray, saliency: Tensor) -> np.ndarray:
    """A drawn map with a ring around its largest value."""
    row, column = divmod(int(saliency.argmax()), saliency.shape[1])
    rows, columns = np.indices(saliency.shape)
    distance = np.hypot(rows - row, columns - column) / max(saliency.shape)
    marked = drawn.copy()
    marked[(distance > 0.035) & (distance < 0.06)] = 1.0
    marked[(distance > 0.042) & (distance < 0.053)] = 0.0
    return marked


def sheet(columns: Sequence[str], rows: Rows, legend: str, colours: tuple[Scale, str] = BARE) -> Figure:
    """Panels in rows and columns.

    Args:
        columns: Headings.
        rows: The rows.
        legend: What is seen, below; what the colours mean is added.
        colours: `BARE`, `SIGNED` or `OVERLAID`.
    """
    strip, meaning = colours
    width = max(LABEL + len(columns) * (SIDE + GAP), 6.0)
    lines = textwrap.wrap(f"{legend} {meaning}", int(width * 14))
    heads = [textwrap.wrap(heading, 28) for heading in columns]
    top, below = LINE * max(map(len, heads)) + GAP, 2 * LINE + GAP
    height = top + len(rows) * (SIDE + below) + LINE * (len(lines) + 2)
    with drawing():
        figure = Figure(figsize=(width, height), dpi=100)
        for column, heading in enumerate(heads):
            figure.text((LABEL + column * (SIDE + GAP)) / width, 1 - top / height, "\n".join(heading), size=9, weight="bold", va="bottom")
        for row, (name, panels) in enumerate(rows):
            upper = top + row * (SIDE + below) + 0.04
            figure.text(0.06 / width, 1 - (upper + SIDE / 2) / height, "\n".join(textwrap.wrap(name, 13)), size=9, weight="bold", va="center")
            for column, panel in enumerate(panels):
                if panel is not None:
                    left = LABEL + column * (SIDE + GAP)
                    axes = figure.add_axes((left / width, 1 - (upper + SIDE) / height, SIDE / width, SIDE / height))
                    axes.imshow(panel.picture)
                    axes.axis("off")
                    figure.text(left / width, 1 - (upper + SIDE + 0.04) / height, "\n".join(textwrap.wrap(panel.note, 34)[:2]), size=7.5, va="top", color=FAINT)
        bar = figure.add_axes((LABEL / width, (LINE * len(lines) + 0.16) / height, 2 * SIDE / width, 0.1 / height))
        bar.imshow(strip.colour(np.linspace(strip.low, strip.high, 256))[None], aspect="auto")
        bar.axis("off")
        figure.text(LABEL / width, 0.06 / height, "\n".join(lines), size=8, va="bottom")
    return figure


def curve(axes: Axes, x: np.ndarray, lines: Mapping[str, np.ndarray], title: str, labels: tuple[str, str]) -> None:
    """Curves and their legend; those of controls are dotted.

    Args:
        axes: Where.
        x: (points,).
        lines: For each name y, (points,).
        title: Above.
        labels: Of the axes.
    """
    for number, (name, y) in enumerate(lines.items()):
        axes.plot(x, y, color=LINES[number % len(LINES)], label=name, lw=1.5, ls=":" if "control" in name else "-")
    axes.set_title(title, fontsize=10, weight="bold", loc="left")
    axes.set_xlabel(labels[0], fontsize=8.5)
    axes.set_ylabel(labels[1], fontsize=8.5)
    axes.tick_params(labelsize=8)
    axes.set_xlim(x[0], x[-1])
    axes.set_ylim(bottom=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=7.5, frameon=False)
