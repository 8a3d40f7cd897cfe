"""Plan a study, run it, continue it, join its parts."""

import hashlib
import math
import os
import platform
import shutil
import sys
import time
import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import salience
from salience.core.errors import InputError, unknown
from salience.core.explainer import Explainer
from salience.core.metric import Metric
from salience.core.registry import facts_of
from salience.core.types import Report
from salience.perturb.tune import known_weight_sigma
from salience.studies.engines import ENGINES
from salience.studies.store import Store
from salience.studies.study import Study
from salience.studies.summary import incomplete
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
        wanting = [metric for metric in self.study.quality if facts_of(type(Metric.from_value(metric))).get("needs_masks")]
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
    _check_limit(limit)
    forget()
    data = study.data.load()
    images: dict[str, str] = {}
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
        images[item.name] = _fingerprint(item)
        categories |= {group for group in item.groups if len(group) > 1}
        maskless += not item.masks
    if len(lost) == count:
        raise lost[0]
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


def run_study(
    study: Study,
    out: str | Path,
    *,
    resume: bool = False,
    workers: int = 1,
    threads: int | None = None,
    shard: tuple[int, int] = (1, 1),
    engine: str = "local",
    limit: int | None = None,
    report: Report | None = None,
) -> Store:
    """Run a study, or what is left of it.

    Args:
        study: The study.
        out: The folder for its rows.
        resume: Continue the study that the folder holds.
        workers: Processes.
        threads: Threads of each; None gives each its share of the cores, at most as many as torch uses now (OMP_NUM_THREADS), or what the study began with.
        shard: (I, N) computes one of N parts, for job arrays; `merge` joins the folders.
        engine: ``local`` or ``ray``.
        limit: Pictures at most.
        report: Told how far it is.

    Returns:
        The folder's store.

    Raises:
        InputError: If the folder holds another study, or one and `resume` is not set, or something cannot be had.
    """
    if engine not in ENGINES:
        raise unknown("engine", engine, ENGINES)
    if workers < 1 or (threads is not None and threads < 1) or not 1 <= shard[0] <= shard[1]:
        raise InputError("workers and threads must be at least 1, and a shard is I/N with I from 1 to N.")
    _check_limit(limit)
    store = Store(out)
    with store.locked():
        old = store.manifest
        if old is not None and not resume:
            raise InputError(f"{out} holds a study already: continue it with --resume, or choose another folder with --out.")
        if old is None and store.holds_rows:
            raise InputError(f"{out} holds parts of a study, but no manifest.json: restore it, or choose another folder with --out.")
        if old is not None and old["threads"] is None:
            raise InputError(f"{out} was joined from parts with different numbers of threads, so it cannot be continued: continue the parts, and merge them again.")
        planned = plan(study, limit, report)
        cores = min(os.cpu_count() or 1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else sys.maxsize)
        threads = threads or (min(torch.get_num_threads(), max(1, cores // workers)) if old is None else old["threads"])
        if workers > 1 and threads * workers > cores and engine == "local":
            raise InputError(f"{workers} workers of {threads} thread(s) each are more than the {cores} core(s) here: take fewer, or let the study begin with fewer threads.")
        if old is not None and threads != old["threads"]:
            raise InputError(f"The study began with {old['threads']} thread(s), on which its last digits depend: leave the threads as they were.")
        manifest = _manifest(planned, shard, threads)
        complete: set[str] = set()
        mended: set[str] = set()
        lost: dict[str, str] = {}
        if old is not None:
            complete = store.complete()
            lost = {was: now for was, now in zip(old["images"], planned.images, strict=False) if was != now and was.startswith(UNREADABLE)}
            old["images"] = {lost.get(name, name): manifest["images"][lost[name]] if name in lost else value for name, value in old["images"].items()}
            mended = _mended(store, old, manifest)
            _check_same(old, manifest, out, mended)
            manifest["images"] = old["images"] | manifest["images"]
            manifest |= {"parts": old["parts"]} if "parts" in old else {}
        units = planned.part(shard)
        for unit in units:
            if unit.image in mended:
                store.drop(unit.id)
                complete.discard(unit.id)
        for name, now in lost.items():
            for unit in (each for each in units if each.image == now):
                store.drop(replace(unit, image=name).id)
        store.write_manifest(manifest)
        kept = set(list(planned.images)[: study.keep_maps])
        tasks = [(unit, unit.image in kept) for unit in units if unit.id not in complete]
        done = len(units) - len(tasks)
        if report is not None:
            report("computing", done, len(units))
        for result in ENGINES[engine](study, tasks, workers, threads):
            store.write(result.unit.id, result.rows, result.curves, result.maps)
            done += 1
            if report is not None:
                report("computing", done, len(units))
    return store


def merge(folders: Sequence[str | Path], out: str | Path) -> Store:
    """Join the folders of the shards of one study. The manifest keeps each part's threads and versions, on which last digits depend.

    The folders are only read. Parts that are damaged or not there are left out, which a warning says.

    Raises:
        InputError: If they are not of one study, a shard is missing, or there are rows already in the folder for the result.
    """
    stores = [Store(folder) for folder in folders]
    manifests = []
    for store in stores:
        if store.manifest is None:
            raise InputError(f"{store.folder} holds no study: give folders that 'salience study run' wrote.")
        manifests.append({"categories": []} | store.manifest)
    for store, manifest in zip(stores, manifests, strict=True):
        _check_same(manifests[0] | {"shard": None}, manifest | {"shard": None}, store.folder)
    _check_shards([tuple(manifest["shard"]) for manifest in manifests])
    whole = Store(out)
    with whole.locked():
        if whole.manifest is not None or whole.holds_rows:
            raise InputError(f"{out} holds a study already: choose another folder with --out.")
        there: set[str] = set()
        for store in stores:
            ours = store.complete(mend=False) - there  # of what two have the first counts, with all its files
            there |= ours
            for unit in ours:
                for file in store.folder.glob(f"*/{unit}.*"):
                    target = whole.folder / file.parent.name / file.name
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(file, target)
        images = {name: each for manifest in manifests for name, each in manifest["images"].items()}
        parts = [part for manifest in manifests for part in manifest.get("parts") or [{key: manifest[key] for key in ("shard", "threads", "versions")}]]
        threads = sorted({part["threads"] for part in parts})
        categories = sorted({tuple(each) for manifest in manifests for each in manifest["categories"]})
        whole.write_manifest(manifests[0] | {"shard": [1, 1], "threads": threads[0] if len(threads) == 1 else None, "images": images, "categories": categories, "parts": parts})
    missing = incomplete(whole)
    if missing:
        warnings.warn(f"{missing} Continue the shards with --resume, and merge again into another folder.", UserWarning, stacklevel=2)
    if len(threads) > 1:
        warnings.warn(
            f"The parts were computed with different numbers of threads ({', '.join(map(str, threads))}): their rows may differ in the last digits. The manifest says which.", UserWarning, stacklevel=2
        )
    return whole


def _check_limit(limit: int | None) -> None:
    if limit is not None and limit < 1:
        raise InputError(f"A limit of {limit} leaves no pictures: give at least 1 with --limit, or leave it out.")


def _check_shards(shards: Sequence[tuple[int, int]]) -> None:
    """Refuse shards that do not make up the whole."""
    count = math.lcm(*(each for _, each in shards))
    covered = {place for number, each in shards for place in range(number, count + 1, each)}
    missing = [f"{place}/{count}" for place in range(1, count + 1) if place not in covered]
    if missing:
        names = ", ".join(missing[:10]) + (f" and {len(missing) - 10} more" if len(missing) > 10 else "")
        raise InputError(f"The shard{'s' if len(missing) > 1 else ''} {names} {'are' if len(missing) > 1 else 'is'} missing: run what is missing with --shard, and give all folders to merge.")


def _fingerprint(item: Item) -> str:
    """A hash of a picture, its labels and its masks. A picture that cannot be read has one too: its failure is a result."""
    try:
        return item.fingerprint()
    except Exception as error:  # data sets and the libraries they read with raise many kinds
        return _digest(error)


def _digest(error: Exception) -> str:
    return hashlib.sha256(str(error).encode()).hexdigest()


def _mended(store: Store, old: dict[str, Any], new: dict[str, Any]) -> set[str]:
    """The pictures that gave nothing, or nothing but failures, and have changed since: their rows are made anew."""
    changed = {name for name, value in new["images"].items() if old["images"].get(name, value) != value}
    return changed and changed - {name for (name,) in store.query("SELECT DISTINCT image FROM results WHERE status <> 'failed'")[1]}


def _manifest(planned: Plan, shard: tuple[int, int], threads: int) -> dict[str, Any]:
    study = planned.study
    versions = {"salience": salience.__version__, "torch": torch.__version__, "numpy": np.__version__, "python": platform.python_version(), "machine": platform.machine()}
    networks = {name: model_of(name, study.device, study.precision, study.chunk) for name in study.models}
    models = {name: network.weights_hash() for name, network in networks.items()}
    tuned = any(_takes_a_level(Explainer.from_value(method)) for method in study.methods)
    levels = {name: known_weight_sigma(network) for name, network in networks.items() if tuned}
    described = study.model_dump(mode="json")
    described["data"].pop("limit")
    settings = {name: network.settings for name, network in networks.items()}
    found = {"study": described, "models": models, "settings": settings, "weight_sigma": levels, "threads": threads, "shard": list(shard), "versions": versions}
    return found | {"images": planned.images, "categories": planned.categories}


def _takes_a_level(explainer: Explainer) -> bool:
    """Whether a method, or its base, takes the level of weight noise that is known for the network."""
    base = getattr(explainer, "base", None)
    return getattr(explainer, "weight_sigma", None) == "auto" or (isinstance(base, Explainer) and _takes_a_level(base))


def _check_same(old: dict[str, Any], new: dict[str, Any], folder: str | Path, mended: Collection[str] = ()) -> None:
    """Refuse to mix two studies in one folder."""
    changes = [f"{key} was {old['study'].get(key)!r} and is {value!r}" for key, value in new["study"].items() if old["study"].get(key) != value]
    changes += [f"the weights of {name} have changed" for name, value in new["models"].items() if old["models"].get(name) != value and name in old["models"]]
    before = old.get("settings", {})
    for name, value in new["settings"].items():
        was = before.get(name, value)
        changes += [f"{key} of {name} was {was.get(key)} and is {each}" for key, each in value.items() if was.get(key) != each]
    levels = old.get("weight_sigma", {})
    changes += [f"the noise level known for {name} was {levels[name]} and is {value} (salience tune)" for name, value in new["weight_sigma"].items() if levels.get(name, value) != value]
    changes += [f"the picture {name} or its labels or masks have changed" for name, value in new["images"].items() if old["images"].get(name, value) != value and name not in mended]
    shorter = [name for name in old["images"] if name not in new["images"]]
    if old["shard"] is not None and shorter:
        changes += [f"{len(shorter)} pictures are gone, {shorter[0]} first (a limit may only grow)"]
    if list(old["images"])[: len(new["images"])] != list(new["images"])[: len(old["images"])] and old["shard"] is not None and not shorter:
        changes += ["the order of the pictures has changed"]
    if old["shard"] != new["shard"]:
        changes += [f"the shard was {old['shard']} and is {new['shard']}"]
    if changes:
        raise InputError(f"{folder} holds another study: {'; '.join(changes)}. Undo the change, or run in a new folder.")
    if old["versions"] != new["versions"]:
        parts = ", ".join(f"{name} {old['versions'].get(name)} then, {value} now" for name, value in new["versions"].items() if old["versions"].get(name) != value)
        warnings.warn(f"The study began with other versions ({parts}): its rows may differ in the last digits.", UserWarning, stacklevel=3)
