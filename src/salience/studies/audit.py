"""The report card of explanation methods, on a user's own model and images.

Every threshold comes from the controls or from the map's own error, none is a matter of taste:

- A similarity is read on the scale between two controls: 0 is what a map that shares nothing keeps (``random``, drawn
  anew), the upper end what a map that is not at fault keeps. The threshold is half-way: which of the two is it nearer to?
- A difference in deletion or insertion is one to the best control: the threshold is 0.
- The error of a map's pattern is judged by what it must tell apart: two pixels that differ as pixels of the map typically do.
- Of the networks that are averaged, most must still see the class: one half, the warning of NoiseGrad and FusionGrad.

Cost, an image: `MAPS` maps and 58 forward passes for every method, and 7 x 58 forward passes for the controls, once.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy import stats

from salience.core import registry
from salience.core.classifier import Classifier
from salience.core.draws import Stream, streams
from salience.core.errors import CollapseWarning, InputError
from salience.core.explainer import Explainer
from salience.core.explanation import Explanation
from salience.core.geometry import names_of
from salience.core.inputs import Target, checked_images, hash_of, target_indices
from salience.core.montecarlo import relative_error
from salience.core.perturbation import Perturbation
from salience.core.reduction import less_mean
from salience.core.robustness import compared, one_channel, scaled
from salience.core.types import Images, Report, Saliency, Targets
from salience.explainers.edges import Edges
from salience.metrics.deletion import Deletion
from salience.metrics.insertion import Insertion
from salience.perturb.randomise import parts_of, randomised
from salience.perturbations.gaussian_blur import GaussianBlur
from salience.perturbations.gaussian_noise import GaussianNoise
from salience.perturbations.horizontal_flip import HorizontalFlip
from salience.similarities.spearman import Spearman
from salience.studies.report_card import QUESTIONS, Finding, ReportCard
from salience.studies.statistics import FEWEST_IMAGES, bootstrap_interval

METHODS = ("gradient", "smoothgrad", "gradcam", "rise")
"""What is audited unless methods are named: noise-free and smoothed gradients, a layer, masks."""

WEIGHT_DRAWS = 3
"""Random networks; all images share them."""

CONTROL_DRAWS = 5
"""Maps of a control that draws at random; how much their areas differ is luck."""

HALF_WAY = 0.5
"""Where a similarity is as near to the one control as to the other."""

TOLD_APART = 1 / stats.norm.ppf(0.975)
"""The relative error at which two pixels of a typical difference, sqrt(2) sd, are told apart at 95 %: 1.96 sqrt(2) stderr = sqrt(2) sd."""

MOST = 0.5
"""Share of networks that must keep the class."""

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
    return ReportCard(finding for method, each in seen.items() for finding in _Card(image, method, each, controls).findings())


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


@dataclass
class _Seen:
    """What was measured of a method on one image.

    Attributes:
        floor: Similarity of two maps with draws of their own.
        random_weights: Similarities to the maps of random networks; empty for a black box.
        areas: As `_Case.areas`.
        survived: Similarity to the map of the perturbed image; NaN if the prediction changed.
        pattern_error: Of the map, as `_pattern_error` has it.
        class_kept: Share of networks that keep the class; None if there are no other networks.
        draws: Independent draws behind the map; 0 for a deterministic method.
        empty: Why the map says nothing, if it does: it is the same everywhere, or nothing of it stands out of the sampling noise.
        chance: The rank correlation that one of forty pairs of maps without anything in common exceeds.
    """

    floor: float
    random_weights: list[float]
    areas: dict[str, float]
    survived: dict[str, float]
    pattern_error: float | None
    class_kept: float | None
    draws: int
    empty: str = ""
    chance: float = 0.0


def _seen(case: _Case, explainer: Explainer, report: Callable[[int, int], None]) -> _Seen:
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
    flat = values.amax() - values.amin() <= 8 * torch.finfo(values.dtype).eps * values.abs().amax()  # up to rounding
    empty = "the same everywhere" if flat else "nothing but sampling noise" if error == math.inf else ""
    chance = float(stats.norm.ppf(0.975) / math.sqrt(max(values.numel() - 1, 1)))
    return _Seen(floor, random_weights, case.areas(e), survived, error, None if kept is None else kept[0], int(e.samples[0]), empty, chance)


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


@dataclass
class _Controls:
    """What the controls get on one image.

    Attributes:
        areas: As `_Case.areas`, the mean of each control.
        luck: Half the width of a 95 % interval of one more map drawn at random.
        edges: The similarity that the picture's own edges keep.
    """

    areas: dict[str, dict[str, float]]
    luck: dict[str, float]
    edges: dict[str, float]


def _controls(case: _Case, report: Callable[[int, int], None]) -> _Controls:
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
    return _Controls(areas, luck, {name: case.similarity(Edges(), edges, perturbation)[0] for name, perturbation in PERTURBATIONS.items()})


@dataclass(frozen=True)
class _Card:
    """The answers of one method, from what was seen of it on every image."""

    image: str
    method: str
    seen: Sequence[_Seen]
    controls: Sequence[_Controls]

    def findings(self) -> list[Finding]:
        """One an each question."""
        return [
            self.random_weights(),
            *(self.better(metric) for metric in ("deletion", "insertion")),
            self.converged(),
            *(self.survives(name) for name in PERTURBATIONS),
            self.class_kept(),
        ]

    def random_weights(self) -> Finding:
        """How much of the map is left under random weights, against its noise floor."""
        if not self.seen[0].random_weights:
            return self.not_asked("random weights", "A black box shows no weights, so they cannot be randomised.")
        if self.empty:
            return self.not_asked("random weights", self.empty)
        values, floor = np.array([each.random_weights for each in self.seen]), self.floor
        detail = f"with random weights a rank correlation of {values.mean():.2f} is left; a map that ignores the weights would keep {floor:.2f}" + (", its noise floor" if floor < 1 else "")
        interval = _ends(values[0]) if len(self.seen) == 1 else _ends(values, shared_seeds=True)
        if interval is not None:
            interval = (max(-1.0, interval[0]), min(1.0, interval[1]))  # no correlation lies beyond
        return self.finding("random weights", float(values.mean()), interval, HALF_WAY * max(floor, 0.0), detail)

    def better(self, metric: str) -> Finding:
        """The difference to the best control, paired by image; of one image give or take what luck does there."""
        means = {name: np.mean([each.areas[name][metric] for each in self.controls]) for name in self.controls[0].areas}
        best = max(means, key=lambda name: means[name])
        difference = np.array([own.areas[metric] - control.areas[best][metric] for own, control in zip(self.seen, self.controls, strict=True)])
        figure, luck = float(difference.mean()), self.controls[0].luck[metric]
        interval = (figure - luck, figure + luck) if len(difference) == 1 else _ends(difference)
        word = "larger" if (figure > 0) == (metric == "insertion") else "smaller"
        amount = f"{abs(figure):.3g} {word} than" if figure else "as large as"
        return self.finding(metric, figure, interval, 0.0, f"the area under the curve is {amount} that of the best one, {best}", _narrow(difference))

    def converged(self) -> Finding:
        """The error of the pattern, against what pixels typically differ by."""
        errors = np.array([math.nan if each.pattern_error is None else each.pattern_error for each in self.seen])
        if np.isnan(errors).any():
            if self.floor == 1:
                return self.not_asked("converged", "It draws nothing at random, so there is nothing to converge.")
            return self.not_asked("converged", f"It draws at random but does not know its error; two maps with other draws have a rank correlation of {self.floor:.2f}.")
        if any(each.empty == "the same everywhere" for each in self.seen):
            return self.not_asked("converged", self.empty)
        lost, figure = int(np.isinf(errors).sum()), float(errors.mean())
        if lost:
            detail = f"in {lost} of {len(errors)} image(s) nothing stands out of the sampling noise; take many more draws"
            return self.finding("converged", figure, None, TOLD_APART, detail)
        detail = f"the error of the map's pattern is {figure:.2f} of its spread; two of its pixels are typically told apart at {TOLD_APART:.2f}"
        more = (figure / TOLD_APART) ** 2
        detail += f", for which it needs about {math.ceil(10 * more) / 10:.1f} times the draws" if more > 1 else ""
        return self.finding("converged", figure, _ends(errors), TOLD_APART, detail, _narrow(errors))

    def survives(self, name: str) -> Finding:
        """The similarity to the perturbed image's map, against what the edges keep, or the noise floor if that is lower."""
        if self.kept is not None and self.kept < MOST:
            return self.not_asked(name, "The networks behind it no longer see the class, so what it survives says nothing.")
        if self.empty:
            return self.not_asked(name, self.empty)
        values = np.array([each.survived[name] for each in self.seen])
        same = np.isfinite(values)
        if not same.any():
            return self.not_asked(name, "The prediction changes with the picture, so the map may change too.")
        edges = np.array([each.edges[name] for each in self.controls])[same]
        floors = np.array([each.floor for each in self.seen])[same]
        figure, most = float(values[same].mean()), float(np.minimum(edges, floors).mean())
        if most <= max(each.chance for each in self.seen):
            return self.not_asked(name, f"The picture's edges keep {edges.mean():.2f} and drawing anew leaves {floors.mean():.2f}, so there is nothing to measure it by.")
        detail = f"the map keeps a rank correlation of {figure:.2f}, where the picture's edges keep {edges.mean():.2f}"
        detail += f" and drawing anew leaves {floors.mean():.2f}" if floors.mean() < 1 else ""
        note = "" if same.all() else f" {(~same).sum()} of {len(same)} images are left out: their prediction changed."
        return self.finding(name, figure, _ends(values[same]), HALF_WAY * most, detail, note + _narrow(values[same]))

    def class_kept(self) -> Finding:
        """The share of networks that keep the class."""
        figure, draws = self.kept, self.seen[0].draws
        if figure is None:
            return self.not_asked("class kept", "It explains the network itself, not noisy or smoothed ones.")
        interval = _ends(np.array([each.class_kept for each in self.seen], dtype=np.float64))
        if draws:  # all images share them, so that more images are no more draws
            exact, (low, high) = stats.binomtest(round(figure * draws), draws).proportion_ci(), interval or (figure, figure)
            interval = (min(low, float(exact.low)), max(high, float(exact.high)))
        note = "" if draws else _narrow(self.seen)
        return self.finding("class kept", figure, interval, MOST, f"the noisy or smoothed networks predict the same class in {figure:.0%} of the cases", note)

    @property
    def empty(self) -> str:
        """What to say of maps that say nothing; empty if all say something."""
        lost = [each.empty for each in self.seen if each.empty]
        return f"In {len(lost)} of {len(self.seen)} image(s) the map is {' or '.join(dict.fromkeys(lost))}, so there is nothing to ask." if lost else ""

    @property
    def floor(self) -> float:
        """The mean noise floor."""
        return float(np.mean([each.floor for each in self.seen]))

    @property
    def kept(self) -> float | None:
        """The mean share of networks that keep the class; None if there are no other networks."""
        shares = [each.class_kept for each in self.seen if each.class_kept is not None]
        return float(np.mean(shares)) if shares else None

    def finding(self, question: str, figure: float, interval: tuple[float, float] | None, threshold: float, detail: str, note: str = "") -> Finding:
        """A figure with its verdict."""
        asked = QUESTIONS[question]
        passed = asked.passed(interval or (figure,), threshold)
        claim = {True: asked.yes, False: asked.no, None: asked.unclear}[passed]
        alone = "" if interval or math.isinf(figure) else " From one image, so without an interval."
        low, high = interval or (None, None)
        return Finding(question, self.image, self.method, figure, low, high, threshold, passed, f"{claim}: {detail}.{note}{alone}")

    def not_asked(self, question: str, why: str) -> Finding:
        """A question without an answer."""
        return Finding(question, self.image, self.method, None, None, None, None, None, why)


def _narrow(images: Sequence | np.ndarray) -> str:
    """What to say of an interval over so few images that it covers less than it says."""
    return f" From {len(images)} images, so the interval is too narrow." if 1 < len(images) < FEWEST_IMAGES else ""


def _ends(values: ArrayLike, shared_seeds: bool = False) -> tuple[float, float] | None:
    """The 95 % interval of a mean over images; None of a single one."""
    found = bootstrap_interval(values, shared_seeds=shared_seeds)
    return None if math.isnan(found.low) else (found.low, found.high)
