import pytest
import torch
import torch.nn.functional as F
from layered_nets import Plain, distance, model, pictures, seeded, vit
from torch import nn

import salience as sal
from salience.explainers.attention_rollout import AttentionRollout, _Attention, _rolled


def by_hand(net, x):
    """The product of the attention matrices, from the query and key layers."""
    rolled, inputs = None, []
    handles = [block.attn.register_forward_hook(lambda _, args, __: inputs.append(args[0])) for block in net.blocks]
    net(x)
    for handle in handles:
        handle.remove()
    for block, tokens in zip(net.blocks, inputs, strict=True):
        heads, n, t, c = block.attn.num_heads, *tokens.shape
        query, key, _ = block.attn.qkv(tokens).reshape(n, t, 3, heads, c // heads).permute(2, 0, 3, 1, 4)
        weights = (query @ key.transpose(-1, -2) / (c // heads) ** 0.5).softmax(-1).mean(1)
        step = weights / 2 + torch.eye(t) / 2
        rolled = step if rolled is None else step @ rolled
    return rolled


@pytest.mark.parametrize("fused", [True, False])
def test_equals_the_definition(fused):
    net = vit()
    for block in net.blocks:
        block.attn.fused_attn = fused
    network, x = model(net), pictures(2, 16, 24)
    with torch.no_grad():
        rolled = by_hand(net, network.normalise(x))
    right = F.interpolate(rolled[:, 0, 1:].reshape(2, 1, 2, 3), (16, 24), mode="bilinear")
    e = AttentionRollout()(network, x)
    assert distance(e.maps, right) < 1e-5
    assert torch.equal(AttentionRollout()(network, x, targets=2).maps, e.maps)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize(
    ("options", "prefix", "read"),
    [
        ({"global_pool": "avg"}, 1, slice(1, None)),
        ({"global_pool": "avg", "class_token": False, "reg_tokens": 3}, 3, slice(3, None)),
        ({"global_pool": "map", "class_token": False}, 0, slice(None)),
        ({"reg_tokens": 3}, 4, slice(1)),
    ],
)
def test_the_rows_are_those_of_the_tokens_that_the_network_reads(options, prefix, read, fused):
    """The first token's row was taken wherever tokens stood before those of the image, though nothing reads a register, or a class token beside an average."""
    net = vit(**options)
    for block in net.blocks:
        block.attn.fused_attn = fused
    network, x = model(net), pictures(2, 16, 24)
    with torch.no_grad():
        rolled = by_hand(net, network.normalise(x))[:, read].mean(1)
    right = F.interpolate(rolled[:, prefix:].reshape(2, 1, 2, 3), (16, 24), mode="bilinear")
    assert distance(AttentionRollout()(network, x).maps, right) < 1e-5


def test_two_heads_of_a_distilled_network():
    import timm

    net = seeded(lambda: timm.create_model("deit_tiny_distilled_patch16_224", img_size=(16, 24), patch_size=8, embed_dim=16, depth=2, num_heads=2, num_classes=5))
    network, x = model(net), pictures(2, 16, 24)
    with torch.no_grad():
        rolled = by_hand(net, network.normalise(x))[:, :2].mean(1)
    right = F.interpolate(rolled[:, 2:].reshape(2, 1, 2, 3), (16, 24), mode="bilinear")
    assert distance(AttentionRollout()(network, x).maps, right) < 1e-5


def test_torchvisions_map_is_the_class_tokens_row():
    import torchvision

    net = seeded(lambda: torchvision.models.VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=4))
    nn.init.normal_(net.heads.head.weight)
    network, x = model(net), pictures(2, 32, 32)
    with torch.no_grad(), _Attention() as attention:
        network(x)
    right = F.interpolate(_rolled(attention.weights, 2)[:, 0, 1:].reshape(2, 1, 4, 4), (32, 32), mode="bilinear")
    assert distance(AttentionRollout()(network, x).maps, right) < 1e-5


def test_outputs_that_nothing_is_read_for_are_refused():
    net = vit()
    nn.init.zeros_(net.head.weight)
    with pytest.raises(sal.InputError, match=r"^The outputs of visiontransformer do not depend on its last attention differentiably, so .* use rise, occlusion or lime\.$"):
        AttentionRollout()(model(net), pictures(2, 16, 24))


@pytest.mark.parametrize("name", ["cait", "volo", "twins"])
def test_class_tokens_that_join_late_and_pooled_tokens_are_refused(name):
    """VOLO's map left out its last layers, that of Twins its first ones."""
    import timm

    def make():
        if name == "cait":
            return timm.models.Cait(img_size=64, embed_dim=16, depth=2, num_heads=2, num_classes=4)
        if name == "volo":
            return timm.models.VOLO((1, 1), img_size=64, stem_hidden_dim=8, embed_dims=(16, 16), num_heads=(2, 2), num_classes=4)
        return timm.models.Twins(img_size=64, embed_dims=(8, 16), num_heads=(1, 2), depths=(1, 1), sr_ratios=(2, 1), num_classes=4)

    with pytest.raises(sal.InputError, match=rf"^{name} has no attention from layer to layer over one and the same set of tokens"):
        AttentionRollout()(model(seeded(make)), pictures(1, 64, 64))


def test_rows_of_the_product_sum_to_one():
    weights = [torch.rand(2, 4, 4).softmax(-1) for _ in range(3)]
    assert torch.allclose(_rolled(weights, 2).sum(-1), torch.ones(2, 4))


def test_torchvisions_multi_head_attention():
    import torchvision

    net = seeded(lambda: torchvision.models.VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=4))
    nn.init.normal_(net.heads.head.weight)
    network, x = model(net), pictures(2, 32, 32)
    with torch.no_grad(), _Attention() as attention:
        seen = network(x)
        plain = attention.weights
    assert len(plain) == 2
    assert torch.allclose(seen, network(x), atol=1e-5)
    assert torch.allclose(plain[0].sum(-1), torch.ones(2, 17), atol=1e-5)
    assert AttentionRollout()(network, x).maps.shape == (2, 1, 32, 32)


def test_without_class_token_and_with_registers():
    x = pictures(1, 16, 24)
    for options in ({"global_pool": "avg", "class_token": False}, {"reg_tokens": 4}):
        maps = AttentionRollout()(model(vit(**options)), x).maps
        assert maps.shape == (1, 1, 16, 24)
        assert maps.std() > 0


def test_masks_and_scales_of_fused_attention():
    query, key = torch.rand(2, 1, 2, 5, 4).unbind(0)
    eye = torch.eye(5).expand(1, 2, 5, 5)
    for options in ({}, {"is_causal": True}, {"scale": 0.3}, {"attn_mask": torch.rand(5, 5) > 0.3}, {"attn_mask": torch.randn(5, 5)}):
        with _Attention() as attention:
            got = F.scaled_dot_product_attention(query, key, eye, **options)
        assert torch.allclose(attention.weights[0], got.mean(1), atol=1e-5, equal_nan=True)


def test_a_convolutional_network_is_refused():
    with pytest.raises(sal.InputError, match=r"plain has no attention from layer to layer over one and the same set of tokens \(none at all, .* use gradcam, or give a plain vision transformer\."):
        AttentionRollout()(model(seeded(Plain)), pictures())


def test_attention_within_windows_is_refused():
    import timm

    swin = seeded(lambda: timm.create_model("swin_tiny_patch4_window7_224", img_size=64, window_size=2, embed_dim=12, depths=(1, 1), num_heads=(1, 1), num_classes=4))
    with pytest.raises(sal.InputError, match=r"swintransformer has no attention from layer to layer over one and the same set of tokens"):
        AttentionRollout()(model(swin), pictures(1, 64, 64))
