"""How much noise a method may use on a network: the level at which accuracy drops by 5 %, and what other levels cost.

The drop of eq. 5 of "NoiseGrad" (2022) is AD = 1 - (ACC(noise) - ACC(inf)) / (ACC(0) - ACC(inf)), where ACC(inf) is
guessing. One rule serves all methods: **the smallest level at which AD reaches 5 %**, of the noise that the method has.

- For noise in the weights that is the paper's own heuristic.
- For noise in the image the paper says 0.2 of the image's range, whatever the network (eq. 4), and that 0.1 to 0.2 work best although
  they cross the decision boundary. Neither number is derived from anything: 0.2 is a habit, and 5 % is a convention too. But at equal
  drops two methods' networks are disturbed equally much, on every network; at 0.2 one network loses a tenth of its classes
  and another most. So the rule for weights is used for images too, as the level at which noise begins to cost, and what 0.2 costs stands
  beside it. It is no claim that maps are best there: localisation tells that, where there are masks.
- For both kinds together the paper has two rules: half of both levels, or, with noise of 0.1 in the image, the level of weight
  noise at which both together reach 5 %. Both are given; the method's own default is the first.
"""

import hashlib
import json
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

import salience
from salience.core import registry
from salience.core.classifier import Classifier
from salience.core.draws import Stream
from salience.core.duration import duration
from salience.core.errors import CollapseWarning, InputError, UndefinedError
from salience.core.explainer import Explainer
from salience.core.files import finite
from salience.core.inputs import checked_images
from salience.core.types import Report
from salience.metrics.localisation_auc import LocalisationAUC
from salience.perturb.tune import DRAWS, LARGEST, TARGET_DROP, WEIGHT_LEVELS, Noisy, gaussian, keep, keep_weight_sigma, kept, predictions, smallest_crossing, warn_of
from salience.studies.statistics import bootstrap_interval
from salience.studies.truth import Truth
from salience.studies.tuned import Basis, Choice, Row, Tuning
from salience.zoo.datasets import Dataset, Item, load_dataset
from salience.zoo.images import Photographs, load_images

LIMIT = 40
"""Pictures, unless more are asked for."""

AUC_IMAGES = 4
"""Pictures with masks on which maps are made, unless more are asked for."""

IMAGE_LEVELS = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, LARGEST)
"""Input noise that is tried, as a share of the image's range."""

PUBLISHED = (0.1, 0.15, 0.2)
"""Levels of input noise in use: Smilkov et al. (2017) find 0.1 to 0.2 best; NoiseGrad's authors take 0.2 (eq. 4), and half of it beside noise in the weights. They are tried whatever the drop."""

ENOUGH = 0.5
"""The drop above which no stronger noise is tried: half the accuracy is lost."""

FORMAT = 2
"""Of the records kept; another format is another key."""


def data_of(text: str | Path) -> Dataset:
    """A folder of pictures (in a random order), or a data set by its specification.

    Raises:
        InputError: If it is neither.
    """
    if Path(text).is_dir():
        return load_dataset("folder", root=str(text), shuffle=0)
    name = str(text).partition(":")[0]
    if name not in registry.entries("dataset"):
        raise InputError(f"{text} is neither a folder of pictures nor a data set: give a folder, or for example folder:root=photos,labels=labels.csv.")
    return Dataset.from_value(str(text))


def tunable() -> list[str]:
    """The methods that have noise to tune: those with the option weight_sigma or noise_level."""
    return [name for name, entry in registry.entries("explainer").items() if {"weight_sigma", "noise_level"} & {each.name for each in fields(entry.cls)}]


def tune(
    method: object,
    model: Classifier,
    data: object,
    *,
    limit: int = LIMIT,
    draws: int = DRAWS,
    seed: int = 0,
    auc_images: int = AUC_IMAGES,
    fit: str | None = None,
    make_auto: bool = True,
    report: Report | None = None,
    announce: Callable[[str], None] | None = None,
) -> Tuning:
    """Find the levels of noise of a method on a network.

    The drop is measured at a grid of levels, upwards until half the accuracy is lost, and the smallest crossing of 5 % is
    bisected to 5 % of its value. All levels share their draws. The interval of a drop is over images and, where weights get noise,
    over draws of weights too, as all images share them (`bootstrap_interval`, of the linearised ratio; average precision
    by jackknife values). It does not count that the level was chosen by the same data.

    Data with several labels a picture are judged by mean average precision, over the classes that have a picture, and
    ACC(inf) is then the mean share of pictures that have a label.

    What was found is kept with the hash of the weights: asking again costs no passes, and of a method with noise in the
    weights it is what ``weight_sigma=auto`` takes from then on, unless ``model.weight_sigma`` is set.

    Args:
        method: With the option ``weight_sigma`` or ``noise_level``; with both the first is tuned.
        model: `Model`; or `BlackBox` if only the image gets noise.
        data: A `Dataset`, its specification, or a folder.
        limit: Pictures at most.
        draws: Draws of noise at each level.
        seed: Of all draws.
        auc_images: Pictures with masks, at most, on which the method's maps are made at each level of the grid; 0: none.
        fit: How pictures are brought to the model's size; None: the model's own way.
        make_auto: Whether ``weight_sigma=auto`` takes the level of weight noise that is found from then on.
        report: Called as ``report(what, done, total)``.
        announce: Told once what the work will cost, about.

    Raises:
        InputError: If the method has no such noise, the model has a single output, or the data do not fit it.

    Cost: levels x draws x images forward passes, typically 10 levels, twice as many for two kinds of noise together; and the maps.

    Source: "NoiseGrad" (2022), eq. 4 and 5, and its appendix for both kinds together.

    Differs from the source: it leaves the search open, and has no such rule for noise in the image; see the module.
    """
    explainer = Explainer.from_value(method)
    given = {name: getattr(explainer, name) for name in ("weight_sigma", "noise_level", "sigma") if hasattr(explainer, name)}
    if not {"weight_sigma", "noise_level"} & set(given):
        raise InputError(f"{explainer.name} has neither weight_sigma nor noise_level, so there is no noise to tune: take one of {', '.join(tunable())}.")
    if given.get("sigma") is not None:
        raise InputError(f"{explainer.name}: sigma is absolute, but levels are tuned relative to each image's range: leave sigma out.")
    if limit < 1 or draws < 2 or auc_images < 0:
        raise InputError(f"Tuning needs a picture, two draws, and no fewer than 0 pictures for maps, but was given limit {limit}, draws {draws} and auc_images {auc_images}.")
    if "weight_sigma" in given and not model.white_box:
        raise InputError(f"{model.name} is a black box, so its weights cannot be given noise: tune smoothgrad on a base that works without gradients, or give the network itself as sal.Model(module).")
    source = data if isinstance(data, Dataset) else data_of(str(data))
    items = [source[place] for place in range(min(limit, len(source)))]
    weights, key = model.weights_hash(), _key(explainer, model, items, draws, seed, auc_images, fit)
    found = None if weights is None else _kept(weights, key)
    if found is None:
        with torch.inference_mode(False), model.frozen():
            found = _Search(explainer, model, items, draws, seed, fit, report or (lambda what, done, total: None)).tuning(str(source), auc_images, weights, announce or (lambda text: None))
        if weights is not None:
            keep(weights, key, found.record())
    if weights is not None and make_auto:
        _make_auto(weights, found)
    return found


def _key(explainer: Explainer, model: Classifier, items: Sequence[Item], draws: int, seed: int, auc_images: int, fit: str | None) -> str:
    """Stands for all that a tuning depends on but the weights."""
    inputs = [getattr(model, name, None) for name in ("size", "fit", "crop_fraction", "value_range", "order", "precision", "probabilities")]
    scaled = [getattr(model, name).flatten().tolist() for name in ("mean", "std") if hasattr(model, name)]
    parts = [FORMAT, salience.__version__, str(explainer), inputs, scaled, draws, seed, auc_images, fit, [item.fingerprint() for item in items]]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _kept(weights: str, key: str) -> Tuning | None:
    """What was found earlier; None if nothing was, or it is of no use, which a warning then says."""
    record = kept(weights, key)
    if record is None:
        return None
    try:
        return Tuning.from_record(record)
    except (KeyError, TypeError, AttributeError) as error:
        warn_of(f"{weights[:8]}.../{key}.json", error)
        return None


def _make_auto(weights: str, found: Tuning) -> None:
    """Make the level of weight noise alone what ``weight_sigma=auto`` takes."""
    for choice in found.choices:
        if choice.rule in ("searched", "searched alone") and choice.row.weight_sigma and not choice.row.noise_level:
            keep_weight_sigma(weights, choice.row.weight_sigma, {"method": found.method, "model": found.model, "basis": asdict(found.basis)})


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


class _Search:
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
