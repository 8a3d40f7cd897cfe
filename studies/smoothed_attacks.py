"""Smoothed explanations (2022), figure 4: attacks on Gradient, Smooth Gradient, Uniform Gradient and beta-smoothing, by additive changes alone and with flow and recolouring.

The paper: VGG-16, 200 pictures of ImageNet, unequal budgets. Here: ResNet-20 on CIFAR-10 (12 times as many pictures as --limit) and SqueezeNet
on photographs (few: at 227 pixels the explanations with noise take minutes a picture), with the paper's budgets, with equal ones, and at equal
visible change; random changes of the same budget beside; draws fixed and fresh; and a stronger attack on what seems robust.
With --full: torchvision's VGG-16, 200 pictures of ImageNet, the authors' steps.
"""

import argparse
import dataclasses
import sys
from argparse import Namespace

import numpy as np

import salience as sal
from _attacks import (
    ALL,
    CIFAR,
    CLOSE,
    COMBINED,
    DELTA,
    EQUAL,
    FLOW,
    IMAGENET,
    VISIBLE,
    Found,
    Place,
    Subject,
    all_attacks,
    as_near,
    bars,
    chosen,
    class_kept,
    compared,
    further_claims,
    further_table,
    measures,
    method_text,
    reach,
    size_of,
    stronger,
    table,
    where_kept,
)
from _attacks import options as attack_options
from _common import DATA, Claim, Report, main, mean_cell, parser, photographs
from _smoothed import BETA, BETA_SMOOTHING, GRADIENT, RELATIVE, SMOOTH, UNIFORM, Setting, constants, settings

FULL = 200
TIMES = 12
TOGETHER = {"cifar10": 12}
FEW = 12
"""Photographs on which the default model is tried."""

ALONE, JOINED = 0.05, 0.03
"""Delta's budget in the authors' attacks on smoothed explanations: alone, and with other threats."""


def subjects(setting: Setting) -> list[Subject]:
    """The explanations of a network, with the authors' constants for VGG-16."""
    constant = {
        GRADIENT: ((JOINED,) * 3, (1e-3, 4e-4, 4e-4), 1500),
        SMOOTH: ((ALONE, JOINED, JOINED), (1e-3, 4e-4, 4e-4), 1500),
        UNIFORM: ((ALONE, JOINED, JOINED), (1e-3, 4e-4, 4e-4), 1500),
        BETA_SMOOTHING: ((ALONE, JOINED, JOINED), (2.5e-4, 2e-4, 2e-4), 500),
    }
    constant[RELATIVE] = constant[BETA_SMOOTHING]
    methods = setting.methods(absolute=True, same_sd=False)
    return [Subject(title, setting.model, methods[title], *each) for title, each in constant.items()]


def places(given: Namespace) -> list[Place]:
    """Networks and pictures."""
    made = []
    for setting in sorted(settings(given), key=lambda setting: setting.times, reverse=True):
        small = setting.data["dataset"] == "cifar10"
        if given.only in (None, "cifar10" if small else "photographs"):
            count = given.limit * TIMES if small else given.limit
            size = size_of(given, TOGETHER.get(setting.data["dataset"], 1))
            made.append(Place(setting.title, subjects(setting), chosen(setting.data, [setting.model], count), CIFAR if small else IMAGENET, size, given.cache))
    return made


def survival(found: Found) -> str:
    """Which networks survive beta-smoothing."""
    parts = []
    for subject in found.place.subjects:
        if subject.title in (BETA_SMOOTHING, RELATIVE):
            kept = class_kept(subject.model, subject.method, found.place.pictures)
            parts.append(f"{subject.title} (`{subject.method}`) {kept.mean():.0%}")
    published = class_kept(found.place.subjects[0].model, f"beta_smoothing:beta={BETA}", found.place.pictures)
    return f"{found.place.title}: the class is kept by {' and by '.join(parts)} of {len(found.place.pictures)} pictures, by beta {BETA} {published.mean():.0%}. Pictures whose class is lost do not count: a collapsed network's map is hard to move, and explains nothing."


def default_model(given: Namespace) -> str:
    """What beta-smoothing leaves of the default model: the reason why it is not attacked here."""
    model, data = sal.load_model(), photographs(DATA / "imagenet_photos", given)
    items = sal.load_dataset(data.pop("dataset"), **data)
    images = sal.load_images([items[place].picture for place in range(min(len(items), FEW))], model)
    kept = [f"beta {beta:g} {np.mean(sal.explain(f'beta_smoothing:beta={beta}', model, images).record['images']['class_kept']):.0%}" for beta in (BETA, 3.0, 10.0)]
    return (
        f"The default model, {model.name}, keeps the class of {len(images)} photographs under beta-smoothing as follows: {', '.join(kept)}. Where a network collapses, maps that do not move are not robust, so the paper's "
        "beta cannot be judged on it, and the networks above are taken instead."
    )


def fixed_draws(found: Found, report: Report) -> list[Claim]:
    """An attack that sees the same draws in every step, on these draws and on others."""
    subject = next(each for each in found.place.subjects if each.title == SMOOTH)
    fresh = found.tables[SMOOTH, DELTA, EQUAL]
    fixed = found.place.figures(subject, dataclasses.replace(found.place.attack(subject, DELTA, EQUAL), fixed=True))
    own = fixed | {"before": fixed["own before"], "after": fixed["own after"], "fall": 1 - fixed["own after"] / fixed["own before"]}
    rows = {"draws fixed, judged on the draws it saw": own, "draws fixed, judged on others": fixed, "fresh draws in each step, judged on others": fresh}
    cells = [[name, *(mean_cell(where_kept(each, what)[:, None]) for what in ("before", "after", "fall")), f"{np.nanmean(each['kept']):.0%}"] for name, each in rows.items()]
    draws = found.place.size.draws
    report.table(
        f"{found.place.title}: Smooth Gradient, Delta of {EQUAL:g}, {draws} draws a step; pictures whose class is kept", ["", "distance to target before", "after", "fall", "class kept"], cells
    )
    return [
        compared(
            f"An attack on Smooth Gradient with fixed draws looks better on the draws it saw than on others: its distance falls by a larger share ({found.place.title})",
            "not in the paper",
            "fall",
            own,
            fixed,
            ">",
        ),
        compared(f"Fresh draws in each step attack Smooth Gradient better than fixed ones, on draws that neither saw ({found.place.title})", "not in the paper", "after", fresh, fixed, "<"),
    ]


def claims(found: Found) -> list[Claim]:
    """What the paper says of figure 4; it prints no numbers."""
    title, made = found.place.title, []
    gradient, *smoothed = found.place.subjects
    numbers = "figure 4, no numbers"
    for subject in smoothed:
        alone = found.cell(subject, DELTA)
        made += [
            compared(f"{subject.title} resists Delta better than Gradient: a larger distance to the target, the authors' budgets ({title})", numbers, "after", alone, found.cell(gradient, DELTA), ">"),
            compared(
                f"The same by the share that the distance falls by, equal budgets: {subject.title} less than Gradient ({title})",
                "not in the paper",
                "fall",
                found.cell(subject, DELTA, EQUAL),
                found.cell(gradient, DELTA, EQUAL),
                "<",
            ),
        ]
        made += [
            compared(f"{kind} comes nearer to the target than Delta on {subject.title}, the authors' budgets ({title})", numbers, "after", found.cell(subject, kind), alone, "<") for kind in COMBINED
        ]
        if subject.title in (BETA_SMOOTHING, RELATIVE):
            measure, name = ("lpips as published", "LPIPS") if "lpips" in measures(found) else ("changed", "1 - SSIM (LPIPS in the paper)")
            made += [
                compared(f"{FLOW} changes pictures less visibly than Delta on {subject.title}, the authors' budgets, by {name} ({title})", numbers, measure, found.cell(subject, FLOW), alone, "<"),
                as_near(
                    f"{ALL} brings {subject.title} as near to the target as Gradient, within {CLOSE:g} ({title})",
                    'figure 4, "very close", no numbers',
                    found.cell(subject, ALL),
                    found.cell(gradient, ALL),
                ),
            ]
    return made


def work(given: Namespace) -> None:
    """Attack, tabulate, draw, judge."""
    given.limit = given.limit or FULL
    report = Report(given, "Smoothed explanations, figure 4: attacks on smoothed explanations")
    report.text(
        f"{constants([each for each in settings(given) if given.only in (None, 'cifar10' if each.data['dataset'] == 'cifar10' else 'photographs')])} Absolute values are taken before averaging over noise, as in the paper's attacks. Its budgets are not equal: Delta alone has {ALONE} against smoothed explanations, "
        f"{JOINED} with other threats and against Gradient; attacks with {EQUAL} throughout are shown beside. The paper prints no numbers for figure 4, and the cells of the authors' notebook that may have drawn it multiply some "
        "means by constants without a word, so there is nothing to compare to but what the text says."
    )
    report.text(
        "Read falls, not only distances: an average over noise is nearly even, so two pictures' maps are near each other before any attack, and a small distance afterwards is no success. " + VISIBLE
    )
    every: list[Claim] = []
    for place in places(given):
        report.text(method_text(place))
        found = all_attacks(place, keep=place.constants == IMAGENET)
        report.text(survival(found))
        table(report, found)
        further_table(report, found)
        name = place.title.split(",")[0].lower()
        report.picture(f"bars-{name}", bars(found), f"{place.title}: distances and visible change (the paper's figure 4)")
        report.picture(f"reach-{name}", reach(found), f"{place.title}: what attacks reach against how much they change the picture")
        every += claims(found) + further_claims(found) + fixed_draws(found, report) + stronger(found, report)
    if not given.full:
        report.text(default_model(given))
    report.text(
        "Beta-smoothing may be easier to attack than Gradient because the attack goes through the very softplus that makes its maps, while a ReLU network's maps are attacked through a softplus that it does not have: what "
        "cannot be reached that way is hidden from the attack rather than robust. The attack's beta is the paper's in each network's own units (100 for pictures of unit variance)."
    )
    report.text(f"'{RELATIVE}' is ours: beta in units of each layer's own spread, without which 0.8 smooths one network to nothing and leaves another as it was.")
    report.claims(every)
    report.done()


def options() -> argparse.ArgumentParser:
    """The options."""
    made = attack_options(parser("smoothed_attacks", __doc__, 2, f"photographs ({TIMES} times as many from CIFAR-10)"))
    made.add_argument("--only", choices=("cifar10", "photographs"), help="one of the two data sets")
    return made


if __name__ == "__main__":
    sys.exit(main(options(), work))
