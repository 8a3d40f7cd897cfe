"""What a study found: tables of means with intervals, what is significant, where the variance comes from."""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from salience.core.explainer import Explainer
from salience.core.registry import entries
from salience.core.spec import build
from salience.studies.comparison import Comparison, Standing, compare
from salience.studies.statistics import Accuracy, pointing_accuracy
from salience.studies.store import Row, Store
from salience.studies.variance import VarianceSplit, flip_probability, variance_split
from salience.studies.work import RELATIVE_ERROR

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class Column:
    """One metric of a table: all methods compared.

    Attributes:
        metric: Its specification.
        higher_is_better: None where neither is.
        comparison: Means, intervals, tests against the best.
        values: For each method (images, seeds), targets averaged, NaN where there is no value.
        splits: How each method's variance splits.
        flips: For each method the chance that a new seed ranks it and the best the other way round.
        accuracies: For metrics whose mean is taken by class: each method's.
        undefined: Values that do not exist, for each method.
        failed: Values that could not be computed, for each method.
    """

    metric: str
    higher_is_better: bool | None
    comparison: Comparison
    values: dict[str, np.ndarray]
    splits: dict[str, VarianceSplit]
    flips: dict[str, float]
    accuracies: dict[str, Accuracy]
    undefined: dict[str, int]
    failed: dict[str, int]


@dataclass(frozen=True)
class Table:
    """All metrics of the methods on one model, under one perturbation.

    Attributes:
        model: Its name.
        perturbation: What was done to the pictures; empty: nothing.
        variant: How the perturbed map was made; empty: no perturbation.
        changed: Whether these are the pictures whose prediction changed; they are summarised apart.
        methods: Specifications.
        columns: The metrics.
    """

    model: str
    perturbation: str
    variant: str
    changed: bool
    methods: list[str]
    columns: list[Column] = field(default_factory=list)

    @property
    def title(self) -> str:
        """Model, perturbation and variant."""
        parts = [self.model, *([self.perturbation] if self.perturbation else []), *([VARIANTS[self.variant]] if self.variant else [])]
        return ", ".join(parts) + (", pictures whose prediction changed" if self.changed else "")


VARIANTS = {
    "common": "same draws, geometry undone",
    "as_is": "same draws, geometry not undone",
    "fresh": "fresh draws, geometry undone",
    "floor": "the same picture twice, fresh draws: the noise floor",
}


def tables(store: Store) -> list[Table]:
    """Everything a study found, in the order of its file."""
    manifest = store.manifest or {}
    study = manifest["study"]
    methods = study["methods"]
    groups: dict[tuple, list[Row]] = defaultdict(list)
    for row in store.rows():
        changed = bool(row["prediction_changed"]) and row["variant"] != "floor"
        groups[row["model"], row["perturbation"], row["variant"], changed].append(row)
    metrics = [*study["metrics"], RELATIVE_ERROR]
    order = {name: place for place, name in enumerate(["", *study["perturbations"]])}
    found = []
    for (model, perturbation, variant, changed), rows in sorted(
        groups.items(), key=lambda each: (study["models"].index(each[0][0]), order[each[0][1]], list(VARIANTS).index(each[0][2]) if each[0][2] else -1, each[0][3])
    ):
        table = Table(model, perturbation, variant, changed, methods)
        by_metric: dict[str, list[Row]] = defaultdict(list)
        for row in rows:
            by_metric[row["metric"]].append(row)
        table.columns.extend(_column(metric, by_metric[metric], methods) for metric in metrics if metric in by_metric)
        found.append(table)
    return found


def _column(metric: str, rows: Sequence[Row], methods: Sequence[str]) -> Column:
    images, seeds = sorted({row["image"] for row in rows}), sorted({row["seed"] for row in rows})
    cells: dict[str, dict[tuple, list[float]]] = {method: defaultdict(list) for method in methods}
    errors: dict[str, dict[tuple, list[float]]] = {method: defaultdict(list) for method in methods}
    counts = {status: dict.fromkeys(methods, 0) for status in ("undefined", "failed")}
    for row in rows:
        if row["status"] != "ok":
            counts[row["status"]][row["method"]] += 1
        elif math.isfinite(row["value"]):
            cells[row["method"]][row["image"], row["seed"]].append(row["value"])
            if row["stderr"] is not None:
                errors[row["method"]][row["image"], row["seed"]].append(row["stderr"])

    def grid(found: Mapping[tuple, list[float]], power: int = 1) -> np.ndarray:
        table = np.full((len(images), len(seeds)), np.nan)
        for (image, seed), values in found.items():
            mean = np.mean(np.square(values)) / len(values) if power == 2 else np.mean(values)
            table[images.index(image), seeds.index(seed)] = np.sqrt(mean) if power == 2 else mean
        return table

    facts = _facts(metric)
    higher = facts.get("higher_is_better")
    values = {method: grid(cells[method]) for method in methods}
    comparison = compare(values, higher_is_better=higher is not False, shared=[method for method in methods if _shares_weights(method)])
    best = comparison.best
    return Column(
        metric,
        higher,
        comparison,
        values,
        {method: variance_split(values[method], grid(errors[method], 2) if errors[method] else None) for method in methods},
        {method: flip_probability(values[method], values[best]) for method in methods if best is not None and method != best},
        {method: _accuracy(method, rows) for method in methods} if facts.get("by_class") else {},
        *(counts[status] for status in ("undefined", "failed")),
    )


def _accuracy(method: str, rows: Sequence[Row]) -> Accuracy:
    kept = [row for row in rows if row["method"] == method and row["status"] == "ok"]
    return pointing_accuracy([row["value"] for row in kept], [row["target"] for row in kept], [row["image"] for row in kept])


def _facts(metric: str) -> dict:
    name = metric.partition(":")[0]
    if name == RELATIVE_ERROR:
        return {"higher_is_better": False}
    return next(entries(kind)[name].facts for kind in ("metric", "similarity") if name in entries(kind))


def _shares_weights(method: str) -> bool:
    """Whether a method draws network weights, which all pictures of a seed share."""
    explainer = build("explainer", method)
    while isinstance(explainer, Explainer):
        if hasattr(explainer, "weight_samples"):
            return True
        explainer = getattr(explainer, "base", None)
    return False


def cell(standing: Standing) -> str:
    """A mean and its interval."""
    if math.isnan(standing.mean):
        return "-"
    low, high = standing.interval.low, standing.interval.high
    return f"{standing.mean:.3g}" + ("" if math.isnan(low) else f" [{low:.3g}, {high:.3g}]")


def is_best(method: str, column: Column) -> bool:
    """Whether a method is the best, or not significantly worse."""
    if column.higher_is_better is None or column.comparison.best is None:
        return False
    return method == column.comparison.best or bool(column.comparison.methods[method].tied)


def heading(column: Column) -> str:
    """The metric and which way is better."""
    return column.metric + {True: " (high)", False: " (low)", None: ""}[column.higher_is_better]


LEGEND = (
    "Mean over images and its 95 % interval (bootstrap over images; over weight draws too where they are shared). Bold: the best, and what is not significantly "
    "worse by a paired two-sided test (Wilcoxon, zeros by Pratt; sign flips for metrics of few values) with Holm's correction over the methods of a column. Not "
    "significant is not equal: look at the interval of the difference."
)


def print_summary(store: Store, console: "Console") -> None:
    """The tables on a terminal."""
    from rich import box
    from rich.table import Table as Grid
    from rich.text import Text

    for table in tables(store):
        grid = Grid(title=table.title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        grid.add_column("method", overflow="fold")
        for column in table.columns:
            grid.add_column(heading(column), overflow="fold")
        for method in table.methods:
            grid.add_row(method, *(Text(cell(column.comparison.methods[method]), style="bold" if is_best(method, column) else "") for column in table.columns))
        console.print(grid)
        for column in table.columns:
            lost = [f"{count} {word} of {method}" for word in ("undefined", "failed") for method, count in getattr(column, word).items() if count]
            if lost:
                console.print(f"{column.metric}: left out {', '.join(lost)}.", style="dim", highlight=False)
    console.print(LEGEND, style="dim", highlight=False)


def markdown(table: Table) -> str:
    """The table in Markdown."""
    lines = ["| method | " + " | ".join(map(heading, table.columns)) + " |", "|---|" + "---:|" * len(table.columns)]
    for method in table.methods:
        cells = [(f"**{text}**" if is_best(method, column) else text) for column, text in _cells(table, method)]
        lines.append(f"| `{method}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def latex(table: Table) -> str:
    """The table in LaTeX, for the package booktabs."""
    lines = [r"\begin{tabular}{l" + "r" * len(table.columns) + "}", r"\toprule", "method & " + " & ".join(_escaped(heading(column)) for column in table.columns) + r" \\", r"\midrule"]
    for method in table.methods:
        cells = [(rf"\textbf{{{_escaped(text)}}}" if is_best(method, column) else _escaped(text)) for column, text in _cells(table, method)]
        lines.append(rf"\texttt{{{_escaped(method)}}} & " + " & ".join(cells) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"])


def _cells(table: Table, method: str) -> Iterator[tuple[Column, str]]:
    return ((column, cell(column.comparison.methods[method])) for column in table.columns)


def _escaped(text: str) -> str:
    return "".join(f"\\{letter}" if letter in "&%$#_{}" else letter for letter in text)
