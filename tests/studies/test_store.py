"""The folder of a study: queries, and files that are damaged or gone."""

import contextlib
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from small_study import kept, same, without_seconds

import salience as sal
from salience.studies.merge import merge
from salience.studies.run import run_study
from salience.studies.store import Store
from salience.studies.study import read_study
from salience.studies.summary import tables


def test_a_query_cannot_change_anything(folder):
    store = run_study(read_study("study.yaml"), "out", limit=1)
    before = without_seconds(store)
    for wrong in ("drop table results", "delete from results", "copy results to 'elsewhere.csv'", "set enable_external_access = true", "select 1; select 2"):
        with pytest.raises(sal.InputError, match=r"^Only SELECT is allowed in a query"):
            store.query(wrong)
    for empty in ("", " ; ", "-- nothing"):
        with pytest.raises(sal.InputError, match=r"^The query is empty: give a SELECT"):
            store.query(empty)
    assert store.query("with a as (select 1 as b) select * from a;") == (["b"], [(1,)])
    for wrong in ("select * from read_csv('study.yaml')", "select nothing from results", "selec"):
        with pytest.raises(sal.InputError, match=r"^The query failed: .*[^.!]\. The tables are results \(image, target, .*, seconds\) and curves \(image, .*, y\)\.$"):
            store.query(wrong)
    assert without_seconds(store) == before
    assert not (folder / "elsewhere.csv").exists()


def test_a_damaged_part_is_set_aside_and_computed_again(whole):
    store = Store(shutil.copytree("whole", "out"))
    first, second = sorted((store.folder / "results").glob("*.parquet"))[:2]
    first.write_bytes(first.read_bytes()[: first.stat().st_size // 2])
    (store.folder / "curves" / second.name).write_bytes(b"")
    untouched = {file: file.stat().st_mtime_ns for file in (store.folder / "results").glob("*.parquet") if file not in (first, second)}
    run_study(kept(), "out", resume=True)
    assert same(store, whole)
    assert all(file.stat().st_mtime_ns == when for file, when in untouched.items())
    assert len(list(store.folder.glob("*/*.damaged"))) == 2


def test_ctrl_c_while_the_database_works(folder, monkeypatch):
    """DuckDB makes a RuntimeError of it, which was called a bug."""

    class Interrupted(contextlib.nullcontext):
        def execute(*_):
            raise RuntimeError("Query interrupted")

    monkeypatch.setattr("duckdb.connect", lambda: Interrupted(Interrupted()))
    with pytest.raises(KeyboardInterrupt):
        Store("out").write("unit", [], [])
    assert list((folder / "out" / "results").iterdir()) == []


@pytest.mark.parametrize("left", [0, 300, -20])
def test_damaged_maps_are_computed_again(whole, left):
    store = Store(shutil.copytree("whole", "out"))
    damaged = min(store.folder.glob("maps/*.npz"))
    damaged.write_bytes(damaged.read_bytes()[:left])
    run_study(kept(), "out", resume=True)
    assert same(store, whole)
    with np.load(damaged) as maps, np.load(whole.folder / "maps" / damaged.name) as expected:
        assert np.array_equal(maps["map"], expected["map"])


@pytest.mark.parametrize("lost", ["curves/*.parquet", "maps/*.npz"])
def test_curves_and_maps_that_are_gone_are_computed_again(whole, lost):
    store = Store(shutil.copytree("whole", "out"))
    gone = min(store.folder.glob(lost))
    untouched = {file: file.stat().st_mtime_ns for file in (store.folder / "results").glob("*.parquet") if file.stem != gone.stem}
    gone.unlink()
    run_study(kept(), "out", resume=True)
    assert same(store, whole)
    assert gone.exists()
    assert all(file.stat().st_mtime_ns == when for file, when in untouched.items())


def test_curves_that_are_gone_are_not_merged(whole):
    min((whole.folder / "curves").iterdir()).unlink()
    with pytest.warns(UserWarning, match=r"^The study is not complete: 8 of 9 units "):
        merge(["whole"], "all")


def test_curves_of_an_attempt_that_lacked_memory_go(folder):
    store = run_study(read_study("study.yaml"), "out", limit=1)
    unit = min((store.folder / "curves").iterdir()).stem
    store.write(unit, store.rows()[:1], [])
    assert unit in store.complete()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's file that is always full")
def test_a_full_disk_is_told_in_a_sentence(tmp_path):
    """It was told in JSON."""
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / ".u.parquet.part").symlink_to("/dev/full")
    with pytest.raises(sal.InputError) as raised:
        Store(tmp_path).write("u", [{"image": "a.png", "value": 1.0}], [])
    wanted = f"Cannot write {tmp_path / 'results' / 'u.parquet'}: No space left on device. Free some space or mend the folder, then continue with --resume."
    assert str(raised.value) == wanted


@pytest.mark.parametrize("damage", [lambda whole: whole[: len(whole) // 2], lambda whole: b""])
def test_a_damaged_part_is_named(folder, damage):
    store = run_study(read_study("study.yaml"), "out", limit=1)
    part = sorted((store.folder / "results").glob("*.parquet"))[1]
    part.write_bytes(damage(part.read_bytes()))
    for ask in (store.rows, lambda: tables(store), lambda: store.query("select 1")):
        with pytest.raises(sal.InputError, match=rf"^{part} is damaged: continue the study with --resume, which sets it aside and computes it again\.$"):
            ask()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows allows no star in names")
def test_a_folder_may_have_the_letters_of_a_pattern(folder):
    study = read_study("study.yaml")
    store = run_study(study, "r[1]*", limit=1)
    run_study(study, "r1", limit=2)
    assert len(store.rows()) == 3 * 2 * 11
    run_study(study, "r[1]*", limit=2, resume=True)
    assert same(store, Store("r1"))


def test_no_study(folder):
    with pytest.raises(sal.InputError, match="holds no study"):
        Store(folder).query("select 1")


def test_parts_without_a_manifest_are_not_mixed_with_another_study(folder):
    store = run_study(read_study("study.yaml"), "out", limit=1)
    (store.folder / "manifest.json").unlink()
    for resume in (False, True):
        with pytest.raises(sal.InputError, match=r"^out holds parts of a study, but no manifest\.json: restore it, or choose another folder with --out\.$"):
            run_study(read_study("study.yaml"), "out", resume=resume)


def test_a_damaged_manifest(folder):
    store = run_study(read_study("study.yaml"), "out", limit=1)
    (store.folder / "manifest.json").write_text("{")
    with pytest.raises(sal.InputError, match=r"manifest.json is damaged"):
        run_study(read_study("study.yaml"), "out", resume=True)
