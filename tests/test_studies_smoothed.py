"""The studies of "Smoothed explanations": each script once on a tiny network, its figures beside what a few lines compute by hand, and what its claims make of numbers."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from study_scripts import loaded, mean, objects, run, table

import salience as sal
from salience.core.draws import streams
from salience.perturb.randomise import parts_of, randomised
from salience.studies.statistics import bootstrap_interval, p_of_shared_seeds
from salience.studies.study import Data, Study
from salience.studies.work import seeds_of

NET = "python:study_nets:balanced"
BETA = 20.0
"""Of the eight pictures some keep their class at this beta, and some do not."""


@pytest.fixture
def script(monkeypatch):
    """A script with two draws of noise."""

    def script(name):
        monkeypatch.setattr("os.cpu_count", lambda: 1)  # one thread
        monkeypatch.setattr(loaded("_smoothed", monkeypatch), "SAMPLES", 2)
        return loaded(name, monkeypatch)

    return script


@pytest.fixture
def pictures(tmp_path):
    """Images, masks by class, and the folder."""
    return (*objects(tmp_path / "pictures"), tmp_path / "pictures")


@pytest.fixture
def tiny(script, pictures, monkeypatch):
    """A script whose only network is the tiny one."""

    def tiny(name):
        module, shared = script(name), script("_smoothed")
        data = {"dataset": "folder", "root": str(pictures[2]), "labels": "labels.csv"}
        monkeypatch.setattr(module, "settings", lambda given, **_: [shared.Setting("tiny", "tiny", NET, data, 0.1, BETA)])
        return module

    return tiny


def smoothed(images):
    """The scores of the network with softplus instead of its ReLUs, written out."""
    first, _, second, _, _, _, head = sal.load_model(NET).module
    hidden = F.softplus(BETA * second(F.softplus(BETA * first((images - 0.5) / 0.5)) / BETA)) / BETA
    return head(hidden.mean((2, 3)))


def slopes(outputs, images, targets):
    """Gradients of the scores of the targets."""
    images = images.clone().requires_grad_()
    return torch.autograd.grad(outputs(images).gather(1, targets[:, None]).sum(), images)[0]


def plain(images):
    """The scores of the network."""
    return sal.load_model(NET).module((images - 0.5) / 0.5)


def kept(images):
    """Which pictures keep their class under beta-smoothing."""
    found = (smoothed(images).argmax(1) == plain(images).argmax(1)).numpy()
    assert 0 < found.sum() < len(found)  # else there is nothing to see
    return found


def gini(map_):
    """The Gini index by the sum over all pairs of values."""
    values = map_.abs().flatten().double().numpy()
    return np.abs(values[:, None] - values).sum() / (2 * len(values) * values.sum())


def rising(factor=1.0):
    """Values of 12 pictures and 6 networks, the same for all networks; of two factors no differences are tied, which keeps the tests fast."""
    return np.broadcast_to(factor * np.linspace(0.1, 0.2, 12)[:, None], (12, 6))


# --- Gini index -------------------------------------------------------------------------------------------------------------------------------


def test_sparseness_is_that_of_the_values_and_of_beta_smoothing_only_where_the_class_is_kept(tiny, pictures, tmp_path, capfd):
    images = pictures[0]
    found = table(run(tiny("smoothed_gini"), capfd, "--limit", 8, "--out", tmp_path / "out"), "Gini index")
    targets, survive = plain(images).argmax(1), kept(images)
    gradient = np.array([gini(each) for each in slopes(plain, images, targets)])
    smooth = np.array([gini(each) for each in slopes(smoothed, images, targets)])
    assert mean(found["Gradient"]["tiny, 8 pictures"]) == pytest.approx(gradient.mean(), abs=6e-5)
    assert found["Gradient"]["tiny, 8 pictures"].split(" [")[0].endswith(f"± {gradient.std(ddof=1):.4f}")
    assert mean(found["beta-smoothing"]["tiny, 8 pictures"]) == pytest.approx(smooth[survive].mean(), abs=6e-5)
    assert smooth[survive].mean() != pytest.approx(smooth.mean(), abs=6e-4)  # the others would be seen
    assert found["Smooth Gradient"]["paper: VGG-16, ImageNet, 1000 pictures"] == "0.34 ± 0.053"


def test_claims_of_table_2_follow_the_numbers(script):
    module = script("smoothed_gini")
    values = {module.GRADIENT: rising(), module.SMOOTH: rising(0.5), module.UNIFORM: rising(0.5), module.BETA_SMOOTHING: rising(2), module.RELATIVE: rising(2)}
    assert [claim.agrees for claim in module.claims("tiny", values)] == [True] * 4
    assert [claim.agrees for claim in module.claims("tiny", {name: -each for name, each in values.items()})] == [False] * 4


# --- infidelity -------------------------------------------------------------------------------------------------------------------------------


def test_infidelity_is_that_of_every_square(tiny, pictures, tmp_path, capfd, monkeypatch):
    """With --full every square counts: 3 x 11 places of 22 pixels; maps at their best scale."""
    module, images = tiny("smoothed_infidelity"), pictures[0][:3]
    monkeypatch.setattr(module, "SIDES", (22,))
    found = table(run(module, capfd, "--full", "--limit", 3, "--out", tmp_path / "out"), "tiny: infidelity")
    targets = torch.tensor([0, 1, 2])  # the labels
    maps, wanted = slopes(plain, images, targets), {variant: [] for variant in module.VARIANTS}
    for image, map_, target in zip(images, maps, targets.tolist(), strict=True):
        changes, sums = [], {variant: [] for variant in module.VARIANTS}
        for top in range(3):
            for left in range(11):
                inside = torch.zeros(24, 32, dtype=torch.bool)
                inside[top : top + 22, left : left + 22] = True
                without = torch.where(inside, 0.5, image)  # the mean colour
                changes.append(float((plain(image[None]) - plain(without[None]))[0, target].detach()))
                for variant, multiply in module.VARIANTS.items():
                    sums[variant].append(float((map_ * (image - without if multiply else 1))[:, inside].sum()))
        for variant, each in sums.items():
            scale = np.mean(np.multiply(changes, each)) / np.mean(np.square(each))
            wanted[variant].append(np.mean((np.array(changes) - scale * np.array(each)) ** 2))
    for variant, each in wanted.items():
        assert mean(found["Gradient"][variant]) == pytest.approx(np.mean(each), rel=5e-3)


def test_claims_of_table_3_follow_the_numbers(script):
    module = script("smoothed_infidelity")
    values = {module.GRADIENT: rising(2)} | {name: rising() for name in (module.SMOOTH, module.UNIFORM, module.BETA_SMOOTHING, module.RELATIVE)}
    assert [claim.agrees for claim in module.claims("tiny", "a variant", values)] == [True] * 4
    assert [claim.agrees for claim in module.claims("tiny", "a variant", {name: -each for name, each in values.items()})] == [False] * 4


# --- class sensitivity ------------------------------------------------------------------------------------------------------------------------


def chosen_by_hand(scores):
    """The pictures whose likeliest class is the bee or the dog, and both classes: the likeliest, and the likeliest of the other object."""
    found = []
    for place, each in enumerate(scores.tolist()):
        top = int(np.argmax(each))
        if top == 3:
            found.append((place, (3, 0 if each[0] > each[1] else 1)))
        elif top in (0, 1):
            found.append((place, (top, 3)))
    return found


def test_pictures_of_two_objects_are_those_in_which_the_network_sees_one_first(script, pictures):
    script("smoothed_class_sensitivity")
    images, _, folder = pictures
    data = sal.load_dataset("two_objects", of=f"coco:root={folder},labels=imagenet", model=NET, fit="squash")
    wanted = chosen_by_hand(plain(images))
    assert [(item.name, item.labels) for item in data] == [(f"{place}.png", labels) for place, labels in wanted]
    assert 0 < len(wanted) < len(images)
    assert {labels[0] for _, labels in wanted} >= {1, 3}


def test_the_largest_values_are_counted_on_each_object(script, pictures, tmp_path, capfd, monkeypatch):
    images, masks, folder = pictures
    module, shared = script("smoothed_class_sensitivity"), script("_smoothed")
    place = module.Place("tiny", f"coco:root={folder},labels=imagenet", "squash", shared.Setting("net", "", NET, {}, 0.1, BETA))
    monkeypatch.setattr(module, "places", lambda given: [place])
    found = table(run(module, capfd, "--limit", 8, "--out", tmp_path / "out"), "net, tiny: share of the 20 largest values")
    wanted = chosen_by_hand(plain(images))
    chosen = images[[number for number, _ in wanted]]
    survive = kept(chosen)
    for role in (0, 1):
        targets = torch.tensor([labels[role] for _, labels in wanted])
        on_it = {}
        for name, outputs in {"Gradient": plain, "beta-smoothing": smoothed}.items():
            largest = slopes(outputs, chosen, targets).flatten(1).topk(20).indices
            on_it[name] = np.array([float(masks[int(target)].expand(3, -1, -1).flatten()[each].float().mean()) for target, each in zip(targets, largest, strict=True)])
        column = f"object {role + 1}, ours"
        assert mean(found["Gradient"][column]) == pytest.approx(on_it["Gradient"].mean(), abs=6e-5)
        assert mean(found["beta-smoothing"][column]) == pytest.approx(on_it["beta-smoothing"][survive].mean(), abs=6e-5)
    assert found["Smooth Gradient"]["object 2, paper"] == "0.37"


def test_claims_of_table_1_follow_the_numbers(script):
    module = script("smoothed_class_sensitivity")
    first, less, more = (rising(factor)[:, 0] for factor in (3, 1, 2))
    values = {module.GRADIENT: (first, more)} | dict.fromkeys((module.SMOOTH, module.UNIFORM, module.BETA_SMOOTHING, module.RELATIVE), (first, less))
    assert [claim.agrees for claim in module.claims("tiny", values)] == [True] * 4
    assert [claim.agrees for claim in module.claims("tiny", {name: (first, -second) for name, (_, second) in values.items()})] == [False] * 4


# --- random networks --------------------------------------------------------------------------------------------------------------------------


def cascade_by_hand(folder, images, targets, seeds):
    """Rank correlations of |gradient|, channels summed, with that of the trained network: (images, seeds, steps).

    Two steps, from the scores down: the last layer and the second convolution, then the first convolution too.
    """
    study = Study(name="any", data=Data(dataset="folder", root=str(folder)), methods=["gradient"])
    model, found = sal.load_model(NET), []
    first, second, last = parts_of(model)
    trained = model.gradient(images, targets).abs().sum(1).flatten(1)
    for seed in seeds:
        stream = streams([seeds_of(study, "any picture", seed)], 1)[0].at("metric", "parameter_randomisation")
        for parts in ([last, second], [last, second, first]):
            with randomised(parts, stream):
                random = model.gradient(images, targets).abs().sum(1).flatten(1)
            found.append([stats.spearmanr(a.numpy(), b.numpy()).statistic for a, b in zip(trained, random, strict=True)])
    return np.array(found).reshape(len(seeds), 2, len(images)).transpose(2, 0, 1)


def test_cascades_are_over_several_random_networks_which_all_pictures_share(tiny, pictures, tmp_path, capfd, monkeypatch):
    module, images, folder = tiny("smoothed_cascade"), pictures[0][:4], pictures[2]
    monkeypatch.setattr(module, "SEEDS", [0, 1])
    monkeypatch.setattr(module, "STEPS", 2)
    written = run(module, capfd, "--limit", 4, "--out", tmp_path / "out")
    found = table(written, "tiny: rank correlation, mean and 95 % interval over 4 pictures and 2 random networks")
    wanted = cascade_by_hand(folder, images, torch.tensor([0, 1, 2, 3]), [0, 1])
    assert np.abs(wanted[:, 0] - wanted[:, 1]).max() > 0.05  # two networks
    gradient = found["Gradient"]
    for column, each in {"top layers (to 2)": wanted[..., 0], "all layers": wanted[..., 1], "mean over steps": wanted.mean(2)}.items():
        assert mean(gradient[column]) == pytest.approx(each.mean(), abs=6e-4)
        over_both = bootstrap_interval(each, shared_seeds=True)
        assert [float(end) for end in gradient[column].partition(" [")[2].strip("]").split(", ")] == pytest.approx([over_both.low, over_both.high], abs=2e-3)
    assert found["edges"]["mean over steps"] == "1.0000 [1.0000, 1.0000]"
    assert "by beta-smoothing" in written


def test_a_cascade_s_claim_does_not_rest_on_the_networks_drawn(script):
    """All pictures agree in each network, but the networks do not agree with each other."""
    module = script("smoothed_cascade")
    networks = np.array([0.5, -0.4, 0.45, -0.35, 0.4, -0.3])
    methods = (module.SMOOTH, module.UNIFORM, module.BETA_SMOOTHING, module.RELATIVE)
    for way, verdict in ((rising() + networks, "not decided here"), (rising() + 0.4 + networks / 20, "holds"), (rising() - 0.4 + networks / 20, "does not hold")):
        found = {module.GRADIENT: np.full((12, 6), 0.1)} | dict.fromkeys(methods, way)
        claims = module.claims("tiny", found, {name: np.stack([each, each], 2) for name, each in found.items()})
        assert [claim.verdict(claim.p) for claim in claims] == [verdict] * 8


def test_what_is_said_of_p_is_true(script):
    """It was said to speak of the networks drawn alone: where these differ more than pictures do, it is that of both."""
    module = script("smoothed_cascade")
    values = 0.3 + rising() / 10 + np.array([0.2, -0.1, 0.2, -0.1, 0.2, -0.1])
    assert "or of pictures and networks as two samples where that is larger" in module.CERTAINTY
    assert module.difference("", "", values, 0.0, ">", shared_seeds=True).p == p_of_shared_seeds(values) > module.difference("", "", values, 0.0, ">").p


def test_the_network_with_its_last_relu_has_a_folder_of_its_own(tiny, tmp_path, capfd, monkeypatch):
    module = tiny("smoothed_cascade")
    monkeypatch.setattr(module, "SEEDS", [0])
    monkeypatch.setattr(module, "STEPS", 1)
    assert module.main(module.options(), module.work, ["--rectified", "--limit", "1", "--out", str(tmp_path / "out")]) == 0
    assert "SqueezeNet is with the ReLU after its scores" in (tmp_path / "out" / "rectified" / "results.md").read_text()
    capfd.readouterr()
    assert module.main(module.options(), module.work, ["--rectified", "--full", "--out", str(tmp_path / "out")]) == 2
    assert capfd.readouterr().err == "--rectified is about SqueezeNet, which --full does not have: leave one of them out.\n"


def test_figure_6_is_over_several_random_networks(script, pictures, tmp_path, capfd, monkeypatch):
    module, trained = script("smoothed_training"), script("_trained")
    images, _, folder = pictures
    networks = trained.Networks("tiny networks", "tiny", {trained.STANDARD: NET, trained.ADVERSARIAL: "python:tiny_models:net"}, "Networks of a test.")
    monkeypatch.setattr(module, "networks", lambda given: ([networks], ""))
    monkeypatch.setattr(module, "pictures", lambda: {"dataset": "folder", "root": str(folder), "labels": "labels.csv"})
    for name, value in {"SIDE": 20, "SQUARES": 2, "STEPS": 2, "SEEDS": [0, 1]}.items():
        monkeypatch.setattr(module, name, value)
    found = table(run(module, capfd, "--limit", 2, "--out", tmp_path / "out"), "tiny networks, 2 pictures: sparseness")
    wanted = cascade_by_hand(folder, images[:2], torch.tensor([0, 1]), [0, 1]).mean(2)
    assert mean(found["Standard training"]["mean rank correlation under random parameters"]) == pytest.approx(wanted.mean(), abs=6e-4)


def test_the_claim_of_figure_6_does_not_rest_on_the_networks_drawn(script):
    module = script("smoothed_training")
    standard, adversarial = module.STANDARD, module.ADVERSARIAL
    networks = np.array([0.5, -0.4, 0.45, -0.35, 0.4, -0.3])
    for way, verdict in ((rising() + networks, "not decided here"), (rising() + 0.4 + networks / 20, "holds")):
        same = {standard: rising(), adversarial: rising()}
        found = module.Found(same, {}, {}, {standard: np.full((12, 6), 0.1), adversarial: way}, {}, {})
        claim = module.claims("tiny", found)[-1]
        assert "less sensitive to the parameters" in claim.statement
        assert claim.verdict(claim.p) == verdict


def test_an_interval_over_shared_networks_counts_them(script):
    common = script("_common")
    values = rising() + np.array([0.5, -0.4, 0.45, -0.35, 0.4, -0.3])
    wide, narrow = (bootstrap_interval(values, shared_seeds=shared) for shared in (True, False))
    assert common.mean_cell(values, shared_seeds=True) == f"{values.mean():.4f} [{wide.low:.4f}, {wide.high:.4f}]"
    assert common.mean_cell(values) == f"{values.mean():.4f} [{narrow.low:.4f}, {narrow.high:.4f}]"
    assert wide.high - wide.low > 5 * (narrow.high - narrow.low)
    assert common.mean_cell(values[:, :1], shared_seeds=True) == f"{values[:, 0].mean():.4f}"  # of one network there is no interval
