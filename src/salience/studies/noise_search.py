"""The search for a level of noise: what levels cost in accuracy, where the drop reaches 5 %, and how well placed the maps are there."""

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from salience.core.classifier import Classifier
from salience.core.draws import Stream
from salience.core.duration import duration
from salience.core.errors import CollapseWarning, InputError, UndefinedError
from salience.core.explainer import Explainer
from salience.core.files import finite
from salience.core.inputs import checked_images
from salience.core.types import Report
from salience.metrics.localisation_auc import LocalisationAUC
from salience.perturb.tune import LARGEST, TARGET_DROP, WEIGHT_LEVELS, Noisy, gaussian, predictions, smallest_crossing
from salience.studies.statistics import bootstrap_interval
from salience.studies.truth import Truth
from salience.studies.tuned import Basis, Choice, Row, Tuning
from salience.zoo.datasets import Item
from salience.zoo.images import Photographs, load_images

IMAGE_LEVELS = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, LARGEST)
"""Input noise that is tried, as a share of the image's range."""

PUBLISHED = (0.1, 0.15, 0.2)
"""Levels of input noise in use: Smilkov et al. (2017) find 0.1 to 0.2 best; NoiseGrad's authors take 0.2 (eq. 4), and half of it beside noise in the weights. They are tried whatever the drop."""

ENOUGH = 0.5
"""The drop above which no stronger noise is tried: half the accuracy is lost."""


@dataclass(frozen=True)
class _Line:
    """Levels of one option while the other stands still."""

    option: str
    levels: tuple[float, ...]
    inside: float = 0.0

    def at(self, level: float) -> tuple[float, float]:
        """Noise in the weights and in the image."""
        return (level, self.inside) if self.option == "weight_sigma" else (0.0, level)

    def level(self, row: Row) -> float | None:
        """The level of a row; None if it is not on this line."""
        level = row.weight_sigma if self.option == "weight_sigma" else row.noise_level
        return level if self.at(level) == (row.weight_sigma, row.noise_level) else None


class Search:
    """One tuning: the network, the pictures, and what was measured so far."""

    def __init__(self, explainer: Explainer, model: Classifier, items: Sequence[Item], draws: int, seed: int, fit: str | None, report: Report) -> None:
        self.explainer, self.model, self.items, self.draws, self.seed, self.report = explainer, model, items, draws, seed, report
        self.option = "weight_sigma" if hasattr(explainer, "weight_sigma") else "noise_level"
        self.both = hasattr(explainer, "weight_sigma") and hasattr(explainer, "noise_level")
        report("reading the pictures", 0, None)
        self.pictures = load_images([item.picture for item in items], model, fit)
        self.images = checked_images(self.pictures, model)
        start = time.perf_counter()
        self.clean = model.outputs(self.images)
        if self.clean.shape[1] == 1:
            raise InputError(f"{model.name} has a single output, so noise can never change the class, which is how a level is found: choose {self.option} yourself.")
        self.seconds = (time.perf_counter() - start) / len(items)
        self.truth = Truth.of(items, self.clean)
        unit = getattr(getattr(explainer, "averaged", explainer), "noise", gaussian)
        self.noisy = Noisy(model, self.images, seed=seed, noise=unit)
        variance = unit(Stream((0,), (0,)), (2**20,), 0).var().item()
        self.unit_sd = float(f"{1 / variance:.2g}") ** -0.5  # rounded, so that normal noise has exactly 1 and uniform noise 1 / sqrt(3)
        self.rows: dict[tuple[float, float], Row] = {}

    def tuning(self, data: str, auc_images: int, weights: str | None, announce: Callable[[str], None]) -> Tuning:
        """Search, then make maps at the levels of the grid."""
        levels = len(WEIGHT_LEVELS if self.option == "weight_sigma" else IMAGE_LEVELS) + 4  # bisection takes more or less, and strong noise is not tried where half is lost
        passes = levels * (2 if self.both else 1) * self.draws * len(self.items)
        announce(f"About {passes} forward passes, {duration(passes * self.seconds)} here; and where the data have masks, maps at every level.")
        choices = self.of_both() if self.both else self.of_weights() if self.option == "weight_sigma" else self.of_image()
        cases = self.cases(auc_images)
        for place, at in enumerate(list(self.rows) if cases else ()):
            self.report(f"maps of {len(cases)} pictures, level by level", place, len(self.rows))
            if self.mapped(at, choices):
                self.rows[at] = replace(self.rows[at], **self.auc(cases, *at))
        rows = tuple(self.rows[at] for at in sorted(self.rows, key=lambda at: (at[1], at[0])))
        chosen = tuple(replace(each, row=self.rows[each.row.weight_sigma, each.row.noise_level]) for each in choices)
        clean, chance = float(self.truth.values(self.clean).mean()), float(self.truth.chance.mean())
        basis = Basis(data, len(self.items), self.draws, self.seed, self.truth.labels, self.truth.measure, clean, chance, len(cases))
        return Tuning(str(self.explainer), self.option, self.model.name, weights, basis, rows, chosen)

    def of_weights(self) -> list[Choice]:
        """The choices of a method with noise in the weights."""
        line = _Line("weight_sigma", WEIGHT_LEVELS)
        given: Any = getattr(self.explainer, "weight_sigma", "auto")
        return self.with_given([self.searched("searched", line)], None if given == "auto" else line.at(given))

    def of_image(self) -> list[Choice]:
        """The choices of a method with noise in the image, and what published levels do, also at their sd."""
        line = _Line("noise_level", IMAGE_LEVELS)
        same_sd = tuple(float(f"{level / self.unit_sd:.3g}") for level in PUBLISHED)
        published, equal = ([self.row(*line.at(level)) for level in levels] for levels in (PUBLISHED, same_sd))
        choices = [self.searched("searched", line), Choice("published", published[-1])]
        if self.unit_sd != 1:
            choices.append(Choice("equal sd", equal[-1]))
        given = getattr(self.explainer, "noise_level", None)
        return self.with_given(choices, None if given is None else line.at(given))

    def of_both(self) -> list[Choice]:
        """The choices of a method with noise in the weights and in the image: the two rules of NoiseGrad's authors."""
        explainer: Any = self.explainer
        line = _Line("weight_sigma", WEIGHT_LEVELS, explainer.averaged.noise_level)
        alone = self.searched("searched alone", _Line("weight_sigma", WEIGHT_LEVELS))
        halved = Choice("halved", self.row(*line.at(explainer.auto_share * alone.row.weight_sigma)), found=alone.reached)
        choices = [halved, self.searched("searched together", line), alone]
        return self.with_given(choices, None if explainer.weight_sigma == "auto" else line.at(explainer.weight_sigma))

    def with_given(self, choices: list[Choice], at: tuple[float, float] | None) -> list[Choice]:
        """The choices and, if the method was given a level, what that does."""
        return choices if at is None else [*choices, Choice("given", self.row(*at))]

    def searched(self, rule: str, line: _Line) -> Choice:
        """The smallest crossing on a line, and where the ends of the interval cross: for these, and the picture, it goes on until half the accuracy is lost."""
        if line.inside and self.row(*line.at(0.0)).drop >= TARGET_DROP:
            level: float | None = 0.0
        else:
            level = smallest_crossing(lambda level: self.row(*line.at(level)).drop, line.levels)
        chosen = self.row(*line.at(LARGEST if level is None else level))
        for each in line.levels:
            if self.row(*line.at(each)).drop >= ENOUGH:
                break
        known = sorted((level, row) for row in self.rows.values() if (level := line.level(row)) is not None)
        low, high = (_crossing([(level, getattr(row, end)) for level, row in known]) for end in ("high", "low"))
        return Choice(rule, chosen, low, high)

    def row(self, weight_sigma: float, noise_level: float) -> Row:
        """What a level does; it is measured once."""
        at = (weight_sigma, noise_level)
        if at not in self.rows:
            self.rows[at] = self.measured(weight_sigma, noise_level)
        return self.rows[at]

    def measured(self, weight_sigma: float, noise_level: float) -> Row:
        """Make the draws of a level."""
        what = ", ".join(f"{name} {level:.3g}" for name, level in (("weight_sigma", weight_sigma), ("noise_level", noise_level)) if level)
        values, changed = [], []
        for draw in range(self.draws):
            self.report(f"accuracy with {what or 'no noise'}", draw, self.draws)
            outputs = self.noisy.outputs(draw, weight_sigma, noise_level)
            values.append(self.truth.values(outputs))
            changed.append((predictions(outputs) != self.clean.argmax(1)).float().mean().item())
        drop, low, high = relative_drop(self.truth.values(self.clean), np.stack(values, 1), self.truth.chance, shared_draws=weight_sigma > 0)
        return Row(weight_sigma, noise_level, noise_level * self.unit_sd, drop, low, high, float(np.mean(changed)))

    def cases(self, most: int) -> list[tuple[Photographs, int, Any]]:
        """Pictures with an object in the model's input: the picture, its class and mask.

        Of the classes that have a mask the one that the model finds likeliest.
        """
        found: list[tuple[Photographs, int, Any]] = []
        for place, item in enumerate(self.items):
            classes = [label for label in item.masks if 0 <= label < self.clean.shape[1]]
            if len(found) == most or not classes:
                continue
            target = max(classes, key=lambda label: self.clean[place, label].item())
            picture: Any = self.pictures[place : place + 1]
            mask = item.masks[target]
            try:
                LocalisationAUC()(self.model, picture, target, torch.zeros_like(self.images[place, :1])[None], masks=[mask])
            except UndefinedError:
                continue
            found.append((picture, target, mask))
        return found

    def mapped(self, at: tuple[float, float], choices: Sequence[Choice]) -> bool:
        """Whether maps are made at a level: at those of the grid and those chosen, with all kinds of noise that the method has."""
        if self.both and not at[1]:
            return False
        level = at[0] if self.option == "weight_sigma" else at[1]
        return level in (*WEIGHT_LEVELS, *IMAGE_LEVELS, *PUBLISHED) or any((each.row.weight_sigma, each.row.noise_level) == at for each in choices)

    def auc(self, cases: Sequence[tuple[Photographs, int, Any]], weight_sigma: float, noise_level: float) -> dict[str, Any]:
        """The mean area under the ROC curve of the method's maps at a level, with its interval over pictures."""
        levels = {name: level for name, level in (("weight_sigma", weight_sigma), ("noise_level", noise_level)) if hasattr(self.explainer, name)}
        explainer = replace(self.explainer, **levels)
        pictures = torch.cat([picture.as_subclass(Tensor) for picture, _, _ in cases])
        seeds = [(self.seed + place * 2**32, self.seed) for place in range(len(cases))]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CollapseWarning)  # the drop says it
            e = explainer(self.model, pictures, [target for _, target, _ in cases], seed=seeds)
        areas = [LocalisationAUC()(self.model, picture, None, e[place], masks=[mask]).values.item() for place, (picture, _, mask) in enumerate(cases)]
        interval = bootstrap_interval(areas)
        return finite({"auc": float(np.mean(areas)), "auc_low": interval.low, "auc_high": interval.high})


def relative_drop(clean: Float[np.ndarray, " n"], noisy: Float[np.ndarray, "n draws"], chance: Float[np.ndarray, " n"], shared_draws: bool) -> tuple[float, float | None, float | None]:
    """1 - (ACC(noise) - ACC(inf)) / (ACC(0) - ACC(inf)) with its 95 % interval.

    The interval is `bootstrap_interval` of the ratio's linear form, drop + ((clean - noisy) - drop (clean - chance)) / mean(clean -
    chance), whose mean is the drop: with the clean predictions as labels that is the ratio itself.

    Args:
        clean: The measure without noise as one number a picture.
        noisy: With noise, in every draw.
        chance: What guessing gets.
        shared_draws: Whether all pictures have the same noise, so that draws are resampled too.

    Returns:
        The drop, and both ends or None.
    """
    lost, room = clean[:, None] - noisy, clean - chance
    drop = lost.mean() / room.mean()
    ends = bootstrap_interval(drop + (lost - drop * room[:, None]) / room.mean(), shared_seeds=shared_draws)
    return float(drop), *finite([ends.low, ends.high])


def _crossing(points: Sequence[tuple[float, float | None]]) -> float | None:
    """Where a line through points first reaches 5 %; without noise it is at 0. None if it does not, or a point has no value."""
    before = (0.0, 0.0)
    for level, value in points:
        if value is None:
            return None
        if value >= TARGET_DROP:
            rise = value - before[1]
            return level if rise <= 0 else before[0] + (level - before[0]) * (TARGET_DROP - before[1]) / rise
        before = (level, value)
    return None
