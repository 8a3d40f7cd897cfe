"""Contrastive excitation backpropagation."""

from collections.abc import Sequence
from contextlib import ExitStack

import torch
from torch import Tensor

from salience.core.classifier import Classifier
from salience.core.draws import Stream
from salience.core.errors import InputError, unknown
from salience.core.explainer import Explainer
from salience.core.montecarlo import Attribution
from salience.core.options import option
from salience.core.registry import register
from salience.core.types import Images, Targets
from salience.explainers._excitation import winning_maps
from salience.explainers._layers import captured, positive, white_box
from salience.explainers._linear import Linear, pullback
from salience.explainers._relevance import RelevancePass


@register("explainer", "contrastive_excitation_backprop", signed=False, stochastic=False, needs_gradient=True, unit="winning probability above that of the opposite", cites="Zhang et al. 2016")
class ContrastiveExcitationBackprop(Explainer):
    """Excitation backpropagation of the target against that of its opposite, the unit with negated weights.

    Both winning probabilities are taken down to the contrast layer and normalised there to sum 1; their difference is
    propagated on to the layer, summed over its channels and rectified. It tells classes apart where
    `excitation_backprop` shows whatever is salient.

    Cost: about five forward passes an image.

    Source: Zhang, Lin, Brandt, Shen & Sclaroff (2016), "Top-down neural attention by excitation backprop", section 3.3.

    Differs from the source: the contrast layer is by default the input of the last layer with weights (VGG16: classifier.4,
    ResNet-50: avgpool, as there); a
    convolution to the classes and the mean above it count as one linear layer (with places shared first, target and opposite would cancel at each); otherwise as `excitation_backprop`.
    """

    layer: str | None = option(None, "name of the layer; none: the last one whose map is not too coarse")
    contrast: str | None = option(None, "name of the contrast layer; none: the input of the last layer with weights")

    explains_score = False

    def attribute(self, model: Classifier, images: Images, targets: Targets, streams: Sequence[Stream]) -> Attribution:
        """The rectified difference at the layer."""
        model = white_box(model, self)
        modules = dict(model.module.named_modules())
        if self.contrast is not None and self.contrast not in modules:
            raise unknown("layer", self.contrast, [each for each in modules if each])
        with ExitStack() as stack:
            kept = stack.enter_context(captured(modules[self.contrast])) if self.contrast is not None else None

            def start(network: RelevancePass, outputs: Tensor, one_hot: Tensor) -> tuple[Tensor, Tensor]:
                if network.top is None or (kept is not None and not kept):
                    raise InputError(f"{model.name} has no layer with weights above the contrast layer: name another with contrast=NAME.")
                top, inputs = network.top
                if kept is None and inputs.ndim == 4 and top.weight is not None and len(top.weight) == outputs.shape[1]:
                    return inputs, _normalised(_pooled(top, inputs, one_hot)) - _normalised(_pooled(top.scaled(-1, None), inputs, one_hot))
                at = kept[-1] if kept is not None else inputs
                (own,) = torch.autograd.grad(outputs, at, one_hot, retain_graph=True, allow_unused=True, materialize_grads=True)
                with network.top_negated():
                    (opposite,) = torch.autograd.grad(outputs, at, one_hot, retain_graph=True, allow_unused=True, materialize_grads=True)
                return at, _normalised(own) - _normalised(opposite)

            return winning_maps(self, self.layer, model, images, targets, start, rectified=True)


def _pooled(top: Linear, inputs: Tensor, one_hot: Tensor) -> Tensor:
    """The inputs' contributions to the mean of the target's map, up to a factor."""
    active = positive(inputs.detach())
    total, back = pullback(top.split, active)
    return active * back(one_hot[:, :, None, None].expand_as(total))[0]


def _normalised(probability: Tensor) -> Tensor:
    """Each image's probabilities, with sum 1 (0 where there are none)."""
    total = probability.flatten(1).sum(1).view(-1, *(1,) * (probability.ndim - 1))
    return probability / torch.where(total > 0, total, 1)
