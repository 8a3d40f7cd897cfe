"""What the studies of "NoiseGrad" (2022) share: its networks and pictures, its noise levels, and its four methods around a base.

002's maps are absolute values summed over channels, before anything is averaged. That is the method ``magnitude``: it
is the base of all four, so that every metric, max-sensitivity too, sees the maps that the paper's saw.
"""

import argparse
import dataclasses
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import salience as sal
from _common import DATA, load, required, spread_cell
from _common import network as any_network
from _smoothed import noise_level
from salience.core.draws import Stream
from salience.core.errors import CollapseWarning
from salience.core.explainer import Base, Explainer
from salience.core.metric import Case, Judgement, Metric
from salience.core.montecarlo import Attribution
from salience.core.registry import register
from salience.explainers.gradient import Gradient
from salience.studies.comparison import compare
from salience.studies.tuned import Tuning
from salience.studies.tuning import tune
from salience.training.architecture import list_architectures
from salience.training.folder import read_training
from salience.zoo.models import WEIGHTS

warnings.simplefilter("ignore", CollapseWarning)  # what strong noise does is what is studied; worker processes import this file too

BASELINE, SG, NG, FG = "Baseline", "SG", "NG", "FG"
SHARED = (NG, FG)
"""Methods whose draws of weights all pictures of a seed share."""

ALPHA = 0.2
"""SG's noise in shares of the range of the normalised picture; half of it for FG."""

RADIUS = 0.2
"""Of max-sensitivity, on the normalised picture."""

SUBSET = 32
"""Values that faithfulness correlation removes at once."""

SEEDS = [0, 1, 2]
SHIPPED = ("cmnist-lenet", "cmnist-resnet9")
RESNET9 = "cmnist-resnet9"


@register("explainer", "magnitude", signed=False, stochastic=False, needs_gradient=True, cites="Bykov et al. 2022")
class Magnitude(Explainer):
    """The absolute values of a base's map, summed over channels: what NoiseGrad's authors average.

    Cost: that of the base.

    Source: Bykov et al. (2022) and the authors' code. Differs from the source: nothing.
    """

    base: Base = sal.option(Gradient, "the explanation")

    def attribute(self, model: sal.Classifier, images: Any, targets: Any, streams: Sequence[Stream]) -> Attribution:
        """The base's map, (n, 1, h, w)."""
        made = self.base.attribute(model, images, targets, streams)
        return dataclasses.replace(made, maps=made.maps.abs().sum(1, keepdim=True))


@register("metric", "quantus_sensitivity", higher_is_better=False, category="robustness", needs_explainer=True, cites="Hedstroem et al. 2023")
class QuantusSensitivity(Metric):
    """Max-sensitivity as the paper's library computes it: max over samples of |E(x + d) - E(x)| / |x|, maps divided by their largest value.

    The divisor is the norm of the normalised picture, where that of `MaxSensitivity` is the norm of the map. So a map with few
    large values looks robust because it is sparse. d ~ U(-radius, radius) in every value.

    Cost: `samples` + 1 maps an image.

    Source: Quantus, MaxSensitivity. Differs from the source: `common_draws`, which it does not have.
    """

    samples: int = sal.option(10, "draws of the change", at_least=1)
    radius: float = sal.option(0.045, "largest change of a value, in [0, 1] units", above=0)
    common_draws: bool = sal.option(True, "make all maps with the same draws; false: fresh ones for each")

    def judge(self, case: Case) -> Judgement:
        """The largest change."""
        n, shape, numbers = len(case.images), case.images.shape[1:], range(self.samples)
        assert isinstance(case.model, sal.Model)
        noise = torch.stack([torch.stack([stream.uniform(shape, "change", number) for stream in case.streams]) for number in numbers])
        moved = (case.images + self.radius * (2 * noise.to(case.images) - 1)).flatten(0, 1)
        draws = [stream if self.common_draws else stream.at(self.name, number) for number in numbers for stream in case.draws]
        clean = _largest_one(case.explained(case.images, case.targets, case.draws))
        changed = _largest_one(case.explained(moved, case.targets.repeat(self.samples), draws)).unflatten(0, (self.samples, n)) - clean
        return Judgement((changed.norm(dim=2).amax(0) / case.model.normalise(case.images).flatten(1).norm(dim=1)).cpu())


def _largest_one(maps: Tensor) -> Tensor:
    """Maps as rows, divided by their largest absolute value."""
    flat = maps.flatten(1)
    return flat / flat.abs().amax(1, keepdim=True).clamp_min(1e-30)


@dataclass(frozen=True)
class Draws:
    """How many draws the methods make.

    Attributes:
        single: Of SG, and of NG.
        weights: Of weights, of FG.
        inputs: Of input noise of FG, for each draw of weights.
    """

    single: int
    weights: int
    inputs: int

    def __str__(self) -> str:
        return f"SG {self.single} draws, NG {self.single}, FG {self.weights} x {self.inputs}"


PAPER = Draws(25, 10, 10)
"""The appendix, and the authors' code."""

SMALL = Draws(16, 4, 4)
"""As many passes for all three."""


def add_options(made: argparse.ArgumentParser, *, several: bool) -> argparse.ArgumentParser:
    """Add the options that name data and networks.

    Args:
        made: The parser.
        several: Whether several networks can be given.
    """
    made.add_argument("--data", type=Path, default=DATA, metavar="DIR", help=f"the folder of MNIST and CIFAR-10 (default: {DATA})")
    trained = "a name, or trained:DIR of what 'salience train' wrote"
    if several:
        made.add_argument("--models", type=_names, default=list(SHIPPED), metavar="A,B", help=f"networks for CMNIST, each {trained} (default: {','.join(SHIPPED)})")
    else:
        made.add_argument("--model", default=RESNET9, metavar="NAME", help=f"the network for CMNIST: {trained} (default: {RESNET9})")
    return made


def _names(text: str) -> list[str]:
    return [each.strip() for each in text.split(",") if each.strip()]


def network(name: str) -> sal.Model:
    """A network for CMNIST by name.

    Raises:
        InputError: If there is none, or it is not one for ten classes; of the package's own, with the command that makes one.
    """
    if name in SHIPPED and name not in sal.list_models():
        raise sal.InputError(f"{name} is not in this copy of the package: make one with '{command(name.removeprefix('cmnist-'))}' and name it as trained:DIR.")
    return any_network(name)


def command(architecture: str) -> str:
    """How one of the paper's networks is trained."""
    return f"salience train standard --full --architecture {architecture} --data cmnist:root=DIR --out nets/{architecture}"


def card(name: str) -> dict[str, Any] | None:
    """What is known of a network that this project trained; None of others."""
    folder = name.removeprefix("trained:")
    return read_training(Path(folder) / "card.json" if folder != name else WEIGHTS / f"{name}.json")


def architecture(name: str) -> str:
    """Which of the paper's architectures a network has; its own name if that is not known."""
    found = card(name)
    chosen = name if found is None else found["architecture"].partition(":")[0]
    return chosen if chosen in list_architectures() else name


def described(name: str) -> str:
    """A network in words, for results."""
    found = card(name)
    if found is None:
        return name
    judged = found["accuracy"]
    accuracy = "" if judged is None else f", {100 * judged['value']:.1f} % right"
    return f"{name} (`{found['architecture']}`, {found['weights']:,} weights{accuracy})"


def data(given: argparse.Namespace, **changes: Any) -> dict[str, Any]:
    """CMNIST's test pictures in a fixed random order, as `Study` takes them; the class explained is the digit that is there.

    Args:
        given: The script's options.
        changes: Further options of the data set.
    """
    return {"dataset": "cmnist", "root": str(required(given.data, "--data", "A folder of MNIST and CIFAR-10")), "shuffle": 0, "targets": "labels"} | changes


@dataclass(frozen=True)
class Levels:
    """The heuristics' noise on a network.

    Attributes:
        sg: SG's, in shares of the range of the picture in [0, 1].
        ng: NG's weight_sigma, at which accuracy drops by 5 %.
        radius: Of max-sensitivity, in [0, 1] units.
        tuning: How `ng` was found.
    """

    sg: float
    ng: float
    radius: float
    tuning: Tuning

    def sentence(self) -> str:
        """For results."""
        found = self.tuning.sentences()
        return (
            f"SG's noise is {ALPHA} of the range of the normalised picture, {self.sg} of the range in [0, 1]. NG: {found[0]} {found[-1]} "
            "The pictures of this search are the first of another random order of the test set. FG has half of both."
        )


def levels(model: sal.Model, given: argparse.Namespace) -> Levels:
    """The heuristics' noise levels; NG's is searched on 200 pictures of another random order than the study's, or with --full on 2000, and kept for next time.

    Args:
        model: The network.
        given: The script's options.
    """
    tuning = tune(
        "noisegrad",
        model,
        load(data(given, shuffle=1)),
        limit=2000 if given.full else 200,
        auc_images=0,
        make_auto=False,
        announce=lambda text: sys.stderr.write(f"weight noise of {model.name}: {text}\n"),
    )
    return Levels(noise_level(model, ALPHA), float(f"{tuning.choices[0].row.weight_sigma:.4g}"), radius(model), tuning)


def radius(model: sal.Model) -> float:
    """Max-sensitivity's radius in [0, 1] units: the mean over channels."""
    return round(RADIUS * float(model.std.mean()) / model.value_range, 4)


def methods(base: str, sg: float, ng: float, draws: Draws) -> dict[str, str]:
    """The four methods as specifications, in their shortest form; FG has half of both levels.

    Args:
        base: The explanation within.
        sg: SG's level.
        ng: NG's level.
        draws: How many.
    """
    return {name: noisy(base, *at, draws) for name, at in {BASELINE: (0.0, 0.0), SG: (sg, 0.0), NG: (0.0, ng), FG: (sg / 2, ng / 2)}.items()}


def noisy(base: str, inside: float, weights: float, draws: Draws) -> str:
    """The method with some noise in the picture and some in the weights: whichever of the four that is."""
    method = Magnitude(base=Explainer.from_value(base))
    inside, weights = float(f"{inside:.4g}"), float(f"{weights:.4g}")
    if inside and weights:
        made: Explainer = sal.FusionGrad(base=method, weight_samples=draws.weights, samples=draws.inputs, noise_level=inside, weight_sigma=weights)
    elif weights:
        made = sal.NoiseGrad(base=method, weight_samples=draws.single, weight_sigma=weights)
    else:
        made = sal.SmoothGrad(base=method, samples=draws.single, noise_level=inside) if inside else method
    return str(made)


def cells(found: Mapping[str, np.ndarray], higher: bool) -> dict[str, str]:
    """Mean ± sd over pictures, as the paper gives it, and the mean's 95 % interval.

    As in the paper, the best is bold and whatever its unadjusted Wilcoxon test at 0.05 leaves beside it; a ring marks what only Holm's method over the
    column leaves beside it.
    """
    made = {}
    for name, standing in compare(found, higher, shared=[name for name in SHARED if name in found]).methods.items():
        text, bracket, interval = spread_cell(found[name], name in SHARED).partition(" [")
        made[name] = (f"**{text}**" if standing.tied_unadjusted else f"{text} °" if standing.tied else text) + bracket + interval
    return made


MARKS = (
    "Means ± sd over pictures, then the 95 % interval of the mean. Bold, as in the paper: the best, and what its two-sided Wilcoxon test at 0.05, unadjusted, leaves beside it; "
    "a ring °: what Holm's method over the column adds to these. NG's and FG's draws of weights are shared by all pictures of a seed: their intervals count the seeds too, and a difference counts only if its interval leaves out 0."
)


def lowest(given: argparse.Namespace) -> float:
    """The mean over pictures of the smallest value, in [0, 1]."""
    return float(np.mean([item.picture.min() / 255 for item in load(data(given), limit=given.limit)]))


def faithfulness() -> str:
    """Faithfulness correlation as the paper has it, but for the fill: black where theirs is each picture's smallest value."""
    return f"faithfulness_correlation:subset={SUBSET},single_channels=true,fill=black"
