"""Nothing that rows depend on changes while a study is continued."""

import re

import numpy as np
import pytest
import torch
from PIL import Image
from small_study import STUDY

import salience as sal
from salience.perturb.tune import keep_weight_sigma, smallest_crossing
from salience.studies.run import run_study
from salience.studies.study import read_study


def test_other_weights_are_refused(folder, monkeypatch):
    study = read_study("study.yaml")
    run_study(study, "out", limit=1)
    import salience.studies.manifest as module

    other = sal.load_model("python:tiny_models:net")
    with torch.no_grad():
        other.module.head.bias.add_(1)
    monkeypatch.setattr(module, "model_of", lambda *_: other)
    with pytest.raises(sal.InputError, match="the weights of python:tiny_models:net have changed"):
        run_study(study, "out", resume=True, limit=1)


@pytest.mark.parametrize(
    ("change", "said"), [("mean", r"mean of python:tiny_models:net was \[.*\] and is \[0\.25, "), ("size", r"size of .* was \[24, 32\] and is \[16, 24\]"), ("net", "structure of ")]
)
def test_other_preprocessing_or_structure_is_refused(folder, monkeypatch, change, said):
    """Only the weights were looked at: rows of two models came into one folder."""
    study = read_study("study.yaml")
    run_study(study, "out", limit=1)
    import salience.studies.manifest as module

    other = sal.load_model("python:tiny_models:net")
    if change == "mean":
        other.mean[:, 0] = 0.25
    elif change == "size":
        other.size = (16, 24)
    else:
        other.module.added = torch.nn.Tanh()
    monkeypatch.setattr(module, "model_of", lambda *_: other)
    with pytest.raises(sal.InputError, match=said):
        run_study(study, "out", resume=True, limit=1)


def test_another_level_of_weight_noise_is_refused_where_a_method_takes_it(folder):
    """A level that `salience tune` keeps between two parts of a study would change what its second part does."""
    base = read_study("study.yaml").model_copy(update={"metrics": ["gini"], "perturbations": []})
    free, taking = (base.model_copy(update={"methods": methods}) for methods in (["gradient"], ["noisegrad:weight_samples=2"]))
    run_study(free, "free", limit=1)
    run_study(taking, "taking", limit=1)
    keep_weight_sigma(sal.load_model("python:tiny_models:net").weights_hash(), 0.125, {})
    run_study(free, "free", resume=True, limit=1)
    with pytest.raises(sal.InputError, match=r"the noise level known for python:tiny_models:net was 0\.\d+ and is 0\.125 \(salience tune\)"):
        run_study(taking, "taking", resume=True, limit=1)


def test_one_level_of_weight_noise_for_all_pictures(folder, monkeypatch):
    """Each picture had a level of its own, searched on it alone, again for every metric and perturbation."""
    searches = []
    monkeypatch.setattr("salience.perturb.tune.smallest_crossing", lambda drop, levels: searches.append(drop) or smallest_crossing(drop, levels))
    study = read_study("study.yaml").model_copy(update={"methods": ["noisegrad:weight_samples=2", "gradient"], "metrics": ["gini", "max_sensitivity:samples=1", "ssim"], "seeds": [0]})
    level = run_study(study, "out", limit=1).manifest["weight_sigma"]["python:tiny_models:net"]
    assert level > 0
    assert len(searches) == 1
    store = run_study(study, "out", resume=True, limit=3)
    assert store.manifest["weight_sigma"] == {"python:tiny_models:net": level}
    assert len(searches) == 1
    fixed = study.model_copy(update={"methods": [f"noisegrad:weight_samples=2,weight_sigma={level!r}"], "metrics": ["gini"], "perturbations": []})
    values = [store.query("SELECT image, value FROM results WHERE metric = 'gini' AND method LIKE 'noisegrad%' ORDER BY image")[1] for store in (store, run_study(fixed, "fixed", limit=3))]
    assert values[0] == values[1]
    assert len(values[0]) == 3
    assert {row["status"] for row in store.rows()} == {"ok"}


@pytest.mark.parametrize("model", ["python:tiny_models:black_box", "python:tiny_models:net"])
def test_where_no_level_can_be_found_rows_say_why(folder, model, monkeypatch):
    study = read_study("study.yaml").model_copy(update={"models": [model], "methods": ["noisegrad:weight_samples=2"], "metrics": ["gini"], "perturbations": [], "seeds": [0]})
    for number in range(4) if model.endswith("net") else ():
        (folder / "pictures" / f"{number}.png").write_bytes(b"%d" % number)
    store = run_study(study, "out")
    assert store.manifest["weight_sigma"] == {model: None}
    assert {row["status"] for row in store.rows()} == {"failed"}
    assert all("weight" in row["reason"] or "is not an image" in row["reason"] for row in store.rows())


def test_kinds_of_objects_are_known_from_the_data(folder):
    """A cat may be any of ImageNet's cats; a giraffe is none of its classes."""
    (folder / "coco").mkdir()
    for name, value in (("a", 17), ("b", 44)):
        Image.new("RGB", (32, 24), (value, 0, 0)).save(folder / "coco" / f"{name}.jpg")
        Image.fromarray(np.full((24, 32), value, np.uint8)).save(folder / "coco" / f"{name}.mask.png")
    (folder / "coco" / "classes.json").write_text('{"classes": {"17": "cat", "44": "bottle"}, "coco_to_imagenet": {"cat": [281, 282], "bottle": 440}}')
    (folder / "study.yaml").write_text(STUDY.replace("folder: pictures", "dataset: coco, root: coco, labels: imagenet"))
    assert run_study(read_study("study.yaml"), "out").manifest["categories"] == [[281, 282]]


def test_other_versions_are_told(folder):
    study = read_study("study.yaml").model_copy(update={"methods": ["gradient"], "metrics": ["gini"], "perturbations": []})
    store = run_study(study, "out", limit=1)
    store.write_manifest(store.manifest | {"versions": store.manifest["versions"] | {"torch": "1.0"}})
    with pytest.warns(UserWarning, match=rf"^The study began with other versions \(torch 1\.0 then, {re.escape(torch.__version__)} now\): its rows may differ in the last digits\.$"):
        run_study(study, "out", resume=True, limit=1)
