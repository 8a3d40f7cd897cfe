"""What all threats promise, over the registry, and what each does exactly."""

import pytest
import torch

from salience.core import registry, spec
from salience.core.draws import streams
from salience.core.errors import InputError
from salience.core.threat import Threat, Threats, list_threats

NAMES = list_threats()


def draw(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def images():
    return torch.rand(3, 3, 11, 13, generator=draw(0))


def build(name: str) -> Threat:
    return spec.build("threat", name)


@pytest.mark.parametrize("name", NAMES)
class TestAll:
    def test_start_changes_nothing(self, name, images):
        threat = build(name)
        assert (threat.apply(images, threat.start(images)) - images).abs().max() < 2e-5
        assert threat.used(threat.start(images)).eq(0).all()

    def test_projected_parameters_keep_to_the_budget_and_projecting_twice_is_once(self, name, images):
        threat = build(name)
        wild = 10 * threat.budget * torch.randn(threat.start(images).shape, generator=draw(1))
        inside = threat.project(images, wild)
        assert (threat.used(inside) <= threat.budget).all()
        assert (threat.used(inside) > 0.9 * threat.budget).all()
        assert torch.allclose(threat.project(images, inside), inside, atol=1e-4)
        changed = threat.apply(images, inside)
        assert changed.shape == images.shape
        assert changed.min() >= 0
        assert changed.max() <= 1

    def test_random_change_uses_the_budget_and_depends_on_the_seed_alone(self, name, images):
        threat = build(name)
        found = threat.random(images, streams([3, 4, 3], 3))
        assert (threat.used(found) <= threat.budget).all()
        assert (threat.used(found) > 0.9 * threat.budget).all()
        assert torch.equal(threat.random(images[1:2], streams(4, 1)), found[1:2])
        assert not torch.equal(found[0], found[1])

    def test_gradients_of_image_and_penalty_are_right(self, name):
        """Finite differences in a random direction, in double precision."""
        threat, images = build(name), 0.2 + 0.6 * torch.rand(1, 3, 7, 5, generator=draw(2), dtype=torch.float64)
        start = threat.start(images).double()
        parameters = 0.3 * threat.budget * torch.randn(start.shape, generator=draw(3), dtype=torch.float64)
        direction = torch.randn(start.shape, generator=draw(4), dtype=torch.float64)
        weights = torch.rand(images.shape, generator=draw(5), dtype=torch.float64)

        def value(at: torch.Tensor) -> torch.Tensor:
            return (threat.apply(images, at) * weights).sum() + threat.penalty(at).sum()

        at = parameters.clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(value(at), at)
        step = 1e-6 * threat.budget
        slope = (value(parameters + step * direction) - value(parameters - step * direction)) / (2 * step)
        assert slope.item() == pytest.approx((gradient * direction).sum().item(), rel=2e-3)

    def test_penalty_of_a_smooth_change_is_less_than_of_a_rough_one(self, name, images):
        threat = build(name)
        rough = threat.budget * torch.randn(threat.start(images).shape, generator=draw(6))
        assert (threat.penalty(torch.ones_like(rough) * threat.budget) <= threat.penalty(rough)).all()
        assert (threat.penalty(rough) > 0).all() == (threat.weight > 0)


def test_delta_in_both_norms(images):
    for name, size in (("delta:budget=0.1", lambda change: change.abs().amax((1, 2, 3))), ("delta:budget=0.7,norm=l2", lambda change: change.flatten(1).norm(dim=1))):
        threat = build(name)
        changed = threat.apply(images, threat.project(images, 5 * torch.randn(images.shape, generator=draw(1))))
        assert (size(changed - images) <= threat.budget).all()
        assert (size(changed - images) > 0.9 * threat.budget).all()


def test_random_changes_of_delta():
    """The budget with either sign in every value; or a direction without a preferred sign, of the budget's length in every image."""
    grey = torch.full((3, 3, 11, 13), 0.5)
    signs = build("delta:budget=0.1").random(grey, streams([1, 2, 3], 3))
    assert torch.allclose(signs.abs(), torch.full_like(signs, 0.1), rtol=1e-4)
    long = build("delta:budget=0.7,norm=l2").random(grey, streams([1, 2, 3], 3))
    assert long.flatten(1).norm(dim=1).tolist() == pytest.approx([0.7] * 3, rel=1e-3)
    for drawn in (signs, long):
        assert 0.4 < (drawn > 0).float().mean() < 0.6


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_random_change_of_black_and_white_uses_the_budget(norm):
    """Half of it went into clamping, so that attacks were compared with less than their budget."""
    images = (torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    threat = Threat.from_value(f"delta:budget=0.2,norm={norm}")
    change = threat.random(images, streams(0, 2))
    assert threat.used(change).tolist() == pytest.approx([0.2] * 2, rel=1e-3)
    assert (change.abs() > 0).all()
    assert ((images + change - 0.5).abs() <= 0.5).all()


@pytest.mark.parametrize("name", ["delta", "recolor"])
def test_black_and_white_pixels_can_be_changed(name):
    """At the ends themselves torch's clamp has no gradient, so that no attack ever left them."""
    threat = Threat.from_value(name)

    def gradient(value):
        images = torch.full((1, 3, 2, 2), value)
        parameters = threat.start(images).requires_grad_(True)
        changed = threat.apply(images, parameters)
        assert torch.allclose(changed, images, atol=1e-5)
        return torch.stack([torch.autograd.grad(changed[0, channel].sum(), parameters, retain_graph=True)[0].abs().sum() for channel in range(3)])

    torch.testing.assert_close(gradient(1.0), gradient(0.999), rtol=0.01, atol=1e-3)
    assert (gradient(0.0) > 0.1).all()


def test_a_step_in_euclidean_length_is_shared_among_the_values(images):
    assert build("delta:budget=0.7,norm=l2,rate=0.1").step(images) == pytest.approx(0.07 / (3 * 11 * 13) ** 0.5)
    assert build("delta:budget=0.7,rate=0.1").step(images) == pytest.approx(0.07)


def test_flow_never_looks_outside_the_picture(images):
    from salience.perturb.flow import identity

    inside = build("stadv:budget=0.5").project(images, torch.full((3, 11, 13, 2), 0.4))
    assert (identity(images) + inside).abs().max() <= 1
    assert inside[:, 5, 6].flatten().tolist() == pytest.approx([0.4] * 6)


def test_the_penalty_of_a_flow_is_about_its_neighbours(images):
    """A flow that is the same along a row is rough only across rows."""
    flow = torch.zeros(1, 11, 13, 2)
    flow[:, 4:] = 0.03
    assert build("stadv").penalty(flow).item() == pytest.approx(2 * 13 * 0.03 * 2**0.5, rel=0.02)


@pytest.mark.parametrize("name", ["stadv", "recolor"])
def test_random_changes_are_smooth(name):
    """Far smoother than independent numbers of the same size."""
    threat, images = build(name), torch.full((3, 3, 48, 64), 0.5)
    found = threat.random(images, streams([1, 2, 3], 3))
    shuffled = found.flatten(1)[:, torch.randperm(found[0].numel(), generator=draw(0))].view(found.shape)
    assert (threat.penalty(found) < 0.5 * threat.penalty(shuffled)).all()


def test_recolor_refuses_grey_pictures():
    with pytest.raises(InputError, match=r"^recolor changes colours, and these images are grey: use delta or stadv\.$"):
        build("recolor").start(torch.rand(1, 1, 4, 4))


def test_recolor_changes_colours_on_the_authors_lattice_and_none_leaves_it(images):
    threat = build("recolor:budget=0.3")
    assert threat.start(images).shape == (3, 3, 16, 32, 32)
    inside = threat.project(images, torch.full((3, 3, 16, 32, 32), -1.0))
    axis = torch.linspace(0, 1, 16)
    assert torch.allclose(inside[0, 0, :, 0, 0], -axis.clamp(max=0.3), atol=1e-5)  # a colour of lightness 0.1 can lose 0.1
    assert torch.allclose(inside[0, 1, 0, :, 0], -torch.linspace(0, 1, 32).clamp(max=0.3), atol=1e-5)


def test_threats_from_text_and_other_things():
    assert Threats.from_value("(delta:budget=0.05)+stadv") == (build("delta:budget=0.05"), build("stadv"))
    assert Threat.from_value(registry.entries("threat")["stadv"].cls) == build("stadv")
    with pytest.raises(InputError, match=r"^A threat is a name such as 'delta', or a threat such as "):
        Threat.from_value(3)
