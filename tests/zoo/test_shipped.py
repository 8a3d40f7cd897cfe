"""The networks that come with the package, their cards, and pictures as training takes them."""

import dataclasses
import hashlib
import importlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import salience as sal
from salience.perturb.tune import accuracy_drop
from salience.training.pgd import pgd
from salience.zoo.datasets import Dataset
from salience.zoo.models import WEIGHTS
from salience.zoo.tensors import read_pictures

SHARED = Path(__file__).parents[3] / "shared" / "data"
SHIPPED = sorted(path.stem for path in WEIGHTS.glob("*.safetensors"))
CIFAR = ("cifar10-standard", "cifar10-adversarial", "cifar10-cure")
CMNIST = {"cmnist-lenet": 0.86, "cmnist-resnet9": 0.96}

needs_data = pytest.mark.skipif(not (SHARED / "cifar10_jpeg.npz").exists(), reason="needs ../shared/data")


def card_of(name):
    return json.loads((WEIGHTS / f"{name}.json").read_text())


def pictures(name, n):
    """Some of the pictures that the card's figures come from."""
    data = Dataset.from_value(card_of(name)["test"]["name"].replace("DATA", str(SHARED)))
    return read_pictures(dataclasses.replace(data, limit=n, shuffle=1))


def test_all_are_there_and_small():
    assert set(SHIPPED) == {*CIFAR, *CMNIST}
    assert set(SHIPPED) <= set(sal.list_models())
    assert sum(path.stat().st_size for path in WEIGHTS.iterdir()) < 6e6


@pytest.mark.parametrize("name", SHIPPED)
def test_the_card_belongs_to_the_weights(name):
    card = card_of(name)
    assert hashlib.sha256((WEIGHTS / f"{name}.safetensors").read_bytes()).hexdigest() == card["sha256"]
    assert card["name"] == name
    assert "JPEG copy" in card["note"]
    assert card["command"].startswith("salience train ")
    assert "root=DATA" in card["command"]
    assert card["sha256"] in (WEIGHTS / f"{name}.md").read_text()
    assert "/" not in card["data"]["name"] + card["test"]["name"]


@pytest.mark.parametrize("name", SHIPPED)
def test_the_note_is_the_tools_and_has_no_figures_that_nothing_prints(name, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "tools"))
    note = card_of(name)["note"]
    assert note.startswith(importlib.import_module("train_shipped").NOTES[name])
    assert "%" not in note
    assert note in (WEIGHTS / f"{name}.md").read_text()


@pytest.mark.parametrize("name", SHIPPED)
def test_it_loads_and_can_be_explained(name):
    model, card = sal.load_model(name), card_of(name)
    assert (model.name, model.size, list(model.labels), model.carried_weight_sigma) == (name, (32, 32), card["classes"], card["weight_sigma"])
    assert sum(weight.numel() for weight in model.module.parameters()) == card["weights"]
    assert not model.module.training
    images = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for method in ("gradient", "gradcam", "smoothgrad:samples=4", "noisegrad:weight_samples=4,weight_sigma=0.01"):
        assert torch.isfinite(sal.explain(method, model, images).maps).all()


def test_the_cards_keep_what_was_asked_for():
    for name, least in CMNIST.items():
        assert card_of(name)["accuracy"]["value"] >= least
        assert card_of(name)["accuracy"]["images"] == 10000
    plain, robust = card_of("cifar10-standard"), card_of("cifar10-adversarial")
    assert len({card_of(name)["architecture"] for name in CIFAR}) == 1
    for card in (plain, robust):
        assert (card["pgd"]["epsilon"], card["pgd"]["steps"], card["pgd"]["restarts"], card["pgd"]["images"]) == (round(8 / 255, 6), 20, 5, 1000)
    assert robust["pgd"]["value"] - plain["pgd"]["value"] >= 0.15
    assert robust["pgd"]["low"] > plain["pgd"]["high"]
    assert "points above the standard network" in card_of("cifar10-cure")["note"]
    assert card_of("cifar10-cure")["start"] == plain["sha256"]


def test_a_changed_file_is_refused(tmp_path, monkeypatch):
    for ending in (".json", ".safetensors"):
        (tmp_path / f"cmnist-lenet{ending}").write_bytes((WEIGHTS / f"cmnist-lenet{ending}").read_bytes())
    changed = bytearray((tmp_path / "cmnist-lenet.safetensors").read_bytes())
    changed[-2] ^= 4
    (tmp_path / "cmnist-lenet.safetensors").write_bytes(changed)
    monkeypatch.setattr("salience.zoo.models.WEIGHTS", tmp_path)
    with pytest.raises(sal.InputError, match=r"cmnist-lenet\.safetensors is not the file that cmnist-lenet\.json was written for: restore both\.$"):
        sal.load_model("cmnist-lenet")


@needs_data
@pytest.mark.parametrize("name", SHIPPED)
def test_accuracy_on_a_few_test_pictures(name):
    model, data, said = sal.load_model(name), pictures(name, 300), card_of(name)["accuracy"]
    found = (model.outputs(data.pixels()).argmax(1) == data.labels).float().mean().item()
    assert abs(found - said["value"]) < 4 * (said["value"] * (1 - said["value"]) / 300) ** 0.5


@needs_data
def test_the_robust_network_survives_what_the_other_does_not():
    data = pictures("cifar10-standard", 60)
    plain, robust = (pgd(sal.load_model(name), data.pixels(), data.labels, steps=10, restarts=1).float().mean().item() for name in CIFAR[:2])
    assert robust - plain > 0.15


@needs_data
def test_the_weight_noise_of_the_card_costs_about_five_percent():
    model, data = sal.load_model("cmnist-lenet"), pictures("cmnist-lenet", 200)
    assert 0.02 < accuracy_drop(model, data.pixels(), model.carried_weight_sigma, seed=1) < 0.1


@needs_data
def test_arrays_are_taken_as_they_are_whatever_the_way_in():
    data = sal.load_dataset("cifar10", root=str(SHARED), limit=5)
    model = sal.load_model("cifar10-standard")
    assert torch.equal(read_pictures(data).pixels(), sal.load_images([item.picture for item in data], model))


def test_photographs_are_cut_to_a_square(tmp_path):
    Image.new("RGB", (60, 40), (255, 0, 0)).save(tmp_path / "red.png")
    Image.fromarray(np.full((32, 32), 100, np.uint8)).save(tmp_path / "grey.png")
    (tmp_path / "labels.csv").write_text("file,class_index\nred.png,1\ngrey.png,0\n")
    told = []
    data = read_pictures(sal.load_dataset("folder", root=tmp_path, labels="labels.csv"), report=lambda *each: told.append(each))
    assert (data.images.shape, data.labels.tolist(), data.classes, data.names) == ((2, 3, 32, 32), [0, 1], ("class 0", "class 1"), ("grey.png", "red.png"))
    assert data.images[0].unique().tolist() == [100]
    assert data.images[1].flatten(1).unique(dim=1).tolist() == [[255], [0], [0]]
    assert told[0] == ("reading the pictures", 0, 2)
    several = read_pictures(sal.load_dataset("folder", root=tmp_path, labels="labels.csv"), multilabel=True)
    assert several.labels.tolist() == [[1, 0], [0, 1]]
