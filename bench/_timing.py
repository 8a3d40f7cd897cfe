"""Fair timing: the cases in turn, again and again, so that a drifting machine is equally unfair to all."""

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from salience.core.device import bfloat16_is_fast

OUT = Path("out/bench")
REPEATS = 7
PRECISIONS = ("float32", "bfloat16") if bfloat16_is_fast() else ("float32",)


def interleaved(cases: dict[str, Callable[[], Any]], repeats: int = REPEATS) -> dict[str, list[float]]:
    """Seconds of each case, one warm-up and then `repeats` turns A B C, B C A, ...; those in bfloat16 only on processors that have it."""
    cases = {name: case for name, case in cases.items() if bfloat16_is_fast() or "bfloat16" not in str(name)}
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for turn in track(range(repeats + 1), ", ".join(map(str, cases)), console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()):
        order = list(cases)
        for name in order[turn % len(order) :] + order[: turn % len(order)]:
            start = time.perf_counter()
            cases[name]()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def ratio(slow: list[float], fast: list[float]) -> list[float]:
    """Turn by turn, so that a change of the machine's speed between turns cancels."""
    return [a / b for a, b in zip(slow, fast, strict=True)]


def spread(values: list[float], digits: int = 2) -> str:
    """Median and range."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count(), "threads": torch.get_num_threads(), "torch": torch.__version__, "python": platform.python_version()}


def report(name: str, title: str, columns: list[str], rows: list[list[str]], figures: dict[str, Any]) -> None:
    """Print a table and keep it, with the raw figures, in out/bench/<name>.json."""
    table = Table()
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    console = Console(width=150)
    console.print(f"\n[bold]{title}[/bold]", highlight=False)
    console.print(table)
    OUT.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"title": title, "machine": machine(), "columns": columns, "rows": rows, "figures": figures}, indent=1)
    (OUT / f"{name}.json").write_text(text)
