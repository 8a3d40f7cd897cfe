"""Attention rollout."""

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from salience.core.classifier import Classifier
from salience.core.draws import Stream
from salience.core.errors import InputError
from salience.core.explainer import Explainer
from salience.core.model import Model
from salience.core.montecarlo import Attribution
from salience.core.registry import register
from salience.core.types import Images, Targets
from salience.explainers._layers import find_layer, upsampled, white_box


@register("explainer", "attention_rollout", signed=False, stochastic=False, needs_gradient=True, unit="share of the attention, whatever the class", cites="Abnar & Zuidema 2020")
class AttentionRollout(Explainer):
    """How much of each image token reaches the tokens that are read at the end, through a transformer's attention, layer after layer.

    A_L ... A_2 A_1 with A_l = (mean over heads of the attention of layer l + identity) / 2; the map is the mean of the rows of
    the tokens that the outputs are made from: the class token (with that of distillation, if there is one), or those of the image
    where the network averages them. It does not depend on the target. Enlarged bilinearly.

    Cost: one forward pass an image, and for one image two forward passes and a backward pass through the last layer.

    Source: Abnar & Zuidema (2020), "Quantifying attention flow in transformers".

    Differs from the source: which tokens are read is found by a gradient, as not every class token is. Weights are recovered where attention is computed by a fused function. Every
    attention is a layer: two side by side in one block (parallel blocks, differential attention) are taken as one after the other. A network without
    attention over one and the same set of tokens (convolutional, with windows or pooled tokens, with a class token that joins late) is refused.
    """

    explains_score = False

    def attribute(self, model: Classifier, images: Images, targets: Targets, streams: Sequence[Stream]) -> Attribution:
        """The product of the attention matrices, at the image's tokens."""
        model = white_box(model, self)
        maps, outputs = [], []
        layer, read = None, torch.empty(0)
        for part in model.chunks(images, gradients=False):
            with torch.no_grad(), _Attention() as attention:
                outputs.append(model.checked(model(images[part]), images[part]))
            rolled = _rolled(attention.weights, len(outputs[-1]))
            if rolled is None:
                raise InputError(
                    f"{model.name} has no attention from layer to layer over one and the same set of tokens (none at all, in windows, of pooled tokens, or a class token that joins late): use gradcam, or give a plain vision transformer."
                )
            if layer is None:
                layer, read = find_layer(model, images, None), _read(model, images[:1])
            height, width = layer.grid
            if layer.layout != "tokens" or rolled.shape[-1] != layer.prefix + height * width + layer.suffix:
                raise InputError(f"The {rolled.shape[-1]} tokens of {model.name} cannot be laid out over the image: use gradcam.")
            rows = rolled[:, read].mean(1)
            maps.append(layer.spatial(rows[:, :, None]))
        return Attribution(upsampled(torch.cat(maps), images.shape[-2:]), torch.cat(outputs))


def _rolled(weights: Sequence[Tensor], images: int) -> Tensor | None:
    """The product of (A + 1) / 2 over the layers, (n, tokens, tokens), or None if they do not fit together.

    Attention by fewer queries than tokens pools these in the end, and mixes nothing.
    """
    tokens = max((each.shape[1] for each in weights), default=0)
    if not tokens or any(each.shape[-1] != tokens or len(each) != images for each in weights):
        return None
    weights = [each for each in weights if each.shape[1] == tokens]
    identity = torch.eye(weights[0].shape[-1], device=weights[0].device)
    rolled = identity.expand(weights[0].shape)
    for each in weights:
        rolled = (each + identity) / 2 @ rolled
    return rolled


def _read(model: Model, image: Images) -> Tensor:
    """From which tokens of the last attention the outputs are made, (tokens,).

    Raises:
        InputError: If from none.
    """
    with torch.enable_grad(), _Attention() as attention:
        outputs = model(image.detach().requires_grad_(True))
    weights = torch.linspace(-1, 1, outputs.numel(), device=outputs.device).view_as(outputs)
    gradient = torch.autograd.grad(outputs, attention.last, weights, allow_unused=True)[0] if outputs.requires_grad else None
    if gradient is None or not gradient.count_nonzero():
        raise InputError(f"The outputs of {model.name} do not depend on its last attention differentiably, so it is unknown which tokens they are made from: use rise, occlusion or lime.")
    return gradient.movedim(attention.axis, 0).flatten(1).any(1)


class _Attention(TorchFunctionMode):
    """Keeps the attention matrices (n, queries, tokens), averaged over heads, in the order of the layers, and what the last one over all tokens has made."""

    def __init__(self) -> None:
        super().__init__()
        self.weights: list[Tensor] = []
        self.last, self.axis = torch.empty(0), 0

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Called by torch for every function."""
        kwargs = kwargs or {}
        if func is F.multi_head_attention_forward:
            call = inspect.signature(func).bind(*args, **kwargs)
            wanted = call.arguments.get("need_weights", True), call.arguments.get("average_attn_weights", True)
            call.arguments |= {"need_weights": True, "average_attn_weights": False}
            output, weights = func(*call.args, **call.kwargs)
            self._keep(weights, output, 0)
            return output, (weights.mean(1) if wanted[1] else weights) if wanted[0] else None
        result = func(*args, **kwargs)
        if func is F.scaled_dot_product_attention:
            self._keep(_fused_weights(args, kwargs), result, -2)
        if func in (torch.softmax, Tensor.softmax, F.softmax):
            self._keep(result, result, -2)
        return result

    def _keep(self, weights: Tensor, made: Tensor, axis: int) -> None:
        """Keep weights (n, heads, queries, tokens), and what they have made, with the queries along an axis."""
        if weights.ndim == 4:
            self.weights.append(weights.detach().float().mean(1))
            if weights.shape[-1] == weights.shape[-2]:
                self.last, self.axis = made, axis


def _fused_weights(args: tuple, kwargs: dict) -> Tensor:
    """The weights that `F.scaled_dot_product_attention` computes and throws away."""
    names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa")
    given = dict.fromkeys(names) | dict(zip(names, args, strict=False)) | kwargs
    query, key, mask, scale = given["query"], given["key"], given["attn_mask"], given["scale"]
    if given["enable_gqa"]:
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
    logits = query.float() @ key.float().transpose(-1, -2) * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    if given["is_causal"]:
        mask = torch.ones(logits.shape[-2:], dtype=torch.bool, device=logits.device).tril()
    if mask is not None:
        logits = logits.masked_fill(~mask, -math.inf) if mask.dtype is torch.bool else logits + mask
    return logits.softmax(-1)
