"""Smoothed explanations (2022), figure 7: attacks on gradients of networks trained plainly, with CURE and adversarially.

The paper: ResNet-18, 1024 pictures of CIFAR-10, unequal budgets. Here: the three networks for CIFAR-10 that come with salience, if they are
there, and four ResNet-32 of the authors of ReColorAdv (trained plainly, and against additive, spatial and recolouring attacks), with the
paper's budgets, with equal ones, and at equal visible change; random changes of the same budget beside; and a stronger attack on what seems
robust. With --full: 1024 pictures, the authors' steps; --networks names networks of the paper's size.
"""

import argparse
import sys
from argparse import Namespace

from _attack_results import CLOSE, VISIBLE, Found, as_near, compared, further_claims, less_visible, method_text, nearer, resists, stronger, written
from _attacks import ALL, CIFAR, COMBINED, DELTA, EQUAL, Place, Subject, chosen, size_of
from _attacks import options as attack_options
from _common import Claim, Report, main, parser
from _trained import ADVERSARIAL, CURE, LOSSY, STANDARD, Networks, networks, pictures
from _trained import options as network_options

FULL = 1024
TOGETHER = 32
NUMBERS = "figure 7, no numbers"

HARD = ((0.05, EQUAL, EQUAL), (2e-4, 1.5e-4, 1e-4))
"""The authors' budgets of Delta and rates for adversarially trained networks."""

AUTHORS = {STANDARD: ((EQUAL,) * 3, (2e-4, 1.5e-4, 1.5e-4)), CURE: ((EQUAL, 0.015, 0.015), (2e-4, 1.5e-4, 1e-4))}
"""For the others."""


def place_of(each: Networks, given: Namespace) -> Place:
    """A set of networks and the pictures that all of them see rightly."""
    subjects = [Subject(title, name, "gradient", *AUTHORS.get(title, HARD)) for title, name in each.models.items()]
    return Place(each.title, subjects, chosen(pictures(), list(each.models.values()), given.limit), CIFAR, size_of(given, TOGETHER), given.cache)


def claims(found: Found) -> list[Claim]:
    """What the paper says of figure 7; it prints no numbers."""
    title, made = found.place.title, []
    standard, *others = found.place.subjects
    for subject in others:
        said = NUMBERS if subject.title in (CURE, ADVERSARIAL) else "not in the paper"
        made += resists(found, subject, standard, said)
        if subject.title == CURE:
            for kind in COMBINED:
                statement = f"On CURE {kind} comes as near to the target as Delta, within {CLOSE:g}, the authors' budgets ({title})"
                made += [as_near(statement, NUMBERS, found.cell(subject, kind), found.cell(subject, DELTA)), less_visible(found, subject, kind, NUMBERS)]
        else:
            statement = f"{subject.title}: even {ALL} does not come as near as on the network of standard training ({title})"
            made += [*nearer(found, subject, said), compared(statement, said, "after", found.cell(subject, ALL), found.cell(standard, ALL), ">")]
    return made


def work(given: Namespace) -> None:
    """Attack, tabulate, draw, judge."""
    sets, missing = networks(given)
    report = Report(given, "Smoothed explanations, figure 7: attacks on gradients of trained networks")
    report.text(
        f"Gradients of the labelled class. The authors' budgets of Delta: {EQUAL:g} on standard training; alone {EQUAL:g} and with other threats 0.015 on CURE; 0.05 and {EQUAL:g} on adversarial training (taken here for every network "
        f"trained against an attack). Attacks with {EQUAL:g} throughout are shown beside. The paper prints no numbers for figure 7, and the cells of the authors' notebook that may have drawn it multiply one mean by a constant "
        f"(LPIPS of Delta on adversarial training, 1.3) without a word, so there is nothing to compare to but what the text says. {LOSSY} {missing}".strip()
    )
    report.text(f"Distances before the attack differ from network to network, so read falls beside them. {VISIBLE}")
    every: list[Claim] = []
    for each in sets:
        place = place_of(each, given)
        report.text(f"{each.note} {method_text(place)}")
        found = written(report, place, each.folder, "figure 7")
        every += claims(found) + further_claims(found) + stronger(found, report)
    report.claims(every)
    report.done()


def options() -> argparse.ArgumentParser:
    """The options."""
    return network_options(attack_options(parser("smoothed_trained_attacks", __doc__, 32, full=FULL)))


if __name__ == "__main__":
    sys.exit(main(options(), work))
