"""``salience list``."""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from salience.cli._shared import DEFAULT_MODEL, Json, console, print_json, tell
from salience.core.errors import unknown

if TYPE_CHECKING:
    from salience.core.registry import Entry

app = typer.Typer(help="List the methods, the metrics, the models and so on.", rich_markup_mode="rich")

Name = Annotated[str | None, typer.Argument(help="One of them, to see its options.", show_default=False)]
Cells = dict[str, "Callable[[Entry], str]"]


def _yes(fact: str) -> "Callable[[Entry], str]":
    return lambda entry: "yes" if entry.facts.get(fact) else ""


def _better(entry: "Entry") -> str:
    return {True: "high", False: "low", None: ""}[entry.facts["higher_is_better"]]


def _signed(entry: "Entry") -> str:
    return "signed" if entry.facts.get("signed") else "unsigned"


COMMANDS: dict[str, tuple[str, str, Cells, str]] = {
    "explainer": (
        "methods",
        "the methods",
        {"map": _signed, "random": _yes("stochastic"), "gradients": _yes("needs_gradient")},
        "random: its map has an error bar. gradients: needs more of a model than its scores.",
    ),
    "metric": (
        "metrics",
        "the metrics of a map",
        {"kind": lambda entry: entry.facts["category"], "better": _better, "masks": _yes("needs_masks"), "method": _yes("needs_explainer")},
        "masks: compares with where the object is. method: makes new maps.",
    ),
    "similarity": ("similarities", "the similarities of two maps", {"of": lambda entry: entry.facts["of"], "closer": _better}, "closer: whether close pairs have high or low values."),
    "perturbation": ("perturbations", "the perturbations of images", {}, ""),
    "threat": ("threats", "the ways in which an attack may change images", {}, ""),
    "objective": ("objectives", "what an attack can aim at", {"needs a map to aim at": _yes("targeted")}, ""),
    "dataset": ("datasets", "the kinds of data sets", {}, ""),
    "architecture": ("architectures", "the networks that can be trained", {}, ""),
    "recipe": ("recipes", "the ways to train a network", {}, ""),
}
"""For each kind that is registered the command, what it lists, the columns of the table, and what these mean."""


def _add(kind: str, command: str, what: str, cells: Cells, legend: str) -> None:
    """Add the command that lists a kind, or shows the options of one of it."""

    @app.command(command, help=f"List {what}, or the options of one.")
    def listed(name: Name = None, as_json: Json = False) -> None:
        from salience.core.registry import entries
        from salience.core.spec import build
        from salience.show.table import table

        word = {"explainer": "method", "dataset": "data set"}.get(kind, kind)
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
            console().print(f"{legend}\nsalience list {command} NAME shows the options of one.".strip(), style="dim", highlight=False)


for _kind, _row in COMMANDS.items():
    _add(_kind, *_row)


@app.command()
def models(as_json: Json = False) -> None:
    """List the models."""
    from salience.zoo.models import list_models

    for name in list_models():
        default = name == DEFAULT_MODEL
        if as_json:
            print_json({"name": name, "default": default})
        else:
            tell(f"{name}  (the default)" if default else name)


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
