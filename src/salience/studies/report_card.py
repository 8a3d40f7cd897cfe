"""What an audit says: its questions, one finding for each, and the report card that they make."""

import operator
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from rich.console import Console, ConsoleOptions
from rich.jupyter import JupyterMixin
from rich.table import Table
from rich.text import Text

from salience.show.table import table

COLOURS = {"pass": "green", "fail": "red", "unclear": "yellow", "not asked": "dim"}

ALIKE = {"<": operator.lt, ">": operator.gt, "<=": operator.le, ">=": operator.ge}


@dataclass(frozen=True)
class Question:
    """What is asked of a method.

    Attributes:
        wanted: How the figure must stand to the threshold.
        yes: What is said if it does.
        no: What is said if it does not.
        unclear: What is said if the interval holds the threshold.
    """

    wanted: str
    yes: str
    no: str
    unclear: str

    def passed(self, ends: Iterable[float], threshold: float) -> bool | None:
        """Whether all ends of an interval stand as wanted, or none does; None if they differ."""
        found = {bool(ALIKE[self.wanted](end, threshold)) for end in ends}
        return found.pop() if len(found) == 1 else None


QUESTIONS = {
    "random weights": Question("<", "It changes with the weights", "It changes too little with the weights", "It is open whether it changes enough with the weights"),
    "deletion": Question(">", "It beats the controls", "It does not beat the controls", "It is open whether it beats the controls"),
    "insertion": Question(">", "It beats the controls", "It does not beat the controls", "It is open whether it beats the controls"),
    "converged": Question("<=", "It has converged", "It has not converged", "It is open whether it has converged"),
    **{
        name: Question(">=", f"It survives {what}", f"It does not survive {what}", f"It is open whether it survives {what}")
        for name, what in (("noise", "noise"), ("blur", "a blur"), ("flip", "a flip"))
    },
    "class kept": Question(">=", "The networks behind it still see the class", "The networks behind it no longer see the class", "It is open whether the networks behind it still see the class"),
}


@dataclass(frozen=True)
class Finding:
    """One line of the report card.

    Attributes:
        question: One of `QUESTIONS`.
        image: The image's name, or ``all images``.
        method: The method's specification.
        figure: Mean over the images; None if the question cannot be asked.
        low: Lower end of the figure's 95 % interval; None if there is none.
        high: Upper end.
        threshold: What the figure is held against, as `Question.wanted` says; None if the question cannot be asked.
        passed: Whether the whole interval (without one, the figure) is on the good side; None if the question cannot be
            asked, or the interval holds the threshold.
        sentence: The same in plain words.
    """

    question: str
    image: str
    method: str
    figure: float | None
    low: float | None
    high: float | None
    threshold: float | None
    passed: bool | None
    sentence: str

    @property
    def verdict(self) -> str:
        """``pass``, ``fail``, ``unclear`` or ``not asked``."""
        return {True: "pass", False: "fail", None: "not asked" if self.figure is None else "unclear"}[self.passed]

    def line(self) -> list[str | Text]:
        """What a report card shows of it."""
        figure = "" if self.figure is None else f"{self.figure:.3g}"
        interval = "" if self.low is None or self.high is None else f"{self.low:.3g} to {self.high:.3g}"
        wanted = "" if self.threshold is None else f"{QUESTIONS[self.question].wanted} {self.threshold:.3g}"
        return [self.question, Text(self.verdict, style=COLOURS[self.verdict]), figure, interval, wanted, self.sentence]


class ReportCard(list[Finding], JupyterMixin):
    """Findings, a table for every method where rich prints them and in Jupyter."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table | Text]:
        for method, lines in groupby(self, key=lambda finding: finding.method):
            yield Text(f"{method}, {Path(self[0].image).name}", style="bold")
            yield table(("question", "", "figure", "interval", "wanted", "in words"), [each.line() for each in lines])
