"""Spatial flow."""

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
