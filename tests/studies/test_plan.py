"""What a study will compute, and how long it will take."""

import pytest
from small_study import STUDY

import salience as sal
from salience.core.errors import InputError
from salience.studies.plan import estimate, plan
from salience.studies.run import run_study
from salience.studies.study import read_study
from salience.studies.work import compute


def test_a_shard_has_every_method_and_picture(folder):
    """With as many shards as methods each had one method alone: the slow one made its task last as long as all of them."""
    planned = plan(read_study("study.yaml"))
    for number in (1, 2, 3):
        part = planned.part((number, 3))
        assert {unit.method for unit in part} == {"gradient", "smoothgrad:samples=3", "random"}
        assert {unit.image for unit in part} == {"0.png", "1.png", "2.png"}


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_without_pictures_is_refused(folder, limit):
    study = read_study("study.yaml")
    for refused in (lambda: plan(study, limit), lambda: run_study(study, "out", limit=limit)):
        with pytest.raises(sal.InputError, match=rf"^A limit of {limit} leaves no pictures: give at least 1 with --limit, or leave it out\.$"):
            refused()
    assert not (folder / "out").exists()


def test_the_plan(folder):
    planned = plan(read_study("study.yaml"))
    assert len(planned.units) == 9
    assert len({unit.id for unit in planned.units}) == 9
    assert sorted(unit.id for number in (1, 2) for unit in planned.part((number, 2))) == sorted(unit.id for unit in planned.units)
    assert planned.note == "3 of 3 pictures have no mask, which pointing_game needs: such rows will be failed."
    (folder / "study.yaml").write_text(STUDY.replace(", pointing_game", ""))
    assert plan(read_study("study.yaml")).note == ""


def test_the_time_is_that_of_a_picture_that_can_be_explained(folder, monkeypatch):
    """With a damaged picture first a study was said to take no time at all."""
    (folder / "pictures" / "0.png").write_bytes(b"")
    timed = []
    monkeypatch.setattr("salience.studies.plan.compute", lambda study, unit: timed.append((unit.method, unit.image)) or compute(study, unit))
    study = read_study("study.yaml")
    assert set(estimate(plan(study))) == {("python:tiny_models:net", method) for method in study.methods}
    assert timed == [(method, image) for method in study.methods for image in ("0.png", "1.png")]


def test_copies_of_a_picture_are_told(folder):
    """They were taken for pictures of their own without a word."""
    pictures = folder / "pictures"
    (pictures / "copy.png").write_bytes((pictures / "1.png").read_bytes())
    (folder / "study.yaml").write_text(STUDY.replace("limit: 3", "limit: 9"))
    with pytest.warns(UserWarning, match=r"^1\.png and copy\.png are the same picture: intervals and tests count each as one of its own, so leave copies out\.$"):
        assert len(plan(read_study("study.yaml")).images) == 5
    (pictures / "again.png").write_bytes((pictures / "1.png").read_bytes())
    with pytest.warns(UserWarning, match=r"^1\.png and again\.png are the same picture \(2 of 6 are copies\)"):
        plan(read_study("study.yaml"))


def test_pictures_that_cannot_be_read_are_no_copies(folder, monkeypatch):
    def refuse(picture):
        raise InputError("It cannot be read.")

    monkeypatch.setattr("salience.zoo.datasets._content", refuse)
    assert len(plan(read_study("study.yaml")).images) == 3
