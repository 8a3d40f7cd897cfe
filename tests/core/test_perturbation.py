"""What all perturbations promise, over the registry."""

import numpy as np
import pytest
import torch

from salience.core import registry, spec
from salience.core.errors import InputError
from salience.core.perturbation import Perturbation

NAMES = [name for name, entry in registry.entries("perturbation").items() if not entry.facts.get("needs_model")]
GEOMETRIC = [name for name in NAMES if registry.entries("perturbation")[name].facts["geometric"]]


def build(name) -> Perturbation:
    return spec.build("perturbation", name)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (1, 1, 11, 13), (3, 3, 2, 1), (1, 3, 1, 1)])
def test_images_in_images_out(name, shape):
    images = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    before = images.clone()
    state = torch.get_rng_state()
    changed = build(name)(images, seed=3)
    assert changed.shape == images.shape
    assert changed.dtype == torch.float32
    assert changed.min() >= 0
    assert changed.max() <= 1 + 1e-6
    assert torch.equal(images, before)
    assert torch.equal(torch.get_rng_state(), state)
    assert build(name).visible(shape[-2:]).dtype == torch.bool


@pytest.mark.parametrize("name", NAMES)
def test_each_image_by_itself_and_by_its_seed(name):
    images = torch.rand(3, 3, 11, 13, generator=torch.Generator().manual_seed(0))
    together = build(name)(images, seed=[4, 5, 4])
    alone = torch.cat([build(name)(images[i : i + 1], seed=seed) for i, seed in enumerate((4, 5, 4))])
    assert torch.equal(together, alone)
    other = build(name)(images, seed=6)
    assert torch.equal(other, together) != registry.entries("perturbation")[name].facts["stochastic"]


@pytest.mark.parametrize("name", GEOMETRIC)
def test_geometric_ones_are_linear_and_can_be_undone(name):
    """They are applied to noisy images outside [0, 1] too, so they must not clamp."""
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 2, 3, 11, 13, generator=generator)
    perturbation = build(name)
    mixed = perturbation.apply(2 * first - 3 * second, ())
    assert torch.allclose(mixed, 2 * perturbation.apply(first, ()) - 3 * perturbation.apply(second, ()), atol=1e-5)
    rows, columns = torch.arange(11.0)[:, None], torch.arange(13.0)
    smooth = (0.3 * rows + 0.2 * columns).expand(1, 1, 11, 13)  # bilinear steps leave a plane as it is
    visible = perturbation.visible((11, 13))
    assert visible.float().mean() > 0.5
    assert torch.allclose(perturbation.undo(perturbation.apply(smooth, ()))[0, 0, 2:-2, 2:-2], smooth[0, 0, 2:-2, 2:-2], atol=1e-4)
    assert (perturbation.undo(torch.ones(1, 1, 11, 13))[0, 0][~visible] <= 0.999).all()


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(GEOMETRIC)))
def test_the_others_leave_maps_in_place(name):
    maps = torch.randn(2, 1, 5, 7)
    assert build(name).undo(maps) is maps
    assert build(name).visible((5, 7)).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("images", "sentence"), [(torch.rand(3, 5, 7), "give a single image as"), (torch.rand(2, 3, 5, 7) * 255, r"must lie in \[0, 1\]"), (np.zeros((2, 3, 5, 7)), "torch.from_numpy")]
)
def test_images_that_are_none(name, images, sentence):
    with pytest.raises(InputError, match=sentence):
        build(name)(images)


def test_text_and_objects():
    from salience.perturbations.rotation import Rotation

    assert str(build("rotation:degrees=5")) == "rotation:degrees=5.0"
    assert Perturbation.from_value(Rotation) == Perturbation.from_value("rotation") == Rotation()
    with pytest.raises(InputError, match=r"^A perturbation is a name such as 'gaussian_blur', or a perturbation such as sal.GaussianNoise\(sigma=0.1\), not int.$"):
        Perturbation.from_value(3)
    with pytest.raises(InputError, match=r"^Unknown perturbation 'rotatoin': did you mean rotation?"):
        Perturbation.from_value("rotatoin")
