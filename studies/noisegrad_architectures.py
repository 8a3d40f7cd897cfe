"""NoiseGrad (2022), tables 2, 4, 5 and 6: localisation (AUC) of gradients by four methods on CMNIST networks of different architectures, and how well these are trained.

The paper: eight architectures, 200 pictures. Here: the networks that come with the package, fewer pictures and draws. The others are trained on request, and
named as trained:DIR with --models; the results say the commands. SG's noise is 0.05 of the range in table 2 and 0.2 in tables 4 and 5. With --full: 200 pictures and the paper's draws.
"""

import argparse
import sys
from functools import lru_cache

import numpy as np
import torch

import salience as sal
from _common import Claim, Report, beyond, difference, main, mean_cell, number, parser, plain, rows, values
from _noisegrad import ALPHA, BASELINE, FG, MARKS, NG, PAPER, SEEDS, SG, SHARED, SMALL, Levels, add_options, architecture, cells, command, data, described, levels, methods, network
from salience.studies.study import Data, Study
from salience.training.pictures import Pictures
from salience.zoo.tensors import read_pictures

TABLE_2, TABLE_4 = "table 2", "tables 4 and 5"
ALPHAS = {TABLE_2: 0.05, TABLE_4: ALPHA}
"""SG's noise in shares of the range of the normalised picture, as the appendix says."""

METHODS = (BASELINE, SG, NG, FG)
CONTROLS = ("random", "centre")
METRIC = "localisation_auc"
PICTURES = 200
NAMES = {"lenet": "LeNet", "vgg11": "VGG11", "vgg16": "VGG16", "resnet9": "ResNet9", "resnet18": "ResNet18", "resnet34": "ResNet34", "resnet50": "ResNet50", "resnet101": "ResNet101"}

PUBLISHED = {
    TABLE_2: {
        "lenet": ("0.923 ± 0.033", "0.950 ± 0.029", "0.950 ± 0.028", "**0.955 ± 0.023**"),
        "vgg11": ("0.962 ± 0.015", "0.980 ± 0.011", "0.982 ± 0.010", "**0.985 ± 0.006**"),
        "resnet9": ("0.930 ± 0.024", "0.969 ± 0.017", "**0.977 ± 0.012**", "0.974 ± 0.012"),
        "resnet18": ("0.911 ± 0.037", "0.951 ± 0.030", "**0.966 ± 0.022**", "0.961 ± 0.026"),
        "resnet50": ("0.909 ± 0.034", "0.941 ± 0.032", "**0.967 ± 0.021**", "0.954 ± 0.029"),
    },
    TABLE_4: {
        "lenet": ("0.922 ± 0.033", "0.940 ± 0.048", "0.949 ± 0.029", "**0.961 ± 0.025**"),
        "vgg11": ("0.961 ± 0.017", "0.971 ± 0.025", "0.982 ± 0.011", "**0.984 ± 0.011**"),
        "resnet9": ("0.926 ± 0.026", "0.975 ± 0.015", "0.978 ± 0.012", "**0.982 ± 0.011**"),
        "resnet18": ("0.913 ± 0.04", "0.962 ± 0.026", "0.963 ± 0.023", "**0.975 ± 0.016**"),
        "resnet50": ("0.912 ± 0.035", "0.967 ± 0.022", "**0.973 ± 0.017**", "0.969 ± 0.019"),
        "vgg16": ("0.967 ± 0.015", "0.963 ± 0.034", "**0.985 ± 0.011**", "0.982 ± 0.013"),
        "resnet34": ("0.925 ± 0.028", "0.968 ± 0.023", "0.979 ± 0.012", "0.981 ± 0.011"),
        "resnet101": ("0.934 ± 0.027", "0.973 ± 0.018", "0.978 ± 0.011", "0.980 ± 0.012"),
    },
}
"""Baseline, SG, NG, FG, by architecture; bold where the paper has it so (our copy of table 5 does not show all of it)."""

ACCURACIES = {
    "lenet": (0.7841, 0.8653),
    "vgg11": (0.9237, 0.9634),
    "vgg16": (0.9508, 0.9797),
    "resnet9": (0.9723, 0.9850),
    "resnet18": (0.9747, 0.9864),
    "resnet34": (0.9734, 0.9868),
    "resnet50": (0.9754, 0.9898),
    "resnet101": (0.9760, 0.9885),
}
"""Table 6: of training and of test pictures."""

LEAST = 0.86
"""What the paper says that all its networks reach."""

SAID = ((NG, BASELINE), (NG, SG), (FG, BASELINE), (FG, SG))
Found = dict[str, dict[str, np.ndarray]]
"""Areas (images, seeds) by table and method."""


def title(name: str) -> str:
    """A network's name as the paper writes it, where it is one of the paper's."""
    return NAMES.get(architecture(name), name)


def measured(given: argparse.Namespace, name: str, at: Levels) -> Found:
    """Run one network: Baseline and NG are the same in both tables."""
    draws = PAPER if given.full else SMALL
    chosen = {table: methods("gradient", round(at.sg * alpha / ALPHA, 4), at.ng, draws) for table, alpha in ALPHAS.items()}
    every = list(dict.fromkeys(each for found in chosen.values() for each in found.values()))
    study = Study(name="NoiseGrad, tables 2, 4 and 5", models=[name], data=Data(**data(given)), methods=every + list(CONTROLS), metrics=[METRIC], seeds=SEEDS)
    store = rows(study, given.out / plain(name), given)
    controls = {name: name for name in CONTROLS}
    return {table: {method: values(store, each, METRIC) for method, each in (found | controls).items()} for table, found in chosen.items()}


def claims(name: str, found: Found) -> list[Claim]:
    """What the paper says of all its networks: NG and FG are better than Baseline and SG."""
    made = []
    for table, columns in found.items():
        published = PUBLISHED[table].get(architecture(name))
        for first, second in SAID:
            if table == TABLE_2 and (first, second) == (NG, BASELINE):
                continue  # the same maps as in table 4
            numbers = "not in the paper" if published is None else " against ".join(published[METHODS.index(each)].strip("*") for each in (first, second))
            statement = f"{title(name)}, {table}: {first} has a higher AUC than {second}"
            made.append(difference(statement, numbers, columns[first], columns[second], ">", shared_seeds=first in SHARED))
    return made


@lru_cache(maxsize=2)
def pictures(root: str, split: str, count: int | None) -> Pictures:
    """The first pictures of a split in a random order."""
    return read_pictures(sal.load_dataset("cmnist", root=root, split=split, shuffle=2, limit=count))


def right(given: argparse.Namespace, name: str, split: str) -> np.ndarray:
    """For each picture whether the network is right, (images,) of 0 and 1."""
    model, found = network(name), pictures(str(given.data), split, None if given.full else 2000)
    outputs = [model.outputs(found.images[start : start + 500].float() / 255) for start in range(0, len(found), 500)]
    return (torch.cat(outputs).argmax(1) == found.labels).double().numpy()


def training(report: Report, given: argparse.Namespace) -> list[Claim]:
    """Table 6, and what the paper says of all its networks."""
    lines, made = [], []
    for name in given.models:
        hits = {split: right(given, name, split) for split in ("train", "test")}
        published = ACCURACIES.get(architecture(name))
        cells = [text for place, found in enumerate(hits.values()) for text in ("-" if published is None else number(published[place]), mean_cell(found))]
        lines.append([f"{title(name)}: {described(name)}", *cells])
        statement = f"{title(name)} is at least {LEAST:.0%} right on test pictures"
        made.append(beyond(statement, "-" if published is None else number(published[1]), lambda mean: mean, ">", LEAST, hits["test"]))
    counts = " and ".join(f"{len(pictures(str(given.data), split, None if given.full else 2000))} {split}" for split in ("train", "test"))
    report.table(f"Table 6: accuracy, {counts} pictures here", ["", "paper: train", "here", "paper: test", "here"], lines)
    report.text("The paper's training accuracy is below its test accuracy: it seems to be of augmented pictures. Ours is of training pictures as they are.")
    return made


def work(given: argparse.Namespace) -> None:
    """Run every network, tabulate, judge."""
    for name in given.models:
        network(name)
    report = Report(given, "NoiseGrad, tables 2, 4, 5 and 6: architectures")
    missing = [each for each in NAMES if each not in map(architecture, given.models)]
    report.text(
        f"Here: {'; '.join(map(described, given.models))}. Draws: {PAPER if given.full else SMALL}. The class explained is the digit's; maps are absolute values summed over channels, before averaging."
    )
    if missing:
        commands = "\n".join(f"    {command(each)}" for each in missing)
        report.text(
            f"Not here: {', '.join(NAMES[each] for each in missing)}. The larger ones take many hours on a CPU; a smaller width, as in `resnet18:width=16`, is faster and another network. To add them, train and name them as trained:DIR with --models:"
        )
        report.text(commands)
    made = training(report, given)
    found = {}
    for name in given.models:
        at = levels(network(name), given)
        report.text(f"{title(name)}. {at.sentence()}")
        found[name] = measured(given, name, at)
    for table, alpha in ALPHAS.items():
        lines = []
        judged = {name: cells({method: columns[table][method] for method in METHODS}, higher=True) for name, columns in found.items()}
        for place, method in enumerate((*METHODS, *CONTROLS)):
            line = [method if method in METHODS else f"{method} (control)"]
            for name, columns in found.items():
                published = PUBLISHED[table].get(architecture(name))
                line += [published[place] if published and method in METHODS else "", judged[name].get(method) or mean_cell(columns[table][method])]
            lines.append(line)
        count = len(next(iter(found.values()))[table][BASELINE])
        report.table(
            f"{table.capitalize()}: AUC, SG with noise {alpha} of the range; the paper's {PICTURES} pictures, {count} here with {len(SEEDS)} seeds",
            ["", *(head for name in found for head in (f"paper: {title(name)}", f"here: {title(name)}"))],
            lines,
        )
    report.text(MARKS)
    report.text("The digit is always in the middle: 'centre', which looks at nothing, shows what the area is worth as a measure here.")
    for name, columns in found.items():
        made += claims(name, columns)
    report.claims(made)
    report.done()


def options() -> argparse.ArgumentParser:
    """The script's options."""
    return add_options(parser("noisegrad_architectures", __doc__, 32, full=PICTURES), several=True)


if __name__ == "__main__":
    sys.exit(main(options(), work))
