"""Recipes: their losses beside the formulas, their schedules, what is drawn for a picture."""

import copy
import dataclasses
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from made_pictures import striped

import salience as sal
from salience.core import registry, spec
from salience.core.draws import Stream
from salience.training.adversarial import Adversarial
from salience.training.architecture import Architecture
from salience.training.augmentation import DRAWS
from salience.training.card import judged, mean_average_precision, share
from salience.training.cure import Cure
from salience.training.loop import Trainer, train
from salience.training.multilabel import Multilabel
from salience.training.pgd import ascend, start_within
from salience.training.pictures import Pictures, joined
from salience.training.recipe import Recipe, list_recipes
from salience.training.standard import Standard

STREAM = Stream((0,), (0,))


@pytest.fixture
def net():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return sal.Model(Architecture.from_value("resnet9:width=4,classes=4").build(), mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3)).train()


@pytest.mark.parametrize("name", list_recipes())
def test_every_recipe_gives_a_loss_with_gradients_and_leaves_the_modes(net, name):
    recipe = spec.build("recipe", name)
    data = striped(8)
    labels = F.one_hot(data.labels, 4) if recipe.multilabel else data.labels
    loss = recipe.loss(net, data.pixels(), labels, epoch=0, stream=STREAM)
    assert loss.shape == ()
    loss.backward()
    assert all(weight.grad.isfinite().all() for weight in net.module.parameters())
    assert all(module.training for module in net.modules())


@pytest.mark.parametrize("name", list_recipes())
def test_every_full_setting_stands_beside_what_is_spelled_out(name):
    recipe = spec.build("recipe", f"{name}:batch=7")
    network = Architecture.from_value(recipe.network)
    assert recipe.full(network).batch in (7, 128)
    assert dataclasses.replace(recipe.full(network), **recipe.changed()).batch == 7
    assert str(Recipe.from_value(str(recipe.full(network)))) == str(recipe.full(network))


def test_papers_settings():
    vgg, other = (Standard().full(Architecture.from_value(name)) for name in ("vgg16", "resnet9"))
    assert (vgg.rate, vgg.momentum, vgg.epochs) == (0.01, 0.9, 20)
    assert (other.rate, other.momentum, [other.rate_at(share) for share in (0, 0.5, 0.99)]) == (0.001, None, [0.001] * 3)
    robust = Adversarial().full(Architecture.from_value("resnet18"))
    assert (robust.epochs, robust.steps, robust.random_start, robust.momentum) == (150, 7, False, 0.9)
    assert [robust.rate_at(epoch / 150) for epoch in (0, 49, 50, 99, 100, 149)] == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])
    voc = Multilabel().full(Architecture.from_value("torchvision:resnet18"))
    assert [voc.rate_at(epoch / 200) for epoch in (0, 99, 100, 199)] == pytest.approx([0.01, 0.01, 0.005, 0.005])
    cure = Cure().full(Architecture.from_value("resnet18"))
    assert (cure.epochs, cure.rate, cure.strength, cure.radius) == (10, 1e-4, 1.0, (0.1, 0.4, 0.8, 1.8, 3.0))
    assert (cure.momentum, cure.weight_decay, [cure.rate_at(share) for share in (0, 0.5, 0.99)]) == (None, 0.0, [1e-4] * 3)
    assert (robust.weight_decay, robust.flip, robust.shift, robust.degrees, robust.jitter) == (5e-4, True, 4, 2, 0.25)
    assert (other.degrees, other.shift, other.shrink, other.shear) == (15, 2, 0.05, 0.05)
    assert (voc.momentum, voc.flip, voc.degrees, voc.shear) == (0.0, True, 30, 5)


def test_the_optimiser_is_the_one_asked_for():
    weight = torch.nn.Parameter(torch.ones(2))
    adam, plain = (recipe.optimiser([weight]) for recipe in (Standard(weight_decay=0.03), Standard(weight_decay=0.03, momentum=0.7)))
    assert isinstance(adam, torch.optim.AdamW)
    assert isinstance(plain, torch.optim.SGD)
    assert [each.param_groups[0]["weight_decay"] for each in (adam, plain)] == [0.03, 0.03]
    assert plain.param_groups[0]["momentum"] == 0.7


def numbered(n):
    """Pictures that tell their own number."""
    return Pictures(torch.arange(n, dtype=torch.uint8).view(n, 1, 1, 1).expand(n, 3, 32, 32).contiguous(), torch.arange(n) % 2, ("even", "odd"))


def test_each_picture_has_draws_of_its_own_in_each_epoch(monkeypatch):
    seen = [{}, {}]
    trainer = Trainer(Standard(batch=4), sal.Model(Architecture.from_value("lenet:classes=2").build()).train(), numbered(10), 3)
    monkeypatch.setattr(Standard, "augmented", lambda self, images, draws: seen[trainer.epoch].update(zip(images[:, 0, 0, 0].tolist(), draws.tolist(), strict=True)) or images / 255)
    for _ in range(2):
        list(trainer.run_epoch())
    for epoch in (0, 1):
        assert seen[epoch] == dict(enumerate(trainer.stream.uniform((10, DRAWS), "augment", epoch).tolist()))
    assert all(seen[0][place] != seen[1][place] for place in range(10))


@pytest.mark.parametrize("options", [{"drops": 1}, {}])
def test_the_rate_is_set_before_every_step(options):
    recipe = Standard(batch=4, epochs=2, rate=0.5e-3, **options)
    trainer = Trainer(recipe, sal.Model(Architecture.from_value("lenet:classes=2").build()).train(), numbered(10), 0)
    rates = [trainer.optimiser.param_groups[0]["lr"] for _ in range(2) for _ in trainer.run_epoch()]
    assert rates == pytest.approx([recipe.rate_at(step / 6) for step in range(6)])
    assert len(set(rates)) > 1


@pytest.mark.parametrize("options", [{}, {"momentum": 0.9}])
def test_what_the_optimiser_keeps_comes_back_in_the_order_of_the_weights(options):
    def made():
        net = Architecture.from_value("resnet9:width=4,classes=2").build().to(memory_format=torch.channels_last)
        return Trainer(Standard(batch=4, **options), sal.Model(net).train(), numbered(8), 0)

    first, second = made(), made()
    list(first.run_epoch())
    second.restore({key: value.contiguous() for key, value in first.state().items()})  # as a file has them
    for mine, other, weight in zip(first.optimiser.state.values(), second.optimiser.state.values(), second.model.module.parameters(), strict=True):
        for key, value in mine.items():
            assert torch.equal(value, other[key])
            assert value.ndim == 0 or other[key].stride() == weight.stride()


def test_the_rate_rises_and_falls_to_zero():
    recipe = Standard(rate=1.0)
    rates = [recipe.rate_at(share) for share in np.linspace(0, 0.999999, 1001)]
    assert rates[0] == 0
    assert max(rates) == pytest.approx(1, abs=1e-3)
    assert rates.index(max(rates)) == pytest.approx(200, abs=1)
    assert rates[-1] < 1e-5


def test_cure_is_its_formula(net):
    """The penalty by the gradients of the batch's mean loss, computed on their own."""
    data, h = striped(6), 1.5
    std = net.std

    def gradient(pixels):
        pixels = pixels.clone().requires_grad_(True)
        return torch.autograd.grad(F.cross_entropy(net(pixels), data.labels), pixels)[0] * std

    x = data.pixels()
    with net.frozen():
        here = gradient(x)
        z = h * here.sign() / here.sign().flatten(1).norm(dim=1)[:, None, None, None]
        assert z.flatten(1).norm(dim=1).tolist() == pytest.approx([h] * 6)
        expected = (gradient(x + z * std) - here).flatten(1).norm(dim=1).mean()
    assert Cure().penalty(net, x, data.labels, h).item() == pytest.approx(expected.item(), rel=1e-3)
    for epoch in (1, 5):
        first, second = copy.deepcopy(net), copy.deepcopy(net)
        whole = F.cross_entropy(first(x), data.labels) + 4 * Cure().penalty(first, x, data.labels, h)
        assert Cure(radius=(0.1, h), strength=4).loss(second, x, data.labels, epoch=epoch, stream=STREAM).item() == pytest.approx(whole.item(), rel=1e-5)


def test_cure_lowers_the_penalty():
    data = striped(64)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = sal.Model(Architecture.from_value("resnet9:width=4,classes=4").build(), mean=(0.4,) * 3, std=(0.25,) * 3)
    trainer = Trainer(Standard(epochs=3, batch=16, rate=0.01), net.train(), data, 0)
    for _ in range(3):
        list(trainer.run_epoch())
    before = Cure().penalty(net, data.pixels(), data.labels, 1.5).item()
    trainer = Trainer(Cure(epochs=3, batch=16, rate=1e-3, radius=(1.5,), strength=64), net, data, 0)
    for _ in range(3):
        list(trainer.run_epoch())
    assert Cure().penalty(net, data.pixels(), data.labels, 1.5).item() < before / 2


@pytest.mark.parametrize(
    ("options", "stride"), [({"steps": 1}, 1.25), ({"steps": 5}, 0.5), ({"steps": 2, "stride": 0.7}, 0.7), ({"steps": 2, "random_start": False}, 1.25), ({"steps": 2, "epsilon": 0.1}, 1.25)]
)
def test_adversarial_is_cross_entropy_of_the_changed_pictures(net, options, stride):
    data, recipe = striped(6), Adversarial(**options)
    x, epsilon = data.pixels(), recipe.epsilon
    start, copied = start_within(x, epsilon, STREAM.uniform(x.shape, "start")) if recipe.random_start else x, copy.deepcopy(net)
    with net.frozen():
        changed = ascend(net, x, data.labels, start, epsilon=epsilon, stride=stride * epsilon, steps=recipe.steps)
    expected = F.cross_entropy(net(changed), data.labels)
    assert recipe.loss(copied, x, data.labels, epoch=0, stream=STREAM).item() == pytest.approx(expected.item(), rel=1e-4)


def test_adversarial_training_makes_robust(tmp_path):
    """A weak but honest pattern and a strong one that the budget can undo: only adversarial training leaves the strong one."""
    source, labels = torch.Generator().manual_seed(0), torch.arange(256) % 2
    images = torch.full((256, 3, 32, 32), 128, dtype=torch.float32)
    images += 4 * (2 * labels[:, None, None, None] - 1) * torch.where(torch.rand(1, 3, 32, 32, generator=source) < 0.5, -1.0, 1.0)
    images[:, :, 8:24, 8:24] += 24 * (2 * labels[:, None, None, None] - 1) * torch.where(torch.rand(256, 1, 1, 1, generator=source) < 0.95, 1.0, -1.0)
    data = Pictures(images.round().to(torch.uint8), labels, ("dark", "bright"))
    common = "epochs=2,batch=16,rate=0.005"
    plain, robust = (train(f"{name},{common}", "lenet", data, tmp_path / name[:5], test=data, attacked=24)["pgd"] for name in ("standard:shift=0", "adversarial:steps=2"))
    assert robust["value"] > 0.8 > plain["value"]


def test_multilabel_trains_and_is_judged_by_average_precision(tmp_path):
    source = torch.Generator().manual_seed(0)
    there = (torch.rand(200, 3, generator=source) < 0.4).long()
    images = torch.randint(0, 60, (200, 3, 32, 32), generator=source, dtype=torch.uint8)
    for image, row in zip(images, there.tolist(), strict=True):
        for place, present in enumerate(row):
            image[:, 10 * place : 10 * place + 10] += 120 * present
    data = Pictures(images, there, ("a", "b", "c"))
    card = train("multilabel:epochs=4,batch=20,rate=0.01", "resnet9:width=4", data, tmp_path, test=data)
    assert card["accuracy"]["measure"] == "mean average precision"
    assert card["accuracy"]["value"] > 0.95
    assert card["pgd"] is None
    assert "Mean average precision: " in (tmp_path / "card.md").read_text()
    ranks = sal.Model(torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()))
    found = judged(ranks, data, attacked=0, seed=0)["accuracy"]
    assert found["low"] <= found["value"] <= found["high"] < 1


def test_the_interval_of_average_precision_covers():
    """The bootstrap's lay above the value itself. Truth: the mean over many test sets."""
    source = np.random.default_rng(0)

    def drawn(n=60):
        labels = source.random((n, 3)) < 0.3
        return torch.from_numpy(labels + source.normal(0, 1.2, labels.shape)), torch.from_numpy(labels).long()

    truth = np.mean([mean_average_precision(*drawn())["value"] for _ in range(40)])
    found = [mean_average_precision(*drawn()) for _ in range(60)]
    assert all(each["low"] <= each["value"] <= each["high"] for each in found)
    assert np.mean([each["low"] <= truth <= each["high"] for each in found]) > 0.85
    assert mean_average_precision(torch.zeros(1, 3), torch.ones(1, 3).long()) == {"measure": "mean average precision", "value": 1.0, "low": 0.0, "high": 1.0, "images": 1}
    assert mean_average_precision(torch.zeros(4, 3), torch.zeros(4, 3).long())["value"] == 0


def test_intervals_are_wilsons():
    assert share(np.array([True] * 8 + [False] * 2)) == {"value": 0.8, "low": pytest.approx(0.49016, abs=1e-5), "high": pytest.approx(0.94332, abs=1e-5), "images": 10}
    assert share(np.zeros(10, dtype=bool))["high"] == pytest.approx(0.27753, abs=1e-5)


def test_precision_is_averaged_over_the_classes_that_are_there():
    """A class without a picture has no precision."""
    labels = torch.tensor([[1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 0]])
    images = (labels.float() * 200).to(torch.uint8)[:, :, None, None].expand(4, 3, 32, 32).contiguous()
    model = sal.Model(torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()))
    assert judged(model, Pictures(images, labels, ("a", "b", "c")), attacked=0, seed=0)["accuracy"]["value"] == 1.0


def test_the_attack_for_the_card_is_the_one_that_it_names(net, monkeypatch):
    data, calls = striped(8), []

    def noted(model, images, labels, **options):
        calls.append((images, labels, options))
        return torch.tensor([True, True, False])

    monkeypatch.setattr("salience.training.card.pgd", noted)
    found = judged(net, data, attacked=3, seed=5)["pgd"]
    ((images, labels, options),) = calls
    assert torch.equal(images, data.some(3).pixels())
    assert torch.equal(labels, data.some(3).labels)
    assert (options["steps"], options["restarts"], options["seed"]) == (found["steps"], found["restarts"], 5) == (20, 5, 5)
    assert found | share(np.array([True, True, False])) == found
    assert found["epsilon"] == pytest.approx(8 / 255, abs=1e-6)


def test_what_is_judged_is_of_all_classes_of_a_set_in_the_order_of_its_classes(net, monkeypatch):
    """The first pictures of a folder a class are all of its first classes: accuracy under attack and weight noise were theirs."""
    data = striped(400)
    order = data.labels.argsort()
    data, classes = Pictures(data.images[order], data.labels[order], data.classes), []

    def tuned(model, images):
        classes.append({int((data.pixels() - image).square().sum((1, 2, 3)).argmin()) // 100 for image in images})
        return 0.1

    def attack(model, images, labels, **options):
        classes.append(set(labels.tolist()))
        return labels < 2

    monkeypatch.setattr("salience.training.card.tuned_weight_sigma", tuned)
    monkeypatch.setattr("salience.training.card.pgd", attack)
    judged(net, data, attacked=30, seed=0)
    assert classes == [{0, 1, 2, 3}, {0, 1, 2, 3}]
    assert torch.equal(data.some(1000).images, data.images)
    assert set(striped(400).some(100).labels.tolist()) == {0, 1, 2, 3}  # nor every fourth one, where classes take turns


def test_every_picture_is_seen_once_an_epoch_in_new_order():
    data = striped(50)
    trainer = Trainer(Standard(batch=16), sal.Model(Architecture.from_value("lenet:classes=4").build()).train(), data, 0)
    orders = []
    for _ in range(2):
        seen = []
        trainer._take_step = lambda images, labels, seen=seen: seen.append(len(labels)) or 0.0
        list(trainer.run_epoch())
        orders.append(trainer.stream.generator("order", trainer.epoch - 1).permutation(50).tolist())
        assert sum(seen) == 50
        assert max(seen) - min(seen) <= 1
    assert sorted(orders[0]) == list(range(50))
    assert orders[0] != orders[1]


DRAWN = torch.rand(6, DRAWS, generator=torch.Generator().manual_seed(0))


def test_augmentation_flips_and_shifts():
    images = striped(6).images
    assert torch.equal(Standard().augmented(images, DRAWN), images / 255)
    flipped = Standard(flip=True).augmented(images, DRAWN)
    for place, mirrored in enumerate((DRAWN[:, 0] < 0.5).tolist()):
        assert torch.equal(flipped[place], (images[place] if mirrored else images[place].flip(2)) / 255)
    moved = Standard(shift=2).augmented(images, torch.tensor([[0.0] * DRAWS, [0.999] * DRAWS, [0.5] * DRAWS]).repeat(2, 1))
    assert torch.equal(moved[0][:, 2:, 2:], images[0][:, :-2, :-2] / 255)
    assert moved[0][:, :2].sum() == moved[0][:, :, :2].sum() == 0
    assert torch.equal(moved[1][:, :-2, :-2], images[1][:, 2:, 2:] / 255)
    assert torch.equal(moved[2], images[2] / 255)


def test_augmentation_turns_about_the_centre():
    images = striped(2).images
    quarter = torch.tensor([[0.0, 0, 0, 1.0, 0, 0.5, 0, 0, 0], [0.0, 0, 0, 0.5, 0, 0.5, 0, 0, 0]])
    turned = Standard(degrees=90).augmented(images, quarter)
    assert torch.allclose(turned[0], torch.rot90(images[0] / 255, 1, (1, 2)), atol=1e-4)
    assert torch.allclose(turned[1], images[1] / 255, atol=1e-5)
    shrunk = Standard(shrink=0.5).augmented(images, torch.ones(2, DRAWS))
    assert shrunk[:, :, :7].sum() == shrunk[:, :, :, :7].sum() == 0
    assert shrunk[:, :, 10:22, 10:22].mean().item() == pytest.approx(images.float().mean().item() / 255, abs=0.1)


def test_augmentation_keeps_colours_in_range():
    changed = Standard(jitter=1.0).augmented(striped(6).images, DRAWN)
    assert changed.min() >= 0
    assert changed.max() <= 1
    assert torch.allclose(Standard(jitter=0.5).augmented(striped(6).images, torch.full((6, DRAWS), 0.5)), striped(6).pixels(), atol=1e-6)


def test_mean_and_std_of_the_pictures():
    data = striped(20)
    mean, std = data.mean_and_std()
    assert mean == pytest.approx(data.pixels().mean((0, 2, 3)).tolist(), abs=1e-5)
    assert std == pytest.approx(data.pixels().std((0, 2, 3), correction=0).tolist(), abs=1e-5)


def test_data_that_do_not_fit_are_refused():
    data = striped(4)
    with pytest.raises(sal.InputError, match=r"^pictures: there must be one picture at least\.$"):
        Pictures(data.images[:0], data.labels[:0], data.classes)
    with pytest.raises(sal.InputError, match=r"^pictures: the labels must be indices of the 2 classes, or rows of 0 and 1, one for each class\.$"):
        Pictures(data.images, data.labels, ("a", "b"))
    assert data.sha256 != striped(4, 1).sha256
    assert data.sha256 == striped(4).sha256
    assert data.sha256 != Pictures(data.images, data.labels.flip(0), data.classes, data.name).sha256
    assert data.sha256 != Pictures(data.images.flip(3), data.labels, data.classes, data.name).sha256


def test_pictures_can_be_joined():
    first, second = striped(4), striped(6, 1)
    both = joined([first, second])
    assert torch.equal(both.images, torch.cat([first.images, second.images]))
    assert (len(both), both.name) == (10, "striped + striped")
    assert joined([first]) is first
    with pytest.raises(sal.InputError, match=r"^The training pictures differ in size or classes: give data sets that have the same\.$"):
        joined([first, Pictures(first.images, first.labels, ("a", "b", "c", "d"))])


def test_what_is_not_a_recipe():
    with pytest.raises(sal.InputError, match=r"^A recipe is a specification such as 'standard:epochs=10', not int\.$"):
        Recipe.from_value(3)
    with pytest.raises(sal.InputError, match=r"^Unknown recipe 'adversary': did you mean adversarial\?$"):
        Recipe.from_value("adversary")
    with pytest.raises(sal.InputError, match=r"^cure: radius must be one positive number an epoch, such as 0\.1\+0\.4\+0\.8\.$"):
        Cure(radius=(0.0,))
    assert all(entry.facts["cites"] for entry in registry.entries("recipe").values())


def test_the_example_of_a_new_recipe_works(tmp_path):
    text = (Path(__file__).parents[2] / "docs" / "training.md").read_text()
    code = re.search(r"```python\n(import torch\.nn.*?)```", text, re.DOTALL).group(1)
    space: dict = {"__name__": "example"}
    sys.modules["example"] = type(sys)("example")
    try:
        exec(compile(code, "training.md", "exec"), space)
        card = train("smoothed:doubt=0.2,epochs=1,batch=16", "lenet", striped(16), tmp_path)
        assert card["recipe"] == "smoothed:epochs=1,batch=16,doubt=0.2"
        with pytest.raises(sal.InputError, match=r"^No paper gives settings for smoothed: leave out --full\.$"):
            Recipe.from_value("smoothed").full(Architecture.from_value("lenet"))
    finally:
        registry._entries["recipe"].pop("smoothed", None)
        del sys.modules["example"]
