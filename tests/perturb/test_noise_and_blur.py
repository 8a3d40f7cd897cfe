"""How strong noise is, and what a blur is."""

import pytest
import torch
from scipy.ndimage import gaussian_filter

from salience.perturb.blur import gaussian_blur
from salience.perturb.noise import strength


def test_a_level_is_a_share_of_each_images_own_range():
    images = torch.rand(3, 3, 5, 7, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 0.5, 0.1]).view(3, 1, 1, 1)
    own = torch.stack([0.3 * (image.max() - image.min()) for image in images])
    assert strength(images, 0.3, None).flatten().tolist() == pytest.approx(own.tolist())
    assert strength(images, None, None).flatten().tolist() == pytest.approx((0.2 / 0.3 * own).tolist())
    assert strength(images, None, 0.07).flatten().tolist() == pytest.approx([0.07] * 3)


@pytest.mark.parametrize("sd", [0.7, 2.0])
def test_a_blur_is_scipys(sd):
    images = torch.rand(2, 3, 11, 13, generator=torch.Generator().manual_seed(1))
    expected = gaussian_filter(images.double().numpy(), sd, axes=(2, 3), mode="nearest", radius=max(1, int(-(-4 * sd // 1))))
    assert torch.allclose(gaussian_blur(images, sd).double(), torch.from_numpy(expected), atol=1e-5)
