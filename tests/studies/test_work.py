"""What one unit of a study computes: its rows, whatever becomes of them."""

import dataclasses
import json
import time

import numpy as np
import pytest
import torch
from PIL import Image
from small_study import STUDY, same, without_seconds

import salience as sal
from salience.core.metric import UndefinedError
from salience.studies.plan import plan
from salience.studies.run import run_study
from salience.studies.store import KEY
from salience.studies.study import Study, read_study
from salience.studies.summary import tables
from salience.studies.work import _relative_error, seeds_of
from salience.zoo.models import load_model


def test_every_combination_has_a_row(whole):
    rows = whole.rows()
    keys = [tuple(row[name] for name in KEY) for row in rows]
    assert len(set(keys)) == len(keys)
    # images x methods x seeds x (relative error, 3 metrics, ssim of 2 perturbations x 3 variants and of the floor)
    assert len(rows) == 3 * 3 * 2 * (1 + 3 + 2 * 3 + 1)
    by_status = dict(whole.query("select status, count(*) from results group by status")[1])
    # the pointing game has no masks here, and the control random does not know its error
    assert by_status == {"ok": 3 * 3 * 2 * 10 - 3 * 2, "failed": 3 * 3 * 2, "undefined": 3 * 2}
    assert {row["reason"].split(":")[0] for row in rows if row["status"] == "failed"} == {"pointing_game compares maps with where the object is"}
    assert len(whole.rows("curves")) == 3 * 3 * 2 * 5


def test_a_relative_error_that_is_not_known_is_no_number(folder):
    """The control random had 0, as if it were deterministic."""
    rows = run_study(read_study("study.yaml"), "out", limit=1).rows()
    found = {(row["method"], row["value"], row["status"], row["reason"]) for row in rows if row["metric"] == "relative_error" and row["method"] != "smoothgrad:samples=3"}
    assert found == {("gradient", 0.0, "ok", None), ("random", None, "undefined", "random draws at random but does not know its error.")}


def test_noisy_networks_that_lose_the_class_are_told_of(folder):
    methods = ["gradient", "noisegrad:weight_sigma=0,weight_samples=2", "noisegrad:weight_sigma=40,weight_samples=20", "beta_smoothing"]
    (folder / "study.yaml").write_text(f"name: kept\nmodels: python:tiny_models:net\ndata: {{folder: pictures, limit: 3}}\nmethods: {methods}\nseeds: [0, 1]\n")
    store = run_study(read_study("study.yaml"), "out")
    rows = [row for row in store.rows() if row["metric"] == "class_kept"]
    kept = {method: [row["value"] for row in rows if row["method"] == method] for method in dict.fromkeys(row["method"] for row in rows)}
    quiet, noisy, smooth = (next(values for method, values in kept.items() if method.endswith(end)) for end in ("weight_sigma=0.0", "weight_sigma=40.0", "beta_smoothing"))
    assert len(kept) == 3
    assert quiet == [1] * 6
    assert len(smooth) == 6
    assert 0 < np.mean(noisy) < 0.5
    notes = tables(store)[0].notes
    assert sum("so most of what it shows are broken networks" in note for note in notes) == 1
    assert f"its noisy or smoothed networks keep the class in {np.mean(noisy):.0%} of all cases" in " ".join(notes)


def test_an_infinite_relative_error_is_no_number(folder):
    """It was a value, but the means left it out and called it undefined."""
    e = sal.explain("smoothgrad:samples=3", sal.load_model("python:tiny_models:net"), torch.rand(1, 3, 24, 32))
    lost = dataclasses.replace(e, maps=torch.ones_like(e.maps), stderr=torch.ones_like(e.maps))
    with pytest.raises(UndefinedError, match=r"^Nothing stands out of the sampling noise, so the relative error is infinite: take more draws\.$"):
        _relative_error(lost)


def test_values_are_those_of_the_library(folder):
    study = read_study("study.yaml")
    store = run_study(study, "out", limit=1)
    model = sal.load_model("python:tiny_models:net")
    images = sal.load_images(["pictures/0.png"], model)
    seed = [seeds_of(study, store.rows()[0]["image"], 1)]
    e = sal.explain("smoothgrad:samples=3", model, images, seed=seed)
    expected = sal.measure("deletion:steps=4", model, images, None, e, seed=seed)
    (found,) = [row["value"] for row in store.rows() if (row["metric"], row["method"], row["seed"]) == ("deletion:steps=4", "smoothgrad:samples=3", 1)]
    assert found == pytest.approx(float(expected), abs=1e-6)


def test_a_score_is_for_methods_that_depend_on_one(folder):
    """The controls failed."""
    study = read_study("study.yaml").model_copy(update={"score": "log_probability", "methods": ["gradient", "random", "centre"], "metrics": ["gini", "ssim"]})
    rows = run_study(study, "out", limit=1).rows()
    assert {(row["method"], row["reason"]) for row in rows if row["status"] == "failed"} == set()
    (gradient,) = (row["value"] for row in rows if (row["method"], row["metric"], row["seed"]) == ("gradient", "gini", study.seeds[0]))
    item, model = study.data.load()[0], sal.load_model(study.models[0])
    image = sal.load_images([item.picture], model)
    assert gradient == pytest.approx(sal.measure("gini", model, image, None, sal.explain("gradient", model, image, score="log_probability")).item())


def test_one_bad_picture_does_not_stop_the_others(folder):
    (folder / "pictures" / "1.png").write_bytes(b"no picture")
    store = run_study(read_study("study.yaml"), "out")
    rows = store.rows()
    assert tables(store)[0].title.endswith(" (2 pictures)")
    bad = [row for row in rows if row["image"].endswith("1.png")]
    assert {row["status"] for row in bad} == {"failed"}
    assert len(bad) == 3 * 2 * 11
    assert all("1.png is not an image that can be read" in row["reason"] for row in bad)
    assert "ok" in {row["status"] for row in rows}


@pytest.mark.parametrize("perturbation", ["translation", "translation:right=0.4", "rotation"])
def test_pixels_out_of_view_are_no_agreement(folder, perturbation):
    """Maps that have nothing to do with each other, of pictures that were moved: they agree as little as those of pictures that were not."""
    changes = {"methods": ["random"], "metrics": ["spearman", "pearson", "mse", "ssim"], "perturbations": [perturbation, "gaussian_noise"], "variants": ["fresh", "floor"], "seeds": [1, 2, 3, 4]}
    text = read_study("study.yaml").model_copy(update=changes).model_dump_json()
    store = run_study(Study.model_validate_json(text), "out", threads=1)
    means = {row[:3]: row[3] for row in store.query("SELECT metric, perturbation, variant, avg(value) FROM results WHERE variant <> '' GROUP BY ALL")[1]}
    moved = next(each for _, each, _ in means if each.startswith(perturbation))
    assert {key for key in means if key[0] == "ssim"} == {("ssim", moved, "fresh"), ("ssim", "gaussian_noise", "fresh"), ("ssim", "", "floor"), ("ssim", moved, "floor")}
    for metric in ("spearman", "pearson", "ssim"):
        assert abs(means[metric, moved, "fresh"]) < 0.05
    for metric in changes["metrics"]:  # the control's draws are the same for both
        assert means[metric, moved, "floor"] == pytest.approx(means[metric, moved, "fresh"], abs=1e-6)
        assert means[metric, "", "floor"] == pytest.approx(means[metric, moved, "floor"], abs=0.03)


def test_a_mask_that_cannot_be_read_fails_what_needs_it(folder):
    """It ended the study, and --resume ended at the same place."""
    for number in range(3):
        Image.fromarray(np.full((24, 32), 255, np.uint8)).save(folder / "pictures" / f"{number}.mask.png")
    (folder / "pictures" / "1.mask.png").write_bytes(b"no mask")
    (folder / "pictures" / "labels.csv").write_text("file,class_index,mask\n" + "".join(f"{number}.png,2,{number}.mask.png\n" for number in range(3)))
    (folder / "study.yaml").write_text(STUDY.replace("limit: 3", "labels: labels.csv, targets: labels"))
    store = run_study(read_study("study.yaml"), "out")
    found = store.query("SELECT DISTINCT image, metric, reason FROM results WHERE status = 'failed'")[1]
    assert [row[:2] for row in found] == [("1.png", "pointing_game")]
    assert "1.mask.png cannot be read" in found[0][2]
    assert same(run_study(read_study("study.yaml"), "out", resume=True), store)
    assert tables(store)[0].notes[0] == "pointing_game: left out 2 failed of gradient; 2 failed of smoothgrad:samples=3; 2 failed of random."


def test_a_file_that_is_missing_fails_alone(folder):
    """A table of labels that named one picture too many refused the whole study."""
    (folder / "pictures" / "labels.csv").write_text("file,class_index,mask\n0.png,2,nowhere.png\n7.png,2,\n")
    (folder / "study.yaml").write_text(STUDY.replace("limit: 3", "labels: labels.csv, targets: labels"))
    store = run_study(read_study("study.yaml"), "out")
    found = dict(store.query("SELECT image, any_value(reason) FROM results WHERE status = 'failed' GROUP BY image")[1])
    assert set(found) == {"0.png", "7.png"}
    assert "nowhere.png cannot be read" in found["0.png"]
    assert "7.png" in found["7.png"]
    assert store.query("SELECT DISTINCT metric FROM results WHERE image = '0.png' AND status = 'failed'")[1] == [("pointing_game",)]
    assert store.query("SELECT DISTINCT status FROM results WHERE image = '7.png'")[1] == [("failed",)]


def test_models_are_not_loaded_again_for_each_picture(folder, monkeypatch):
    """Two are kept, so a study of three or more loaded each for each picture."""
    monkeypatch.setenv("BEGUN", "begun")
    loaded = []
    monkeypatch.setattr("salience.studies.work.load_model", lambda name, **options: loaded.append(name) or load_model(name, **options))
    models = [f"python:tiny_models:{name}" for name in ("net", "any_size", "slow")]
    study = Study.model_validate({"name": "three", "models": models, "data": {"folder": "pictures"}, "methods": ["gradient"], "metrics": ["gini"]})
    run_study(study, "out")
    assert len(loaded) <= 2 * len(models)  # once for the manifest, once for the rows


def test_files_that_changed_since_the_last_study_are_read_anew(folder):
    """Within one process, as in a notebook: models and tables of labels were those of the first study."""
    table = folder / "pictures" / "labels.csv"
    (folder / "study.yaml").write_text(STUDY.replace("limit: 3", "labels: labels.csv, targets: labels"))
    targets = []
    for label in (2, 1):
        table.write_text(f"file,class_index\n0.png,{label}\n")
        targets += run_study(read_study("study.yaml"), f"out{label}").query("SELECT DISTINCT target FROM results")[1]
    assert targets == [(2,), (1,)]


def test_an_item_that_cannot_be_made_does_not_stop_the_others(folder):
    """A damaged annotation ended the study before it began."""
    for each in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / each).mkdir(parents=True)
    box = "<bndbox><xmin>3</xmin><ymin>3</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
    whole = f"<annotation><size><height>24</height><width>32</width></size><object><name>bird</name>{box}</object></annotation>"
    for number in range(3):
        Image.open(f"pictures/{number}.png").save(f"JPEGImages/{number}.jpg")
        (folder / "Annotations" / f"{number}.xml").write_text(whole)
    (folder / "ImageSets/Main/val.txt").write_text("0\n1\n2\n")
    (folder / "study.yaml").write_text(STUDY.replace("folder: pictures, limit: 3", "dataset: voc, root: ."))
    study = read_study("study.yaml").model_copy(update={"methods": ["gradient"]})
    expected = run_study(study, "whole")
    (folder / "Annotations" / "1.xml").write_text("<annotation>")
    store = run_study(study, "out")
    rows = without_seconds(store)
    bad = [row for row in rows if row["image"] == "unreadable picture 2"]
    assert [row for row in rows if row not in bad] == [row for row in without_seconds(expected) if row["image"] != "1"]
    assert len(bad) == 2 * 11
    assert {row["status"] for row in bad} == {"failed"}
    assert all("1.xml is not an annotation of PASCAL VOC" in row["reason"] for row in bad)
    assert same(run_study(study, "out", resume=True), store)
    (folder / "Annotations" / "1.xml").write_text(whole)  # as it was: what could not be made has its own name now
    assert same(run_study(study, "out", resume=True), expected)
    assert list(store.manifest["images"]) == ["0", "1", "2"]
    for number in range(3):
        (folder / "Annotations" / f"{number}.xml").write_text("<annotation>")
    with pytest.raises(sal.InputError, match=r"^Annotations/0.xml is not an annotation of PASCAL VOC"):
        plan(study)


def test_maps_are_kept_on_request(folder):
    store = run_study(read_study("study.yaml").model_copy(update={"keep_maps": 1}), "out")
    files = list((store.folder / "maps").glob("*.npz"))
    assert len(files) == 3  # one picture, three methods
    with np.load(files[0], allow_pickle=False) as file:
        assert file["map"].shape[0] == 2
        assert file["image"].shape == (1, 3, 24, 32)
    random = [file for file in map(np.load, files) if "stderr" in file.files]
    assert random
    assert all(len(file["df"]) == len(file["stderr"]) == len(file["map"]) for file in random)


def test_seeds_of_pictures_differ_and_those_of_weights_are_shared(folder):
    study = read_study("study.yaml")
    (a, shared), (b, again) = seeds_of(study, "a", 0), seeds_of(study, "b", 0)
    assert a != b
    assert shared == again
    assert seeds_of(study, "a", 1)[1] != shared


def test_two_objects_of_one_class_are_explained_once(folder):
    """A car and a truck of which a model sees the same class: each row was there twice, and counted twice in means over rows."""
    painted = np.zeros((24, 32), np.uint8)
    painted[:8], painted[16:] = 1, 2
    for number in range(4):
        Image.fromarray(painted).save(folder / "pictures" / f"{number}.mask.png")
    names = {"classes": {"1": "car", "2": "truck"}, "coco_to_imagenet": {"car": [0, 1, 2, 3, 4], "truck": [4, 3, 2, 1, 0]}}
    (folder / "pictures" / "classes.json").write_text(json.dumps(names))
    data = "data: {dataset: coco, root: pictures, labels: imagenet, targets: all_labels}\n"
    (folder / "study.yaml").write_text(f"name: twice\nmodels: python:tiny_models:net\n{data}methods: [gradient]\nmetrics: [gini]\n")
    rows = run_study(read_study("study.yaml"), "out").rows()
    assert len(rows) == len({tuple(row[key] for key in KEY) for row in rows}) == 8


def test_seconds_count_the_maps_of_a_perturbed_picture_once(folder, monkeypatch):
    import salience.studies.work as module

    def slow(*arguments):
        time.sleep(0.2)
        return made(*arguments)

    made = module.compared
    monkeypatch.setattr(module, "compared", slow)
    study = read_study("study.yaml").model_copy(update={"metrics": ["mse", "ssim", "cosine"], "perturbations": ["gaussian_noise"], "methods": ["gradient"], "seeds": [0], "variants": ["common"]})
    (row,) = run_study(study, "out", limit=1).query("SELECT count(*) FILTER (seconds >= 0.2), count(*) FROM results WHERE variant = 'common'")[1]
    assert tuple(row) == (1, 3)
