"""Excitation backpropagation."""

from collections.abc import Sequence

from salience.core.classifier import Classifier
from salience.core.draws import Stream
from salience.core.explainer import Explainer
from salience.core.montecarlo import Attribution
from salience.core.options import option
from salience.core.registry import register
from salience.core.types import Images, Targets
from salience.explainers._excitation import winning_maps
from salience.explainers._layers import white_box


@register("explainer", "excitation_backprop", signed=False, stochastic=False, needs_gradient=True, unit="winning probability", cites="Zhang et al. 2016")
class ExcitationBackprop(Explainer):
    """The probability that each place of a layer wins when the target is traced downwards (marginal winning probability).

    P_i = sum_j P_j a_i max(w_ij, 0) / sum_i a_i max(w_ij, 0), from P = 1 at the target down to the layer, summed over its
    channels: a map whose sum is at most 1 at the layer. What a unit has from nothing positive (from its bias, or from negative activations with
    negative weights) it cannot hand on: hardly anything is lost in networks such as VGG and ResNet, most of it over depthwise convolutions. Batch normalisation is merged into the layer before it, residual sums share in
    proportion to the activations, max pooling hands on to the maximum. Enlarged bilinearly.

    Cost: about four forward passes an image.

    Source: Zhang, Lin, Brandt, Shen & Sclaroff (2016), "Top-down neural attention by excitation backprop".

    Differs from the source: negative activations (before a ReLU, or of layers without one) count as none; units without any
    active input are left out; the layer is by default the last one with at most 18 pixels between its positions,
    or the pooling layer that made its size (VGG16: features.23, ResNet-50: layer3).
    """

    layer: str | None = option(None, "name of the layer; none: the last one whose map is not too coarse")

    explains_score = False

    def attribute(self, model: Classifier, images: Images, targets: Targets, streams: Sequence[Stream]) -> Attribution:
        """The winning probabilities at the layer."""
        return winning_maps(self, self.layer, white_box(model, self), images, targets, lambda network, outputs, one_hot: (outputs, one_hot))
