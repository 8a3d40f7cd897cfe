"""Smoothed explanations (2022), table 3: infidelity, how far maps are from what squares of the picture are worth.

The paper: VGG-16, 100 pictures of ImageNet, every square of 29 and 30 pixels. Here: SqueezeNet on photographs (227 pixels, so squares of
the same sizes) and ResNet-20 on CIFAR-10 (squares of 15, as the paper's script), 60 squares drawn at random, the same for all methods.
With --full: torchvision's VGG-16, 100 pictures of ImageNet, every square (76,000 forward passes a picture, method and variant).
"""

import argparse
import sys
from argparse import Namespace

import numpy as np

import salience as sal
from _common import Claim, Report, difference, main, mean_cell, parser, rows, values
from _smoothed import BETA_SMOOTHING, GRADIENT, RELATIVE, SMOOTH, UNIFORM, Setting, constants, only_kept, settings
from salience.studies.study import Data, Study

PUBLISHED = {GRADIENT: "1.43 ± 1.52", SMOOTH: "1.42 ± 1.52", UNIFORM: "1.42 ± 1.52", BETA_SMOOTHING: "1.00 ± 0.88"}
CONTROL = "random"
FULL = 100
SQUARES = 60
SIDES, SMALL_SIDES = (29, 30), (15,)
VARIANTS = {"the paper's: sum of the map": False, "Yeh et al.'s: map times picture": True}


def measured(setting: Setting, given: Namespace) -> tuple[dict[str, dict[str, np.ndarray]], str]:
    """Infidelities (images, seeds) by variant and method, and who keeps its class."""
    methods = setting.methods(absolute=False, same_sd=False) | {CONTROL: CONTROL}
    sides = SMALL_SIDES if setting.data["dataset"] == "cifar10" else SIDES
    metrics = [str(sal.Infidelity(sides=sides, samples=None if given.full else SQUARES, multiply=multiply)) for multiply in VARIANTS.values()]
    study = Study(name="smoothed_infidelity", models=[setting.model], data=Data(**setting.data, targets="labels"), methods=list(methods.values()), metrics=metrics)
    store = rows(study, given.out / setting.folder, setting.given(given))
    found = {variant: {title: values(store, method, metric) for title, method in zip(methods, study.methods, strict=True)} for variant, metric in zip(VARIANTS, study.metrics, strict=True)}
    return found, only_kept(setting, found.values(), setting.images(given))


def claims(title: str, variant: str, found: dict[str, np.ndarray]) -> list[Claim]:
    """What the paper says of table 3: smoothing improves infidelity."""
    names = {SMOOTH: "1.42 against 1.43", UNIFORM: "1.42 against 1.43", BETA_SMOOTHING: "1.00 against 1.43", RELATIVE: "1.00 against 1.43 (of beta 0.8)"}
    return [difference(f"{method} has a lower infidelity than Gradient ({title}; {variant})", published, found[method], found[GRADIENT], "<") for method, published in names.items()]


def work(given: Namespace) -> None:
    """Run, tabulate, judge."""
    places = settings(given)
    report = Report(given, "Smoothed explanations, table 3: infidelity")
    report.text(constants(places) + " Maps are signed, their means too.")
    report.text(
        "Squares become the mean colour, which is zero in the network's own units; the logit of the label; maps at their best scale. The paper's code adds up the map on a square; Yeh et al., whose measure it is, "
        "multiply the map by the picture first, which a gradient needs. Infidelity is in squared logits, so numbers of different networks do not compare; a random map shows what a map without any truth gets."
    )
    every: list[Claim] = []
    for each in places:
        found, kept = measured(each, given)
        report.text(kept)
        cells = [[method, PUBLISHED.get(method, ""), *(mean_cell(values[method]) for values in found.values())] for method in next(iter(found.values()))]
        report.table(f"{each.title}: infidelity, mean and 95 % interval over {len(next(iter(found.values()))[GRADIENT])} pictures", ["method", "paper: VGG-16, 100 pictures", *VARIANTS], cells)
        apart = [f"{variant}: {difference('', '', values[GRADIENT], values[CONTROL], '<').ours}" for variant, values in found.items()]
        report.text(
            f"Does Gradient do better than a random map, that is, is its infidelity less? {'; '.join(apart)}. Where it is not, this measure does not tell maps that know the network from maps that do not."
        )
        every += [claim for variant, values in found.items() for claim in claims(each.title, variant, values)]
    report.text(
        "The stored cells of the authors' notebook give 2.18, 2.12, 2.12 and 2.15 for the same four methods; others leave out pictures by beta-smoothing's own score, so the paper's table is no target."
    )
    report.claims(every)
    report.done()


def options() -> argparse.ArgumentParser:
    """The options."""
    return parser("smoothed_infidelity", __doc__, 12, "photographs (5 times as many from CIFAR-10)", FULL)


if __name__ == "__main__":
    sys.exit(main(options(), work))
