"""What a tuning found: the levels tried, those chosen, and the sentences about them."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from rich.console import Console, ConsoleOptions
from rich.jupyter import JupyterMixin
from rich.table import Table
from rich.text import Text

import salience
from salience.core.files import finite
from salience.perturb.tune import LARGEST, TARGET_DROP
from salience.show.table import table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Row:
    """What one level of noise does.

    Attributes:
        weight_sigma: sd of the multiplicative noise in the weights; 0: none.
        noise_level: Strength of the noise in the image as a share of its range, as the method has it; 0: none.
        sd: Standard deviation of the noise in the image, as a share of its range: for UniformGrad less than its half-width.
        drop: Relative drop of the accuracy.
        low: Lower end of its 95 % interval, over images and draws of weights; None if it has none.
        high: Upper end.
        changed: Share of the draws in which the predicted class is another.
        auc: Mean area under the ROC curve of the method's maps against the masks; None if it was not asked.
        auc_low: Lower end of its 95 % interval over images.
        auc_high: Upper end.
    """

    weight_sigma: float
    noise_level: float
    sd: float
    drop: float
    low: float | None
    high: float | None
    changed: float
    auc: float | None = None
    auc_low: float | None = None
    auc_high: float | None = None


@dataclass(frozen=True)
class Choice:
    """A level chosen by a rule.

    Attributes:
        rule: What rule: one of `RULES`.
        row: The level and what it does.
        low: Smallest value of the tuned option whose drop may be 5 %: there the upper end of the drop's interval reaches it. None for
            levels that were not searched, or where there is no interval.
        high: Largest one: there the lower end reaches 5 %; None if it does at no level tried.
        found: False of half a level that was not found.
    """

    rule: str
    row: Row
    low: float | None = None
    high: float | None = None
    found: bool = True

    @property
    def reached(self) -> bool:
        """Whether the drop is what the rule asks for; False of the largest level tried if no level reaches it."""
        return self.found and (not self.rule.startswith("searched") or self.row.drop >= TARGET_DROP)


RULES = {
    "searched": "the smallest level at which accuracy drops by 5 %",
    "halved": "half of the weight noise that alone costs 5 %, and noise in the image (the method's default)",
    "searched together": "the weight noise at which both kinds together cost 5 %",
    "searched alone": "the weight noise that alone costs 5 %",
    "published": "the NoiseGrad paper's 0.2 (eq. 4)",
    "equal sd": "noise of the sd of the published 0.2",
    "given": "as the method was given",
}


@dataclass(frozen=True)
class Basis:
    """What a tuning rests on.

    Attributes:
        data: The data set, or the folder.
        images: How many pictures.
        draws: How many draws of noise at each level.
        seed: Of all draws.
        labels: What counts as right, as in `Truth`.
        measure: What drops, as in `Truth`.
        clean: The measure without noise.
        chance: What guessing gets: ACC(inf).
        auc_images: Pictures with masks on which maps were made.
    """

    data: str
    images: int
    draws: int
    seed: int
    labels: str
    measure: str
    clean: float
    chance: float
    auc_images: int


@dataclass(frozen=True)
class Tuning(JupyterMixin):
    """The levels of noise of a method on a network, and what they cost.

    Attributes:
        method: The method, as a specification.
        option: What was tuned: ``weight_sigma`` or ``noise_level``.
        model: The network's name.
        weights: The hash of its weights; None for a black box.
        basis: What was measured.
        rows: Every level tried, by input noise and weight noise.
        choices: The levels chosen, the method's own first.
    """

    method: str
    option: str
    model: str
    weights: str | None
    basis: Basis
    rows: tuple[Row, ...]
    choices: tuple[Choice, ...]

    def record(self) -> dict[str, Any]:
        """The same for JSON, with the sentences."""
        return {"salience": salience.__version__} | finite(asdict(self)) | {"sentences": self.sentences()}

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> "Tuning":
        """What `record` made."""
        plain = {each.name: record[each.name] for each in fields(cls)}
        choices = tuple(Choice(**each | {"row": Row(**each["row"])}) for each in record["choices"])
        return cls(**plain | {"basis": Basis(**record["basis"]), "rows": tuple(Row(**each) for each in record["rows"]), "choices": choices})

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table | Text]:
        yield self.table()
        for sentence in self.sentences():
            yield Text(sentence)

    def table(self) -> Table:
        """The levels tried and what they cost."""

        def shown(value: float | None, factor: float = 1, digits: int = 3) -> str:
            return "" if value is None else f"{factor * value:.{digits}f}"

        chosen = {(each.row.weight_sigma, each.row.noise_level): each.rule for each in reversed(self.choices)}
        mapped = any(row.auc is not None for row in self.rows)
        lines = []
        for row in self.rows:
            interval = "" if row.low is None else f"{shown(row.low, 100, 1)} to {shown(row.high, 100, 1)}"
            areas = (shown(row.auc), "" if row.auc_low is None else f"{shown(row.auc_low)} to {shown(row.auc_high)}") if mapped else ()
            levels = (f"{row.weight_sigma:.3g}", f"{row.noise_level:.3g}")
            lines.append((*levels, shown(row.drop, 100, 1), interval, shown(row.changed, 100, 1), *areas, chosen.get((row.weight_sigma, row.noise_level), "")))
        return table(("weight_sigma", "noise_level", "drop %", "95 % interval", "class changed %", *(("AUC", "95 % interval") if mapped else ()), "chosen"), lines)

    def show(self) -> "Figure":
        """A matplotlib figure: the drop of accuracy, and how well placed the maps are, against the level of noise."""
        from salience.studies.tuning_chart import chart

        return chart(self)

    def sentences(self) -> list[str]:
        """What was found, a sentence each choice."""
        basis = self.basis
        labels = "the data set's labels" if basis.labels == "data set" else "the clean predictions as labels"
        ground = f"{basis.measure.capitalize()} without noise is {basis.clean:.3f}, guessing gets {basis.chance:.3f}: {basis.images} pictures x {basis.draws} draws, with {labels}."
        return [*(_sentence(self.option, basis, each) for each in self.choices), ground]


def _sentence(option: str, basis: Basis, choice: Choice) -> str:
    row = choice.row
    levels = {"weight_sigma": row.weight_sigma, "noise_level": row.noise_level}
    name = ", ".join(f"{key} {value:.3g}" for key, value in levels.items() if value or key == option)
    interval = f" [{_percent(row.low)}, {_percent(row.high)}]" if row.low is not None and row.high is not None else ""
    drop = f"{basis.measure} drops by {_percent(row.drop)} %{interval}"
    if not choice.reached and choice.rule != "halved":
        return f"{RULES[choice.rule]}: none up to {LARGEST:g}; at {name} {drop}."
    what = f"{RULES[choice.rule]}: {name}, where {drop}"
    if choice.rule == "searched together" and not row.weight_sigma:
        return f"{what}; the noise in the image alone costs that much, so nothing is left for the weights."
    if not choice.reached:
        return f"{what}; no level of weight noise up to {LARGEST:g} alone costs 5 %."
    if choice.low is None:
        return f"{what}."
    return f"{what}; the drop may be 5 % from {option} {choice.low:.3g} " + ("on." if choice.high is None else f"to {choice.high:.3g} (95 %).")


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"
