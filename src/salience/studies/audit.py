"""The report card of explanation methods, on a user's own model and images: all that is measured for it.

Cost, an image: `MAPS` maps and 58 forward passes for every method, and 7 x 58 forward passes for the controls, once.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import takewhile

import numpy as np
import torch
from scipy import stats

from salience.core import registry
from salience.core.classifier import Classifier
from salience.core.draws import Stream, streams
from salience.core.errors import CollapseWarning, InputError
from salience.core.explainer import Explainer, MonteCarlo
from salience.core.explanation import Explanation
from salience.core.geometry import names_of
from salience.core.inputs import Target, checked_images, hash_of, target_indices
from salience.core.montecarlo import relative_error
from salience.core.perturbation import Perturbation
from salience.core.reduction import is_flat, less_mean, one_channel
from salience.core.robustness import compared, scaled
from salience.core.types import Images, Report, Saliency, Targets
from salience.explainers._weight_noise import AverageOverWeights
from salience.explainers.beta_smoothing import BetaSmoothing
from salience.explainers.edges import Edges
from salience.metrics.deletion import Deletion
from salience.metrics.insertion import Insertion
from salience.perturb.randomise import parts_of, randomised
from salience.perturbations.gaussian_blur import GaussianBlur
from salience.perturbations.gaussian_noise import GaussianNoise
from salience.perturbations.horizontal_flip import HorizontalFlip
from salience.similarities.spearman import Spearman
from salience.studies.report_card import ReportCard
from salience.studies.verdicts import Card, Controls, Seen

METHODS = ("gradient", "smoothgrad", "gradcam", "rise")
"""What is audited unless methods are named: noise-free and smoothed gradients, a layer, masks."""

WEIGHT_DRAWS = 3
"""Random networks; all images share them."""

CONTROL_DRAWS = 5
"""Maps of a control that draws at random; how much their areas differ is luck."""

PERTURBATIONS: dict[str, Perturbation] = {"noise": GaussianNoise(), "blur": GaussianBlur(), "flip": HorizontalFlip()}
MAPS = 2 + WEIGHT_DRAWS + len(PERTURBATIONS)
"""Maps of every method and image: the map, one with other draws, those of random networks and of perturbed images."""


def audit(model: Classifier, images: Images, methods: Sequence[object] = METHODS, targets: Target = None, seed: int = 0, progress: Report | None = None) -> ReportCard:
    """Ask every question of every method: one finding each, over all images.

    The map of the first image is that of `explain` with the same seed; further images have draws of their own, and share
    those of weights. The level of weight noise is that of the model; where it is not known it is found once, on these images.

    Cost: see the module.

    Args:
        model: `Model` or `BlackBox`.
        images: (n, c, h, w) in [0, 1], as `load_images` returns them.
        methods: Specifications, explainers or functions.
        targets: Class indices or names; None takes the predicted classes.
        seed: Of all draws.
        progress: Called as ``progress(what, done, total)``.

    Returns:
        Findings, by method, in the order of `QUESTIONS`: a list that Jupyter displays as tables.

    Raises:
        InputError: If something given cannot be used, or a method cannot explain the model.
    """
    explainers = list({str(each): each for each in map(Explainer.from_value, methods)}.values())
    if not explainers:
        raise InputError("There is nothing to audit: name at least one method.")
    names = names_of(images) or [f"image {place + 1}" for place in range(len(images))]
    images, report = checked_images(images, model), progress or (lambda what, done, total: None)
    first: dict[str, str] = {}
    for name, pixels in zip(names, map(hash_of, images), strict=True):
        if pixels in first:
            raise InputError(f"{first[pixels]} and {name} are the same picture: give it once, because intervals count pictures.")
        first[pixels] = name
    with model.frozen(), warnings.catch_warnings():
        warnings.simplefilter("ignore", CollapseWarning)  # "class kept" says it; under random weights it would mean nothing
        indices = target_indices(targets, model.outputs(images), model).to(images.device)
        for explainer in explainers:
            report(f"preparing {explainer.name}", 0, None)
            model = explainer.prepare(model, images)
        cases = [_Case(model, images[place : place + 1], indices[place : place + 1], (seed + place * 2**32, seed)) for place in range(len(images))]
        seen = {}
        for explainer in explainers:
            what = [f"{explainer.name}, image {place + 1} of {len(cases)}" for place in range(len(cases))]
            seen[str(explainer)] = [_seen(case, explainer, partial(report, what[place])) for place, case in enumerate(cases)]
        report("the controls", 0, None)
        controls = [_controls(case, partial(report, f"the controls, image {place + 1} of {len(cases)}")) for place, case in enumerate(cases)]
    image = names[0] if len(cases) == 1 else "all images"
    return ReportCard(finding for method, each in seen.items() for finding in Card(image, method, each, controls).findings())


@dataclass(frozen=True)
class _Case:
    """One image, its target, and its seed (of its own draws, of weights)."""

    model: Classifier
    image: Images
    target: Targets
    seed: tuple[int, int]

    def explained(self, explainer: Explainer, fresh: int = 0) -> Explanation:
        """The map, from draws of its own."""
        return explainer(self.model, self.image, self.target, seed=[(self.seed[0] + fresh, self.seed[1])])

    def areas(self, e: Explanation) -> dict[str, float]:
        """Areas under the curves, larger is better: that of deletion counts as negative."""
        deletion, insertion = (metric(self.model, self.image, self.target, e, seed=[self.seed]).values.item() for metric in (Deletion(), Insertion()))
        return {"deletion": -deletion, "insertion": insertion}

    def similarity(self, explainer: Explainer, e: Explanation, perturbation: Perturbation | None) -> tuple[float, bool]:
        """How alike the perturbed image's map is (None: a map with other draws), and whether the prediction changed."""
        pair = compared(explainer, self.model, self.image, self.target, streams([self.seed], 1), perturbation or GaussianNoise(), "common" if perturbation else "floor", e.maps.to(self.image.device))
        return _alike(*pair.raw), bool(pair.prediction_changed)


def _seen(case: _Case, explainer: Explainer, report: Callable[[int, int], None]) -> Seen:
    """All maps of a method that the audit needs."""
    done = iter(range(MAPS + 1))

    def step() -> None:
        report(next(done), MAPS)

    step()
    e = case.explained(explainer)
    step()
    floor = case.similarity(explainer, e, None)[0]
    survived = {}
    for name, perturbation in PERTURBATIONS.items():
        step()
        alike, changed = case.similarity(explainer, e, perturbation)
        survived[name] = math.nan if changed else alike
    random_weights = []
    for draw in range(WEIGHT_DRAWS if case.model.white_box else 0):
        step()
        with randomised(parts_of(case.model), Stream((case.seed[1], "audit", draw), (case.seed[1], "audit", draw))):
            random_weights.append(_alike(one_channel(e.maps), one_channel(case.explained(explainer).maps)))
    step()
    kept, error, values = e.record["images"].get("class_kept"), _pattern_error(e), one_channel(e.maps)
    empty = "the same everywhere" if is_flat(values) else "nothing but sampling noise" if error == math.inf else ""
    chance = float(stats.norm.ppf(0.975) / math.sqrt(max(values.numel() - 1, 1)))
    draws, own = _draws_of_networks(explainer, e)
    return Seen(floor, random_weights, case.areas(e), survived, error, None if kept is None else kept[0], draws, own, empty, chance)


def _draws_of_networks(explainer: Explainer, e: Explanation) -> tuple[int, bool]:
    """How many draws the share of networks that keep the class is over, and whether they are the image's own: what is drawn inside a smoothed network is no other network."""
    outer = list(takewhile(lambda each: not isinstance(each, BetaSmoothing), explainer.nested()))
    own = not any(isinstance(each, AverageOverWeights) for each in outer)
    return int(e.samples[0]) if any(isinstance(each, MonteCarlo) for each in outer) else 0, own


def _pattern_error(e: Explanation) -> float | None:
    """The relative error of a map less its mean; None if it has no error.

    Errors that all pixels share (in RISE's maps they are most of it) move the map's level, not one pixel against another. The
    jackknife over blocks of draws takes the mean off every block.
    """
    if e.blocks is None or e.counts is None or len(e.counts) < 2:
        return None
    return relative_error(less_mean(e.maps), e.stderr_of(less_mean), torch.zeros(1)).item()


def _alike(first: Saliency, second: Saliency) -> float:
    """Rank correlation of absolute values, as in `ParameterRandomisation`."""
    return Spearman()(scaled(first.abs().double()), scaled(second.abs().double())).item()


def _controls(case: _Case, report: Callable[[int, int], None]) -> Controls:
    """The controls' maps do not depend on the model, so they are the same for every method."""
    controls = [entry for entry in registry.entries("explainer").values() if entry.facts.get("control")]
    areas: dict[str, dict[str, float]] = {}
    luck: dict[str, float] = {}
    for place, entry in enumerate(controls):
        report(place, len(controls))
        seeded = entry.facts.get("seeded")
        drawn = [case.areas(case.explained(entry.cls(), fresh)) for fresh in range(CONTROL_DRAWS if seeded else 1)]
        areas[entry.name] = {metric: float(np.mean([each[metric] for each in drawn])) for metric in drawn[0]}
        if seeded:
            width = stats.t.ppf(0.975, CONTROL_DRAWS - 1) * math.sqrt(1 + 1 / CONTROL_DRAWS)
            luck = {metric: float(width * np.std([each[metric] for each in drawn], ddof=1)) for metric in drawn[0]}
    edges = case.explained(Edges())
    return Controls(areas, luck, {name: case.similarity(Edges(), edges, perturbation)[0] for name, perturbation in PERTURBATIONS.items()})
