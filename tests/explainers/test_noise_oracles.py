"""Closed-form oracles: on a quadratic every expectation of the noise methods is known exactly.

Few samples times thousands of copies of an image, each with a seed of its own, in one batch, judged at
five standard errors: that catches an off-by-one sample, a noise-free last draw, a biased variance.
"""

import pytest
import torch
from quadratic import quadratic

import salience as sal

COPIES = 2500
SHAPE = (3, 2, 3)


@pytest.fixture(scope="module")
def model():
    return quadratic(SHAPE)


@pytest.fixture(scope="module")
def image():
    return torch.rand(1, *SHAPE, generator=torch.Generator().manual_seed(5))


def gradient_at(model: sal.Model, image: torch.Tensor) -> torch.Tensor:
    net = model.module
    return (image.flatten(1) @ net.matrix + net.linear).detach().view_as(image)[0]


def many(method: sal.Explainer, model: sal.Model, image: torch.Tensor) -> torch.Tensor:
    """The maps of many copies of an image, each with its own seed (fewer where weights are drawn, which is slower)."""
    copies = COPIES // (4 * method.draws) if hasattr(method, "weight_samples") else COPIES
    return method(model, image.expand(copies, -1, -1, -1), targets=0, seed=list(range(copies))).maps


def agrees(values: torch.Tensor, expected: torch.Tensor) -> None:
    """The mean over copies lies within five standard errors of what is expected, everywhere."""
    error = values.std(0) / len(values) ** 0.5
    worst = ((values.mean(0) - expected).abs() / error.clamp_min(1e-7)).max().item()
    assert worst < 5, worst


@pytest.mark.parametrize("samples", [1, 3])
def test_smoothgrad_is_unbiased_with_the_right_variance(model, image, samples):
    sigma = 0.3
    values = many(sal.SmoothGrad(samples=samples, sigma=sigma), model, image)
    agrees(values, gradient_at(model, image))
    variance = sigma**2 * model.module.matrix.detach().square().sum(1).view(SHAPE) / samples
    agrees((values - gradient_at(model, image)).square(), variance)


def test_noise_level_is_relative_to_the_range(model, image):
    level, image = 0.2, 0.3 + 0.5 * image
    values = many(sal.SmoothGrad(samples=1, noise_level=level), model, image)
    sigma = level * (image.max() - image.min())
    agrees((values - gradient_at(model, image)).square(), sigma**2 * model.module.matrix.detach().square().sum(1).view(SHAPE))


def test_uniformgrad_has_the_half_width_asked_for(model, image):
    values = many(sal.UniformGrad(samples=1, sigma=0.3), model, image)
    agrees(values, gradient_at(model, image))
    agrees((values - gradient_at(model, image)).square(), 0.3**2 / 3 * model.module.matrix.detach().square().sum(1).view(SHAPE))


@pytest.mark.parametrize("samples", [1, 3])
def test_smoothgrad_squared(model, image, samples):
    spread = 0.3**2 * model.module.matrix.detach().square().sum(1).view(SHAPE)
    agrees(many(sal.SmoothGradSquared(samples=samples, sigma=0.3), model, image), gradient_at(model, image).square() + spread)


@pytest.mark.parametrize("samples", [2, 3])
def test_vargrad_is_unbiased(model, image, samples):
    agrees(many(sal.VarGrad(samples=samples, sigma=0.3), model, image), 0.3**2 * model.module.matrix.detach().square().sum(1).view(SHAPE))


def test_absolute_comes_before_the_average(model, image):
    """E|N(m, s²)| is a folded normal's mean."""
    mean = gradient_at(model, image)
    sd = 0.3 * model.module.matrix.detach().square().sum(1).view(SHAPE).sqrt()
    folded = sd * (2 / torch.pi) ** 0.5 * torch.exp(-0.5 * (mean / sd) ** 2) + mean * torch.erf(mean / sd / 2**0.5)
    agrees(many(sal.SmoothGrad(samples=2, sigma=0.3, absolute=True), model, image), folded)


@pytest.mark.parametrize("samples", [1, 3])
def test_noisegrad_multiplies_every_weight(model, image, samples):
    """Each entry of A and b is multiplied by its own factor; the gradient is linear in them."""
    net, sigma, flat = model.module, 0.3, image.flatten()
    values = many(sal.NoiseGrad(weight_samples=samples, weight_sigma=sigma), model, image)
    agrees(values, gradient_at(model, image))
    own = net.matrix.detach()
    rows = ((own * flat) ** 2).sum(1) / 4  # the gradient of x'Ax/2 with an asymmetric noise is (A + A')x/2
    columns = ((own.T * flat) ** 2).sum(1) / 4
    diagonal = 2 * (own.diag() * flat) ** 2 / 4
    variance = sigma**2 * (rows + columns + diagonal + net.linear.detach() ** 2) / samples
    agrees((values - gradient_at(model, image)).square(), variance.view(SHAPE))


def test_fusiongrad_has_fresh_input_noise_for_each_draw_of_weights(model, image):
    """Variance of the mean over n weights and m inputs: weight part / n + input part / (n m)."""
    net, sigma, weight_sigma, flat = model.module, 0.3, 0.3, image.flatten()
    method = sal.FusionGrad(weight_samples=2, samples=3, weight_sigma=weight_sigma, sigma=sigma)
    values = many(method, model, image)
    agrees(values, gradient_at(model, image))
    own = net.matrix.detach()

    def weights_part(second_moment: torch.Tensor) -> torch.Tensor:
        """Variance over weights of ((A∘N) + (A∘N)')u/2 for E[u u'] diagonal entries given."""
        return weight_sigma**2 * ((own**2 @ second_moment) / 4 + (own.T**2 @ second_moment) / 4 + own.diag() ** 2 * second_moment / 2)

    over_weights = weights_part(flat**2) + weight_sigma**2 * net.linear.detach() ** 2
    over_inputs = sigma**2 * (own**2).sum(1) + weights_part(torch.full_like(flat, sigma**2))
    agrees((values - gradient_at(model, image)).square(), (over_weights / 2 + over_inputs / 6).view(SHAPE))


def test_gradient_shap_without_noise_is_the_integrated_gradient(model, image):
    """On a quadratic the integrated gradient is the gradient half-way, times the distance."""
    baseline = 0.5
    middle = gradient_at(model, (image + baseline) / 2)
    expected = (image[0] - baseline) * middle
    assert torch.allclose(sal.IntegratedGradients(steps=1, baseline="grey")(model, image, targets=0).maps[0], expected, atol=1e-5)
    values = many(sal.GradientShap(samples=2, sigma=0.0, baseline="grey"), model, image)
    agrees(values, expected)


def test_gradient_shap_has_noise_in_the_image_and_in_the_distance(model, image):
    """For f = x'Ax/2 + b'x: the noise-free value, and sigma²/2 diag(A) from the noise that distance and gradient share."""
    sigma, baseline = 0.6, 0.5
    clean = (image[0] - baseline) * gradient_at(model, (image + baseline) / 2)
    expected = clean + sigma**2 / 2 * model.module.matrix.diag().detach().view(SHAPE)
    agrees(many(sal.GradientShap(samples=2, sigma=sigma, baseline="grey"), model, image), expected)


COVERED = [
    sal.SmoothGrad(samples=5, sigma=0.2),
    sal.NoiseGrad(weight_samples=5, weight_sigma=0.2),
    sal.SmoothGradSquared(samples=5, sigma=0.2),
    sal.FusionGrad(weight_samples=5, samples=2, weight_sigma=0.2, sigma=0.2),
    sal.GradientShap(samples=8, sigma=0.2),
    sal.UniformGrad(samples=5, sigma=0.2),
]


@pytest.mark.parametrize("method", COVERED, ids=str)
def test_intervals_cover(model, image, method):
    """The stated standard error is right: t-intervals of runs of five draws cover as often as they say."""
    copies = COPIES // 16 if hasattr(method, "weight_samples") else COPIES
    e = method(model, image.expand(copies, -1, -1, -1), targets=0, seed=list(range(copies)))
    squares = isinstance(method, sal.SmoothGradSquared | sal.GradientShap)  # the others have the plain gradient for their mean here
    truth = method(model, image.expand(copies, -1, -1, -1), targets=0, seed=list(range(copies, 2 * copies))).maps.mean(0) if squares else gradient_at(model, image)
    low, high = e.interval(0.9)
    covered = ((low <= truth) & (truth <= high)).float().mean().item()
    assert 0.86 < covered < 0.93, covered
    if isinstance(method, sal.SmoothGrad):
        assert 0.89 < covered < 0.91, covered


class Steep(torch.nn.Module):
    """A logit of 10 + 20 (x - 1/2), x being the red of the picture: its square makes the slope vary."""

    def forward(self, x):
        logit = 10 + 20 * (x[:, :1, 0, 0] - 0.5) + (x[:, :1, 0, 0] - 0.5) ** 2
        return torch.cat([logit, 0 * logit], 1)


def test_a_saturated_score_needs_more_draws_than_its_logit():
    """What docs/errors.md warns of: few draws meet the place where a probability close to 1 has a gradient at all. The error is right on average."""
    net, images, covered, honest = sal.Model(Steep()), torch.full((500, 3, 1, 1), 0.5), {}, {}
    for score in ("logit", "probability"):
        e, other = (sal.explain("smoothgrad:samples=25,sigma=0.2", net, images, 0, score, seed=list(range(start, start + 500))) for start in (0, 500))
        red, error, truth, (low, high) = e.maps[:, 0], e.stderr[:, 0], other.maps[:, 0].mean(), (end[:, 0] for end in e.interval(0.95))
        covered[score] = ((low <= truth) & (truth <= high)).float().mean().item()
        honest[score] = (error.square().mean() / red.var()).item()
    assert covered["logit"] > 0.93
    assert covered["probability"] < 0.85
    assert honest == pytest.approx({"logit": 1, "probability": 1}, rel=0.15)


def test_jackknife_error_of_saliency_is_honest(model, image):
    """Where the true map is far from zero, |mean| has the error of the mean."""
    method = sal.SmoothGrad(samples=60, sigma=0.1)
    e = method(model, image.expand(300, -1, -1, -1), targets=0, seed=list(range(300)))
    spread = e.saliency("l2").std(0)
    stated = e.saliency_stderr("l2").square().mean(0).sqrt()
    assert ((stated / spread - 1).abs() < 0.2).all(), stated / spread


def test_vargrad_error_is_honest(model, image):
    e = sal.VarGrad(samples=40, sigma=0.3)(model, image.expand(400, -1, -1, -1), targets=0, seed=list(range(400)))
    ratio = e.stderr.square().mean(0).sqrt() / e.maps.std(0)
    assert ((ratio - 1).abs() < 0.25).all(), ratio


def test_the_first_draws_of_many_are_the_draws_of_few(model, image):
    seen = {}
    for samples in (3, 7):
        points = []

        def record(model, images, targets, points=points):
            points.append(images.clone())
            return images

        sal.SmoothGrad(base=record, samples=samples, sigma=0.2)(model, image, targets=0, chunk=2)
        seen[samples] = torch.cat(points)
    assert torch.equal(seen[3], seen[7][:3])


def test_nested_noise_is_fresh(model, image):
    """SmoothGrad of SmoothGrad adds the variances, so its inner noise is not the same in every outer draw."""
    method = sal.SmoothGrad(base=sal.SmoothGrad(samples=1, sigma=0.3), samples=4, sigma=0.3)
    values = many(method, model, image)
    agrees((values - gradient_at(model, image)).square(), 2 * 0.3**2 * model.module.matrix.detach().square().sum(1).view(SHAPE) / 4)
