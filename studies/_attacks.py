"""What the studies of attacks of "Smoothed explanations" (2022) share: its budgets and constants, attacks that are computed once, tables, pictures of numbers, claims."""

import argparse
import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import salience as sal
from _common import load, network, plain, positive, progress
from salience.attacks._judge import HELD_OUT, cosine_distance
from salience.attacks._problem import fixed_draws
from salience.core.draws import streams
from salience.core.files import atomic
from salience.core.objective import shares

DELTA, FLOW, ALL = "Delta", "Delta+StAdv", "Delta+StAdv+Recolor"
COMBINED = (FLOW, ALL)
COLOURS = {DELTA: "#2f6fb5", FLOW: "#e8a33d", ALL: "#d1432b"}

EQUAL = 0.03
"""Delta's budget where all threats have equal ones."""

STADV, RECOLOR = 0.05, 0.06
"""The authors' budgets of the other two, everywhere."""

BETA = 100.0
"""The paper's beta while attacking, for networks that take pictures of about unit variance; `sal.Attack` makes it less for others."""

FORMAT = 2
"""Of the figures that are kept: raise it when `measured` or `own_draws` gives others."""

CODE = ("core", "perturb", "explainers", "attacks", "similarities")
"""The packages by which an attack is made and judged: when their sources change, it is made anew."""

Figures = dict[str, np.ndarray]
"""What attacks came to, by name, each (images,)."""


@dataclass(frozen=True)
class Constants:
    """The authors' weights, in the units of `sal.Attack`.

    Attributes:
        output: Of the change of the probabilities.
        penalty: Of the roughness of flow and recolouring.
    """

    output: float
    penalty: float


IMAGENET, CIFAR = Constants(2.5, 1.25e-3), Constants(1.0, 5.2e-3)


@dataclass(frozen=True)
class Subject:
    """An explanation by a network, under attack.

    Attributes:
        title: What it is called in tables.
        model: Name for `load_model`.
        method: The explanation.
        budgets: Delta's budget by the authors, alone, with StAdv, and with both others.
        rates: The authors' Adam steps for the same three.
        steps: Their number of steps.
    """

    title: str
    model: str
    method: str
    budgets: tuple[float, float, float]
    rates: tuple[float, float, float]
    steps: int = 1500

    def budget(self, kind: str) -> float:
        """The authors' budget of Delta in one kind of attack."""
        return dict(zip(COLOURS, self.budgets, strict=True))[kind]


@dataclass(frozen=True)
class Size:
    """How much is computed.

    Attributes:
        steps: Of every attack; None takes the authors' numbers and rates.
        draws: Of noise in a step, for methods that have noise.
        random: Random changes to compare with.
        together: Pictures that are attacked together, and kept in one file.
    """

    steps: int | None
    draws: int
    random: int
    together: int


@dataclass(frozen=True)
class Pictures:
    """Pictures in their order, and one more: each one's map is pushed towards that of the next.

    Attributes:
        names: Their names.
        images: (n + 1, c, h, w).
        labels: Their classes.
    """

    names: list[str]
    images: Tensor
    labels: Tensor
    aims: dict[tuple[str, str, int], sal.Explanation] = field(default_factory=dict, compare=False)

    def __len__(self) -> int:
        return len(self.names) - 1


@dataclass(frozen=True)
class Place:
    """Subjects that are compared on the same pictures.

    Attributes:
        title: Heading.
        subjects: Under attack; the first is what others are compared with.
        pictures: The pictures.
        constants: The authors' weights.
        size: How much is computed.
        cache: Folder of what has been computed.
        beta: Of the softplus that stands for ReLU while attacking.
    """

    title: str
    subjects: list[Subject]
    pictures: Pictures
    constants: Constants
    size: Size
    cache: Path
    beta: float = BETA

    def attack(self, subject: Subject, kind: str, budget: float) -> sal.Attack:
        """One kind of attack with one budget of Delta."""
        step = dict(zip(COLOURS, subject.rates, strict=True))[kind]

        def rate(budget: float) -> dict[str, float]:
            return {"rate": step / budget} if self.size.steps is None else {}

        threats: list[sal.Threat] = [sal.Delta(budget=budget, **rate(budget))]
        if kind in COMBINED:
            threats.append(sal.StAdv(budget=STADV, weight=self.constants.penalty, **rate(STADV)))
        if kind == ALL:
            threats.append(sal.ReColor(budget=RECOLOR, weight=self.constants.penalty, **rate(RECOLOR)))
        method = with_draws(sal.Explainer.from_value(subject.method), self.size.draws)
        return sal.Attack(method=method, threat=threats, steps=self.size.steps or subject.steps, output_weight=self.constants.output, beta=(self.beta,))

    def figures(self, subject: Subject, attack: sal.Attack, *, keep: bool = False) -> Figures:
        """What an attack comes to on all pictures; what was computed before, by the same code on the same pictures, is read."""
        found = []
        for start in range(0, len(self.pictures), self.size.together):
            part = slice(start, min(start + self.size.together, len(self.pictures)))
            found.append(self._unit(subject.model, attack, part, keep=keep and start == 0))
            progress(f"{subject.title}, {attack}"[:110], part.stop, len(self.pictures))
        return {name: np.concatenate([each[name] for each in found]) for name in found[0] if name not in KEPT} | ({name: found[0][name] for name in KEPT} if keep else {})

    def _unit(self, model: str, attack: sal.Attack, part: slice, *, keep: bool) -> Figures:
        names, attacked_one = self.pictures.names[part.start : part.stop + 1], network(model)
        file = self.cache / f"{plain(model)}-{self._key(attacked_one, attack, part)}.npz"
        if file.is_file():
            with np.load(file, allow_pickle=False) as stored:
                if not keep or KEPT[0] in stored.files:
                    return {name: stored[name] for name in stored.files}
        images, labels, seeds = self.pictures.images[part], self.pictures.labels[part], [_seed(name) for name in names[:-1]]
        attacked = attack.run(attacked_one, images, self._aims(model, attack.method, part), labels, seed=seeds, random_draws=self.size.random)
        figures = measured(attacked) | (own_draws(attacked_one, attacked, seeds) if attack.fixed else {})
        stored = figures | ({name: each.numpy() for name, each in zip(KEPT, (attacked.perturbed, shares(attacked.maps[0]), shares(attacked.maps[1]), attacked.aim), strict=True)} if keep else {})
        with atomic(file) as out:
            np.savez(out, **stored)
        return stored

    def _key(self, model: sal.Model, attack: sal.Attack, part: slice) -> str:
        """Stands for all that an attack's figures depend on; the maps aimed at are the same method's, of the pictures up to the next one."""
        chosen = slice(part.start, part.stop + 1)
        images, labels = self.pictures.images[chosen], self.pictures.labels[chosen]
        code = [FORMAT, sources(Path(sal.__file__).parent), torch.__version__, has_lpips()]
        digest = hashlib.sha256(json.dumps([*code, str(attack), model.weights_hash(), model.settings, self.pictures.names[chosen], labels.tolist(), self.size.random]).encode())
        for pixels in (images, model.normalise(images)):
            digest.update(pixels.contiguous().numpy().tobytes())
        return digest.hexdigest()[:20]

    def _aims(self, model: str, method: sal.Explainer, part: slice) -> sal.Explanation:
        """The next pictures' maps, averaged over as many draws as those that are reported."""
        enough = with_draws(method, max(getattr(method, "samples", HELD_OUT), HELD_OUT))
        key = (model, str(enough), part.start)
        if key not in self.pictures.aims:
            following = slice(part.start + 1, part.stop + 1)
            seeds = [_seed(name) for name in self.pictures.names[following]]
            self.pictures.aims[key] = sal.explain(enough, network(model), self.pictures.images[following], self.pictures.labels[following], seed=seeds)
        return self.pictures.aims[key]


KEPT = ("perturbed", "before map", "after map", "aim map")
"""Pictures and maps that are kept where they will be drawn."""


def sources(package: Path) -> str:
    """The hash of the sources of the packages in `CODE`."""
    digest = hashlib.sha256()
    for file in sorted(file for folder in CODE for file in (package / folder).rglob("*.py")):
        digest.update(file.relative_to(package).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


def options(made: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The options that studies of attacks have beside those of all studies."""
    made.add_argument("--steps", type=positive, metavar="N", help="steps of an attack (default: 40; with --full the authors' 500 or 1500)")
    made.add_argument("--draws", type=positive, metavar="N", help="draws of noise in a step, for explanations that have noise (default: 3; with --full the paper's 10)")
    made.add_argument(
        "--cache",
        type=Path,
        metavar="DIR",
        default=Path("out/studies/attacks"),
        help="where attacks are kept, one file a few pictures, until the pictures, the network or the code that attacks change; figures 4, 5 and 7 share them (default: out/studies/attacks)",
    )
    return made


def size_of(given: argparse.Namespace, together: int) -> Size:
    """How much is computed, by the options."""
    return Size(given.steps or (None if given.full else 40), given.draws or (10 if given.full else 3), 20 if given.full else 1, together)


def with_draws(method: sal.Explainer, draws: int) -> sal.Explainer:
    """The same method with another number of draws, if it has any."""
    return dataclasses.replace(method, samples=draws) if "samples" in {each.name for each in dataclasses.fields(method)} else method  # type: ignore[call-arg]  # it has the field


def chosen(data: dict[str, Any], models: Sequence[str], count: int | None) -> Pictures:
    """The first pictures that every network sees rightly, as the paper takes them, and one more to aim at.

    Args:
        data: What `Study` takes as ``data``, without targets.
        models: Names of networks, all of one input size.
        count: How many; None takes all.

    Raises:
        InputError: If there are fewer than two.
    """
    networks, items = [network(each) for each in models], load(data)
    names: list[str] = []
    images: list[Tensor] = []
    labels: list[int] = []
    for start in range(0, len(items), 8):
        some = [items[place] for place in range(start, min(start + 8, len(items)))]
        tensor = sal.load_images([item.picture for item in some], networks[0]).as_subclass(Tensor)
        found = [each.outputs(tensor).argmax(1).tolist() for each in networks]
        for item, image, classes in zip(some, tensor, zip(*found, strict=True), strict=True):
            if (count is None or len(names) <= count) and len(item.labels) == 1 and set(classes) == set(item.labels):
                names, images, labels = [*names, item.name], [*images, image], [*labels, item.labels[0]]
        if count is not None and len(names) > count:
            break
    if len(names) < 2:
        raise sal.InputError("Fewer than two pictures are seen rightly by all networks: give more pictures, or others.")
    return Pictures(names, torch.stack(images), torch.tensor(labels))


def measured(attacked: Any) -> Figures:
    """The figures of an attack, by name."""
    found = {
        "before": attacked.distance_to_target_before,
        "after": attacked.distance_to_target_after,
        "random": attacked.random_distance_to_target,
        "fall": attacked.fall,
        "random fall": attacked.random_fall,
        "moved": attacked.distance_to_original,
        "kept": attacked.class_kept,
        "probability": attacked.probability_before,
        "changed": 1 - attacked.ssim,
    }
    for name, rescale in (("lpips", True), ("lpips as published", False)):
        try:
            found[name] = sal.LPIPS(rescale=rescale)(attacked.images, attacked.perturbed)
        except sal.InputError:  # its network's weights are not here
            found[name] = torch.full((len(attacked.images),), torch.nan)
    return {name: value.double().numpy() for name, value in found.items()}


def has_lpips() -> bool:
    """Whether the weights of LPIPS's network are here."""
    try:
        return sal.LPIPS().file().is_file()
    except sal.InputError:
        return False


def own_draws(model: sal.Model, attacked: Any, seeds: list[int]) -> Figures:
    """The distance to the map aimed at, before and after, on the draws that a `fixed` attack saw."""
    method, view, found = attacked.attack.method, model.using(score=model.named_score("logit")), {}
    for name, images in (("own before", attacked.images), ("own after", attacked.perturbed)):
        with model.frozen():
            maps = method.attribute(view, images, attacked.targets, fixed_draws(streams(seeds, len(seeds)))).maps
        found[name] = cosine_distance(shares(maps.detach()), attacked.aim).double().numpy()
    return found


def class_kept(model: str, method: str, pictures: Pictures) -> np.ndarray:
    """For each picture whether the network that a method makes of this one keeps the class; true for methods that do not change it."""
    e = sal.explain(with_draws(sal.Explainer.from_value(method), 1), network(model), pictures.images[: len(pictures)], pictures.labels[: len(pictures)])
    return np.array(e.record["images"].get("class_kept", [True] * len(pictures)), dtype=float) > 0


def _seed(name: str) -> int:
    """A picture's own seed."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big")
