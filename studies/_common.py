"""What the studies of papers share: options, folders, rows that are resumed, tables beside the published numbers, verdicts on claims.

A script builds a parser with `parser`, and gives it and its work to `main`. The work runs studies with `rows`, reads them with
`values`, and writes through a `Report`, which prints what it writes to ``results.md``.
"""

import argparse
import math
import os
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from matplotlib.figure import Figure
from scipy import stats
from torch import Tensor

import salience as sal
from salience.core.errors import InputError
from salience.core.files import write_whole
from salience.show.overlay import to_png
from salience.studies.comparison import FEWEST_PAIRS, holm, paired_test
from salience.studies.run import run_study
from salience.studies.statistics import Interval, bootstrap_interval, per_image
from salience.studies.store import Row, Store
from salience.studies.study import Study
from salience.studies.work import Unit

DATA = Path(os.environ.get("SALIENCE_DATA", "../shared/data"))
"""Where data are sought unless an option names another folder."""

SHIPPED = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png", "horse.png", "camera.png")
"""scikit-image's pictures of things, taken where there is no folder of photographs."""

RESAMPLES = 4000
"""Of the bootstrap of functions of several means."""

LEVEL = 0.05
"""A claim is decided if its p, adjusted for the number of claims, is under this."""


def parser(name: str, doc: str | None, limit: int, what: str = "pictures", full: int | None = None) -> argparse.ArgumentParser:
    """The options that every study has.

    Args:
        name: Of the study: its folder in out/studies.
        doc: The script's docstring.
        limit: How many pictures are taken unless --limit or --full says otherwise.
        what: What --limit counts.
        full: How many are taken with --full, unless --limit says otherwise; None: all.
    """
    made = argparse.ArgumentParser(prog=f"python studies/{Path(sys.argv[0]).name}", description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--full", action="store_true", help="the paper's size and models, for those who have the data and the hours")
    made.add_argument("--limit", type=positive, metavar="N", help=f"{what} at most (default: {limit}; with --full {full or 'all'}); may grow when a study is continued")
    made.add_argument("--out", type=Path, metavar="DIR", help=f"where rows, pictures and results.md go (default: out/studies/{name}, with --full out/studies/{name}-full)")
    made.add_argument("--workers", type=positive, default=1, metavar="N", help="processes; they share the cores (default: 1)")
    made.add_argument(
        "--precision", choices=("float32", "bfloat16"), default="float32", help="of the network, where the study can do with less; bfloat16 is faster on CPUs that know it (default: float32)"
    )
    made.set_defaults(name=name, limits=(limit, full))
    return made


def positive(text: str) -> int:
    """A number from 1 on, as an option's type."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def main(made: argparse.ArgumentParser, work: Callable[[argparse.Namespace], None], arguments: Sequence[str] | None = None) -> int:
    """Parse the options and do the work; what is wrong with the input becomes one line.

    Returns:
        The exit code: 0, 2 for wrong input, 130 if interrupted.
    """
    given = made.parse_args(arguments)
    given.out = given.out or Path("out/studies") / (f"{given.name}-full" if given.full else given.name)
    given.limit, given.left_out = given.limit or given.limits[given.full], []
    try:
        work(given)
    except InputError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted: the same command continues.\n")
        return 130
    return 0


def required(folder: Path | str | None, option: str, what: str) -> Path:
    """A folder or file that must be there.

    Args:
        folder: Where it should be.
        option: The option that names another.
        what: What it holds.

    Raises:
        InputError: If it is not there.
    """
    if folder is None or not Path(folder).exists():
        raise InputError(f"{what} is needed{'' if folder is None else f' and not found at {folder}'}: say where it is with {option}.")
    return Path(folder)


def photographs(folder: Path, given: argparse.Namespace, option: str = "--photos") -> dict[str, Any]:
    """The options of a data set of photographs in a random but fixed order: a folder, or else the pictures that scikit-image ships.

    Args:
        folder: Its pictures; with a ``labels.csv`` those that it names.
        given: The script's options; shipped pictures are copied to its `out`.
        option: The option that names another folder.

    Returns:
        What `Study` takes as ``data``, without targets.

    Raises:
        InputError: If a folder that is not the default one is missing.
    """
    if not folder.is_dir() and folder.is_relative_to(DATA):
        import skimage.data

        shipped, folder = Path(skimage.data.__file__).parent, given.out / "photographs"
        folder.mkdir(parents=True, exist_ok=True)
        for name in SHIPPED:
            shutil.copyfile(shipped / name, folder / name)
    required(folder, option, "A folder of photographs")
    labels = {"labels": "labels.csv"} if (folder / "labels.csv").is_file() else {}
    return {"dataset": "folder", "root": str(folder), "shuffle": 0} | labels


def rows(study: Study, folder: Path, given: argparse.Namespace) -> Store:
    """Run a study, or what is left of it, and say how far it is.

    Args:
        study: The study.
        folder: For its rows.
        given: The script's options: limit and workers are taken from it; rows without a value are told to `left_out`, for the `Report`.

    Returns:
        The store of its rows.
    """
    store = run_study(study, folder, resume=Store(folder).manifest is not None, workers=given.workers, limit=given.limit, report=progress)
    listed = ", ".join(f"string_agg(DISTINCT {each}, ', ' ORDER BY {each})" for each in ("method", "metric"))
    left_out = store.query(
        f"SELECT model, {listed}, count(*), status, reason FROM results WHERE status <> 'ok' AND NOT (method = 'random' AND metric = 'relative_error') GROUP BY model, status, reason ORDER BY ALL"
    )[1]
    given.left_out += [f"{model}, {metrics} of {methods}: {count} rows {status}: {reason}" for model, methods, metrics, count, status, reason in left_out]
    return store


def images_of(store: Store) -> list[str]:
    """The names of a study's pictures, in their order."""
    return list(store.described()["images"])


def kept(store: Store, study: Study, image: str, method: str) -> dict[str, Tensor]:
    """What a study with `keep_maps` kept of a picture and a method: image, map, stderr (one a target and seed), target, seed.

    Raises:
        FileNotFoundError: If it failed.
    """
    with np.load(store.folder / "maps" / f"{Unit(0, image, study.models[0], method).id}.npz") as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


def progress(what: str, done: int, total: int | None) -> None:
    """A line on a terminal, written over until all is done."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\033[K{what}: {done}{'' if total is None else f' of {total}'}")
        sys.stderr.write("\n" if done == total else "")
        sys.stderr.flush()


def rise(masks: int, estimator: str, grid: int = 7) -> str:
    """RISE with half of the cells kept, as its paper has it, in the shortest form: rows name it so."""
    return str(sal.Explainer.from_value(f"rise:samples={masks},grid={grid},estimator={estimator}"))


def paper_masks(model: str) -> int:
    """How many masks RISE's paper has for a network of that name: 4000 for VGG16, 8000 for ResNet50, which others get too."""
    return 4000 if "vgg" in model.lower() else 8000


def values(store: Store, method: str, metric: str, *, model: str | None = None, perturbation: str = "", variant: str = "", column: str = "value") -> np.ndarray:
    """One metric of one method: (images, seeds), the images of the study in their order, targets averaged, NaN where there is no value.

    Args:
        store: A study's rows.
        method: Specification as the study has it (``study.methods[i]``).
        metric: Likewise.
        model: Its name; None if the study has only one.
        perturbation: Specification; empty for metrics of a map and for the variant ``floor``.
        variant: How maps were compared.
        column: Of the rows: ``value``, or ``prediction_changed``, 1 where the perturbation changed the prediction.
    """
    images, seeds = images_of(store), store.described()["study"]["seeds"]
    found: dict[tuple, list[float]] = {}
    wanted = {"method": method, "metric": metric, "perturbation": perturbation, "variant": variant} | ({} if model is None else {"model": model})
    for row in table(store):
        if row["status"] == "ok" and all(row[key] == value for key, value in wanted.items()):
            found.setdefault((row["image"], row["seed"]), []).append(row[column])
    return np.array([[np.mean(found[image, seed]) if (image, seed) in found else np.nan for seed in seeds] for image in images])


@lru_cache
def network(name: str = "efficientnet-lite0") -> sal.Model:
    """A network by name, loaded once.

    Raises:
        InputError: If it is a black box.
    """
    model = sal.load_model(name)
    if not isinstance(model, sal.Model):
        raise InputError(f"{name} is a black box, whose gradients and weights are not to be had: give a network.")
    return model


def load(data: dict[str, Any], **changes: Any) -> sal.Dataset:
    """The data set that `Study` takes as ``data``, with other options."""
    return sal.load_dataset(data["dataset"], **{key: value for key, value in (data | changes).items() if key not in ("dataset", "targets")})


@lru_cache(maxsize=32)
def table(store: Store, name: str = "results") -> list[Row]:
    """The rows of one of a store's tables, read once: the study has been run."""
    return store.rows(name)


def plain(name: str) -> str:
    """A model's name as part of a file's name."""
    return re.sub(r"[^\w.-]+", "_", name)


def number(value: float) -> str:
    """A number for a table: four decimals, or three digits where that says too little."""
    if not math.isfinite(value):
        return "-"
    return f"{value:.4f}" if value == 0 or abs(value) >= 0.01 else f"{value:.3g}"


def with_interval(mean: float, interval: Interval) -> str:
    """A mean and its 95 % interval."""
    return number(mean) + ("" if math.isnan(mean) or math.isnan(interval.low) else f" [{number(interval.low)}, {number(interval.high)}]")


def mean_cell(found: np.ndarray, shared_seeds: bool = False) -> str:
    """The mean over images of values (images, seeds), and its interval by a bootstrap over images.

    Args:
        found: (images, seeds).
        shared_seeds: The seeds are draws of weights that all images share: they are resampled too, and of one seed there is no interval.
    """
    each = per_image(found).values
    return with_interval(float(np.nanmean(each)), bootstrap_interval(found, shared_seeds=shared_seeds)) if np.isfinite(each).any() else "-"


def spread_cell(found: np.ndarray, shared_seeds: bool = False) -> str:
    """As `mean_cell`, with the sd over images behind the mean, as the papers give it."""
    each = per_image(found).values
    spread = f" ± {number(float(np.nanstd(each, ddof=1)))}" if np.isfinite(each).sum() > 1 else ""
    mean, bracket, interval = mean_cell(found, shared_seeds).partition(" [")
    return mean + spread + bracket + interval


def _resampled(statistic: Callable[..., np.ndarray], columns: Sequence[np.ndarray]) -> tuple[float, np.ndarray, int]:
    """A function of means over the images for which all columns are defined, the same of resampled images, and how many these are."""
    table = np.stack([per_image(each).values for each in columns])
    table = table[:, np.isfinite(table).all(0)]
    images = table.shape[1]
    if not images:
        return math.nan, np.empty(0), 0
    chosen = np.random.default_rng(0).integers(images, size=(RESAMPLES, images))
    return float(statistic(*table.mean(1))), statistic(*table[:, chosen].mean(2)), images


def estimated(statistic: Callable[..., np.ndarray], *columns: np.ndarray) -> str:
    """A function of means over images, and its 95 % interval by a bootstrap over images alone, as far out for few images as `bootstrap_interval` goes.

    Where resampled images give no number the interval has no end.

    Args:
        statistic: Takes as many arrays as there are columns.
        columns: Each (images,) or (images, seeds), the same images; those count for which all are defined.
    """
    value, resampled, images = _resampled(statistic, columns)
    if images < 2:
        return number(value)
    tail = stats.norm.cdf(stats.t.ppf(0.025, images - 1) * math.sqrt(images / (images - 1)))
    known = np.isfinite(resampled)
    low = np.quantile(np.where(known, resampled, -np.inf), tail, method="lower")
    high = np.quantile(np.where(known, resampled, np.inf), 1 - tail, method="higher")
    return with_interval(value, Interval(float(low), float(high)))


@dataclass(frozen=True)
class Claim:
    """Something a paper says, and what was found here.

    Attributes:
        statement: What it says, one sentence.
        published: Its numbers.
        ours: Ours, with an interval.
        p: Two-sided, before any adjustment; NaN if nothing was tested.
        agrees: Whether our numbers point the way that the paper says; None if nothing was tested.
        least: The smallest p that so many pictures can give, whatever their values.
    """

    statement: str
    published: str
    ours: str
    p: float = math.nan
    agrees: bool | None = None
    least: float = 0.0

    def verdict(self, adjusted: float) -> str:
        """What to say, given p adjusted for the number of claims."""
        if self.agrees is None or not adjusted < LEVEL:
            return "not decided here"
        return "holds" if self.agrees else "does not hold"


def difference(statement: str, published: str, first: np.ndarray, second: np.ndarray | float, says: Literal["<", ">"], shared_seeds: bool = False) -> Claim:
    """The claim that one thing is less, or more, than another, tested on pairs of the same images.

    Wilcoxon's test is of ranks: where these and the mean point opposite ways, nothing is decided.

    Args:
        statement: What the paper says.
        published: Its numbers.
        first: (images,) or (images, seeds).
        second: Of the same images; or one constant for all.
        says: ``<``: the claim is that the first is less.
        shared_seeds: The seeds are draws of weights that all images share: then p is over images and draws, and counts only if the
            interval leaves out 0; else it is 1.
    """
    test = paired_test(first, np.broadcast_to(second, first.shape) if np.ndim(second) == 0 else second, shared_seeds=shared_seeds)
    way = test.difference < 0 if says == "<" else test.difference > 0
    opposite = test.test == "wilcoxon" and test.difference * test.effect < 0
    how = f" ({test.why_not})" if test.why_not else f", {test.test}{' and weight draws' if shared_seeds else ''}"
    ours = f"difference {with_interval(test.difference, test.interval)}, {test.pairs} images{how}"
    ours += ", whose ranks point the other way" if opposite and not test.why_not else ""
    interval_decides = not shared_seeds or test.interval.low > 0 or test.interval.high < 0
    return Claim(statement, published, ours, test.p if interval_decides or math.isnan(test.p) else 1.0, None if math.isnan(test.p) or opposite else bool(way), 2.0 ** (1 - test.pairs))


def beyond(statement: str, published: str, statistic: Callable[..., np.ndarray], says: Literal["<", ">"], bound: float, *columns: np.ndarray) -> Claim:
    """The claim that a function of means over images is below, or above, a number.

    p is that of the interval of `estimated` which ends at the number; resampled images that give no number speak for neither side.

    Args:
        statement: What is claimed.
        published: Its numbers.
        statistic: As `estimated` has it.
        says: ``<``: the claim is that it is below.
        bound: The number.
        columns: As `estimated` has them.
    """
    value, resampled, images = _resampled(statistic, columns)
    few = images < FEWEST_PAIRS or math.isnan(value)
    ours = f"{estimated(statistic, *columns)} against {bound}, {images} images" + (" (too few to test)" if few else ", bootstrap")
    if few:
        return Claim(statement, published, ours)
    tail = min((np.sum(~side) + 1) / (RESAMPLES + 1) for side in (resampled > bound, resampled < bound))
    p = 2 * stats.t.cdf(stats.norm.ppf(tail) * math.sqrt((images - 1) / images), images - 1)
    return Claim(statement, published, ours, float(min(p, 1)), bool(value < bound if says == "<" else value > bound))


class Report:
    """Prints what it is told and keeps it for ``results.md``.

    Args:
        given: The script's options; `out` is where everything goes.
        title: The first line.
    """

    def __init__(self, given: argparse.Namespace, title: str) -> None:
        self.out, self.parts, self.left_out = given.out, [f"# {title}"], getattr(given, "left_out", [])
        print(self.parts[0])  # the output itself

    def text(self, text: str) -> None:
        """A paragraph."""
        self.parts.append(text)
        print(f"\n{text}", flush=True)  # as above

    def table(self, title: str, columns: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
        """A table with its title; the first column to the left, the others to the right."""
        lines = [list(columns), *(list(row) for row in cells)]
        widths = [max(len(row[place]) for row in lines) for place in range(len(columns))]
        texts = ["| " + " | ".join(cell.ljust(width) if place == 0 else cell.rjust(width) for place, (cell, width) in enumerate(zip(row, widths, strict=True))) + " |" for row in lines]
        rule = "|" + "|".join("-" * (width + 2) if place == 0 else "-" * (width + 1) + ":" for place, width in enumerate(widths)) + "|"
        self.text(f"## {title}")
        self.text("\n".join([texts[0], rule, *texts[1:]]))

    def claims(self, claims: Sequence[Claim]) -> None:
        """Every claim with its verdict, p adjusted by Holm's method over all that are tested."""
        self.text("## Claims")
        tested = [claim for claim in claims if not math.isnan(claim.p)]
        hopeless = [claim.least for claim in tested if claim.least * len(tested) >= LEVEL]
        if hopeless:
            self.text(
                f"{len(hopeless)} of {len(tested)} claims cannot be decided here, whatever the values are: of so few pictures p is at least {min(hopeless):.2g}, "
                f"which for {len(tested)} claims is not under {LEVEL:g}. More pictures (--limit) can decide them."
            )
        for claim, adjusted in zip(claims, holm([claim.p for claim in claims]), strict=True):
            certainty = "" if math.isnan(claim.p) else f", p {claim.p:.2g}, for all claims of this study {adjusted:.2g}"
            self.text(f"- **{claim.verdict(float(adjusted))}**: {claim.statement}\n  - published: {claim.published}\n  - ours: {claim.ours}{certainty}")

    def picture(self, name: str, drawn: bytes | Figure, caption: str) -> None:
        """A PNG file beside the results, and its caption in them."""
        write_whole(self.out / f"{name}.png", to_png(drawn) if isinstance(drawn, Figure) else drawn)
        self.text(f"![{caption}]({name}.png)")

    def done(self) -> None:
        """Write results.md, with what had no value at the end."""
        if self.left_out:
            self.text("## Values that are missing\n\nNo mean or test counts these rows.")
            self.text("\n".join(f"- {line}" for line in self.left_out))
        write_whole(self.out / "results.md", ("\n\n".join(self.parts) + "\n").encode())
        print(f"\nAll of this is in {self.out / 'results.md'}.")  # as above
