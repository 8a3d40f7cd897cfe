"""The studies of attacks: their pure parts on numbers known in closed form, what is computed once, and each script once on a tiny network."""

import argparse
import dataclasses
import importlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from study_scripts import run

import salience as sal
from salience.attacks._judge import cosine_distance
from salience.core.draws import streams
from salience.core.objective import shares

STUDIES = Path(__file__).parents[1] / "studies"
NET = "python:tiny_models:net"


@pytest.fixture
def script(monkeypatch):
    """A file of the folder of studies as a module."""
    monkeypatch.syspath_prepend(str(STUDIES))
    return importlib.import_module


@pytest.fixture
def data(tmp_path):
    """Eight small pictures, six of them labelled as the tiny network sees them."""
    folder, generator = tmp_path / "pictures", np.random.default_rng(0)
    folder.mkdir()
    model, lines = sal.load_model(NET), ["file,class_index"]
    for number in range(8):
        pixels = generator.integers(0, 255, (16, 18, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        seen = int(model.outputs(sal.load_images([folder / f"{number}.png"], model).as_subclass(torch.Tensor)).argmax())
        lines.append(f"{number}.png,{(seen + (number in (1, 4))) % 5}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return {"dataset": "folder", "root": str(folder), "labels": "labels.csv"}


@pytest.fixture
def place(script, data, tmp_path):
    """Two explanations of the tiny network on three pictures, two together."""
    attacks = script("_attacks")
    subjects = [
        attacks.Subject(title, NET, method, (0.05, 0.03, 0.03), (1e-3, 4e-4, 4e-4)) for title, method in (("Gradient", "gradient"), ("Smooth Gradient", "smoothgrad:samples=10,noise_level=0.2"))
    ]
    return attacks.Place("tiny", subjects, attacks.chosen(data, [NET], 3), attacks.CIFAR, attacks.Size(2, 2, 1, 2), tmp_path / "cache")


def found_of(script, tables, count=8):
    """Attacks with numbers made up: what is not given is 0.5, and every class is kept."""
    attacks, results = script("_attacks"), script("_attack_results")
    subjects = [attacks.Subject(title, NET, "gradient", (0.05, 0.03, 0.03), (1e-3,) * 3) for title in dict.fromkeys(title for title, *_ in tables)]
    pictures = attacks.Pictures([str(number) for number in range(count + 1)], torch.zeros(count + 1, 3, 8, 8), torch.zeros(count + 1, dtype=torch.long))
    usual = {name: np.full(count, 0.5) for name in ("before", "after", "random", "fall", "random fall", "probability", "changed")} | {
        "kept": np.ones(count),
        "lpips": np.full(count, np.nan),
        "lpips as published": np.full(count, np.nan),
    }
    return results.Found(attacks.Place("made up", subjects, pictures, attacks.CIFAR, attacks.Size(2, 1, 1, 8), Path()), {key: usual | given for key, given in tables.items()})


def test_the_pictures_are_those_that_every_network_sees_rightly_and_a_larger_limit_only_adds(script, data):
    chosen = script("_attacks").chosen
    few, all_of_them = chosen(data, [NET, NET], 2), chosen(data, [NET], None)
    assert all_of_them.names == ["0.png", "2.png", "3.png", "5.png", "6.png", "7.png"]
    assert (few.names, len(few), len(all_of_them)) == (all_of_them.names[:3], 2, 5)
    assert torch.equal(few.images, all_of_them.images[:3])
    with pytest.raises(sal.InputError, match=r"^Fewer than two pictures are seen rightly by all networks: give more pictures, or others\.$"):
        chosen(data | {"limit": 1}, [NET], None)


def test_the_authors_constants_become_an_attack(place, script):
    attacks = script("_attacks")
    small = place.attack(place.subjects[1], attacks.ALL, 0.03)
    assert str(small).startswith("attack:method=(smoothgrad:samples=2,noise_level=0.2),threat=delta+(stadv:weight=0.0052)+(recolor:weight=0.0052),steps=2,")
    full = dataclasses.replace(place, size=dataclasses.replace(place.size, steps=None)).attack(place.subjects[1], attacks.FLOW, 0.05)
    assert full.steps == 1500
    assert [threat.step(torch.zeros(1, 3, 4, 4)) for threat in full.threats] == pytest.approx([4e-4, 4e-4])  # stadv, delta
    assert [threat.budget for threat in full.threats] == [0.05, 0.05]


def test_what_was_attacked_once_is_read_and_is_what_the_attack_says(place, script, monkeypatch):
    attacks = script("_attacks")
    attack = place.attack(place.subjects[0], attacks.FLOW, 0.03)
    found = place.figures(place.subjects[0], attack, keep=True)
    images, labels = place.pictures.images, place.pictures.labels
    direct = attack.run(sal.load_model(NET), images[:1], images[1:2], labels[:1], seed=attacks._seed("0.png"), random_draws=1)
    for name, value in attacks.measured(direct).items():
        assert found[name].shape == (3,)
        assert found[name][0] == pytest.approx(value[0], abs=2e-3, nan_ok=True)
    assert found["perturbed"].shape == (2, 3, 24, 32)
    assert len(list(place.cache.iterdir())) == 2

    monkeypatch.setattr(sal.Attack, "run", lambda *_, **__: pytest.fail("computed again"))
    again = place.figures(place.subjects[0], attack)
    assert all(np.array_equal(again[name], found[name], equal_nan=True) for name in again)
    with pytest.raises(pytest.fail.Exception, match="computed again"):
        place.figures(place.subjects[0], dataclasses.replace(attack, steps=3))


@pytest.mark.parametrize("change", ["pictures", "the picture aimed at", "labels", "preprocessing", "code", "format", "the weights of LPIPS"])
def test_what_was_kept_is_not_read_when_something_else_would_come_out(place, script, monkeypatch, change):
    """The names of the pictures, the weights and the attack stay the same."""
    attacks, subject = script("_attacks"), place.subjects[0]
    attack = place.attack(subject, attacks.DELTA, 0.03)
    place.figures(subject, attack)
    images, labels = place.pictures.images.clone(), place.pictures.labels.clone()
    if change == "pictures":
        images[0] = images[0].flip(2)
    if change == "the picture aimed at":
        images[3] = images[3].flip(2)
    if change == "labels":
        labels[3] = (labels[3] + 1) % 5
    if change == "preprocessing":
        network = sal.load_model(NET)
        network.mean += 0.01
        monkeypatch.setattr(attacks, "network", lambda name: network)
    if change == "code":
        monkeypatch.setattr(attacks, "sources", lambda package: "those of a later version")
    if change == "format":
        monkeypatch.setattr(attacks, "FORMAT", attacks.FORMAT + 1)
    if change == "the weights of LPIPS":
        here = attacks.has_lpips()
        monkeypatch.setattr(attacks, "has_lpips", lambda: not here)
    other = dataclasses.replace(place, pictures=attacks.Pictures(place.pictures.names, images, labels))
    monkeypatch.setattr(sal.Attack, "run", lambda *_, **__: pytest.fail("computed again"))
    with pytest.raises(pytest.fail.Exception, match="computed again"):
        other.figures(subject, attack)


def test_every_source_that_an_attack_is_computed_by_counts(script, tmp_path):
    attacks = script("_attacks")
    package = Path(sal.__file__).parent
    texts = [file.read_text() for folder in attacks.CODE for file in (package / folder).rglob("*.py")]
    assert {name for text in texts for name in re.findall(r"^\s*from salience\.(\w+)", text, re.MULTILINE)} - {"show"} == set(attacks.CODE)  # which only draws
    for folder in attacks.CODE:
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "code.py").write_text("a = 1\n")
    found = {attacks.sources(tmp_path)}
    for folder in attacks.CODE:
        (tmp_path / folder / "code.py").write_text("a = 2\n")
        found.add(attacks.sources(tmp_path))
    (tmp_path / "attacks" / "code.py").rename(tmp_path / "attacks" / "other.py")
    found.add(attacks.sources(tmp_path))
    assert len(found) == len(attacks.CODE) + 2
    (tmp_path / "README").write_text("not code")
    assert attacks.sources(tmp_path) in found


def test_an_attack_with_fixed_draws_is_also_judged_on_those(place, script):
    attacks, images, labels = script("_attacks"), place.pictures.images, place.pictures.labels
    fixed = dataclasses.replace(place.attack(place.subjects[1], attacks.DELTA, 0.05), fixed=True)
    model = sal.load_model(NET)
    attacked = fixed.run(model, images[:2], images[1:3], labels[:2], seed=[3, 4], random_draws=1)
    own = attacks.own_draws(model, attacked, [3, 4])
    view = model.using(score=model.named_score("logit"))
    maps = fixed.method.attribute(view, images[:2], labels[:2], [stream.at(0, "attack", 0) for stream in streams([3, 4], 2)]).maps
    assert own["own before"] == pytest.approx(cosine_distance(shares(maps), attacked.aim).numpy(), abs=1e-4)
    assert own["own after"] != pytest.approx(attacked.distance_to_target_after.numpy(), abs=1e-6)


def test_a_value_along_lines(script):
    along = script("_attack_results").along
    x, y = np.array([[0.0, 0.2], [0.2, 0.0], [0.1, 0.1]]), np.array([[1.0, 0.4], [0.2, 1.0], [0.6, 0.6]])
    assert along(x, y, np.array([0.05, 0.15])) == pytest.approx([0.8, 0.5])
    assert np.isnan(along(x, y, np.array([0.3, 0.1]))).tolist() == [True, False]


def test_nearer_at_the_same_change_is_not_nearer_at_the_same_budget(script):
    """Delta goes from 0.5 to 0.3, 0.2 and 0.1 at changes of 0.1, 0.2 and 0.4; the others reach 0.2 at a change of 0.3, where Delta reaches 0.14."""
    attacks, results = script("_attacks"), script("_attack_results")
    delta = {0.03: (0.3, 0.1), 0.05: (0.2, 0.2), 0.1: (0.1, 0.4)}
    tables = {("A", attacks.DELTA, budget): {"after": np.full(8, after), "changed": np.full(8, change)} for budget, (after, change) in delta.items()}
    tables |= {("A", kind, 0.03): {"after": np.full(8, 0.2), "changed": np.full(8, 0.3)} for kind in attacks.COMBINED}
    found = found_of(script, tables)
    subject = found.place.subjects[0]
    assert found.same_budget(subject, attacks.FLOW) == pytest.approx(np.full(8, -0.1))
    assert found.same_change(subject, attacks.FLOW) == pytest.approx(np.full(8, 0.1 * np.log2(1.5)))
    verdicts = {claim.statement.split(" (")[0]: claim.agrees for claim in results.further_claims(found)}
    assert verdicts == {
        f"{kind} comes nearer {how}": holds
        for kind in attacks.COMBINED
        for how, holds in (("to the target than Delta with the same budget of Delta", True), ("than Delta alone at the same SSIM", False))
    }
    assert results.measures(found) == {"changed": "SSIM"}


def test_attacks_are_compared_on_the_pictures_whose_class_both_keep(script):
    """Where an attack changes the class it seems to reach far: those pictures would turn every comparison round."""
    attacks, results = script("_attacks"), script("_attack_results")
    noise, lost = np.linspace(-0.01, 0.01, 12), np.arange(12) < 3
    first = {"after": np.where(lost, 0.9, 0.1) + noise, "kept": np.ones(12)}
    second = {"after": np.where(lost, 0.0, 0.2) + noise, "kept": 1.0 - lost}
    claim = results.compared("nearer", "none", "after", first, second, "<")
    assert claim.agrees
    assert re.match(r"difference -0\.1000 .*, 9 images, .*; left out, as an attack changes their class: 3 of 12 pictures$", claim.ours)
    claim = results.as_near("as near", "none", second, first)
    assert claim.ours.startswith("0.1000 ")
    assert ", 9 images, bootstrap; left out, " in claim.ours
    gone = results.as_near("as near", "none", second | {"kept": np.zeros(12)}, first)
    assert (gone.ours, gone.agrees) == ("- against 0.05, 0 images (too few to test); left out, as an attack changes their class: 12 of 12 pictures", None)

    tables = {("A", attacks.DELTA, budget): {"after": np.full(8, after), "changed": np.full(8, change)} for budget, after, change in ((0.03, 0.3, 0.1), (0.05, 0.2, 0.2), (0.1, 0.1, 0.4))}
    tables |= {("A", kind, 0.03): {"after": np.full(8, 0.2), "changed": np.full(8, 0.3)} for kind in attacks.COMBINED}
    kept = {"combined": (("A", attacks.FLOW, 0.03), 0), "same budget": (("A", attacks.DELTA, 0.03), 1), "next on the line": (("A", attacks.DELTA, 0.1), 2)}
    for cell, place in kept.values():
        tables[cell] |= {"kept": 1.0 - (np.arange(8) == place)}
    found = found_of(script, tables)
    subject = found.place.subjects[0]
    assert np.isnan(found.same_budget(subject, attacks.FLOW)).nonzero()[0].tolist() == [0, 1]
    assert np.isnan(found.same_change(subject, attacks.FLOW)).nonzero()[0].tolist() == [0, 2]
    assert np.isnan(found.same_change(subject, attacks.ALL)).nonzero()[0].tolist() == [2]
    ends = [claim.ours.partition("; ")[2] for claim in results.further_claims(found)]
    assert ends == [f"{count} of 8 pairs of a picture and a row count" for count in (6, 6, 7, 7)]
    for cell in tables:
        tables[cell] |= {"kept": np.zeros(8)}
    assert results.reach(found_of(script, tables)).axes[0].get_title(loc="left") == "A (0 pictures)"


def test_claims_of_figure_4_follow_the_numbers(script):
    module, attacks = script("smoothed_attacks"), script("_attacks")
    noise = np.linspace(-0.01, 0.01, 12)
    tables = {}
    for title, after in (("Gradient", 0.1), ("Smooth Gradient", 0.3), ("beta-smoothing", 0.12)):
        for kind, budget in ((attacks.DELTA, 0.03), (attacks.DELTA, 0.05), (attacks.FLOW, 0.03), (attacks.ALL, 0.03)):
            tables[title, kind, budget] = {"after": after - 0.05 * (kind != attacks.DELTA) + noise, "fall": 1 - after + noise, "changed": 0.2 - budget + noise}
    found = found_of(script, tables, 12)
    gradient = dataclasses.replace(found.place.subjects[0], budgets=(0.03,) * 3)
    found = dataclasses.replace(found, place=dataclasses.replace(found.place, subjects=[gradient, *found.place.subjects[1:]]))
    agrees = [(claim.statement.split(" (made")[0], claim.agrees) for claim in module.claims(found)]
    assert all(claim.ours.endswith("; left out, as an attack changes their class: 0 of 12 pictures") for claim in module.claims(found))
    visible = "changes pictures less visibly than Delta on beta-smoothing, the authors' budgets, by 1 - SSIM (LPIPS in the paper)"
    assert [each for each in agrees if not each[1]] == [(f"{kind} {visible}", False) for kind in attacks.COMBINED]
    assert len(agrees) == 2 * 4 + 2 * 2


@pytest.fixture
def tiny_setting(script, data, monkeypatch):
    """The tiny network in place of SqueezeNet."""
    setting = script("_smoothed").Setting("Tiny, pictures", "tiny", NET, data, 0.2, 10.0)
    for name in ("smoothed_attacks", "smoothed_attack_pictures"):
        monkeypatch.setattr(script(name), "settings", lambda given: [setting])
    monkeypatch.setattr(script("smoothed_attacks"), "default_model", lambda given: "The default model is not attacked.")
    monkeypatch.setattr(script("_attacks"), "HELD_OUT", 2)
    monkeypatch.setattr("salience.attacks._judge.HELD_OUT", 2)


def test_figures_4_and_5_are_made_and_share_their_attacks(script, tiny_setting, tmp_path, capfd, monkeypatch):
    options = ("--steps", 2, "--draws", 1, "--cache", tmp_path / "cache")
    written = run(script("smoothed_attacks"), capfd, *options, "--limit", 2, "--out", tmp_path / "out")
    assert len(re.findall(r"^\| (?:Gradient|Smooth Gradient|Uniform Gradient|beta-smoothing)[^|]*: Delta", written, re.MULTILINE)) == 5 * 5 + 5 * 2
    assert "fewer than 6 pictures, so nothing can be called robust" in written
    assert "**holds**" not in written
    monkeypatch.setattr(sal.Attack, "run", lambda *_, **__: pytest.fail("computed again"))
    written = run(script("smoothed_attack_pictures"), capfd, *options, "--limit", 1, "--out", tmp_path / "sheets")
    assert {file.name for file in (tmp_path / "sheets").iterdir()} == {"results.md", "attacks-1.png"}


@pytest.fixture
def tiny_networks(script, data, monkeypatch):
    """The tiny network in place of all others."""
    trained = script("_trained")
    networks = trained.Networks("tiny networks", "tiny", {trained.STANDARD: NET, trained.ADVERSARIAL: "python:tiny_models:any_size"}, "Networks of a test.")
    for name in ("smoothed_training", "smoothed_trained_attacks"):
        monkeypatch.setattr(script(name), "networks", lambda given: ([networks], "Not here: the rest."))
        monkeypatch.setattr(script(name), "pictures", lambda: dict(data))


def test_figure_6_and_the_tables_are_made(script, tiny_networks, tmp_path, capfd, monkeypatch):
    module = script("smoothed_training")
    monkeypatch.setattr(module, "SIDE", 5)
    written = run(module, capfd, "--limit", 6, "--out", tmp_path / "out")
    gini, infidelity = (next(line for line in written[written.index(heading) :].splitlines() if line.startswith("| Adversarial")) for heading in ("sparseness (table 4)", "infidelity (table 5)"))
    assert gini.split("|")[3].strip() == "0.71 ± 0.054"
    assert infidelity.split("|")[2].strip() == "1.56 ± 0.76"
    assert "**not decided here**: Adversarial training makes gradients sparser" in written  # both have the same weights


def test_figure_7_is_made(script, tiny_networks, tmp_path, capfd):
    written = run(script("smoothed_trained_attacks"), capfd, "--steps", 2, "--cache", tmp_path / "cache", "--limit", 5, "--out", tmp_path / "out")
    assert len(re.findall(r"^\| (?:Standard|Adversarial) training: Delta", written, re.MULTILINE)) == 2 * 5 + 2 * 2


def test_claims_of_figure_7_follow_the_numbers(script):
    module, attacks, trained = script("smoothed_trained_attacks"), script("_attacks"), script("_trained")
    noise = np.linspace(-0.01, 0.01, 12)
    tables = {}
    for title, after in ((trained.STANDARD, 0.1), (trained.CURE, 0.3), (trained.ADVERSARIAL, 0.4)):
        for kind, budget in ((attacks.DELTA, 0.03), (attacks.DELTA, 0.05), (attacks.FLOW, 0.03), (attacks.ALL, 0.03), (attacks.FLOW, 0.015), (attacks.ALL, 0.015)):
            tables[title, kind, budget] = {"after": after - 0.05 * (kind != attacks.DELTA) + noise, "fall": 1 - after + noise, "changed": 0.1 + budget + noise}
    found = found_of(script, tables, 12)
    subjects = [dataclasses.replace(subject, budgets=module.AUTHORS.get(subject.title, module.HARD)[0]) for subject in found.place.subjects]
    claims = module.claims(dataclasses.replace(found, place=dataclasses.replace(found.place, subjects=subjects)))
    assert all(claim.agrees and claim.ours.endswith("; left out, as an attack changes their class: 0 of 12 pictures") for claim in claims)
    assert len(claims) == 2 * 2 + 4 + 3
    turned = {key: each | {"after": 1 - each["after"], "fall": -each["fall"], "changed": -each["changed"]} for key, each in tables.items()}
    found = found_of(script, turned, 12)
    claims = module.claims(dataclasses.replace(found, place=dataclasses.replace(found.place, subjects=subjects)))
    assert [claim.statement for claim in claims if claim.agrees] == []


def test_robust_is_said_only_after_a_stronger_attack(script, place, capfd, tmp_path, monkeypatch):
    """Seven pictures, of which the attack at hand moves none: the stronger one is tried with twice of everything."""
    attacks, results = script("_attacks"), script("_attack_results")
    tables = {}
    for title, fall in (("Gradient", 0.9), ("Smooth Gradient", 0.1)):
        tables[title, attacks.DELTA, 0.03] = {"fall": np.full(7, fall), "after": np.full(7, 1 - fall)}
    found = dataclasses.replace(found_of(script, tables, 7))
    found = dataclasses.replace(found, place=dataclasses.replace(found.place, subjects=place.subjects, size=place.size))
    tried = []
    monkeypatch.setattr(attacks.Place, "figures", lambda self, subject, attack: tried.append((subject, attack)) or tables["Gradient", attacks.DELTA, 0.03] | {"kept": np.ones(7)})
    (claim,) = results.stronger(found, results.Report(argparse.Namespace(out=tmp_path), "A study"))
    ((subject, attack),) = tried
    assert (subject.title, attack.steps, attack.restarts, attack.method.samples, attack.beta) == ("Smooth Gradient", 4, 2, 4, (10.0, 100.0))
    assert claim.verdict(claim.p) == "not decided here"  # the stronger attack does as well as the ordinary one on Gradient
    few = dataclasses.replace(found, place=dataclasses.replace(found.place, pictures=place.pictures))
    assert results.stronger(few, results.Report(argparse.Namespace(out=tmp_path), "A study")) == []


def test_robust_is_not_said_because_the_stronger_attack_fails(script, place, capfd, tmp_path, monkeypatch):
    """The ordinary attack makes the distance to Smooth Gradient's target fall by 0.8, as to Gradient's; the stronger one by nothing, or it changes the class."""
    attacks, results = script("_attacks"), script("_attack_results")
    noise = np.linspace(-0.02, 0.02, 9)
    tables = {(title, attacks.DELTA, 0.03): {"fall": 0.8 + noise[::way], "after": 0.2 - noise[::way]} for title, way in (("Gradient", 1), ("Smooth Gradient", -1))}
    found = found_of(script, tables, 9)
    found = dataclasses.replace(found, place=dataclasses.replace(found.place, subjects=place.subjects, size=place.size))
    for fall, kept in ((0.0, 1.0), (0.9, 0.0)):
        worse = found.tables["Smooth Gradient", attacks.DELTA, 0.03] | {"fall": fall + noise, "kept": np.full(9, kept)}
        monkeypatch.setattr(attacks.Place, "figures", lambda self, subject, attack, worse=worse: worse)
        (claim,) = results.stronger(found, results.Report(argparse.Namespace(out=tmp_path), "A study"))
        assert "9 images" in claim.ours
        assert claim.verdict(claim.p) == "not decided here"


def test_a_method_that_loses_every_class_has_empty_cells(script, capfd, tmp_path):
    attacks, results = script("_attacks"), script("_attack_results")
    nothing = {name: np.full(8, np.nan) for name in ("before", "after", "random", "fall", "random fall", "moved", "kept", "probability", "changed")}
    found = found_of(script, {("A", attacks.DELTA, 0.03): nothing})
    results.table(results.Report(argparse.Namespace(out=tmp_path), "A study"), found)
    assert re.search(r"\| A: Delta +\| +0\.03 \| +equal \|( +- \|){7}", capfd.readouterr().out)


def test_no_networks_is_said_in_one_sentence(script, monkeypatch, tmp_path):
    monkeypatch.setenv("SALIENCE_DATA", str(tmp_path))
    trained = script("_trained")
    monkeypatch.setattr(trained, "list_models", list)
    with pytest.raises(sal.InputError, match=r"^There are no networks to compare: name three with --networks, or set SALIENCE_DATA to a folder that holds cifar_models\.$"):
        trained.networks(argparse.Namespace(networks=None))
    found, missing = trained.networks(argparse.Namespace(networks=["a", "b", "c"]))
    assert found[0].models == {trained.STANDARD: "a", trained.CURE: "b", trained.ADVERSARIAL: "c"}
    assert missing == "Not here: the folder cifar_models is not there, so nothing is said of ReColorAdv's networks."
    monkeypatch.setattr(trained, "list_models", lambda: list(trained.SHIPPED.values()))
    assert trained.networks(argparse.Namespace(networks=None))[0][0].models == trained.SHIPPED


def test_a_network_that_did_not_become_robust_is_told_from_its_card(script, tmp_path):
    trained = script("_trained")
    models = {}
    for title, (low, high) in {trained.STANDARD: (0.01, 0.03), trained.CURE: (0.02, 0.05), trained.ADVERSARIAL: (0.25, 0.3)}.items():
        folder = tmp_path / plain_name(title)
        folder.mkdir()
        (folder / "card.json").write_text(json.dumps({"accuracy": {"value": 0.8}, "pgd": {"value": (low + high) / 2, "low": low, "high": high}}))
        models[title] = f"trained:{folder}"
    said = trained.cards(models)
    assert "80.0% right, 27.5% under PGD. CURE did not make its network more robust here" in said
    assert trained.cards(models | {trained.CURE: "trained:nowhere"}) == ""
    file = Path(models[trained.STANDARD].removeprefix("trained:")) / "card.json"
    file.write_text(json.dumps({"accuracy": {"value": 0.8}, "pgd": None}))  # salience train --attacked 0
    said = trained.cards(models)
    assert "80.0% right, not measured under PGD" in said
    assert "more robust here" not in said
    assert said.endswith("Whether each became robust cannot be said: give them to `salience train --resume --attacked 1000`.")


def plain_name(title):
    return title.split()[0]
