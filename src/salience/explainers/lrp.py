"""Layer-wise relevance propagation."""

from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from salience.core.classifier import Classifier
from salience.core.draws import Stream
from salience.core.errors import InputError
from salience.core.explainer import Explainer
from salience.core.montecarlo import Attribution
from salience.core.options import option
from salience.core.quick import as_written
from salience.core.registry import register
from salience.core.types import Images, Targets
from salience.explainers._layers import positive, white_box
from salience.explainers._linear import Bounds, Linear, pullback, stabilised
from salience.explainers._relevance import RelevancePass

TINY = torch.finfo(torch.float32).tiny


@register("explainer", "lrp", signed=True, stochastic=False, needs_gradient=True, unit="{score}", cites="Bach et al. 2015; Montavon et al. 2019")
class LRP(Explainer):
    """The target's score, handed back layer by layer to the pixels in proportion to their contributions.

    With z_ij = x_i w_ij, unit j shares its relevance R_j among its inputs: R_i = sum_j z'_ij / (sum_i z'_ij) R_j, where
    `epsilon`: z' = z, with epsilon added to the denominator's size; `gamma`: contributions of the sign of the unit's
    sum count 1 + gamma times. At the image z^B: z' = x_i w_ij - l_i max(w_ij, 0) - h_i min(w_ij, 0), where l and h are black
    and white. A residual sum is a layer with weights of one; batch normalisation is merged into the layer before it.

    The part b_j of a bias is, by `biases`: ``spread`` over the inputs in proportion to |z_ij|; left out of the rule (``zero``); or kept
    (``keep``: the sums above include it, nobody gets it; the textbook's rule). With the first two the map's sum is the score,
    a unit without active inputs counting as a bias of the units above it. The note ``bias_share`` is the share of the
    score that the map lacks; with ``keep`` it is what the biases took. Of another score than the logit it is not the score that is
    taken back but every logit times the score's slope in it: the map's sum is the sum of these.

    Cost: about ten forward passes an image.

    Source: Bach et al. (2015), "On pixel-wise explanations for non-linear classifier decisions by layer-wise relevance
    propagation"; gamma: Montavon et al. (2019), "Layer-wise relevance propagation: an overview", for inputs of either sign as Andéol et
    al. (2021); z^B: Montavon et al. (2017).

    Differs from the source: one rule for all layers but the first; gates (sigmoids) take no relevance (Arras et al. 2017). An
    operation without a rule (softmax attention, layer normalisation) is refused by name. By default gamma spreads biases and epsilon keeps
    them: without them epsilon divides by sums that can be anything, and on deep networks the map overflows.
    """

    rule: Literal["gamma", "epsilon"] = option("gamma", "how contributions count in all layers but the first")
    gamma: float = option(0.25, "extra weight of contributions that agree with the unit's sum", above=0)
    epsilon: float = option(1e-6, "epsilon rule: added to the denominators' size", above=0)
    first: Literal["box", "rule"] = option("box", "rule of the layer at the image: box (z^B), or the same as all others")
    biases: Literal["spread", "zero", "keep"] | None = option(None, "what becomes of the biases' part; none: spread for gamma, keep for epsilon")

    def attribute(self, model: Classifier, images: Images, targets: Targets, streams: Sequence[Stream]) -> Attribution:
        """The relevance of every pixel and channel."""
        model = white_box(model, self).using(precision="float32")  # shares of bfloat16 do not add up
        biases = self.biases or ("spread" if self.rule == "gamma" else "keep")
        maps, outputs, totals = [], [], []
        for part in model.chunks(images):
            with torch.enable_grad():
                inputs = images[part].detach().requires_grad_(True)
                network = RelevancePass(self.name, model.name, partial(self._share, biases), biases=biases == "keep")
                start = network.enter_images(inputs)
                with as_written(), network:
                    values = model.checked(model(start), inputs)
                if not values.requires_grad:
                    raise InputError(
                        f"Nothing of the outputs of {model.name} can be taken back to the image, as they do not depend on it differentiably, or through sigmoids alone, which count as gates: choose rise, occlusion or lime."
                    )
                leaf = values.detach().requires_grad_(True)
                (slope,) = torch.autograd.grad(model.bound_score.of(leaf, targets[part]).sum(), leaf)
                relevance = slope * leaf.detach()
                maps.append(torch.autograd.grad(values, inputs, relevance)[0])
            outputs.append(values.detach())
            totals.append(relevance.sum(1))
        made, total = torch.cat(maps), torch.cat(totals)
        if not torch.isfinite(made).all():
            raise InputError(f"The {self.rule} rule overflows on {model.name} with biases={biases}: use rule=gamma, or biases=keep.")
        share = torch.where(total == 0, 0, 1 - made.sum((1, 2, 3)) / total)
        return Attribution(made, torch.cat(outputs), {"bias_share": share})

    def _share(self, biases: str, layer: Linear, inputs: Tensor, relevance: Tensor, bounds: Bounds | None) -> Tensor:
        """The inputs' relevance, by the rule that belongs here."""
        if bounds is not None and self.first == "box":
            return self._box(layer, inputs, relevance, bounds)
        gamma = self.gamma if self.rule == "gamma" else 0.0
        parts = (positive(inputs), -positive(-inputs)) if bool((inputs < 0).any()) else (inputs,)
        whole, back_whole = pullback(layer.whole, inputs)
        above, back_above = pullback(layer.split, *parts)
        size = 2 * above - whole
        bias = torch.zeros_like(whole) if layer.bias is None or biases == "zero" else layer.bias.expand_as(whole)
        up = whole + bias >= 0
        bias = bias + gamma * torch.where(up, positive(bias), -positive(-bias))
        share = relevance / stabilised(whole + gamma * torch.where(up, above, whole - above) + bias, self.epsilon if self.rule == "epsilon" else TINY)
        share = torch.where(size > 0, share, torch.zeros_like(share))
        extra = share * bias / stabilised(size, TINY) if biases == "spread" else torch.zeros_like(share)
        (one,) = back_whole(torch.where(up, share, (1 + gamma) * share) - extra)
        two = back_above(torch.where(up, gamma * share, -gamma * share) + 2 * extra)
        return inputs * one + sum(part * pulled for part, pulled in zip(parts, two, strict=True))

    def _box(self, layer: Linear, inputs: Tensor, relevance: Tensor, bounds: Bounds) -> Tensor:
        total, back = pullback(layer.whole, inputs)
        least, back_least = pullback(layer.split, *bounds)
        share = relevance / stabilised(total - least, TINY)
        low, high = back_least(share)
        return inputs * back(share)[0] - bounds[0] * low - bounds[1] * high
