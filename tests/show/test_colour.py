"""Colours: signed maps diverge, scales resist extreme pixels, and what the error leaves open is found."""

import dataclasses

import numpy as np
import pytest
import torch

import salience as sal
from salience.show.colour import AGAINST, FOR, HEAT, error_scale, is_signed, scale_of, shown


def explanation(maps, stderr=None, method="smoothgrad", df=1e6, **changes) -> sal.Explanation:
    """An explanation of hand-made maps."""
    maps = torch.as_tensor(maps, dtype=torch.float32)
    n = len(maps)
    random = stderr is not None
    return sal.Explanation(
        maps=maps,
        stderr=torch.as_tensor(stderr, dtype=torch.float32).expand_as(maps) if random else None,
        df=torch.full((n,), float(df)) if random else None,
        samples=torch.full((n,), 50 if random else 0),
        converged=None,
        targets=torch.zeros(n, dtype=torch.int64),
        method=method,
        score="logit",
        record={"images": {}},
        **changes,
    )


def warmth(rgb):
    """Red less blue."""
    return rgb[..., 0] - rgb[..., 2]


class TestScale:
    def test_signed_colours_diverge_from_neutral(self):
        values = np.linspace(-1, 1, 21)
        colours = scale_of(values, signed=True).colour(values)
        assert np.allclose(colours[10], colours[10, 0])
        assert (warmth(colours[:10]) < 0).all()
        assert (warmth(colours[11:]) > 0).all()
        assert np.allclose(colours[0], AGAINST[0])
        assert np.allclose(colours[-1], FOR[-1])

    def test_the_scale_is_symmetric_however_lopsided_the_map(self):
        scale = scale_of(np.linspace(-1, 9, 1001), signed=True)
        assert scale.low == -scale.high
        assert np.isclose(scale.high, np.percentile(np.abs(np.linspace(-1, 9, 1001)), 99.5))

    def test_one_extreme_pixel_changes_nothing(self):
        values = np.linspace(0, 1, 10_000)
        spiked = np.append(values, 1e9)
        assert np.isclose(scale_of(values, signed=False).high, scale_of(spiked, signed=False).high, rtol=1e-3)

    def test_unsigned_colours_darken(self):
        values = np.linspace(0, 1, 50)
        scale = scale_of(values, signed=False)
        assert (np.diff(scale.colour(values).sum(-1)) <= 1e-9).all()
        assert scale.low == 0
        assert scale.colours is HEAT

    def test_an_unsigned_map_far_from_zero_fills_its_scale(self):
        scale = scale_of(np.linspace(0.6, 0.8, 1001), signed=False)
        assert np.allclose((scale.low, scale.high), (0.601, 0.799))
        assert np.allclose(scale.strength(np.array([0.601, 0.7, 0.799])), (0, 0.5, 1))

    @pytest.mark.parametrize("signed", [True, False])
    @pytest.mark.parametrize("value", [0.0, 0.3])
    def test_constant_maps(self, value, signed):
        values = np.full((5, 7), value)
        scale = scale_of(values, signed=signed)
        assert scale.high > scale.low
        assert np.isfinite(scale.colour(values)).all()
        assert np.isfinite(scale.strength(values)).all()

    def test_a_single_pixel_map(self):
        values = np.zeros((100, 100))
        values[3, 4] = 2.0
        assert scale_of(values, signed=False).high == 2.0
        assert scale_of(-values, signed=True).high > 0

    def test_errors(self):
        assert np.isclose(error_scale(np.linspace(0, 2, 1001)).high, 1.99)
        assert np.isclose(error_scale(np.linspace(1, 2, 1001)).low, 1.005)
        assert error_scale(np.full((2, 2), np.nan)).high == 1.0
        assert error_scale(np.zeros((2, 2))).high == 1.0


class TestSigned:
    def test_by_the_values(self):
        assert is_signed(explanation([[[[1.0, -1.0]]]]))
        assert not is_signed(explanation([[[[1.0, 0.0]]]]))
        assert is_signed(explanation([[[[1.0, -1.0]]]], method="my_function"))
        assert is_signed(explanation([[[[1.0, -1.0]]]], method="gradcam:relu=false"))

    def test_a_random_unsigned_method_is_not_signed_by_noise_about_zero(self):
        assert not is_signed(explanation([[[[1.0, -0.01]]]], stderr=0.1, method="vargrad"))


class TestUndecided:
    def test_where_the_interval_includes_zero(self):
        view = shown(explanation([[[[-1.0, -0.1, 0.0, 0.19, 0.21, 3.0]]]], stderr=0.1))[0]
        assert view.undecided.tolist() == [[False, True, True, True, False, False]]
        assert view.reference == 0

    def test_few_draws_have_wider_intervals(self):
        assert shown(explanation([[[[-1.0, 0.3]]]], stderr=0.1, df=2))[0].undecided.tolist() == [[False, True]]

    def test_a_single_draw_decides_nothing(self, conv, photos):
        view = shown(sal.explain("smoothgrad:samples=1", conv, photos))[0]
        assert view.undecided.all()

    def test_a_deterministic_map_has_no_undecided_pixels(self, conv, photos):
        view = shown(sal.explain("gradient", conv, photos))[0]
        assert view.undecided is None
        assert view.stderr is None

    def test_an_unsigned_map_far_from_zero_is_compared_with_its_mean(self):
        view = shown(explanation([[[[0.6, 0.69, 0.7, 0.72, 0.8]]]], stderr=0.01, method="vargrad"))[0]
        assert np.isclose(view.reference, 0.702)
        assert view.undecided.tolist() == [[False, True, True, True, False]]

    @pytest.mark.parametrize("level", [-5.0, 0.0, 0.001, 7.0])
    @pytest.mark.parametrize("method", ["rise", "rise:samples=50", "smoothgrad:base=(rise:samples=50)"])
    def test_masks_are_read_against_the_maps_mean(self, level, method):
        """Against 0 a map of log-probabilities was blue where the class was, and one of probabilities changed its look with a few pixels."""
        view = shown(explanation([[[[level + each for each in (-1.0, -0.1, 0.0, 0.1, 1.0)]]]], stderr=0.1, method=method))[0]
        assert np.isclose(view.reference, level)
        assert view.undecided.tolist() == [[False, True, True, True, False]]
        assert view.scale.signed
        assert np.isclose((view.scale.low + view.scale.high) / 2, level)
        colours = view.scale.colour(view.values)[0]
        assert warmth(colours[0]) < 0 < warmth(colours[-1])
        assert view.scale.strength(view.values)[0] == pytest.approx([1, 0.1, 0, 0.1, 1], abs=0.02)

    @pytest.mark.parametrize("estimator", ["crossfit", "centred", "self_normalised"])
    def test_a_map_that_differs_by_rounding_only_is_grey(self, estimator):
        """Where every mask leaves the score as it is: all of the picture was red or blue, in a scale of 1e-7."""
        model = sal.BlackBox(lambda images: torch.tensor([0.3, 0.7]).expand(len(images), 2))
        for seed in range(8):
            view = shown(sal.explain(f"rise:samples=100,estimator={estimator}", model, torch.rand(1, 3, 16, 24), 1, seed=seed))[0]
            assert view.undecided is not None
            assert view.undecided.all()
            assert np.ptp(view.values) == 0
            assert view.scale.strength(view.values).max() < 1e-6
        assert shown(explanation(torch.tensor([0.7, 0.7000001]).expand(1, 1, 3, 2), method="rise"))[0].scale.high > 1

    def test_squares_of_maps_of_masks_are_not(self):
        view = shown(explanation([[[[0.0, 1.0, 2.0]]]], stderr=0.1, method="vargrad:base=(rise:samples=50)"))[0]
        assert view.reference == 0
        assert not view.scale.signed

    def test_an_error_that_all_pixels_share_leaves_none_undecided(self):
        """The blocks differ in their level alone: pixels stand out of the map as surely as if there were no error."""
        pattern, levels = torch.tensor([[[[-1.0, 0.0, 1.0]]]]), torch.linspace(-30, 30, 20).view(20, 1, 1, 1, 1)
        e = explanation(pattern, stderr=4.0, method="rise", blocks=pattern + levels, counts=torch.full((20, 1), 5.0))
        view = shown(e)[0]
        assert view.undecided.tolist() == [[False, True, False]]
        assert np.allclose(view.stderr, 4.0)

    def test_the_error_of_the_channel_sum_comes_from_the_blocks(self, conv, photos):
        e = sal.explain("smoothgrad:samples=12", conv, photos)
        assert np.allclose(shown(e)[1].stderr, e.saliency_stderr("sum")[1])
        assert np.allclose(shown(e)[1].values, e.maps[1].sum(0))
        without = shown(dataclasses.replace(e, blocks=None, counts=None))[1]
        assert without.stderr is None
        assert without.undecided is None


def test_pixels_read_against_the_mean_have_the_freedom_of_the_blocks():
    """The error about the mean is a jackknife over 20 blocks of draws, but Student's t was that of the draws."""
    box = sal.BlackBox(lambda images: images.flatten(1)[:, :4].softmax(1), size=(8, 8))
    e = sal.explain("rise:samples=50,estimator=centred", box, torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)), 0)
    about = e.maps[:, 0].double() - e.maps[:, 0].double().mean()
    error = e.stderr_of(lambda maps: (maps - maps.mean((-2, -1), keepdim=True)).sum(-3)).double()
    assert e.df.tolist() == [49]
    expected = ~(about.abs() > 2.0930 * error)  # t of 19 degrees of freedom; of 49 it is 2.0096
    assert (shown(e)[0].undecided == expected[0].numpy()).all()
    assert not (shown(e)[0].undecided == ~(about.abs() > 2.0096 * error)[0].numpy()).all()
