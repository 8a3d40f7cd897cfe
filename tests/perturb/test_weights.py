"""Weight noise: the right factors, and the same tensors back."""

import numpy as np
import pytest
import torch
from scipy.stats import kstest
from torch import nn

import salience as sal
from salience.core.draws import Stream
from salience.perturb import weights
from salience.perturb.randomise import parts_of, randomised
from salience.perturb.tune import accuracy_drop, tuned_weight_sigma
from salience.perturb.weights import WeightNoise

HERE = Stream((0,), (0,))


def test_every_parameter_is_multiplied_and_buffers_are_not(conv):
    before = {key: value.clone() for key, value in conv.module.state_dict().items()}
    noise = WeightNoise(conv)
    with noise.applied(HERE, 0, 0.2):
        factors = []
        for name, parameter in conv.module.named_parameters():
            factors.append((parameter.data / before[name]).flatten())
            assert not torch.equal(parameter.data, before[name]), name
        for name, buffer in conv.module.named_buffers():
            assert torch.equal(buffer, before[name]), name
    factors = torch.cat(factors)
    factors = factors[torch.isfinite(factors)]
    assert abs(factors.mean() - 1) < 5 * 0.2 / len(factors) ** 0.5
    assert abs(factors.std() - 0.2) < 5 * 0.2 / (2 * len(factors)) ** 0.5


@pytest.mark.parametrize("length", [1, 2, 7, 2**18])
def test_numbers_are_normal(length):
    """The distribution and its tails, pairs of the two halves independent; of every length, all filled."""
    drawn = np.full((2**20 // length if length > 7 else 2**12, length), np.nan, np.float32)
    for number, row in enumerate(drawn):
        weights.normal(HERE.weight_generator("test", length, number), row)
    assert kstest(drawn.ravel()[: 2**18], "norm").pvalue > 0.001
    for power, moment in ((2, 1), (4, 3), (6, 15)):
        values = drawn.astype(float).ravel() ** power
        assert abs(values.mean() - moment) < 5 * values.std() / len(values) ** 0.5
    far = (abs(drawn) > 4).sum()
    assert abs(far - 6.334e-5 * drawn.size) < 5 * (6.334e-5 * drawn.size) ** 0.5 + 1
    if length > 1:
        a, b = drawn[:, : length // 2].astype(float).ravel(), drawn[:, (length + 1) // 2 :].astype(float).ravel()
        for first, second in ((a, b), (a**2, b**2), (abs(a), b)):
            assert abs(np.corrcoef(first, second)[0, 1]) < 5 / len(a) ** 0.5


def test_noise_does_not_compound(conv):
    """The fault of a live state_dict: the spread of w / w0 must be the same in the last draw as in the first."""
    before = conv.module.second.weight.data.clone()
    noise = WeightNoise(conv)
    for draw in range(25):
        with noise.applied(HERE, draw, 0.2):
            spread = (conv.module.second.weight.data / before).std()
        assert 0.15 < spread < 0.25


def test_the_same_tensors_come_back_even_after_an_exception(conv):
    tensors = [parameter.data_ptr() for parameter in conv.module.parameters()]
    with pytest.raises(KeyboardInterrupt), WeightNoise(conv).applied(HERE, 0, 0.5):
        raise KeyboardInterrupt
    assert tensors == [parameter.data_ptr() for parameter in conv.module.parameters()]


def test_tied_weights_stay_tied():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(3, 3, bias=False)
            self.b = nn.Linear(3, 3, bias=False)
            self.b.weight = self.a.weight

        def forward(self, x):
            return self.b(self.a(x.mean((2, 3))))

    model = sal.Model(Tied())
    noise = WeightNoise(model)
    assert len(noise.parameters) == 1
    with noise.applied(HERE, 0, 0.3):
        assert model.module.a.weight is model.module.b.weight


def test_black_boxes_and_weightless_models_are_refused():
    images = torch.rand(1, 3, 4, 4)
    box = sal.BlackBox(lambda x: x.mean((2, 3)), name="box")
    with pytest.raises(sal.InputError, match=r"^box is a black box, so its weights cannot be given noise: .*"):
        sal.explain("noisegrad", box, images)

    class Mean(nn.Module):
        def forward(self, x):
            return x.mean((2, 3))

    with pytest.raises(sal.InputError, match=r"^Mean has no parameters, so noise in the weights changes nothing\.$"):
        sal.explain("noisegrad", sal.Model(Mean()), images)


def test_tuned_sigma_is_where_the_drop_begins(conv):
    images = torch.rand(40, 3, 5, 7, generator=torch.Generator().manual_seed(3))
    conv.weight_sigma = None
    with conv.frozen():
        sigma = tuned_weight_sigma(conv, images)
        assert accuracy_drop(conv, images, sigma) >= 0.05
        assert accuracy_drop(conv, images, 0.9 * sigma) < 0.05
        assert accuracy_drop(conv, images, 0.0) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("method", ["noisegrad", "fusiongrad"])
def test_a_single_output_has_no_level_of_its_own(photos, method):
    single = sal.Model(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 1)), name="single")
    with pytest.raises(
        sal.InputError,
        match=r"^single has a single output, so noise in its weights can never change the class, which is how its level is found: give weight_sigma, for example 0\.1\.$",
    ):
        sal.explain(f"{method}:weight_samples=2", single, photos)
    assert sal.explain(f"{method}:weight_samples=2,weight_sigma=0.1", single, photos).maps.isfinite().all()


def test_a_known_level_is_used(conv):
    conv.weight_sigma = 0.123
    assert tuned_weight_sigma(conv, torch.rand(1, 3, 5, 7)) == 0.123
    e = sal.explain("fusiongrad:weight_samples=2,samples=2", conv, torch.rand(1, 3, 5, 7))
    assert e.record["images"]["weight_sigma"] == pytest.approx([0.123 / 2])


def test_collapse_is_said(conv, photos):
    with pytest.warns(
        UserWarning,
        match=r"^noisegrad: with weight noise 5 only \d+% of the draws keep the predicted class of an image: most of its map is of networks that see another\. Use a smaller weight_sigma, unless two classes are nearly tied there\.$",
    ):
        e = sal.explain("noisegrad:weight_sigma=5", conv, photos)
    assert min(e.record["images"]["class_kept"]) < 0.5


def test_draws_do_not_depend_on_threads(conv, monkeypatch):
    monkeypatch.setattr(weights, "BLOCK", 100)
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        noise = WeightNoise(conv)
        with noise.applied(HERE, 3, 0.2):
            found.append(noise.buffer.copy())
    torch.set_num_threads(1)
    assert (found[0] == found[1]).all()
    assert len(found[0]) > 300
    assert len(set(found[0].tolist())) > 0.99 * len(found[0])


class Caching(nn.Module):
    """Keeps what it makes of its weights in evaluation mode until the mode changes, as the attention of timm's LeViT and TinyViT does."""

    def __init__(self):
        super().__init__()
        self.scale, self.kept = nn.Parameter(torch.tensor([1.0, 2.0])), None

    def train(self, mode=True):
        super().train(mode)
        self.kept = None
        return self

    def forward(self, x):
        if self.training:
            return x.mean((2, 3))[:, :2] * self.scale
        self.kept = self.scale.detach() + 0 if self.kept is None else self.kept
        return x.mean((2, 3))[:, :2] * self.kept


def test_what_a_network_keeps_of_its_weights_is_forgotten_when_they_change(photos):
    model = sal.Model(Caching())
    with model.frozen():
        before = model.outputs(photos)  # keeps the scale
        for change in (WeightNoise(model).applied(HERE, 0, 0.5), randomised(parts_of(model), HERE)):
            with change:
                assert not torch.allclose(model.outputs(photos), before)
            assert torch.equal(model.outputs(photos), before)
    model.module.scale.data *= 3  # as a step of training does
    assert torch.allclose(model.outputs(photos), 3 * before)
    assert model.module.training
