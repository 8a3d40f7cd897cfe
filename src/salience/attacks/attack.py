"""Attacks on explanations: the map changes, the image and the prediction stay."""

import dataclasses
import functools
import math
import warnings
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import torch
from torch import Tensor

from salience.attacks._judge import Judge, check_differentiable, cosine_distance, distances, is_random, map_aimed_at
from salience.attacks._optimiser import Descent, composed, descend, joined, random_change, without_denormals
from salience.attacks._problem import Problem, fixed_draws
from salience.attacks.attacked import Attacked
from salience.attacks.target_map import TargetMap
from salience.attacks.top_k import TopK
from salience.core.classifier import Classifier
from salience.core.draws import Seed, Stream, streams
from salience.core.errors import InputError, unknown
from salience.core.explainer import Base, Explainer, Target, checked_images, target_indices
from salience.core.metric import UndefinedError
from salience.core.model import Model
from salience.core.objective import Objective, shares
from salience.core.options import option
from salience.core.perturbation import Perturbation
from salience.core.quick import as_written
from salience.core.registry import register
from salience.core.threat import Threat, Threats
from salience.core.types import Images, Maps, PerImage, Progress, Saliency, Targets
from salience.explainers.gradient import Gradient

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

    @property
    def aimed_at(self) -> Objective:
        """The objective, which `aiming` has chosen."""
        assert self.objective is not None
        return self.objective

    def aiming(self, somewhere: bool) -> "Attack":
        """The attack with its objective chosen.

        Args:
            somewhere: Whether there is a map to aim at.

        Raises:
            InputError: If the objective needs one and there is none, or the other way round.
        """
        objective = self.objective or (TargetMap() if somewhere else TopK())
        targeted = bool(objective.facts.get("targeted"))
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
        try:
            check_differentiable(explainer)
        except InputError as error:
            raise UndefinedError(str(error)) from error  # no mistake in a study, which has controls: there is no such attack
        judge = Judge(model, explainer, targets, list(streams))
        with as_written(), without_denormals():
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
        score = model.named_score(None, self.method.score)
        view = model.using(score=score, progress=None)
        with torch.inference_mode(False), model.frozen(), as_written(), without_denormals():
            images, weights = images.clamp(0, 1), model.weights_hash()  # a copy, and what rounding has put outside would count as change
            before = view.outputs(images)
            chosen = target_indices(targets, before, model).to(images.device)
            judge = Judge(view, self.method, chosen, sources)
            clean = judge.maps(images)
            aim = None if toward is None else map_aimed_at(toward, self.method, view, images, sources)
            steps = 0

            def tell(done: int, total: int) -> None:
                nonlocal steps
                steps = total
                if progress is not None:
                    progress(done, total + random_draws)

            perturbed, parameters, history, blind = attack._optimised(view, images, before, shares(clean), aim, judge, tell)
            maps, random = judge.maps(perturbed), []
            for draw in range(random_draws):
                changed = composed(self.threats, images, random_change(self.threats, images, sources, draw))[0]
                random.append(attack._figures(judge.maps(changed), clean, aim))
                if progress is not None:
                    progress(steps + draw + 1, steps + random_draws)
            own = None
            if self.fixed and self.restarts == 1 and is_random(self.method):
                seen = distances(self.method.attribute(view, perturbed, chosen, fixed_draws(sources)).maps.detach().float(), clean, aim)
                own = seen.get("target", seen["original"]).cpu()
            after = view.outputs(perturbed)
        probability_before, probability_after = (model.as_probabilities(outputs).gather(1, chosen[:, None])[:, 0].cpu() for outputs in (before, after))
        reached = attack._figures(maps, clean, aim)
        middle = {key: torch.stack([each[key] for each in random]).quantile(0.5, dim=0) if random else None for key in reached}
        return Attacked(
            attack=attack,
            images=images.cpu(),
            perturbed=perturbed.cpu(),
            targets=chosen.cpu(),
            labels=[model.label(int(each)) for each in chosen],
            new_labels=[model.label(int(each)) for each in after.argmax(1)],
            predictions=(before.argmax(1).cpu(), after.argmax(1).cpu()),
            probability_before=probability_before,
            probability_after=probability_after,
            maps=(clean.cpu(), maps.cpu()),
            aim=None if aim is None else aim.cpu(),
            budget={threat.name: threat.used(values).cpu() for threat, values in zip(self.threats, parameters, strict=True)},
            flow=next((values.cpu() for threat, values in zip(self.threats, parameters, strict=True) if threat.name == "stadv"), None),
            distance_to_target_before=None if aim is None else cosine_distance(shares(clean), aim).cpu(),
            distance_to_target_after=None if aim is None else reached["target"].cpu(),
            distance_to_original=reached["original"].cpu(),
            random_distance_to_target=middle.get("target"),
            random_distance_to_original=middle["original"],
            objective_before=attack.aimed_at.loss(shares(clean), shares(clean), aim).cpu(),
            objective_after=reached["objective"].cpu(),
            random_objective=middle["objective"],
            own_draws=own,
            history=history,
            blind=blind,
            model=model.name,
            weights=weights,
        )

    def _figures(self, maps: Maps, clean: Maps, aim: Saliency | None) -> dict[str, PerImage]:
        """What is reported of maps: their distances, and what the attack makes small."""
        return distances(maps, clean, aim) | {"objective": self.aimed_at.loss(shares(maps), shares(clean), aim)}

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
