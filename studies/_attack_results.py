"""What is said of the attacks of "Smoothed explanations" (2022): what was found, claims, tables, pictures of numbers."""

import dataclasses
import textwrap
from dataclasses import dataclass
from typing import Literal

import numpy as np
from matplotlib.figure import Figure

from _attacks import COLOURS, COMBINED, DELTA, EQUAL, KEPT, RECOLOR, STADV, Figures, Place, Subject, class_kept, with_draws
from _common import Claim, Report, beyond, difference, mean_cell
from salience.attacks._judge import HELD_OUT
from salience.show.overlay import drawing, write
from salience.studies.comparison import FEWEST_PAIRS

DELTAS = (EQUAL, 0.05, 0.1)
"""Budgets at which Delta alone is tried, to know what it reaches at any visible change."""

STRONGER = 2
"""The stronger attack has so many times the steps and the draws, and so many runs."""

SOFTER = 0.1
"""Its softplus grows from so many times the ordinary beta to that."""

CLOSE = 0.05
"""A difference of distances that counts as "very close" and "similar"."""


@dataclass(frozen=True)
class Found:
    """All attacks of a place.

    Attributes:
        place: The subjects and pictures.
        tables: Figures by subject, kind of attack and budget of Delta.
    """

    place: Place
    tables: dict[tuple[str, str, float], Figures]

    def cell(self, subject: Subject, kind: str, budget: float | None = None) -> Figures:
        """The figures of one attack, by default with the authors' budget."""
        return self.tables[subject.title, kind, subject.budget(kind) if budget is None else budget]

    def at(self, subject: Subject, kind: str, what: str, budget: float | None = None) -> np.ndarray:
        """One figure of one attack, of all pictures."""
        return self.cell(subject, kind, budget)[what]

    def same_change(self, subject: Subject, kind: str, measure: str = "changed") -> np.ndarray:
        """How much nearer a combined attack comes than Delta alone does at the same visible change: negative is nearer.

        NaN beyond what Delta was tried at, and where the combined attack, or Delta next to it on the line, changes the class.

        What Delta reaches between the budgets tried is taken to lie on straight lines over the logarithm of the change, where
        these curves bend little; over the change itself they are hollow, and lines between points would flatter the combined attack.
        """
        alone, combined = [self.cell(subject, DELTA, budget) for budget in DELTAS], self.cell(subject, kind, EQUAL)
        changes, reached = np.stack([each[measure] for each in alone]), np.stack([where_kept(each, "after") for each in alone])
        return where_kept(combined, "after") - along(np.log(changes), reached, np.log(combined[measure]))

    def same_budget(self, subject: Subject, kind: str) -> np.ndarray:
        """How much nearer a combined attack comes than Delta alone with the same budget of Delta; NaN where either changes the class."""
        return where_kept(self.cell(subject, kind, EQUAL), "after") - where_kept(self.cell(subject, DELTA, EQUAL), "after")


def where_kept(figures: Figures, what: str) -> np.ndarray:
    """One figure of an attack, NaN where it changes the class: such a change of the picture is no attack on its explanation."""
    return np.where(figures["kept"] == 0, np.nan, figures[what])


def compared(statement: str, published: str, what: str, first: Figures, second: Figures, says: Literal["<", ">"]) -> Claim:
    """The claim that a figure of one attack is less, or more, than that of another, tested on the pictures whose class both keep.

    Args:
        statement: What is claimed.
        published: The paper's numbers.
        what: The figure.
        first: One attack.
        second: The other, on the same pictures.
        says: ``<``: the claim is that the first one's is less.
    """
    made = difference(statement, published, *_both(what, first, second), says)
    return dataclasses.replace(made, ours=f"{made.ours}; {_left_out(first, second)}")


def as_near(statement: str, published: str, first: Figures, second: Figures) -> Claim:
    """The claim that one attack comes as near to the target as another, within `CLOSE`, tested on the pictures whose class both keep."""
    made = beyond(statement, published, lambda a, b: a - b, "<", CLOSE, *_both("after", first, second))
    return dataclasses.replace(made, ours=f"{made.ours}; {_left_out(first, second)}")


def _both(what: str, first: Figures, second: Figures) -> tuple[np.ndarray, np.ndarray]:
    """A figure of two attacks, NaN where either changes the class."""
    a, b = where_kept(first, what), where_kept(second, what)
    return np.where(np.isnan(b), np.nan, a), np.where(np.isnan(a), np.nan, b)


def _left_out(first: Figures, second: Figures) -> str:
    """How many pictures do not count in a comparison."""
    lost = (first["kept"] == 0) | (second["kept"] == 0)
    return f"left out, as an attack changes their class: {lost.sum()} of {len(lost)} pictures"


def resists(found: Found, subject: Subject, than: Subject, published: str) -> list[Claim]:
    """The claims that an explanation resists Delta better than another: by the paper's measure and budgets, and by the fall, with equal ones."""
    title = found.place.title
    statement = f"{subject.title} resists Delta better than {than.title}: a larger distance to the target, the authors' budgets ({title})"
    fall = f"The same by the share that the distance falls by, equal budgets: {subject.title} less than {than.title} ({title})"
    return [
        compared(statement, published, "after", found.cell(subject, DELTA), found.cell(than, DELTA), ">"),
        compared(fall, "not in the paper", "fall", found.cell(subject, DELTA, EQUAL), found.cell(than, DELTA, EQUAL), "<"),
    ]


def nearer(found: Found, subject: Subject, published: str) -> list[Claim]:
    """The claims that combined attacks come nearer to the target than Delta, with the authors' budgets."""
    statement = f"comes nearer to the target than Delta on {subject.title}, the authors' budgets ({found.place.title})"
    return [compared(f"{kind} {statement}", published, "after", found.cell(subject, kind), found.cell(subject, DELTA), "<") for kind in COMBINED]


def less_visible(found: Found, subject: Subject, kind: str, published: str) -> Claim:
    """The claim that a combined attack is less visible than Delta, with the authors' budgets."""
    measure, name = ("lpips as published", "LPIPS") if "lpips" in measures(found) else ("changed", "1 - SSIM (LPIPS in the paper)")
    statement = f"{kind} changes pictures less visibly than Delta on {subject.title}, the authors' budgets, by {name} ({found.place.title})"
    return compared(statement, published, measure, found.cell(subject, kind), found.cell(subject, DELTA), "<")


def along(x: np.ndarray, y: np.ndarray, at: np.ndarray) -> np.ndarray:
    """For each column, y at a given x, on straight lines between points; NaN outside of them.

    Args:
        x: (points, columns), in any order.
        y: Likewise.
        at: (columns,).
    """
    found = []
    for place in range(len(at)):
        order = x[:, place].argsort()
        found.append(np.interp(at[place], x[order, place], y[order, place], left=np.nan, right=np.nan))
    return np.array(found)


def all_attacks(place: Place, *, keep: bool = False) -> Found:
    """Every subject under every attack: the authors' budgets, equal ones, and Delta at several.

    Args:
        place: The subjects and pictures.
        keep: Keep the pictures and maps of the first file, for figure 5.
    """
    tables = {}
    for subject in place.subjects:
        kept = class_kept(subject.model, subject.method, place.pictures)
        wanted = {(DELTA, budget) for budget in DELTAS} | {(kind, EQUAL) for kind in COMBINED} | {(kind, subject.budget(kind)) for kind in COLOURS}
        for kind, budget in sorted(wanted, key=lambda each: (list(COLOURS).index(each[0]), each[1])):
            found = place.figures(subject, place.attack(subject, kind, budget), keep=keep)
            tables[subject.title, kind, budget] = {name: each if name in KEPT else np.where(kept, each, np.nan) for name, each in found.items()}
    return Found(place, tables)


def written(report: Report, place: Place, name: str, figure: str, *, keep: bool = False) -> Found:
    """Make all attacks of a place, and write their tables and pictures.

    Args:
        report: Takes them.
        place: The subjects and pictures.
        name: In names of pictures.
        figure: The paper's.
        keep: As `all_attacks` has it.
    """
    found = all_attacks(place, keep=keep)
    table(report, found)
    further_table(report, found)
    report.picture(f"bars-{name}", bars(found), f"{place.title}: distances and visible change (the paper's {figure})")
    report.picture(f"reach-{name}", reach(found), f"{place.title}: what attacks reach against how much they change the picture")
    return found


def method_text(place: Place) -> str:
    """How attacks are made and judged, for the results."""
    steps = "the authors' 500 or 1500 steps and rates" if place.size.steps is None else f"{place.size.steps} steps (the authors: 500 or 1500)"
    return (
        f"{place.title}: {len(place.pictures)} pictures that every network here classifies rightly; each one's map is pushed towards that of the next picture. Attacks: {steps}, softplus of beta {place.beta:g} for ReLU while attacking, "
        f"weights {place.constants.output:g} (change of the probabilities) and {place.constants.penalty:g} (roughness of flow and recolouring), which are the authors'. Explanations with noise: {place.size.draws} fresh draws in each step, "
        f"judged on {HELD_OUT} draws that the attack has not seen (the paper's explanations have 10). Distances are cosine distances of |map|, channels summed, on the network itself. Chance: "
        f"{'a random change' if place.size.random == 1 else f'the median of {place.size.random} random changes'} with the same budgets. Budgets: StAdv {STADV}, Recolor {RECOLOR}, Delta as printed. "
        "Tables and bars are of all pictures; attacks are compared with each other on the pictures whose class both keep."
    )


def table(report: Report, found: Found) -> None:
    """All attacks of a place."""
    cells = []
    for (title, kind, budget), each in found.tables.items():
        subject = next(subject for subject in found.place.subjects if subject.title == title)
        whose = " and ".join(name for name, holds in (("authors'", budget == subject.budget(kind)), ("equal", budget == EQUAL)) if holds)
        before, ssim, lpips = (mean_cell(values).split(" ")[0] for values in (each["before"], 1 - each["changed"], each["lpips as published"]))
        cells.append([f"{title}: {kind}", f"{budget:g}", whose, before, mean_cell(each["after"]), share(each["fall"]), share(each["random fall"]), ssim, lpips, share(each["kept"])])
    columns = [
        "explanation and attack",
        "Delta's budget",
        "whose",
        "distance to target before",
        "after, and 95 % interval",
        "fall",
        "fall by chance",
        "SSIM",
        "LPIPS (vgg, as published)",
        "class kept",
    ]
    report.table(f"{found.place.title}: {len(found.place.pictures)} pictures", columns, cells)
    sure = [~np.isnan(each["kept"]) & (each["probability"] >= 0.5) for each in found.tables.values()]
    lost = sum(int((each["kept"][is_sure] == 0).sum()) for each, is_sure in zip(found.tables.values(), sure, strict=True))
    report.text(f"{found.place.title}: of {sum(map(np.sum, sure))} attacked pictures whose class had a probability of at least 0.5, {lost} lost it.")


def share(values: np.ndarray) -> str:
    """A mean in percent, of what is defined."""
    return f"{np.nanmean(values):.0%}" if np.isfinite(values).any() else "-"


def further_table(report: Report, found: Found) -> None:
    """What other threats add to Delta, at its budget and at the same visible change."""
    cells = []
    for subject in found.place.subjects:
        for kind in COMBINED:
            row = [f"{subject.title}: {kind}"]
            for each in (found.same_budget(subject, kind), *(found.same_change(subject, kind, name) for name in measures(found))):
                row += [mean_cell(each), str(int(np.isfinite(each).sum()))]
            cells.append(row)
    columns = ["explanation and attack", *(text for name in ("budget of Delta", *measures(found).values()) for text in (f"same {name}", "pictures"))]
    report.table(
        f"{found.place.title}: distance to the target after the combined attack, less that after Delta alone (negative: the combined attack comes nearer), mean and 95 % interval", columns, cells
    )
    report.text(
        f"Of {len(found.place.pictures)} pictures those count whose class is kept by the combined attack and by Delta alone; at the same visible change, those that the combined attack changes as much as Delta of some budget from {DELTAS[0]:g} to {DELTAS[-1]:g}."
    )


def measures(found: Found) -> dict[str, str]:
    """Names of the measures of visible change that there are: LPIPS only with its network's weights."""
    there = np.isfinite(next(iter(found.tables.values()))["lpips"]).any()
    return {"changed": "SSIM"} | ({"lpips": "LPIPS"} if there else {})


VISIBLE = (
    "SSIM compares pictures place by place: a shift of a pixel, which the eye forgives, costs it much, so it counts flow as more visible than people would. LPIPS forgives more; it is printed where the weights of its network "
    "(torchvision's VGG-16) are at hand. "
    "What Delta reaches at the visible change of another attack is read off a line through its budgets, over the logarithm of the change, for each picture."
)


def further_claims(found: Found) -> list[Claim]:
    """Do threats that add nothing reach further, at equal budget and at equal visible change?"""
    title, subjects, made = found.place.title, found.place.subjects, []
    for kind in COMBINED:
        nearer = np.stack([found.same_budget(subject, kind) for subject in subjects], 1)
        made.append(_negative(f"{kind} comes nearer to the target than Delta with the same budget of Delta (mean of all rows; {title})", "not in the paper", nearer))
        for measure, name in measures(found).items():
            nearer = np.stack([found.same_change(subject, kind, measure) for subject in subjects], 1)
            made.append(_negative(f"{kind} comes nearer than Delta alone at the same {name} (mean of all rows; {title})", "figures 4 and 7, by eye, at unequal budgets", nearer))
    return made


def _negative(statement: str, published: str, nearer: np.ndarray) -> Claim:
    """The claim that differences (images, subjects) are negative."""
    made = difference(statement, published, nearer, 0.0, "<")
    return dataclasses.replace(made, ours=f"{made.ours}; {np.isfinite(nearer).sum()} of {nearer.size} pairs of a picture and a row count")


def stronger(found: Found, report: Report) -> list[Claim]:
    """A stronger attack on what seems most robust; "robust" is only said if that fails too.

    It has twice the steps and draws, two runs, and a softplus that grows from soft to sharp, so that it passes through the smoothing
    step by step. Of each picture the attack counts that reached further, if it keeps the class: the stronger one need not.
    """
    place, first = found.place, found.place.subjects[0]
    if len(place.pictures) < FEWEST_PAIRS:
        report.text(f"{place.title}: fewer than {FEWEST_PAIRS} pictures, so nothing can be called robust, and the stronger attack is left out.")
        return []
    reached = {subject.title: where_kept(found.cell(subject, DELTA, EQUAL), "fall") for subject in place.subjects[1:]}
    falls = {title: float(np.nanmean(each)) for title, each in reached.items() if np.isfinite(each).sum() >= FEWEST_PAIRS}
    if not falls:
        return []
    subject = next(each for each in place.subjects if each.title == min(falls, key=lambda title: falls[title]))
    weaker = place.attack(subject, DELTA, EQUAL)
    adapted = dataclasses.replace(weaker, steps=STRONGER * weaker.steps, restarts=STRONGER, beta=(SOFTER * place.beta, place.beta), method=with_draws(weaker.method, STRONGER * place.size.draws))
    ordinary, against = found.cell(subject, DELTA, EQUAL), found.cell(first, DELTA, EQUAL)
    each = {name: np.where(np.isfinite(ordinary["after"]), value, np.nan) for name, value in place.figures(subject, adapted).items()}
    further = where_kept(each, "fall") >= np.nan_to_num(where_kept(ordinary, "fall"), nan=-np.inf)
    best = {name: np.where(further, value, ordinary[name]) for name, value in each.items()}
    lines = {
        f"{first.title}: ordinary attack": against,
        f"{subject.title}: ordinary attack": ordinary,
        f"{subject.title}: stronger attack": each,
        f"{subject.title}: the one that reached further": best,
    }
    cells = [[name, mean_cell(values["after"]), mean_cell(values["fall"]), share(values["kept"])] for name, values in lines.items()]
    report.table(f"{place.title}: a stronger attack by Delta, budget {EQUAL:g}, on what its fall makes look the most robust", ["", "distance to target after", "fall", "class kept"], cells)
    draws = f", {STRONGER * place.size.draws} draws a step" if hasattr(adapted.method, "samples") else ""
    report.text(
        f"The stronger attack: {adapted.steps} steps{draws}, {adapted.restarts} runs (the best is taken), a softplus growing from beta {SOFTER * place.beta:g} to {place.beta:g}. {subject.title} was picked by its fall on the same pictures."
    )
    statement = f"{subject.title} is more robust than {first.title} to Delta of {EQUAL:g}: even the better of both attacks makes the distance fall by a smaller share than the ordinary one does for {first.title} ({place.title})"
    return [compared(statement, "not tried in the paper", "fall", best, against, "<")]


def bars(found: Found) -> Figure:
    """The paper's bars: the distance to the target and the visible change after each attack with the authors' budgets, mean and sd."""
    subjects, width = found.place.subjects, 0.25
    measure, title = ("lpips as published", "LPIPS (vgg)") if "lpips" in measures(found) else ("changed", "1 - SSIM")
    with drawing():
        figure = Figure(figsize=(max(3.0 + 1.5 * len(subjects), 8), 4.4), dpi=100)
        for side, (what, heading) in enumerate((("after", "cosine distance to the target map"), (measure, f"visible change: {title}"))):
            axes = figure.add_subplot(1, 2, side + 1)
            for place, (kind, colour) in enumerate(COLOURS.items()):
                each = [found.at(subject, kind, what) for subject in subjects]
                at = np.arange(len(subjects)) + (place - 1) * width
                axes.bar(at, [np.nanmean(values) for values in each], width, color=colour, label=kind)
                axes.errorbar(at, [np.nanmean(values) for values in each], [np.nanstd(values) for values in each], fmt="none", ecolor="#1b1f24", elinewidth=0.9)
                if what == "after":
                    axes.plot(at, [np.nanmean(found.at(subject, kind, "before")) for subject in subjects], "_", color="#1b1f24", markersize=11, label="before the attack" if place == 2 else None)
                    axes.plot(at, [np.nanmean(found.at(subject, kind, "random")) for subject in subjects], "x", color="#5d6670", markersize=5, label="a random change" if place == 2 else None)
            axes.set_xticks(range(len(subjects)), [f"{subject.title}" for subject in subjects], rotation=20, ha="right", size=8)
            axes.set_title(heading, size=10, weight="bold", loc="left")
            axes.set_ylim(bottom=0)
            if side == 0:
                axes.legend(fontsize=7, frameon=False, loc="upper right")
                axes.set_ylim(top=axes.get_ylim()[1] * 1.4)
        figure.tight_layout(rect=(0, 0.06, 1, 1))
        write(
            figure,
            0.98,
            0.01,
            0.015,
            f"{found.place.title}. Bars: means over {len(found.place.pictures)} pictures, class kept or not; lines: one standard deviation. The authors' budgets, which are not equal.",
            size=8,
        )
    return figure


def reach(found: Found) -> Figure:
    """What attacks reach against how much they change the picture, one panel a subject."""
    subjects = found.place.subjects
    columns = min(5, len(subjects))
    lines = -(-len(subjects) // columns)
    height = 3.1 * lines + 0.6
    with drawing():
        figure = Figure(figsize=(3.3 * columns, height), dpi=100)
        for place, subject in enumerate(subjects):
            axes = figure.add_subplot(lines, columns, place + 1)
            alone, combined = [found.cell(subject, DELTA, budget) for budget in DELTAS], {kind: found.cell(subject, kind, EQUAL) for kind in COMBINED}
            kept = np.all([each["kept"] == 1 for each in (*alone, *combined.values())], axis=0)
            axes.set_title(textwrap.fill(f"{subject.title} ({kept.sum()} pictures)", 34), size=9, weight="bold", loc="left")
            if not kept.any():
                continue
            before = float(alone[0]["before"][kept].mean())
            x, y = ([float(each[what][kept].mean()) for each in alone] for what in ("changed", "after"))
            axes.axhline(before, color="#5d6670", linewidth=0.9, linestyle="--", label="before the attack")
            axes.plot(x, y, color=COLOURS[DELTA], marker="o", markersize=4, label=f"Delta, budgets {', '.join(f'{budget:g}' for budget in DELTAS)}")
            for kind, each in combined.items():
                axes.plot(each["changed"][kept].mean(), each["after"][kept].mean(), "D", color=COLOURS[kind], markersize=6, label=f"{kind}, Delta {EQUAL:g}")
            axes.set_ylim(0, before * 1.12)
            axes.set_xscale("log")
            axes.set_xticks(x, [f"{each:.2g}" for each in x])
            axes.minorticks_off()
            axes.set_xlabel("1 - SSIM of the picture", size=8)
            if place % columns == 0:
                axes.set_ylabel("distance to the target map", size=8)
            if not figure.legends:
                figure.legend(*axes.get_legend_handles_labels(), loc="lower left", bbox_to_anchor=(0.003, 0.2 / height), ncols=4, fontsize=7, frameon=False)
        figure.tight_layout(rect=(0, 0.5 / height, 1, 1))
        write(
            figure,
            0.98,
            0.01,
            0.01,
            f"{found.place.title}. Means over the pictures whose class every attack shown keeps. A diamond below the line: the combined attack reaches further than Delta at the same SSIM.",
            size=8,
        )
    return figure
