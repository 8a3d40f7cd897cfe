"""Shards joined to a whole."""

import shutil

import pytest
from small_study import kept, same

import salience as sal
from salience.studies.merge import merge
from salience.studies.plan import plan
from salience.studies.run import run_study
from salience.studies.store import Store
from salience.studies.study import read_study
from salience.studies.summary import threads_of


def test_shards_join_to_the_whole(whole):
    study = read_study("study.yaml")
    for number in (1, 2, 3):
        run_study(study, f"part{number}", shard=(number, 3))
    assert same(merge(["part1", "part2", "part3"], "all"), whole)
    run_study(study.model_copy(update={"seed": 9}), "other", limit=1)
    with pytest.raises(sal.InputError, match="holds another study"):
        merge(["part1", "other"], "mixed")


def test_parts_of_different_threads_are_told(folder):
    """Tasks of a job array may run on machines that differ: their rows are kept, and so is what they were run with."""
    study = read_study("study.yaml").model_copy(update={"methods": ["gradient"], "metrics": ["gini"], "perturbations": []})
    parts = [run_study(study, f"part{number}", shard=(number, 2), threads=number) for number in (1, 2)]
    with pytest.warns(UserWarning, match=r"^The parts were computed with different numbers of threads \(1, 2\): their rows may differ in the last digits\. The manifest says which\.$"):
        whole = merge(["part1", "part2"], "all")
    assert whole.manifest["threads"] is None
    assert whole.manifest["parts"] == [{"shard": [number, 2], "threads": number, "versions": part.manifest["versions"]} for number, part in enumerate(parts, 1)]
    assert threads_of(whole.manifest) == "1, 2"
    with pytest.raises(sal.InputError, match=r"^all was joined from parts with different numbers of threads, so it cannot be continued: continue the parts, and merge them again\.$"):
        run_study(study, "all", resume=True, limit=4)


def test_what_two_parts_have_is_taken_from_the_first(whole):
    """The rows were those of the last, beside curves of the first."""
    second = Store(shutil.copytree("whole", "second"))
    unit = plan(kept()).units[0]
    second.write(unit.id, [{**unit.__dict__, "target": None, "status": "failed", "reason": "a disk that was away"}], [])
    assert same(merge(["whole", "second"], "all"), whole)


def test_what_is_missing_in_a_part_is_told(folder):
    study = read_study("study.yaml").model_copy(update={"methods": ["gradient"], "metrics": ["gini"], "perturbations": []})
    for number in (1, 2):
        run_study(study, f"part{number}", shard=(number, 2))
    file = next((folder / "part1" / "results").iterdir())
    file.write_bytes(b"half of it")
    with pytest.warns(UserWarning, match=r"^The study is not complete: 2 of 3 units .* Continue the shards with --resume, and merge again into another folder\.$"):
        merge(["part1", "part2"], "all")
    assert file.read_bytes() == b"half of it"  # the parts are only read
    (folder / "all" / "manifest.json").unlink()
    with pytest.raises(sal.InputError, match=r"^all holds a study already: choose another folder"):
        merge(["part1", "part2"], "all")


def test_missing_shards_are_named(folder):
    study = read_study("study.yaml")
    for number in (1, 3):
        run_study(study, f"part{number}", shard=(number, 3))
    for parts, missing in ((["part1", "part3"], "The shard 2/3 is missing"), (["part3"], "The shards 1/3, 2/3 are missing")):
        with pytest.raises(sal.InputError, match=f"^{missing}: run what is missing with --shard, and give all folders to merge"):
            merge(parts, "all")
    assert not (folder / "all").exists()
