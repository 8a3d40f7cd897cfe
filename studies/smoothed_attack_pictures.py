"""Smoothed explanations (2022), figure 5: a picture and its maps under every attack, for every explanation.

Rows are explanations; under each attack the changed picture and its map, as the paper arranges them, with the map before and the map aimed
at. The paper: VGG-16, one picture of ImageNet. Here: SqueezeNet and one photograph of those that it sees rightly (as many as --limit says).
With --full: torchvision's VGG-16. The first picture's attacks that `smoothed_attacks.py` has made with the same options are not made again.
"""

import argparse
import dataclasses
import sys
from argparse import Namespace

from matplotlib.figure import Figure
from torch import from_numpy

from _attacks import COLOURS, DELTA, EQUAL, IMAGENET, Figures, Pictures, Place, chosen, class_kept, size_of
from _attacks import options as attack_options
from _common import Report, main, network, parser
from _panels import Panel, map_panel, photograph, sheet
from _smoothed import settings
from salience.attacks._judge import HELD_OUT
from smoothed_attacks import subjects


def drawn(place: Place, found: dict[tuple[str, str], Figures]) -> Figure:
    """The sheet of a place's only picture."""
    image, model, rows = place.pictures.images[0], network(place.subjects[0].model), []
    for subject in place.subjects:
        first = found[subject.title, DELTA]
        panels: list[Panel | None] = [
            photograph(image, model.label(int(place.pictures.labels[0]))) if subject is place.subjects[0] else None,
            map_panel(from_numpy(first["before map"][0])),
            map_panel(from_numpy(first["aim map"][0]), f"{first['before'][0]:.3f} from the map before"),
        ]
        for kind in COLOURS:
            each = found[subject.title, kind]
            kept = "class kept" if each["kept"][0] else "class lost"
            panels += [
                photograph(from_numpy(each["perturbed"][0]), f"Delta {subject.budget(kind):g}, SSIM {1 - each['changed'][0]:.3f}; {kept}"),
                map_panel(from_numpy(each["after map"][0]), f"{each['after'][0]:.3f} from the target (by chance {each['random'][0]:.3f})"),
            ]
        lost = "" if class_kept(subject.model, subject.method, place.pictures)[0] else " (its network loses the class)"
        rows.append((f"{subject.title}{lost}", panels))
    columns = ["the picture", "its map", "the map aimed at", *(text for kind in COLOURS for text in (kind, "its map"))]
    return sheet(
        columns, rows, f"{place.title}: |map| summed over channels, maps with noise averaged over {HELD_OUT} draws that the attacks did not see; numbers are cosine distances. The authors' budgets."
    )


def work(given: Namespace) -> None:
    """Attack and draw."""
    setting = next(each for each in settings(given) if each.data["dataset"] != "cifar10")
    report = Report(given, "Smoothed explanations, figure 5: pictures of attacks")
    place = Place(setting.title, subjects(setting), chosen(setting.data, [setting.model], given.limit), IMAGENET, size_of(given, 1), given.cache)
    steps = "the authors' numbers of steps" if place.size.steps is None else f"{place.size.steps} steps"
    report.text(
        f"{place.title}, {len(place.pictures)} {'picture' if len(place.pictures) == 1 else 'pictures'}; {steps}, softplus of beta {place.beta:g} while attacking; each map is pushed towards that of the next picture. The authors' budgets: Delta alone 0.05 on smoothed explanations, else {EQUAL:g}. The figure in the paper has no numbers."
    )
    every = place.pictures
    for number in range(len(every)):
        two = slice(number, number + 2)
        one = dataclasses.replace(place, pictures=Pictures(every.names[two], every.images[two], every.labels[two]))
        found = {(subject.title, kind): one.figures(subject, one.attack(subject, kind, subject.budget(kind)), keep=True) for subject in one.subjects for kind in COLOURS}
        report.picture(f"attacks-{number + 1}", drawn(one, found), f"{every.names[number]}: maps under attack (the paper's figure 5)")
    report.done()


def options() -> argparse.ArgumentParser:
    """The options."""
    return attack_options(parser("smoothed_attack_pictures", __doc__, 1, full=1))


if __name__ == "__main__":
    sys.exit(main(options(), work))
