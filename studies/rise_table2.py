"""RISE (003), table 2: the pointing game, whether a map's largest value lies on the object.

The paper's networks were trained on PASCAL VOC and COCO and are not to be had. Here an ImageNet network points at objects in COCO's
photographs, of the classes that ImageNet has too, and at the cells of mosaics. With --full and networks of your own for VOC or COCO it is the paper's table.
"""

import argparse
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import salience as sal
from _common import DATA, Claim, Report, difference, images_of, kept, main, paper_masks, parser, plain, positive, required, rise, rows, values
from _common import table as read
from _panels import OVERLAID, Panel, overlaid, photograph, pointed, sheet
from salience.core.robustness import one_channel
from salience.studies.statistics import pointing_accuracy
from salience.studies.store import Store
from salience.studies.study import Study

AM, DECONV, CAM, MWP, CMWP, RISE, OURS = "AM (gradient)", "Deconv", "CAM", "MWP", "c-MWP", "RISE", "RISE, our estimator"
PIXELS = {AM: "gradient", DECONV: "deconvnet"}
LAYERS = {CAM: "cam", MWP: "excitation_backprop", CMWP: "contrastive_excitation_backprop", "centre (control)": "centre", "edges (control)": "edges", "random (control)": "random"}
SEEDS = [0, 1, 2]
DRAWN = 3
"""Pictures whose maps are kept and drawn."""

CELL = 112
"""Side of a mosaic's cell, in pixels: four of them are what a network of 224 pixels sees."""

GAMES = {"15 pixels": "pointing_game", "on the object": "pointing_game:tolerance=0.0", "15 pixels, map blurred by 2 %": "pointing_game:smooth=0.02"}
"""The game of the paper; the strict one; that of later benchmarks, kinder to maps of pixels."""

PUBLISHED = {
    "VGG16, VOC": {AM: "76.00", DECONV: "75.50", MWP: "76.90", CMWP: "80.00", RISE: "87.33 ± 0.49"},
    "VGG16, COCO": {AM: "37.10", DECONV: "38.60", MWP: "39.50", CMWP: "49.60", RISE: "50.71 ± 0.10"},
    "ResNet50, VOC": {AM: "65.80", DECONV: "73.00", CAM: "90.60", MWP: "80.90", CMWP: "89.20", RISE: "88.94 ± 0.61"},
    "ResNet50, COCO": {AM: "30.40", DECONV: "38.2", CAM: "58.4", MWP: "46.8", CMWP: "57.4", RISE: "55.58 ± 0.51"},
}
"""Mean accuracy in percent over classes."""

SAID = ((RISE, AM), (RISE, DECONV), (RISE, MWP), (RISE, CMWP), (CAM, RISE), (CMWP, MWP))
"""Which is better than which: all of it for VGG16 as far as there are numbers; for ResNet50 c-MWP is above RISE."""


def with_largest(game: str) -> str:
    """The game for maps of three channels: each pixel's largest absolute value, as the gradient's authors have it."""
    return f"{game}{',' if ':' in game else ':'}reduction=abs_max"


@dataclass(frozen=True)
class Setting:
    """One data set and the network that points in it.

    Attributes:
        name: In headings.
        data: What `Study` takes.
        model: The network.
        masks: Of RISE.
        score: What RISE explains; None: the probability.
        game: Of the claims. Next to the centre of a mosaic 15 pixels touch every cell, so there it is the strict one.
    """

    name: str
    data: dict
    model: str
    masks: int
    score: str | None = None
    game: str = "15 pixels"


class Hits:
    """All rows of one setting.

    Attributes:
        setting: What was played.
        methods: Specifications by the names in the table.
    """

    def __init__(self, given: argparse.Namespace, setting: Setting) -> None:
        self.setting = setting
        risen = {name: rise(setting.masks, estimator) for name, estimator in ((RISE, "original"), (OURS, "crossfit"))}
        self.methods = PIXELS | LAYERS | risen
        common = {"data": setting.data | {"targets": "all_labels"}, "fit": "squash", "keep_maps": DRAWN}
        pixels = {"name": "Table 2, pixels", "models": setting.model, "methods": list(PIXELS.values()), "metrics": [with_largest(each) for each in GAMES.values()]}
        layers = {"name": "Table 2, layers", "models": setting.model, "methods": list(LAYERS.values()), "metrics": list(GAMES.values())}
        masked = {
            "name": "Table 2, RISE",
            "models": f"python:_remembering:{setting.model}@{given.precision}",
            "methods": list(risen.values()),
            "metrics": list(GAMES.values()),
            "seeds": SEEDS,
            "score": setting.score,
        }
        self.studies = {part: Study.model_validate(common | each) for part, each in (("pixels", pixels), ("layers", layers), ("rise", masked))}
        folder = given.out / plain(setting.name)
        self.stores = {part: rows(study, folder / part, given) for part, study in self.studies.items()}

    def part(self, name: str) -> str:
        """Which study a method is in."""
        return "pixels" if name in PIXELS else "layers" if name in LAYERS else "rise"

    def store(self, name: str) -> Store:
        """Where a method's rows are."""
        return self.stores[self.part(name)]

    def key(self, name: str, game: str) -> tuple[str, str]:
        """Method and metric as rows have them."""
        metric = with_largest(GAMES[game]) if name in PIXELS else GAMES[game]
        return str(sal.Explainer.from_value(self.methods[name])), str(sal.Metric.from_value(metric))

    @cached_property
    def classes(self) -> dict[str, dict[int, str]]:
        """For each picture the class of each label: labels of one object are one class."""
        return {item.name: {label: str(group) for group in (item.groups or [(each,) for each in item.labels]) for label in group} for item in self.studies["rise"].data.load()}

    def table(self, name: str, game: str) -> tuple[np.ndarray, list[str], list[str]]:
        """Hits (objects, seeds), and class and picture of each object."""
        method, metric = self.key(name, game)
        found: dict[tuple[str, int], dict[int, float]] = {}
        for row in read(self.store(name)):
            if (row["method"], row["metric"], row["status"]) == (method, metric, "ok"):
                found.setdefault((row["image"], row["target"]), {})[row["seed"]] = row["value"]
        seeds = SEEDS if self.part(name) == "rise" else [0]
        hits = np.array([[each.get(seed, np.nan) for seed in seeds] for each in found.values()])
        return hits, [self.classes[image][target] for image, target in found], [image for image, _ in found]

    def of(self, name: str) -> np.ndarray:
        """Hits by the setting's game (pictures, seeds), objects of a picture averaged."""
        method, metric = self.key(name, self.setting.game)
        return values(self.store(name), method, metric)


def accuracy_cell(hits: np.ndarray, classes: list[str], images: list[str]) -> str:
    """Mean accuracy over classes in percent, and its interval."""
    found = pointing_accuracy(100 * hits, classes, images)
    return f"{found.mean:.1f} [{found.interval.low:.1f}, {found.interval.high:.1f}]"


def spread(hits: np.ndarray, classes: list[str], images: list[str]) -> float:
    """The sd over seeds of the accuracy, in percent; NaN for one seed."""
    each = [pointing_accuracy(100 * column, classes, images, resamples=2).mean for column in hits.T]
    return float(np.std(each, ddof=1)) if len(each) > 1 else float("nan")


def table(report: Report, found: Hits) -> None:
    """Ours beside the published."""
    lines = []
    for name in found.methods:
        published = [each.get(name, "-") for each in PUBLISHED.values()]
        lines.append([name, *published, *(accuracy_cell(*found.table(name, game)) for game in GAMES), "-" if name not in (RISE, OURS) else f"{spread(*found.table(name, found.setting.game)):.1f}"])
    hits, classes, images = found.table(RISE, found.setting.game)
    report.table(
        f"Table 2 beside {found.setting.name}: {found.setting.model}, {len(hits)} objects of {len(set(classes))} classes in {len(set(images))} pictures, {found.setting.masks} masks; percent",
        ["", *PUBLISHED, *(f"here, {game}" for game in GAMES), f"sd of {len(SEEDS)} sets of masks"],
        lines,
    )


def exceptions(better: str, worse: str) -> str:
    """Where the paper's own numbers have it the other way round, in brackets; empty if nowhere."""
    against = [name for name, each in PUBLISHED.items() if better in each and worse in each and float(each[better].split()[0]) < float(each[worse].split()[0])]
    return f" (in the paper not for {', nor for '.join(against)})" if against else ""


def claims(found: Hits, full: bool) -> list[Claim]:
    """Who is better than whom; pictures are the units."""
    made = []
    for better, worse in SAID:
        published = "; ".join(f"{name} {each[better]} and {each[worse]}" for name, each in PUBLISHED.items() if better in each and worse in each)
        first, second = (OURS if name == RISE and not full else name for name in (better, worse))
        made.append(difference(f"{first} points better than {second}{exceptions(better, worse)}: {found.setting.name}, {found.setting.game}.", published, found.of(first), found.of(second), ">"))
    return made


def drawn(found: Hits) -> Figure:
    """The maps of the first pictures and where they point."""
    columns = ["picture", *(name for name in found.methods if "control" not in name)]
    lines = []
    for image in images_of(found.stores["rise"])[:DRAWN]:
        panels = []
        try:
            maps = {name: kept(found.store(name), found.studies[found.part(name)], image, found.key(name, found.setting.game)[0]) for name in columns[1:]}
        except FileNotFoundError:
            continue  # it failed: the results say why
        for name, each in maps.items():
            method, metric = found.key(name, found.setting.game)
            tensor, saliency, target = each["image"][0], one_channel(each["map"][:1], "abs_max" if name in PIXELS else None)[0], int(each["target"][0])
            hit = [row["value"] for row in read(found.store(name)) if (row["image"], row["method"], row["metric"], row["target"], row["seed"]) == (image, method, metric, target, 0)]
            said = "hit" if hit == [1.0] else "miss" if hit == [0.0] else f"hit {hit[0]:.2f}" if hit and hit[0] is not None else "undefined"
            panels.append(Panel(pointed(overlaid(saliency, tensor), saliency), said))
        lines.append((f"{image}: {sal.load_model(found.setting.model).label(target)}", [photograph(tensor), *panels]))
    legend = f"RISE: the first set of masks. The ring is where a map points (hit or miss: {found.setting.game})."
    return sheet(columns, lines, legend, OVERLAID)


def settings(given: argparse.Namespace) -> list[Setting]:
    """What is played: here COCO's photographs and mosaics; with --full VOC 2007 and COCO 2014."""
    if given.full:
        made = []
        for name, root, model, data in (
            ("VOC 2007 test", given.voc, given.voc_model, {"dataset": "voc", "split": "test"}),
            ("COCO 2014 val", given.coco if given.coco_model else None, given.coco_model, {"dataset": "coco", "split": "val2014"}),
        ):
            if model is not None:
                option = f"--{name[:4].strip().lower()}"
                made.append(Setting(name, data | {"root": str(required(root, option, f"The folder of {name}"))}, model, given.masks or paper_masks(model), "sigmoid"))
        if not made:
            raise sal.InputError("--full needs a network trained on VOC or COCO: name it with --voc-model or --coco-model, for example python:my_networks:vgg16_voc.")
        return made
    model, masks = given.model or "efficientnet-lite0", given.masks or 150
    coco = required(given.coco, "--coco", "A folder of COCO's photographs and masks")
    photos = required(given.photos, "--photos", "A folder of labelled photographs (labels.csv)")
    return [
        Setting("COCO photographs", {"dataset": "coco", "root": str(coco), "labels": "imagenet", "shuffle": 0}, model, masks),
        Setting("mosaics of 2 x 2", {"dataset": "mosaic", "of": f"folder:root={photos},labels=labels.csv", "cell": CELL}, model, masks, game="on the object"),
    ]


def work(given: argparse.Namespace) -> None:
    """Play, tabulate, judge, draw."""
    report = Report(given, "The pointing game (paper 003, table 2)")
    found = [Hits(given, each) for each in settings(given)]
    report.text(
        "Accuracy: hits of a class in percent, averaged over classes; its interval resamples pictures. A hit is a largest value less than 15 pixels of the original picture away from the object, or on it. "
        f"Pictures are squashed to a square; RISE in {given.precision}. The paper: VOC 2007 test and COCO 2014 val, networks trained for them, 4000 masks for VGG16 and 8000 for ResNet50; "
        "the numbers of the other methods are from earlier papers. Deconv's map of a network without max pooling, such as the default one, hardly depends on the picture."
    )
    for each in found:
        table(report, each)
        report.picture(f"maps_{plain(each.setting.name)}", drawn(each), f"Maps of the first pictures, and where they point: {each.setting.name}")
    report.claims([claim for each in found for claim in claims(each, given.full)])
    report.done()


def options() -> argparse.ArgumentParser:
    """The script's options."""
    made = parser("rise_table2", __doc__, limit=16, what="pictures of each data set")
    made.add_argument("--coco", type=Path, default=DATA / "coco_masks", metavar="DIR", help=f"COCO: photographs with masks, or annotations (default: {DATA / 'coco_masks'})")
    made.add_argument("--photos", type=Path, default=DATA / "imagenet_photos", metavar="DIR", help=f"photographs with labels.csv, for the mosaics (default: {DATA / 'imagenet_photos'})")
    made.add_argument("--voc", type=Path, metavar="DIR", help="with --full: VOCdevkit/VOC2007")
    made.add_argument("--model", metavar="NAME", help="the network (default: efficientnet-lite0)")
    made.add_argument("--voc-model", metavar="NAME", help="with --full: a network of VOC's 20 classes in alphabetical order")
    made.add_argument("--coco-model", metavar="NAME", help="with --full: a network whose class i is COCO's category number i")
    made.add_argument("--masks", type=positive, metavar="N", help="masks of RISE (default: 150; with --full 8000, or 4000 for a network with vgg in its name)")
    return made


if __name__ == "__main__":
    sys.exit(main(options(), work))
