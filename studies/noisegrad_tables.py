"""NoiseGrad (2022), tables 1 and 3: four criteria for gradients and integrated gradients, as they are (Baseline), and averaged over noise in the picture (SG), the weights (NG) and both (FG).

The paper: 256 pictures of CMNIST, a ResNet-9. Here: the same task, the package's own ResNet-9, fewer pictures, draws and steps. Max-sensitivity is measured by the paper's
library's definition and by that of its source, with the same draws for the picture and the changed picture, and (of gradients) with fresh ones. With --full: 256 pictures and the paper's draws.
"""

import argparse
import sys

import numpy as np

from _common import Claim, Report, difference, main, number, parser, positive, rows, values
from _noisegrad import (
    BASELINE,
    FG,
    MARKS,
    NG,
    PAPER,
    SEEDS,
    SG,
    SHARED,
    SMALL,
    SUBSET,
    Draws,
    Levels,
    add_options,
    cells,
    data,
    described,
    faithfulness,
    levels,
    lowest,
    methods,
    network,
)
from salience.studies.statistics import per_image
from salience.studies.study import Data, Study

LOCALISATION, FAITHFULNESS, SPARSENESS = "Localization", "Faithfulness", "Sparseness"
QUANTUS, QUANTUS_FRESH = "Sensitivity by the picture's norm, common draws", "Sensitivity by the picture's norm, fresh draws"
ROBUSTNESS, FRESH = "Sensitivity by the map's norm, common draws", "Sensitivity by the map's norm, fresh draws"
HIGHER = {LOCALISATION: True, FAITHFULNESS: True, QUANTUS: False, QUANTUS_FRESH: False, ROBUSTNESS: False, FRESH: False, SPARSENESS: True}
"""Every criterion, and whether more is better."""

CONTROLS = ("random", "centre")
PICTURES = 256

PUBLISHED = {
    "gradient": {
        BASELINE: ("0.7315 ± 0.0505", "0.3413 ± 0.1549", "0.0763 ± 0.0265", "**0.6272 ± 0.0475**"),
        SG: ("0.8263 ± 0.0483", "0.3465 ± 0.1601", "0.0590 ± 0.0235", "0.5310 ± 0.0635"),
        NG: ("0.8349 ± 0.0367", "**0.3635 ± 0.1536**", "0.0224 ± 0.0080", "0.5794 ± 0.0533"),
        FG: ("**0.8435 ± 0.0358**", "**0.3697 ± 0.1465**", "**0.0153 ± 0.0058**", "0.5721 ± 0.0532"),
    },
    "integrated_gradients": {
        BASELINE: ("0.6400 ± 0.0582", "0.3430 ± 0.1481", "0.0556 ± 0.0163", "0.7641 ± 0.0476"),
        SG: ("0.6679 ± 0.0572", "0.3506 ± 0.1558", "0.0585 ± 0.0211", "0.7750 ± 0.0438"),
        NG: ("0.6883 ± 0.0522", "**0.3593 ± 0.1555**", "**0.0170 ± 0.0048**", "0.8102 ± 0.0371"),
        FG: ("**0.6981 ± 0.0511**", "**0.3537 ± 0.1556**", "**0.0179 ± 0.0049**", "**0.8199 ± 0.0354**"),
    },
}
"""Localization, faithfulness, robustness, sparseness; bold where the paper has it so."""

TABLES = {"gradient": "table 1", "integrated_gradients": "table 3"}
WHERE = {LOCALISATION: 0, FAITHFULNESS: 1, QUANTUS: 2, QUANTUS_FRESH: 2, ROBUSTNESS: 2, FRESH: 2, SPARSENESS: 3}
OTHER = (ROBUSTNESS, FRESH)
"""Criteria by another definition than the published numbers."""

SAID = {
    "gradient": [
        *((NG, SG, criterion) for criterion in HIGHER),
        *((other, BASELINE, criterion) for other in (SG, NG, FG) for criterion in HIGHER if criterion != SPARSENESS),
        *((FG, other, criterion) for other in (SG, NG) for criterion in HIGHER if criterion != SPARSENESS),
        (FG, SG, SPARSENESS),
        *((BASELINE, other, SPARSENESS) for other in (SG, NG, FG)),
    ],
    "integrated_gradients": [(FG, other, criterion) for other in (SG, BASELINE) for criterion in HIGHER],
}
"""Which is better than which, by what: the paper's text on its two tables. (Of sparseness its table 1 has FG behind NG, which the text does not say.)"""

Found = dict[str, dict[str, np.ndarray]]
"""Values (images, seeds) by criterion and method."""


def metrics(at: Levels) -> dict[str, str]:
    """The criteria as specifications."""
    sensitivity = f"max_sensitivity:radius={at.radius}"
    library, fresh = f"quantus_sensitivity:radius={at.radius}", "common_draws=false"
    of_quantus = {QUANTUS: library, QUANTUS_FRESH: f"{library},{fresh}"}
    return {LOCALISATION: "relevance_rank_accuracy", FAITHFULNESS: faithfulness()} | of_quantus | {ROBUSTNESS: sensitivity, FRESH: f"{sensitivity},{fresh}", SPARSENESS: "gini"}


def measured(given: argparse.Namespace, kind: str, base: str, at: Levels, draws: Draws, criteria: dict[str, str]) -> Found:
    """Run one table."""
    chosen = methods(base, at.sg, at.ng, draws) | {name: name for name in CONTROLS}
    study = Study(name=f"NoiseGrad, {TABLES[kind]}", models=[given.model], data=Data(**data(given)), methods=list(chosen.values()), metrics=list(criteria.values()), seeds=SEEDS)
    store = rows(study, given.out / kind, given)
    return {criterion: {name: values(store, method, metric) for name, method in zip(chosen, study.methods, strict=True)} for criterion, metric in zip(criteria, study.metrics, strict=True)}


def table(report: Report, kind: str, base: str, found: Found) -> None:
    """Ours beside the published; the controls below, untested."""
    judged = {criterion: cells({name: column[name] for name in (BASELINE, SG, NG, FG)}, HIGHER[criterion]) for criterion, column in found.items()}
    lines = []
    for name in (BASELINE, SG, NG, FG, *CONTROLS):
        line = [name if name not in CONTROLS else f"{name} (control)"]
        for criterion, column in found.items():
            published = PUBLISHED[kind].get(name)
            line += [] if criterion in OTHER else [published[WHERE[criterion]] if published else ""]
            line += [judged[criterion].get(name) or number(float(np.nanmean(column[name])) if np.isfinite(column[name]).any() else np.nan)]
        lines.append(line)
    count = len(next(iter(found[LOCALISATION].values())))
    heads = {criterion: f"{criterion} ({'up' if HIGHER[criterion] else 'down'})" for criterion in found}
    report.table(
        f"Table {TABLES[kind][-1]}, `{base}`: the paper's {PICTURES} pictures, and {count} here with {len(SEEDS)} seeds",
        ["", *(head for criterion, text in heads.items() for head in ((f"{text}, here",) if criterion in OTHER else (f"paper: {text}", "here")))],
        lines,
    )


def claims(kind: str, found: Found) -> list[Claim]:
    """What the paper says of a table."""
    made = []
    for first, second, criterion in SAID[kind]:
        if criterion not in found or criterion == FRESH:
            continue
        published = ("by the other definition " if criterion in OTHER else "") + " against ".join(PUBLISHED[kind][name][WHERE[criterion]].strip("*") for name in (first, second))
        better = "higher" if HIGHER[criterion] else "lower"
        statement = f"{TABLES[kind].capitalize()}: {first} is better than {second}: {better} {criterion.lower()}"
        column = found[criterion]
        made.append(difference(statement, published, column[first], column[second], ">" if HIGHER[criterion] else "<", shared_seeds=first in SHARED or second in SHARED))
    return made


def floor(kind: str, found: Found) -> str:
    """What fresh draws add to max-sensitivity."""
    common, fresh = ({name: float(np.nanmean(per_image(found[criterion][name]).values)) for name in (SG, NG, FG)} for criterion in (QUANTUS, QUANTUS_FRESH))
    parts = ", ".join(f"{name} {number(fresh[name])} and {number(common[name])} (published {PUBLISHED[kind][name][2].strip('*')})" for name in common)
    return f"Sensitivity by the picture's norm with fresh draws for every map and with common draws, {TABLES[kind]}: {parts}. What the first has more is noise of the average, not of the explanation."


def work(given: argparse.Namespace) -> None:
    """Run, tabulate, judge."""
    draws, steps = (PAPER, 50) if given.full else (SMALL, 4)
    bases = {"gradient": "gradient", "integrated_gradients": f"integrated_gradients:steps={given.steps or steps}"}
    model = network(given.model)
    at = levels(model, given)
    criteria = metrics(at)
    report = Report(given, "NoiseGrad, tables 1 and 3: four criteria on CMNIST")
    report.text(
        f"Network: {described(given.model)}; the paper's ResNet-9 is 98.5 % right. {draws}; the paper says that 10 suffice, its appendix 25 to 50 (FG 10 x 10). {at.sentence()} "
        "The class explained is the digit's. Maps are absolute values summed over channels, before averaging."
    )
    report.text(
        f"Localization: relevance rank accuracy on the box of 16 x 16. Faithfulness: correlation over 100 random sets of {SUBSET} of the 3072 values, logits; what is removed becomes 0, where the paper's becomes the picture's smallest "
        f"value (here {lowest(given):.3f} on average, of 1). Robustness: max-sensitivity over 10 changes of at most 0.2 in normalised units, {at.radius} in [0, 1] (the mean over channels), by two definitions. The paper's library divides the change of the map by the norm of the normalised "
        "picture, the map's largest value being 1: then a sparse map looks robust because it is sparse. Yeh et al. (2019), whom the paper cites, divide it by the norm of the map. The published numbers are of the first, with fresh draws for every map as far as is known. "
        "Sparseness: Gini index; the paper adds 1e-7 to every value, we do not."
    )
    report.text(MARKS)
    report.text("Of the controls, which look at no network, 'centre' shows what localization is worth as a measure here: the digit is always in the middle.")
    made = []
    for kind, base in bases.items():
        if kind in given.bases:
            found = measured(given, kind, base, at, draws, {name: each for name, each in criteria.items() if name not in (FRESH, QUANTUS_FRESH) or given.full or kind == "gradient"})
            table(report, kind, base, found)
            if FRESH in found:
                report.text(floor(kind, found))
            made += claims(kind, found)
    report.claims(made)
    report.done()


def options() -> argparse.ArgumentParser:
    """The script's options."""
    found = add_options(parser("noisegrad_tables", __doc__, 16, full=PICTURES), several=False)
    found.add_argument("--bases", nargs="+", choices=list(TABLES), default=list(TABLES), help="which tables: gradient is table 1, integrated_gradients table 3 (default: both)")
    found.add_argument("--steps", type=positive, metavar="N", help="of integrated gradients (default: 4; with --full 50)")
    return found


if __name__ == "__main__":
    sys.exit(main(options(), work))
