"""RISE (003), table 1: deletion and insertion of Grad-CAM, a sliding window, LIME and RISE, with three sets of masks.

RISE stands in the table twice: as published, and by our estimator, which has the same expectation and less noise. Here, with fewer
masks than in the paper, the claims are tested with the second; with --full, which has the paper's masks, with the first.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import salience as sal
from _common import DATA, Claim, Report, difference, images_of, main, mean_cell, number, paper_masks, parser, photographs, plain, positive, required, rise, rows, values
from _panels import curve
from salience.show.overlay import drawing
from salience.studies.statistics import per_image
from salience.studies.store import Store
from salience.studies.study import Study

METRICS = {"deletion": "<", "insertion": ">"}
"""Which way is better."""

WHITE = {"Grad-CAM": "gradcam", "centre (control)": "centre", "random (control)": "random"}
BLACK = {"Sliding window": "occlusion:window=64,stride=8", "LIME": "lime:samples=1000"}
RISE, OURS = "RISE", "RISE, our estimator"
SEEDS = [0, 1, 2]
PICTURES = 50_000
LEAST_SPREAD = 0.0005
"""The smallest of the published spreads between sets of masks."""

PUBLISHED = {
    "ResNet50": {"Grad-CAM": ("0.1232", "0.6766"), "Sliding window": ("0.1421", "0.6618"), "LIME": ("0.1217", "0.6940"), RISE: ("0.1076 ± 0.0005", "0.7267 ± 0.0006")},
    "VGG16": {"Grad-CAM": ("0.1087", "0.6149"), "Sliding window": ("0.1158", "0.5917"), "LIME": ("0.1014", "0.6167"), RISE: ("0.0980 ± 0.0025", "0.6663 ± 0.0014")},
}
"""Deletion and insertion, on ImageNet's validation set."""

FULL = ("torchvision:resnet50", "torchvision:vgg16")
"""The paper's networks."""


class Scores:
    """All rows of one network.

    Attributes:
        model: Its name.
        masks: Of RISE.
        methods: Specifications by the names in the table.
    """

    def __init__(self, given: argparse.Namespace, data: dict, model: str, masks: int) -> None:
        self.model, self.masks = model, masks
        risen = {RISE: rise(masks, "original"), OURS: rise(masks, "crossfit")}
        self.methods = WHITE | BLACK | risen
        common = {"data": data, "metrics": list(METRICS), "fit": "squash"}
        remembering = f"python:_remembering:{model}@{given.precision}"
        parts: dict[str, dict] = {
            "white": {"models": model, "methods": list(WHITE.values())},
            "black": {"models": remembering, "methods": list(BLACK.values())},
            "rise": {"models": remembering, "methods": list(risen.values()), "seeds": SEEDS},
        }
        folder = given.out / plain(model)
        self.stores = {part: rows(Study.model_validate(common | {"name": f"Table 1, {part}"} | each), folder / part, given) for part, each in parts.items()}

    def store(self, name: str) -> Store:
        """Where a method's rows are."""
        return self.stores["white" if name in WHITE else "black" if name in BLACK else "rise"]

    def of(self, name: str, metric: str) -> np.ndarray:
        """Values (images, seeds)."""
        return values(self.store(name), str(sal.Explainer.from_value(self.methods[name])), metric)

    def curves(self, name: str, metric: str) -> tuple[np.ndarray, np.ndarray]:
        """Abscissae and the mean curve over pictures and seeds."""
        method = sal.Explainer.from_value(self.methods[name])
        x, y = np.array(self.store(name).query(f"SELECT x, avg(y) FROM curves WHERE method = '{method}' AND curve = '{metric}' GROUP BY x ORDER BY x")[1]).T
        return x, y


def spread(found: np.ndarray) -> float:
    """The sd over seeds of the mean over images; NaN for one seed."""
    return float(np.nanmean(found, 0).std(ddof=1)) if found.shape[1] > 1 else float("nan")


def of_a_picture(found: np.ndarray) -> float:
    """The sd over seeds of a single picture's value: root of the mean variance."""
    return float(np.sqrt(np.nanmean(found.var(1, ddof=1))))


def table(report: Report, scores: Scores) -> None:
    """Ours beside the published."""
    lines = []
    for name in scores.methods:
        cells = []
        for place, metric in enumerate(METRICS):
            found = scores.of(name, metric)
            cells += [*(PUBLISHED[network].get(name, ("-", "-"))[place] for network in PUBLISHED), mean_cell(found), number(spread(found))]
        lines.append([name, *cells])
    report.table(
        f"Table 1 beside {scores.model}: means, 95 % intervals over pictures, sd of the mean over {len(SEEDS)} sets of masks",
        ["", *(head for metric, way in METRICS.items() for head in (f"{metric} ({'low' if way == '<' else 'high'}) ResNet50", "VGG16", "here", "sd of sets"))],
        lines,
    )
    single = {name: [of_a_picture(scores.of(name, metric)) for metric in METRICS] for name in (RISE, OURS)}
    expected = [each / PICTURES**0.5 for each in single[RISE]]
    larger = max(expected) < LEAST_SPREAD
    report.text(
        f"A single picture's deletion and insertion vary between sets of {scores.masks} masks by sd {number(single[RISE][0])} and {number(single[RISE][1])} (our estimator: {number(single[OURS][0])} and "
        f"{number(single[OURS][1])}). With masks drawn anew for each picture the means over {PICTURES} pictures would vary by {number(expected[0])} and {number(expected[1])}, and by less with more masks. "
        f"The published spreads are {LEAST_SPREAD} to 0.0025" + (": larger, as they would be with one set of masks for all pictures, which is how the authors' code draws them." if larger else ".")
    )


def claims(scores: Scores, full: bool) -> list[Claim]:
    """RISE against each other method, by both metrics."""
    tested, made = RISE if full else OURS, []
    for place, (metric, way) in enumerate(METRICS.items()):
        for name in PUBLISHED["ResNet50"]:
            if name != RISE:
                published = "; ".join(f"{network} {PUBLISHED[network][RISE][place]} and {PUBLISHED[network][name][place]}" for network in PUBLISHED)
                statement = f"RISE has a {'lower' if way == '<' else 'higher'} {metric} than {name} ({tested}, {scores.masks} masks, {scores.model})."
                made.append(difference(statement, published, scores.of(tested, metric), scores.of(name, metric), "<" if way == "<" else ">"))
    return made


def networks(found: list[Scores]) -> list[Claim]:
    """What the paper says of its two networks, where both are there."""
    said = "RISE's values are better for ResNet50 than for VGG16, the better classifier"
    if len(found) < 2:
        return [Claim(f"{said}.", "deletion 0.1076 and 0.0980 (lower is better: the table contradicts the text), insertion 0.7267 and 0.6663", "needs both networks: run with --full")]
    return [
        difference(f"{said}: {metric}.", "; ".join(PUBLISHED[network][RISE][place] for network in PUBLISHED), found[0].of(RISE, metric), found[1].of(RISE, metric), "<" if way == "<" else ">")
        for place, (metric, way) in enumerate(METRICS.items())
    ]


def drawn(scores: Scores) -> Figure:
    """Mean curves of all methods."""
    with drawing():
        made = Figure(figsize=(10, 4.2), dpi=100, layout="constrained")
        for axes, metric in zip(made.subplots(1, 2), METRICS, strict=True):
            found = {name: scores.curves(name, metric) for name in scores.methods}
            areas = {name: float(np.nanmean(per_image(scores.of(name, metric)).values)) for name in found}
            curve(
                axes,
                next(iter(found.values()))[0],
                {f"{name}: area {areas[name]:.3f}": y for name, (_, y) in found.items()},
                f"{metric}, {scores.model}",
                ("share of the pixels changed", "probability of the class"),
            )
        return made


def work(given: argparse.Namespace) -> None:
    """Run every network, tabulate, judge, draw."""
    report = Report(given, "Deletion and insertion of RISE and other methods (paper 003, table 1)")
    if given.full:
        data = {"dataset": "imagenet", "root": str(required(given.imagenet, "--imagenet", "ImageNet's validation set, a folder a class,")), "labels": "imagenet", "shuffle": 0}
        sizes = {model: given.masks or paper_masks(model) for model in (FULL if given.model is None else [given.model])}
    else:
        data = photographs(given.photos, given)
        sizes = {given.model or "efficientnet-lite0": given.masks or 200}
    found = [Scores(given, data | {"targets": "predicted"}, model, masks) for model, masks in sizes.items()]
    images = len(images_of(found[0].stores["rise"]))
    report.text(
        f"Here: {images} pictures from {data['root']}, {', '.join(f'{each.model} with {each.masks} masks' for each in found)}, black-box methods in {given.precision}. The paper: {PICTURES} pictures of ImageNet's validation set, "
        "ResNet50 with 8000 masks, VGG16 with 4000. The class explained is the predicted one; 28 steps; pictures squashed to a square; masks are drawn anew for each picture."
    )
    for each in found:
        table(report, each)
        report.picture(f"curves_{plain(each.model)}", drawn(each), f"Mean deletion and insertion curves, {each.model}; how sure the areas are is in the table")
    report.claims([claim for each in found for claim in claims(each, given.full)] + networks(found))
    report.done()


def options() -> argparse.ArgumentParser:
    """The script's options."""
    made = parser("rise_table1", __doc__, limit=10)
    made.add_argument("--photos", type=Path, default=DATA / "imagenet_photos", metavar="DIR", help=f"photographs (default: {DATA / 'imagenet_photos'}, else those of scikit-image)")
    made.add_argument("--imagenet", type=Path, metavar="DIR", help="with --full: ImageNet's validation set, a folder a class")
    made.add_argument("--model", metavar="NAME", help="the network (default: efficientnet-lite0; with --full torchvision:resnet50 and torchvision:vgg16)")
    made.add_argument("--masks", type=positive, metavar="N", help="masks of RISE (default: 200; with --full 8000, or 4000 for a network with vgg in its name)")
    return made


if __name__ == "__main__":
    sys.exit(main(options(), work))
