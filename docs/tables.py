"""Tables made from the registry: of all methods, metrics and so on, and of the options of each.

``python docs/tables.py README.md`` writes the table of methods between its markers in a file; the docs
site calls `on_page_markdown` through mkdocs.
"""

import dataclasses
import inspect
import json
import sys
from pathlib import Path
from typing import Any

from salience.core import registry
from salience.core.options import as_text, default_of

BETTER = {True: "high", False: "low", None: ""}
START, END = "<!-- methods: made by `make readme` -->", "<!-- /methods -->"


def methods_table() -> str:
    """All methods: name, what the map is, what it needs."""
    rows = ["| method | what it is | error bar | needs | source |", "|---|---|---|---|---|"]
    for name, entry in registry.entries("explainer").items():
        needs = "the network" if entry.facts["needs_gradient"] else "scores only"
        error = "yes" if entry.facts["stochastic"] else "not known" if entry.facts.get("control") and entry.facts.get("seeded") else "not known if random" if entry.facts.get("seeded") else "exact"
        rows.append(f"| `{name.replace('*', 'NAME')}` | {entry.summary.rstrip('.')} | {error} | {needs} | {entry.facts['cites']} |")
    return "\n".join(rows)


def metrics_table() -> str:
    """All metrics: name, kind, direction, what it needs."""
    rows = ["| metric | what it is | kind | better | needs | source |", "|---|---|---|---|---|---|"]
    for name, entry in registry.entries("metric").items():
        needs = " and ".join(word for fact, word in (("needs_masks", "masks"), ("needs_explainer", "the method")) if entry.facts.get(fact)) or "the map"
        rows.append(f"| `{name}` | {entry.summary.rstrip('.')} | {entry.facts['category']} | {BETTER[entry.facts['higher_is_better']]} | {needs} | {entry.facts['cites']} |")
    return "\n".join(rows)


def shipped_table() -> str:
    """The networks that come with the package, from their cards."""
    from salience.training.card import figure
    from salience.zoo.models import WEIGHTS

    rows = ["| name | network | recipe | test accuracy | under attack | `weight_sigma` |", "|---|---|---|---|---|---|"]
    for path in sorted(WEIGHTS.glob("*.json")):
        card = json.loads(path.read_text())
        rows.append(f"| `{card['name']}` | `{card['architecture']}`, {card['weights']:,} weights | `{card['recipe']}` | {figure(card['accuracy'])} | {figure(card['pgd'])} | {card['weight_sigma']} |")
    return "\n".join(rows)


def shipped_notes() -> str:
    """What the cards say in words, and the command that made each network."""
    from salience.zoo.models import WEIGHTS

    cards = [json.loads(path.read_text()) for path in sorted(WEIGHTS.glob("*.json"))]
    return "\n".join(f"- `{card['name']}`: {card['note']}\n\n        {card['command']}\n" for card in cards)


def in_full(kind: str) -> str:
    """Every member of a kind with its docstring and a table of its options."""
    parts = []
    for name, entry in registry.entries(kind).items():
        parts.append(f"## {name.replace('*', 'NAME')}\n\n`{entry.cls.__module__}.{entry.cls.__qualname__}`\n\n{inspect.getdoc(entry.cls)}\n")
        fields = dataclasses.fields(entry.cls)
        if fields:
            parts.append("| option | default | what it is |\n|---|---|---|\n" + "\n".join(_row(field) for field in fields) + "\n")
    return "\n".join(parts)


def _row(field: dataclasses.Field) -> str:
    default = default_of(field)
    return f"| `{field.name}` | `{'(required)' if default is dataclasses.MISSING else as_text(default)}` | {field.metadata['help']} |"


def replaced(text: str) -> str:
    """The text with a fresh table between the markers."""
    before, after = text.split(START)[0], text.split(END)[1]
    return f"{before}{START}\n{methods_table()}\n{END}{after}"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by mkdocs for every page."""
    for kind in registry.PACKAGES:
        markdown = markdown.replace(f"{{{{ {kind}_in_full }}}}", in_full(kind)) if f"{{{{ {kind}_in_full }}}}" in markdown else markdown
    for name, made in (("shipped_table", shipped_table), ("shipped_notes", shipped_notes)):
        markdown = markdown.replace(f"{{{{ {name} }}}}", made()) if f"{{{{ {name} }}}}" in markdown else markdown
    return markdown.replace("{{ methods_table }}", methods_table()).replace("{{ metrics_table }}", metrics_table())


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(replaced(path.read_text()))
