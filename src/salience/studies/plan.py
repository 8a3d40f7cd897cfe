"""What a study will compute, and about how long it will take."""

import hashlib
import time
import warnings
from dataclasses import dataclass

from salience.core.errors import InputError
from salience.core.metric import Metric
from salience.core.types import Report
from salience.studies.study import Study
from salience.studies.work import Unit, compute, forget, model_of
from salience.zoo.datasets import Item

UNREADABLE = "unreadable picture"
"""What an item that the data set cannot make is called, with its number."""

TIMED = 10
"""Pictures that are tried at most until there is one whose time can be measured."""


@dataclass(frozen=True)
class Plan:
    """What a study will compute.

    Attributes:
        study: The study.
        units: Every image, model and method; all of an image together.
        images: The hash of every image, its labels and masks, by name.
        categories: The class indices of every kind of object that has several, as a COCO dog has.
        maskless: Pictures that have no mask.
    """

    study: Study
    units: list[Unit]
    images: dict[str, str]
    categories: list[tuple[int, ...]]
    maskless: int

    @property
    def note(self) -> str:
        """What is in vain of what is planned; empty if nothing is."""
        wanting = [metric for metric in self.study.quality if Metric.from_value(metric).facts.get("needs_masks")]
        if not wanting or not self.maskless:
            return ""
        return f"{self.maskless} of {len(self.images)} pictures have no mask, which {', '.join(wanting)} needs: such rows will be failed."

    def part(self, shard: tuple[int, int]) -> list[Unit]:
        """The units of shard I of N: the k-th of picture p where p + k is I modulo N, so that each gets of every model and method as much as of every picture."""
        number, count = shard
        each = len(self.study.models) * len(self.study.methods)
        return [unit for place, unit in enumerate(self.units) if (place // each + place % each) % count == number - 1]


def plan(study: Study, limit: int | None = None, report: Report | None = None) -> Plan:
    """List the work of a study; every picture's file is read once, for its hash. An item that the data set cannot make is listed by its number.

    Args:
        study: The study.
        limit: Pictures at most; None takes the study's own.
        report: Told what is going on.

    Raises:
        InputError: If there are no pictures, none can be had, two have one name, or the limit is below 1.
    """
    check_limit(limit)
    forget()
    data = study.data.load()
    images: dict[str, str] = {}
    pictures: dict[bytes, str] = {}
    copies: list[tuple[str, str]] = []
    categories: set[tuple[int, ...]] = set()
    lost: list[Exception] = []
    maskless = 0
    wanted = limit if limit is not None else study.data.limit
    count = len(data) if wanted is None else min(len(data), wanted)
    if count == 0:
        raise InputError(f"The data set {study.data.dataset} has no pictures: check its folder and options.")
    for place in range(count):
        if report is not None:
            report("reading the pictures", place, count)
        try:
            item = data[place]
        except Exception as error:  # whatever is wrong with it, its rows will say so
            lost.append(error)
            images[f"{UNREADABLE} {place + 1}"] = _digest(error)
            continue
        if item.name in images:
            raise InputError(f"Two pictures are called {item.name}: names must differ, because seeds come from them.")
        images[item.name], contents = _hashes(item)
        if contents in pictures:
            copies.append((pictures[contents], item.name))
        pictures.setdefault(contents, item.name)
        categories |= {group for group in item.groups if len(group) > 1}
        maskless += not item.masks
    if len(lost) == count:
        raise lost[0]
    if copies:
        first, copy = copies[0]
        warnings.warn(
            f"{first} and {copy} are the same picture{f' ({len(copies)} of {count} are copies)' if len(copies) > 1 else ''}: intervals and tests count each as one of its own, so leave copies out.",
            UserWarning,
            stacklevel=2,
        )
    units = [Unit(place, name, model, method) for place, name in enumerate(images) for model in study.models for method in study.methods]
    return Plan(study, units, images, sorted(categories), maskless)


def estimate(planned: Plan, report: Report | None = None) -> dict[tuple[str, str], float]:
    """Seconds an image of every model and method, measured on the first image that can be explained."""
    seconds = {}
    each = len(planned.study.models) * len(planned.study.methods)
    for place in range(each):
        if report is not None:
            report(f"timing {planned.units[place].method}", place, each)
        for unit in planned.units[place::each][:TIMED]:
            model_of(unit.model, planned.study.device, planned.study.precision, planned.study.chunk)
            start = time.perf_counter()
            rows = compute(planned.study, unit).rows
            seconds[unit.model, unit.method] = time.perf_counter() - start
            if any(row["status"] == "ok" for row in rows):
                break
    return seconds


def check_limit(limit: int | None) -> None:
    """Refuse a limit that leaves no pictures.

    Raises:
        InputError: If it is below 1.
    """
    if limit is not None and limit < 1:
        raise InputError(f"A limit of {limit} leaves no pictures: give at least 1 with --limit, or leave it out.")


def _hashes(item: Item) -> tuple[str, bytes]:
    """The hash of a picture, its labels and its masks, and that of the picture alone. One that cannot be read has both too: its failure is a result."""
    try:
        return item.fingerprint(), hashlib.sha256(b"".join(item.contents)).digest()
    except Exception as error:  # data sets and the libraries they read with raise many kinds
        return _digest(error), item.name.encode()


def _digest(error: Exception) -> str:
    return hashlib.sha256(str(error).encode()).hexdigest()
