"""Pictures of a study: curves, distributions, maps."""

import io
import textwrap
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import matplotlib.figure
import numpy as np
import torch
from PIL import Image
from scipy import stats

from salience.core.errors import InputError
from salience.core.explanation import Explanation
from salience.core.registry import entries
from salience.show.colour import error_scale
from salience.show.overlay import FAINT, INK, drawing, number, numbers, panels, to_png
from salience.studies.statistics import generator, per_image
from salience.studies.store import Store
from salience.studies.summary import Column, shares_draws
from salience.studies.tabulated import heading
from salience.studies.work import Unit

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#1b1f24")
"""Told apart by the colour-blind too (Okabe and Ito); a study's eighth method begins again with another dash."""

DASHES = ("-", "--", ":", "-.")

RESAMPLES = 1000
"""Of the pictures, for the bands of curves."""

ACROSS = 240
"""Longest side of a map in the gallery, in pixels."""


@dataclass(frozen=True)
class Chart:
    """A picture in a page.

    Attributes:
        title: What it shows.
        png: The file, at 1.5 pixels for each pixel of the page.
        width: On the page.
    """

    title: str
    png: bytes
    width: int


@dataclass(frozen=True)
class Shot:
    """A method's map in the gallery, and its error if the method is random."""

    method: str
    map: bytes
    scale: str
    error: bytes | None
    error_scale: str


@dataclass(frozen=True)
class Exhibit:
    """All maps of a picture, a model and a class."""

    title: str
    picture: bytes
    shots: list[Shot]


def curves(store: Store) -> list[Chart]:
    """For every model and metric that has curves, their means over pictures with a 95 % band; without one for methods that draw weights, which all pictures share.

    Seeds and targets of a picture are averaged first. Where pictures have other points (their sizes differ), their
    curves are read off at those of the first.
    """
    study = store.described()["study"]
    _, rows = store.query(
        "SELECT model, metric, curve, method, list(x ORDER BY x), list(y ORDER BY x) FROM "
        "(SELECT model, metric, curve, method, image, x, avg(y) AS y FROM curves WHERE isfinite(y) GROUP BY ALL) GROUP BY model, metric, curve, method, image ORDER BY curve, image"
    )
    found: dict[tuple[str, str], dict[str, dict[str, list]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for model, metric, curve, method, x, y in rows:
        found[model, metric][curve][method].append((np.array(x), np.array(y)))
    charts = []
    for model, metric in sorted(found, key=lambda each: (study["models"].index(each[0]), study["metrics"].index(each[1]))):
        count = max(len(lines) for panel in found[model, metric].values() for lines in panel.values())
        with drawing():
            charts.append(_chart(f"{metric}, {model}: mean over {count} picture{'s' if count > 1 else ''}", _drawn_curves(metric, found[model, metric], study["methods"])))
    return charts


def _drawn_curves(metric: str, panels_of: dict[str, dict[str, list]], methods: Sequence[str]) -> matplotlib.figure.Figure:
    name = metric.partition(":")[0]
    across, up = entries("metric")[name].facts.get("axes", ("x", "y"))
    labels = {method: _wrapped(method, 32) for method in methods}
    height = max(3.2, 0.5 + 0.17 * sum(1.3 + label.count("\n") for label in labels.values()))
    figure = matplotlib.figure.Figure(figsize=(3.6 * len(panels_of) + 2.4, height), dpi=144, layout="constrained")
    axes = figure.subplots(1, len(panels_of), sharey=True, squeeze=False)[0]
    handles = {}
    for each, (curve, lines) in zip(axes, panels_of.items(), strict=True):
        for place, method in enumerate(methods):
            if method not in lines:
                continue
            x, centre, low, high = _band(lines[method])
            colour, dash = COLOURS[place % len(COLOURS)], DASHES[place // len(COLOURS) % len(DASHES)]
            (handles[method],) = each.plot(x, centre, dash, color=colour, linewidth=1.6, marker="o" if len(x) < 20 else None, markersize=3)
            if not shares_draws(metric, method):  # the pictures say nothing of how other weights would move the curve
                each.fill_between(x, low, high, color=colour, alpha=0.13, linewidth=0)
        each.set_title(curve, fontsize=10)
        each.set_xlabel(across, fontsize=9)
        if "logarithmic" in across:
            each.set_xscale("log")
            each.xaxis.set_major_formatter("{x:g}")
        plain(each)
    axes[0].set_ylabel(up, fontsize=9)
    figure.legend(list(handles.values()), [labels[method] for method in handles], loc="outside right upper", fontsize=8, frameon=False)
    return figure


def _band(lines: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Points, mean, and the ends of the band, point by point as `bootstrap_interval` has them; nothing around a single picture."""
    x = lines[0][0]
    table = np.stack([y if np.array_equal(points, x) else np.interp(x, points, y) for points, y in lines])
    n = len(table)
    if n == 1:
        return x, table[0], table[0], table[0]
    weights = generator(0, 3).multinomial(n, np.full(n, 1 / n), size=RESAMPLES) / n
    outer = stats.norm.cdf(stats.t.ppf(0.025, n - 1) * np.sqrt(n / (n - 1)))
    return x, table.mean(0), *np.quantile(weights @ table, [outer, 1 - outer], axis=0)


def distributions(columns: Iterable[Column]) -> list[Chart]:
    """Every picture's value by every method, a chart for each metric that has values."""
    with drawing():
        return [_chart(heading(column), _drawn_values(column)) for column in columns if any(each.images for each in column.comparison.methods.values())]


def _drawn_values(column: Column) -> matplotlib.figure.Figure:
    """Points, the middle half as a box with the median, the mean and its interval."""
    methods = [method for method, standing in column.comparison.methods.items() if standing.images]
    labels = [_wrapped(method, 28) for method in methods]
    lines = sum(max(1.7, 1.0 + label.count("\n")) for label in labels)
    figure = matplotlib.figure.Figure(figsize=(5.9, 0.9 + 0.21 * max(lines, 3)), dpi=144, layout="constrained")
    axes = figure.subplots()
    axes.use_sticky_edges = False
    for place, method in enumerate(methods):
        values, standing = per_image(column.cells.values[method]).values, column.comparison.methods[method]
        values = values[np.isfinite(values)]
        colour = COLOURS[list(column.cells.values).index(method) % len(COLOURS)]
        jitter = (np.arange(len(values)) * 0.618034 % 1 - 0.5) * 0.56
        low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
        axes.barh(place, high - low, height=0.62, left=low, color=colour, alpha=0.18, edgecolor=colour, linewidth=0.8)
        axes.plot([middle, middle], [place - 0.31, place + 0.31], color=colour, linewidth=1.6)
        axes.scatter(values, place + jitter, s=11 if len(values) < 200 else 4, color=colour, alpha=0.6, linewidths=0)
        if np.isfinite(standing.interval.low):
            axes.plot([standing.interval.low, standing.interval.high], [place, place], color=INK, linewidth=1.2)
        axes.plot(standing.mean, place, marker="D", color=INK, markersize=4)
    axes.set_yticks(range(len(methods)), labels, fontsize=8)
    axes.set_ylim(len(methods) - 0.5, -0.5)
    axes.set_xlabel(column.metric + {True: ", higher is better", False: ", lower is better", None: ""}[column.higher_is_better], fontsize=9)
    plain(axes)
    return figure


def _wrapped(method: str, width: int) -> str:
    """A specification in lines, broken at its commas."""
    return "\n".join(line.replace(", ", ",") for line in textwrap.wrap(method.replace(",", ", "), width))


def plain(axes: matplotlib.axes.Axes) -> None:
    """No frame but the axes themselves, and a faint grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    axes.grid(color=FAINT, alpha=0.18, linewidth=0.6)
    axes.set_axisbelow(True)


def _chart(title: str, figure: matplotlib.figure.Figure) -> Chart:
    file = to_png(figure)
    width = int(figure.get_figwidth() * 96)
    figure.clear()
    return Chart(title, file, width)


def gallery(store: Store, most: int) -> tuple[list[Exhibit], int]:
    """The maps that a study kept, of the first seed, and how many pictures' maps are not shown.

    Args:
        store: The study.
        most: Exhibits at most; each is a picture, a model and a class.

    Raises:
        InputError: If a file of maps is damaged.
    """
    if not (store.folder / "maps").is_dir():
        return [], 0
    study = store.described()["study"]
    _, named = store.query("SELECT DISTINCT image, model, target, label FROM results WHERE target IS NOT NULL ORDER BY ALL")
    found: list[Exhibit] = []
    left = 0
    for image, model, target, label in named:
        files = {method: store.folder / "maps" / f"{Unit(0, image, model, method).id}.npz" for method in study["methods"]}
        kept = {method: file for method, file in files.items() if file.exists()}
        if kept and len(found) == most:
            left += 1
        elif kept:
            shots, picture = [], b""
            for method, file in kept.items():
                try:
                    with file.open("rb") as opened, np.load(opened, allow_pickle=False) as arrays:
                        of_map = {name: arrays[name] for name in arrays.files}
                    at = of_map["target"].tolist().index(target)
                except ValueError:  # this method could not explain this class
                    continue
                except Exception as error:  # numpy raises many kinds for damaged files
                    raise InputError(f"{file} is damaged: continue the study with --resume, which computes it again.") from error
                shot, picture = _shot(method, of_map, at, target)
                shots.append(shot)
            if shots:
                found.append(Exhibit(f"{image}: {label or f'class {target}'}" + (f", {model}" if len(study["models"]) > 1 else ""), picture, shots))
    return found, left


def _shot(method: str, arrays: dict[str, np.ndarray], at: int, target: int) -> tuple[Shot, bytes]:
    """A method's map and error over the picture, and the picture."""
    stderr = torch.from_numpy(arrays["stderr"][at])[None] if "stderr" in arrays else None
    e = Explanation(
        maps=torch.from_numpy(arrays["map"][at])[None],
        stderr=stderr,
        df=None if stderr is None else torch.from_numpy(arrays["df"][at : at + 1]),
        samples=torch.zeros(1, dtype=torch.int64),
        converged=None,
        targets=torch.tensor([target]),
        method=method,
        score="",
        record={"images": {}},
        images=torch.from_numpy(arrays["image"]),
    )
    (panel,) = panels(e, ACROSS, ACROSS)
    scale = panel.shown.scale
    words = f"±{number(scale.high)}" if scale.low == -scale.high else " to ".join(numbers([scale.low, scale.high]))
    error, error_words = None, ""
    if stderr is not None:
        values = stderr[0].double().mean(0)
        of_error = error_scale(values.numpy())
        height, width = panel.picture.shape[:2]
        placed = torch.nn.functional.interpolate(values[None, None], (height, width), mode="bilinear", align_corners=False)[0, 0].numpy()
        error = _png(replace(panel, stderr=placed).error(of_error))
        error_words = f"standard error{', mean over channels' if stderr.shape[1] > 1 else ''}: {' (white) to '.join(numbers([of_error.low, of_error.high]))}"
    return Shot(method, _png(panel.overlay()), words, error, error_words), _png(panel.picture)


def _png(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray((255 * array).round().astype(np.uint8)).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
