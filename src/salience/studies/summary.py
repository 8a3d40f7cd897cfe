"""What a study found: the values of each table, compared and tested, and where their variance comes from."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from salience.core.errors import InputError
from salience.core.registry import entries
from salience.core.spec import build
from salience.studies.comparison import Comparison, compare
from salience.studies.statistics import FEWEST_IMAGES, Accuracy, Interval, pointing_accuracy
from salience.studies.store import Row, Store
from salience.studies.variance import VarianceSplit, flip_probability, variance_split
from salience.studies.work import CLASS_KEPT, RELATIVE_ERROR


@dataclass(frozen=True)
class Place:
    """Which rows one table is made of.

    Attributes:
        model: Its name.
        perturbation: What was done to the pictures; empty: nothing.
        variant: How the perturbed map was made; empty: no perturbation.
        changed: Whether these are the pictures whose prediction changed; they are summarised apart.
    """

    model: str
    perturbation: str
    variant: str
    changed: bool

    @property
    def title(self) -> str:
        """Model, perturbation and variant."""
        parts = [self.model, *([self.perturbation] if self.perturbation else []), *([VARIANTS[self.variant]] if self.variant else [])]
        if self.variant == "floor" and self.perturbation:
            parts = [self.model, f"{VARIANTS[self.variant]}, on what {self.perturbation} leaves in view"]
        return ", ".join(parts) + (", pictures whose prediction changed" if self.changed else "")


@dataclass(frozen=True)
class Cells:
    """All values of one metric in one table.

    Attributes:
        images: Names of the pictures.
        seeds: The seeds.
        values: For each method (images, seeds), targets averaged, NaN where there is no value.
        errors: The values' own Monte-Carlo errors, likewise; None for a method that has none. Of a mean over targets it is what it would be
            if their errors were equal, as they share their draws: it may be smaller.
        undefined: Values that do not exist, for each method.
        failed: Values that could not be computed, for each method.
        unpaired: Values that were left out, for each method, as they are of a target for which another method of the picture has none.
    """

    images: list[str]
    seeds: list[int]
    values: dict[str, np.ndarray]
    errors: dict[str, np.ndarray | None]
    undefined: dict[str, int]
    failed: dict[str, int]
    unpaired: dict[str, int]

    @property
    def measured(self) -> int:
        """How many pictures have a value of some method."""
        return int((~np.isnan(np.stack(list(self.values.values())))).any((0, 2)).sum())


@dataclass(frozen=True)
class Column:
    """One metric of a table: all methods compared.

    Attributes:
        metric: Its specification.
        higher_is_better: None where neither is.
        cells: The values.
        comparison: Means, intervals, tests against the best.
        splits: How each method's variance splits.
        flips: For each method the chance that a new seed ranks it and the best the other way round.
        accuracies: For metrics whose mean is taken by class: each method's.
    """

    metric: str
    higher_is_better: bool | None
    cells: Cells
    comparison: Comparison
    splits: dict[str, VarianceSplit]
    flips: dict[str, float]
    accuracies: dict[str, Accuracy]

    @property
    def has_narrow_intervals(self) -> bool:
        """Whether an interval, of a mean or a difference, is over so few pictures that it covers less than it says."""
        alone = [standing for method, standing in self.comparison.methods.items() if not shares_draws(self.metric, method)]
        best = self.comparison.best
        tests = [each.against_best for each in alone if each.against_best and best is not None and not shares_draws(self.metric, best)]
        return any([*(is_narrow(each.images, each.interval) for each in alone), *(is_narrow(each.pairs, each.interval) for each in tests)])


@dataclass(frozen=True)
class Table:
    """All metrics of the methods on one model, under one perturbation.

    Attributes:
        place: Which model and perturbation.
        methods: Specifications.
        columns: The metrics.
    """

    place: Place
    methods: list[str]
    columns: list[Column] = field(default_factory=list)

    @property
    def title(self) -> str:
        """Model, perturbation, variant, and of how many pictures there are values."""
        count = max(column.cells.measured for column in self.columns)
        return f"{self.place.title} ({count} picture{'' if count == 1 else 's'})"

    @property
    def notes(self) -> list[str]:
        """What was left out, and what could not be tested."""
        found = []
        for column in self.columns:
            lost = [f"{text} of {method}" for method in self.methods if (text := left_out(column.cells, method))]
            if lost:
                found.append(f"{column.metric}: left out {'; '.join(lost)}.")
        for column in self.columns:
            if column.metric == CLASS_KEPT:
                found += [
                    f"{method}: its noisy or smoothed networks keep the class in {standing.mean:.0%} of all cases, so most of what it shows are broken networks."
                    for method, standing in column.comparison.methods.items()
                    if standing.mean < 0.5
                ]
        compared = {column.metric: [each.against_best for each in column.comparison.methods.values() if each.against_best] for column in self.columns if column.higher_is_better is not None}
        tests = [test for each in compared.values() for test in each]
        reasons = [test.why_not.removeprefix("not testable: ") for test in tests if test.why_not]
        if reasons:
            found.append(f"{len(reasons)} of {len(tests)} comparisons with the best are not testable: {'; '.join(dict.fromkeys(reasons))}.")
        weak = [metric for metric, each in compared.items() if (pairs := [test.pairs for test in each if not test.why_not]) and len(pairs) * 2.0 ** (1 - max(pairs)) > 0.05]
        if weak:
            found.append(f"{', '.join(weak)}: with so few pairs and so many methods nothing can be significantly worse after Holm's correction, so bold says nothing; look at the differences.")
        for column in self.columns:
            alike = {method: each.images for method, each in column.comparison.methods.items() if column.accuracies and each.images > 1 and each.interval.low == each.interval.high}
            if alike:
                found.append(
                    f"{column.metric}: all pictures of {'; '.join(alike)} have one value, so the interval is a point, which is too narrow: "
                    f"where {(least := min(alike.values()))} pictures agree, up to {1 - 0.025 ** (1 / least):.0%} of all may still differ."
                )
        narrow = [column.metric for column in self.columns if column.has_narrow_intervals]
        if narrow:
            found.append(f"{', '.join(narrow)}: {NARROW}.")
        return found


NARROW = f"under {FEWEST_IMAGES} pictures an interval is hardly more than the range of their values, so it is too narrow (of two it holds the mean in 51 %, not 95 %)"
"""What to say where `is_narrow`."""


def is_narrow(images: int, interval: Interval) -> bool:
    """Whether an interval that resamples images alone is over so few that it covers less than it says; a point is not."""
    return images < FEWEST_IMAGES and interval.low < interval.high


def left_out(cells: Cells, method: str) -> str:
    """How many values a method lacks, and why; empty if none."""
    counts = {"undefined": cells.undefined[method], "failed": cells.failed[method], "unpaired (another method lacks the target)": cells.unpaired[method]}
    return " and ".join(f"{count} {word}" for word, count in counts.items() if count)


VARIANTS = {
    "common": "same draws, geometry undone",
    "as_is": "same draws, geometry not undone",
    "fresh": "fresh draws, geometry undone",
    "floor": "the same picture twice, fresh draws: the noise floor",
}


def tables(store: Store) -> list[Table]:
    """Everything a study found, in the order of its file.

    Raises:
        InputError: If there is no study, or it has no rows yet.
    """
    found = []
    categories = {index: str(each[0]) for each in store.described()["categories"] for index in each}
    for place, metrics in grouped(store).items():
        methods = list(next(iter(metrics.values()))[0].values)
        found.append(Table(place, methods, [_column(metric, cells, rows, categories) for metric, (cells, rows) in metrics.items()]))
    return found


def grouped(store: Store) -> dict[Place, dict[str, tuple[Cells, list[Row]]]]:
    """The values and rows of every metric in every table, in the order of the study's file.

    Where a perturbation moves no pixels the variant ``as_is`` is ``common``, so it has no table beside that one.

    Raises:
        InputError: If there is no study, or it has no rows yet.
    """
    rows = store.rows()
    if not rows:
        raise InputError(f"{store.folder} has no rows yet: continue the study with 'salience study run --resume'.")
    study = store.described()["study"]
    found: dict[Place, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    repeated = {each for each in study["perturbations"] if "common" in study["variants"] and not build("perturbation", each).geometric}
    for row in rows:
        if row["variant"] == "as_is" and row["perturbation"] in repeated:
            continue
        changed = bool(row["prediction_changed"]) and row["variant"] != "floor"
        found[Place(row["model"], row["perturbation"], row["variant"], changed)][row["metric"]].append(row)
    perturbations, variants = ["", *study["perturbations"]], ["", *VARIANTS]
    order = sorted(found, key=lambda each: (study["models"].index(each.model), perturbations.index(each.perturbation), variants.index(each.variant), each.changed))
    metrics = [*study["metrics"], RELATIVE_ERROR, CLASS_KEPT]
    return {place: {metric: (cells_of(found[place][metric], study["methods"]), found[place][metric]) for metric in metrics if metric in found[place]} for place in order}


def cells_of(rows: Sequence[Row], methods: Sequence[str]) -> Cells:
    """The values of some methods in the rows of one metric, on the targets for which every method that has values at all has one."""
    images = {image: number for number, image in enumerate(sorted({row["image"] for row in rows}))}
    seeds = {seed: number for number, seed in enumerate(sorted({row["seed"] for row in rows}))}
    found: dict[tuple[int, int], dict[str, dict[Any, tuple[float, float | None]]]] = defaultdict(lambda: defaultdict(dict))
    counts = {status: dict.fromkeys(methods, 0) for status in ("undefined", "failed", "unpaired")}
    for row in rows:
        if row["status"] != "ok":
            counts[row["status"]][row["method"]] += 1
        elif not math.isfinite(row["value"]):
            counts["undefined"][row["method"]] += 1
        else:
            found[images[row["image"]], seeds[row["seed"]]][row["method"]][row["target"]] = row["value"], row["stderr"]
    values, errors = ({method: np.full((len(images), len(seeds)), np.nan) for method in methods} for _ in range(2))
    for at, by_method in found.items():
        common = set.intersection(*(set(targets) for targets in by_method.values()))
        for method, targets in by_method.items():
            counts["unpaired"][method] += len(targets) - len(common)
            if common:
                values[method][at] = np.mean([targets[target][0] for target in common])
                known = [error for target in common if (error := targets[target][1]) is not None]
                errors[method][at] = np.sqrt(np.mean(np.square(known))) if known else np.nan
    return Cells(list(images), list(seeds), values, {method: None if np.isnan(each).all() else each for method, each in errors.items()}, **counts)


def _column(metric: str, cells: Cells, rows: Sequence[Row], categories: Mapping[int, str]) -> Column:
    facts = _facts(metric)
    higher = facts.get("higher_is_better")
    comparison = compare(cells.values, higher_is_better=higher is not False, shared=[method for method in cells.values if shares_draws(metric, method)], within=facts.get("within", (None, None)))
    best = comparison.best
    return Column(
        metric,
        higher,
        cells,
        comparison,
        {method: variance_split(values, cells.errors[method]) for method, values in cells.values.items()},
        {method: flip_probability(values, cells.values[best]) for method, values in cells.values.items() if best is not None and method != best},
        {method: _accuracy(metric, method, rows, categories) for method in cells.values} if facts.get("by_class") else {},
    )


def _accuracy(metric: str, method: str, rows: Sequence[Row], categories: Mapping[int, str]) -> Accuracy:
    """By kind of object: where several class indices stand for one, they are one class."""
    kept = {(row["image"], row["target"], row["seed"]): row["value"] for row in rows if row["method"] == method and row["status"] == "ok"}
    targets, seeds = list(dict.fromkeys(key[:2] for key in kept)), sorted({seed for *_, seed in kept})
    hits = np.array([[kept.get((*target, seed), np.nan) for seed in seeds] for target in targets], dtype=np.float64)
    kinds, images = [categories.get(target, str(target)) for _, target in targets], [image for image, _ in targets]
    return pointing_accuracy(hits, kinds, images, shared_seeds=shares_draws(metric, method))


def _facts(metric: str) -> dict:
    name = metric.partition(":")[0]
    if name in (RELATIVE_ERROR, CLASS_KEPT):
        return {"higher_is_better": None, "within": (0.0, 1.0 if name == CLASS_KEPT else None)}
    return next(entries(kind)[name].facts for kind in ("metric", "similarity") if name in entries(kind))


def shares_draws(metric: str, method: str) -> bool:
    """Whether a seed's values of all pictures come from the same weights, which the method or the metric draws."""
    return bool(_facts(metric).get("shares_weights")) or shares_weights(method)


def shares_weights(method: str) -> bool:
    """Whether a method draws network weights, which all pictures of a seed share."""
    return any(hasattr(each, "weight_samples") for each in build("explainer", method).nested())


def threads_of(manifest: Mapping[str, Any]) -> str:
    """The numbers of threads that a study, or its parts, were run with."""
    return ", ".join(map(str, sorted({part["threads"] for part in manifest.get("parts") or [manifest]})))


def units_done(store: Store) -> tuple[int, int]:
    """How many units (an image, a model and a method each) are done, and of how many."""
    manifest = store.described()
    _, [(done,)] = store.query("SELECT count(DISTINCT (image, model, method)) FROM results")
    return done, len(manifest["images"]) * len(manifest["study"]["models"]) * len(manifest["study"]["methods"])


def incomplete(store: Store) -> str:
    """What to keep in mind if a study is not complete; empty if it is."""
    done, wanted = units_done(store)
    if done == wanted:
        return ""
    return (
        f"The study is not complete: {done} of {wanted} units (an image, a model and a method each) are done. "
        "Methods may have been judged on different pictures; tests use the pictures that both methods have."
    )
