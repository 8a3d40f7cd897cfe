"""The work of a study: the rows of one image, model and method. It depends on nothing but its arguments."""

import hashlib
import io
import json
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from salience.core.classifier import Classifier
from salience.core.draws import streams
from salience.core.errors import CollapseWarning, InputError, UndefinedError, lacks_memory
from salience.core.explainer import Explainer
from salience.core.explanation import Explanation
from salience.core.metric import Judgement, Metric
from salience.core.perturbation import Perturbation
from salience.core.robustness import Pair, compared, hides
from salience.core.similarity import Similarity
from salience.studies.store import OUT_OF_MEMORY, Row
from salience.studies.study import Study, Variant
from salience.zoo.datasets import Dataset, Item
from salience.zoo.images import Photographs, load_images
from salience.zoo.models import load_model

RELATIVE_ERROR = "relative_error"
"""A row that every study has: the relative Monte-Carlo error of the map, 0 for a deterministic method, undefined where it is not known or infinite."""

CLASS_KEPT = "class_kept"
"""A row of methods that average over noisy or smoothed networks: the share of these that keep the class which the network itself predicts."""


@dataclass(frozen=True)
class Unit:
    """What is computed and kept together.

    Attributes:
        place: Number of the image in the data set.
        image: Its name.
        model: Name of the model.
        method: Specification of the method.
        weight_sigma: What ``weight_sigma=auto`` takes, for all pictures alike; None if no method asks for it.
        weights: Hash of the weights that the model must have; None for a black box, or if any will do.
    """

    place: int
    image: str
    model: str
    method: str
    weight_sigma: float | None = None
    weights: str | None = None

    @property
    def id(self) -> str:
        """Stands for the unit in file names."""
        return hashlib.sha256(json.dumps([self.image, self.model, self.method]).encode()).hexdigest()[:20]


@dataclass
class Result:
    """What came out of a unit."""

    unit: Unit
    rows: list[Row] = field(default_factory=list)
    curves: list[Row] = field(default_factory=list)
    maps: bytes | None = None


def compute(study: Study, unit: Unit, keep_maps: bool = False) -> Result:
    """All rows of a unit. What goes wrong with the image becomes rows that say so.

    Args:
        study: What is asked.
        unit: For which image, model and method.
        keep_maps: Whether to return the maps too.

    Raises:
        InputError: If the model cannot be had here, or has other weights than it must: that is no matter of one image.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CollapseWarning)  # the rows of CLASS_KEPT say it
        return _Work(study, unit, keep_maps).done()


def comparisons(study: Study) -> list[tuple[str, Variant]]:
    """Perturbations and variants. The noise floor knows no perturbation; it is measured once on whole pictures and once on what each one leaves in view."""
    pairs: list[tuple[str, Variant]] = [(text, variant) for text in study.perturbations for variant in study.variants if variant != "floor"]
    if "floor" in study.variants and study.perturbations:
        pairs += [("", "floor"), *((text, "floor") for text in study.perturbations if hides(Perturbation.from_value(text)))]
    return pairs


def seeds_of(study: Study, image: str, seed: int) -> tuple[int, int]:
    """The seed of an image's own draws, from its name, and that of the weights, which all images share."""
    return _number(study.seed, seed, "image", image), _number(study.seed, seed, "weights")


def _number(*parts: int | str) -> int:
    return int.from_bytes(hashlib.sha256(json.dumps(parts).encode()).digest()[:7], "big")


def model_of(name: str, device: str, precision: str, chunk: int | None) -> Classifier:
    """The model; kept, because the next unit has the same, or is the first of the next model."""
    return _loaded(name, device, precision, chunk)[0]


@lru_cache(maxsize=2)
def _loaded(name: str, device: str, precision: str, chunk: int | None) -> tuple[Classifier, str | None]:
    """A model, and the hash of its weights."""
    model = load_model(name, device=device, precision=precision)
    model.chunk = chunk
    return model, model.weights_hash()


@lru_cache(maxsize=1)
def _data(text: str) -> Dataset:
    return Study.model_validate_json(text).data.load()


def forget() -> None:
    """Load models and data again: their files may have changed since an earlier study of this process."""
    _loaded.cache_clear()
    _data.cache_clear()


def _similar(similarity: Similarity, pair: Pair) -> Judgement:
    return Judgement(similarity.compare_within(pair.clean[:, None], pair.perturbed[:, None], pair.visible).float())


def _relative_error(e: Explanation) -> Judgement:
    relative = e.relative_error
    if relative is None and e.certainty != "deterministic":
        raise UndefinedError(f"{e.method} draws at random but does not know its error.")
    if relative is not None and torch.isinf(relative).any():
        raise UndefinedError("Nothing stands out of the sampling noise, so the relative error is infinite: take more draws.")
    return Judgement(torch.zeros(1) if relative is None else relative)


class _Work:
    def __init__(self, study: Study, unit: Unit, keep_maps: bool) -> None:
        self.study, self.unit, self.keep_maps = study, unit, keep_maps
        self.result = Result(unit)
        self.key: Row = {"image": unit.image, "model": unit.model, "method": unit.method}
        self.explainer = Explainer.from_value(unit.method)
        self.changed: dict[str, Tensor] = {}  # by perturbation, of the map that is being measured
        self.floor: Pair | None = None  # of that map
        self.maps: dict[str, list[np.ndarray]] = {name: [] for name in ("map", "stderr", "df", "target", "seed")}

    def done(self) -> Result:
        """Load the image and go through its targets and the seeds."""
        study = self.study
        try:
            model = self.model()
        except Exception as error:
            if lacks_memory(error):
                return self.nothing(error)
            raise  # it is the same for all images
        try:
            item = _data(study.model_dump_json())[self.unit.place]
            image = load_images([item.picture], model, study.fit)
            outputs = model.outputs(image.as_subclass(Tensor).to(model.device))
            targets = [int(outputs.argmax())] if study.data.targets == "predicted" else self.labels(item, outputs[0])
        except Exception as error:  # whatever is wrong with one image must not stop the others
            return self.nothing(error)
        for target in targets:
            for seed in study.seeds:
                self.map_of(model, image, item, target, seed, {"target": target, "label": model.label(target), "seed": seed})
        if self.keep_maps and self.maps["map"]:
            arrays: dict[str, Any] = {name: np.stack(parts) for name, parts in self.maps.items() if parts}
            with io.BytesIO() as buffer:
                np.savez_compressed(buffer, image=image.as_subclass(Tensor).numpy(), **arrays)
                self.result.maps = buffer.getvalue()
        return self.result

    def model(self) -> Classifier:
        """The model, with the weights and the level of noise that it must have."""
        study, unit = self.study, self.unit
        model, weights = _loaded(unit.model, study.device, study.precision, study.chunk)
        if unit.weights not in (None, weights):
            raise InputError(
                f"{unit.model} was loaded once more and has other weights than the study began with: what makes it draws them anew each time, or finds other files here. "
                "Let it give the same weights in every process and on every machine, for example from one file."
            )
        return model if unit.weight_sigma is None else model.using(weight_sigma=unit.weight_sigma)

    def nothing(self, error: Exception) -> Result:
        """The result where there is not even an image to explain."""
        for seed in self.study.seeds:
            self.failed({"seed": seed}, error)
        return self.result

    def labels(self, item: Item, outputs: Tensor) -> list[int]:
        """The labels to explain, each once; of several classes of one object the one that the model finds likeliest."""
        classes = len(outputs)
        if not item.labels:
            raise UndefinedError(f"{item.name} has no label: give labels, or explain the predicted class (targets: predicted).")
        wrong = [label for label in item.labels if not 0 <= label < classes]
        if wrong:
            raise UndefinedError(f"{item.name} has the label {wrong[0]}, but the model has classes 0 to {classes - 1}.")
        objects = item.groups or tuple((label,) for label in item.labels)
        chosen = list(dict.fromkeys(max(group, key=lambda label: outputs[label].item()) for group in objects))
        return chosen if self.study.data.targets == "all_labels" else chosen[:1]

    def map_of(self, model: Classifier, image: Photographs, item: Item, target: int, seed: int, key: Row) -> None:
        """The map of one target with one seed, and all that is measured of it."""
        own = [seeds_of(self.study, item.name, seed)]
        start = time.perf_counter()
        try:
            e = self.explainer(model, image, target, score=self.study.score if self.explainer.heeds_score else None, seed=own)
        except Exception as error:  # a method that cannot explain this must not stop the others
            self.failed(key, error)
            return
        self.measured(key | {"metric": RELATIVE_ERROR}, partial(_relative_error, e), time.perf_counter() - start)
        if CLASS_KEPT in e.record["images"]:
            self.measured(key | {"metric": CLASS_KEPT}, lambda: Judgement(torch.tensor(e.record["images"][CLASS_KEPT])), 0.0)
        if self.keep_maps:
            self.keep(e, target, seed)
        for name in self.study.quality:
            self.measured(key | {"metric": name}, partial(self.judged, Metric.from_value(name), model, image, item, target, e, own))
        view = model.using(score=None if self.study.score is None else model.named_score(self.study.score))
        self.changed, self.floor = {}, None
        for text, variant in comparisons(self.study):
            self.perturbed(view, image, e, own, Perturbation.from_value(text or self.study.perturbations[0]), key | {"perturbation": text, "variant": variant})

    def judged(self, metric: Metric, model: Classifier, image: Photographs, item: Item, target: int, e: Explanation, seed: list[tuple[int, int]]) -> Judgement:
        """A metric of a map. The mask is read for metrics that need it alone: one that cannot be read is no matter for the others."""
        mask = item.masks.get(target) if metric.facts.get("needs_masks") else None
        return metric(model, image, target, e, masks=None if mask is None else [mask], explainer=self.explainer, seed=seed)

    def perturbed(self, model: Classifier, image: Photographs, e: Explanation, seed: list[tuple[int, int]], perturbation: Perturbation, key: Row) -> None:
        """How similar the map of the perturbed image is, by every similarity."""
        start = time.perf_counter()
        try:
            images, maps, targets = (each.to(model.device) for each in (image.as_subclass(Tensor), e.maps, e.targets))
            if key["variant"] != "floor":
                pair = compared(self.explainer, model, images, targets, streams(seed, 1), perturbation, key["variant"], maps, self.changed.get(key["perturbation"]))
            else:
                self.floor = self.floor or compared(self.explainer, model, images, targets, streams(seed, 1), perturbation, "floor", maps)
                pair = self.floor.under(perturbation) if key["perturbation"] else self.floor
        except Exception as error:  # as above
            for name in self.study.similarities:
                self.fail(key | {"metric": name}, error)
            return
        self.changed[key["perturbation"]] = pair.images
        key, spent = key | {"prediction_changed": bool(pair.prediction_changed[0])}, time.perf_counter() - start
        for name in self.study.similarities:
            self.measured(key | {"metric": name}, partial(_similar, Similarity.from_value(name), pair), spent)
            spent = 0.0  # the maps are made once: their time counts once

    def measured(self, key: Row, judge: Callable[[], Judgement], spent: float = 0.0) -> None:
        """The row of one number, or the reason why there is none; `spent` are the seconds before it that are its own."""
        start = time.perf_counter()
        try:
            found = judge()
        except Exception as error:  # as above
            self.fail(key, error)
            return
        self.add({"seconds": spent + time.perf_counter() - start} | key | {"value": float(found.values[0]), "stderr": None if found.stderr is None else float(found.stderr[0])})
        for name, curve in found.curves.items():
            self.result.curves += [self.whole(key) | {"curve": name, "x": float(x), "y": float(y)} for x, y in zip(curve.x, curve.y[0], strict=True)]

    def failed(self, key: Row, error: Exception) -> None:
        """A row for everything that would have been measured."""
        for name in (RELATIVE_ERROR, *self.study.quality):
            self.fail(key | {"metric": name}, error)
        for text, variant in comparisons(self.study):
            for name in self.study.similarities:
                self.fail(key | {"metric": name, "perturbation": text, "variant": variant}, error)

    def fail(self, key: Row, error: Exception) -> None:
        """A row that says why it has no value."""
        reason = OUT_OF_MEMORY if lacks_memory(error) else str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        self.add({"seconds": 0.0} | key | {"status": "undefined" if isinstance(error, UndefinedError) else "failed", "reason": reason})

    def add(self, row: Row) -> None:
        """Keep a row."""
        self.result.rows.append({"status": "ok"} | self.whole(row))

    def whole(self, row: Row) -> Row:
        """A row with all its key."""
        return self.key | {"perturbation": "", "variant": ""} | row

    def keep(self, e: Explanation, target: int, seed: int) -> None:
        """Keep a map and its error."""
        self.maps["map"].append(e.maps[0].numpy())
        self.maps["target"].append(np.array(target))
        self.maps["seed"].append(np.array(seed))
        if e.stderr is not None and e.df is not None:
            self.maps["stderr"].append(e.stderr[0].numpy())
            self.maps["df"].append(e.df[0].numpy())
