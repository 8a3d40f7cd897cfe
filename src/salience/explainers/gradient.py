"""The plain gradient."""

from collections.abc import Sequence

from salience.core.classifier import Classifier
from salience.core.draws import Stream
from salience.core.explainer import Explainer
from salience.core.model import Model
from salience.core.montecarlo import Attribution
from salience.core.registry import register
from salience.core.types import Images, Targets


@register("explainer", "gradient", signed=True, stochastic=False, needs_gradient=True, unit="{score} per unit of pixel value", cites="Simonyan et al. 2014")
class Gradient(Explainer):
    """The gradient of the target's score with respect to the image: df/dx.

    Cost: one forward and one backward pass an image.

    Source: Simonyan, Vedaldi & Zisserman (2014), "Deep inside convolutional networks".

    Differs from the source: signed; the paper's map is its absolute maximum over the channels, which is
    ``e.saliency("abs_max")``. In [0, 1] pixel space, so the normalisation's std divides it.
    """

    def attribute(self, model: Classifier, images: Images, targets: Targets, streams: Sequence[Stream]) -> Attribution:
        """The gradient, with the outputs that came along."""
        if isinstance(model, Model):
            gradient, outputs = model.gradient_and_outputs(images, targets)
            return Attribution(gradient, outputs)
        return Attribution(model.gradient(images, targets))
