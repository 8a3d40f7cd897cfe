"""Objectives beside their formulas, on maps small enough to do by hand."""

import pytest
import torch

import salience as sal


def spot(*places, size=(6, 8)):
    """A map whose share is spread evenly over some pixels."""
    made = torch.zeros(1, *size)
    for row, column in places:
        made[0, row, column] = 1 / len(places)
    return made


def test_target_map_is_the_squared_difference_in_units_of_a_uniform_share():
    assert sal.TargetMap().loss(spot((0, 0)), spot((5, 5)), spot((0, 1))).item() == pytest.approx(6 * 8 * 2)
    assert sal.TargetMap().loss(spot((0, 0)), spot((5, 5)), spot((0, 0))).item() == 0


def test_centre_of_mass_is_minus_the_distance_of_the_centres_in_diagonals():
    assert sal.CentreOfMass().loss(spot((3, 4)), spot((0, 0)), None).item() == pytest.approx(-5 / 10)
    assert sal.CentreOfMass().loss(spot((0, 0), (4, 6)), spot((2, 0)), None).item() == pytest.approx(-3 / 10)
    assert sal.CentreOfMass().loss(spot((2, 1)), spot((2, 1)), None).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(("share", "left"), [(1 / 48, 0.4), (2 / 48, 0.7), (3 / 48, 0.9), (1.0, 1.0), (0.0001, 0.4)])
def test_top_k_is_what_is_left_on_the_largest_pixels(share, left):
    clean, maps = torch.zeros(1, 6, 8), torch.zeros(1, 6, 8)
    clean[0, 1, 1:4] = torch.tensor([0.5, 0.3, 0.2])
    maps[0, 1, 1:5] = torch.tensor([0.4, 0.3, 0.2, 0.1])
    assert sal.TopK(share=share).loss(maps, clean, None).item() == pytest.approx(left)
