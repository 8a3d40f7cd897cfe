"""The pointing game: in the original picture, with a strict disc, fair to ties."""

import math

import numpy as np
import pytest
import torch

import salience as sal
from salience.core.geometry import Geometry
from salience.core.metric import UndefinedError
from salience.metrics.pointing_game import PointingGame
from salience.zoo.images import Photographs


@pytest.fixture
def play(conv):
    """Points at maps, perhaps in original pictures."""

    def value(maps, masks, geometry=None, spec="pointing_game"):
        images = torch.rand(len(maps), 3, *maps.shape[-2:], generator=torch.Generator().manual_seed(0))
        if geometry is not None:
            images = Photographs.of(images, ["image"] * len(maps), [geometry] * len(maps), [])
        return sal.measure(spec, conv, images, 0, maps, masks=masks).tolist()

    return value


def peak(height, width, *places):
    maps = torch.zeros(1, height, width)
    for y, x in places:
        maps[0, y, x] = 1
    return maps


def box(height, width, top, left, bottom, right):
    mask = torch.zeros(1, height, width)
    mask[0, top:bottom, left:right] = 1
    return mask


def reference(saliency, mask, geometry, tolerance):
    """One pixel of the picture at a time: bilinear resampling, candidates, disc."""
    top, left, bottom, right = geometry.box
    h, w = saliency.shape
    best, hits = -math.inf, []
    for row in range(mask.shape[0]):
        for column in range(mask.shape[1]):
            if not (top <= row + 0.5 <= bottom and left <= column + 0.5 <= right):
                continue
            y = min(max((row + 0.5 - top) * h / (bottom - top) - 0.5, 0), h - 1)
            x = min(max((column + 0.5 - left) * w / (right - left) - 0.5, 0), w - 1)
            y0, x0 = min(int(y), h - 2), min(int(x), w - 2)
            fy, fx = y - y0, x - x0
            value = (1 - fy) * ((1 - fx) * saliency[y0, x0] + fx * saliency[y0, x0 + 1]) + fy * ((1 - fx) * saliency[y0 + 1, x0] + fx * saliency[y0 + 1, x0 + 1])
            hit = any((row - v) ** 2 + (column - u) ** 2 < tolerance**2 for v, u in np.argwhere(mask)) or bool(mask[row, column])
            if value > best + 1e-9:
                best, hits = value, [hit]
            elif value > best - 1e-9:
                hits.append(hit)
    return sum(hits) / len(hits)


@pytest.mark.parametrize(
    "geometry",
    [
        Geometry((5, 7), (5, 7), (0.0, 0.0, 5.0, 7.0)),
        Geometry((10, 21), (5, 7), (0.0, 0.0, 10.0, 21.0)),  # squashed
        Geometry((20, 13), (5, 7), (3.5, 2.25, 13.5, 12.75)),  # cropped
        Geometry((9, 24), (5, 7), (-5.0, 1.0, 14.0, 23.0)),  # padded above and below
        Geometry((8, 9), (5, 7), (0.0, 0.0, 5.0, 7.0)),  # the top left corner as it is
    ],
)
@pytest.mark.parametrize(("tolerance", "density"), [(0.0, 0.4), (2.0, 0.07), (3.5, 0.02)])
def test_same_as_a_plain_loop(play, geometry, tolerance, density):
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(12, 5, 7, generator=generator)
    masks = torch.rand(12, *geometry.original, generator=generator) < density
    masks[:, 2, 5] = True
    expected = [reference(a.double().numpy(), mask.numpy(), geometry, tolerance) for a, mask in zip(maps, masks, strict=True)]
    assert 0 < sum(expected) < 12
    assert play(maps, masks, geometry, f"pointing_game:tolerance={tolerance}") == expected


def test_the_disc_is_strict_and_round(play):
    """Less than 15 pixels away, not 15; and 15 along one axis is not 15 along the diagonal."""
    maps = peak(61, 67, (30, 31))
    for dy, dx, hit in [(15, 0, 0), (0, 15, 0), (14, 0, 1), (0, -14, 1), (9, 12, 0), (-12, 9, 0), (10, 11, 1), (11, 11, 0), (-14, 5, 1), (14, 6, 0)]:
        assert play(maps, box(61, 67, 30 + dy, 31 + dx, 31 + dy, 32 + dx)) == [hit], (dy, dx)


def test_tolerance_zero_is_the_point_itself(play):
    for column, hit in ((31, 1), (30, 0), (32, 0)):
        assert play(peak(61, 67, (30, 31)), box(61, 67, 0, column, 61, column + 1), spec="pointing_game:tolerance=0") == [hit]


def test_rows_and_columns_are_not_swapped(play):
    maps = peak(40, 90, (5, 80))
    assert play(maps, box(40, 90, 0, 75, 10, 85), spec="pointing_game:tolerance=0") == [1]
    assert play(maps, box(40, 90, 30, 0, 40, 10)) == [0]
    geometry = Geometry((80, 90), (40, 90), (0.0, 0.0, 80.0, 90.0))
    assert play(maps, box(80, 90, 8, 78, 14, 83), geometry, "pointing_game:tolerance=0") == [1]


def test_ties_share_the_hit(play):
    maps = peak(20, 20, (2, 2), (2, 17), (17, 2), (17, 17))
    assert play(maps, box(20, 20, 0, 0, 20, 5), spec="pointing_game:tolerance=0") == [0.5]
    assert play(maps, box(20, 20, 0, 0, 5, 5), spec="pointing_game:tolerance=1") == [0.25]
    constant = torch.full((1, 20, 20), 0.1)
    assert play(constant, box(20, 20, 3, 4, 8, 14), spec="pointing_game:tolerance=0") == pytest.approx([50 / 400])
    assert play(-constant, box(20, 20, 3, 4, 4, 5), spec="pointing_game:tolerance=2") == pytest.approx([9 / 400])


@pytest.mark.parametrize("side", [224, 448, 333, 1000])
@pytest.mark.parametrize("smooth", [0.0, 0.02])
def test_ties_survive_resampling(play, side, smooth):
    """Positions are rounded on the way to the picture; equal peaks and plateaus still count as equal."""
    geometry = Geometry((side, side), (224, 224), (0.0, 0.0, float(side), float(side)))
    half = torch.zeros(1, side, side)
    half[:, :, : side // 2] = 1
    spec = f"pointing_game:tolerance=0,smooth={smooth}"
    constant = torch.full((1, 224, 224), 0.3)
    assert play(constant, half, geometry, spec) == pytest.approx([(side // 2) / side])
    mirrored = peak(224, 224, (50, 60), (50, 163))
    assert play(mirrored, half, geometry, spec) == [0.5]


def test_only_what_the_model_saw_can_be_pointed_at(play):
    """All values are negative: the border that was cropped away must not win with its zeros."""
    geometry = Geometry((30, 60), (30, 30), (0.0, 15.0, 30.0, 45.0))
    maps = peak(30, 30, (20, 3)) - 2
    for spec in ("pointing_game:tolerance=1", "pointing_game:tolerance=3,smooth=0.01"):
        assert play(maps, box(30, 60, 20, 18, 21, 19), geometry, spec) == [1]
        assert play(maps, box(30, 60, 0, 0, 30, 15), geometry, spec) == [0]
    assert play(torch.ones(1, 30, 30), box(30, 60, 0, 0, 30, 30), geometry, "pointing_game:tolerance=0") == [0.5]


def test_a_mask_of_the_inputs_size_is_compared_there(play):
    geometry = Geometry((300, 600), (30, 30), (0.0, 150.0, 300.0, 450.0))
    maps = peak(30, 30, (20, 3))
    assert play(maps, box(30, 30, 20, 3, 21, 4), geometry, "pointing_game:tolerance=0") == [1]
    assert play(maps, box(30, 30, 20, 18, 21, 19), geometry, "pointing_game:tolerance=15") == [0]


def test_an_object_that_the_crop_lost_is_a_miss(play):
    geometry = Geometry((100, 200), (30, 30), (0.0, 50.0, 100.0, 150.0))
    assert play(peak(30, 30, (15, 15)), box(100, 200, 0, 0, 100, 20), geometry) == [0]


def test_smoothing_finds_the_mass_not_the_spike(play):
    maps = peak(100, 100, (10, 10))
    maps[0, 60:80, 60:80] = 0.8
    spike, blob = box(100, 100, 8, 8, 13, 13), box(100, 100, 60, 60, 80, 80)
    assert play(maps, spike, spec="pointing_game:tolerance=0") == [1]
    assert play(maps, blob, spec="pointing_game:tolerance=0,smooth=0.02") == [1]


def test_smoothing_is_measured_on_the_longer_side_of_the_picture(play):
    """Two spikes one above the other: a blur of 3 pixels joins those 4 apart, one of 1.5 keeps the taller one above them."""
    geometry = Geometry((60, 150), (60, 150), (0.0, 0.0, 60.0, 150.0))
    maps = peak(60, 150, (20, 30), (20, 34), (20, 32))
    maps[0, 40, 100] = 2.1
    lone = box(60, 150, 40, 100, 41, 101)
    assert 1 + 2 * math.exp(-0.5 * (2 / 1.5) ** 2) < 2.1 < 1 + 2 * math.exp(-0.5 * (2 / 3) ** 2)
    assert play(maps, lone, geometry, "pointing_game:tolerance=0,smooth=0.02") == [0]
    assert play(maps, lone, geometry, "pointing_game:tolerance=0,smooth=0.01") == [1]


def test_an_empty_mask_is_no_hit(play):
    masks = torch.cat([box(20, 20, 0, 0, 5, 5), torch.zeros(1, 20, 20)])
    with pytest.raises(UndefinedError, match=r"^pointing_game is not defined for image 2: its mask is empty\.$"):
        play(peak(20, 20, (3, 3)).expand(2, -1, -1), masks)


def test_signed_maps_and_channels(play):
    """One channel keeps its sign; several are reduced first."""
    maps = peak(50, 50, (5, 5)) - 3 * peak(50, 50, (40, 40))
    low, high = box(50, 50, 38, 38, 43, 43), box(50, 50, 3, 3, 8, 8)
    assert play(maps, high) == [1]
    assert play(maps, low, spec="pointing_game:reduction=abs_sum") == [1]
    assert play(maps[:, None].expand(-1, 3, -1, -1), low) == [1]
    assert play(maps[:, None].expand(-1, 3, -1, -1), high, spec="pointing_game:reduction=sum") == [1]


def test_photographs_of_several_sizes(conv):
    """As a user calls it: masks in each picture's own size, the model's crop in between."""
    conv.size, conv.fit, conv.crop_fraction = (32, 32), "crop", 0.875
    arrays = [np.zeros((64, 96, 3), np.uint8), np.zeros((90, 60, 3), np.uint8)]
    images = sal.load_images(arrays, conv)
    masks = [np.zeros(array.shape[:2], bool) for array in arrays]
    points = [(20, 60), (55, 25)]
    maps = torch.zeros(2, 32, 32)
    for number, (row, column) in enumerate(points):
        masks[number][row - 2 : row + 3, column - 2 : column + 3] = True
        top, left, bottom, right = images.geometry[number].box
        maps[number, int((row - top) / (bottom - top) * 32), int((column - left) / (right - left) * 32)] = 1
    for number, mask in enumerate(masks):
        alone = images[number : number + 1]
        assert sal.measure("pointing_game:tolerance=0", conv, alone, 0, maps[number : number + 1], masks=[mask]).tolist() == [1]
        assert sal.measure("pointing_game:tolerance=0", conv, alone, 0, maps[1 - number : 2 - number], masks=[mask]).tolist() == [0]


def test_refusals(conv, photos):
    with pytest.raises(sal.InputError, match=r"^pointing_game compares maps with where the object is: give masks, one an image, nonzero on the object\.$"):
        sal.measure("pointing_game", conv, photos, 0, torch.rand(2, 5, 7))
    with pytest.raises(sal.InputError, match=r"^pointing_game: tolerance must be at least 0, not -1\.0\.$"):
        PointingGame(tolerance=-1.0)
