"""Objectives beside their formulas, on maps small enough to do by hand."""

import pytest
import torch

import salience as sal
from salience.attacks._judge import cosine_distance
from salience.core.objective import shares


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


def test_shares_are_absolute_values_summed_over_channels():
    maps = torch.tensor([[[[1.0, -2.0]], [[-3.0, 2.0]]], [[[0.0, 0.0]], [[0.0, 0.0]]]])
    assert shares(maps).tolist() == [[[0.5, 0.5]], [[0.0, 0.0]]]


def test_cosine_distance_is_exact_where_it_must_be():
    """Nothing between equal maps, one of zeros too; 1 from a map of zeros to another, and between maps that do not meet."""
    made = torch.rand(50, 6, 8, generator=torch.Generator().manual_seed(0))
    zero = torch.zeros_like(made)
    assert cosine_distance(made, made).eq(0).all()
    assert cosine_distance(zero, zero).eq(0).all()
    assert cosine_distance(made, zero).tolist() == pytest.approx([1] * 50)
    assert cosine_distance(spot((0, 0)), spot((0, 1))).item() == pytest.approx(1)
    assert cosine_distance(spot((0, 0)), spot((0, 0), (0, 1))).item() == pytest.approx(1 - 0.5**0.5)
    assert cosine_distance(1e-20 * made, made).abs().max() < 1e-6
