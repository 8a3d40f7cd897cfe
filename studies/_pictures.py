"""Sheets of pictures and maps with headings, and a legend that says what the colours are."""

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from salience.show.colour import HEAT, Scale
from salience.show.overlay import FAINT, INK, colour_bar, drawing

SIDE, GAP, HEAD, NAME, LINE = 1.7, 0.08, 0.36, 1.5, 0.16
"""Inches: a panel, the space between panels, the headings above and at the left, a line of the legend."""

SHARE = Scale(0.0, 1.0, False, HEAT)
"""Colours of a map brought to 0..1."""


def picture(image: Tensor) -> np.ndarray:
    """An image (c, h, w) in [0, 1] as it is drawn."""
    return image.as_subclass(torch.Tensor).expand(3, -1, -1).permute(1, 2, 0).clamp(0, 1).numpy()


def overlaid(saliency: Tensor, image: Tensor) -> np.ndarray:
    """A map (h, w), brought to 0..1, in colours over its image in grey."""
    low, high = saliency.min(), saliency.max()
    values = ((saliency - low) / (high - low).clamp_min(1e-30)).double().numpy()
    grey = 0.3 + 0.7 * (picture(image) @ np.array([0.299, 0.587, 0.114]))[..., None]
    return 0.78 * SHARE.colour(values) + 0.22 * grey


def pointed(drawn: np.ndarray, saliency: Tensor) -> np.ndarray:
    """A drawn map with a ring around its largest value."""
    row, column = divmod(int(saliency.argmax()), saliency.shape[1])
    rows, columns = np.indices(saliency.shape)
    distance = np.hypot(rows - row, columns - column) / max(saliency.shape)
    marked = drawn.copy()
    marked[(distance > 0.035) & (distance < 0.06)] = 1.0
    marked[(distance > 0.042) & (distance < 0.053)] = 0.0
    return marked


def sheet(columns: Sequence[str], rows: Sequence[tuple[str, Sequence[np.ndarray | None]]], legend: str, notes: Sequence[Sequence[str]] | None = None, scale: Scale = SHARE) -> Figure:
    """Pictures in rows and columns.

    Args:
        columns: What is above each.
        rows: The name of each and its pictures (h, w, 3) in [0, 1]; None leaves a place empty.
        legend: What the colours are.
        notes: A line below each picture.
        scale: Of the colour bar.
    """
    below = 0.2 if notes else 0.0
    across = NAME + len(columns) * (SIDE + GAP) + GAP
    lines = textwrap.wrap(legend, int((across - 2.6) * 13.5))
    foot = max(0.5, 0.3 + LINE * len(lines))
    down = HEAD + len(rows) * (SIDE + GAP + below) + foot
    with drawing():
        made = Figure(figsize=(across, down), dpi=100)
        for column, text in enumerate(columns):
            made.text((NAME + column * (SIDE + GAP) + SIDE / 2) / across, 1 - HEAD / 2 / down, text, ha="center", va="center", size=9.5, weight="bold")
        for row, (name, pictures) in enumerate(rows):
            top = HEAD + row * (SIDE + GAP + below)
            made.text(0.1 / across, 1 - (top + SIDE / 2) / down, "\n".join(textwrap.wrap(name, 18)), va="center", size=9, color=INK)
            for column, each in enumerate(pictures):
                if each is not None:
                    left = NAME + column * (SIDE + GAP)
                    axes = made.add_axes((left / across, 1 - (top + SIDE) / down, SIDE / across, SIDE / down))
                    axes.imshow(each, interpolation="bilinear")
                    axes.axis("off")
                    if notes:
                        made.text((left + SIDE / 2) / across, 1 - (top + SIDE + 0.1) / down, notes[row][column], ha="center", va="center", size=7.5, color=FAINT)
        bar = made.add_axes((0.1 / across, (foot - 0.25) / down, 2.2 / across, 0.12 / down))
        colour_bar(bar, scale, size=7.5, room=0.2)
        made.text(2.5 / across, (foot - 0.12) / down, "\n".join(lines), va="top", size=8.5, color=INK)
        return made


LINES = ("#c0392b", "#1f4e9c", "#2e8b57", "#8e5ea2", "#d98e04", "#555555", "#17a2a2")
"""Colours of lines, the same order everywhere."""


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
