"""``salience list``."""

# ruff: noqa: ARG001  # --debug is read by `main`

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from salience.cli._shared import DEFAULT_MODEL, Debug, Json, console, print_json, tell
from salience.core.errors import unknown

if TYPE_CHECKING:
    from salience.core.registry import Entry

app = typer.Typer(help="List the methods, the metrics, the models and so on.", rich_markup_mode="rich", no_args_is_help=False)

Name = Annotated[str | None, typer.Argument(help="One of them, to see its options.", show_default=False)]
Cells = dict[str, "Callable[[Entry], str]"]


def _yes(fact: str) -> "Callable[[Entry], str]":
    return lambda entry: "yes" if entry.facts.get(fact) else ""


@app.command()
def methods(name: Name = None, as_json: Json = False, debug: Debug = False) -> None:
    """List the methods, or the options of one."""
    cells: Cells = {"map": lambda entry: "signed" if entry.facts.get("signed") else "unsigned", "random": _yes("stochastic"), "gradients": _yes("needs_gradient")}
    _show("explainer", "method", name, as_json, cells, "random: its map has an error bar. gradients: needs more of a model than its scores.")


@app.command()
def metrics(name: Name = None, as_json: Json = False, debug: Debug = False) -> None:
    """List the metrics of a map, or the options of one."""
    cells: Cells = {"kind": lambda entry: entry.facts["category"], "better": _better, "masks": _yes("needs_masks"), "method": _yes("needs_explainer")}
    _show("metric", "metric", name, as_json, cells, "masks: compares with where the object is. method: makes new maps.")


@app.command()
def similarities(name: Name = None, as_json: Json = False, debug: Debug = False) -> None:
    """List the similarities of two maps, or the options of one."""
    _show("similarity", "similarity", name, as_json, {"of": lambda entry: entry.facts["of"], "closer": _better}, "closer: whether close pairs have high or low values.")


@app.command()
def perturbations(name: Name = None, as_json: Json = False, debug: Debug = False) -> None:
    """List the perturbations of images, or the options of one."""
    _show("perturbation", "perturbation", name, as_json, {}, "")


@app.command()
def threats(name: Name = None, as_json: Json = False, debug: Debug = False) -> None:
    """List the ways in which an attack may change images, or the options of one."""
    _show("threat", "threat", name, as_json, {}, "")


@app.command()
def objectives(name: Name = None, as_json: Json = False, debug: Debug = False) -> None:
    """List what an attack can aim at, or the options of one."""
    _show("objective", "objective", name, as_json, {"needs a map to aim at": _yes("targeted")}, "")


@app.command()
def datasets(name: Name = None, as_json: Json = False, debug: Debug = False) -> None:
    """List the kinds of data sets, or the options of one."""
    _show("dataset", "data set", name, as_json, {}, "")


@app.command()
def architectures(name: Name = None, as_json: Json = False, debug: Debug = False) -> None:
    """List the networks that can be trained, or the options of one."""
    _show("architecture", "architecture", name, as_json, {}, "")


@app.command()
def recipes(name: Name = None, as_json: Json = False, debug: Debug = False) -> None:
    """List the ways to train a network, or the options of one."""
    _show("recipe", "recipe", name, as_json, {}, "")


@app.command()
def models(as_json: Json = False, debug: Debug = False) -> None:
    """List the models."""
    from salience.zoo.models import list_models

    for name in list_models():
        default = name == DEFAULT_MODEL
        if as_json:
            print_json({"name": name, "default": default})
        else:
            tell(f"{name}  (the default)" if default else name)


def _better(entry: "Entry") -> str:
    return {True: "high", False: "low", None: ""}[entry.facts["higher_is_better"]]


def _show(kind: str, word: str, name: str | None, as_json: bool, cells: Cells, legend: str) -> None:
    """All of a kind as a table or as JSON, or the options of one."""
    from salience.core.registry import entries
    from salience.core.spec import build
    from salience.show.table import table

    known = {key.replace("*", "NAME"): entry for key, entry in entries(kind).items()}
    if name is not None and name not in known:
        family = f"{name.partition(':')[0]}:NAME"
        if family not in known:
            raise unknown(word, name, known)
        build(kind, name)  # says what is wrong with the member's name
        name = family
    chosen = known if name is None else {name: known[name]}
    if as_json:
        for key, each in chosen.items():
            options = [{"name": field.name, "default": _default(field), "help": field.metadata.get("help", "")} for field in dataclasses.fields(each.cls)]
            print_json({"name": key, "summary": each.summary, **each.facts, "options": options})
    elif name is not None:
        _show_options(known[name])
    else:
        rows = [(key, *(cell(each) for cell in cells.values()), each.summary) for key, each in chosen.items()]
        console().print(table((word, *cells, "what it is"), rows))
        console().print(f"{legend}\nsalience list {_plural(kind)} NAME shows the options of one.".strip(), style="dim", highlight=False)


def _plural(kind: str) -> str:
    return {"explainer": "methods", "similarity": "similarities"}.get(kind, f"{kind}s")


def _show_options(entry: "Entry") -> None:
    from rich.text import Text

    from salience.show.table import table

    console().print(Text(entry.summary), highlight=False)
    if entry.name.endswith(":*"):
        family = entry.name.removesuffix("*")
        console().print(Text(f"Names: {', '.join(family + name for name in sorted(entry.cls.members()))}"), highlight=False)  # type: ignore[attr-defined]  # a Peer
    options = [(field.name, _default(field), field.metadata.get("help", "")) for field in dataclasses.fields(entry.cls)]
    console().print(table(("option", "default", "what it is"), options) if options else "It has no options.")


def _default(field: dataclasses.Field) -> str:
    from salience.core.options import as_text, default_of

    value = default_of(field)
    return "" if value is dataclasses.MISSING else as_text(value)
