"""Input times gradient."""

from collections.abc import Sequence

from salience.core.classifier import Classifier
from salience.core.draws import Stream
from salience.core.explainer import Explainer
from salience.core.montecarlo import Attribution
from salience.core.options import option
from salience.core.registry import register
from salience.core.types import Images, Targets
from salience.perturb.fills import Fill, filled


@register("explainer", "input_x_gradient", signed=True, stochastic=False, needs_gradient=True, unit="{score}", cites="Shrikumar et al. 2016")
class InputXGradient(Explainer):
    """The gradient times the distance from the baseline: (x - baseline) * df/dx.

    Cost: one forward and one backward pass an image.

    Source: Shrikumar, Greenside, Shcherbina & Kundaje (2016), "Not just a black box".

    Differs from the source: the baseline is named; ``mean``, the default, is zero in the model's
    normalised space, so the map equals the usual product there.
    """

    baseline: Fill = option("mean", "reference image: mean, black, white, grey or blur")

    def attribute(self, model: Classifier, images: Images, targets: Targets, streams: Sequence[Stream]) -> Attribution:
        """The product."""
        return Attribution((images - filled(self.baseline, model, images)) * model.gradient(images, targets))
