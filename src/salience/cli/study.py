"""``salience study``."""

import re
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from salience.cli._shared import Json, console, print_json, progress, tell
from salience.core.errors import InputError

app = typer.Typer(help="Compare methods on many images: a study that can be interrupted, continued and shared out.", rich_markup_mode="rich", no_args_is_help=True)

File = Annotated[Path, typer.Argument(help="The study, a YAML file.", metavar="STUDY.yaml", show_default=False)]
Folder = Annotated[Path, typer.Argument(help="A study's folder.", metavar="DIR", show_default=False)]
Limit = Annotated[int | None, typer.Option(help="Pictures at most; may grow when a study is resumed.", show_default="the study's own", metavar="N")]


@app.command()
def plan(file: File, limit: Limit = None, timed: Annotated[bool, typer.Option("--time/--no-time", help="Measure the first image to estimate the time.")] = True) -> None:
    """Say what a study would compute, and how long it would take."""
    from salience.core.duration import duration
    from salience.show.table import table
    from salience.studies.plan import estimate
    from salience.studies.plan import plan as planned
    from salience.studies.study import read_study
    from salience.studies.work import comparisons

    study = read_study(file)
    with progress() as report:
        found = planned(study, limit, report)
        seconds = estimate(found, report) if timed else {}
    images = len(found.images)
    headings = ["model", "method", "images", "metrics", *(("seconds an image", "in all") if timed else ())]
    rows = [[model, method, str(images), str(len(study.quality))] for model in study.models for method in study.methods]
    for row in rows if timed else ():
        each = seconds[row[0], row[1]]
        row += [f"{each:.3g}", duration(each * images)]
    console().print(table(headings, rows))
    pairs = len(comparisons(study)) * len(study.similarities)
    if found.note:
        tell(found.note, "bold")
    console().print(f"{len(found.units)} units (an image, a model and a method each), {len(study.seeds)} seed(s), {pairs} similarities of perturbed maps a seed.", highlight=False)
    if timed:
        console().print(f"About {duration(sum(seconds.values()) * images)} with one worker, by the first image that can be explained.", highlight=False)


@app.command()
def run(
    file: File,
    out: Annotated[Path, typer.Option(help="The folder for its rows.", metavar="DIR")] = Path("study"),
    resume: Annotated[bool, typer.Option("--resume", help="Continue the study in the folder.")] = False,
    workers: Annotated[int, typer.Option(help="Processes; they share the cores.", metavar="N")] = 1,
    threads: Annotated[int | None, typer.Option(help="Threads of each process.", show_default="cores / workers, at most OMP_NUM_THREADS", metavar="N")] = None,
    shard: Annotated[str, typer.Option(help="I/N: part I of N of the work, for job arrays; see salience study merge.", metavar="I/N")] = "1/1",
    engine: Annotated[str, typer.Option(help="local, or ray (a cluster: RAY_ADDRESS names it).", metavar="E")] = "local",
    limit: Limit = None,
) -> None:
    """Run a study. Whatever ends it, --resume computes what is missing and nothing else."""
    from salience.studies.run import run_study
    from salience.studies.study import read_study

    given = re.fullmatch(r"(\d+)/(\d+)", shard)
    if not given:
        raise InputError(f"A shard is written I/N, for example 2/8, not {shard!r}.")
    study = read_study(file)
    with progress() as report:
        store = run_study(study, out, resume=resume, workers=workers, threads=threads, shard=(int(given[1]), int(given[2])), engine=engine, limit=limit, report=report)
    counts = dict(store.query("SELECT status, count(*) FROM results GROUP BY status")[1])
    odd = "".join(f", {counts[status]} {status}" for status in ("undefined", "failed") if status in counts)
    tell(f"{sum(counts.values())} rows{odd} are in {out}: see salience study show {out}.")


@app.command()
def show(folder: Folder, as_json: Json = False) -> None:
    """Show a study's means with their intervals; --json prints every row."""
    from salience.studies.store import Store

    store = Store(folder)
    if as_json:
        for row in store.rows():
            print_json(row)
        return
    from salience.studies.tabulated import print_summary

    print_summary(store, console())


class _Query(TyperCommand):
    """A command that does not take a comment, with which an SQL query may begin, for an option."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # the class of a context differs between versions of typer
        """No option has a blank or a line break in it."""
        return super().parse_args(ctx, [f" {each}" if re.match(r"--.*\s", each) else each for each in args])


@app.command(cls=_Query)
def query(folder: Folder, sql: Annotated[str, typer.Argument(help="For example: select method, avg(value) from results group by method.", metavar="SQL")], as_json: Json = False) -> None:
    """Ask a study's tables, results and curves, in SQL. Nothing can be changed."""
    from salience.show.table import table
    from salience.studies.store import Store

    columns, rows = Store(folder).query(sql)
    if as_json:
        twice = [column for place, column in enumerate(columns) if column in columns[:place]]
        if twice:
            raise InputError(f"Two columns are called {twice[0]!r}, but a JSON object has each name once: name them with AS.")
        for row in rows:
            print_json(dict(zip(columns, row, strict=True)))
        return
    console().print(table(columns, [["" if cell is None else f"{cell:.6g}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows]))


@app.command()
def report(
    folder: Folder,
    out: Annotated[Path | None, typer.Option(help="The folder for the files.", show_default="the study's own", metavar="DIR")] = None,
) -> None:
    """Write a page with tables, curves, maps and every value, and the tables in Markdown and LaTeX."""
    from salience.studies.report import write_report
    from salience.studies.store import Store

    with progress() as report:
        files = write_report(Store(folder), out, report)
    tell(f"Open {files[0]}; its tables are in {files[1]} and {files[2]}.")


@app.command()
def compare(
    folders: Annotated[list[Path], typer.Argument(help="Two studies' folders, or more: each is compared with the first.", metavar="DIR DIR...", show_default=False)],
    as_json: Json = False,
) -> None:
    """Compare studies in what they have in common, picture by picture."""
    from salience.studies.compare_studies import as_row, compare_studies, print_comparison
    from salience.studies.store import Store

    if len(folders) < 2:
        raise InputError("Give the folders of two studies or more.")
    first, *others = map(Store, folders)
    for other in others:
        found = compare_studies(first, other)
        if as_json:
            for each in found:
                print_json({"first": str(first.folder), "second": str(other.folder)} | as_row(each))
        else:
            print_comparison(first, other, found, console())


@app.command()
def merge(
    folders: Annotated[list[Path], typer.Argument(help="The folders of the shards.", metavar="DIR...", show_default=False)],
    out: Annotated[Path, typer.Option(help="The folder for the whole.", metavar="DIR")],
) -> None:
    """Join the shards of a study in a new folder."""
    from salience.studies.merge import merge as joined

    store = joined(folders, out)
    console().print(f"{len(store.complete())} units are in {out}.", highlight=False, markup=False)
