"""Attacks on explanations: the map changes, the image and the prediction stay."""

import dataclasses
import functools
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, NamedTuple

import torch
from torch import Tensor

from salience.attacks._judge import Judge, check_differentiable, distances, is_random, map_aimed_at, not_differentiable
from salience.attacks._optimiser import Descent, Parameters, composed, descend, joined, random_change, without_denormals
from salience.attacks.target_map import TargetMap
from salience.attacks.top_k import TopK
from salience.core import registry
from salience.core.classifier import Classifier, Tape
from salience.core.draws import Seed, Stream, streams
from salience.core.errors import InputError, unknown
from salience.core.explainer import Base, Explainer, Target, checked_images, target_indices
from salience.core.model import Model
from salience.core.objective import Objective, cosine_distance, shares
from salience.core.options import option
from salience.core.perturbation import Perturbation
from salience.core.registry import register
from salience.core.threat import Threat, Threats
from salience.core.types import Images, Maps, PerImage, Progress, Saliency, Targets
from salience.explainers.gradient import Gradient
from salience.perturb.relu import ReplaceReLU, softplus
from salience.similarities.lpips import LPIPS
from salience.similarities.ssim import SSIM

USUAL_SD = 0.2
"""Standard deviation, in [0, 1] units, by which the networks divide for which `beta` is given: CIFAR's, and nearly ImageNet's."""

RANDOM_DRAWS = 20
"""Random changes of the same budget that an attack is compared with."""


@register("perturbation", "attack", geometric=False, stochastic=False, needs_model=True, cites="Dombrowski et al. 2019")
class Attack(Perturbation):
    """Change an image so that its explanation changes and its class does not.

    The loss is the objective's on the map of the network with every ReLU smoothed (softplus, `beta`; leaky ones too), plus `output_weight` times the
    squared change of that network's probabilities, plus the threats' penalties. Adam steps on the parameters of all threats, projected
    after each, times 0.4 from half of the steps on; the last image is taken. The result is never taken on trust: it is measured again on the network itself.

    Cost: `steps` times `restarts` forward and double backward passes of the method (and of the network alone, where the method does not tell
    its outputs), and 20 maps of random changes.

    Source: "Smoothed explanations" (2022), equation 1, and its authors' code; Dombrowski et al. (2019).

    Differs from the source: 100 steps instead of 500 to 1500, each threat's step being a share of its budget; random methods draw anew in each
    step, and are judged by draws held out (`fixed` draws once, which is what flatters such attacks).

    Attributes:
        method: The explanation under attack: any whose maps are differentiable.
        threat: How the image may be changed, one or several: joined by ``+``, applied in the order recolor, stadv, delta.
        objective: What the map shall become.
        steps: Steps of the optimiser.
        output_weight: Weight of the squared change of the probabilities.
        beta: Sharpness of the softplus for a network that takes pictures of about unit variance, less for one that takes larger
            numbers; two joined by ``+`` grow it from one to the other.
        restarts: Runs; from the second on from random changes; the best one for each image is taken.
        fixed: Whether a random method keeps the same draws throughout.
    """

    method: Base = option(Gradient, "the explanation under attack")
    threat: Annotated[Any, Threats] = option("delta", "how the image may be changed: delta, stadv, recolor, joined by +")
    objective: Annotated[Any, Objective] | None = option(None, "what the map shall become: target_map, top_k or centre_of_mass; none: target_map where there is a map to aim at, else top_k")
    steps: int = option(100, "steps of the optimiser", at_least=1)
    output_weight: float = option(2.5, "weight of the squared change of the probabilities", at_least=0)
    beta: tuple[float, ...] = option((100.0,), "sharpness of the softplus that stands for ReLU; two joined by + grow it")
    restarts: int = option(1, "runs; from the second on from random changes", at_least=1)
    fixed: bool = option(False, "keep the same draws of a random method throughout")

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.beta) not in (1, 2) or not all(0 < each < math.inf for each in self.beta):
            raise InputError(f"beta is one positive number, or two to grow from one to the other, not {'+'.join(map(str, self.beta))}.")
        if not self.threat:
            raise InputError("There is no threat: give delta, stadv or recolor, or some of them joined by +.")
        names = [each.name for each in self.threats]
        if len(set(names)) < len(names):
            raise InputError(f"Each threat can be given once, not {'+'.join(names)}: give one of them a larger budget.")

    @property
    def threats(self) -> list[Threat]:
        """The threats in the order in which they are applied."""
        return sorted(self.threat, key=lambda threat: threat.place)

    def aiming(self, somewhere: bool) -> "Attack":
        """The attack with its objective chosen.

        Args:
            somewhere: Whether there is a map to aim at.

        Raises:
            InputError: If the objective needs one and there is none, or the other way round.
        """
        objective = self.objective or (TargetMap() if somewhere else TopK())
        targeted = bool(registry.facts_of(type(objective)).get("targeted"))
        if targeted and not somewhere:
            raise InputError(f"The objective {objective} needs something to aim at: give toward (images, maps or an explanation), or take the objective top_k or centre_of_mass.")
        if somewhere and not targeted:
            raise InputError(f"The objective {objective} aims at no map: leave toward away, or take the objective target_map.")
        return dataclasses.replace(self, objective=objective)

    def apply(self, images: Images, streams: Sequence[Stream]) -> Images:
        """An attack cannot do without the network and the method."""
        raise InputError("An attack looks at the network and the method: use sal.attack(model, images, method=...), or name it as a perturbation in a study.")

    def against(self, explainer: Explainer, model: Classifier, images: Images, targets: Targets, streams: Sequence[Stream]) -> Images:
        """The images attacked so that this explainer's maps change: how a study perturbs them."""
        chosen = dataclasses.replace(self, method=explainer).aiming(False)
        check_differentiable(explainer)
        judge = Judge(model, explainer, targets, list(streams))
        with without_denormals():
            return chosen._optimised(model, images, model.outputs(images), shares(judge.maps(images)), None, judge, None).images

    def run(self, model: Any, images: Any, toward: Any = None, targets: Target = None, *, seed: Seed = 0, random_draws: int = RANDOM_DRAWS, progress: Progress | None = None) -> "Attacked":
        """Attack the explanations of some images, and measure what came of it.

        Args:
            model: A `Model`: attacks need gradients.
            images: (n, c, h, w) in [0, 1].
            toward: What the maps shall become: images (n or 1, c, h, w), whose maps of their own predicted classes are aimed at; an
                `Explanation`; or maps (n or 1, h, w). None for an objective that needs nothing to aim at.
            targets: Class explained; None takes the predicted ones.
            seed: One int for all images, or one an image.
            random_draws: Random changes of the same budget to compare with.
            progress: Called as ``progress(done, total)``.

        Returns:
            The changed images and what they do, measured on the network itself.

        Raises:
            InputError: If something given cannot be used, or the method's maps are not differentiable.
        """
        if not isinstance(model, Model):
            raise InputError(f"An attack needs the gradients of the network: give it as sal.Model(module), not {type(model).__name__}.")
        attack = self.aiming(toward is not None)
        check_differentiable(self.method)
        images, sources = checked_images(images, model), streams(seed, len(images))
        score = model.named_score(model.available_score(self.method.score))
        view = model.using(score=score, progress=None)
        with torch.inference_mode(False), model.frozen(), without_denormals():
            images = images.clamp(0, 1)  # a copy, and what rounding has put outside would count as change
            before = view.outputs(images)
            chosen = target_indices(targets, before, model).to(images.device)
            judge = Judge(view, self.method, chosen, sources)
            clean = judge.maps(images)
            aim = None if toward is None else map_aimed_at(toward, self.method, view, images, sources)
            perturbed, parameters, history, blind = attack._optimised(view, images, before, shares(clean), aim, judge, progress)
            maps = judge.maps(perturbed)
            random = [distances(judge.maps(composed(self.threats, images, random_change(self.threats, images, sources, draw))[0]), clean, aim) for draw in range(random_draws)]
            own = None
            if self.fixed and self.restarts == 1 and is_random(self.method):
                seen = distances(self.method.attribute(view, perturbed, chosen, fixed_draws(sources)).maps.detach().float(), clean, aim)
                own = seen.get("target", seen["original"]).cpu()
            after = view.outputs(perturbed)
        probabilities = [model.as_probabilities(outputs) for outputs in (before, after)]
        reached = distances(maps, clean, aim)
        middle = {key: torch.stack([each[key] for each in random]).quantile(0.5, dim=0) if random else None for key in reached}
        return Attacked(
            attack=attack,
            images=images.cpu(),
            perturbed=perturbed.cpu(),
            targets=chosen.cpu(),
            labels=[model.label(int(each)) for each in chosen],
            predictions=(before.argmax(1).cpu(), after.argmax(1).cpu()),
            probability=(probabilities[0].gather(1, chosen[:, None])[:, 0].cpu(), probabilities[1].gather(1, chosen[:, None])[:, 0].cpu()),
            maps=(clean.cpu(), maps.cpu()),
            aim=None if aim is None else aim.cpu(),
            budget={threat.name: threat.used(values).cpu() for threat, values in zip(self.threats, parameters, strict=True)},
            flow=next((values.cpu() for threat, values in zip(self.threats, parameters, strict=True) if threat.name == "stadv"), None),
            distance_to_target=None if aim is None else (cosine_distance(shares(clean), aim).cpu(), reached["target"].cpu()),
            distance_to_original=reached["original"].cpu(),
            random_distance_to_target=middle.get("target"),
            random_distance_to_original=middle["original"],
            own_draws=own,
            history=history,
            blind=blind,
            model=model.name,
            weights=model.weights_hash(),
        )

    def _optimised(self, view: Classifier, images: Images, before: Tensor, clean: Saliency, aim: Saliency | None, judge: Judge, progress: Progress | None) -> Descent:
        """The best of all restarts for each image, with its parameters, and the loss in every step of the first."""
        size = view.images_at_once(images.shape[-2:])
        parts = [slice(start, start + size) for start in range(0, len(images), size)]

        def problem_of(part: slice, restart: int) -> Problem:
            sources = [stream.at(restart) for stream in judge.streams[part]]
            return Problem(self, view, images[part], judge.targets[part], clean[part], None if aim is None else aim[part], sources)

        def run_of(number: int, restart: int) -> Run:
            done, problem = (number * self.restarts + restart) * self.steps, problem_of(parts[number], restart)

            def tell(count: int) -> None:
                if progress is not None:
                    progress(done + count, len(parts) * self.restarts * self.steps)

            found = descend(self.threats, problem.images, problem.start(restart > 0), problem.loss, self.steps, tell)
            kept = view.outputs(found.images).argmax(1) == before[parts[number]].argmax(1)
            return Run(found, kept, problem.objective.loss(shares(judge.chooser(parts[number]).maps(found.images)), problem.clean, problem.aim))

        for part in parts:
            problem_of(part, 0).check(part.start)
        whole = joined([functools.reduce(Run.or_better, (run_of(number, restart) for restart in range(self.restarts))).found for number in range(len(parts))])
        if whole.blind.any():
            warnings.warn(
                f"In {int(whole.blind.max())} of {self.restarts * self.steps} steps a part of the gradient was not finite at {int(whole.blind.count_nonzero())} of {len(images)} image(s), "
                "and was taken for 0: the attack is weaker than it could be, so do not call these maps robust.",
                UserWarning,
                stacklevel=2,
            )
        return whole


class Run(NamedTuple):
    """What one run came to for some images: whether each keeps its class, and its objective by draws that the run has not seen."""

    found: Descent
    kept: Tensor
    value: PerImage

    def or_better(self, later: "Run") -> "Run":
        """For each image the better of two runs: a kept class before all."""
        better = torch.where(later.kept == self.kept, later.value < self.value, later.kept)
        return Run(later.found.after(self.found, better), torch.where(better, later.kept, self.kept), torch.where(better, later.value, self.value))


@dataclass(frozen=True)
class Problem:
    """What is made small for a few images that go through the network together.

    Attributes:
        attack: Its options.
        view: The network, with the score bound.
        images: As they are, (n, c, h, w).
        targets: Class explained, (n,).
        clean: Shares of their maps.
        aim: Shares of the maps aimed at, if there are any.
        streams: Where each image takes its randomness from.
        known: By beta, what the smoothed network says of the images as they are: filled when it is asked for.
    """

    attack: Attack
    view: Classifier
    images: Images
    targets: Targets
    clean: Saliency
    aim: Saliency | None
    streams: list[Stream]
    known: dict[float, Tensor] = field(default_factory=dict)

    @property
    def objective(self) -> Objective:
        """What is aimed at."""
        assert self.attack.objective is not None  # chosen by `aiming`
        return self.attack.objective

    def start(self, random: bool) -> Parameters:
        """Where a run begins: at no change, or at a random one that uses every budget."""
        threats = self.attack.threats
        return composed(threats, self.images, random_change(threats, self.images, self.streams, 0))[1] if random else [threat.start(self.images) for threat in threats]

    def loss(self, images: Images, step: int) -> PerImage:
        """The objective on the maps of the smoothed network, and the change of its probabilities."""
        attack = self.attack
        view = self.view.using(tape=Tape(self.view.images_at_once(images.shape[-2:])))
        own = [stream.at("attack", 0 if attack.fixed else step) for stream in self.streams]
        with self.smoothed(step):
            made = attack.method.attribute(view, images, self.targets, own)
            outputs = made.outputs
            if attack.output_weight and (outputs is None or not outputs.requires_grad):
                outputs = view(images)  # type: ignore[operator]  # a Model
        loss = self.objective.loss(shares(made.maps), self.clean, self.aim)
        if not attack.output_weight:
            return loss
        return loss + attack.output_weight * (self.view.as_probabilities(outputs) - self.probabilities(step)).square().sum(1)

    def smoothed(self, step: int) -> ReplaceReLU:
        """The network smoothed as in this step."""
        beta = self.beta(step)
        return ReplaceReLU(lambda inputs, ceiling: softplus(inputs, ceiling, beta), leaky=True)

    def probabilities(self, step: int) -> Tensor:
        """Those of the images as they are, by the same smoothed network: the ones of the network itself differ, which is no change of the image's."""
        beta = self.beta(step)
        if beta not in self.known:
            with self.smoothed(step):
                self.known[beta] = self.view.as_probabilities(self.view.outputs(self.images))
        return self.known[beta]

    def check(self, number: int) -> None:
        """Refuse maps whose derivative cannot be followed, where an attack would stand still and look like robustness.

        Args:
            number: Of the first image, for the message.

        Raises:
            InputError: If the objective has no slope anywhere at a random change of the images, or one that is not finite there or where the run begins.
        """
        start, random = (composed(self.attack.threats, self.images, self.start(random))[0] for random in (False, True))
        slopes = [self.slope(start), self.slope(random)]
        for slope in slopes:
            bad = [] if slope is None else (~slope.isfinite()).flatten(1).any(1).nonzero()[:, 0].tolist()
            if bad:
                raise InputError(
                    f"The derivative of the maps of {self.attack.method} is not finite at image {number + bad[0] + 1}, so they cannot be attacked: "
                    f"look in {self.view.name} (or the method) for a division by 0, or a root or norm of 0, and keep it above 0."
                )
        if slopes[1] is None or not slopes[1].any():
            method = self.attack.method
            plain = dataclasses.replace(self, attack=dataclasses.replace(self.attack, method=Gradient())).slope(random)
            if plain is None or not plain.any():
                raise InputError(
                    f"The maps of {method} have no slope, since the activations of {self.view.name} have no second derivative: write them as ReLU, ReLU6, LeakyReLU or PReLU, which an attack smooths."
                )
            raise not_differentiable(method)

    def slope(self, images: Images) -> Images | None:
        """The derivative of the objective alone by the images; None where it does not depend on them."""
        alone = dataclasses.replace(self, attack=dataclasses.replace(self.attack, output_weight=0.0))
        images = images.detach().requires_grad_(True)
        with torch.enable_grad():
            total = alone.loss(images, 0).sum()
            return torch.autograd.grad(total, images, allow_unused=True)[0] if total.requires_grad else None

    def beta(self, step: int) -> float:
        """The sharpness in this step: constant, or growing geometrically."""
        first, last = self.attack.beta[0], self.attack.beta[-1]
        return units(self.view) * first * (last / first) ** (step / max(self.attack.steps - 1, 1))


def fixed_draws(sources: Sequence[Stream]) -> list[Stream]:
    """The draws that the first run of a `fixed` attack sees in every step."""
    return [stream.at(0).at("attack", 0) for stream in sources]


def units(model: Classifier) -> float:
    """What `beta` is multiplied by: 1 for networks that divide pictures by their sd, less for those that take larger numbers.

    A softplus of beta 100 in a network that takes pictures from 0 to 255 is a ReLU again, and hides the second derivatives.
    """
    return min(1.0, float((model.std / model.value_range).mean()) / USUAL_SD)  # type: ignore[attr-defined]  # a Model


@dataclass(frozen=True)
class Attacked:
    """What an attack came to, measured on the network itself. All tensors are on the CPU.

    Attributes:
        attack: The attack.
        images: As they were, (n, c, h, w).
        perturbed: As they are now.
        targets: Class explained, (n,).
        labels: Its names.
        predictions: Predicted classes before and after, (n,) each.
        probability: Of the class explained, before and after.
        maps: Before and after, (n, c, h, w); for random methods from draws that the attack has not seen.
        aim: Shares of the map aimed at, (n, h, w); None without one.
        budget: For each threat what it used, (n,).
        flow: The spatial flow (n, h, w, 2), if that threat was there.
        distance_to_target: Cosine distance to the map aimed at, before and after; None without one.
        distance_to_original: Cosine distance of the maps before and after.
        random_distance_to_target: What random changes of the same budget reach, the median.
        random_distance_to_original: Likewise.
        own_draws: Of a `fixed` attack of one run: the cosine distance to the map aimed at (or to the map before, without one) on the very draws
            that the attack was made with, which flatter it; else None.
        history: The loss before each step, (steps, n).
        blind: In how many steps, of all runs, a part of the gradient was not finite and was taken for 0, (n,): where it is not 0, the attack was weaker than it could be.
        model: Name of the network.
        weights: Hash of its weights.
    """

    attack: Attack
    images: Images
    perturbed: Images
    targets: Targets
    labels: list[str]
    predictions: tuple[Tensor, Tensor]
    probability: tuple[Tensor, Tensor]
    maps: tuple[Maps, Maps]
    aim: Saliency | None
    budget: dict[str, PerImage]
    flow: Tensor | None
    distance_to_target: tuple[PerImage, PerImage] | None
    distance_to_original: PerImage
    random_distance_to_target: PerImage | None
    random_distance_to_original: PerImage | None
    own_draws: PerImage | None
    history: Tensor
    blind: Tensor
    model: str
    weights: str

    @property
    def class_kept(self) -> Tensor:
        """Whether the predicted class is the same as before, (n,)."""
        return self.predictions[0] == self.predictions[1]

    @property
    def ssim(self) -> PerImage:
        """Structural similarity of the images before and after, (n,)."""
        return SSIM()(self.images, self.perturbed)

    @property
    def lpips(self) -> PerImage | None:
        """Perceptual distance of the images before and after, (n,); None where its network's weights are not at hand."""
        try:
            return LPIPS()(self.images, self.perturbed)
        except InputError:  # it never downloads, and says so; nothing else can be wrong with these images
            return None

    @property
    def fall(self) -> PerImage | None:
        """By what share the distance to the map aimed at fell, (n,); NaN where it was 0."""
        return None if self.distance_to_target is None else _fall(*self.distance_to_target)

    @property
    def random_fall(self) -> PerImage | None:
        """By what share random changes made it fall."""
        return None if self.distance_to_target is None or self.random_distance_to_target is None else _fall(self.distance_to_target[0], self.random_distance_to_target)


def _fall(before: PerImage, after: PerImage) -> PerImage:
    return torch.where(before > 0, 1 - after / before, torch.nan)


def attack(
    model: Any, images: Any, toward: Any = None, *, method: object = "gradient", threat: object = "delta", targets: Target = None, seed: Seed = 0, progress: Progress | None = None, **options: Any
) -> Attacked:
    """Attack the explanations of some images; ``sal.Attack(...)`` with its options in one call.

    Args:
        model: A `Model`.
        images: (n, c, h, w) in [0, 1].
        toward: Images, maps or an explanation whose map shall be reached; None empties the former largest values (`TopK`).
        method: The explanation under attack.
        threat: ``delta``, ``stadv``, ``recolor``, joined by ``+``; or threats such as ``sal.Delta(budget=0.05)``.
        targets: Class explained; None takes the predicted ones.
        seed: One int for all images, or one an image.
        progress: Called as ``progress(done, total)``.
        options: Further options of `Attack`.

    Returns:
        The changed images and what they do.
    """
    known = [field.name for field in dataclasses.fields(Attack)]
    for wrong in set(options) - set(known):
        raise unknown("option of attack:", wrong, known)
    chosen = Attack(method=method, threat=threat, **options)
    return chosen.run(model, images, toward, targets, seed=seed, progress=progress)
