"""Marginal winning probabilities: what excitation backpropagation and its contrastive form have in common."""

from collections.abc import Callable

import torch
from torch import Tensor

from salience.core.errors import InputError
from salience.core.explainer import Explainer
from salience.core.model import Model
from salience.core.montecarlo import Attribution
from salience.core.types import Images, Targets
from salience.explainers._layers import captured, find_layer, positive, upsampled
from salience.explainers._linear import Bounds, Linear, pullback, stabilised
from salience.explainers._relevance import RelevancePass

COARSEST = 18.0
"""Pixels between two positions of the default layer at most: a sixteenth of the image, as in the paper's layers."""

Start = Callable[[RelevancePass, Tensor, Tensor], tuple[Tensor, Tensor]]
"""From the pass, the outputs and the target's one-hot vector to the tensor to start from and its probabilities."""


def winning(layer: Linear, inputs: Tensor, probability: Tensor, _: Bounds | None) -> Tensor:
    """P_i = sum_j a_i max(w_ij, 0) / (sum_i a_i max(w_ij, 0)) P_j, negative activations counting as none."""
    active = positive(inputs)
    total, back = pullback(layer.split, active)
    return active * back(probability / stabilised(total, torch.finfo(total.dtype).tiny))[0]


def winning_maps(method: Explainer, name: str | None, model: Model, images: Images, targets: Targets, start: Start, *, rectified: bool = False) -> Attribution:
    """The winning probabilities at a layer, summed over its channels, as maps of the images.

    Args:
        method: The method, for messages.
        name: The layer, or None to find one.
        model: The network.
        images: (n, c, h, w).
        targets: (n,).
        start: Where the probabilities start.
        rectified: Whether the layer's map is rectified, before it is enlarged.
    """
    model = model.using(precision="float32")  # shares of bfloat16 do not add up
    layer = find_layer(model, images, name, coarsest=COARSEST, below_top=True)
    maps, outputs = [], []
    for part in model.chunks(images):
        with torch.enable_grad(), captured(layer.module) as kept:
            network = RelevancePass(method.name, model.name, winning)
            inputs = network.enter_images(images[part].detach().requires_grad_(True))
            with network:
                values = model.checked(model(inputs), inputs)
            one_hot = torch.zeros_like(values).scatter_(1, targets[part][:, None], 1)
            top, probability = start(network, values, one_hot)
            if not top.requires_grad:
                raise InputError(
                    f"{method.name} takes a sigmoid for a gate, which passes nothing on, and no other way leads from the image to the outputs of {model.name}: choose another method, such as gradient."
                )
            (made,) = torch.autograd.grad(top, kept[layer.call], probability, allow_unused=True)
        if made is None:
            raise InputError(f"The outputs of {model.name} do not depend on its layer {layer.name!r}, or it lies above the contrast layer: name another layer.")
        summed = layer.spatial(made).sum(1, keepdim=True)
        maps.append(positive(summed) if rectified else summed)
        outputs.append(values.detach())
    return Attribution(upsampled(torch.cat(maps), images.shape[-2:]), torch.cat(outputs))
