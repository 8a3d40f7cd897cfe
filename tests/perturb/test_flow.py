"""Spatial flow."""

import pytest
import torch

from salience.perturb.flow import TINY, moved, roughness


def test_a_flow_of_whole_pixels_shifts_the_image():
    images = torch.rand(2, 3, 6, 9)
    flow = torch.zeros(2, 6, 9, 2)
    flow[..., 0], flow[..., 1] = 2 * 2 / 8, 1 * 2 / 5  # two pixels to the right, one down
    assert torch.allclose(moved(images, flow)[:, :, :5, :7], images[:, :, 1:, 2:], atol=1e-5)


def test_what_comes_into_view_repeats_the_edge():
    images = 0.5 + 0.5 * torch.rand(1, 3, 6, 9)
    flow = torch.zeros(1, 6, 9, 2)
    flow[..., 0] = 2 * 3 / 8
    assert torch.allclose(moved(images, flow)[:, :, :, 6:], images[:, :, :, 8:].expand(-1, -1, -1, 3), atol=1e-5)


def test_roughness_is_the_sum_over_all_neighbours():
    """As plain loops: each point and its neighbours along the axes, the edge repeated."""
    field = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    expected = torch.zeros(2, dtype=torch.float64)
    for image in range(2):
        for row in range(4):
            for column in range(5):
                for down, right in ((-1, 0), (1, 0), (0, -1), (0, 1)):
                    other = field[image, :, min(max(row + down, 0), 3), min(max(column + right, 0), 4)]
                    expected[image] += ((field[image, :, row, column] - other).square().sum() + TINY).sqrt()
    assert torch.allclose(roughness(field).double(), expected, rtol=1e-5)


def test_pixels_of_the_border_have_a_slope():
    """At the ends torch's sampling has none, so that no attack ever moved them; and no flow changes nothing at all."""
    images = torch.rand(1, 3, 7, 9, generator=torch.Generator().manual_seed(0))
    flow = torch.zeros(1, 7, 9, 2, requires_grad=True)
    made = moved(images, flow)
    torch.testing.assert_close(made, images, rtol=0, atol=1e-6)
    weights = torch.rand(made.shape, generator=torch.Generator().manual_seed(1))
    (slope,) = torch.autograd.grad((made * weights).sum(), flow)
    step = torch.zeros(1, 7, 9, 2)
    for column, inwards in ((0, 1), (8, -1)):
        step[:] = 0
        step[0, :, column, 0] = inwards * 1e-3
        expected = ((moved(images, step) - images) * weights).sum() / 1e-3
        assert (slope * step / 1e-3).sum().item() == pytest.approx(expected.item(), rel=1e-3)
        assert abs(expected) > 0.05
