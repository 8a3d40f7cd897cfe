"""RISE (003), figures 1 to 4 and 6 to 9: maps of two classes, maps of three methods, how masks add up, curves, and failure cases.

Of the failure cases the paper says that their background noise is in part due to the Monte-Carlo approximation. Here each object of COCO's photographs gets
four independent sets of masks: what the four maps share outside the object is the network's, the rest is the masks'.
"""

import argparse
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from scipy.integrate import trapezoid
from torch import Tensor

import salience as sal
from _common import DATA, Report, difference, estimated, images_of, kept, main, mean_cell, number, parser, photographs, positive, required, rise, rows, table, values
from _panels import OVERLAID, Panel, curve, grey, overlaid, photograph, picture, pointed, sheet
from salience.core.draws import streams
from salience.perturb.masks import RandomMasks
from salience.show.overlay import drawing
from salience.studies.store import Store
from salience.studies.study import Study
from salience.studies.work import model_of, seeds_of

SEEDS = [0, 1, 2, 3]
PAPER_MASKS = 8000
SHOWN_MASKS = 4
FAILURES = 4
"""Failure cases drawn at most."""

EXAMPLES = ("goldfish.png", "catdog.png", "chelsea.png", "coffee.png", "parrot.png", "hot_dog.png")
"""Figures 1 to 8, if the folder has them."""

EVERY = 10**6
"""More pictures than there are."""

GAME = "pointing_game"


def curves_of(store: Store, image: str, method: str, name: str) -> tuple[np.ndarray, np.ndarray]:
    """A picture's curve: x and y."""
    found = [(row["x"], row["y"]) for row in table(store, "curves") if (row["image"], row["method"], row["curve"]) == (image, method, name)]
    x, y = np.array(sorted(found)).T
    return x, y


# --- figures 1 to 4 and 6 to 8 ----------------------------------------------------------------------------------------------------------------


def chosen(given: argparse.Namespace) -> Path:
    """A folder with copies of the pictures of figures 1 to 8: those of `EXAMPLES` that are there, else the first by name."""
    source, target = Path(photographs(given.pictures, given, "--pictures")["root"]), given.out / "pictures"
    names = [name for name in EXAMPLES if (source / name).is_file()] or [Path(item.picture).name for item in list(sal.load_dataset("folder", root=source))]
    target.mkdir(parents=True, exist_ok=True)
    for other in {file.name for file in target.iterdir()} - set(names[: given.examples]):
        (target / other).unlink()  # of an earlier call with other options
    for name in names[: given.examples]:
        shutil.copyfile(source / name, target / name)
    return target


def examples(given: argparse.Namespace, report: Report) -> None:
    """Pictures with maps and curves."""
    given = argparse.Namespace(**vars(given) | {"limit": None})
    methods = {"RISE": rise(given.masks, "original"), "Grad-CAM": "gradcam", "LIME": "lime"}
    common = {
        "data": {"dataset": "folder", "root": str(chosen(given)), "targets": "predicted"},
        "metrics": [f"deletion:steps={given.steps}", f"insertion:steps={given.steps}"],
        "fit": "squash",
        "keep_maps": EVERY,
    }
    masked = Study.model_validate(common | {"name": "Examples, RISE", "models": f"python:_remembering:{given.model}@{given.precision}", "methods": methods["RISE"]})
    others = Study.model_validate(common | {"name": "Examples, others", "models": given.model, "methods": [methods["Grad-CAM"], methods["LIME"]]})
    stores = {"RISE": (rows(masked, given.out / "examples" / "rise", given), masked)}
    stores |= dict.fromkeys(("Grad-CAM", "LIME"), (rows(others, given.out / "examples" / "others", given), others))
    store = stores["RISE"][0]

    cells = []
    for place, image in enumerate(images_of(store)):
        cells.append([image, *(number(float(values(stores[name][0], methods[name], metric)[place, 0])) for metric in masked.metrics for name in methods)])
    report.table(
        "Areas under the curves of single pictures (figures 2, 4, 6 to 8; the paper prints its own inside the figures)",
        ["", *(f"{metric} {name}" for metric in ("deletion", "insertion") for name in methods)],
        cells,
    )
    report.picture("figures_4_6_7_8", with_curves(store, masked, methods["RISE"]), "Figures 4 and 6 to 8: RISE's maps with deletion and insertion curves")
    report.picture("figure_2", three_methods({name: (*stores[name], methods[name]) for name in methods}, images_of(store)), "Figure 2: maps of three methods and their deletion curves")
    report.picture("figure_3", adding_up(store, masked, methods["RISE"]), "Figure 3: how masks and scores make a map")
    report.picture("figure_1", two_classes(given, masked, methods["RISE"]), "Figure 1: maps of two classes of one picture, from the same masks")


def with_curves(store: Store, study: Study, method: str) -> Figure:
    """Rows of picture, map, deletion and insertion."""
    images = images_of(store)[:6]
    with drawing():
        made = Figure(figsize=(10, 2.5 * len(images)), dpi=100, layout="constrained")
        for image, axes in zip(images, made.subplots(len(images), 4, squeeze=False), strict=True):
            found = kept(store, study, image, method)
            tensor, saliency = found["image"][0], found["map"][0, 0]
            label = model_of(study.models[0], study.device, study.precision, study.chunk).label(int(found["target"][0]))
            for place, (array, title) in enumerate(((picture(tensor), label), (overlaid(saliency, tensor), f"RISE, {float(saliency.min()):.3g} to {float(saliency.max()):.3g} (dark)"))):
                axes[place].imshow(array)
                axes[place].set_title(title, fontsize=9, loc="left")
                axes[place].axis("off")
            for place, metric in enumerate(("deletion", "insertion"), 2):
                x, y = curves_of(store, image, method, metric)
                curve(axes[place], x, {f"area {trapezoid(y, x):.3f}": y}, metric, ("share of the pixels", "probability"))
        return made


def three_methods(methods: dict[str, tuple[Store, Study, str]], images: list[str]) -> Figure:
    """A picture, the maps of three methods, and their deletion curves: the goldfish as in the paper, if it is there."""
    image = next((each for each in images if "goldfish" in each), images[0])
    with drawing():
        made = Figure(figsize=(12, 2.9), dpi=100, layout="constrained")
        axes, lines, x = made.subplots(1, 5, width_ratios=[1, 1, 1, 1, 1.5]), {}, np.zeros(0)
        for place, (name, (store, study, method)) in enumerate(methods.items(), 1):
            found = kept(store, study, image, method)
            if place == 1:
                axes[0].imshow(picture(found["image"][0]))
                axes[0].set_title(image, fontsize=9, loc="left")
            axes[place].imshow(overlaid(found["map"][0].sum(0), found["image"][0]))
            axes[place].set_title(f"{name} (dark: high)", fontsize=9, loc="left")
            x, y = curves_of(store, image, method, "deletion")
            lines[f"{name}: area {trapezoid(y, x):.3f}"] = y
        for each in axes[:4]:
            each.axis("off")
        curve(axes[4], x, lines, "deletion", ("share of the pixels removed", "probability"))
        return made


def adding_up(store: Store, study: Study, method: str) -> Figure:
    """The first masks of a map, what they show, the scores, and the map."""
    image = images_of(store)[0]
    found = kept(store, study, image, method)
    model = model_of(study.models[0], study.device, study.precision, study.chunk)
    tensor, target = found["image"], int(found["target"][0])
    masks = RandomMasks((tensor.shape[-2], tensor.shape[-1]), 7, 0.5)
    stream = streams([seeds_of(study, image, 0)], 1)[0]
    drawn = [masks.draw(stream, draw) for draw in range(SHOWN_MASKS)]
    made = masks.make(torch.stack([grid for grid, _ in drawn]), torch.stack([place for _, place in drawn]))
    shown = torch.lerp(model.mean_colour.view(1, -1, 1, 1).expand_as(tensor), tensor, made[:, None])
    scores = model.as_probabilities(model.outputs(shown))[:, target].tolist()
    samples = sal.Explainer.from_value(method).samples  # type: ignore[attr-defined]  # RISE has samples
    lines: list[tuple[str, list]] = [
        ("masks", [None, *(photograph(each[None]) for each in made)]),
        ("what the network is shown", [photograph(tensor[0], "the picture"), *(photograph(each, f"score {score:.3f}") for each, score in zip(shown, scores, strict=True))]),
        ("the mean of score times mask", [Panel(overlaid(found["map"][0, 0], tensor[0]), f"{samples} masks")]),
    ]
    legend = f"Map of {model.label(target)}; in masks white is 1: kept; what is hidden takes the network's mean colour."
    return sheet(["", *(f"mask {draw + 1}" for draw in range(SHOWN_MASKS))], lines, legend, OVERLAID)


def two_classes(given: argparse.Namespace, study: Study, method: str) -> Figure:
    """The maps of the likeliest class and, of the ten likeliest, of that whose map is least like it."""
    items = list(study.data.load())
    item = next((each for each in items if each.name == given.two_classes), items[0])
    model = model_of(study.models[0], study.device, study.precision, study.chunk)
    image = sal.load_images([item.picture], model, "squash")
    e = sal.explain(method, model, image, seed=[seeds_of(study, item.name, 0)])
    probabilities = model.as_probabilities(model.outputs(image.as_subclass(Tensor)))[0]
    first = int(e.targets[0])
    likeliest = [int(each) for each in probabilities.topk(min(10, len(probabilities))).indices]
    second = min((each for each in likeliest if each != first), key=lambda each: float(sal.similarity("pearson", e, e.for_target(each))))
    alike = float(sal.similarity("pearson", e, e.for_target(second)))
    tensor = image.as_subclass(Tensor)[0]
    pictures = [photograph(tensor), *(Panel(overlaid(e.for_target(each).maps[0, 0], tensor)) for each in (first, second))]
    names = [f"{model.label(each)} ({float(probabilities[each]):.3f})" for each in (first, second)]
    legend = f"Both maps are from the same masks; their correlation is {alike:.2f}. The second class is that of the ten likeliest whose map is least like the first."
    return sheet(["picture", *names], [(item.name, pictures)], legend, OVERLAID)


# --- figure 9 ---------------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """One object of a picture with several independent maps.

    Attributes:
        name: Picture and class.
        image: (c, h, w).
        maps: The published estimator's, (seeds, h, w).
        errors: Their standard errors, (seeds, h, w).
        ours: Our estimator's, from the first set of masks.
        background: Pixels outside the object, (h, w).
        hits: Whether the first map, their mean, and ours point at the object.
    """

    name: str
    image: Tensor
    maps: Tensor
    errors: Tensor
    ours: Tensor
    background: Tensor
    hits: tuple[float, float, float]


def mask_share(maps: Tensor, region: Tensor) -> float:
    """The share of a map's variance over a region that independent maps of the same picture do not have in common.

    1 - mean covariance of two maps / mean variance of one.
    """
    table = np.cov(maps[:, region].double().numpy())
    count = len(table)
    common = (table.sum() - np.trace(table)) / (count * (count - 1))
    return float(1 - common / (np.trace(table) / count))


def at_masks(share: np.ndarray, masks: int, wanted: int) -> np.ndarray:
    """That share with another number of masks: the masks' part of the variance goes with 1 / N, the rest stays."""
    noise = share * masks / wanted
    return noise / (noise + 1 - share)


def cases(given: argparse.Namespace) -> list[Case]:
    """All objects of the pictures."""
    required(given.coco, "--coco", "A folder of COCO's photographs and masks")
    original, ours = (rise(given.background_masks, each) for each in ("original", "crossfit"))
    data = {"dataset": "coco", "root": str(given.coco), "labels": "imagenet", "shuffle": 0, "targets": "labels"} | ({"objects": 1} if given.single else {})
    study = Study.model_validate(
        {
            "name": "Failure cases",
            "data": data,
            "models": f"python:_remembering:{given.model}@{given.precision}",
            "methods": [original, ours],
            "metrics": GAME,
            "seeds": SEEDS,
            "fit": "squash",
            "keep_maps": EVERY,
        }
    )
    store, made = rows(study, given.out / "failures", given), []
    model = model_of(study.models[0], study.device, study.precision, study.chunk)
    for item in list(study.data.load())[: len(images_of(store))]:
        try:
            published, better = (kept(store, study, item.name, each) for each in (original, ours))
        except FileNotFoundError:
            continue  # it failed: the results say why
        target, image = int(published["target"][0]), sal.load_images([item.picture], model, "squash")
        mask = torch.as_tensor(item.masks[target])
        inside = image.geometry[0].to_input(mask)
        maps = published["map"][:, 0]
        found = [float(sal.measure(GAME, model, image, target, each[None], masks=[mask])) for each in (maps[0], maps.mean(0), better["map"][0, 0])]  # type: ignore[arg-type]  # a tensor of one
        if inside.any() and not inside.all():
            made.append(Case(f"{item.name}: {model.label(target)}", image.as_subclass(Tensor)[0], maps, published["stderr"][:, 0], better["map"][0, 0], ~inside, (found[0], found[1], found[2])))
    return made


def failures(given: argparse.Namespace, report: Report) -> None:
    """Whether the background noise is Monte-Carlo."""
    found = cases(given)
    masks = given.background_masks
    share = np.array([mask_share(each.maps, each.background) for each in found])

    def foretold(each: np.ndarray) -> np.ndarray:
        return at_masks(np.minimum(each, 1), masks, PAPER_MASKS)

    inside = np.array([mask_share(each.maps, ~each.background) for each in found])
    measured = np.array([float(each.maps.var(0)[each.background].mean()) for each in found])
    claimed = np.array([float(each.errors.square().mean(0)[each.background].mean()) for each in found])
    missed = np.array([each.hits[0] < 1 for each in found])
    lines = [
        [name, str(int(which.sum())), *(mean_cell(each[which]) if which.any() else "-" for each in (share, inside)), estimated(foretold, share[which]) if which.any() else "-"]
        for name, which in (("all objects", missed | ~missed), ("failures: the map's largest value is off the object", missed), ("the others", ~missed))
    ]
    report.table(
        f"Figure 9: the masks' share of a map's variance ({masks} masks, {len(SEEDS)} independent sets)",
        ["", "objects", "outside the object", "inside it", f"outside, foretold for {PAPER_MASKS} masks"],
        lines,
    )
    hits = np.array([each.hits for each in found])
    report.text(
        f"Of {len(found)} objects the map of one set of {masks} masks misses {int((hits[:, 0] < 1).sum())}, that of all {len(SEEDS) * masks} masks {int((hits[:, 1] < 1).sum())}, our estimator with {masks} masks "
        f"{int((hits[:, 2] < 1).sum())}. The variance between sets of masks, outside the objects, is {number(float(measured.sum() / claimed.sum()))} times what the maps' own standard errors claim."
    )
    worst = sorted((each for each in found if each.hits[0] < 1), key=lambda each: -mask_share(each.maps, each.background))[:FAILURES] or found[:FAILURES]
    report.picture("figure_9", drawn(worst, masks), "Figure 9: failure cases, with what the error bars leave")
    said = "In some cases RISE picks up more important features but cannot get rid of the background noise, in part due to the Monte-Carlo approximation"
    report.claims(
        [
            difference(f"{said}: part of the background's variance is the masks' (share above 0, {masks} masks).", "figure 9, in words", share, 0.0, ">"),
            difference(f"It is only part of it (share below 1, {masks} masks).", "figure 9, in words", share, 1.0, "<"),
        ]
    )


def drawn(found: list[Case], masks: int) -> Figure:
    """Picture, map, map with what is within its error in grey, the mean of all sets, ours."""
    lines = []
    for each in found:
        first, error = each.maps[0], each.errors[0]
        decided = (first - first.mean()).abs() > 2 * error
        plain, coloured = picture(each.image), overlaid(first, each.image)
        share = mask_share(each.maps, each.background)
        hits = ["miss" if hit < 1 else "hit" for hit in each.hits]
        panels = [
            Panel(plain),
            Panel(np.where(each.background[..., None].numpy(), 0.25 * plain + 0.7, plain)),
            Panel(pointed(coloured, first), f"{hits[0]}; the masks' share outside the object {share:.2f}"),
            Panel(np.where(decided[..., None].numpy(), coloured, grey(each.image)), f"{float((~decided).float().mean()):.0%} grey"),
            Panel(overlaid(each.maps.mean(0), each.image), hits[1]),
            Panel(overlaid(each.ours, each.image), hits[2]),
        ]
        lines.append((each.name, panels))
    columns = ["picture", "object", f"{masks} masks", "beyond 2 errors", f"{len(SEEDS) * masks} masks", "our estimator"]
    legend = f"Grey: within two standard errors of the map's mean. The ring is the largest value. Our estimator has the same {masks} masks."
    return sheet(columns, lines, legend, OVERLAID)


# ----------------------------------------------------------------------------------------------------------------------------------------------


def work(given: argparse.Namespace) -> None:
    """Draw and judge."""
    given.model = given.model or ("torchvision:resnet50" if given.full else "efficientnet-lite0")
    given.masks = given.masks or (PAPER_MASKS if given.full else 400)
    given.background_masks, given.steps = (given.masks, 224) if given.full else (max(given.masks // 2, 1), 56)
    report = Report(given, "Maps, curves and failure cases of RISE (paper 003, figures 1 to 4 and 6 to 9)")
    report.text(
        f"Here: {given.model}, {given.masks} masks a map ({given.background_masks} for figure 9), {given.precision}, at most {given.examples} pictures from {given.pictures} and {given.limit or 'all'} from {given.coco}. "
        f"The paper: ResNet50, {PAPER_MASKS} masks, pictures of its own. Figure 5 (captions) is not made."
    )
    examples(given, report)
    failures(given, report)
    report.done()


def options() -> argparse.ArgumentParser:
    """The script's options."""
    made = parser("rise_figures", __doc__, limit=10, what="photographs of figure 9")
    made.add_argument("--pictures", type=Path, default=DATA / "photos", metavar="DIR", help=f"pictures of figures 1 to 8 (default: {DATA / 'photos'}, else those of scikit-image)")
    made.add_argument("--examples", type=positive, default=4, metavar="N", help="pictures of figures 1 to 8 (default: 4)")
    made.add_argument("--two-classes", default="catdog.png", metavar="NAME", help="which of them is figure 1 (default: catdog.png, else the first)")
    made.add_argument("--coco", type=Path, default=DATA / "coco_masks", metavar="DIR", help=f"photographs with masks for figure 9 (default: {DATA / 'coco_masks'})")
    made.add_argument("--single", action="store_true", help="figure 9: only photographs with a single object")
    made.add_argument("--model", metavar="NAME", help="the network (default: efficientnet-lite0; with --full torchvision:resnet50)")
    made.add_argument("--masks", type=positive, metavar="N", help=f"masks of a map (default: 400, half of it for figure 9; with --full {PAPER_MASKS})")
    return made


if __name__ == "__main__":
    sys.exit(main(options(), work))
