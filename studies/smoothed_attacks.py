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
from _attack_results import CLOSE, VISIBLE, Found, as_near, compared, further_claims, less_visible, method_text, nearer, resists, share, stronger, where_kept, written
from _attacks import CIFAR, COMBINED, DELTA, EQUAL, IMAGENET, Place, Subject, chosen, class_kept, size_of
from _attacks import options as attack_options
from _common import DATA, Claim, Report, load, main, mean_cell, network, parser, photographs
from _smoothed import BETA, BETA_SMOOTHING, GRADIENT, RELATIVE, SMOOTH, UNIFORM, Setting, constants, settings

FULL = 200
TIMES = 12
TOGETHER = 12
"""Pictures of CIFAR-10 that are attacked together; photographs are attacked one by one."""

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


def place_of(setting: Setting, given: Namespace) -> Place:
    """A network under attack, and its pictures."""
    if setting.data["dataset"] == "cifar10":
        return Place(setting.title, subjects(setting), chosen(setting.data, [setting.model], given.limit * TIMES), CIFAR, size_of(given, TOGETHER), given.cache)
    return Place(setting.title, subjects(setting), chosen(setting.data, [setting.model], given.limit), IMAGENET, size_of(given, 1), given.cache)


def survival(place: Place) -> str:
    """Which networks survive beta-smoothing."""
    parts = []
    for subject in place.subjects:
        if subject.title in (BETA_SMOOTHING, RELATIVE):
            kept = class_kept(subject.model, subject.method, place.pictures)
            parts.append(f"{subject.title} (`{subject.method}`) {kept.mean():.0%}")
    published = class_kept(place.subjects[0].model, f"beta_smoothing:beta={BETA}", place.pictures)
    return f"{place.title}: the class is kept by {' and by '.join(parts)} of {len(place.pictures)} pictures, by beta {BETA} {published.mean():.0%}. Pictures whose class is lost do not count: a collapsed network's map is hard to move, and explains nothing."


def default_model(given: Namespace) -> str:
    """What beta-smoothing leaves of the default model: the reason why it is not attacked here."""
    model = network()
    images = sal.load_images([item.picture for item in load(photographs(DATA / "imagenet_photos", given), limit=FEW)], model)
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
    cells = [[name, *(mean_cell(where_kept(each, what)) for what in ("before", "after", "fall")), share(each["kept"])] for name, each in rows.items()]
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
    gradient, *smoothed = found.place.subjects
    numbers, made = "figure 4, no numbers", []
    for subject in smoothed:
        made += [*resists(found, subject, gradient, numbers), *nearer(found, subject, numbers)]
        for kind in COMBINED if subject.title in (BETA_SMOOTHING, RELATIVE) else ():
            statement = f"{kind} brings {subject.title} as near to the target as Gradient, within {CLOSE:g} ({found.place.title})"
            made += [less_visible(found, subject, kind, numbers), as_near(statement, 'figure 4, "very close", no numbers', found.cell(subject, kind), found.cell(gradient, kind))]
    return made


def work(given: Namespace) -> None:
    """Attack, tabulate, draw, judge."""
    report = Report(given, "Smoothed explanations, figure 4: attacks on smoothed explanations")
    wanted = [each for each in settings(given)[::-1] if given.only in (None, "cifar10" if each.data["dataset"] == "cifar10" else "photographs")]  # the quick one first
    report.text(
        f"{constants(wanted)} Absolute values are taken before averaging over noise, as in the paper's attacks. Its budgets are not equal: Delta alone has {ALONE} against smoothed explanations, "
        f"{JOINED} with other threats and against Gradient; attacks with {EQUAL} throughout are shown beside. The paper prints no numbers for figure 4, and the cells of the authors' notebook that may have drawn it multiply some "
        "means by constants without a word, so there is nothing to compare to but what the text says."
    )
    report.text(
        "Read falls, not only distances: an average over noise is nearly even, so two pictures' maps are near each other before any attack, and a small distance afterwards is no success. " + VISIBLE
    )
    every: list[Claim] = []
    for place in (place_of(each, given) for each in wanted):
        report.text(method_text(place))
        report.text(survival(place))
        found = written(report, place, place.title.split(",")[0].lower(), "figure 4", keep=place.constants == IMAGENET)
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
    made = attack_options(parser("smoothed_attacks", __doc__, 2, f"photographs ({TIMES} times as many from CIFAR-10)", FULL))
    made.add_argument("--only", choices=("cifar10", "photographs"), help="one of the two data sets")
    return made


if __name__ == "__main__":
    sys.exit(main(options(), work))
