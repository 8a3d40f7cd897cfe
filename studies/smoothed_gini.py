"""Smoothed explanations (2022), table 2: how sparse maps are, by the Gini index of their absolute values.

The paper: VGG-16, 1000 pictures of ImageNet. Here: SqueezeNet (like VGG-16 of convolutions and ReLUs alone) and the default model
on photographs, ResNet-20 on CIFAR-10. With --full: torchvision's VGG-16 on 1000 pictures of ImageNet.
"""

import argparse
import sys
from argparse import Namespace

import numpy as np

from _common import Claim, Report, difference, main, parser, rows, spread_cell, values
from _smoothed import BETA_SMOOTHING, EQUAL, GRADIENT, RELATIVE, SAMPLES, SMOOTH, UNIFORM, Setting, constants, only_kept, settings
from salience.studies.study import Data, Study

PUBLISHED = {GRADIENT: "0.56 ± 0.038", SMOOTH: "0.34 ± 0.053", UNIFORM: "0.35 ± 0.058", BETA_SMOOTHING: "0.65 ± 0.067"}
SIGNED = "Smooth Gradient, absolute value after the mean"
CONTROLS = ("random", "edges")
FULL = 1000


def measured(setting: Setting, given: Namespace) -> tuple[dict[str, np.ndarray], str]:
    """Gini indices (images, seeds) by the methods' names, and how far beta-smoothing is to be trusted."""
    methods = setting.methods(absolute=True) | {SIGNED: f"smoothgrad:samples={SAMPLES},noise_level={setting.noise_level}"} | {name: name for name in CONTROLS}
    study = Study(name="smoothed_gini", models=[setting.model], data=Data(**setting.data), methods=list(methods.values()), metrics=["gini"])
    store = rows(study, given.out / setting.folder, setting.given(given))
    found = {title: values(store, method, "gini") for title, method in zip(methods, study.methods, strict=True)}
    return found, only_kept(setting, [found], setting.images(given))


def claims(title: str, found: dict[str, np.ndarray]) -> list[Claim]:
    """What the paper says of table 2."""
    return [
        difference(f"Smooth Gradient is less sparse than Gradient ({title})", "0.34 against 0.56", found[SMOOTH], found[GRADIENT], "<"),
        difference(f"Uniform Gradient is less sparse than Gradient ({title})", "0.35 against 0.56", found[UNIFORM], found[GRADIENT], "<"),
        difference(f"Beta-smoothing is sparser than Gradient ({title})", "0.65 against 0.56", found[BETA_SMOOTHING], found[GRADIENT], ">"),
        difference(f"The same of {RELATIVE} ({title})", "0.65 against 0.56", found[RELATIVE], found[GRADIENT], ">"),
    ]


def work(given: Namespace) -> None:
    """Run, tabulate, judge."""
    places = settings(given, default_model=True)
    report = Report(given, "Smoothed explanations, table 2: sparseness")
    report.text(constants(places) + " Absolute values are taken before averaging over noise, as in the paper; all values of all channels count. The paper adds 1e-7 to every value, we do not.")
    found = {}
    for each in places:
        found[each.title], kept = measured(each, given)
        report.text(kept)
    titles = list(found[places[0].title])
    columns = ["method", "paper: VGG-16, ImageNet, 1000 pictures", *(f"{title}, {len(each[GRADIENT])} pictures" for title, each in found.items())]
    report.table(
        "Gini index, mean ± sd over pictures and 95 % interval of the mean", columns, [[title, PUBLISHED.get(title, ""), *(spread_cell(each[title]) for each in found.values())] for title in titles]
    )
    report.text(
        f"Beside the paper's: '{EQUAL}' has the half-width that gives uniform noise the sd of the Gaussian; '{SIGNED}' shows what the absolute value before the mean does; random and edges ignore the network."
    )
    report.claims([claim for title, each in found.items() for claim in claims(title, each)])
    report.done()


def options() -> argparse.ArgumentParser:
    """The options."""
    return parser("smoothed_gini", __doc__, 40, "photographs (5 times as many from CIFAR-10)", FULL)


if __name__ == "__main__":
    sys.exit(main(options(), work))
