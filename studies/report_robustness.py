"""The report on SmoothGrad and RISE (000), figures 1 to 4: how similar maps of perturbed pictures are to those of the pictures themselves.

The published table is printed beside ours for the same similarities under four conditions: the same draws with a flip undone
(common), the same draws with the flip left (as_is), new draws (fresh), and the same picture twice with new draws (floor). What the floor shows is the
method's own noise: no picture was changed. Pictures whose prediction the perturbation changed are summarised apart: their maps explain another class than
the network sees.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch

import salience as sal
from _common import DATA, Claim, Report, beyond, difference, estimated, images_of, main, mean_cell, number, parser, photographs, positive, rise, rows, values
from _panels import OVERLAID, Panel, overlaid, photograph, sheet
from salience.core.draws import streams
from salience.core.metric import Case, Judgement, Metric
from salience.core.registry import register
from salience.core.robustness import Variant, compared
from salience.studies.store import Store
from salience.studies.study import Study
from salience.studies.work import RELATIVE_ERROR, model_of, seeds_of

PERTURBATIONS = {"gaussian_noise": "noise, sd 25 of 255", "gaussian_blur": "blur, 5 x 5", "horizontal_flip": "horizontal flip"}
SIMILARITIES = {"ssim": "SSIM", "cosine": "cosine", "mse": "MSE", "pearson": "Pearson's correlation (the cosine of maps less their means)", "spearman": "rank correlation"}
RAW = "raw_cosine"
"""The cosine of maps as they are."""

SMOOTHGRAD = "smoothgrad:samples=20,noise_level=0.2,absolute=true"

PUBLISHED = {
    ("gaussian_noise", "SmoothGrad"): (0.3537, 0.8744, 0.008),
    ("gaussian_noise", "RISE"): (0.3762, 0.9963, 0.1023),
    ("gaussian_blur", "SmoothGrad"): (0.3264, 0.8493, 0.0104),
    ("gaussian_blur", "RISE"): (0.2951, 0.9961, 0.1238),
    ("horizontal_flip", "SmoothGrad"): (0.2584, 0.8353, 0.0134),
    ("horizontal_flip", "RISE"): (0.4827, 0.9964, 0.1047),
}
"""Figure 4: means over 15 pictures."""

PRINTED = {"ssim": 0, "cosine": 1, "mse": 2, RAW: 1}
"""Where among these numbers each similarity is."""

PUBLISHED_METHODS, OURS, QUARTER = ("SmoothGrad", "RISE"), "RISE, our estimator", "RISE, a quarter of the masks"
REPORT_MASKS, REPORT_PICTURES, GRID = 2000, 15, 8
"""As RISE's authors have it in their Keras example, which the report seems to have followed."""

VARIANTS: dict[Variant, str] = {"common": "same draws", "fresh": "new draws"}


@register("metric", "raw_cosine", higher_is_better=True, category="robustness", needs_explainer=True, cites="the report (000)")
class RawCosine(Metric):
    """The cosine of the maps of a picture and of the perturbed picture as they are, where a study's similarities bring both to 0..1 first.

    Cost: one map an image.

    Source: the report on SmoothGrad and RISE (000), figure 4, whose cosine seems to be of such maps. Differs from the source: which does not say so.
    """

    perturbation: Annotated[Any, sal.Perturbation] = sal.option(sal.GaussianNoise, "what is done to the picture")
    variant: Variant = sal.option("common", "which two maps are compared")

    def judge(self, case: Case) -> Judgement:
        """The cosine of the two maps."""
        explainer, model = case.explainer, case.model
        assert explainer is not None
        view = model.using(score=model.named_score(case.score, explainer.score))
        pair = compared(explainer, view, case.images, case.targets, case.draws, self.perturbation, self.variant, case.maps)
        return Judgement(sal.similarity("cosine", *pair.raw))


def raw_cosine(perturbation: str, variant: str) -> str:
    """`RawCosine` as rows have it; the floor knows no perturbation."""
    return str(RawCosine(sal.Perturbation.from_value(next(iter(PERTURBATIONS)) if variant == "floor" else perturbation), variant))


class Results:
    """The rows of both studies, found by what they are called here.

    Attributes:
        methods: The specification of each method by its name in the tables.
    """

    def __init__(self, gradients: Store, masked: Store, masks: int) -> None:
        self.methods = {
            "SmoothGrad": SMOOTHGRAD,
            "RISE": rise(masks, "original", GRID),
            OURS: rise(masks, "crossfit", GRID),
            QUARTER: rise(max(masks // 4, 1), "original", GRID),
            "edges": "edges",
            "random": "random",
        }
        self.gradients, self.masked = gradients, masked
        self.specified = {str(sal.Explainer.from_value(each)) for each in gradients.described()["study"]["methods"]}

    def rows_of(self, name: str) -> tuple[Store, str]:
        """Where a method's rows are, and its specification there."""
        method = str(sal.Explainer.from_value(self.methods[name]))
        return self.gradients if method in self.specified else self.masked, method

    def of(self, name: str, metric: str, perturbation: str = "", variant: str = "", *, changed: bool = False) -> np.ndarray:
        """Values (images, seeds).

        Args:
            name: Of the method.
            metric: A metric, a similarity, or `RAW`.
            perturbation: Which; values of other pictures than those whose prediction it left are NaN.
            variant: How maps were compared.
            changed: Of the pictures whose prediction it changed, instead.
        """
        if metric == RAW:
            found = values(*self.rows_of(name), raw_cosine(perturbation, variant))
        else:
            found = values(*self.rows_of(name), metric, perturbation="" if variant == "floor" else perturbation, variant=variant)
        return np.where(self.changed(name, perturbation) == changed, found, np.nan) if perturbation else found

    def changed(self, name: str, perturbation: str) -> np.ndarray:
        """Whether a perturbation changed the prediction, (images, seeds) of 0 and 1."""
        return values(*self.rows_of(name), "ssim", perturbation=perturbation, variant="common", column="prediction_changed")


def studies(given: argparse.Namespace) -> tuple[Study, Study]:
    """SmoothGrad and the controls in float32, because bfloat16 changes gradients; RISE with a model that remembers."""
    common = {
        "data": photographs(given.photos, given) | {"targets": "predicted"},
        "metrics": [*SIMILARITIES, *dict.fromkeys(raw_cosine(each, variant) for each in PERTURBATIONS for variant in variants_of(each))],
        "perturbations": list(PERTURBATIONS),
        "fit": "squash",
    }
    masks = given.masks
    risen = [rise(masks, "original", GRID), rise(masks, "crossfit", GRID), rise(max(masks // 4, 1), "original", GRID)]
    first = Study.model_validate(common | {"name": "SmoothGrad under perturbations", "models": given.model, "methods": [SMOOTHGRAD, "edges", "random"]})
    second = Study.model_validate(common | {"name": "RISE under perturbations", "models": f"python:_remembering:{given.model}@{given.precision}", "methods": risen})
    return first, second


def variants_of(perturbation: str) -> tuple[Variant, ...]:
    """The variants that differ: only of a flip is there anything to undo."""
    return ("common", "as_is", "fresh", "floor") if perturbation == "horizontal_flip" else ("common", "fresh", "floor")


def at_masks(floor: np.ndarray, masks: int, wanted: int) -> np.ndarray:
    """The correlation of two maps of the same picture by independent masks, at another number of masks.

    It is s / (s + v / N), with s the variance over pixels of the true map and v that of the noise of one mask.
    """
    return 1 / (1 + (1 / np.where(floor > 0, floor, np.nan) - 1) * masks / wanted)


def without_noise(floor: np.ndarray, fresh: np.ndarray) -> np.ndarray:
    """The correlation that two maps would have without noise: what is measured, divided by the maps' reliability.

    The reliability of a map is the correlation of two maps of the same picture by independent draws; that of the perturbed picture's map is taken to be the same.
    """
    return fresh / np.where(floor > 0, floor, np.nan)


def noise_share(floor: np.ndarray, fresh: np.ndarray) -> np.ndarray:
    """The share of what two maps lack to a correlation of 1 that is there without any perturbation too."""
    return (1 - floor) / np.where(fresh < 1, 1 - fresh, np.nan)


def figure_4(report: Report, found: Results) -> None:
    """The report's table, one similarity at a time."""
    for similarity, title in SIMILARITIES.items():
        similarity_table(report, found, similarity, f"{title}, maps brought to 0..1")
    similarity_table(report, found, RAW, "cosine, maps as they are")
    report.text(
        "The report's cosine of RISE, 0.996, is what maps have that lie far from 0 everywhere, whatever they show: compare the cosines of maps as they are with those of maps brought to 0..1. "
        "Two maps of equal mean square r within 0..1 have an MSE of 2 r (1 - cosine), with that cosine at most 0.007: an MSE of 0.10 is either of other maps than the cosine, or a change of the maps' level "
        "(of the class's probability), not of their pattern."
    )


def similarity_table(report: Report, found: Results, similarity: str, title: str) -> None:
    """All methods under all perturbations; pictures whose prediction changed apart, at the right."""
    lines, place = [], PRINTED.get(similarity)
    for perturbation, shown in PERTURBATIONS.items():
        for name in (each for each in found.methods if each != QUARTER):
            cells = {each: mean_cell(found.of(name, similarity, perturbation, each)) for each in variants_of(perturbation)}
            apart = [mean_cell(found.of(name, similarity, perturbation, each, changed=True)) for each in VARIANTS]
            changed, published = found.changed(name, perturbation), PUBLISHED.get((perturbation, name))
            line = [f"{shown}: {name}", f"{int(np.sum(changed == 0))} and {int(np.sum(changed == 1))}", "-" if published is None or place is None else number(published[place])]
            lines.append([*line, *(cells.get(each, "as common") for each in ("common", "as_is", "fresh", "floor")), *apart])
    report.table(title, ["", "pictures and apart", "published", "common", "as_is", "fresh", "floor", *(f"apart: {each}" for each in VARIANTS)], lines)


def share_at(masks: int, wanted: int) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """`noise_share` foretold for another number of masks, from the correlations at this one."""

    def foretold(floor: np.ndarray, fresh: np.ndarray) -> np.ndarray:
        more = at_masks(floor, masks, wanted)
        return noise_share(more, np.minimum(without_noise(floor, fresh), 1) * more)

    return foretold


def mask_noise(report: Report, found: Results, masks: int) -> None:
    """Whether what RISE's figures show is its masks."""
    lines = []
    for name in (*PUBLISHED_METHODS, OURS):
        floor, fresh = found.of(name, "pearson", variant="floor"), [found.of(name, "pearson", each, "fresh") for each in PERTURBATIONS]
        lines.append([name, mean_cell(found.of(name, RELATIVE_ERROR)), mean_cell(floor), *(mean_cell(each) for each in fresh)])
    report.table("Correlations of maps with new draws", ["", "relative error", "same picture", *PERTURBATIONS.values()], lines)

    lines = []
    for name in (*PUBLISHED_METHODS, OURS):
        floor, fresh = found.of(name, "pearson", variant="floor"), [found.of(name, "pearson", each, "fresh") for each in PERTURBATIONS]
        lines.append([f"{name}: correlation without noise", *(estimated(without_noise, floor, each) for each in fresh)])
        lines.append([f"{name}: share of the loss that is noise", *(estimated(noise_share, floor, each) for each in fresh)])
    floor = found.of("RISE", "pearson", variant="floor")
    lines.append([f"RISE: that share foretold for {REPORT_MASKS} masks", *(estimated(share_at(masks, REPORT_MASKS), floor, found.of("RISE", "pearson", each, "fresh")) for each in PERTURBATIONS)])
    report.table("What of the loss is noise of the method, what is the perturbation", ["", *PERTURBATIONS.values()], lines)
    quarter = max(masks // 4, 1)
    less = found.of(QUARTER, "pearson", variant="floor")
    report.text(
        "The correlation without noise is that with new draws divided by that of the same picture: what endless draws would leave (a little above 1 is 1). The share of the loss that is noise is "
        "(1 - same picture) / (1 - perturbed); 1 means that the perturbation adds nothing to what new draws do. "
        f"Numbers for {REPORT_MASKS} masks follow from the correlation of two maps of one picture, s / (s + v / N): the same picture gives {estimated(lambda each: at_masks(each, masks, REPORT_MASKS), floor)} there. "
        f"Check of that law: {quarter} masks give {mean_cell(less)} and so foretell {estimated(lambda each: at_masks(each, quarter, masks), less)} for {masks}; measured {mean_cell(floor)}."
    )


def claims(found: Results, masks: int) -> list[Claim]:
    """What the report says, tested."""
    made = []
    for perturbation, shown in PERTURBATIONS.items():
        ours, theirs = PUBLISHED[perturbation, "RISE"], PUBLISHED[perturbation, "SmoothGrad"]
        for place, (similarity, words) in enumerate((("ssim", "SSIM"), ("cosine", "cosine"), ("mse", "MSE"))):
            a, b = (found.of(name, similarity, perturbation, "fresh") for name in ("RISE", "SmoothGrad"))
            made.append(
                difference(f"RISE has a higher {words} than SmoothGrad: {shown} ({masks} masks, new draws, flip undone, maps brought to 0..1).", f"{ours[place]} and {theirs[place]}", a, b, ">")
            )
        a, b = found.of(OURS, "ssim", perturbation, "fresh"), found.of("SmoothGrad", "ssim", perturbation, "fresh")
        made.append(difference(f"The same with less mask noise (our estimator): higher SSIM under {shown}.", "not studied", a, b, ">"))
        common, floor = found.of("RISE", "ssim", perturbation, "common"), found.of("RISE", "ssim", variant="floor")
        made.append(
            difference(
                f"RISE's map changes less under {shown} with the same masks than with new masks on the same picture (SSIM; the same masks share their noise).", "not studied", common, floor, ">"
            )
        )
        correlations = found.of("RISE", "pearson", variant="floor"), found.of("RISE", "pearson", perturbation, "fresh")
        statement = f"What RISE's maps lose under {shown} with {REPORT_MASKS} masks is mostly mask noise, not fragility (share above one half, foretold from {masks} masks)."
        made.append(beyond(statement, "not studied; the report takes all of it for the perturbation's", share_at(masks, REPORT_MASKS), ">", 0.5, *correlations))
    for name in ("SmoothGrad", "RISE"):
        a, b = (found.of(name, "ssim", "horizontal_flip", each) for each in ("common", "as_is"))
        made.append(difference(f"{name} under a flip looks worse if the map is not flipped back (lower SSIM).", "not studied; SmoothGrad's flip is its worst case there", a, b, ">"))
    return made


def drawn(report: Report, given: argparse.Namespace, found: Results, study: Study) -> None:
    """Figures 1 to 3 for the first picture."""
    item = study.data.load()[0]
    plain, remembering = (model_of(each, study.device, study.precision, study.chunk) for each in (given.model, study.models[0]))
    image = sal.load_images([item.picture], plain, "squash")
    source = streams([seeds_of(study, item.name, 0)], 1)
    tensor = image.as_subclass(torch.Tensor)
    shown: list[tuple[str, list]] = []
    for name in ("SmoothGrad", "RISE", OURS):
        model = plain if name == "SmoothGrad" else remembering
        e = sal.explain(found.methods[name], model, image, seed=[seeds_of(study, item.name, 0)])
        for variant, said in VARIANTS.items():
            pairs = [compared(sal.Explainer.from_value(found.methods[name]), model, tensor, e.targets, source, sal.Perturbation.from_value(each), variant, e.maps) for each in PERTURBATIONS]
            if not shown:
                classes = [plain.label(int(plain.outputs(pair.images).argmax(1))) for pair in pairs]
                shown.append(("as the network sees it", [photograph(tensor[0]), *(photograph(pair.images[0], f"predicted: {each}") for pair, each in zip(pairs, classes, strict=True))]))
            perturbed = [Panel(overlaid(pair.perturbed[0], tensor[0]), f"SSIM {float(sal.similarity('ssim', pair.clean, pair.perturbed)):.2f}") for pair in pairs]
            shown.append((f"{name}, {said}", [Panel(overlaid(pairs[0].clean[0], tensor[0])), *perturbed]))
    legend = f"Maps of {item.name} ({plain.label(int(e.targets[0]))}); the flipped picture's map is flipped back. SSIM is to the map of the picture itself."
    report.picture("figures_1_to_3", sheet(["picture", *PERTURBATIONS.values()], shown, legend, OVERLAID), f"Figures 1 to 3: {item.name}, its perturbed versions and their maps")


def work(given: argparse.Namespace) -> None:
    """Run, tabulate, judge, draw."""
    given.model = given.model or ("torchvision:vgg16" if given.full else "efficientnet-lite0")
    given.masks = given.masks or (REPORT_MASKS if given.full else 250)
    report = Report(given, "SmoothGrad and RISE under perturbations (report 000, figures 1 to 4)")
    first, second = studies(given)
    found = Results(rows(first, given.out / "smoothgrad", given), rows(second, given.out / "rise", given), given.masks)
    images = len(images_of(found.masked))
    report.text(
        f"Here: {images} pictures from {first.data.options['root']}, {given.model}, {given.masks} masks (RISE in {given.precision}). The report: {REPORT_PICTURES} pictures that are not to be had, VGG16, {REPORT_MASKS} masks. "
        "The maps explain the class predicted for the unchanged picture. 'Pictures and apart': how many keep their prediction under the perturbation, and how many do not; the latter are left out of everything but the columns 'apart'. "
        "Cells: mean over pictures and its 95 % interval. SmoothGrad's channels are summed here, where tf-keras-vis takes their largest."
    )
    figure_4(report, found)
    mask_noise(report, found, given.masks)
    report.claims(claims(found, given.masks))
    drawn(report, given, found, second)
    report.done()


def options() -> argparse.ArgumentParser:
    """The script's options."""
    made = parser("report_robustness", __doc__, limit=16, full=REPORT_PICTURES)
    made.add_argument("--photos", type=Path, default=DATA / "imagenet_photos", metavar="DIR", help=f"photographs (default: {DATA / 'imagenet_photos'}, else those of scikit-image)")
    made.add_argument("--model", metavar="NAME", help="the network (default: efficientnet-lite0; with --full torchvision:vgg16)")
    made.add_argument("--masks", type=positive, metavar="N", help=f"masks of RISE (default: 250; with --full the report's {REPORT_MASKS})")
    return made


if __name__ == "__main__":
    sys.exit(main(options(), work))
