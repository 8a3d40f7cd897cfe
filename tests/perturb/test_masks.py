"""Random masks: as scikit-image enlarges them, right on average, and their sums without making them."""

import itertools

import pytest
import torch
from skimage.transform import resize

from salience.core.draws import streams
from salience.perturb.masks import BLOCK, RandomMasks, enlarging

STREAM = streams(5, 1)[0]
SIZES = [(7, (224, 224)), (1, (5, 7)), (2, (5, 7)), (7, (3, 5)), (8, (31, 64)), (10, (37, 224))]


def drawn(masks: RandomMasks, count: int, first: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    grids, places = zip(*(masks.draw(STREAM, number) for number in range(first, first + count)), strict=True)
    return torch.stack(grids), torch.stack(places)


@pytest.mark.parametrize(("grid", "size"), SIZES)
def test_a_mask_is_what_scikit_image_makes_of_its_grid(grid, size):
    masks = RandomMasks(size, grid, 0.5)
    cells = [-(-side // grid) for side in size]
    for number in range(3):
        bits, place = masks.draw(STREAM, number)
        large = resize(bits.double().numpy(), [(grid + 1) * cell for cell in cells], order=1, mode="reflect", anti_aliasing=False)
        (y, x), (height, width) = place.tolist(), size
        assert torch.allclose(masks.make(bits[None], place[None])[0], torch.from_numpy(large[y : y + height, x : x + width]).float(), atol=1e-6)


def test_the_border_is_mirrored_without_repeating_the_outermost_cell():
    weights = enlarging(3, 12)
    assert torch.allclose(weights[0], torch.tensor([0.625, 0.375, 0.0]))  # centre -0.375: between cell 0 and its mirror image, cell 1
    assert torch.allclose(weights.sum(1), torch.ones(12))


@pytest.mark.parametrize(("grid", "size"), SIZES)
@pytest.mark.parametrize("keep", [0.1, 0.5])
def test_the_mean_is_keep_at_every_pixel_exactly(grid, size, keep):
    """A mask is linear in its grid, whose mean is keep; so the mask of the mean grid is the mean mask, at every place."""
    masks = RandomMasks(size, grid, keep)
    places = torch.cartesian_prod(*(torch.arange(count) for count in masks.places))[:40]
    mean = masks.make(torch.full((len(places), grid, grid), keep), places)
    assert torch.allclose(mean, torch.full_like(mean, keep), atol=1e-6)


@pytest.mark.parametrize("keep", [0.1, 0.3, 1.0])
def test_cells_are_kept_with_probability_keep_and_places_are_uniform(keep):
    masks = RandomMasks((21, 9), 3, keep)
    grids, places = drawn(masks, 4000)
    error = (keep * (1 - keep) / 4000) ** 0.5
    assert ((grids.mean(0) - keep).abs() <= 5 * error).all()
    for axis, count in enumerate((7, 3)):
        share = torch.bincount(places[:, axis], minlength=count) / 4000
        assert len(share) == count
        assert ((share - 1 / count).abs() < 5 * (1 / count / 4000) ** 0.5).all()


def test_second_moment_and_covariance_by_enumeration():
    """All 16 grids of 2 x 2 cells at all places, weighted by their probabilities."""
    masks = RandomMasks((5, 3), 2, 0.3)
    bits = torch.tensor(list(itertools.product((0.0, 1.0), repeat=4))).view(16, 2, 2)
    places = torch.cartesian_prod(*(torch.arange(count) for count in masks.places))
    chance = torch.where(bits == 1, 0.3, 0.7).prod(1).prod(1).repeat_interleave(len(places)) / len(places)
    grids, places = bits.repeat_interleave(len(places), 0), places.repeat(16, 1)
    made, average = masks.make(grids, places), masks.averages((2, 3))(grids, places) - 0.3
    assert torch.allclose(torch.einsum("m,mhw->hw", chance, made**2), masks.mean_square, atol=1e-6)
    covariance = torch.einsum("m,mab,myx->abyx", chance, average, made)
    assert torch.allclose(covariance, 0.3 * 0.7 * torch.einsum("ay,bx->abyx", masks.covariance(0, 2), masks.covariance(1, 3)), atol=1e-6)
    assert covariance.abs().max() > 0.05


@pytest.mark.parametrize(("grid", "size"), SIZES)
def test_a_weighted_sum_is_the_sum_of_the_weighted_masks(grid, size):
    masks = RandomMasks(size, grid, 0.5)
    grids, places = drawn(masks, 50)
    weights = torch.randn(50, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(masks.weighted_sum(weights, grids, places), torch.einsum("m,mhw->hw", weights, masks.make(grids, places)), atol=1e-4)


def test_bin_averages_are_averages_of_the_masks_in_bins():
    masks = RandomMasks((12, 20), 3, 0.5)
    grids, places = drawn(masks, 6)
    made = masks.make(grids, places)
    assert torch.allclose(masks.averages((4, 5))(grids, places), made.view(6, 4, 3, 5, 4).mean((2, 4)), atol=1e-6)


def test_draws_depend_on_seed_and_number_alone():
    small, large = RandomMasks((8, 8), 4, 0.5), RandomMasks((8, 8), 4, 0.9)
    grids, places = drawn(small, 10)
    later, _ = drawn(small, 4, first=6)
    assert torch.equal(grids[6:], later)
    more, same_places = drawn(large, 10)
    assert (more >= grids).all()  # the same uniform numbers: raising keep only adds cells
    assert torch.equal(places, same_places)
    assert not torch.equal(grids[0], small.draw(streams(6, 1)[0], 0)[0])


def test_many_masks_are_the_first_of_more_and_none_of_the_numbered_ones():
    masks = RandomMasks((8, 8), 4, 0.5)
    few, _ = masks.draw_many(STREAM, 30)
    many, places = masks.draw_many(STREAM, BLOCK + 30)
    assert torch.equal(many[:30], few)
    assert places.shape == (BLOCK + 30, 2)
    assert len(many[:BLOCK].unique(dim=0)) > 1000
    assert not torch.equal(few[:10], drawn(masks, 10)[0])
    assert (many.mean() - 0.5).abs() < 5 * (0.25 / many.numel()) ** 0.5
