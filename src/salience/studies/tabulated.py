"""The tables of a study as text: on a terminal, in Markdown, in LaTeX."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from salience.studies.statistics import Interval
from salience.studies.store import Store
from salience.studies.summary import Column, Table, incomplete, tables

if TYPE_CHECKING:
    from rich.console import Console


def with_interval(mean: float, interval: Interval = Interval(math.nan, math.nan)) -> str:  # noqa: B008  # frozen
    """A number and its interval, if there is one; a dash if there is no number."""
    return number(mean, ".3g") + ("" if math.isnan(mean) or math.isnan(interval.low) else f" [{interval.low:.3g}, {interval.high:.3g}]")


def p_value(p: float) -> str:
    """A p-value to three digits."""
    return "< 0.001" if p < 0.001 else number(p, ".3f")


def number(value: float, form: str) -> str:
    """A number, or a dash if it is not known."""
    return "-" if math.isnan(value) else format(value, form)


def shares(column: Column, method: str) -> list[str]:
    """How a method's variance splits between images, sampling and seeds; dashes where all values are equal up to rounding."""
    split = column.splits[method]
    parts = [split.images, split.sampling, split.seeds]
    total = sum(parts)
    return [number(part / total if total > (1e-9 * column.comparison.methods[method].mean) ** 2 else math.nan, ".0%") for part in parts]


def is_best(method: str, column: Column) -> bool:
    """Whether a method is the best, or not significantly worse."""
    if column.higher_is_better is None or column.comparison.best is None:
        return False
    return method == column.comparison.best or bool(column.comparison.methods[method].tied)


def is_untested(method: str, column: Column) -> bool:
    """Whether a method has a mean that could not be tested against the best."""
    standing = column.comparison.methods[method]
    return column.higher_is_better is not None and standing.tied is None and method != column.comparison.best and not math.isnan(standing.mean)


def heading(column: Column) -> str:
    """The metric and which way is better."""
    return column.metric + {True: " (high)", False: " (low)", None: ""}[column.higher_is_better]


LEGEND = (
    "Mean over images and its 95 % interval (bootstrap over images; over weight draws too where they are shared, which is wide where they are few). Bold: the best, and what is not significantly "
    "worse by a paired two-sided test (Wilcoxon, zeros by Pratt; sign flips for metrics of few values) with Holm's correction over the methods of a column (where weight "
    "draws are shared p counts them too, and the interval of the difference must leave out 0). Not significant is not equal: look at the interval of the difference. A question mark: could not be tested against the best."
)


BELOW = (
    "The smaller table under each: a method less the best with the 95 % interval of the difference, over the pairs (pictures that both have); the chance that a new seed flips the ranking of the "
    "two; how the variance of single values splits between images, known sampling noise and seeds (the last two need at least two seeds)."
)


def print_summary(store: Store, console: "Console") -> None:
    """The tables on a terminal."""
    from rich.text import Text

    from salience.show.table import table as grid

    found, warning = tables(store), incomplete(store)
    if warning:
        console.print(Text(warning, style="bold"))
    for table in found:
        console.print(Text(table.title, style="bold"))
        cells = [[(method, False), *line(table, method)] for method in table.methods]
        console.print(grid(["method", *map(heading, table.columns)], [[Text(f"{text} *", style="bold") if best else text for text, best in row] for row in cells]))
        if below := details(table):
            console.print(grid(below[0], below[1:]))
        for note in table.notes:
            console.print(Text(note, style="dim"))
    console.print(Text(f"{LEGEND.replace('Bold:', 'Bold, with a star:')} {BELOW}", style="dim"))


def line(table: Table, method: str) -> list[tuple[str, bool]]:
    """A method's cells, and whether each is in bold."""
    standings = [column.comparison.methods[method] for column in table.columns]
    return [(with_interval(each.mean, each.interval) + (" ?" if is_untested(method, column) else ""), is_best(method, column)) for column, each in zip(table.columns, standings, strict=True)]


def details(table: Table) -> list[list[str]]:
    """What stands under a table: headings, and a row for every metric and method. Rows and columns that say nothing are left out."""
    headings = ["metric", "method", "less the best", "pairs", "flips", "images / sampling / seeds", "mean over classes"]
    rows = [row for column in table.columns for row in _rows_below(table, column)]
    said = [place for place in range(len(headings)) if any(row[place] not in ("", "-") for row in rows)]
    return [[row[place] for place in said] for row in (headings, *rows)] if rows else []


def _rows_below(table: Table, column: Column) -> list[list[str]]:
    """The rows of one metric; its name stands in the first."""
    rows: list[list[str]] = []
    for method in table.methods:
        row = ["", "", "", "", ""]
        test = column.comparison.methods[method].against_best
        if column.higher_is_better is not None and test is not None:
            row[:3] = [with_interval(test.difference, test.interval), str(test.pairs), number(column.flips[method], ".2g")]
        elif column.higher_is_better is not None and method == column.comparison.best and len(table.methods) > 1:
            row[0] = "the best"
        split = shares(column, method)
        row[3] = "" if "-" in split else " / ".join(split)
        if column.accuracies:
            row[4] = with_interval(column.accuracies[method].mean, column.accuracies[method].interval)
        if any(each not in ("", "-") for each in row):
            rows.append(["" if rows else column.metric, method, *row])
    return rows


def markdown(table: Table) -> str:
    """The table in Markdown, and what stands under it."""
    means = [["method", *map(heading, table.columns)]]
    means += [[f"`{method}`", *(f"**{text}**" if best else text for text, best in line(table, method))] for method in table.methods]
    below = [[*row[:1], f"`{row[1]}`" if number else row[1], *row[2:]] for number, row in enumerate(details(table))]
    return "\n\n".join([_piped(means, 1), *([_piped(below, 2)] if below else [])])


def _piped(rows: Sequence[Sequence[str]], words: int) -> str:
    rule = "|" + "---|" * words + "---:|" * (len(rows[0]) - words)
    first, *rest = (f"| {' | '.join(row)} |" for row in rows)
    return "\n".join([first, rule, *rest])


def latex(table: Table) -> str:
    """The table in LaTeX, for the package booktabs, and what stands under it."""
    means = [["method", *(escaped(heading(column)) for column in table.columns)]]
    means += [[rf"\texttt{{{escaped(method)}}}", *(rf"\textbf{{{escaped(text)}}}" if best else escaped(text) for text, best in line(table, method))] for method in table.methods]
    below = [[escaped(cell) for cell in row] for row in details(table)]
    below[1:] = [[first, rf"\texttt{{{method}}}", *rest] for first, method, *rest in below[1:]]
    return "\n".join([_tabular(means, 1), *(["", r"\medskip", r"\footnotesize", _tabular(below, 2)] if below else [])])


def _tabular(rows: Sequence[Sequence[str]], words: int) -> str:
    first, *rest = (" & ".join(row) + r" \\" for row in rows)
    begin = r"\begin{tabular}{" + "l" * words + "r" * (len(rows[0]) - words) + "}"
    return "\n".join([begin, r"\toprule", first, r"\midrule", *rest, r"\bottomrule", r"\end{tabular}"])


NAMED = {"\\": "backslash", "~": "asciitilde", "^": "asciicircum", "<": "less", ">": "greater", "|": "bar"}
SPECIAL = str.maketrans({letter: f"\\{letter}" for letter in "&%$#_{}"} | {letter: rf"\text{name}{{}}" for letter, name in NAMED.items()})
MARKS = str.maketrans({letter: f"\\{letter}" for letter in "\\`*<>[]|&"})


def escaped(text: str) -> str:
    """Text in LaTeX."""
    return text.translate(SPECIAL)


def unmarked(text: str) -> str:
    """Text in Markdown."""
    return text.translate(MARKS)
