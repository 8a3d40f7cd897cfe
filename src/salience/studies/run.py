"""Run a study, or what is left of it."""

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from salience.core.errors import InputError, unknown
from salience.core.types import Report
from salience.studies.engines import ENGINES
from salience.studies.manifest import check_same, describe
from salience.studies.plan import UNREADABLE, check_limit, plan
from salience.studies.store import Store
from salience.studies.study import Study
from salience.studies.work import Unit


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
        InputError: If the folder holds another study, or one and `resume` is not set, or something cannot be had, or a worker has other weights.
    """
    if engine not in ENGINES:
        raise unknown("engine", engine, ENGINES)
    if workers < 1 or (threads is not None and threads < 1) or not 1 <= shard[0] <= shard[1]:
        raise InputError("workers and threads must be at least 1, and a shard is I/N with I from 1 to N.")
    check_limit(limit)
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
        manifest = describe(planned, shard, threads, old, report)
        units = [replace(unit, weight_sigma=manifest["weight_sigma"].get(unit.model), weights=manifest["models"][unit.model]) for unit in planned.part(shard)]
        complete = set() if old is None else _continued(store, old, manifest, units)
        store.write_manifest(manifest)
        kept = set(list(planned.images)[: study.keep_maps])
        by_model = sorted(units, key=lambda unit: study.models.index(unit.model))  # so that each is loaded once
        tasks = [(unit, unit.image in kept) for unit in by_model if unit.id not in complete]
        done = len(units) - len(tasks)
        if report is not None:
            report("computing", done, len(units))
        for result in ENGINES[engine](study, tasks, workers, threads):
            store.write(result.unit.id, result.rows, result.curves, result.maps)
            done += 1
            if report is not None:
                report("computing", done, len(units))
    return store


def _continued(store: Store, old: dict[str, Any], manifest: dict[str, Any], units: Sequence[Unit]) -> set[str]:
    """What an earlier run of the same study completed. What is known only from it is added to the manifest.

    The rows of pictures that gave nothing, or nothing but failures, and have been mended since are dropped, to be computed again.

    Raises:
        InputError: If it is another study.
    """
    complete = store.complete()
    names = {was: now for was, now in zip(old["images"], manifest["images"], strict=False) if was != now and was.startswith(UNREADABLE)}
    old["images"] = {names.get(name, name): manifest["images"][names[name]] if name in names else value for name, value in old["images"].items()}
    changed = {name for name, value in manifest["images"].items() if old["images"].get(name, value) != value}
    mended = changed and changed - {name for (name,) in store.query("SELECT DISTINCT image FROM results WHERE status <> 'failed'")[1]}
    check_same(old, manifest, store.folder, mended)
    manifest["images"] = old["images"] | manifest["images"]
    manifest |= {"parts": old["parts"]} if "parts" in old else {}
    before = {now: was for was, now in names.items()}
    stale = {unit.id for unit in units if unit.image in mended} | {replace(unit, image=before[unit.image]).id for unit in units if unit.image in before}
    for unit in stale:
        store.drop(unit)
    return complete - stale
