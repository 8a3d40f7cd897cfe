"""What the studies of attacks of "Smoothed explanations" (2022) share: its budgets and constants, attacks that are computed once, tables, pictures of numbers, claims."""

import argparse
import dataclasses
import hashlib
import json
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

import salience as sal
from _common import Claim, Report, beyond, difference, load, mean_cell, network, plain, positive, progress
from salience.attacks._judge import HELD_OUT
from salience.attacks._problem import fixed_draws
from salience.core.draws import streams
from salience.core.files import atomic
from salience.core.objective import cosine_distance, shares
from salience.show.overlay import drawing, write
from salience.studies.comparison import FEWEST_PAIRS

DELTA, FLOW, ALL = "Delta", "Delta+StAdv", "Delta+StAdv+Recolor"
COMBINED = (FLOW, ALL)
COLOURS = {DELTA: "#2f6fb5", FLOW: "#e8a33d", ALL: "#d1432b"}

EQUAL = 0.03
"""Delta's budget where all threats have equal ones."""

DELTAS = (EQUAL, 0.05, 0.1)
"""Budgets at which Delta alone is tried, to know what it reaches at any visible change."""

STADV, RECOLOR = 0.05, 0.06
"""The authors' budgets of the other two, everywhere."""

STRONGER = 2
"""The stronger attack has so many times the steps and the draws, and so many runs."""

SOFTER = 0.1
"""Its softplus grows from so many times the ordinary beta to that."""

BETA = 100.0
"""The paper's beta while attacking, for networks that take pictures of about unit variance; `sal.Attack` makes it less for others."""

CLOSE = 0.05
"""A difference of distances that counts as "very close" and "similar"."""

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
        digest = hashlib.sha256(json.dumps([*code, str(attack), model.weights_hash(), self.pictures.names[chosen], labels.tolist(), self.size.random]).encode())
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
        "before": attacked.distance_to_target[0],
        "after": attacked.distance_to_target[1],
        "random": attacked.random_distance_to_target,
        "fall": attacked.fall,
        "random fall": attacked.random_fall,
        "moved": attacked.distance_to_original,
        "kept": attacked.class_kept,
        "probability": attacked.probability[0],
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


# --- what was found ----------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Found:
    """All attacks of a place.

    Attributes:
        place: The subjects and pictures.
        tables: Figures by subject, kind of attack and budget of Delta.
    """

    place: Place
    tables: dict[tuple[str, str, float], Figures]

    def cell(self, subject: Subject, kind: str, budget: float | None = None) -> Figures:
        """The figures of one attack, by default with the authors' budget."""
        return self.tables[subject.title, kind, subject.budget(kind) if budget is None else budget]

    def at(self, subject: Subject, kind: str, what: str, budget: float | None = None) -> np.ndarray:
        """One figure of one attack, of all pictures."""
        return self.cell(subject, kind, budget)[what]

    def same_change(self, subject: Subject, kind: str, measure: str = "changed") -> np.ndarray:
        """How much nearer a combined attack comes than Delta alone does at the same visible change: negative is nearer.

        NaN beyond what Delta was tried at, and where the combined attack, or Delta next to it on the line, changes the class.

        What Delta reaches between the budgets tried is taken to lie on straight lines over the logarithm of the change, where
        these curves bend little; over the change itself they are hollow, and lines between points would flatter the combined attack.
        """
        alone, combined = [self.cell(subject, DELTA, budget) for budget in DELTAS], self.cell(subject, kind, EQUAL)
        changes, reached = np.stack([each[measure] for each in alone]), np.stack([where_kept(each, "after") for each in alone])
        return where_kept(combined, "after") - along(np.log(changes), reached, np.log(combined[measure]))

    def same_budget(self, subject: Subject, kind: str) -> np.ndarray:
        """How much nearer a combined attack comes than Delta alone with the same budget of Delta; NaN where either changes the class."""
        return where_kept(self.cell(subject, kind, EQUAL), "after") - where_kept(self.cell(subject, DELTA, EQUAL), "after")


def where_kept(figures: Figures, what: str) -> np.ndarray:
    """One figure of an attack, NaN where it changes the class: such a change of the picture is no attack on its explanation."""
    return np.where(figures["kept"] == 0, np.nan, figures[what])


def compared(statement: str, published: str, what: str, first: Figures, second: Figures, says: Literal["<", ">"]) -> Claim:
    """The claim that a figure of one attack is less, or more, than that of another, tested on the pictures whose class both keep.

    Args:
        statement: What is claimed.
        published: The paper's numbers.
        what: The figure.
        first: One attack.
        second: The other, on the same pictures.
        says: ``<``: the claim is that the first one's is less.
    """
    made = difference(statement, published, *_both(what, first, second), says)
    return dataclasses.replace(made, ours=f"{made.ours}; {_left_out(first, second)}")


def as_near(statement: str, published: str, first: Figures, second: Figures) -> Claim:
    """The claim that one attack comes as near to the target as another, within `CLOSE`, tested on the pictures whose class both keep."""
    made = beyond(statement, published, lambda a, b: a - b, "<", CLOSE, *_both("after", first, second))
    return dataclasses.replace(made, ours=f"{made.ours}; {_left_out(first, second)}")


def _both(what: str, first: Figures, second: Figures) -> tuple[np.ndarray, np.ndarray]:
    """A figure of two attacks, NaN where either changes the class."""
    a, b = where_kept(first, what), where_kept(second, what)
    return np.where(np.isnan(b), np.nan, a), np.where(np.isnan(a), np.nan, b)


def _left_out(first: Figures, second: Figures) -> str:
    """How many pictures do not count in a comparison."""
    lost = (first["kept"] == 0) | (second["kept"] == 0)
    return f"left out, as an attack changes their class: {lost.sum()} of {len(lost)} pictures"


def resists(found: Found, subject: Subject, than: Subject, published: str) -> list[Claim]:
    """The claims that an explanation resists Delta better than another: by the paper's measure and budgets, and by the fall, with equal ones."""
    title = found.place.title
    statement = f"{subject.title} resists Delta better than {than.title}: a larger distance to the target, the authors' budgets ({title})"
    fall = f"The same by the share that the distance falls by, equal budgets: {subject.title} less than {than.title} ({title})"
    return [
        compared(statement, published, "after", found.cell(subject, DELTA), found.cell(than, DELTA), ">"),
        compared(fall, "not in the paper", "fall", found.cell(subject, DELTA, EQUAL), found.cell(than, DELTA, EQUAL), "<"),
    ]


def nearer(found: Found, subject: Subject, published: str) -> list[Claim]:
    """The claims that combined attacks come nearer to the target than Delta, with the authors' budgets."""
    statement = f"comes nearer to the target than Delta on {subject.title}, the authors' budgets ({found.place.title})"
    return [compared(f"{kind} {statement}", published, "after", found.cell(subject, kind), found.cell(subject, DELTA), "<") for kind in COMBINED]


def less_visible(found: Found, subject: Subject, kind: str, published: str) -> Claim:
    """The claim that a combined attack is less visible than Delta, with the authors' budgets."""
    measure, name = ("lpips as published", "LPIPS") if "lpips" in measures(found) else ("changed", "1 - SSIM (LPIPS in the paper)")
    statement = f"{kind} changes pictures less visibly than Delta on {subject.title}, the authors' budgets, by {name} ({found.place.title})"
    return compared(statement, published, measure, found.cell(subject, kind), found.cell(subject, DELTA), "<")


def along(x: np.ndarray, y: np.ndarray, at: np.ndarray) -> np.ndarray:
    """For each column, y at a given x, on straight lines between points; NaN outside of them.

    Args:
        x: (points, columns), in any order.
        y: Likewise.
        at: (columns,).
    """
    found = []
    for place in range(len(at)):
        order = x[:, place].argsort()
        found.append(np.interp(at[place], x[order, place], y[order, place], left=np.nan, right=np.nan))
    return np.array(found)


def all_attacks(place: Place, *, keep: bool = False) -> Found:
    """Every subject under every attack: the authors' budgets, equal ones, and Delta at several.

    Args:
        place: The subjects and pictures.
        keep: Keep the pictures and maps of the first file, for figure 5.
    """
    tables = {}
    for subject in place.subjects:
        kept = class_kept(subject.model, subject.method, place.pictures)
        wanted = {(DELTA, budget) for budget in DELTAS} | {(kind, EQUAL) for kind in COMBINED} | {(kind, subject.budget(kind)) for kind in COLOURS}
        for kind, budget in sorted(wanted, key=lambda each: (list(COLOURS).index(each[0]), each[1])):
            found = place.figures(subject, place.attack(subject, kind, budget), keep=keep)
            tables[subject.title, kind, budget] = {name: each if name in KEPT else np.where(kept, each, np.nan) for name, each in found.items()}
    return Found(place, tables)


def written(report: Report, place: Place, name: str, figure: str, *, keep: bool = False) -> Found:
    """Make all attacks of a place, and write their tables and pictures.

    Args:
        report: Takes them.
        place: The subjects and pictures.
        name: In names of pictures.
        figure: The paper's.
        keep: As `all_attacks` has it.
    """
    found = all_attacks(place, keep=keep)
    table(report, found)
    further_table(report, found)
    report.picture(f"bars-{name}", bars(found), f"{place.title}: distances and visible change (the paper's {figure})")
    report.picture(f"reach-{name}", reach(found), f"{place.title}: what attacks reach against how much they change the picture")
    return found


def method_text(place: Place) -> str:
    """How attacks are made and judged, for the results."""
    steps = "the authors' 500 or 1500 steps and rates" if place.size.steps is None else f"{place.size.steps} steps (the authors: 500 or 1500)"
    return (
        f"{place.title}: {len(place.pictures)} pictures that every network here classifies rightly; each one's map is pushed towards that of the next picture. Attacks: {steps}, softplus of beta {place.beta:g} for ReLU while attacking, "
        f"weights {place.constants.output:g} (change of the probabilities) and {place.constants.penalty:g} (roughness of flow and recolouring), which are the authors'. Explanations with noise: {place.size.draws} fresh draws in each step, "
        f"judged on {HELD_OUT} draws that the attack has not seen (the paper's explanations have 10). Distances are cosine distances of |map|, channels summed, on the network itself. Chance: "
        f"{'a random change' if place.size.random == 1 else f'the median of {place.size.random} random changes'} with the same budgets. Budgets: StAdv {STADV}, Recolor {RECOLOR}, Delta as printed. "
        "Tables and bars are of all pictures; attacks are compared with each other on the pictures whose class both keep."
    )


def table(report: Report, found: Found) -> None:
    """All attacks of a place."""
    cells = []
    for (title, kind, budget), each in found.tables.items():
        subject = next(subject for subject in found.place.subjects if subject.title == title)
        whose = " and ".join(name for name, holds in (("authors'", budget == subject.budget(kind)), ("equal", budget == EQUAL)) if holds)
        before, ssim, lpips = (mean_cell(values).split(" ")[0] for values in (each["before"], 1 - each["changed"], each["lpips as published"]))
        cells.append([f"{title}: {kind}", f"{budget:g}", whose, before, mean_cell(each["after"]), share(each["fall"]), share(each["random fall"]), ssim, lpips, share(each["kept"])])
    columns = [
        "explanation and attack",
        "Delta's budget",
        "whose",
        "distance to target before",
        "after, and 95 % interval",
        "fall",
        "fall by chance",
        "SSIM",
        "LPIPS (vgg, as published)",
        "class kept",
    ]
    report.table(f"{found.place.title}: {len(found.place.pictures)} pictures", columns, cells)
    sure = [~np.isnan(each["kept"]) & (each["probability"] >= 0.5) for each in found.tables.values()]
    lost = sum(int((each["kept"][is_sure] == 0).sum()) for each, is_sure in zip(found.tables.values(), sure, strict=True))
    report.text(f"{found.place.title}: of {sum(map(np.sum, sure))} attacked pictures whose class had a probability of at least 0.5, {lost} lost it.")


def share(values: np.ndarray) -> str:
    """A mean in percent, of what is defined."""
    return f"{np.nanmean(values):.0%}" if np.isfinite(values).any() else "-"


def further_table(report: Report, found: Found) -> None:
    """What other threats add to Delta, at its budget and at the same visible change."""
    cells = []
    for subject in found.place.subjects:
        for kind in COMBINED:
            row = [f"{subject.title}: {kind}"]
            for each in (found.same_budget(subject, kind), *(found.same_change(subject, kind, name) for name in measures(found))):
                row += [mean_cell(each), str(int(np.isfinite(each).sum()))]
            cells.append(row)
    columns = ["explanation and attack", *(text for name in ("budget of Delta", *measures(found).values()) for text in (f"same {name}", "pictures"))]
    report.table(
        f"{found.place.title}: distance to the target after the combined attack, less that after Delta alone (negative: the combined attack comes nearer), mean and 95 % interval", columns, cells
    )
    report.text(
        f"Of {len(found.place.pictures)} pictures those count whose class is kept by the combined attack and by Delta alone; at the same visible change, those that the combined attack changes as much as Delta of some budget from {DELTAS[0]:g} to {DELTAS[-1]:g}."
    )


def measures(found: Found) -> dict[str, str]:
    """Names of the measures of visible change that there are: LPIPS only with its network's weights."""
    there = np.isfinite(next(iter(found.tables.values()))["lpips"]).any()
    return {"changed": "SSIM"} | ({"lpips": "LPIPS"} if there else {})


VISIBLE = (
    "SSIM compares pictures place by place: a shift of a pixel, which the eye forgives, costs it much, so it counts flow as more visible than people would. LPIPS forgives more; it is printed where the weights of its network "
    "(torchvision's VGG-16) are at hand. "
    "What Delta reaches at the visible change of another attack is read off a line through its budgets, over the logarithm of the change, for each picture."
)


def further_claims(found: Found) -> list[Claim]:
    """Do threats that add nothing reach further, at equal budget and at equal visible change?"""
    title, subjects, made = found.place.title, found.place.subjects, []
    for kind in COMBINED:
        nearer = np.stack([found.same_budget(subject, kind) for subject in subjects], 1)
        made.append(_negative(f"{kind} comes nearer to the target than Delta with the same budget of Delta (mean of all rows; {title})", "not in the paper", nearer))
        for measure, name in measures(found).items():
            nearer = np.stack([found.same_change(subject, kind, measure) for subject in subjects], 1)
            made.append(_negative(f"{kind} comes nearer than Delta alone at the same {name} (mean of all rows; {title})", "figures 4 and 7, by eye, at unequal budgets", nearer))
    return made


def _negative(statement: str, published: str, nearer: np.ndarray) -> Claim:
    """The claim that differences (images, subjects) are negative."""
    made = difference(statement, published, nearer, 0.0, "<")
    return dataclasses.replace(made, ours=f"{made.ours}; {np.isfinite(nearer).sum()} of {nearer.size} pairs of a picture and a row count")


def stronger(found: Found, report: Report) -> list[Claim]:
    """A stronger attack on what seems most robust; "robust" is only said if that fails too.

    It has twice the steps and draws, two runs, and a softplus that grows from soft to sharp, so that it passes through the smoothing
    step by step. Of each picture the attack counts that reached further, if it keeps the class: the stronger one need not.
    """
    place, first = found.place, found.place.subjects[0]
    if len(place.pictures) < FEWEST_PAIRS:
        report.text(f"{place.title}: fewer than {FEWEST_PAIRS} pictures, so nothing can be called robust, and the stronger attack is left out.")
        return []
    reached = {subject.title: where_kept(found.cell(subject, DELTA, EQUAL), "fall") for subject in place.subjects[1:]}
    falls = {title: float(np.nanmean(each)) for title, each in reached.items() if np.isfinite(each).sum() >= FEWEST_PAIRS}
    if not falls:
        return []
    subject = next(each for each in place.subjects if each.title == min(falls, key=lambda title: falls[title]))
    weaker = place.attack(subject, DELTA, EQUAL)
    adapted = dataclasses.replace(weaker, steps=STRONGER * weaker.steps, restarts=STRONGER, beta=(SOFTER * place.beta, place.beta), method=with_draws(weaker.method, STRONGER * place.size.draws))
    ordinary, against = found.cell(subject, DELTA, EQUAL), found.cell(first, DELTA, EQUAL)
    each = {name: np.where(np.isfinite(ordinary["after"]), value, np.nan) for name, value in place.figures(subject, adapted).items()}
    further = where_kept(each, "fall") >= np.nan_to_num(where_kept(ordinary, "fall"), nan=-np.inf)
    best = {name: np.where(further, value, ordinary[name]) for name, value in each.items()}
    lines = {
        f"{first.title}: ordinary attack": against,
        f"{subject.title}: ordinary attack": ordinary,
        f"{subject.title}: stronger attack": each,
        f"{subject.title}: the one that reached further": best,
    }
    cells = [[name, mean_cell(values["after"]), mean_cell(values["fall"]), share(values["kept"])] for name, values in lines.items()]
    report.table(f"{place.title}: a stronger attack by Delta, budget {EQUAL:g}, on what its fall makes look the most robust", ["", "distance to target after", "fall", "class kept"], cells)
    draws = f", {STRONGER * place.size.draws} draws a step" if hasattr(adapted.method, "samples") else ""
    report.text(
        f"The stronger attack: {adapted.steps} steps{draws}, {adapted.restarts} runs (the best is taken), a softplus growing from beta {SOFTER * place.beta:g} to {place.beta:g}. {subject.title} was picked by its fall on the same pictures."
    )
    statement = f"{subject.title} is more robust than {first.title} to Delta of {EQUAL:g}: even the better of both attacks makes the distance fall by a smaller share than the ordinary one does for {first.title} ({place.title})"
    return [compared(statement, "not tried in the paper", "fall", best, against, "<")]


def bars(found: Found) -> Figure:
    """The paper's bars: the distance to the target and the visible change after each attack with the authors' budgets, mean and sd."""
    subjects, width = found.place.subjects, 0.25
    measure, title = ("lpips as published", "LPIPS (vgg)") if "lpips" in measures(found) else ("changed", "1 - SSIM")
    with drawing():
        figure = Figure(figsize=(max(3.0 + 1.5 * len(subjects), 8), 4.4), dpi=100)
        for side, (what, heading) in enumerate((("after", "cosine distance to the target map"), (measure, f"visible change: {title}"))):
            axes = figure.add_subplot(1, 2, side + 1)
            for place, (kind, colour) in enumerate(COLOURS.items()):
                each = [found.at(subject, kind, what) for subject in subjects]
                at = np.arange(len(subjects)) + (place - 1) * width
                axes.bar(at, [np.nanmean(values) for values in each], width, color=colour, label=kind)
                axes.errorbar(at, [np.nanmean(values) for values in each], [np.nanstd(values) for values in each], fmt="none", ecolor="#1b1f24", elinewidth=0.9)
                if what == "after":
                    axes.plot(at, [np.nanmean(found.at(subject, kind, "before")) for subject in subjects], "_", color="#1b1f24", markersize=11, label="before the attack" if place == 2 else None)
                    axes.plot(at, [np.nanmean(found.at(subject, kind, "random")) for subject in subjects], "x", color="#5d6670", markersize=5, label="a random change" if place == 2 else None)
            axes.set_xticks(range(len(subjects)), [f"{subject.title}" for subject in subjects], rotation=20, ha="right", size=8)
            axes.set_title(heading, size=10, weight="bold", loc="left")
            axes.set_ylim(bottom=0)
            if side == 0:
                axes.legend(fontsize=7, frameon=False, loc="upper right")
                axes.set_ylim(top=axes.get_ylim()[1] * 1.4)
        figure.tight_layout(rect=(0, 0.06, 1, 1))
        write(
            figure,
            0.98,
            0.01,
            0.015,
            f"{found.place.title}. Bars: means over {len(found.place.pictures)} pictures, class kept or not; lines: one standard deviation. The authors' budgets, which are not equal.",
            size=8,
        )
    return figure


def reach(found: Found) -> Figure:
    """What attacks reach against how much they change the picture, one panel a subject."""
    subjects = found.place.subjects
    columns = min(5, len(subjects))
    lines = -(-len(subjects) // columns)
    height = 3.1 * lines + 0.6
    with drawing():
        figure = Figure(figsize=(3.3 * columns, height), dpi=100)
        for place, subject in enumerate(subjects):
            axes = figure.add_subplot(lines, columns, place + 1)
            alone, combined = [found.cell(subject, DELTA, budget) for budget in DELTAS], {kind: found.cell(subject, kind, EQUAL) for kind in COMBINED}
            kept = np.all([each["kept"] == 1 for each in (*alone, *combined.values())], axis=0)
            axes.set_title(textwrap.fill(f"{subject.title} ({kept.sum()} pictures)", 34), size=9, weight="bold", loc="left")
            if not kept.any():
                continue
            before = float(alone[0]["before"][kept].mean())
            x, y = ([float(each[what][kept].mean()) for each in alone] for what in ("changed", "after"))
            axes.axhline(before, color="#5d6670", linewidth=0.9, linestyle="--", label="before the attack")
            axes.plot(x, y, color=COLOURS[DELTA], marker="o", markersize=4, label=f"Delta, budgets {', '.join(f'{budget:g}' for budget in DELTAS)}")
            for kind, each in combined.items():
                axes.plot(each["changed"][kept].mean(), each["after"][kept].mean(), "D", color=COLOURS[kind], markersize=6, label=f"{kind}, Delta {EQUAL:g}")
            axes.set_ylim(0, before * 1.12)
            axes.set_xscale("log")
            axes.set_xticks(x, [f"{each:.2g}" for each in x])
            axes.minorticks_off()
            axes.set_xlabel("1 - SSIM of the picture", size=8)
            if place % columns == 0:
                axes.set_ylabel("distance to the target map", size=8)
            if not figure.legends:
                figure.legend(*axes.get_legend_handles_labels(), loc="lower left", bbox_to_anchor=(0.003, 0.2 / height), ncols=4, fontsize=7, frameon=False)
        figure.tight_layout(rect=(0, 0.5 / height, 1, 1))
        write(
            figure,
            0.98,
            0.01,
            0.01,
            f"{found.place.title}. Means over the pictures whose class every attack shown keeps. A diamond below the line: the combined attack reaches further than Delta at the same SSIM.",
            size=8,
        )
    return figure


def _seed(name: str) -> int:
    """A picture's own seed."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big")
