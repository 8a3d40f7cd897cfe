"""The verdicts of the report card: the answers to its questions, from what was measured.

Every threshold comes from the controls or from the map's own error, none is a matter of taste:

- A similarity is read on the scale between two controls: 0 is what a map that shares nothing keeps (``random``, drawn
  anew), the upper end what a map that is not at fault keeps. The threshold is half-way: which of the two is it nearer to?
- A difference in deletion or insertion is one to the best control: the threshold is 0.
- The error of a map's pattern is judged by what it must tell apart: two pixels that differ as pixels of the map typically do.
- Of the networks that are averaged, most must still see the class: one half, the warning of NoiseGrad and FusionGrad.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from salience.studies.report_card import QUESTIONS, Finding
from salience.studies.statistics import FEWEST_IMAGES, bootstrap_interval

HALF_WAY = 0.5
"""Where a similarity is as near to the one control as to the other."""

TOLD_APART = 1 / stats.norm.ppf(0.975)
"""The relative error at which two pixels of a typical difference, sqrt(2) sd, are told apart at 95 %: 1.96 sqrt(2) stderr = sqrt(2) sd."""

MOST = 0.5
"""Share of networks that must keep the class."""


@dataclass
class Seen:
    """What was measured of a method on one image.

    Attributes:
        floor: Similarity of two maps with draws of their own.
        random_weights: Similarities to the maps of random networks; empty for a black box.
        areas: Areas under the curves of deletion (as negative) and insertion: larger is better.
        survived: Similarity to the map of the perturbed image; NaN if the prediction changed.
        pattern_error: The relative error of the map less its mean; None if the map has no error.
        class_kept: Share of networks that keep the class; None if there are no other networks.
        draws: Draws that `class_kept` is a share of; 0 if it is about one network and the image itself.
        own: Whether these are the image's own; draws of weights all images share.
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
    own: bool = False
    empty: str = ""
    chance: float = 0.0


@dataclass
class Controls:
    """What the controls get on one image.

    Attributes:
        areas: For each control the mean areas, as in `Seen`.
        luck: Half the width of a 95 % interval of one more map drawn at random.
        edges: The similarity that the picture's own edges keep.
    """

    areas: dict[str, dict[str, float]]
    luck: dict[str, float]
    edges: dict[str, float]


@dataclass(frozen=True)
class Card:
    """The answers of one method, from what was seen of it on every image."""

    image: str
    method: str
    seen: Sequence[Seen]
    controls: Sequence[Controls]

    def findings(self) -> list[Finding]:
        """One for each question."""
        return [
            self.random_weights(),
            *(self.better(metric) for metric in ("deletion", "insertion")),
            self.converged(),
            *(self.survives(name) for name in self.seen[0].survived),
            self.class_kept(),
        ]

    def random_weights(self) -> Finding:
        """How much of the map is left under random weights, against its noise floor."""
        if not self.seen[0].random_weights:
            return self.not_asked("random weights", "A black box shows no weights, so they cannot be randomised.")
        if self.empty:
            return self.not_asked("random weights", self.empty)
        values, floor = np.array([each.random_weights for each in self.seen]), self.floor
        if max(values.mean(), floor) <= max(each.chance for each in self.seen):
            return self.not_asked("random weights", f"Drawing anew leaves a rank correlation of {floor:.2f}, and random weights {values.mean():.2f}, so there is nothing to measure it by.")
        detail = f"with random weights a rank correlation of {values.mean():.2f} is left; a map that ignores the weights would keep {floor:.2f}" + (", its noise floor" if floor < 1 else "")
        interval = _ends(values[0]) if len(self.seen) == 1 else _ends(values, shared_seeds=True)
        if interval is not None:
            interval = (max(-1.0, interval[0]), min(1.0, interval[1]))  # no correlation lies beyond
        return self.finding("random weights", float(values.mean()), interval, HALF_WAY * max(floor, 0.0), detail, _narrow(values[0], "random networks") if len(self.seen) == 1 else "")

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
        figure, first = self.kept, self.seen[0]
        if figure is None:
            return self.not_asked("class kept", "It explains the network itself, not noisy or smoothed ones.")
        interval = _ends(np.array([each.class_kept for each in self.seen], dtype=np.float64))
        draws = first.draws * (len(self.seen) if first.own else 1)  # where all images share them, more images are no more draws
        if draws:
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


def _narrow(drawn: Sequence | np.ndarray, of: str = "images") -> str:
    """What to say of an interval over so few images that it covers less than it says."""
    return f" From {len(drawn)} {of}, so the interval is too narrow." if 1 < len(drawn) < FEWEST_IMAGES else ""


def _ends(values: ArrayLike, shared_seeds: bool = False) -> tuple[float, float] | None:
    """The 95 % interval of a mean over images; None of a single one."""
    found = bootstrap_interval(values, shared_seeds=shared_seeds)
    return None if math.isnan(found.low) else (found.low, found.high)
