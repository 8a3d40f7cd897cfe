import copy

import pytest
import skimage.data
import torch
import torch.nn.functional as F
from layered_nets import Plain, Residual, distance, model, pictures, seeded, vit
from PIL import Image
from torch import nn

import salience as sal
from salience.explainers._layers import find_layer
from salience.explainers.gradcam import GradCAM


def by_hand(network, net, x, target, layer):
    """Grad-CAM with one captured tensor and one gradient."""
    kept = []
    handle = layer.register_forward_hook(lambda *call: (kept.append(call[2]), call[2].clone())[1])
    outputs = network(x.clone().requires_grad_(True))
    handle.remove()
    (gradient,) = torch.autograd.grad(outputs[:, target].sum(), kept[0])
    return (gradient.mean((2, 3), keepdim=True) * kept[0].detach()).sum(1, keepdim=True)


def test_equals_captum_and_the_formula():
    captum = pytest.importorskip("captum.attr")
    net = seeded(Plain)
    network, x = model(net), pictures()
    theirs = captum.LayerGradCam(network, net.relu3).attribute(x, target=1)
    ours = GradCAM(relu=False)(network, x, targets=1).maps
    assert distance(ours, F.interpolate(theirs.detach(), x.shape[-2:], mode="bilinear")) < 1e-5
    assert distance(GradCAM(layer="relu3")(network, x, targets=1).maps, F.interpolate(theirs.detach().relu(), x.shape[-2:], mode="bilinear")) < 1e-5


def test_operations_in_place_do_not_corrupt_the_layer():
    """pytorch-grad-cam is wrong by 30 at resnet18's layer4[-1].bn2, which the residual sum overwrites."""
    import torchvision

    net = seeded(lambda: torchvision.models.resnet18(num_classes=4))
    network, x = model(net), pictures(2, 64, 96)
    for name in ("layer4.1.bn2", "layer1.0.bn1"):
        right = by_hand(network, net, x, 1, net.get_submodule(name))
        ours = GradCAM(layer=name, relu=False)(network, x, targets=1).maps
        assert distance(ours, F.interpolate(right, x.shape[-2:], mode="bilinear")) < 1e-4


class Where(nn.Module):
    """The score is the brightness of the first channel: its Grad-CAM is the image itself."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1, bias=False)
        self.conv.weight.data.copy_(torch.eye(3)[:, :, None, None])

    def forward(self, x):
        return self.conv(x).mean((2, 3))


def test_height_and_width_are_not_swapped():
    x = torch.zeros(1, 3, 5, 11)
    x[0, 0, 1, 9] = 1
    maps = GradCAM()(sal.Model(Where()), x, targets=0).maps
    assert maps.shape == (1, 1, 5, 11)
    assert maps.argmax() == 1 * 11 + 9


def test_every_image_of_a_batch_has_its_own_map():
    network, x = model(seeded(Residual)), pictures(3)
    together = GradCAM(relu=False)(network, x, targets=1).maps
    assert all(each.abs().sum() > 0 and torch.isfinite(each).all() for each in together)
    for image, each in zip(x, together, strict=True):
        assert distance(GradCAM(relu=False)(network, image[None], targets=1).maps[0], each) < 1e-4


@pytest.mark.parametrize(
    ("options", "prefix", "name"),
    [
        ({}, 1, "blocks.1.norm1"),
        ({"reg_tokens": 3}, 4, "blocks.1.norm1"),
        ({"global_pool": "avg", "class_token": False}, 0, "norm"),
        ({"global_pool": "map", "class_token": False}, 0, "attn_pool.kv"),  # not the heads of its keys, (6 tokens x 8 channels)
    ],
)
def test_token_grid_is_found(options, prefix, name):
    x = pictures(2, 16, 24)
    network = model(vit(**options), size=(16, 24))
    layer = find_layer(network, x, None)
    assert (layer.name, layer.layout, layer.grid, layer.prefix) == (name, "tokens", (2, 3), prefix)
    maps = GradCAM(relu=False)(network, x, targets=1).maps
    assert maps.shape == (2, 1, 16, 24)
    assert maps.flatten(1).std(1).min() > 0


class Beside(nn.Module):
    """A vision transformer with other tokens where `join` puts them, before, behind or amidst those of the image; the mean of all image tokens is read, or the first of the others."""

    def __init__(self, join, others: int, mean: bool):
        super().__init__()
        self.join, self.mean = join, mean
        self.embed, self.others, self.places = nn.Conv2d(3, 16, 8, 8), nn.Parameter(torch.randn(1, others, 16)), nn.Parameter(torch.randn(1, 6, 16))
        self.blocks = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 2, enable_nested_tensor=False)
        self.head = nn.Linear(16, 4)

    def forward(self, x):
        tokens = self.embed(x).flatten(2).transpose(1, 2) + self.places
        where = self.join(torch.arange(6), torch.arange(6, 6 + self.others.shape[1]))
        x = self.blocks(torch.cat([tokens, self.others.expand(len(x), -1, -1)], 1)[:, where])
        return self.head(x[:, where < 6].mean(1) if self.mean else x[:, (where == 6).nonzero()[0, 0]])


def before(image, others):
    return torch.cat([others, image])


def behind(image, others):
    return torch.cat([image, others])


def around(image, others):
    return torch.cat([others[:1], image, others[1:]])


def amidst(image, others):
    return torch.cat([image[:3], others, image[3:]])


@pytest.mark.parametrize("method", ["gradcam:relu=false", "gradcam:relu=false,layer=blocks.layers.0", "attention_rollout"])
@pytest.mark.parametrize(("others", "mean"), [(1, False), (3, False), (3, True)])
def test_other_tokens_may_stand_before_those_of_the_image_or_behind_them(method, others, mean):
    nets = [seeded(lambda join=join: Beside(join, others, mean)) for join in (before, behind, around)]
    right, *rest = [sal.explain(method, sal.Model(net.eval()), pictures(2, 16, 24), targets=1).maps for net in nets]
    assert max(distance(each, right) for each in rest) < 1e-4
    with pytest.raises(sal.InputError, match=rf"has {6 + others} tokens, of which the image's 2 x 3 are not in one piece"):
        sal.explain(method, sal.Model(seeded(lambda: Beside(amidst, others, mean)).eval()), pictures(2, 16, 24), targets=1)


class Windows(nn.Module):
    """Attention of each quarter of the picture's tokens within itself, in the order of the quarters, ``windows``, as sequences or as maps; in the picture's in the end."""

    def __init__(self, maps):
        super().__init__()
        self.maps = maps
        self.embed, self.norm, self.windows, self.rows, self.head = nn.Conv2d(3, 16, 4, 4), nn.LayerNorm(16), nn.Linear(16, 16), nn.Identity(), nn.Linear(16, 4)
        self.attention = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)

    def forward(self, x):
        tokens = self.norm(self.embed(x).permute(0, 2, 3, 1))
        parts = tokens.unflatten(1, (2, 4)).unflatten(3, (2, 4)).transpose(2, 3).reshape(-1, 16, 16)
        parts = self.attention(parts).view(len(x), 4, 16, 16)
        parts = self.windows(parts) if self.maps else self.windows(parts.flatten(1, 2)).view(len(x), 4, 16, 16)
        return self.head(self.rows(parts.reshape(-1, 2, 2, 4, 4, 16).transpose(2, 3).reshape(-1, 8, 8, 16)).mean((1, 2)))


def test_tokens_in_the_order_of_windows_are_refused():
    """Their maps were scrambled, as of named layers of timm's hiera and nest."""
    x = pictures(2, 32, 32)
    message = r"^The tokens of layer 'windows' of windows are not in the order of the image's rows \(but in that of windows, say\), so it has no map of the image: choose another layer, or a method that needs none, such as gradient or rise\.$"
    for maps, refused in ((False, message), (True, r"^The layer 'windows' has outputs of shape \(1, 4, 16, 16\), so it has no map of the image: choose another, for example 'rows'\.$")):
        network = model(seeded(lambda maps=maps: Windows(maps)), size=(32, 32))
        with pytest.raises(sal.InputError, match=refused):
            GradCAM(layer="windows")(network, x)
        assert find_layer(network, x, None).name == find_layer(network, x, "rows").name == "rows"


class Linear(nn.Module):
    """A map of 8 x 8 with 9 channels, which are last in `last`; in `pieces` it is in 16 pieces of 2 x 2, its channels first."""

    def __init__(self):
        super().__init__()
        self.embed, self.last, self.pieces, self.head = nn.Conv2d(3, 9, 4, 4), nn.Linear(9, 9), nn.Conv2d(9, 9, 1), nn.Linear(9, 4)

    def forward(self, x):
        x = self.last(self.embed(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        pieces = x.reshape(-1, 9, 4, 2, 4, 2).permute(0, 1, 3, 5, 2, 4).reshape(-1, 9, 4, 16)
        return self.head(self.pieces(pieces).mean((2, 3)))


def test_channels_are_last_where_a_linear_layer_makes_them():
    """A map (8, 8, 9) was read as one of 8 x 9 with 8 channels, as in timm's GCViT; and maps in pieces as maps of 4 x 16, as in its MobileViTv2."""
    network, x = model(seeded(Linear), size=(32, 32)), pictures(1, 32, 32)
    assert (find_layer(network, x, "last").layout, find_layer(network, x, "last").grid) == ("nhwc", (8, 8))
    with pytest.raises(sal.InputError, match=r"^The layer 'pieces' has outputs of shape \(1, 9, 4, 16\), so it has no map of the image: choose another, for example 'last'\.$"):
        GradCAM(layer="pieces")(network, x)


def test_the_weights_of_an_attention_are_no_grid_of_patches():
    """Those of a class token that looks at all others have the shape of a map of one row, of which the map of timm's CrossViT was made."""

    class Looks(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.drop, self.head = nn.Conv2d(3, 16, 8, 8), nn.Identity(), nn.Linear(16, 4)
            self.token, self.norm = nn.Parameter(torch.randn(1, 1, 16)), nn.LayerNorm(16)

        def forward(self, x):
            tokens = self.norm(torch.cat([self.token.expand(len(x), -1, -1), self.embed(x).flatten(2).transpose(1, 2)], 1))
            weights = self.drop((tokens[:, None, :1] @ tokens[:, None].transpose(2, 3)).softmax(-1))
            return self.head((weights[:, 0] @ tokens)[:, 0])

    network = model(seeded(Looks), size=(24, 32))
    layer = find_layer(network, pictures(1, 24, 32), "norm")
    assert (layer.grid, layer.prefix) == ((3, 4), 1)


def test_other_transformers():
    import timm
    import torchvision

    def torchvisions():
        net = torchvision.models.VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=4)
        nn.init.normal_(net.heads.head.weight)
        return net

    network = model(seeded(torchvisions))
    layer = find_layer(network, pictures(1, 32, 32), None)
    assert (layer.name, layer.grid, layer.prefix) == ("encoder.layers.encoder_layer_1.ln_1", (4, 4), 1)
    swin = model(seeded(lambda: timm.create_model("swin_tiny_patch4_window7_224", img_size=64, window_size=2, embed_dim=12, depths=(1, 1), num_heads=(1, 1), num_classes=4)))
    assert find_layer(swin, pictures(1, 64, 64), None).layout == "nhwc"
    assert GradCAM(relu=False)(swin, pictures(1, 64, 64), targets=1).maps.abs().sum() > 0


def test_a_layer_without_influence_is_refused():
    with pytest.raises(sal.InputError, match=r"The score does not depend on the image's part of layer 'blocks\.1': choose an earlier one, or none to have it found\."):
        GradCAM(layer="blocks.1")(model(vit(), size=(16, 24)), pictures(1, 16, 24))


@pytest.mark.parametrize("method", ["gradcam", "excitation_backprop", "attention_rollout"])
@pytest.mark.parametrize("net", [vit, lambda: seeded(Plain)])
def test_a_network_without_gradient_is_refused(method, net):
    """With a transformer it was torch's own error."""

    class Still(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net()

        @torch.no_grad()
        def forward(self, x):
            return self.net(x)

    if method == "attention_rollout" and net is not vit:
        pytest.skip("refused since it has no attention")
    with pytest.raises(sal.InputError, match=r"^The outputs of still do not depend differentiably on the image: .*; use rise, occlusion or lime\.$"):
        sal.explain(method, model(Still()), pictures(2, 16, 24), 1)


def test_a_wrong_layer_is_refused():
    network = model(seeded(Plain))
    with pytest.raises(sal.InputError, match=r"Unknown layer 'conv9': did you mean conv"):
        GradCAM(layer="conv9")(network, pictures())
    with pytest.raises(sal.InputError, match=r"The layer 'head' has outputs of shape \(1, 4\), so it has no map of the image: choose another, for example 'relu3'\."):
        GradCAM(layer="head")(network, pictures())


def test_hooks_go_away_when_the_network_raises():
    class Raises(Plain):
        calls = 0

        def forward(self, x):
            self.calls += 1
            if self.calls == 3:
                raise KeyboardInterrupt
            return super().forward(x)

    network = model(seeded(Raises))
    before = copy.deepcopy(network.module.state_dict())
    with pytest.raises(KeyboardInterrupt):
        GradCAM()(network, pictures())
    assert all(not module._forward_hooks for module in network.modules())
    assert all(torch.equal(value, before[key]) for key, value in network.module.state_dict().items())


def test_default_model_on_a_photograph():
    network = sal.load_model()
    image = sal.load_images([Image.fromarray(skimage.data.coffee())], network)
    assert find_layer(network, image, None).grid == (7, 7)
    maps = GradCAM()(network, image).maps[0, 0]
    height, width = divmod(maps.argmax().item(), 224)
    assert 60 < height < 150  # on the cup
    assert 60 < width < 190
    assert maps[:30].mean() < maps[60:150, 60:190].mean()


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
@pytest.mark.parametrize("method", ["gradcam", "excitation_backprop"])
def test_the_layers_of_a_scripted_network_are_out_of_reach(method):
    """It was a RuntimeError about hooks."""
    network = model(torch.jit.script(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))))
    with pytest.raises(sal.InputError, match=r"has no layer with a map of the image: choose a method that needs none, such as gradient or rise\.$"):
        sal.explain(method, network, pictures())


class Gated(nn.Module):
    """One ReLU for the layers with a map, of which the second counts, and for the head; or one each."""

    def __init__(self, one):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.stem, self.body, self.hidden, self.head = nn.Conv2d(3, 8, 3, 1, 1), nn.Conv2d(8, 8, 3, 2, 1), nn.Conv2d(8, 16, 1), nn.Conv2d(16, 4, 1)
        self.first = nn.ReLU()
        self.second, self.third = (self.first, self.first) if one else (nn.ReLU(), nn.ReLU())

    def forward(self, x):
        features = self.second(self.body(self.first(self.stem(x))))
        return self.head(self.third(self.hidden(features.mean((2, 3), keepdim=True)))).flatten(1)


@pytest.mark.parametrize("method", ["gradcam:relu=false", "excitation_backprop", "contrastive_excitation_backprop"])
def test_a_module_that_is_called_several_times(method):
    """The last call was taken, whichever the layer was: the maps were flat."""
    images = torch.rand(2, 3, 16, 20, generator=torch.Generator().manual_seed(0))
    shared, separate = (sal.explain(method, sal.Model(Gated(one)), images, 1).maps for one in (True, False))
    assert separate.std() > 0
    torch.testing.assert_close(shared, separate)


def test_channels_that_would_fit_the_picture_are_channels():
    """A map (16, 12, 8) of a picture of 32 x 24 was read as one of 12 x 8 whose channels come last... or first."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(3, 8, 5, 2), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4)).eval()
    images = torch.rand(2, 3, 32, 24, generator=torch.Generator().manual_seed(0))
    features = net[:4](images).detach().requires_grad_(True)
    (slope,) = torch.autograd.grad(net[4:](features)[:, 1].sum(), features)
    expected = F.interpolate((slope.mean((2, 3), keepdim=True) * features).sum(1, keepdim=True).clamp_min(0), (32, 24), mode="bilinear")
    torch.testing.assert_close(sal.explain("gradcam", sal.Model(net), images, 1).maps, expected.detach(), rtol=1e-4, atol=1e-6)


def test_a_layer_with_a_comma_in_its_name():
    """Its record could not be read again: modules in a dictionary have any name."""
    method = GradCAM(layer="stages.a,b")
    assert str(method) == "gradcam:layer=(stages.a,b)"
    assert GradCAM.from_value(str(method)) == method
