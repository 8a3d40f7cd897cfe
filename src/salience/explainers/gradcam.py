"""Grad-CAM."""

from collections.abc import Sequence

import torch
from torch import Tensor

from salience.core.classifier import Classifier
from salience.core.draws import Stream
from salience.core.errors import InputError
from salience.core.explainer import Explainer
from salience.core.model import Model
from salience.core.montecarlo import Attribution
from salience.core.options import option
from salience.core.registry import register
from salience.core.types import Images, Outputs, Targets
from salience.explainers._layers import Layer, captured, find_layer, upsampled, white_box


@register("explainer", "gradcam", signed=False, stochastic=False, needs_gradient=True, cites="Selvaraju et al. 2017")
class GradCAM(Explainer):
    """A layer's channels, weighted by how much the score depends on them: ReLU(sum_k alpha_k A_k).

    alpha_k is the mean over the positions of the gradient of the score with respect to channel k of the layer's
    output A. The map has the layer's resolution and is enlarged bilinearly.

    Cost: one forward pass an image, a backward pass down to the layer, and one forward pass more to find the layer; where a class token or
    registers join the image's tokens, that far again.

    Source: Selvaraju et al. (2017), "Grad-CAM".

    Differs from the source: the layer is the last one with a map of the image, found by a forward pass; in a
    transformer its tokens without the class token, before the last attention. `relu=false` keeps the map's negative part.
    """

    layer: str | None = option(None, "name of the layer; none: the last one with a map of the image")
    relu: bool = option(True, "keep only what speaks for the target")

    def attribute(self, model: Classifier, images: Images, targets: Targets, streams: Sequence[Stream]) -> Attribution:
        """The weighted sum of the layer's channels."""
        model = white_box(model, self)
        layer = find_layer(model, images, self.layer)
        maps, outputs = zip(*(self._part(model, layer, images[part], targets[part]) for part in model.chunks(images)), strict=True)
        return Attribution(upsampled(torch.cat(maps), images.shape[-2:]), torch.cat(outputs))

    def _part(self, model: Model, layer: Layer, images: Images, targets: Targets) -> tuple[Tensor, Outputs]:
        again = model.tape is not None and images.requires_grad
        with torch.enable_grad(), captured(layer.module) as kept:
            outputs = model.checked(model(images if again else images.detach().requires_grad_(True)), images)
            total = model.bound_score.of(outputs, targets).sum()
            (gradient,) = torch.autograd.grad(total, kept[layer.call], allow_unused=True, create_graph=again) if total.requires_grad else (None,)
        if gradient is None or _only_prefix(layer, gradient):
            raise InputError(f"The score does not depend on the image's part of layer {layer.name!r}: choose an earlier one, or none to have it found.")
        features = layer.spatial(kept[layer.call] if again else kept[layer.call].detach())
        maps = (layer.spatial(gradient).mean((2, 3), keepdim=True) * features).sum(1, keepdim=True)
        return (maps.relu() if self.relu else maps), outputs if again else outputs.detach()


def _only_prefix(layer: Layer, gradient: Tensor) -> bool:
    """Whether only the class token (or another that is not the image's) has a gradient."""
    return layer.prefix + layer.suffix > 0 and not layer.spatial(gradient).count_nonzero() and bool(gradient.count_nonzero())
