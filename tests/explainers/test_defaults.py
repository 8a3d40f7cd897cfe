"""The defaults that users and papers rely on; whoever changes one must mean it."""

import pytest

import salience as sal

DEFAULTS = {
    sal.SmoothGrad: {"samples": 50, "absolute": False},
    sal.NoiseGrad: {"weight_samples": 25, "weight_sigma": "auto", "absolute": False},
    sal.FusionGrad: {"weight_samples": 10, "samples": 10, "weight_sigma": "auto"},
    sal.BetaSmoothing: {"beta": 10, "forward": "softplus", "relative": False},
    sal.IntegratedGradients: {"baseline": "mean"},
    sal.Rise: {"samples": 500, "grid": 7, "keep": 0.5, "fill": "mean", "estimator": "crossfit"},
    sal.Lime: {"samples": 1000, "width": 0.25, "segmentation": "quickshift"},
    sal.GradCAM: {"relu": True},
}


@pytest.mark.parametrize("method", DEFAULTS, ids=lambda method: method.__name__)
def test_defaults(method):
    assert {name: getattr(method(), name) for name in DEFAULTS[method]} == DEFAULTS[method]


@pytest.mark.parametrize(("method", "level"), [("smoothgrad", 0.2), ("smoothgrad_squared", 0.2), ("vargrad", 0.2), ("uniformgrad", 0.2), ("fusiongrad", 0.1), ("gradient_shap", 0.1)])
def test_the_default_noise_is_a_share_of_the_range(conv, photos, method, level):
    conv.weight_sigma = 0.02
    few = "weight_samples=2,samples=2" if method == "fusiongrad" else "samples=3"
    photos = 0.3 * photos
    assert sal.explain(f"{method}:{few}", conv, photos, 1).maps.equal(sal.explain(f"{method}:{few},noise_level={level}", conv, photos, 1).maps)
