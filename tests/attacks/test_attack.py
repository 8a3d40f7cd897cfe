"""Attacks: gradients, budgets, honesty about the result, and that nothing of the user's changes."""

import dataclasses
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import nn

import salience as sal
from salience.attacks._judge import Judge, cosine_distance
from salience.attacks._optimiser import Descent, composed, descend, penalised
from salience.attacks._problem import Problem, fixed_draws, units
from salience.cli.attack import row_of
from salience.core.classifier import Tape
from salience.core.draws import streams
from salience.core.metric import UndefinedError
from salience.core.model import RecomputedGradient
from salience.core.objective import shares
from salience.core.robustness import compared
from salience.perturb.relu import ReplaceReLU, softplus
from salience.similarities.lpips import LPIPS


class Quadratic(nn.Module):
    """Scores x' A_k x / 2: the gradient is A_k x, known in closed form."""

    def __init__(self, values: int, classes: int = 3) -> None:
        super().__init__()
        matrices = torch.randn(classes, values, values, generator=torch.Generator().manual_seed(0))
        self.matrices = nn.Parameter(matrices + matrices.transpose(1, 2))

    def forward(self, x):
        x = x.flatten(1)
        return torch.einsum("ni,kij,nj->nk", x, self.matrices, x) / 2


class Net(nn.Module):
    """Two convolutions with batch norm and ReLU6, deep enough to be fooled."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12), nn.ReLU6(inplace=True), nn.Conv2d(12, 16, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(16, 16, 3, stride=2), nn.ReLU()
        )
        self.head = nn.Linear(16, 4)

    def forward(self, x):
        return self.head(self.layers(x).mean((2, 3)))


@pytest.fixture
def net():
    with torch.random.fork_rng():
        torch.manual_seed(1)
        module = Net()
        module.layers[1].running_var.uniform_(0.2, 0.6)
        nn.init.normal_(module.head.weight, 0, 2.0)
    return sal.Model(module, mean=(0.5,) * 3, std=(0.25,) * 3)


@pytest.fixture
def pictures():
    return torch.rand(4, 3, 17, 19, generator=torch.Generator().manual_seed(5))


class Rooted(nn.Module):
    """A network that looks at the length of each colour, whose second derivative at black is not a number."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x):
        return self.module(x * (1 + x.norm(dim=1, keepdim=True)))


class Largest(nn.Module):
    """A ReLU that nothing sees."""

    def forward(self, x):
        return torch.maximum(x, torch.zeros(()))


def simple(activation: type[nn.Module], channels: int = 3) -> sal.Model:
    """A small network with such an activation after each of two convolutions."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        first, second, last = nn.Conv2d(channels, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8, 4)
    return sal.Model(nn.Sequential(first, activation(), second, activation(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), last), channels="L" if channels == 1 else "RGB")


def blackened(images: torch.Tensor) -> torch.Tensor:
    """The images, the third with one black pixel."""
    images = images.clone()
    images[2, :, 4, 5] = 0
    return images


def problem_of(attack: sal.Attack, model: sal.Model, images, aim) -> Problem:
    attack = attack.aiming(aim is not None)
    outputs = model.outputs(images)
    clean = shares(attack.method.attribute(model, images, outputs.argmax(1), streams(0, len(images))).maps)
    return Problem(attack, model, images, outputs.argmax(1), clean, aim, streams(0, len(images)))


def test_the_gradient_of_the_loss_is_that_of_the_closed_form():
    """Nothing on the way (chunks, recomputation, smoothing) masks or scales it."""
    model = sal.Model(Quadratic(12).double().float())
    images, other = torch.rand(2, 3, 3, 2, 2, generator=torch.Generator().manual_seed(2))
    aim = shares(torch.rand(3, 3, 2, 2, generator=torch.Generator().manual_seed(3)))
    attack = sal.Attack(threat="delta", output_weight=0.7)
    problem = problem_of(attack, model, images, aim)
    change = (0.01 * (other - 0.5)).requires_grad_(True)
    (found,) = torch.autograd.grad(penalised(attack.threats, images, [change], problem.loss, 0).sum(), change)
    x = (images + change).flatten(1)
    matrices = model.module.matrices.detach()
    maps = torch.einsum("nij,nj->ni", matrices[problem.targets], x).view(3, 3, 2, 2)
    scores = torch.einsum("ni,kij,nj->nk", x, matrices, x) / 2
    loss = 4 * (shares(maps) - aim).square().sum((1, 2)) + 0.7 * (scores.softmax(1) - problem.probabilities(0)).square().sum(1)
    (expected,) = torch.autograd.grad(loss.sum(), change)
    assert expected.abs().max() > 1e-3
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "method",
    [
        "gradient",
        "input_x_gradient",
        "integrated_gradients:steps=5",
        "smoothgrad:samples=4,sigma=0.1",
        "uniformgrad:samples=3,sigma=0.1",
        "smoothgrad:samples=3,sigma=0.1,absolute=true",
        "beta_smoothing:beta=3",
        "gradcam",
        "vargrad:samples=4,sigma=0.1",
    ],
)
def test_recomputed_gradients_equal_kept_ones_and_finite_differences(method, net, pictures, monkeypatch):
    """The map's derivative, with the graph kept, with nothing kept, and by differences along a direction."""
    explainer, images, targets = sal.Explainer.from_value(method), pictures[:2], torch.tensor([1, 3])
    direction = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))

    def value(at, room):
        view = net.using(tape=Tape(room), chunk=2)
        with ReplaceReLU(lambda inputs, ceiling: softplus(inputs, ceiling, 5.0)):
            return (explainer.attribute(view, at, targets, streams(3, 2)).maps * weights).sum()

    weights = torch.rand(2, 1, 17, 19, generator=torch.Generator().manual_seed(4))
    found, again, forward = [], [], RecomputedGradient.forward
    monkeypatch.setattr(RecomputedGradient, "forward", staticmethod(lambda *arguments: again.append(room) or forward(*arguments)))
    with net.frozen():
        for room in (100, 0):
            at = images.clone().requires_grad_(True)
            found.append(torch.autograd.grad(value(at, room), at)[0])
        assert set(again) == ({0} if method != "gradcam" else set())  # else kept ones were compared with kept ones; gradcam keeps its layer
        step = 2e-3
        slope = (value(images + step * direction, 0) - value(images - step * direction, 0)) / (2 * step)
    assert torch.allclose(found[0], found[1], rtol=1e-3, atol=1e-4 * float(found[0].abs().max()))
    assert slope.item() == pytest.approx((found[0] * direction).sum().item(), rel=0.04)


@pytest.mark.parametrize("threat", ["delta", "delta:norm=l2,budget=0.5", "stadv", "recolor", "delta+stadv+recolor"])
def test_the_map_is_moved_within_the_budget_and_further_than_by_chance(threat, net, pictures):
    attack = sal.Attack(threat=threat, steps=40)
    found = attack.run(net, pictures, pictures.roll(1, 0), random_draws=5)
    assert found.fall.median() > 0.1
    assert found.fall.median() > found.random_fall.median()
    for each in attack.threats:
        assert (found.budget[each.name] <= each.budget).all()
    if len(attack.threats) == 1 and attack.threats[0].name == "delta":
        change = (found.perturbed - found.images).flatten(1)
        size = change.norm(dim=1) if attack.threats[0].norm == "l2" else change.abs().amax(1)
        assert (size <= attack.threats[0].budget).all()
    assert found.perturbed.min() >= 0
    assert found.perturbed.max() <= 1
    assert (found.history[-1] < found.history[0]).all()


def test_the_result_is_measured_on_the_network_itself(net, pictures):
    found = sal.attack(net, pictures, pictures.roll(1, 0), steps=10)
    before, after = (sal.explain("gradient", net, each, found.targets).maps for each in (pictures, found.perturbed))
    aim = sal.explain("gradient", net, pictures.roll(1, 0)).maps
    assert torch.allclose(found.distance_to_original, cosine_distance(shares(before), shares(after)), atol=1e-4)
    assert torch.allclose(found.distance_to_target_after, cosine_distance(shares(after), shares(aim)), atol=1e-4)
    with net.frozen():
        assert torch.equal(found.class_kept, net.outputs(pictures).argmax(1) == net.outputs(found.perturbed).argmax(1))
    assert torch.allclose(found.ssim, sal.similarity("ssim", pictures, found.perturbed))


def test_alone_or_together_the_same(net, pictures):
    together = sal.attack(net, pictures, pictures.roll(1, 0), steps=5, method="smoothgrad:samples=3", seed=[1, 2, 3, 4])
    alone = sal.attack(net, pictures[2:3], pictures.roll(1, 0)[2:3], steps=5, method="smoothgrad:samples=3", seed=[3])
    assert torch.allclose(together.perturbed[2], alone.perturbed[0], atol=2e-3)
    assert torch.allclose(together.random_distance_to_original[2], alone.random_distance_to_original[0], rtol=0.02)
    again = sal.attack(net, pictures[2:3], pictures.roll(1, 0)[2:3], steps=5, method="smoothgrad:samples=3", seed=[3])
    assert torch.equal(alone.perturbed, again.perturbed)


def test_one_image_aimed_at_gives_every_image_the_map_it_has_alone(net, pictures):
    """The map aimed at was drawn once, by the first image's seed: the others' attacks depended on which image that was."""
    options = {"steps": 2, "method": "smoothgrad:samples=3"}
    together = sal.attack(net, pictures[:3], pictures[3:4], seed=[1, 2, 3], **options)
    alone = sal.attack(net, pictures[2:3], pictures[3:4], seed=[3], **options)
    assert torch.allclose(together.aim[2], alone.aim[0], rtol=1e-4)
    assert torch.allclose(together.distance_to_target_before[2], alone.distance_to_target_before[0], rtol=1e-4)
    assert not torch.allclose(together.aim[0], together.aim[2], rtol=1e-2)


@pytest.mark.parametrize("objective", ["top_k:share=0.1", "centre_of_mass"])
def test_untargeted(objective, net, pictures):
    found = sal.attack(net, pictures, objective=objective, steps=30)
    assert found.distance_to_target_after is None
    assert (found.distance_to_original > found.random_distance_to_original).float().mean() >= 0.5
    assert (found.history[-1] < found.history[0]).all()


def test_restarts_never_do_worse(net, pictures):
    one, three = (sal.attack(net, pictures, pictures.roll(1, 0), steps=8, restarts=restarts) for restarts in (1, 3))
    assert torch.equal(one.class_kept | three.class_kept, three.class_kept)
    kept = one.class_kept
    aim = shares(sal.explain("gradient", net, pictures.roll(1, 0)).maps)
    squared = [(shares(each.maps[1]) - aim).square().sum((1, 2)) for each in (one, three)]
    assert (squared[1] <= squared[0] * 1.001)[kept].all()


class Watched(sal.SmoothGrad):
    """SmoothGrad that notes which draws it was given, and whether by the attack itself."""

    seen: ClassVar[list] = []
    judged: ClassVar[list] = []

    def attribute(self, model, images, targets, streams):
        role = "attack" if model.tape is not None else "chooser" if len(images) < 4 else "judge"
        self.seen.append((role, {stream.key for stream in streams}))
        self.judged.append((self.samples, model.tape is None))
        return super().attribute(model, images, targets, streams)


def test_what_judges_an_attack_has_been_seen_neither_by_it_nor_by_what_chose_among_its_runs(net, pictures):
    Watched.seen.clear()
    net.chunk = 2  # the attack and what chooses among its runs see two images at a time
    sal.Attack(method=Watched(samples=2), restarts=2, steps=3).run(net, pictures, random_draws=1)
    draws = {role: set().union(*(keys for each, keys in Watched.seen if each == role)) for role in ("attack", "chooser", "judge")}
    assert {role: len(keys) for role, keys in draws.items()} == {"attack": 2 * 3, "chooser": 1, "judge": 1}
    assert not draws["attack"] & draws["judge"]
    assert not draws["attack"] & draws["chooser"]
    assert not draws["chooser"] & draws["judge"]


def test_the_draws_of_a_fixed_attack_are_those_it_saw(net, pictures):
    Watched.seen.clear()
    net.chunk = 2
    sal.Attack(method=Watched(samples=2), fixed=True, steps=3).run(net, pictures, seed=[1, 2, 3, 4], random_draws=0)
    assert set().union(*(keys for role, keys in Watched.seen if role == "attack")) == {stream.key for stream in fixed_draws(streams([1, 2, 3, 4], 4))}


def test_of_several_runs_one_that_keeps_the_class_is_taken(net, pictures, monkeypatch):
    """Even if another's map is nearer to the one aimed at."""
    with torch.no_grad():
        net.module.head.bias -= net.outputs(pictures).mean(0)  # or they would all have one class
    classes = net.outputs(pictures).argmax(1)
    first, other = pictures[:1], pictures[classes != classes[0]][:1]
    runs = iter([other, (first + 0.001).clamp(0, 1)])

    def prescribed(threats, images, start, loss, steps, tell):
        found = next(runs)
        return Descent(found, [found - images], torch.zeros(steps, len(images)), torch.zeros(len(images), dtype=torch.int64))

    monkeypatch.setattr("salience.attacks.attack.descend", prescribed)
    found = sal.Attack(restarts=2).run(net, first, sal.Gradient()(net, other, targets=classes[:1]), random_draws=0)
    assert found.class_kept.all()
    assert found.distance_to_target_after > 0.01  # what was left aside had reached it


def test_a_fixed_attack_draws_once_and_a_fresh_one_anew(net, pictures):
    losses = {}
    for fixed in (True, False):
        problem = problem_of(sal.Attack(method="smoothgrad:samples=2,noise_level=0.5", fixed=fixed), net, pictures, shares(torch.rand(4, 3, 17, 19)))
        with net.frozen():
            losses[fixed] = [problem.loss(pictures.clone().requires_grad_(True), step).detach() for step in (0, 1)]
    assert torch.equal(*losses[True])
    assert not torch.allclose(*losses[False])


def test_nothing_of_the_users_changes(net, pictures):
    net.module.train()
    net.module.head.weight.requires_grad_(False)
    state = {key: value.clone() for key, value in net.module.state_dict().items()}
    modes = [module.training for module in net.modules()]
    images, random = pictures.clone(), torch.get_rng_state()
    torch.set_flush_denormal(False)
    sal.attack(net, pictures, pictures.roll(1, 0), threat="delta+stadv+recolor", steps=2)
    assert all(torch.equal(value, state[key]) for key, value in net.module.state_dict().items())
    assert [module.training for module in net.modules()] == modes
    assert [parameter.requires_grad for parameter in net.module.parameters()][-2:] == [False, True]
    assert all(parameter.grad is None for parameter in net.module.parameters())
    assert torch.equal(pictures, images)
    assert torch.equal(torch.get_rng_state(), random)
    assert (torch.full((1,), 1e-38) * 0.1).item() > 0, "denormal numbers are flushed still"


def test_aims(net, pictures):
    """Images, their explanation and its map are the same aim: the map of the images' own class, not of that under attack."""
    with torch.no_grad():
        net.module.head.bias -= net.outputs(pictures).mean(0)  # or they would all have one class
    assert not torch.equal(net.outputs(pictures).argmax(1), net.outputs(pictures.roll(1, 0)).argmax(1))
    e = sal.explain("gradient", net, pictures.roll(1, 0))
    found = [sal.attack(net, pictures, aim, steps=2).aim for aim in (pictures.roll(1, 0), e, e.maps.abs().sum(1))]
    assert torch.allclose(found[0], found[1], atol=1e-6)
    assert torch.allclose(found[0], found[2], atol=1e-6)
    assert sal.attack(net, pictures, pictures[:1], steps=1).aim.shape == (4, 17, 19)


def test_a_study_can_perturb_by_an_attack(net, pictures):
    perturbation = sal.Perturbation.from_value("attack:threat=delta+stadv,steps=8")
    assert str(perturbation) == "attack:threat=delta+stadv,steps=8"
    view = net.using(score=net.named_score("logit"))
    targets = torch.tensor([0, 1, 2, 3])
    attacked = compared(sal.Gradient(), view, pictures, targets, streams(0, 4), perturbation)
    noise = compared(sal.Gradient(), view, pictures, targets, streams(0, 4), sal.UniformNoise())
    distances = [cosine_distance(*pair.raw) for pair in (attacked, noise)]
    assert distances[0].mean() > 0.02
    again = compared(sal.Gradient(), view, pictures, targets, streams(0, 4), perturbation, "as_is", changed=attacked.images)
    assert torch.equal(again.perturbed, attacked.perturbed)
    assert torch.equal(again.images, attacked.images)
    assert attacked.prediction_changed.shape == noise.prediction_changed.shape
    assert dataclasses.replace(perturbation, method=sal.Gradient()).aiming(False).objective == sal.TopK()


@pytest.mark.parametrize("method", ["random", "rise:samples=2"])
def test_a_method_that_cannot_be_attacked_has_no_such_number_in_a_study(net, pictures, method):
    """Every study has a control: its rows were called failed."""
    view = net.using(score=net.named_score("logit"))
    with pytest.raises(UndefinedError, match=r"^The maps of .* are not differentiable, so they cannot be attacked: "):
        compared(sal.Explainer.from_value(method), view, pictures, torch.tensor([0, 1, 2, 3]), streams(0, 4), sal.Perturbation.from_value("attack:steps=1"))


MISTAKES = {
    "An attack needs the gradients of the network: give it as sal.Model(module), not BlackBox.": lambda net, x: sal.attack(sal.BlackBox(lambda images: images.mean((2, 3)).softmax(1)), x, x),
    "The objective target_map needs something to aim at: give toward (images, maps or an explanation), or take the objective top_k or centre_of_mass.": lambda net, x: sal.attack(
        net, x, objective="target_map"
    ),
    "The objective top_k aims at no map: leave toward away, or take the objective target_map.": lambda net, x: sal.attack(net, x, x, objective="top_k"),
    "beta is one positive number, or two to grow from one to the other, not 1.0+2.0+3.0.": lambda net, x: sal.attack(net, x, x, beta=(1, 2, 3)),
    "There is no threat: give delta, stadv or recolor, or some of them joined by +.": lambda net, x: sal.attack(net, x, x, threat=()),
    "Unknown option of attack: 'bta': did you mean beta?": lambda net, x: sal.attack(net, x, x, bta=3),
    "toward is images, maps or an Explanation, not str: a file is read by sal.load_images([path], model).": lambda net, x: sal.attack(net, x, "a.png"),
    "toward has shape (3, 17, 19), which may be one image or 3 maps: give an image as (1, c, h, w), maps as (n, 1, h, w).": lambda net, x: sal.attack(net, x[:3], x[0]),
    "recolor changes colours, and these images are grey: use delta or stadv.": lambda net, x: sal.attack(simple(nn.ReLU, channels=1), x[:, :1], x[:, :1].roll(1, 0), threat="delta+recolor", steps=1),
    "The derivative of the maps of gradient is not finite at image 3, so they cannot be attacked: look in Rooted (or the method) for a division by 0, or a root or norm of 0, and keep it above 0.": (
        lambda net, x: sal.attack(sal.Model(Rooted(net.module)).using(chunk=2), blackened(x), x.roll(1, 0), steps=1)
    ),
    "The maps of gradient have no slope, since the activations of Sequential have no second derivative: write them as ReLU, ReLU6, LeakyReLU or PReLU, which an attack smooths.": (
        lambda net, x: sal.attack(simple(Largest), x, x.roll(1, 0), steps=1)
    ),
    "beta is one positive number, or two to grow from one to the other, not inf.": lambda net, x: sal.attack(net, x, x, beta=(float("inf"),)),
    "Each threat can be given once, not delta+delta: give one of them a larger budget.": lambda net, x: sal.attack(net, x, x, threat="delta+delta"),
    "Unknown threat 'detla': did you mean delta?": lambda net, x: sal.attack(net, x, x, threat="detla"),
    "An attack looks at the network and the method: use sal.attack(model, images, method=...), or name it as a perturbation in a study.": lambda net, x: sal.Attack()(x),
    "Explanations of networks with noise in their weights cannot be attacked: attack gradient, smoothgrad or another method without weight noise.": lambda net, x: sal.attack(
        net, x, x, method="noisegrad:weight_samples=2,weight_sigma=0.1", steps=1
    ),
    "The map to aim at has shape (1, 1, 3, 4): give one map, or one an image, of 17 x 19 pixels, finite and not all 0.": lambda net, x: sal.attack(net, x, torch.rand(1, 3, 4) - 0.5),
}


@pytest.mark.parametrize("sentence", MISTAKES)
def test_mistakes(sentence, net, pictures):
    with pytest.raises(sal.InputError) as error:
        MISTAKES[sentence](net, pictures)
    assert str(error.value) == sentence


@pytest.mark.parametrize(
    "method", ["rise:samples=4", "occlusion", "random", "smoothgrad:samples=2,base=(rise:samples=4)", "guided_backprop", "deconvnet", "smoothgrad:samples=2,base=(guided_backprop)"]
)
def test_methods_without_a_derivative_say_so(method, net, pictures):
    with pytest.raises(sal.InputError, match=r"^The maps of .* are not differentiable, so they cannot be attacked: take gradient, "):
        sal.attack(net, pictures, pictures.roll(1, 0), method=method, steps=1)


def test_the_best_of_several_runs_is_taken_however_close_they_are(net, pictures, monkeypatch):
    """Every run changes each picture by noise of a prescribed, hardly different size."""
    noise = torch.randn(pictures.shape, generator=torch.Generator().manual_seed(3))
    made = [(pictures + size * noise).clamp(0, 1) for size in (0.0031, 0.003, 0.0032, 0.0029)]
    runs = iter(made)

    def prescribed(threats, images, start, loss, steps, tell):
        found = next(runs)
        return Descent(found, [found - images], torch.zeros(steps, len(images)), torch.zeros(len(images), dtype=torch.int64))

    monkeypatch.setattr("salience.attacks.attack.descend", prescribed)
    found = sal.Attack(objective="top_k", restarts=4).run(net, pictures, random_draws=0)
    clean, objective = sal.Gradient()(net, pictures), sal.TopK()
    assert found.class_kept.all()
    values = torch.stack([objective.loss(shares(sal.Gradient()(net, each, targets=found.targets).maps), shares(clean.maps), None) for each in made])
    assert values.max() - values.min() < 1 / 32
    assert values.argmin(0).unique().tolist() != [0]
    assert torch.equal(found.perturbed, torch.stack(made)[values.argmin(0), torch.arange(len(pictures))])


@pytest.mark.parametrize("budget", [3e-5, 0.001, 1 / 255, 0.1])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_finished_image_is_within_the_budget_in_double_precision(budget, norm, pictures):
    threat = sal.Delta(budget=budget, norm=norm)
    changed, _ = composed([threat], pictures, [torch.randn(pictures.shape, generator=torch.Generator().manual_seed(0))])
    change = (changed.double() - pictures.double()).flatten(1)
    used = change.abs().amax(1) if norm == "linf" else change.norm(dim=1)
    assert (used <= budget).all()
    assert (used >= 0.9 * budget).all()


@pytest.mark.parametrize("threat", ["delta", "stadv", "recolor", "recolor+stadv+delta"])
def test_what_is_reported_is_what_was_applied(threat, net, pictures):
    """The parameters of the finished run make the finished images, to the last digit."""
    attack = sal.Attack(threat=threat, steps=3)
    found = descend(attack.threats, pictures, [each.start(pictures) for each in attack.threats], problem_of(attack, net, pictures, None).loss, 3, lambda done: None)
    images = pictures
    for each, values in zip(attack.threats, found.parameters, strict=True):
        images = each.apply(images, values)
    assert torch.equal(images, found.images)


def test_pixels_that_rounding_put_outside_do_not_use_up_the_budget(net, pictures):
    images = pictures.clone()
    images[0, 0, 0, :2] = torch.tensor([-0.0009, 1.0009])
    found = sal.attack(net, images, pictures.roll(1, 0), steps=2, threat="delta:budget=0.0005")
    assert torch.equal(found.images, images.clamp(0, 1))
    assert (found.perturbed - found.images).abs().max() <= 0.0005


def test_images_made_in_inference_mode_can_be_attacked_and_aimed_at(net, pictures):
    attack = sal.Attack(steps=2)
    expected = attack.run(net, pictures, pictures.roll(1, 0), random_draws=1)
    with torch.inference_mode():
        images, aim = pictures.clone(), pictures.roll(1, 0)
        inside = attack.run(net, images, aim, random_draws=1)
    outside = attack.run(net, images, aim, random_draws=1)
    for found in (inside, outside):
        assert torch.equal(found.perturbed, expected.perturbed)


def test_several_images_at_once_or_in_parts_come_out_alike(net, pictures):
    """Each part has its own targets, maps and aims: with one image at a time none is another's."""
    targets, seeds = [3, 2, 1, 0], [1, 2, 3, 4]
    whole, parts = (sal.Attack(steps=4, restarts=2).run(net.using(chunk=chunk), pictures, pictures.roll(1, 0), targets, seed=seeds, random_draws=1) for chunk in (4, 1))
    assert torch.allclose(whole.perturbed, parts.perturbed, atol=2e-3)
    assert torch.allclose(whole.distance_to_target_after, parts.distance_to_target_after, atol=0.02)
    assert torch.allclose(whole.history, parts.history, rtol=0.02, atol=1e-3)
    assert torch.allclose(whole.budget["delta"], parts.budget["delta"], atol=1e-5)


def test_what_chooses_among_runs_looks_at_the_class_explained_of_each_image(net, pictures):
    targets = torch.tensor([3, 2, 1, 0])
    judge = Judge(net, sal.Gradient(), targets, streams([1, 2, 3, 4], 4))
    chooser = judge.chooser(slice(1, 3))
    assert torch.equal(chooser.targets, targets[1:3])
    assert [stream.key for stream in chooser.streams] == [(2,), (3,)]
    assert torch.allclose(chooser.maps(pictures[1:3]), net.gradient(pictures[1:3], targets[1:3]), atol=1e-5)


def test_threats_are_applied_in_their_order_whatever_was_written():
    for text in ("delta+stadv+recolor", "stadv+recolor+delta", "recolor+stadv+delta"):
        assert [each.name for each in sal.Attack(threat=text).threats] == ["recolor", "stadv", "delta"]


def test_progress_counts_the_steps_of_all_runs_and_parts(net, pictures):
    told = []
    sal.Attack(steps=2, restarts=3).run(net.using(chunk=2), pictures, random_draws=0, progress=lambda done, total: told.append((done, total)))
    assert told == [(count, 12) for count in range(1, 13)]
    told.clear()
    sal.Attack(steps=2).run(net, pictures, random_draws=3, progress=lambda done, total: told.append((done, total)))
    assert told == [(count, 5) for count in range(1, 6)]  # judging random changes is counted too


@pytest.mark.parametrize("objective", ["top_k:share=0.1", "centre_of_mass"])
def test_what_was_made_small_is_reported(net, pictures, objective):
    """Of an attack without an aim only the distance to the map before was told, which it does not work on."""
    found = sal.Attack(objective=objective, steps=8, threat=(sal.Delta(budget=0.1),)).run(net, pictures, random_draws=3)
    clean, maps = (shares(each) for each in found.maps)
    for value, each in zip((found.objective_before, found.objective_after), (clean, maps), strict=True):
        assert torch.allclose(value, found.attack.objective.loss(each, clean, None), atol=1e-6)
    assert (found.objective_after < found.objective_before).all()
    assert (found.objective_after.mean() < found.random_objective.mean()).all()


def test_the_probabilities_and_the_flow_are_those_of_the_class_explained_and_of_the_moving_threat(net, pictures):
    targets = torch.tensor([3, 2, 1, 0])
    found = sal.Attack(threat="delta+stadv", steps=2).run(net, pictures, pictures.roll(1, 0), targets, random_draws=0)
    for images, probability, predicted in zip((pictures, found.perturbed), (found.probability_before, found.probability_after), found.predictions, strict=True):
        outputs = net.outputs(images)
        assert torch.allclose(probability, outputs.softmax(1).gather(1, targets[:, None])[:, 0], atol=1e-5)
        assert torch.equal(predicted, outputs.argmax(1))
    assert found.flow.shape == (4, 17, 19, 2)
    assert torch.equal(found.flow.flatten(1).abs().amax(1), found.budget["stadv"])
    assert sal.Attack(steps=1).run(net, pictures, random_draws=0).flow is None


def test_a_network_in_training_mode_is_attacked_as_it_is_in_use(net, pictures):
    """Also where the method does not tell its outputs, so that the network is asked for them."""
    attack = sal.Attack(method="beta_smoothing", steps=2)
    expected = attack.run(net, pictures, pictures.roll(1, 0), random_draws=0)
    net.module.train()
    state = {key: value.clone() for key, value in net.module.state_dict().items()}
    found = attack.run(net, pictures, pictures.roll(1, 0), random_draws=0)
    assert torch.equal(found.perturbed, expected.perturbed)
    assert all(torch.equal(value, state[key]) for key, value in net.module.state_dict().items())


def test_denormal_numbers_stay_flushed_where_they_were(net, pictures):
    try:
        torch.set_flush_denormal(True)
        sal.attack(net, pictures, steps=1)
        assert (torch.full((1,), 1e-38) * 0.1).item() == 0
    finally:
        torch.set_flush_denormal(False)


def test_perceptual_distance_is_null_only_where_it_cannot_be_had(net, pictures, monkeypatch):
    def found():
        larger = {name: getattr(whole, name).repeat(1, 1, 4, 4) for name in ("images", "perturbed")}
        return dataclasses.replace(whole, **larger, maps=tuple(each.repeat(1, 1, 4, 4) for each in whole.maps), aim=whole.aim if whole.aim is None else whole.aim.repeat(1, 4, 4))

    whole = sal.Attack(steps=1).run(net, pictures, random_draws=0)
    monkeypatch.setattr(LPIPS, "file", lambda self: Path("weights.pth"))
    monkeypatch.setattr(LPIPS, "compare", lambda self, first, second: (first - second).abs().flatten(1).sum(1))
    large = found()
    assert torch.allclose(large.lpips, (large.images - large.perturbed).abs().flatten(1).sum(1))
    assert min(whole.images.shape[-2:]) < 32
    assert whole.lpips is None

    def fails(*_):
        raise sal.InputError("This file is damaged.")

    monkeypatch.setattr(LPIPS, "compare", fails)
    with pytest.raises(sal.InputError, match="damaged"):
        _ = found().lpips
    monkeypatch.setattr(LPIPS, "file", fails)
    assert found().lpips is None


def test_arrays_are_images_as_tensors_are(net, pictures):
    aims = [sal.attack(net, pictures, each, steps=1).aim for each in (pictures.roll(1, 0), pictures.roll(1, 0).numpy())]
    assert torch.equal(*aims)


def test_a_fall_from_nothing_is_undefined(net, pictures):
    found = sal.attack(net, pictures[:1], pictures[:1], steps=1)
    assert found.fall.isnan().all()
    assert found.random_fall.isnan().all()


def test_a_fixed_attack_is_also_judged_on_its_own_draws(net, pictures):
    method, aim = sal.SmoothGrad(samples=3), pictures.roll(1, 0)
    found = sal.attack(net, pictures, aim, method=method, fixed=True, steps=15, seed=[1, 2, 3, 4])
    maps = method.attribute(net, found.perturbed, found.targets, [stream.at(0, "attack", 0) for stream in streams([1, 2, 3, 4], 4)]).maps
    assert torch.allclose(found.own_draws, cosine_distance(shares(maps), found.aim), atol=1e-5)
    assert found.own_draws.mean() < found.distance_to_target_after.mean()
    assert sal.attack(net, pictures, aim, method=method, steps=1).own_draws is None
    assert sal.attack(net, pictures, aim, fixed=True, steps=1).own_draws is None


def test_the_sharpness_is_in_the_networks_units():
    """A network that takes 0 to 255 has activations some fifty times as large, for which beta 100 would be a ReLU again."""
    usual, large = sal.Model(nn.Identity(), std=(0.2, 0.2, 0.2)), sal.Model(nn.Identity(), mean=(104.0, 117.0, 123.0), value_range=255)
    assert units(usual) == 1.0
    assert units(large) == pytest.approx(1 / (0.2 * 255))


@pytest.mark.parametrize("beta", [(3.0,), (2.0, 50.0)])
@pytest.mark.parametrize(
    "method", ["gradient", "input_x_gradient", "smoothgrad:samples=2,sigma=0.1", "gradcam", "beta_smoothing:beta=0.8", "beta_smoothing:beta=0.8,base=(smoothgrad:samples=2,sigma=0.1)"]
)
def test_the_outputs_under_constraint_are_those_of_the_network_under_attack(method, beta, net, pictures):
    """The term is 0 for an image as it is, and otherwise the change of the softmax, whatever network the method explains."""
    problem = problem_of(sal.Attack(method=method, beta=beta, output_weight=2.0, steps=5), net, pictures, shares(torch.rand(4, 3, 17, 19)))
    alone = dataclasses.replace(problem, attack=dataclasses.replace(problem.attack, output_weight=0.0))
    other = pictures**4
    with net.frozen():
        for step in (0, 3):
            terms = []
            for images in (pictures, other):
                at = images.clone().requires_grad_(True)
                term = problem.loss(at, step) - alone.loss(at, step)
                assert torch.autograd.grad(term.sum(), at)[0].isfinite().all()
                terms.append(term.detach())
            with ReplaceReLU(lambda inputs, ceiling, step=step: softplus(inputs, ceiling, problem.beta(step))):
                before, after = (net.outputs(images).softmax(1) for images in (pictures, other))
            assert terms[0].abs().max() < 1e-5
            assert torch.allclose(terms[1], 2 * (after - before).square().sum(1), rtol=1e-2, atol=1e-5)
            assert terms[1].max() > 1e-3


def test_beta_grows_geometrically_in_the_networks_units(net, pictures):
    problem = problem_of(sal.Attack(beta=(10, 1000), steps=5), net, pictures, None)
    assert [problem.beta(step) for step in range(5)] == pytest.approx([10, 31.6228, 100, 316.228, 1000], rel=1e-5)
    large = dataclasses.replace(problem, view=sal.Model(nn.Identity(), mean=(104.0, 117.0, 123.0), value_range=255))
    assert large.beta(2) == pytest.approx(100 / 51)
    constant = problem_of(sal.Attack(steps=1), net, pictures, None)
    assert constant.beta(0) == 100


def test_the_defaults_are_the_authors_constants():
    """A = 1e11 and B = 1e5 (ImageNet) weigh means over 224 x 224 pixels and 1000 classes, 0.05 the penalties; ours weigh sums, the objective in units of h w."""
    pixels, classes = 224 * 224, 1000
    unit = 1e11 / pixels / pixels
    assert sal.Attack().output_weight == pytest.approx(1e5 / classes / unit, rel=0.01)
    assert [each.weight for each in sal.Attack(threat="stadv+recolor").threats] == pytest.approx([0.05 / unit] * 2, rel=0.01)
    budgets = {each.name: each.budget for each in sal.Attack(threat="delta+stadv+recolor").threats}
    assert budgets == {"recolor": 0.06, "stadv": 0.05, "delta": 0.03}


def test_runs_from_the_second_on_begin_at_random_changes_of_full_strength(net, pictures, monkeypatch):
    starts = []

    def noted(threats, images, start, loss, steps, tell):
        starts.append(start)
        return Descent(images, start, torch.zeros(steps, len(images)), torch.zeros(len(images), dtype=torch.int64))

    monkeypatch.setattr("salience.attacks.attack.descend", noted)
    attack = sal.Attack(threat="delta+stadv", restarts=3, steps=1)
    attack.run(net, pictures, random_draws=0)
    used = torch.tensor([[threat.used(values).min() / threat.budget for threat, values in zip(attack.threats, start, strict=True)] for start in starts])
    assert used[0].eq(0).all()
    assert (used[1:] > 0.9).all()
    assert not torch.equal(starts[1][0], starts[2][0])


def test_random_changes_are_twenty_different_ones_and_their_median_counts(net, pictures, monkeypatch):
    images, calls = [], []

    def noted(threats, images_, parameters):
        images.append(composed(threats, images_, parameters)[0])
        return images[-1], parameters

    def tenfold(maps, clean, aim):
        calls.append(maps)
        return {"original": torch.full((4,), float(len(calls)) ** 2)}

    monkeypatch.setattr("salience.attacks.attack.composed", noted)
    monkeypatch.setattr("salience.attacks.attack.distances", tenfold)
    found = sal.attack(net, pictures, steps=1)
    assert len(calls) == 20 + 1
    assert torch.allclose(found.random_distance_to_original, torch.full((4,), (100.0 + 121.0) / 2))
    random = [each for each in images[-20:] if (each - pictures).abs().amax() > 0.02]  # the whole budget, that is
    assert len({each.numpy().tobytes() for each in random}) == 20


@pytest.mark.parametrize(("wrapped", "samples", "judged"), [(False, 3, 50), (True, 3, 50), (True, 60, 60)])
def test_random_methods_are_judged_by_fifty_draws_wherever_they_draw(wrapped, samples, judged, net, pictures):
    Watched.judged.clear()
    method = Watched(samples=samples, sigma=0.1)
    found = sal.Attack(method=sal.BetaSmoothing(base=method) if wrapped else method, steps=1, fixed=True).run(net, pictures, random_draws=1)
    assert {count for count, judge in Watched.judged if not judge} == {samples}
    assert {count for count, judge in Watched.judged if judge} == {judged, samples}  # on its own draws it is judged by those
    assert found.own_draws is not None


def test_the_map_aimed_at_is_made_of_other_draws_than_those_that_judge(net, pictures):
    Watched.seen.clear()
    sal.Attack(method=Watched(samples=2), steps=1).run(net, pictures, pictures.roll(1, 0), random_draws=0)
    before, aim, after = (keys for role, keys in Watched.seen if role == "judge" and next(iter(keys))[-1] != "choice")
    assert before == after
    assert not aim & before


def test_denormal_numbers_are_flushed_inside(net, pictures, monkeypatch):
    seen = []

    def noted(threats, images, *rest):
        seen.append((torch.full((1,), 1e-38) * 0.1).item())
        return descend(threats, images, *rest)

    monkeypatch.setattr("salience.attacks.attack.descend", noted)
    torch.set_flush_denormal(False)
    sal.attack(net, pictures, steps=1)
    sal.Attack(steps=1).against(sal.Gradient(), net.using(score=net.named_score("logit")), pictures, torch.arange(4), streams(0, 4))
    assert seen == [0.0, 0.0]


@pytest.mark.parametrize("activation", [nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, lambda: nn.Threshold(0, 0), nn.SiLU])
def test_networks_of_many_activations_can_be_attacked(activation, pictures):
    found = sal.attack(simple(activation), pictures, pictures.roll(1, 0), steps=30)
    assert found.fall.median() > 0.1
    assert found.fall.median() > 2 * found.random_fall.median()


def test_a_differentiable_function_is_attacked_as_the_method_that_it_is(net, pictures):
    def mine(model, images, targets):
        return model.gradient(images, targets)

    found = [sal.attack(net, pictures, pictures.roll(1, 0), method=method, steps=5).perturbed for method in (mine, "gradient")]
    assert torch.allclose(*found, atol=1e-4)
    weighted = sal.Explainer.from_value(lambda model, images, targets: images.mean(1) * next(model.parameters()).sum())
    assert not weighted.attribute(net, pictures, torch.arange(4), streams(0, 4)).maps.requires_grad  # nobody asked for it
    with pytest.raises(sal.InputError, match=r"^The maps of scored are not differentiable, so they cannot be attacked: take gradient, "):
        sal.attack(net, pictures, pictures.roll(1, 0), method=scored, steps=1)


def scored(model, images, targets):
    return images.new_ones(len(images), *images.shape[-2:]) * model.target_scores(images, targets)[:, None, None]


def test_steps_without_a_finite_gradient_are_said_and_counted(net, pictures, monkeypatch):
    loss = Problem.loss

    def blind_at_times(self, images, step):
        return loss(self, images, step) + (0 if step == 0 else torch.stack([(0 * images[0]).sqrt().sum(), *torch.zeros(len(images) - 1)]))

    monkeypatch.setattr(Problem, "loss", blind_at_times)
    sentence = r"^In 4 of 6 steps a part of the gradient was not finite at 2 of 4 image\(s\), and was taken for 0: the attack is weaker than it could be, so do not call these maps robust\.$"
    with pytest.warns(UserWarning, match=sentence) as warned:
        found = sal.Attack(steps=3, restarts=2).run(net.using(chunk=2), pictures, random_draws=0)
    assert len(warned) == 1
    assert found.blind.tolist() == [4, 0, 4, 0]
    assert [row_of(found, index)["blind_steps"] for index in (0, 1)] == [4, 0]


def test_a_black_ground_is_no_shelter():
    """Nothing of it ever changed, so that the maps of digits on black looked robust: random changes of that budget moved them further."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [nn.Conv2d(1, 8, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 5, padding=2), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 49, 10)]
        model = sal.Model(nn.Sequential(*layers), channels="L", size=14)
        images = torch.zeros(2, 1, 14, 14)
        images[:, :, 4:10, 6:9] = 0.1 + 0.8 * torch.rand(2, 1, 6, 3)
    found = sal.attack(model, images, steps=40)
    assert (found.distance_to_original > found.random_distance_to_original).all()
    assert ((found.perturbed - images)[:, :, :4] > 0).any()


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
def test_relus_in_a_script_are_refused_since_they_would_not_be_smoothed(pictures):
    """The attack was weaker for it, and said nothing."""
    script = torch.jit.script(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()))
    network = sal.Model(nn.Sequential(script, nn.Conv2d(4, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)))
    with pytest.raises(sal.InputError, match=r"^Sequential has ReLUs in TorchScript, which cannot be replaced"):
        sal.attack(network, pictures, steps=1)


def test_a_function_is_not_taken_for_the_method_of_its_name(net, pictures):
    """A gradient that its user calls rise was said not to be differentiable."""

    def rise(model, images, targets):
        return model.gradient(images, targets)

    found = sal.attack(net, pictures[:1], pictures[1:2], method=rise, steps=3, seed=1)
    assert found.fall.item() > 0
