"""The picture of a tuning: accuracy drop and localisation against the level of noise."""

import textwrap
from itertools import groupby
from typing import Any

import matplotlib.axes
import numpy as np

from salience.perturb.tune import TARGET_DROP, WEIGHT_LEVELS
from salience.show.figures import Drawing
from salience.show.overlay import INK, drawing
from salience.studies.charts import COLOURS, plain
from salience.studies.noise_search import IMAGE_LEVELS
from salience.studies.tuned import Choice, Row, Tuning

AXES = {
    "weight_sigma": "weight_sigma: sd of the factor on each weight (logarithmic)",
    "noise_level": "noise_level: strength of the input noise as a share of the image's range (logarithmic)",
}
MARKS = {
    "searched": "drop of 5 %",
    "searched together": "drop of 5 %",
    "searched alone": "drop of 5 % without noise in the image",
    "halved": "half of the level without noise in the image",
    "published": "published",
    "equal sd": "sd of the published",
    "given": "as given",
}
LEGEND: Any = {"fontsize": 8, "framealpha": 0.85, "edgecolor": "none"}


def chart(tuning: Tuning) -> Drawing:
    """A figure: the relative drop of accuracy with its 95 % band over the level, and below it the maps' localisation.

    Args:
        tuning: What was found.
    """
    with drawing():
        mapped = any(row.auc is not None for row in tuning.rows)
        figure = Drawing(figsize=(6.6, 6.2 if mapped else 4.1), dpi=144, layout="constrained")
        panels = figure.subplots(1 + mapped, 1, sharex=True, squeeze=False, height_ratios=(3, 2)[: 1 + mapped])[:, 0]
        basis = tuning.basis
        figure.suptitle("\n".join([*textwrap.wrap(f"{tuning.method} on {tuning.model}", 80), f"{basis.images} pictures x {basis.draws} draws"]), fontsize=10)
        _drops(panels[0], tuning)
        if mapped:
            _areas(panels[1], tuning)
        panels[-1].set_xscale("log")
        ticks = [level for level in sorted({*WEIGHT_LEVELS, *IMAGE_LEVELS}) if any(_level(tuning, row) == level for row in tuning.rows)]
        panels[-1].set_xticks(ticks, [f"{level:g}" for level in ticks])
        panels[-1].set_xticks([], minor=True)
        panels[-1].set_xlabel(AXES[tuning.option], fontsize=9)
        for each in panels:
            plain(each)
        return figure


def _drops(axes: matplotlib.axes.Axes, tuning: Tuning) -> None:
    """The drop in percent, a line for each level of the noise that stands still, and the levels chosen."""
    lines = _lines(tuning)
    for colour, (inside, rows) in zip(COLOURS, lines, strict=False):
        x, y = ([_level(tuning, row) for row in rows], [100 * row.drop for row in rows])
        ends = np.array([[row.low, row.high] for row in rows], dtype=float)
        name = "relative drop" + (f", with noise_level {inside:g} in the image" if inside else ", noise in the weights alone" if len(lines) > 1 else "")
        axes.plot(x, y, color=colour, linewidth=1.6, marker="o", markersize=3, label=f"{name}, 95 % interval")
        axes.fill_between(x, 100 * ends[:, 0], 100 * ends[:, 1], color=colour, alpha=0.15, linewidth=0)
    axes.axhline(100 * TARGET_DROP, color=INK, linewidth=0.9, linestyle="--", label=f"{100 * TARGET_DROP:g} %")
    for marker, choice in zip("DsPv^", (each for each in tuning.choices if each.reached and _level(tuning, each.row)), strict=False):
        axes.plot(_level(tuning, choice.row), 100 * choice.row.drop, marker, color=INK, markersize=6, label=_mark(tuning, choice), linestyle="none")
    axes.set_ylabel(f"relative drop of the {tuning.basis.measure} (%)", fontsize=9)
    axes.set_ylim(top=max(axes.get_ylim()[1], 200 * TARGET_DROP))
    axes.legend(loc="upper left", **LEGEND)


def _areas(axes: matplotlib.axes.Axes, tuning: Tuning) -> None:
    """The area under the ROC curve, with its interval, on the line of the method itself."""
    rows = [row for row in tuning.rows if row.auc is not None and _level(tuning, row)]
    x, y = [_level(tuning, row) for row in rows], [row.auc for row in rows]
    axes.plot(x, np.array(y, dtype=float), color=COLOURS[2], linewidth=1.6, marker="o", markersize=3, label=f"mean of {tuning.basis.auc_images} pictures, 95 % interval")
    ends = np.array([[row.auc_low, row.auc_high] for row in rows], dtype=float)
    axes.fill_between(x, ends[:, 0], ends[:, 1], color=COLOURS[2], alpha=0.15, linewidth=0)
    axes.axhline(0.5, color=INK, linewidth=0.9, linestyle=":", label="chance")
    own = tuning.choices[0]
    if own.reached and own.row.auc is not None and _level(tuning, own.row):
        axes.plot(_level(tuning, own.row), own.row.auc, "D", color=INK, markersize=6)
    axes.set_ylabel("localisation AUC", fontsize=9)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, **LEGEND)


def _lines(tuning: Tuning) -> list[tuple[float, list[Row]]]:
    """The rows in lines along the tuned option; a level of 0 has no place on a logarithmic axis."""
    if tuning.option == "noise_level":
        return [(0.0, list(tuning.rows))]
    rows = [row for row in tuning.rows if row.weight_sigma]
    return [(inside, list(line)) for inside, line in groupby(sorted(rows, key=lambda row: -row.noise_level), key=lambda row: row.noise_level)]


def _level(tuning: Tuning, row: Row) -> float:
    return row.weight_sigma if tuning.option == "weight_sigma" else row.noise_level


def _mark(tuning: Tuning, choice: Choice) -> str:
    return f"{MARKS[choice.rule]}: {_level(tuning, choice.row):.3g}"
