"""Every architecture: its size, that it can be trained, explained and read back; ResNet-20 with weights from elsewhere."""

from pathlib import Path

import pytest
import torch
from torch import nn

import salience as sal
from salience.core import registry, spec
from salience.training.architecture import Architecture, list_architectures

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
WEIGHTS = {
    "lenet": 62006,
    "resnet8": 75290,
    "resnet9": 2447946,
    "resnet18": 11173962,
    "resnet20": 269722,
    "resnet34": 21282122,
    "resnet50": 23520842,
    "resnet101": 42512970,
    "vgg11": 9231114,
    "vgg16": 14728266,
}
"""At full width, 10 classes: as published, or counted by hand."""

OWN = [name for name in list_architectures() if "*" not in name]
SMALL = {"lenet": 6, "resnet18": 8, "resnet34": 8, "resnet101": 2}


def small(name: str, **options) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return registry.entries("architecture")[name].cls(width=SMALL.get(name, 4), **options).build()


@pytest.mark.parametrize("name", OWN)
def test_published_number_of_weights(name):
    with torch.device("meta"):
        net = spec.build("architecture", name).build()
    assert sum(weight.numel() for weight in net.parameters()) == WEIGHTS[name]


@pytest.mark.parametrize("name", OWN)
def test_shapes_and_modes(name):
    net = small(name, classes=7)
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    given = images.clone()
    assert net.train()(images).shape == (4, 7)
    state = {key: value.clone() for key, value in net.eval().state_dict().items()}
    one, all_four = net(images[:1]), net(images)
    assert torch.allclose(one, all_four[:1], atol=1e-4)
    assert torch.equal(images, given)
    assert all(torch.equal(value, state[key]) for key, value in net.state_dict().items())
    assert small(name, channels=1)(torch.rand(2, 1, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize("name", OWN)
def test_nothing_works_in_place(name):
    net = small(name).eval()
    assert not any(getattr(module, "inplace", False) for module in net.modules())
    kept = []
    for module in net.modules():
        if not list(module.children()):
            module.register_forward_hook(lambda module, inputs, output: kept.append((output, output.detach().clone())))
    net(torch.rand(1, 3, 32, 32))
    assert kept
    assert all(torch.equal(output, copy) for output, copy in kept)


@pytest.mark.parametrize("name", OWN)
def test_gradients_reach_the_image_and_every_weight(name):
    net = small(name).train()
    images = torch.rand(4, 3, 32, 32, requires_grad=True)
    net(images).square().sum().backward()
    assert images.grad.abs().sum() > 0
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in net.parameters())


@pytest.mark.parametrize("name", OWN)
def test_methods_explain_it(name):
    model = sal.Model(small(name), mean=(0.5,) * 3, std=(0.25,) * 3, size=32)
    for method in ("gradient", "gradcam", "beta_smoothing"):
        e = sal.explain(method, model, torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)), targets=0)
        assert torch.isfinite(e.maps).all()


def test_residual_block_of_resnet9_adds_after_the_relu():
    block = next(module for module in small("resnet9").modules() if type(module).__name__ == "Residual")
    x = torch.randn(1, 8, 4, 4)
    out = block.eval()(x)
    assert (out >= x).all()
    assert (out < 0).any()


def test_shortcuts_of_the_small_resnets_have_no_weights():
    net = small("resnet20").eval()
    blocks = [module for module in net.modules() if type(module).__name__ == "Block"]
    assert len(blocks) == 9
    assert not any(tuple(module.kernel_size) == (1, 1) for module in net.modules() if isinstance(module, nn.Conv2d))
    body, block = blocks[3].body, blocks[3]
    nn.init.zeros_(body[4].weight)
    nn.init.zeros_(body[4].bias)
    x = torch.rand(1, 4, 8, 8)
    assert torch.equal(block(x)[:, 2:6], x[:, :, ::2, ::2])
    assert block(x)[:, :2].sum() == block(x)[:, 6:].sum() == 0


def test_resnet20_takes_published_weights():
    """The weights of another implementation, tensor by tensor in order, know CIFAR-10."""
    file, pictures = SHARED / "cifar_models" / "akamaster_resnet20-12fca82f.th", SHARED / "cifar10_lossless4000_train.npz"
    if not (file.exists() and pictures.exists()):
        pytest.skip("needs ../shared/data/cifar_models")
    stored = torch.load(file, weights_only=True, map_location="cpu")["state_dict"]
    net = spec.build("architecture", "resnet20").build()
    own = net.state_dict()
    stored = [value for key, value in stored.items() if not key.endswith("num_batches_tracked")]
    names = [key for key in own if not key.endswith("num_batches_tracked")]
    net.load_state_dict(own | dict(zip(names, stored, strict=True)))
    data = sal.load_dataset("cifar10", root=str(pictures), split="train", limit=100)
    model = sal.Model(net.eval(), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    images = sal.load_images([item.picture for item in data], model)
    assert (model.outputs(images).argmax(1) == torch.tensor([item.labels[0] for item in data])).float().mean() > 0.9


def test_without_a_download_the_message_names_what_can_be_typed(monkeypatch):
    """With --full nobody has written pretrained=true, which it said to leave out."""

    def refuse(name):
        raise OSError("no network")

    monkeypatch.setattr("torchvision.models.get_model_weights", refuse)
    with pytest.raises(sal.InputError, match=r"^The weights of torchvision:resnet18 could not be downloaded \(no network\): begin untrained with --architecture torchvision:resnet18\.$"):
        Architecture.from_value("torchvision:resnet18:pretrained=true").begin()


def test_torchvision_by_name():
    net = Architecture.from_value("torchvision:mobilenet_v3_small:classes=3")
    assert net.build()(torch.rand(2, 3, 64, 64)).shape == (2, 3)
    assert str(net) == "torchvision:mobilenet_v3_small:classes=3"
    with pytest.raises(sal.InputError, match=r"^Unknown torchvision model 'resnet17': did you mean resnet18.*\?$"):
        Architecture.from_value("torchvision:resnet17").build()
    with pytest.raises(sal.InputError, match=r"^torchvision:resnet18 has its own width, and 3 channels: leave these options out\.$"):
        Architecture.from_value("torchvision:resnet18:width=3").build()


@pytest.mark.parametrize(("name", "least"), [("resnet18", 8), ("resnet34", 8), ("resnet50", 2), ("resnet101", 2)])
def test_residual_networks_too_narrow_for_torch_are_refused(name, least):
    """With fewer channels the backward pass of a shortcut ended the process: torch writes beyond its memory."""
    with pytest.raises(sal.InputError, match=rf"^{name}: width must be at least {least}, not {least - 1}\.$"):
        Architecture.from_value(f"{name}:width={least - 1}")
    net = Architecture.from_value(f"{name}:width={least}").build()
    assert min(module.in_channels for module in net.modules() if isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and module.stride == (2, 2)) == 8


def test_what_is_not_an_architecture():
    with pytest.raises(sal.InputError, match=r"^An architecture is a specification such as 'resnet9:width=16', not int\.$"):
        Architecture.from_value(3)
    with pytest.raises(sal.InputError, match=r"^Unknown architecture 'resnet19': did you mean resnet.*\?$"):
        Architecture.from_value("resnet19")
    with pytest.raises(sal.InputError, match=r"^lenet: width must be at least 1, not 0\.$"):
        Architecture.from_value("lenet:width=0")


def test_batch_norm_of_resnet9_follows_the_last_batches():
    assert {module.momentum for module in small("resnet9").modules() if isinstance(module, nn.BatchNorm2d)} == {0.9}
