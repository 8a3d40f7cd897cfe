"""NoiseGrad (2022), figures 3, 5 and 9: localisation (AUC) of gradients over a grid of noise in the picture and noise in the weights, and beside the accuracy that the noise costs.

The paper: 200 pictures of CMNIST, ResNet-9 (figure 9: all its networks). Here: the networks that come with the package, fewer pictures and draws. Each method's best level is
chosen on one half of the pictures and judged on the other, both ways round. With --full: 200 pictures and the paper's draws.
"""

import argparse
import sys
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

import salience as sal
from _common import Claim, Report, difference, estimated, main, mean_cell, number, parser, plain, rows, values
from _noisegrad import ALPHA, BASELINE, FG, NG, PAPER, RESNET9, SEEDS, SG, SHARED, SMALL, Levels, add_options, architecture, data, described, levels, network, noisy
from _panels import LINES, Panel, map_panel, photograph, sheet
from salience.perturb.tune import WEIGHT_LEVELS
from salience.show.overlay import FAINT, INK, drawing
from salience.studies.statistics import bootstrap_interval, per_image
from salience.studies.study import Data, Study

ALPHAS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5)
"""Noise in the picture, in shares of the range of the normalised picture."""

ABOVE = 3
"""Levels of weight noise above the heuristic's."""

METRIC = "localisation_auc"
PICTURES = 200
SHOWN = 4
"""Pictures of figure 5."""

MARGIN = 0.01
"""What an AUC may lack to count as near the best."""

At = tuple[float, float]
"""Noise in the picture (in shares of the range of the normalised one) and in the weights."""


@dataclass(frozen=True)
class Grid:
    """All that was measured of one network.

    Attributes:
        name: Of the network.
        at: The heuristics' levels.
        sigmas: Levels of weight noise, from 0 on.
        areas: AUC (images, seeds) at each pair of levels.
    """

    name: str
    at: Levels
    sigmas: list[float]
    areas: dict[At, np.ndarray]

    @property
    def heuristics(self) -> dict[str, At]:
        """Where the heuristics put each method."""
        half = next(sigma for sigma in self.sigmas if abs(2 * sigma / self.at.ng - 1) < 1e-3)
        return {SG: (ALPHA, 0.0), NG: (0.0, self.at.ng), FG: (ALPHA / 2, half)}

    @property
    def belonging(self) -> dict[str, list[At]]:
        """The levels that belong to each method: those with its kinds of noise."""
        return {
            SG: [at for at in self.areas if at[0] and not at[1]],
            NG: [at for at in self.areas if at[1] and not at[0]],
            FG: [at for at in self.areas if at[0] and at[1]],
        }

    def mean(self, at: At) -> float:
        """The mean AUC."""
        return float(np.nanmean(per_image(self.areas[at]).values))


def weight_levels(at: Levels) -> list[float]:
    """0, the heuristic's level and half of it, and levels around these at which `salience tune` measured the drop of accuracy."""
    known = sorted({row.weight_sigma for row in at.tuning.rows if row.weight_sigma in WEIGHT_LEVELS})
    below = [sigma for sigma in known if at.ng / 8 <= sigma < 0.45 * at.ng][-2:]
    above = [sigma for sigma in known if sigma > 1.1 * at.ng][:ABOVE]
    return [0.0, *below, float(f"{at.ng / 2:.4g}"), at.ng, *above]


def measured(given: argparse.Namespace, name: str, alphas: tuple[float, ...]) -> Grid:
    """Run one network."""
    at, draws = levels(network(name), given), PAPER if given.full else SMALL
    sigmas = weight_levels(at)
    found = {(alpha, sigma): noisy("gradient", at.sg * alpha / ALPHA, sigma, draws) for alpha in alphas for sigma in sigmas}
    study = Study(name="NoiseGrad, figures 3, 5 and 9", models=[name], data=Data(**data(given)), methods=list(found.values()), metrics=[METRIC], seeds=SEEDS[:2])
    store = rows(study, given.out / plain(name), given)
    return Grid(name, at, sigmas, {each: values(store, method, METRIC) for each, method in found.items()})


def chosen(areas: dict[At, np.ndarray], belonging: list[At]) -> tuple[np.ndarray, list[At]]:
    """AUC at the best level, chosen on other pictures: of each half of the pictures at what is best on the other half.

    Args:
        areas: AUC (images, seeds) by level.
        belonging: The levels to choose among.

    Returns:
        AUC (images, seeds), and the two choices.
    """
    images = len(next(iter(areas.values())))
    halves = [np.arange(images) % 2 == half for half in (0, 1)]
    found, choices = np.full_like(next(iter(areas.values())), np.nan), []
    for own, other in (halves, halves[::-1]):
        best = max(belonging, key=lambda at: float(np.nanmean(areas[at][other])))
        found[own] = areas[best][own]
        choices.append(best)
    return found, choices


def gain(area: np.ndarray, base: np.ndarray) -> np.ndarray:
    """The paper's dAUC: AUC / AUC of Baseline - 1, of means."""
    return area / base - 1


def grid_table(report: Report, grid: Grid) -> None:
    """Figure 3, left: dAUC by level."""
    base = grid.mean((0.0, 0.0))
    alphas = sorted({alpha for alpha, _ in grid.areas})
    marks = {at: name for name, at in grid.heuristics.items()}
    lines = []
    for alpha in reversed(alphas):
        lines.append([f"{alpha:g}", *(f"{grid.mean((alpha, sigma)) / base - 1:+.4f}{f' {marks[alpha, sigma]}' if (alpha, sigma) in marks else ''}" for sigma in grid.sigmas)])
    report.table(
        f"Figure 3, left: dAUC = AUC / AUC(Baseline) - 1, {architecture(grid.name)}; down: noise in the picture (share of the normalised range), across: weight noise; the heuristics' levels are named",
        ["", *(f"{sigma:.3g}" for sigma in grid.sigmas)],
        lines,
    )


def heat(grid: Grid) -> Figure:
    """The same as a picture."""
    base, alphas = grid.mean((0.0, 0.0)), sorted({alpha for alpha, _ in grid.areas}, reverse=True)
    table = np.array([[grid.mean((alpha, sigma)) / base - 1 for sigma in grid.sigmas] for alpha in alphas])
    with drawing():
        made = Figure(figsize=(1.6 + 0.95 * len(grid.sigmas), 1.3 + 0.62 * len(alphas)), dpi=100, layout="constrained")
        axes = made.subplots()
        largest = float(np.abs(table).max()) or 1.0
        shown = axes.imshow(table, cmap="RdBu", vmin=-largest, vmax=largest, aspect="auto")
        for row, values_of in enumerate(table):
            for column, value in enumerate(values_of):
                name = next((name for name, at in grid.heuristics.items() if at == (alphas[row], grid.sigmas[column])), "")
                axes.text(column, row, f"{value:+.3f}\n{name}".strip(), ha="center", va="center", size=8, color="white" if abs(value) > 0.6 * largest else INK, weight="bold" if name else "normal")
        axes.set_xticks(range(len(grid.sigmas)), [f"{sigma:.3g}" for sigma in grid.sigmas])
        axes.set_yticks(range(len(alphas)), [f"{alpha:g}" for alpha in alphas])
        axes.set_xlabel("noise in the weights (weight_sigma)", fontsize=9)
        axes.set_ylabel("noise in the picture, share of its range", fontsize=9)
        axes.tick_params(labelsize=8, length=0)
        axes.set_title(f"dAUC, {architecture(grid.name)}; SG, NG and FG: their heuristics", fontsize=10, weight="bold", loc="left")
        made.colorbar(shown, ax=axes).ax.tick_params(labelsize=8)
        return made


def best_table(report: Report, grid: Grid) -> dict[str, np.ndarray]:
    """Figure 3, right: each method at its best level, chosen on other pictures."""
    base, lines, found = grid.areas[0.0, 0.0], [], {}
    for name, belonging in grid.belonging.items():
        area, choices = chosen(grid.areas, belonging)
        found[name] = area
        spread = float(np.nanstd(per_image(area).values, ddof=1))
        levels_chosen = " and ".join(dict.fromkeys(f"{alpha:g}, {sigma:.3g}" for alpha, sigma in choices))
        lines.append([name, levels_chosen, mean_cell(area, name in SHARED), f"{spread:.4f}", estimated(gain, area, base), mean_cell(grid.areas[grid.heuristics[name]], name in SHARED)])
    lines.append([BASELINE, "0, 0", mean_cell(base), f"{float(np.nanstd(per_image(base).values, ddof=1)):.4f}", "", mean_cell(base)])
    heads = ["", "best levels on the two halves: picture, weights", "AUC there, on the other half", "sd over pictures", "dAUC", "AUC at the heuristic's level"]
    report.table(f"Figure 3, right: the best levels, chosen on other pictures, {architecture(grid.name)} (the paper has no numbers)", heads, lines)
    report.text("Intervals of AUC count NG's and FG's draws of weights, which all pictures of a seed share, as well as the pictures; those of dAUC are over pictures alone, for the weights drawn.")
    return found


def drop_table(report: Report, grid: Grid) -> list[tuple[float, float, float]]:
    """Figure 9: AUC of NG beside the drop of accuracy; (drop, AUC, weight noise) of each level."""
    known = {float(f"{row.weight_sigma:.4g}"): row for row in grid.at.tuning.rows if not row.noise_level}
    lines, found = [], [(0.0, grid.mean((0.0, 0.0)), 0.0)]
    for sigma in grid.sigmas:
        row = known.get(sigma)
        drop = "0" if not sigma else "-" if row is None else f"{100 * row.drop:.1f}" + ("" if row.low is None else f" [{100 * row.low:.1f}, {100 * row.high:.1f}]")
        changed = "0" if not sigma else "-" if row is None else f"{row.changed:.1%}"
        if row is not None and sigma:
            found.append((row.drop, grid.mean((0.0, sigma)), sigma))
        lines.append([f"{sigma:.3g}{' (heuristic)' if sigma == grid.at.ng else ''}", drop, changed, mean_cell(grid.areas[0.0, sigma], bool(sigma))])
    report.table(
        f"Figures 5 and 9: NG on {architecture(grid.name)}, accuracy on {grid.at.tuning.basis.images} pictures of another random order",
        ["weight_sigma", "relative drop of accuracy, %", "draws that change the class", "AUC of NG"],
        lines,
    )
    return found


def dropped(lines: dict[str, list[tuple[float, float, float]]], grids: list[Grid]) -> Figure:
    """Figure 9 as a picture."""
    with drawing():
        made = Figure(figsize=(7, 4.2), dpi=100, layout="constrained")
        axes = made.subplots()
        for number_of, (name, points) in enumerate(lines.items()):
            ordered = sorted(points, key=lambda each: each[2])
            grid = grids[number_of]
            drop, area = 100 * np.array([each[0] for each in ordered]), np.array([each[1] for each in ordered])
            ends = [bootstrap_interval(grid.areas[0.0, each[2]], shared_seeds=bool(each[2])) for each in ordered]
            axes.errorbar(
                drop, area, np.abs(np.array([[end.low, end.high] for end in ends]).T - area), color=LINES[number_of], marker="o", ms=4, lw=1.4, elinewidth=0.7, capsize=2, label=architecture(name)
            )
        axes.axvline(5, color=FAINT, lw=0.9, ls="--", label="drop of 5 %")
        axes.set_xlabel("relative drop of accuracy under the weight noise, %", fontsize=9)
        axes.set_ylabel("AUC of NG (95 % interval)", fontsize=9)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(fontsize=8, frameon=False)
        return made


def gallery(given: argparse.Namespace, grid: Grid) -> Figure:
    """Figure 5: NG's maps as the weight noise grows."""
    model = network(grid.name)
    items = [item for _, item in zip(range(SHOWN), sal.load_dataset("cmnist", root=str(given.data), shuffle=0), strict=False)]
    images = sal.load_images([item.picture for item in items], model)
    draws = PAPER if given.full else SMALL
    targets, seeds = [item.labels[0] for item in items], [(place, 0) for place in range(len(items))]
    found = [sal.explain(noisy("gradient", 0.0, sigma, draws), model, images, targets, seed=seeds) for sigma in grid.sigmas]
    lines: list[tuple[str, list[Panel | None]]] = []
    for place, item in enumerate(items):
        panels: list[Panel | None] = [photograph(images.as_subclass(Tensor)[place], f"predicted: {found[0].record['images']['prediction'][place]}")]
        for e in found:
            kept = e.record["images"].get("class_kept")
            panels.append(map_panel(e.maps[place, 0], "" if kept is None else f"class kept in {kept[place]:.0%} of the draws"))
        lines.append((f"digit {item.labels[0]}", panels))
    heads = ["the picture", *(f"weight_sigma {sigma:.3g}{' (heuristic)' if sigma == grid.at.ng else ''}" for sigma in grid.sigmas)]
    return sheet(heads, lines, f"Gradients, {architecture(grid.name)}, averaged over {draws.single} draws of weights.")


def claims(grid: Grid, best: dict[str, np.ndarray], full_grid: bool) -> list[Claim]:
    """What the paper says of these figures."""
    net, base = architecture(grid.name), grid.areas[0.0, 0.0]
    made = []
    for name, at in grid.heuristics.items():
        if at in grid.areas:
            made.append(difference(f"{net}: {name} at the heuristic's level localises better than Baseline", "figures 3 and 9, by eye", grid.areas[at], base, ">", shared_seeds=bool(at[1])))
            statement = f"{net}: {name}'s heuristic gives the highest AUC (the best level, chosen on other pictures, has less than {MARGIN} more; ours is how much more, less {MARGIN})"
            made.append(difference(statement, "figure 3, by eye", best[name] - grid.areas[at], MARGIN, "<", shared_seeds=bool(at[1])))
    strongest = grid.areas[0.0, grid.sigmas[-1]]
    statement = f"{net}: with too much weight noise ({grid.sigmas[-1]:.3g}) maps are worse than at the heuristic's level ({grid.at.ng:.3g})"
    made.append(difference(statement, "figures 5 and 9, by eye", strongest, grid.areas[0.0, grid.at.ng], "<", shared_seeds=True))
    if full_grid:
        made += [difference(f"{net}: at the best levels FG has a higher AUC than {name}", "figure 3, right, by eye", best[FG], best[name], ">", shared_seeds=True) for name in (SG, NG)]
    return made


def work(given: argparse.Namespace) -> None:
    """Run every network, tabulate, draw, judge."""
    for name in given.models:
        network(name)
    first = next((name for name in given.models if architecture(name) == RESNET9.removeprefix("cmnist-")), given.models[0])
    report = Report(given, "NoiseGrad, figures 3, 5 and 9: how much noise")
    report.text(
        f"Here: {'; '.join(map(described, given.models))}; the grid of figure 3 on {architecture(first)}, the other networks without noise in the picture. {PAPER if given.full else SMALL} draws, {given.limit} pictures, {len(SEEDS[:2])} seeds. "
        "The class explained is the digit's; maps are absolute values summed over channels, before averaging."
    )
    made, lines, grids = [], {}, []
    for name in given.models:
        grid = measured(given, name, ALPHAS if name == first else (0.0,))
        grids.append(grid)
        report.text(f"{architecture(name)}. {grid.at.sentence()}")
        if name == first:
            grid_table(report, grid)
            report.picture("figure-3", heat(grid), "Figure 3, left: relative gain of AUC over Baseline")
            best = best_table(report, grid)
            report.picture("figure-5", gallery(given, grid), "Figure 5: maps as the weight noise grows")
        else:
            best = {NG: chosen(grid.areas, grid.belonging[NG])[0]}
        lines[name] = drop_table(report, grid)
        made += claims(grid, best, name == first)
    report.picture("figure-9", dropped(lines, grids), "Figure 9: AUC of NG beside the drop of accuracy; bars are 95 % intervals over pictures and draws of weights")
    for grid, points in zip(grids, lines.values(), strict=True):
        drop, area, sigma = max(points, key=lambda each: each[1])
        report.text(
            f"{architecture(grid.name)}: of the levels with a measured drop, AUC is highest ({number(area)}) at weight_sigma {sigma:.3g}, where accuracy drops by {100 * drop:.1f} %; the paper's figure has the peak at 5 %."
        )
    report.claims(made)
    report.done()


def options() -> argparse.ArgumentParser:
    """The script's options."""
    return add_options(parser("noisegrad_noise_levels", __doc__, 24, full=PICTURES), several=True)


if __name__ == "__main__":
    sys.exit(main(options(), work))
