"""Two studies side by side: the cells that both have, on the pictures that both have."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from salience.core.errors import InputError
from salience.core.files import finite
from salience.studies.comparison import PairedTest, holm, paired_test
from salience.studies.statistics import per_image
from salience.studies.store import Row, Store
from salience.studies.summary import NARROW, Place, cells_of, grouped, is_narrow, shares_draws, threads_of
from salience.studies.tabulated import p_value, with_interval

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class Difference:
    """A cell of two studies.

    Attributes:
        place: Model, perturbation and variant.
        metric: Specification.
        method: Specification.
        first: Mean in the first study, over the pictures, seeds and classes that have a value in both.
        second: Mean in the second, likewise.
        test: The paired test of second - first.
        adjusted: Its p by Holm's method over all cells of the two studies.
    """

    place: Place
    metric: str
    method: str
    first: float
    second: float
    test: PairedTest
    adjusted: float = float("nan")


def compare_studies(first: Store, second: Store) -> list[Difference]:
    """The difference of two studies in every cell (model, perturbation, variant, metric and method) that both have.

    Pictures are the same if their names, contents, labels and masks are, seeds if their numbers are: only values that both
    have, of the same target, count. Without a common seed, the first of each are taken, as many as both have. Targets and
    seeds of a picture are averaged; of methods that draw weights the seeds, which all pictures share, are resampled too.

    Raises:
        InputError: If nothing is common.
    """
    found, common = [], _common_pictures(first, second)
    ours, theirs = grouped(first), grouped(second)
    for place in (each for each in ours if each in theirs):
        for metric in (each for each in ours[place] if each in theirs[place]):
            (a, our_rows), (b, their_rows) = ours[place][metric], theirs[place][metric]
            seeds = [seed for seed in a.seeds if seed in b.seeds]
            fewer = min(len(a.seeds), len(b.seeds))
            kept = [*_kept(our_rows, "first", common, seeds or a.seeds[:fewer]), *_kept(their_rows, "second", common, seeds or b.seeds[:fewer])]
            for method in (each for each in a.values if each in b.values):
                paired = cells_of([row for of, row in kept if of == method], ("first", "second")).values
                one, other = paired["first"], paired["second"]
                both = np.isfinite(one) & np.isfinite(other)
                if both.any():
                    one, other = (np.where(both, each, np.nan)[both.any(1)] for each in (one, other))
                    before, after = (float(per_image(each).values.mean()) for each in (one, other))
                    found.append(Difference(place, metric, method, before, after, paired_test(other, one, shared_seeds=shares_draws(metric, method))))
    if not found:
        raise InputError(
            f"{first.folder} and {second.folder} have nothing in common ({len(common)} pictures are in both): compare studies with equal pictures, classes explained, models, methods, metrics and perturbations."
        )
    return [replace(each, adjusted=p) for each, p in zip(found, holm([each.test.p for each in found]).tolist(), strict=True)]


def settings(first: Store, second: Store) -> list[str]:
    """What else differs between two studies: settings, weights of models, versions, pictures of one name."""
    a, b = first.described(), second.described()
    listed = ("name", "models", "methods", "metrics", "perturbations", "variants", "keep_maps")
    found = [f"{key}: {value} and {b['study'].get(key)}" for key, value in a["study"].items() if key not in listed and b["study"].get(key) != value]
    for key in ("models", "methods", "metrics", "perturbations", "variants"):
        alone = [[each for each in one["study"].get(key, ()) if each not in other["study"].get(key, ())] for one, other in ((a, b), (b, a))]
        found += [f"{key} that only the {which} has: {', '.join(names)}" for which, names in zip(("first", "second"), alone, strict=True) if names]
    found += [f"the weights of {name}" for name, value in a["models"].items() if b["models"].get(name, value) != value]
    found += [f"{key}: {value} and {b['versions'].get(key)}" for key, value in a["versions"].items() if b["versions"].get(key) != value]
    found += [f"threads: {threads_of(a)} and {threads_of(b)}"] if threads_of(a) != threads_of(b) else []
    changed = [name for name, value in a["images"].items() if b["images"].get(name, value) != value]
    return found + ([f"{len(changed)} pictures of equal names (the pictures, their labels or masks), {changed[0]} first: left out"] if changed else [])


def as_row(found: Difference) -> dict[str, Any]:
    """A difference as one flat object, for JSON; what is not known is null."""
    place, test = found.place, found.test
    key = {"model": place.model, "method": found.method, "metric": found.metric, "perturbation": place.perturbation, "variant": place.variant, "prediction_changed": place.changed}
    values = {"mean_first": found.first, "mean_second": found.second, "difference": test.difference, "low": test.interval.low, "high": test.interval.high}
    return key | finite(values | {"p": test.p, "p_holm": found.adjusted, "pairs": test.pairs, "why_not": test.why_not})


def print_comparison(first: Store, second: Store, found: Sequence[Difference], console: "Console") -> None:
    """The differences on a terminal."""
    from rich.text import Text

    from salience.show.table import table

    headings = ("metric", "method", "mean of the first", "of the second", "second less first", "p", "p (Holm)", "pairs")
    console.print(Text(f"{second.folder} against {first.folder}", style="bold"))
    for setting in settings(first, second):
        console.print(Text(f"They differ in {setting}."))
    for place in dict.fromkeys(each.place for each in found):
        console.print(Text(f"\n{place.title}", style="bold"))
        rows = []
        for each in (each for each in found if each.place == place):
            test = each.test
            means = (with_interval(each.first), with_interval(each.second), with_interval(test.difference, test.interval))
            rows.append((each.metric, each.method, *means, p_value(test.p), p_value(each.adjusted), str(test.pairs)))
        console.print(table(headings, rows))
    reasons = dict.fromkeys(each.test.why_not for each in found if each.test.why_not)
    for reason in reasons:
        console.print(Text(f"{reason[0].upper()}{reason[1:]}.", style="dim"))
    if any(is_narrow(each.test.pairs, each.test.interval) for each in found if not shares_draws(each.metric, each.method)):
        console.print(Text(f"{NARROW[0].upper()}{NARROW[1:]}.", style="dim"))
    console.print(Text(LEGEND, style="dim"))


LEGEND = (
    "Means over the pictures, seeds and classes that have a value in both studies; the difference with its 95 % interval (bootstrap over pictures; over weight draws too where they are shared); "
    "p of a paired two-sided test (Wilcoxon; sign flips for metrics of few values), and by Holm's method over all lines."
)


def _common_pictures(first: Store, second: Store) -> set[str]:
    a, b = (store.described()["images"] for store in (first, second))
    return {name for name, value in a.items() if b.get(name) == value}


def _kept(rows: Sequence[Row], study: str, pictures: Collection[str], seeds: Sequence[int]) -> list[tuple[str, Row]]:
    """The method and the row of every row that counts; in it the study stands for the method, and the seed's number for the seed."""
    numbers = {seed: number for number, seed in enumerate(seeds)}
    return [(row["method"], row | {"method": study, "seed": numbers[row["seed"]]}) for row in rows if row["image"] in pictures and row["seed"] in numbers]
