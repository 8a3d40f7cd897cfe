"""A run, and one that continues it."""

import os
import sys

import pytest
import torch
from PIL import Image
from small_study import same

import salience as sal
from salience.studies.engines import ENGINES
from salience.studies.run import run_study
from salience.studies.store import Store
from salience.studies.study import read_study


def test_a_study_that_is_refused_leaves_no_folder(folder):
    """An empty one with a lock was left."""
    study = read_study("study.yaml")
    with pytest.raises(sal.InputError, match="more than the"):
        run_study(study, "new/out", workers=1000, threads=1)
    assert not (folder / "new" / "out").exists()


def test_refused_without_saying_so_and_with_another_study(folder):
    study = read_study("study.yaml")
    run_study(study, "out", limit=2)
    with pytest.raises(sal.InputError, match=r"^out holds a study already: continue it with --resume"):
        run_study(study, "out", limit=2)
    with pytest.raises(sal.InputError, match="seed was 3 and is 4"):
        run_study(study.model_copy(update={"seed": 4}), "out", resume=True, limit=2)
    with pytest.raises(sal.InputError, match="pictures are gone: 1, "):
        run_study(study, "out", resume=True, limit=1)
    Image.new("RGB", (32, 24)).save(folder / "pictures" / "0.png")
    with pytest.raises(sal.InputError, match=r"the picture .*0.png or its labels or masks have changed"):
        run_study(study, "out", resume=True, limit=2)


def test_the_limit_may_grow(folder):
    study = read_study("study.yaml")
    store = run_study(study, "out", limit=1)
    first = {file: file.stat().st_mtime_ns for file in (store.folder / "results").glob("*")}
    run_study(study, "out", resume=True, limit=4)
    assert same(store, run_study(study, "whole", limit=4))
    assert all(file.stat().st_mtime_ns == when for file, when in first.items())


@pytest.mark.parametrize(("cores", "bound", "used", "workers", "threads"), [(8, 8, 8, 1, 8), (8, 8, 3, 1, 3), (8, 4, 8, 2, 2), (8, 8, 1, 4, 1), (2, 8, 8, 1, 2)])
def test_threads_are_those_that_torch_uses_and_the_process_has(folder, monkeypatch, cores, bound, used, workers, threads):
    """A job of a cluster may be bound to some cores, or have OMP_NUM_THREADS."""
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(bound)), raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: used)
    monkeypatch.setitem(ENGINES, "local", lambda study, tasks, workers, threads: iter(()))
    assert run_study(read_study("study.yaml"), "out", workers=workers).manifest["threads"] == threads


def with_a_damaged_picture(folder):
    """A small study, what it comes to, and one of its pictures, which is cut short now, with its content."""
    study = read_study("study.yaml").model_copy(update={"methods": ["gradient"], "metrics": ["gini"], "perturbations": []})
    expected = run_study(study, "whole")
    picture = folder / "pictures" / "1.png"
    content = picture.read_bytes()
    picture.write_bytes(content[:100])
    return study, expected, picture, content


def test_a_picture_that_has_been_mended_is_read_when_the_study_goes_on(folder):
    study, expected, picture, content = with_a_damaged_picture(folder)
    store = run_study(study, "out")
    assert not same(store, expected)
    picture.write_bytes(content)
    assert same(run_study(study, "out", resume=True), expected)


def test_killed_while_a_mended_picture_is_made_anew(folder, monkeypatch):
    """Its rows were gone, but the manifest still had the damaged picture: the study was refused for ever."""
    study, expected, picture, content = with_a_damaged_picture(folder)
    store = run_study(study, "out")
    picture.write_bytes(content)
    with monkeypatch.context() as patch:
        patch.setattr(Store, "write_manifest", lambda *_: sys.exit())
        with pytest.raises(SystemExit):
            run_study(study, "out", resume=True)
    assert store.query("SELECT * FROM results WHERE image = '1.png'")[1] == []
    assert same(run_study(study, "out", resume=True), expected)


def test_what_failed_for_want_of_memory_is_tried_again(folder, monkeypatch):
    """Such rows were as final as any: one full memory spoiled a study."""
    study = read_study("study.yaml").model_copy(update={"methods": ["gradient"], "metrics": ["gini"], "perturbations": []})
    expected = run_study(study, "whole")

    def full(*_, **__):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(sal.Gradient, "__call__", full)
        store = run_study(study, "out")
    reasons = store.query("SELECT DISTINCT method, reason FROM results WHERE status = 'failed'")[1]
    assert ("gradient", "The memory was full: --resume tries it again; take fewer workers, a smaller chunk, or a machine with more.") in reasons
    assert same(run_study(study, "out", resume=True), expected)
