"""NoiseGrad (2022), figure 12: how many draws NG, SG and FG need, by the errors that the engine itself reports.

The paper: two photographs by a ResNet-18 of PASCAL VOC, judged by eye: nothing changes beyond 25 draws. Here: the relative error of every map, and localisation, on CMNIST
pictures as the draws grow; and two photographs by the default model. With --full: 200 pictures and 800 draws.
"""

import argparse
import sys

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

import salience as sal
from _common import Claim, Report, difference, estimated, main, mean_cell, parser, rows, values
from _common import network as default
from _noisegrad import FG, NG, SEEDS, SG, SHARED, Draws, Levels, add_options, data, described, levels, network, noisy
from _panels import LINES, Panel, map_panel, photograph, sheet
from models import data_file
from salience.show.overlay import FAINT, drawing
from salience.studies.statistics import per_image
from salience.studies.study import Data, Study
from salience.studies.work import RELATIVE_ERROR

NUMBERS = (5, 10, 25, 50, 100, 200)
"""Draws of NG and of SG."""

FUSION = ((5, 5), (10, 10), (20, 10), (10, 20))
"""Draws of weights and of input noise for each, of FG."""

ENOUGH = 25
"""The paper's number for NG."""

WANTED = (0.2, 0.1, 0.05)
"""Relative errors: standard error as a share of the map's own spread."""

MARGIN = 0.01
AREA, GINI = "localisation_auc", "gini"
SHOWN = (5, 10, 25, 50, 100)
"""Draws in the picture."""

Found = dict[str, dict[int | tuple[int, int], dict[str, np.ndarray]]]
"""Values (images, seeds) by method, draws and metric."""


def measured(given: argparse.Namespace, at: Levels, numbers: tuple[int, ...]) -> Found:
    """Run all numbers of draws: the first draws of many are those of few."""
    chosen: dict[tuple[str, int | tuple[int, int]], str] = {}
    for count in numbers:
        chosen[SG, count] = noisy("gradient", at.sg, 0.0, Draws(count, 1, 1))
        chosen[NG, count] = noisy("gradient", 0.0, at.ng, Draws(count, 1, 1))
    for weights, inputs in FUSION:
        chosen[FG, (weights, inputs)] = noisy("gradient", at.sg / 2, at.ng / 2, Draws(1, weights, inputs))
    study = Study(name="NoiseGrad, figure 12", models=[given.model], data=Data(**data(given)), methods=list(chosen.values()), metrics=[AREA, GINI], seeds=SEEDS[:2])
    store = rows(study, given.out / "rows", given)
    found: Found = {}
    for (name, count), method in zip(chosen, study.methods, strict=True):
        found.setdefault(name, {})[count] = {metric: values(store, method, metric) for metric in (RELATIVE_ERROR, *study.metrics)}
    return found


def needed(errors: np.ndarray, draws: int, wanted: float) -> np.ndarray:
    """Draws for a relative error, by the law that it falls with their root: of every map.

    Args:
        errors: Relative errors with so many draws.
        draws: How many.
        wanted: The relative error sought.
    """
    return draws * (errors / wanted) ** 2


def slope(first: np.ndarray, last: np.ndarray, draws: tuple[int, int]) -> np.ndarray:
    """The exponent with which the mean error falls between two numbers of draws."""
    return np.log(last / first) / np.log(draws[1] / draws[0])


def tables(report: Report, found: Found, numbers: tuple[int, ...]) -> None:
    """Errors and localisation by draws, and how many are needed."""
    lines = []
    for name, by_draws in found.items():
        for count, column in by_draws.items():
            passes = count if isinstance(count, int) else count[0] * count[1]
            text = str(count) if isinstance(count, int) else f"{count[0]} x {count[1]}"
            lines.append([f"{name}, {text}", str(passes), *(mean_cell(column[metric], name in SHARED) for metric in (RELATIVE_ERROR, AREA, GINI))])
    images = len(found[NG][ENOUGH][AREA])
    report.table(f"Draws, {images} pictures, {len(SEEDS[:2])} seeds (the paper has no numbers)", ["draws", "passes", "relative error of the map", "AUC", "Gini index"], lines)

    lines = []
    for name, most in ((SG, numbers[-1]), (NG, numbers[-1]), (FG, (10, 10))):
        each = per_image(found[name][most][RELATIVE_ERROR]).values
        outer, inner = most if isinstance(most, tuple) else (most, 1)
        cells = []
        for wanted in WANTED:
            quantiles = np.nanquantile(needed(each, outer, wanted), [0.5, 0.9])
            cells.append(" / ".join(f"{round(value)}" for value in quantiles) + (f" x {inner}" if inner > 1 else ""))
        lines.append([f"{name} (from {most if isinstance(most, int) else f'{most[0]} x {most[1]}'})", *cells])
    report.table("Draws needed for a relative error: half of the pictures / nine of ten", ["", *(f"{wanted:g}" for wanted in WANTED)], lines)
    text = [f"{name} {estimated(lambda a, b: slope(a, b, (ENOUGH, numbers[-1])), found[name][ENOUGH][RELATIVE_ERROR], found[name][numbers[-1]][RELATIVE_ERROR])}" for name in (SG, NG)]
    report.text(
        f"Exponent with which the mean error falls from {ENOUGH} to {numbers[-1]} draws, -0.5 by theory: {', '.join(text)}; these intervals are over pictures alone, for the weights drawn, those of the table count NG's and FG's draws of weights too. The relative error is the mean standard error of a map's values over the sd of the map's own values."
    )


def drawn(found: Found) -> Figure:
    """Relative error and AUC against the number of passes."""
    with drawing():
        made = Figure(figsize=(10, 4), dpi=100, layout="constrained")
        for axes, (metric, title) in zip(made.subplots(1, 2), {RELATIVE_ERROR: "relative error of the map", AREA: "AUC"}.items(), strict=True):
            for colour, (name, by_draws) in zip(LINES, found.items(), strict=False):
                points = sorted((count if isinstance(count, int) else count[0] * count[1], float(np.nanmean(per_image(column[metric]).values))) for count, column in by_draws.items())
                axes.plot(*zip(*points, strict=True), color=colour, marker="o", ms=4, lw=1.5, ls="none" if name == FG else "-", label=name)
            axes.axvline(ENOUGH, color=FAINT, lw=0.9, ls="--", label="25 passes")
            axes.set_xscale("log")
            if metric == RELATIVE_ERROR:
                axes.set_yscale("log")
            ticks = NUMBERS
            axes.set_xticks(ticks, [str(each) for each in ticks])
            axes.set_xticks([], minor=True)
            axes.set_xlabel("passes for a map", fontsize=9)
            axes.set_title(title, fontsize=10, weight="bold", loc="left")
            axes.tick_params(labelsize=8)
            axes.spines[["top", "right"]].set_visible(False)
        axes.legend(fontsize=8, frameon=False)
        return made


def gallery() -> Figure:
    """Figure 12: two photographs by the default model, more draws from left to right."""
    model = default()
    images = sal.load_images([data_file("photos", "catdog.png"), data_file("photos", "parrot.png")], model)
    sigma = model.carried_weight_sigma
    assert sigma is not None  # every model by that name has one
    found = [sal.explain(noisy("gradient", 0.0, sigma, Draws(count, 1, 1)), model, images) for count in SHOWN]
    lines: list[tuple[str, list[Panel | None]]] = []
    for place in range(len(images)):
        label = found[0].record["images"]["label"][place]
        panels: list[Panel | None] = [photograph(images.as_subclass(Tensor)[place], label)]
        panels += [map_panel(e.maps[place, 0], f"relative error {float(error[place]):.2f}" if (error := e.relative_error) is not None else "") for e in found]
        lines.append((str(label), panels))
    return sheet(["the picture", *(f"{count} draws" for count in SHOWN)], lines, f"NG of gradients by {model.name}, weight_sigma {sigma:g}. |map| summed over channels; the predicted class.")


def claims(found: Found, most: int) -> list[Claim]:
    """What the paper says of the number of draws."""
    ng = found[NG]
    few, many = ng[5], ng[most]

    by_eye, appendix = "figure 12, by eye", "appendix: 25 to 50 for NG, 10 x 10 for FG"
    less, error = f"less than {MARGIN} higher; ours is how much higher, less {MARGIN}", "a relative error below 0.1; ours is the error less 0.1"
    main_text = "N = 10 is sufficient for all methods"
    return [
        difference("NG's maps become better with more draws: AUC with 25 is higher than with 5", by_eye, ng[ENOUGH][AREA], few[AREA], ">", shared_seeds=True),
        difference(f"NG's quality no longer changes from 25 draws on: AUC with {most} is {less}", by_eye, many[AREA] - ng[ENOUGH][AREA], MARGIN, "<", shared_seeds=True),
        difference(f"25 draws of NG are enough: {error}", appendix, ng[ENOUGH][RELATIVE_ERROR], 0.1, "<", shared_seeds=True),
        difference(f"50 draws of NG are enough: {error}", appendix, ng[50][RELATIVE_ERROR], 0.1, "<", shared_seeds=True),
        difference(f"10 x 10 draws of FG are enough: {error}", appendix, found[FG][10, 10][RELATIVE_ERROR], 0.1, "<", shared_seeds=True),
        difference(f"10 draws of NG are enough: AUC with {most} is {less}", main_text, many[AREA] - ng[10][AREA], MARGIN, "<", shared_seeds=True),
        difference(f"10 draws of SG are enough: AUC with {most} is {less}", main_text, found[SG][most][AREA] - found[SG][10][AREA], MARGIN, "<"),
    ]


def work(given: argparse.Namespace) -> None:
    """Run, tabulate, draw, judge."""
    numbers = (*NUMBERS, 800) if given.full else NUMBERS
    at = levels(network(given.model), given)
    report = Report(given, "NoiseGrad, figure 12: how many draws")
    report.text(
        f"Here: {described(given.model)}, {given.limit} pictures of CMNIST. {at.sentence()} Maps are absolute values summed over channels, before averaging, so the errors are of what the paper shows."
    )
    found = measured(given, at, numbers)
    tables(report, found, numbers)
    report.picture("draws", drawn(found), "Relative error and AUC as draws grow")
    if not given.no_gallery:
        report.picture("figure-12", gallery(), "Figure 12: two photographs, more draws from left to right")
    report.claims(claims(found, numbers[-1]))
    report.text("That a relative error of 0.1 is enough is our reading of 'no longer changes'; for 0.05 four times as many draws are needed. AUCs at two numbers of draws share the first draws.")
    report.done()


def options() -> argparse.ArgumentParser:
    """The script's options."""
    found = add_options(parser("noisegrad_samples", __doc__, 16, full=200), several=False)
    found.add_argument("--no-gallery", action="store_true", help="leave out the photographs of figure 12")
    return found


if __name__ == "__main__":
    sys.exit(main(options(), work))
