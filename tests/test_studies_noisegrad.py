"""The studies of NoiseGrad: their pure parts on numbers known in closed form, and each script once on a tiny network and made digits."""

import argparse
import re
import sys
from functools import partial

import numpy as np
import pytest
import torch
from study_scripts import loaded, mean, objects, run, table

import salience as sal
from salience.core.draws import streams
from salience.core.metric import UndefinedError
from salience.perturb.weights import WeightNoise
from salience.studies.statistics import bootstrap_interval
from salience.studies.store import Store
from salience.studies.tuning import tune

FACTORIES = '''
import torch
from torch import nn

import salience as sal


def net():
    """Two convolutions with batch norm on 32 x 32, its weights always the same."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 10))
        nn.init.normal_(module[-1].weight, 0, 3.0)
        nn.init.normal_(module[-1].bias, 0, 0.5)
    return sal.Model(module.eval(), mean=(0.5,) * 3, std=(0.25,) * 3, size=32)
'''
NET = "python:studies_nets:net"

pytestmark = pytest.mark.filterwarnings("ignore::salience.explainers._weight_noise.CollapseWarning")


@pytest.fixture
def script(monkeypatch, tmp_path):
    """A file of the folder of studies as a module; what it registers is gone afterwards."""
    (tmp_path / "studies_nets.py").write_text(FACTORIES)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "studies_nets", raising=False)

    return lambda name: loaded(name, monkeypatch)


@pytest.fixture
def digits(tmp_path, script):
    """A folder of MNIST and CIFAR-10, 30 pictures of each split, where the network is right about four of five."""
    folder, source = tmp_path / "digits", np.random.default_rng(0)
    folder.mkdir()
    parts = {f"{name}_{split}": source.integers(0, 256, shape, dtype=np.uint8) for name, shape in (("mnist", (30, 28, 28)), ("cifar10", (30, 32, 32, 3))) for split in ("train", "test")}
    labels = {split: np.zeros(30, np.int64) for split in ("train", "test")}
    for _ in range(2):  # the labels do not change the pictures
        for name in ("mnist", "cifar10"):
            np.savez(folder / f"{name}.npz", **{f"x_{split}": parts[f"{name}_{split}"] for split in labels}, **{f"y_{split}": labels[split] for split in labels})
        model = sal.load_model(NET)
        for split in labels:
            pictures = sal.load_dataset("cmnist", root=str(folder), split=split)
            predicted = model.outputs(sal.load_images([item.picture for item in pictures], model).as_subclass(torch.Tensor)).argmax(1).numpy()
            labels[split] = np.where(np.arange(30) % 5 == 0, (predicted + 1) % 10, predicted)
    return folder


@pytest.fixture
def small(script, monkeypatch):
    """A script with two seeds and two draws of everything."""

    def load(name, **changes):
        module, shared = script(name), script("_noisegrad")
        monkeypatch.setattr(shared, "tune", partial(tune, draws=3))
        monkeypatch.setattr("os.cpu_count", lambda: 1)  # one thread
        for key, value in ({"SEEDS": [0, 1], "SMALL": shared.Draws(2, 2, 2)} | changes).items():
            if hasattr(module, key):
                monkeypatch.setattr(module, key, value)
        return module

    return load


# --- what they share --------------------------------------------------------------------------------------------------------------------------


def test_magnitude_is_what_the_authors_average(script):
    script("_noisegrad")
    model, images = sal.load_model(NET), torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    plain, magnitude = (sal.explain(method, model, images).maps for method in ("gradient", "magnitude"))
    torch.testing.assert_close(magnitude, plain.abs().sum(1, keepdim=True))
    absolute = sal.explain("noisegrad:weight_samples=3,weight_sigma=0.1,absolute=true", model, images).saliency("abs_sum")
    torch.testing.assert_close(sal.explain("noisegrad:base=magnitude,weight_samples=3,weight_sigma=0.1", model, images).maps[:, 0], absolute)


def test_the_library_s_sensitivity_is_over_the_norm_of_the_picture(script):
    module = script("_noisegrad")
    model, images = sal.load_model(NET), torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    maps = sal.explain("magnitude", model, images, 3).maps
    found = sal.measure("quantus_sensitivity:samples=4,radius=0.05", model, images, 3, maps, explainer="magnitude", seed=7)
    worst = torch.zeros(2)
    for number in range(4):
        noise = streams(7, 1)[0].at("metric", "quantus_sensitivity").uniform((3, 32, 32), "change", number)
        moved = model.gradient(images + 0.1 * noise - 0.05, torch.tensor([3, 3])).abs().sum(1)
        change = moved / moved.amax((1, 2), keepdim=True) - maps[:, 0] / maps[:, 0].amax((1, 2), keepdim=True)
        worst = torch.maximum(worst, change.flatten(1).norm(dim=1) / ((images - 0.5) / 0.25).flatten(1).norm(dim=1))
    torch.testing.assert_close(found, worst)
    assert module.QuantusSensitivity.__doc__


def test_the_four_methods_have_the_heuristics_levels(script):
    module = script("_noisegrad")
    assert module.methods("gradient", 0.2, 0.05, module.Draws(16, 4, 3)) == {
        "Baseline": "magnitude",
        "SG": "smoothgrad:base=magnitude,samples=16,noise_level=0.2",
        "NG": "noisegrad:base=magnitude,weight_samples=16,weight_sigma=0.05",
        "FG": "fusiongrad:base=magnitude,weight_samples=4,samples=3,weight_sigma=0.025,noise_level=0.1",
    }


def test_the_best_is_bold_and_what_is_not_worse_too(script):
    module = script("_noisegrad")
    base = np.linspace(0.1, 0.3, 12)[:, None] + np.array([[0.0, 0.001, -0.001]])
    found = {"Baseline": base, "SG": base + 0.2, "NG": base[::-1] + 0.2}
    cells = module.cells(found, higher=True)
    assert [text.startswith("**0.") for text in cells.values()] == [False, True, True]
    assert re.match(r"0\.2000 ± 0\.06\d\d \[0\.1\d+, 0\.2\d+\]$", cells["Baseline"])
    assert [text.startswith("**") for text in module.cells(found, higher=False).values()] == [True, False, False]


def test_a_network_that_does_not_come_with_the_package_is_refused_with_the_command_that_makes_it(script, monkeypatch):
    module = script("_noisegrad")
    monkeypatch.setattr(module, "SHIPPED", ("cmnist-resnet5",))
    with pytest.raises(sal.InputError) as raised:
        module.network("cmnist-resnet5")
    wanted = "make one with 'salience train standard --full --architecture resnet5 --data cmnist:root=DIR --out nets/resnet5' and name it as trained:DIR."
    assert str(raised.value) == f"cmnist-resnet5 is not in this copy of the package: {wanted}"
    assert module.architecture(NET) == module.described(NET) == NET


def test_table_1_is_judged_by_all_that_its_text_says(script):
    """A boost by NG and FG in comparison to Baseline and SG; Baseline is the least faithful, localised and robust of them all."""
    module = script("noisegrad_tables")
    for criterion in (module.LOCALISATION, module.FAITHFULNESS, module.QUANTUS):
        said = {(first, second) for first, second, of in module.SAID["gradient"] if of == criterion}
        assert said >= {(first, module.BASELINE) for first in (module.SG, module.NG, module.FG)} | {(module.NG, module.SG), (module.FG, module.SG), (module.FG, module.NG)}
        for first, second in said:
            better, worse = (float(module.PUBLISHED["gradient"][name][module.WHERE[criterion]].strip("*").split(" ")[0]) for name in (first, second))
            assert (better > worse) == module.HIGHER[criterion]


def test_folders_that_are_not_there_are_named_with_their_option(script, tmp_path, capfd):
    module = script("noisegrad_tables")
    assert module.main(module.options(), module.work, ["--model", NET, "--data", str(tmp_path / "nowhere"), "--out", str(tmp_path / "out")]) == 2
    assert capfd.readouterr().err.endswith(f"A folder of MNIST and CIFAR-10 is needed and not found at {tmp_path / 'nowhere'}: say where it is with --data.\n")


# --- pure parts -------------------------------------------------------------------------------------------------------------------------------


def test_levels_are_chosen_on_other_pictures(script):
    """Level a is best on even pictures and worst on odd ones: chosen on the other half, each half gets the level that is bad for it."""
    module = script("noisegrad_noise_levels")
    even = (np.arange(8) % 2 == 0)[:, None]
    areas = {(0.1, 0.0): np.where(even, 0.9, 0.5), (0.2, 0.0): np.where(even, 0.6, 0.8)}
    found, choices = module.chosen(areas, list(areas))
    np.testing.assert_array_equal(found, np.where(even, 0.6, 0.5))
    assert choices == [(0.2, 0.0), (0.1, 0.0)]
    assert module.gain(np.array(0.99), np.array(0.9)) == pytest.approx(0.1)


def test_draws_needed_by_the_law_of_the_root(script):
    module = script("noisegrad_samples")
    np.testing.assert_allclose(module.needed(np.array([0.2, 0.1]), 100, 0.1), [400, 100])
    assert module.slope(np.array(0.4), np.array(0.1), (25, 400)) == pytest.approx(-0.5)


def test_what_survives_of_a_gain(script):
    module = script("noisegrad_survival")
    assert module.robuster(np.array(0.02), np.array(0.08)) == pytest.approx(0.75)
    assert module.survives(np.array(0.05), np.array(0.02), np.array(0.08)) == pytest.approx(0.5)


def test_noisegrad_over_the_draws_that_keep_the_class(script):
    module = script("noisegrad_survival")
    model, images = sal.load_model(NET), torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    targets, noise, stream = model.outputs(images).argmax(1), WeightNoise(model), streams(5, 1)[0]
    kept: list[list[torch.Tensor]] = [[], [], []]
    lost = 0
    for draw in range(4 * module.TRIES):
        with noise.applied(stream, draw, 0.3):
            predicted, maps = model.outputs(images).argmax(1), sal.explain("magnitude", model, images, targets).maps
        for image in range(3):
            if predicted[image] == targets[image]:
                kept[image].append(maps[image])
            else:
                lost += 1
    assert lost > 3  # else there is nothing to see
    found = sal.explain("kept_noisegrad:base=magnitude,weight_samples=4,weight_sigma=0.3", model, images, seed=5).maps
    torch.testing.assert_close(found, torch.stack([torch.stack(each[:4]).mean(0) for each in kept]))
    own = sal.explain("kept_noisegrad:base=magnitude,weight_samples=4,weight_sigma=0.3", model, images, seed=[1, 2, 3])
    alone = sal.explain("kept_noisegrad:base=magnitude,weight_samples=4,weight_sigma=0.3", model, images[1:2], seed=[2])
    torch.testing.assert_close(own.maps[1:2], alone.maps)
    assert own.certainty == "random, with an error that is not known"


def test_no_draw_that_keeps_the_class_is_undefined(script):
    script("noisegrad_survival")
    model, images = sal.load_model(NET), torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    least = int(model.outputs(images).argmin())
    with pytest.raises(UndefinedError, match=r"^None of 4 draws of weight noise 0\.001 keeps the class, so there is nothing to average\.$"):
        sal.explain("kept_noisegrad:weight_samples=1,weight_sigma=0.001", model, images, least)


@pytest.fixture
def telling_intervals(monkeypatch):
    """In place of an interval, what it is over: pictures alone, or draws of weights too."""

    def telling(module):
        monkeypatch.setattr(module, "mean_cell", lambda found, shared_seeds=False: f"{np.nanmean(found):.4f} {'both' if shared_seeds else 'pictures'}")

    return telling


# --- each script, whole -----------------------------------------------------------------------------------------------------------------------


def test_tables_1_and_3_are_made_and_continued(small, digits, tmp_path, capfd):
    module = small("noisegrad_tables")
    arguments = ("--model", NET, "--data", digits, "--steps", 2, "--out", tmp_path / "out")
    assert "1 here with 2 seeds" in run(module, capfd, *arguments, "--limit", 1)
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "out").glob("*/results/*.parquet")}
    assert len(before) == 2 * 6
    written = run(module, capfd, *arguments, "--limit", 2)
    assert {file: file.stat().st_mtime_ns for file in before} == before
    assert re.search(r"\| Baseline +\| +0\.7315 ± 0\.0505 \| +\**0\.\d+ ± ", written)
    assert len(re.findall(r"\*\*not decided here\*\*", written)) == sum(criterion != module.FRESH for *_, criterion in module.SAID["gradient"]) + 10
    assert "difference" in written


def test_architectures_are_compared_and_the_missing_ones_named(small, digits, tmp_path, capfd):
    module = small("noisegrad_architectures")
    written = run(module, capfd, "--models", NET, "--data", digits, "--limit", 2, "--out", tmp_path / "out")
    assert "30 train and 30 test pictures here" in written
    assert re.search(r"\| +- \| 0\.8000 \[0\.\d+, 0\.\d+\] \|$", written, re.MULTILINE)
    assert all(f"--architecture {name} " in written for name in module.NAMES)
    assert "not in the paper" in written


def test_the_noise_levels_are_made(small, telling_intervals, digits, tmp_path, capfd):
    module = small("noisegrad_noise_levels", ALPHAS=(0.0, 0.1, 0.2), ABOVE=1, SHOWN=1)
    telling_intervals(module)
    written = run(module, capfd, "--models", NET, "--data", digits, "--limit", 2, "--out", tmp_path / "out")
    for name in ("SG", "NG", "FG"):
        assert re.search(rf"[+-]0\.\d\d\d\d {name} \|", written)
    assert (tmp_path / "out" / "figure-3.png").is_file()
    assert "+0.0000 |" in written  # without noise it is Baseline
    best = table(written, "Figure 3, right")
    assert [{row["AUC there, on the other half"].split()[1], row["AUC at the heuristic's level"].split()[1]} for row in best.values()] == [
        {"pictures"},
        {"both"},
        {"both"},
        {"pictures"},
    ]  # SG, NG, FG, Baseline
    levels = list(table(written, "Figures 5 and 9").values())
    assert [row["AUC of NG"].split()[1] for row in levels] == ["pictures"] + ["both"] * (len(levels) - 1)  # the first is without noise


def test_the_number_of_draws_is_made(small, telling_intervals, digits, tmp_path, capfd):
    module = small("noisegrad_samples", NUMBERS=(5, 10, 25, 50), FUSION=((10, 10),))
    telling_intervals(module)
    written = run(module, capfd, "--model", NET, "--data", digits, "--limit", 2, "--no-gallery", "--out", tmp_path / "out")
    errors = [float(each) for each in re.findall(r"^\| NG, \d+ +\| +\d+ \| +(0\.\d+)", written, re.MULTILINE)]
    assert len(errors) == 4
    assert errors[0] > errors[-1]
    for draws, row in table(written, "Draws, 2 pictures").items():
        assert {cell.split()[1] for column, cell in row.items() if column != "passes"} == {"pictures" if draws.startswith("SG") else "both"}


def test_what_survives_is_made(small, digits, tmp_path, capfd):
    module = small("noisegrad_survival", BETAS=(0.8, 100.0))
    written = run(module, capfd, "--models", NET, "--data", digits, "--only", "cmnist", "--limit", 2, "--out", tmp_path / "out")
    assert f"{NET} (batch norm), 2 pictures" in written
    assert "The share of the gain" in written


def test_pictures_whose_class_is_lost_are_not_counted_where_the_network_survives(small, tmp_path, monkeypatch):
    module = small("noisegrad_survival", BETAS=(0.8,))
    objects(tmp_path / "pictures")
    for mask in (tmp_path / "pictures").glob("*.mask.png"):
        mask.unlink()
    data = {"dataset": "folder", "root": str(tmp_path / "pictures"), "targets": "predicted"}
    monkeypatch.setattr(module.Setting, "kept_by_beta", lambda self, beta: np.array([1.0, 0.0, 1.0]))
    setting = module.Setting(NET, "tiny", data, 3, 0.1, module.SMALL)
    found = module.measured(setting, argparse.Namespace(out=tmp_path / "out", workers=1, left_out=[]))
    for column in found.values():
        assert np.isfinite(column[module.BETA_SURVIVING]).all(1).tolist() == [True, False, True]
        assert np.isfinite(column[module.BETA_PUBLISHED]).all()


def test_what_the_paper_says_of_sparseness_is_tested(script):
    """Text on table 1: Baseline is the sparsest, and NG and FG lose less of it than SG does."""
    module = script("noisegrad_tables")
    rising = np.broadcast_to(np.linspace(0.1, 0.11, 12)[:, None], (12, 3))
    column = {module.SG: rising, module.FG: rising * 1.3, module.NG: rising * 1.6, module.BASELINE: rising * 2}
    made = module.claims("gradient", {module.SPARSENESS: column})
    assert len(made) == 5
    assert all(claim.agrees for claim in made)
    assert any(claim.statement == "Table 1: FG is better than SG: higher sparseness" and claim.published == "0.5721 ± 0.0532 against 0.5310 ± 0.0635" for claim in made)


def test_the_galleries_are_made(small, tmp_path, capfd, monkeypatch):
    """Figures for pictures in which the network sees a labelled object, beside those computed by hand."""
    module, net = small("noisegrad_galleries"), "python:study_nets:balanced"
    images, masks = objects(tmp_path / "pictures")
    monkeypatch.setattr(module, "SMALL", module.Size(net, 2, 2, {"Gradient": "gradient", "Integrated Gradients": "integrated_gradients:steps=2"}))
    monkeypatch.setattr(module, "data_file", lambda *parts: tmp_path / "pictures" / parts[-1])
    monkeypatch.setattr(module, "pictures", lambda given: [("figure-4", "Figure 4: a dog", tmp_path / "pictures" / "0.png")])
    monkeypatch.setattr(module, "weight_sigma", lambda model: 0.1)
    written = run(module, capfd, "--limit", 8, "--out", tmp_path / "out")

    model = sal.load_model(net)
    top = model.outputs(images).argmax(1)
    seen = [place for place, label in enumerate(top.tolist()) if label in masks]
    assert 0 < len(seen) < len(images)
    data = sal.load_dataset("seen_objects", of=f"coco:root={tmp_path / 'pictures'},labels=imagenet", model=net)
    assert [(item.name, item.labels) for item in data] == [(f"{place}.png", (int(top[place]),)) for place in seen]

    found = table(written, f"Gradients of the predicted class on {len(seen)} COCO pictures")
    maps = model.gradient(images[seen], top[seen]).abs().sum(1).double()
    mass = [float(each[masks[int(label)]].sum() / each.sum()) for each, label in zip(maps, top[seen], strict=True)]
    sparse = [float((values[:, None] - values).abs().sum() / (2 * len(values) * values.sum())) for values in maps.flatten(1)]
    assert mean(found["Baseline"]["share of the absolute map on the object"]) == pytest.approx(np.mean(mass), abs=6e-5)
    assert mean(found["Baseline"]["Gini index"]) == pytest.approx(np.mean(sparse), abs=6e-5)
    assert found["NoiseGrad (NG)"]["paper: Gini index, CMNIST"] == "0.5794"

    store = Store(tmp_path / "out" / "coco")
    for name, shared in {"SmoothGrad (SG)": False, "NoiseGrad (NG)": True, "FusionGrad (FG)": True}.items():
        method = str(module.enhanced("gradient", module.SMALL, module.noise_level(model, module.ALPHA), 0.1)[name])
        interval = bootstrap_interval(module.values(store, method, module.METRICS[1]), shared_seeds=shared)
        assert found[name]["Gini index"].endswith(f"[{interval.low:.4f}, {interval.high:.4f}]")


def test_claims_of_the_galleries_follow_the_numbers(small):
    module = small("noisegrad_galleries")
    low, high = (np.broadcast_to(factor * np.linspace(0.1, 0.2, 12)[:, None], (12, 3)) for factor in (1, 2))
    better = {key: {module.BASELINE: low, module.SG: low, module.NG: high, module.FG: high} for key in module.METRICS}
    assert [claim.agrees for claim in module.claims(better)] == [True] * 8
    worse = {key: {module.BASELINE: high, module.SG: high, module.NG: low, module.FG: low} for key in module.METRICS}
    assert [claim.agrees for claim in module.claims(worse)] == [False] * 8
