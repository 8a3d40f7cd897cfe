"""The report of a study: one HTML file that needs nothing else, and its tables in Markdown and LaTeX."""

from collections.abc import Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from salience import __version__
from salience.core.duration import duration
from salience.core.files import write_whole
from salience.core.types import Report
from salience.show.page import template
from salience.studies.statistics import Accuracy
from salience.studies.store import Store
from salience.studies.summary import Column, Table, incomplete, left_out, shares_weights, tables, threads_of, units_done
from salience.studies.tabulated import BELOW, LEGEND, escaped, heading, latex, line, markdown, number, p_value, shares, unmarked, with_interval

GALLERY = 12
"""Pictures (with a model and a class each) whose maps are shown at most."""

REASONS = 30
"""Reasons for missing values that are listed at most."""


@dataclass(frozen=True)
class Detail:
    """All that is known of one metric of a table, ready to print."""

    metric: str
    best: str
    headings: list[str]
    rows: list[list[str]]


def write_report(store: Store, out: str | Path | None = None, progress: Report | None = None) -> list[Path]:
    """Write ``report.html``, ``tables.md`` and ``tables.tex``.

    Args:
        store: The study.
        out: The folder for them; None takes the study's own.
        progress: Told what is going on.

    Returns:
        The three files.

    Raises:
        InputError: If there is no study, it has no rows yet, or the folder cannot be written.
    """
    tell = progress or (lambda what, done, total: None)
    tell("computing the tables", 0, None)
    found, warning = tables(store), incomplete(store)
    folder = store.folder if out is None else Path(out)
    name = store.described()["study"]["name"]
    contents = {"report.html": _page(store, name, found, tell), "tables.md": _all_markdown(name, found, warning), "tables.tex": _all_latex(found, warning)}
    for file, text in contents.items():
        write_whole(folder / file, text.encode())
    return [folder / file for file in contents]


def _all_markdown(name: str, found: list[Table], warning: str) -> str:
    parts = [f"# {unmarked(name)}", *([f"**{warning}**"] if warning else []), f"{LEGEND} {BELOW}"]
    for table in found:
        parts += [f"## {unmarked(table.title)}", markdown(table), *map(unmarked, table.notes)]
    return "\n\n".join(parts) + "\n"


def _all_latex(found: list[Table], warning: str) -> str:
    parts = ["% needs \\usepackage{booktabs}", *(f"% {part}" for part in f"{LEGEND} {BELOW}".split(". "))]
    if warning:
        parts += ["", rf"\noindent\textbf{{{escaped(warning)}}}"]
    for table in found:
        parts += ["", r"\begin{table}[htbp]", r"\centering", r"\small", rf"\caption{{{escaped(table.title)}}}", latex(table)]
        parts += [*(f"\n\\footnotesize {escaped(note)}" for note in table.notes), r"\end{table}"]
    return "\n".join(parts) + "\n"


def _page(store: Store, name: str, found: list[Table], tell: Report) -> str:
    from salience.show.figures import KEY
    from salience.studies.charts import curves, distributions, gallery

    manifest = store.described()
    study = manifest["study"]
    tell("drawing the curves", 0, None)
    drawn = curves(store)
    tell("drawing the maps", 0, None)
    exhibits, unshown = gallery(store, GALLERY)
    shown = []
    for place, table in enumerate(found):
        tell("drawing the values", place, len(found))
        rows = [(method, line(table, method)) for method in table.methods]
        details = [_detail(table, column) for column in table.columns]
        shown.append({"title": table.title, "headings": [heading(column) for column in table.columns], "rows": rows, "notes": table.notes, "details": details, "charts": distributions(table.columns)})
    facts, complete = _facts(store, manifest)
    return template("studies/report.html").render(
        title=name,
        lead=f"{_several(study['methods'], 'method')} on {_several(manifest['images'], 'picture')} and {_several(study['models'], 'model')}, judged by {_several(study['metrics'], 'metric')}.",
        facts=facts,
        complete=complete,
        reasons=_reasons(store),
        pictures=list(manifest["images"].items()),
        legend=LEGEND,
        shared=any(map(shares_weights, study["methods"])),
        tables=shown,
        curves=drawn,
        exhibits=exhibits,
        key=KEY,
        unshown=unshown,
        version=__version__,
    )


def _several(things: Sized, name: str) -> str:
    return f"{len(things)} {name}{'' if len(things) == 1 else 's'}"


def _facts(store: Store, manifest: dict[str, Any]) -> tuple[list[tuple[str, str]], bool]:
    """What the study was made of and with, and whether all of it is done."""
    study, data = manifest["study"], manifest["study"]["data"]
    _, [(rows, ok, undefined, failed, seconds)] = store.query(
        "SELECT count(*), count(*) FILTER (status = 'ok'), count(*) FILTER (status = 'undefined'), count(*) FILTER (status = 'failed'), sum(seconds) FROM results"
    )
    units, wanted = units_done(store)
    options = ", ".join(f"{key} {value}" for key, value in data["options"].items())
    other = ("name", "data", "models", "methods", "metrics", "perturbations", "variants", "seeds")
    facts = [
        ("pictures", f"{len(manifest['images'])}, data set {data['dataset']}{options and f' ({options})'}"),
        ("classes explained", data["targets"].replace("_", " ")),
        *(("model", f"{name}, weights {digest[:16]}") for name, digest in manifest["models"].items()),
        *((key, ", ".join(study[key]) or "none") for key in ("methods", "metrics", "perturbations", "variants")),
        ("seeds", ", ".join(map(str, study["seeds"]))),
        *((key.replace("_", " "), str(value)) for key, value in study.items() if key not in other and value is not None),
        ("threads", threads_of(manifest)),
        ("shard", f"{manifest['shard'][0]} of {manifest['shard'][1]}"),
        ("versions", ", ".join(f"{name} {version}" for name, version in manifest["versions"].items())),
        ("rows", f"{rows}, of which {ok} ok, {undefined} undefined, {failed} failed"),
        ("complete", "yes" if units == wanted else f"no, {units} of {wanted} units (an image, a model and a method each) are done"),
        ("computed for", duration(seconds)),
    ]
    return facts, units == wanted


def _reasons(store: Store) -> list[tuple[str, int, str, str, str]]:
    """Why rows have no value, the most frequent first; beyond `REASONS` only how many there are."""
    _, found = store.query(
        "SELECT status, count(*), string_agg(DISTINCT method, ', ' ORDER BY method), string_agg(DISTINCT metric, ', ' ORDER BY metric), reason FROM results "
        "WHERE status <> 'ok' GROUP BY status, reason ORDER BY status, count(*) DESC, reason"
    )
    rest = found[REASONS:]
    return [(*row,) for row in found[:REASONS]] + ([("", sum(row[1] for row in rest), "", "", f"{len(rest)} more reasons: salience study query shows them")] if rest else [])


def _detail(table: Table, column: Column) -> Detail:
    """Every figure about one metric."""
    comparison, tested = column.comparison, column.higher_is_better is not None
    headings = ["method", "pictures", *(["pairs", "difference to the best", "test", "p", "p (Holm)", "tied", "tied, unadjusted", "effect", "flips"] if tested else [])]
    headings += ["between images", "sampling", "seeds", "left out", *(["mean over classes", "classes"] if column.accuracies else [])]
    rows = []
    for method in table.methods:
        standing = comparison.methods[method]
        row = [method, str(standing.images)]
        test = standing.against_best
        if tested and test is None:
            row += ["", "the best" if method == comparison.best else "", *[""] * 7]
        elif tested and test is not None:
            difference = with_interval(test.difference, test.interval)
            row += [str(test.pairs), difference, "not testable" if test.why_not else test.test, p_value(test.p), p_value(standing.adjusted), _yes(standing.tied), _yes(standing.tied_unadjusted)]
            row += [number(test.effect, ".2f"), number(column.flips[method], ".2g")]
        row += [*shares(column, method), left_out(column.cells, method) or "0"]
        rows.append(row + (_of_classes(column.accuracies[method]) if column.accuracies else []))
    return Detail(column.metric, comparison.best or "" if tested else "", headings, rows)


def _of_classes(accuracy: Accuracy) -> list[str]:
    return [with_interval(accuracy.mean, accuracy.interval), str(len(accuracy.classes))]


def _yes(value: bool | None) -> str:
    return {True: "yes", False: "no", None: "-"}[value]
