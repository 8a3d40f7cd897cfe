"""Smoothed explanations (2022), figures 1 and 2: what is left of a map when the network's parameters become random, layer by layer from the scores down.

The paper: VGG-16, one layer after the other, 1000 pictures of ImageNet. Here: SqueezeNet (like VGG-16 of convolutions and ReLUs alone)
on photographs and ResNet-20 on CIFAR-10, six steps of about as many layers each, and six random networks instead of one. With --full:
torchvision's VGG-16, every layer, 1000 pictures of ImageNet.
"""

import argparse
import sys
from argparse import Namespace
from contextlib import ExitStack

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

import salience as sal
from _common import Claim, Report, difference, images_of, main, mean_cell, network, parser, rows, table, values
from _panels import Panel, map_panel, photograph, sheet
from _smoothed import BETA_SMOOTHING, GRADIENT, RELATIVE, SMOOTH, UNIFORM, Setting, constants, only_kept, settings
from salience.core.draws import streams
from salience.perturb.randomise import Part, parts_of, randomised
from salience.show.overlay import drawing
from salience.studies.store import Store
from salience.studies.study import Data, Study

FULL = 1000
STEPS = 6
SEEDS = [0, 1, 2, 3, 4, 5]
"""Random networks: all pictures of a seed are judged on the same one."""

CONTROL = "edges"
COLOURS = {GRADIENT: "#1b1f24", SMOOTH: "#d1432b", UNIFORM: "#e8a33d", BETA_SMOOTHING: "#2f6fb5", RELATIVE: "#57a8a0"}
NOTEBOOK = "The authors' notebook has for Gradient on a ResNet-18 for CIFAR-10, from the linear layer down: 0.42, 0.37, 0.29, 0.26, 0.21, 0.19, 0.17, 0.15, 0.12, 0.10, 0.11."
CERTAINTY = (
    f"Each picture is judged on the same {len(SEEDS)} random networks. Means are over pictures and networks; intervals count both, the draw of the networks too. p is of Wilcoxon's test over pictures, of each picture's mean over the "
    "networks, or of pictures and networks as two samples where that is larger; where the interval of a difference holds 0, p is set to 1."
)
"""For the results, also of `smoothed_training`."""


def steps_of(model: sal.Classifier, full: bool) -> list[list[Part]]:
    """The modules that become random in each step, from the scores down, as the metric takes them."""
    parts = parts_of(model)[::-1]
    split = torch.arange(len(parts)).tensor_split(len(parts) if full else min(STEPS, len(parts)))
    return [[parts[place] for place in step.tolist()] for step in split]


def curves(store: Store, model: str, method: str, curve: str) -> np.ndarray:
    """A curve of each picture and random network, (images, seeds, points), the pictures in the study's order; NaN where there is none."""
    images, seeds = images_of(store), store.described()["study"]["seeds"]
    found: dict[tuple, list[float]] = {}
    for row in table(store, "curves"):  # they come in the order of x
        if (row["model"], row["method"], row["curve"]) == (model, method, curve):
            found.setdefault((row["image"], row["seed"]), []).append(row["y"])
    none = [np.nan] * max(map(len, found.values()))
    return np.array([[found.get((image, seed), none) for seed in seeds] for image in images])


def measured(setting: Setting, given: Namespace) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], dict[str, np.ndarray], str]:
    """By method: mean similarity (images, seeds), the curves (images, seeds, points), the noise floors (likewise); and who keeps its class."""
    methods = setting.methods(absolute=True, same_sd=False) | {CONTROL: CONTROL}
    metric = str(sal.ParameterRandomisation(steps=None if given.full else STEPS))
    study = Study(name="smoothed_cascade", models=[setting.model], data=Data(**setting.data, targets="labels"), methods=list(methods.values()), metrics=[metric], seeds=SEEDS)
    store = rows(study, given.out / setting.folder, setting.given(given))
    named = list(zip(methods, study.methods, strict=True))
    found = {title: values(store, method, metric) for title, method in named}
    similar, floors = ({title: curves(store, setting.model, method, curve) for title, method in named} for curve in ("similarity", "noise floor"))
    return found, similar, floors, only_kept(setting, [found, similar], setting.images(given))


def drawn_curves(found: dict[str, dict[str, np.ndarray]], colours: dict[str, str], names: dict[str, list[str]], label: str) -> Figure:
    """The similarity after each step, its mean over networks, then mean and sd over pictures: figure 2, and figure 6.

    Args:
        found: Curves (images, networks, points) by panel and line.
        colours: Of each line that is drawn.
        names: Of the steps, by panel.
        label: Of the ordinate.
    """
    with drawing():
        figure = Figure(figsize=(6.2 * len(found), 4.6), dpi=100)
        for place, (panel, lines) in enumerate(found.items()):
            axes = figure.add_subplot(1, len(found), place + 1)
            for title, colour in colours.items():
                each = lines[title].mean(1)
                each = each[np.isfinite(each).all(1)]
                if len(each):
                    mean, spread, at = each.mean(0), each.std(0), np.arange(each.shape[1])
                    axes.plot(at, mean, color=colour, marker="o", markersize=3, label=f"{title} ({len(each)} pictures)")
                    axes.fill_between(at, mean - spread, mean + spread, color=colour, alpha=0.12, linewidth=0)
            axes.set_xticks(range(len(names[panel])), names[panel], rotation=60, ha="right", size=7)
            axes.set_ylim(-0.1, 1.05)
            axes.axhline(0, color="#c8ccd0", linewidth=0.8)
            axes.set_title(panel, size=10, weight="bold", loc="left")
            axes.set_ylabel(label, size=8)
            axes.legend(fontsize=7, frameon=False, loc="upper right")
        figure.tight_layout(rect=(0, 0.08, 1, 1))
        figure.text(
            0.01, 0.015, f"Lines: means over pictures and {len(SEEDS)} random networks; bands: one sd over pictures.\nThe lower, the more the map depends on what the network has learned.", size=8
        )
    return figure


def pictures(setting: Setting, given: Namespace, names: list[str]) -> Figure:
    """Figure 1: the maps of the study's first picture after each step."""
    model = network(setting.model)
    image: Tensor = next(setting.images(given, together=1))
    methods = setting.methods(absolute=True, same_sd=False)
    target = int(model.outputs(image.as_subclass(Tensor)).argmax())
    panels: dict[str, list[Panel]] = {title: [] for title in methods}
    first: dict[str, Tensor] = {}

    def explain() -> None:
        for title, method in methods.items():
            saliency = sal.explain(method, model, image, target).saliency("abs_sum")[0]
            alike = "" if title not in first else f"rank correlation {float(sal.similarity('spearman', first[title][None], saliency[None])):.2f}"
            first.setdefault(title, saliency)
            panels[title].append(map_panel(saliency, alike))

    explain()
    with ExitStack() as stack:
        for step in steps_of(model, given.full):
            stack.enter_context(randomised(step, streams(0, 1)[0]))
            explain()
    rows = [(title, [photograph(image[0], model.label(target)) if title == GRADIENT else None, *each]) for title, each in panels.items()]
    return sheet(
        ["the picture", names[0], *(f"to {name}" for name in names[1:])],
        rows,
        f"{setting.title}: |map| summed over channels, by the network whose layers are random from the scores down to the one named.",
    )


def claims(title: str, found: dict[str, np.ndarray], similar: dict[str, np.ndarray]) -> list[Claim]:
    """What the paper says of figure 2."""
    made = []
    for method in (SMOOTH, UNIFORM, BETA_SMOOTHING, RELATIVE):
        made += [
            difference(
                f"{method} is less sensitive to the parameters than Gradient: a higher mean correlation ({title})", "figure 2, no numbers", found[method], found[GRADIENT], ">", shared_seeds=True
            ),
            difference(
                f"{method} keeps a higher correlation than Gradient after the top layers alone ({title})",
                "figure 2, no numbers",
                similar[method][..., 1],
                similar[GRADIENT][..., 1],
                ">",
                shared_seeds=True,
            ),
        ]
    return made


def work(given: Namespace) -> None:
    """Run, draw, tabulate, judge."""
    if given.rectified and given.full:
        raise sal.InputError("--rectified is about SqueezeNet, which --full does not have: leave one of them out.")
    if given.rectified:
        given.out /= "rectified"
    places = settings(given, rectified=given.rectified)
    report = Report(given, "Smoothed explanations, figures 1 and 2: parameters made random from the scores down")
    report.text(constants(places))
    scores = (
        f"SqueezeNet is {'with' if given.rectified else 'without'} the ReLU after its scores: with it a class whose score is 0 everywhere has no gradient at all, as is often so when layers are random. "
        "To leave it out was decided after a first run with it, which --rectified makes again."
    )
    report.text(
        "Spearman's rank correlation of |map| with the original network's, channels summed (the paper ranks the values of all channels), the labelled class explained throughout. Weights and biases become "
        "Xavier's uniform numbers, shortcuts too; batch norms as at the start of training. All maps of a method have the same noise. The noise floor is the similarity of two maps of the trained network with different noise."
        + ("" if given.full else f" {scores}")
    )
    report.text(CERTAINTY)
    found, similar, names = {}, {}, {}
    for each in places:
        found[each.title], similar[each.title], floors, kept = measured(each, given)
        names[each.title] = ["trained", *(step[-1].name for step in steps_of(network(each.model), given.full))]
        report.text(kept)
        empty = {title: (curve[..., 1:] == 0).sum() / max(np.isfinite(curve[..., 1:]).sum(), 1) for title, curve in similar[each.title].items()}
        report.text(f"Constant maps, which count as 0: {', '.join(f'{title} {share:.1%}' for title, share in empty.items())} of the maps of random networks.")
        last = similar[each.title][GRADIENT].shape[2] - 1
        columns = ["method", f"top layers (to {names[each.title][1]})", f"half (to {names[each.title][last // 2]})", "all layers", "mean over steps", "noise floor"]
        cells = [
            [title, *(mean_cell(curve[..., point], shared_seeds=True) for point in (1, last // 2, last)), mean_cell(found[each.title][title], shared_seeds=True), mean_cell(floors[title][..., 0])]
            for title, curve in similar[each.title].items()
        ]
        report.table(f"{each.title}: rank correlation, mean and 95 % interval over {len(found[each.title][GRADIENT])} pictures and {len(SEEDS)} random networks", columns, cells)
    report.text(f"The paper prints no numbers for these curves. {NOTEBOOK} The control {CONTROL} ignores the network.")
    report.picture(
        "curves", drawn_curves(similar, COLOURS, names, "rank correlation of |map| with the original"), "Rank correlation with the original map while layers become random (the paper's figure 2)"
    )
    report.picture("pictures", pictures(places[0], given, names[places[0].title]), "Maps while layers become random (the paper's figure 1)")
    report.text(
        "Look at the pictures before the numbers: averages of absolute gradients of a random network are nearly even but for a border that fades, as fewer paths lead there, and such a border is part of what "
        "agrees with the trained network's map. A higher correlation of averaged maps is thus not all memory of what the network learned."
    )
    report.claims([claim for title in found for claim in claims(title, found[title], similar[title])])
    report.done()


def options() -> argparse.ArgumentParser:
    """The options."""
    made = parser("smoothed_cascade", __doc__, 10, "photographs (5 times as many from CIFAR-10)", FULL)
    made.add_argument("--rectified", action="store_true", help="SqueezeNet with the ReLU after its scores; results go to the folder rectified in that of --out")
    return made


if __name__ == "__main__":
    sys.exit(main(options(), work))
