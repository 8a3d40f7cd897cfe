"""NoiseGrad (2022), figures 4, 13 and 14: maps by five methods as they are (Baseline), and averaged over noise in the picture (SG), the weights (NG) and both (FG).

The paper: ResNet-18 trained on PASCAL VOC 2012, pictures of dogs and a bird, judged by eye. Here: the default model, photographs of a dog, of a
dog beside a cat and of a bird, with fewer draws; and what the paper says of them is measured on COCO pictures with masks. With --full:
torchvision's ResNet-18 of ImageNet (the paper's weights are not published) on dogs and birds of VOC 2012, the paper's draws.
"""

import argparse
import sys
from argparse import Namespace
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

import salience as sal
from _common import Claim, Report, difference, main, mean_cell, network, parser, required, rows, values
from _panels import Panel, map_panel, photograph, sheet
from _smoothed import noise_level
from models import data_file, data_folder
from salience.core.registry import register
from salience.perturb.tune import tuned_weight_sigma
from salience.studies.study import Data, Study

BASELINE, SG, NG, FG = "Baseline", "SmoothGrad (SG)", "NoiseGrad (NG)", "FusionGrad (FG)"
SHARED = (NG, FG)
"""Methods whose draws of weights all pictures of a seed share."""

CONTROLS = ("random", "centre")
ALPHA = 0.2
"""The paper's input noise, in shares of the range of the normalised picture; half of it for FG."""

PUBLISHED = {BASELINE: ("0.7315", "0.6272"), SG: ("0.8263", "0.5310"), NG: ("0.8349", "0.5794"), FG: ("0.8435", "0.5721")}
"""Table 1: relevance rank accuracy and Gini index of gradients on CMNIST with a ResNet9; the figures have no numbers."""

TUNED_ON = 200
METRICS = ("relevance_mass_accuracy", "gini:reduction=abs_sum")


@register("dataset", "seen_objects")
class SeenObjects(sal.Dataset):
    """Pictures of another data set in which a network's top class is one of the objects; that class is the label."""

    of: Annotated[Any, sal.Dataset] = sal.option(None, "the data set of pictures with labels and masks")
    model: str = sal.option("efficientnet-lite0", "the network")

    def size(self) -> int:
        """The number of such pictures."""
        return len(_seen(str(self.of), self.model))

    def item(self, place: int) -> sal.Item:
        """A picture with one label."""
        number, label = _seen(str(self.of), self.model)[place]
        item = self.of[number]
        return sal.Item(item.name, item.picture, (label,), item.masks)


@lru_cache
def _seen(of: str, name: str) -> list[tuple[int, int]]:
    """The places of the pictures, and the class."""
    model, found = network(name), []
    for place, item in enumerate(sal.Dataset.from_value(of)):
        top = int(model.outputs(sal.load_images([item.picture], model).as_subclass(Tensor))[0].argmax())
        if top in item.labels:
            found.append((place, top))
    return found


@dataclass(frozen=True)
class Size:
    """How much is computed.

    Attributes:
        model: Name for `load_model`.
        draws: Of SG, and of NG.
        fusion: Draws of weights of FG, and of input noise for each.
        bases: Specifications by name.
    """

    model: str
    draws: int
    fusion: int
    bases: dict[str, str]


SMALL = Size(
    "efficientnet-lite0",
    10,
    4,
    {
        "Gradient": "gradient",
        "Integrated Gradients": "integrated_gradients:steps=10",
        "GradientSHAP": "gradient_shap:samples=5",
        "Occlusion": "occlusion:window=64,stride=32",
        "LRP, gamma rule": "lrp",
    },
)
LARGE = Size("torchvision:resnet18", 25, 10, SMALL.bases | {"Integrated Gradients": "integrated_gradients:steps=50", "Occlusion": "occlusion"})


def enhanced(base: str, size: Size, level: float, sigma: float) -> dict[str, sal.Explainer]:
    """A method as it is and averaged, absolute values taken before averaging."""
    method = sal.Explainer.from_value(base)
    return {
        BASELINE: method,
        SG: sal.SmoothGrad(base=method, samples=size.draws, noise_level=level, absolute=True),
        NG: sal.NoiseGrad(base=method, weight_samples=size.draws, weight_sigma=sigma, absolute=True),
        FG: sal.FusionGrad(base=method, weight_samples=size.fusion, samples=size.fusion, noise_level=level / 2, weight_sigma=sigma / 2, absolute=True),
    }


def gallery(model: sal.Classifier, path: Path, size: Size, level: float, sigma: float, title: str) -> Figure:
    """One of the paper's figures: rows are methods, columns what they are averaged over."""
    images = sal.load_images([path], model)
    lines: list[tuple[str, list[Panel | None]]] = []
    for name, base in size.bases.items():
        panels: list[Panel | None] = []
        for explainer in enhanced(base, size, level, sigma).values():
            e = explainer(model, images)
            kept = e.record["images"].get("class_kept")
            relative = e.relative_error
            notes = [f"relative error {float(relative[0]):.2f}"] if relative is not None else []
            notes += [f"class kept in {kept[0]:.0%} of the draws"] if kept is not None else []
            panels.append(map_panel(e.saliency("abs_sum")[0], "; ".join(notes)))
        shown = photograph(images.as_subclass(Tensor)[0], f"{e.record['images']['label'][0]}, probability {e.record['images']['probability'][0]:.2f}") if not lines else None
        lines.append((name, [shown, *panels]))
    legend = f"{title}; {model.name}. |map| summed over channels; the predicted class. SG {size.draws} draws, NG {size.draws}, FG {size.fusion} x {size.fusion}."
    return sheet(["the picture", BASELINE, SG, NG, FG], lines, legend)


def pictures(given: Namespace) -> list[tuple[str, str, Path]]:
    """Name, title and file of what stands for each of the paper's figures: it does not say which pictures of VOC it shows."""
    if given.full:
        root = _voc()
        data = sal.Voc(root=str(root), split="val")
        places = {name: data.classes.index(name) for name in ("dog", "bird")}
        dogs, birds = ([item.picture for item in data if label in item.labels] for label in places.values())
        return [("figure-4", "Figure 4: a dog", Path(dogs[0])), ("figure-13", "Figure 13: a dog", Path(dogs[1])), ("figure-14", "Figure 14: a bird", Path(birds[0]))]
    return [
        ("figure-4", "Figure 4: a dog", data_file("imagenet_photos", "n02099712_Labrador_retriever.jpg")),
        ("figure-13", "Figure 13: a dog, and another animal", data_file("photos", "catdog.png")),
        ("figure-14", "Figure 14: a bird", data_file("photos", "parrot.png")),
    ]


def _voc() -> Path:
    return required(data_folder() / "VOCdevkit" / "VOC2012", "SALIENCE_DATA (the folder that holds VOCdevkit/VOC2012)", "PASCAL VOC 2012")


def weight_sigma(model: sal.Model) -> float:
    """The weight noise at which accuracy drops by 5 %: the model's own, or searched on photographs."""
    if model.carried_weight_sigma is not None:
        return model.carried_weight_sigma
    paths = sorted((_voc() / "JPEGImages").glob("*.jpg"))[:TUNED_ON]
    return tuned_weight_sigma(model, sal.load_images(paths, model).as_subclass(torch.Tensor))


def claims(found: dict[str, dict[str, Any]]) -> list[Claim]:
    """What the paper says of its figures, of gradients."""
    mass, sparse = (found[metric] for metric in METRICS)
    made = []
    for first in SHARED:
        for second in (BASELINE, SG):
            made.append(difference(f"{first} places more evidence on the object than {second}", "figures 13 and 14, by eye", mass[first], mass[second], ">", shared_seeds=True))
            made.append(difference(f"{first} is sharper, more concise than {second}: a higher Gini index", "figure 4 and its text, by eye", sparse[first], sparse[second], ">", shared_seeds=True))
    return made


def work(given: Namespace) -> None:
    """Draw, measure, judge."""
    size = LARGE if given.full else SMALL
    coco = f"coco:root={required(data_folder() / 'coco', 'SALIENCE_DATA', 'COCO') if given.full else data_file('coco_masks', 'classes.json').parent},labels=imagenet"
    figures = pictures(given)
    model = network(size.model)
    level, sigma = noise_level(model, ALPHA), weight_sigma(model)
    report = Report(given, "NoiseGrad, figures 4, 13 and 14: galleries")
    report.text(
        f"The paper's SG noise is {ALPHA} of the range of the normalised picture: {level} of the range in [0, 1] for {model.name}. NG: weight noise {sigma:.4g}, at which accuracy drops by 5 % (the paper's heuristic). FG: half of "
        "both. Absolute values are taken before averaging over draws, as in the authors' code."
    )
    for name, title, path in figures:
        report.picture(name, gallery(model, path, size, level, sigma, title), title)
    report.text("GradientSHAP draws points and noise of its own, 5 as it is and 5 in every draw of SG, NG and FG: part of what these smooth is its own noise (see the relative errors).")

    methods = {title: str(explainer) for title, explainer in enhanced("gradient", size, level, sigma).items()} | {name: name for name in CONTROLS}
    data = Data(dataset="seen_objects", targets="labels", options={"of": coco, "model": size.model})
    study = Study(name="noisegrad_galleries", models=[size.model], data=data, methods=list(methods.values()), metrics=list(METRICS), seeds=[0, 1, 2])
    store = rows(study, given.out / "coco", given)
    found = {name: {title: values(store, method, metric) for title, method in zip(methods, study.methods, strict=True)} for name, metric in zip(METRICS, study.metrics, strict=True)}
    cells = [[title, *(text for place, metric in enumerate(METRICS) for text in (PUBLISHED.get(title, ("", ""))[place], mean_cell(found[metric][title], title in SHARED)))] for title in methods]
    columns = ["method", "paper: rank accuracy, CMNIST", "share of the absolute map on the object", "paper: Gini index, CMNIST", "Gini index"]
    count = len(found[METRICS[0]][BASELINE])
    report.table(f"Gradients of the predicted class on {count} COCO pictures in which it is a labelled object, 3 seeds: mean and 95 % interval", columns, cells)
    report.text(
        "The paper has no numbers for these figures; those of its table 1 (another data set and network) are printed beside ours. NG's and FG's draws of weights are shared by all pictures of a seed: their intervals count the "
        "seeds too, as p does, and a difference counts only if its interval leaves out 0 (else its p is 1)."
    )
    report.claims(claims(found))
    report.done()


def options() -> argparse.ArgumentParser:
    """The options."""
    return parser("noisegrad_galleries", __doc__, 16, "COCO pictures (the galleries are always drawn)")


if __name__ == "__main__":
    sys.exit(main(options(), work))
