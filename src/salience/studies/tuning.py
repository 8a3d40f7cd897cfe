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
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from pathlib import Path

import torch

import salience
from salience.core import registry
from salience.core.classifier import Classifier
from salience.core.errors import InputError
from salience.core.explainer import Explainer
from salience.core.types import Report
from salience.perturb.tune import DRAWS, keep, keep_weight_sigma, kept, warn_of
from salience.studies.noise_search import Search
from salience.studies.tuned import Tuning
from salience.zoo.datasets import Dataset, Item, load_dataset

LIMIT = 40
"""Pictures, unless more are asked for."""

AUC_IMAGES = 4
"""Pictures with masks on which maps are made, unless more are asked for."""

FORMAT = 3
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
    if not isinstance(data, Dataset | str | os.PathLike):
        raise InputError(f"Levels are tuned on a folder of pictures, a data set or its specification, not on type {type(data).__name__}: give pictures and their labels as a folder with labels.csv.")
    source = data if isinstance(data, Dataset) else data_of(str(data))
    items = [source[place] for place in range(min(limit, len(source)))]
    weights, key = model.weights_hash(), _key(explainer, model, items, draws, seed, auc_images, fit)
    found = None if weights is None else _kept(weights, key)
    if found is None:
        with torch.inference_mode(False), model.frozen():
            found = Search(explainer, model, items, draws, seed, fit, report or (lambda what, done, total: None)).tuning(str(source), auc_images, weights, announce or (lambda text: None))
        if weights is not None:
            keep(weights, key, found.record())
    if weights is not None and make_auto:
        _make_auto(weights, found)
    return found


def _key(explainer: Explainer, model: Classifier, items: Sequence[Item], draws: int, seed: int, auc_images: int, fit: str | None) -> str:
    """Stands for all that a tuning depends on but the weights."""
    parts = [FORMAT, salience.__version__, str(explainer), model.settings, model.precision, draws, seed, auc_images, fit, [item.fingerprint() for item in items]]
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
