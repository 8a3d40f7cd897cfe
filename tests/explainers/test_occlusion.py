"""Occlusion: exact on a linear model, equal to Captum's where the definitions coincide."""

import pytest
import torch
from torch import nn

import salience as sal
from salience.explainers.occlusion import Occlusion


class Linear(nn.Module):
    """A score for each class that is linear in the pixels."""

    def __init__(self, channels: int, height: int, width: int, classes: int = 3) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(classes, channels, height, width, generator=torch.Generator().manual_seed(5)))

    def forward(self, x):
        return torch.einsum("nchw,kchw->nk", x, self.weight)


def batch(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(3))


def counting(size: tuple[int, int] = (8, 12)):
    """A black box that counts the images it has seen."""
    net, seen = Linear(3, *size), []

    def look(x):
        seen.append(len(x))
        return net(x).softmax(1).detach()

    return sal.BlackBox(look, name="box"), seen


@pytest.mark.parametrize(("size", "window", "stride"), [((8, 12), 4, 2), ((7, 11), 3, 3), ((5, 7), 5, 2), ((3, 5), None, None), ((9, 9), 9, 1)])
def test_exact_on_a_linear_model(size, window, stride):
    net, x = Linear(3, *size), batch(2, 3, *size)
    e = Occlusion(window=window, stride=stride, fill="black")(sal.Model(net), x, targets=1, score="logit")
    window, stride = Occlusion(window=window, stride=stride).geometry(size)
    effect = (net.weight[1] * x).sum(1).detach()
    total, count = torch.zeros(2, *size), torch.zeros(size)
    for top in sorted({*range(0, size[0] - window + 1, stride), size[0] - window}):
        for left in sorted({*range(0, size[1] - window + 1, stride), size[1] - window}):
            rows, columns = slice(top, top + window), slice(left, left + window)
            total[:, rows, columns] += effect[:, rows, columns].sum((1, 2), keepdim=True)
            count[rows, columns] += 1
    assert count.min() >= 1
    torch.testing.assert_close(e.maps[:, 0], total / count, rtol=1e-4, atol=1e-4)
    assert e.stderr is None


def test_agrees_with_captum_where_windows_fit():
    captum = pytest.importorskip("captum.attr")
    net, x = Linear(3, 12, 16), batch(2, 3, 12, 16)
    mine = Occlusion(window=4, stride=2, fill="black")(sal.Model(net), x, targets=[0, 2], score="probability").maps
    theirs = captum.Occlusion(lambda y: net(y).softmax(1)).attribute(x, (3, 4, 4), (3, 2, 2), baselines=0.0, target=torch.tensor([0, 2]))
    torch.testing.assert_close(mine, theirs[:, :1].detach().float(), rtol=1e-4, atol=1e-5)


def test_another_class_needs_no_forward_pass():
    box, seen = counting()
    e = Occlusion(window=4, stride=4)(box, batch(2, 3, 8, 12), targets=0)
    before = sum(seen)
    other = e.for_target(2)
    assert sum(seen) == before
    torch.testing.assert_close(other.maps, Occlusion(window=4, stride=4)(box, batch(2, 3, 8, 12), targets=2).maps)
    assert torch.equal(other.for_target(0).maps, e.maps)
    with pytest.raises(sal.InputError, match=r"^Target 3 is out of range: box has classes 0 to 2\.$"):
        e.for_target(3)


def test_cost_is_one_pass_a_window():
    box, seen = counting()
    told = []
    Occlusion(window=4, stride=4)(box, batch(2, 3, 8, 12), chunk=5, progress=lambda done, total: told.append((done, total)))
    assert sum(seen) == 2 + 2 * 2 * 3 + 2  # the prediction, the windows, the whole images
    assert told == [(5, 12), (10, 12), (12, 12)]


def test_a_score_of_ones_own():
    net, x = Linear(3, 8, 12), batch(2, 3, 8, 12)

    def margin(outputs, targets):
        return outputs.gather(1, targets[:, None])[:, 0] - outputs.mean(1)

    e = Occlusion(window=4)(sal.Model(net), x, targets=1, score=margin)
    mean = Occlusion(window=4)(sal.Model(net), x, targets=1, score="logit")
    others = [mean.for_target(k).maps for k in range(3)]
    torch.testing.assert_close(e.maps, others[1] - sum(others) / 3, rtol=1e-3, atol=1e-4)
    with pytest.raises(sal.InputError, match="computes one class at a time"):
        e.for_target(0)


@pytest.mark.parametrize(("size", "expected"), [((224, 224), (64, 8)), ((32, 32), (9, 1)), ((3, 5), (1, 1)), ((224, 300), (64, 8))])
def test_default_window_scales_with_the_image(size, expected):
    assert Occlusion().geometry(size) == expected


def test_windows_that_do_not_fit_are_refused():
    model = sal.Model(Linear(3, 8, 12))
    with pytest.raises(sal.InputError, match=r"^occlusion: the window of 9 pixels does not fit into images of 8 x 12: give a window of at most 8\.$"):
        Occlusion(window=9)(model, batch(1, 3, 8, 12))
    with pytest.raises(sal.InputError, match=r"^occlusion: a stride of 5 leaves pixels between windows of 4 uncovered: give a stride of at most 4\.$"):
        Occlusion(window=4, stride=5)(model, batch(1, 3, 8, 12))


def test_fill_changes_what_is_seen():
    model, x = sal.Model(Linear(3, 8, 12), mean=(0.3, 0.4, 0.5), std=(1.0, 1.0, 1.0)), batch(1, 3, 8, 12)
    maps = {fill: Occlusion(window=4, fill=fill)(model, x, targets=0, score="logit").maps for fill in ("mean", "black", "white", "blur")}
    assert not torch.allclose(maps["black"], maps["white"])
    filled_with_mean = x.new_tensor([0.3, 0.4, 0.5])[None, :, None, None].expand_as(x)
    flat = Occlusion(window=4)(model, filled_with_mean, targets=0).maps
    assert flat.abs().max() < 1e-6
