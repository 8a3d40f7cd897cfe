"""Smoothed explanations (2022), figure 6 and tables 4 and 5: gradients of networks trained plainly, with CURE and adversarially.

Rank correlation while parameters become random (figure 6), Gini index (table 4) and infidelity (table 5). The paper: ResNet-18, 1000
pictures of CIFAR-10. Here: the three networks for CIFAR-10 that come with salience, if they are there, and four ResNet-32 of the authors of
ReColorAdv, and six random networks instead of one. With --full: 1000 pictures, every layer, every square of 15 pixels; --networks names networks of the paper's size.
"""

import argparse
import sys
from argparse import Namespace
from dataclasses import dataclass

import numpy as np
from torch import Tensor

import salience as sal
from _common import Claim, Report, beyond, difference, images_of, load, main, mean_cell, network, parser, rows, spread_cell, values
from _trained import ADVERSARIAL, CURE, LOSSY, STANDARD, Networks, networks, pictures
from _trained import options as network_options
from salience.studies.store import Store
from salience.studies.study import Data, Study
from smoothed_cascade import CERTAINTY, SEEDS, curves, drawn_curves, steps_of

GRADIENT, CONTROL = "gradient", "random"
FULL = 1000
STEPS, SQUARES, SIDE = 6, 60, 15
COLOURS = ("#1b1f24", "#2f6fb5", "#d1432b", "#e8a33d")
SAME = 0.02
"""A difference of Gini indices that counts as none."""

GINI = {STANDARD: "0.54 ± 0.035", CURE: "0.54 ± 0.045", ADVERSARIAL: "0.71 ± 0.054"}
INFIDELITY = {STANDARD: "5.69 ± 4.44", CURE: "0.59 ± 0.34", ADVERSARIAL: "1.56 ± 0.76"}
SUMMED, MULTIPLIED = "the paper's: sum of the map", "Yeh et al.'s: map times picture"


@dataclass(frozen=True)
class Found:
    """What was measured of one set of networks, by training.

    Attributes:
        gini: (images, seeds).
        infidelity: By variant, then training.
        relative: The same over that of a random map.
        similarity: Mean rank correlation over the steps, (images, random networks).
        curves: (images, random networks, points).
        right: Share of the pictures that the network classifies rightly.
    """

    gini: dict[str, np.ndarray]
    infidelity: dict[str, dict[str, np.ndarray]]
    relative: dict[str, dict[str, np.ndarray]]
    similarity: dict[str, np.ndarray]
    curves: dict[str, np.ndarray]
    right: dict[str, float]


def measured(each: Networks, given: Namespace) -> Found:
    """All three measures of all networks of a set; random networks alone have several seeds."""
    models, data = list(each.models.values()), Data(**pictures(), targets="labels")
    metrics = ["gini", *(str(sal.Infidelity(sides=(SIDE,), samples=None if given.full else SQUARES, multiply=multiply)) for multiply in (False, True))]
    study = Study(name="smoothed_training", models=models, data=data, methods=[GRADIENT, CONTROL], metrics=metrics)
    randomised = [str(sal.ParameterRandomisation(steps=None if given.full else STEPS))]
    cascade = Study(name="smoothed_training, figure 6", models=models, data=data, methods=[GRADIENT], metrics=randomised, seeds=SEEDS)
    store, cascades = rows(study, given.out / each.folder, given), rows(cascade, given.out / f"{each.folder}-cascade", given)
    gini, summed, multiplied = study.metrics

    def of(metric: str, method: str = GRADIENT) -> dict[str, np.ndarray]:
        return {title: values(store, method, metric, model=name) for title, name in each.models.items()}

    infidelity = {SUMMED: of(summed), MULTIPLIED: of(multiplied)}
    chance = {SUMMED: of(summed, CONTROL), MULTIPLIED: of(multiplied, CONTROL)}
    relative = {variant: {title: infidelity[variant][title] / chance[variant][title] for title in each.models} for variant in infidelity}
    return Found(
        of(gini),
        infidelity,
        relative,
        {title: values(cascades, GRADIENT, cascade.metrics[0], model=name) for title, name in each.models.items()},
        {title: curves(cascades, name, GRADIENT, "similarity") for title, name in each.models.items()},
        {title: right(name, store) for title, name in each.models.items()},
    )


def right(name: str, store: Store) -> float:
    """The share of a study's pictures that a network classifies rightly."""
    model, items = network(name), list(load(pictures(), limit=len(images_of(store))))
    found = model.outputs(sal.load_images([item.picture for item in items], model).as_subclass(Tensor)).argmax(1)
    return float(np.mean([int(label) in item.labels for label, item in zip(found, items, strict=True)]))


def claims(title: str, found: Found) -> list[Claim]:
    """What the paper says of figure 6 and tables 4 and 5."""
    gini, made = found.gini, []
    made.append(difference(f"Adversarial training makes gradients sparser than standard training ({title})", "0.71 against 0.54", gini[ADVERSARIAL], gini[STANDARD], ">"))
    if CURE in gini:
        made.append(
            beyond(f"CURE does not make gradients sparser than standard training, by {SAME:g} or more ({title})", "0.54 against 0.54", lambda a, b: a - b, "<", SAME, gini[CURE], gini[STANDARD])
        )
    for variant, each in found.infidelity.items():
        for training, published in ((CURE, "0.59 against 5.69"), (ADVERSARIAL, "1.56 against 5.69")):
            if training in each:
                made.append(difference(f"{training} has a lower infidelity than standard training ({title}; {variant})", published, each[training], each[STANDARD], "<"))
                relative = found.relative[variant]
                made.append(
                    difference(f"The same over the infidelity of a random map: {training} less than standard ({title}; {variant})", "not in the paper", relative[training], relative[STANDARD], "<")
                )
    made.append(
        difference(
            f"Gradients of the adversarially trained network are less sensitive to the parameters: a higher mean correlation ({title})",
            "figure 6, no numbers",
            found.similarity[ADVERSARIAL],
            found.similarity[STANDARD],
            ">",
            shared_seeds=True,
        )
    )
    return made


def work(given: Namespace) -> None:
    """Run, tabulate, draw, judge."""
    sets, missing = networks(given)
    report = Report(given, "Smoothed explanations, figure 6 and tables 4 and 5: gradients of trained networks")
    report.text(
        f"Gradients of the labelled class, absolute values for figure 6 and the Gini index, signed for infidelity. {LOSSY} Squares of {SIDE} pixels become the mean colour, {'every one' if given.full else f'{SQUARES} drawn at random'}. "
        f"The paper's networks are ResNet-18. {missing}".strip()
    )
    report.text(f"Figure 6: {CERTAINTY}")
    every: list[Claim] = []
    for each in sets:
        found = measured(each, given)
        count = len(found.gini[STANDARD])
        report.text(f"{each.title}: {each.note}")
        cells = [[title, f"{found.right[title]:.0%}", GINI.get(title, ""), spread_cell(found.gini[title]), mean_cell(found.similarity[title], shared_seeds=True)] for title in each.models]
        columns = ["training", "right on these pictures", "Gini index, paper", "Gini index, mean ± sd and 95 % interval", "mean rank correlation under random parameters"]
        report.table(f"{each.title}, {count} pictures: sparseness (table 4) and sensitivity to the parameters (figure 6, no numbers printed)", columns, cells)
        cells = [
            [title, INFIDELITY.get(title, ""), *(text for variant in found.infidelity for text in (mean_cell(found.infidelity[variant][title]), mean_cell(found.relative[variant][title])))]
            for title in each.models
        ]
        columns = ["training", "paper", *(text for variant in found.infidelity for text in (variant, "over a random map's"))]
        report.table(f"{each.title}, {count} pictures: infidelity (table 5), mean and 95 % interval", columns, cells)
        names = ["trained", *(step[-1].name for step in steps_of(network(each.models[STANDARD]), given.full))]
        drawn = drawn_curves({each.title: found.curves}, dict(zip(each.models, COLOURS, strict=False)), {each.title: names}, "rank correlation of |gradient| with the original")
        report.picture(f"curves-{each.folder}", drawn, f"{each.title}: rank correlation while layers become random, from the scores down (the paper's figure 6)")
        every += claims(each.title, found)
    report.text(
        "Infidelity is in squared logits, and a network with small logits has a small one whatever its maps are worth: CURE and adversarial training make logits small. So each value is also divided by that of a random map of the "
        "same picture and squares: 1 is no better than chance, 0 perfect."
    )
    report.claims(every)
    report.done()


def options() -> argparse.ArgumentParser:
    """The options."""
    return network_options(parser("smoothed_training", __doc__, 60, full=FULL))


if __name__ == "__main__":
    sys.exit(main(options(), work))
