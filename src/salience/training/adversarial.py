"""Adversarial training."""

from dataclasses import replace

import torch.nn.functional as F
from torch import Tensor

from salience.core.draws import Stream
from salience.core.model import Model
from salience.core.options import option
from salience.core.registry import register
from salience.core.types import Images
from salience.training.architecture import Architecture
from salience.training.pgd import ascend, start_within
from salience.training.recipe import Recipe


@register("recipe", "adversarial", cites="Madry et al. 2018; Wong et al. 2020")
class Adversarial(Recipe):
    """Cross-entropy of pictures that were changed against the network, by projected gradient steps within a budget.

    With ``steps=1`` it is the cheap form: one step from a random start (FGSM-RS). The changes are made with the network in
    evaluation mode.

    Cost: `steps` + 1 forward and backward passes a picture.

    Full setting: 150 epochs of stochastic gradient descent, rate 0.1 and a tenth of it after each 50, momentum 0.9, weight decay
    0.0005, seven steps without random start; pictures mirrored, moved by up to 4 pixels, turned by 2 degrees, colours changed by a quarter.

    Source: Madry et al. (2018), "Towards deep learning models resistant to adversarial attacks"; Wong et al. (2020),
    "Fast is better than free"; the full setting is that of the library `robustness`.

    Differs from the source: the size of a step, which that library leaves open, is 2.5 budget / steps; the pictures trained on are
    those of the last step, not the worst of all steps; the last epoch's network is kept, not the best one's on the test pictures.
    """

    epsilon: float = option(8 / 255, "budget: how much a pixel may change, in [0, 1] units", at_least=0, at_most=1)
    steps: int = option(7, "gradient steps; 1 is FGSM-RS", at_least=1)
    stride: float | None = option(None, "size of a step, in budgets; none: 2.5 / steps, or 1.25 for a single step", above=0)
    random_start: bool = option(True, "whether the steps begin at a random point within the budget")

    def full(self, architecture: Architecture) -> Recipe:
        """The setting of the authors' library."""
        return replace(self, epochs=150, rate=0.1, momentum=0.9, weight_decay=5e-4, drops=2, steps=7, random_start=False, flip=True, shift=4, degrees=2, jitter=0.25)

    def loss(self, net: Model, images: Images, labels: Tensor, *, epoch: int, stream: Stream) -> Tensor:
        """Mean cross-entropy of the changed pictures."""
        stride = self.stride or (1.25 if self.steps == 1 else 2.5 / self.steps)
        start = start_within(images, self.epsilon, stream.uniform(images.shape, "start").to(images)) if self.random_start else images
        changed = ascend(net, images, labels, start, epsilon=self.epsilon, stride=stride * self.epsilon, steps=self.steps)
        return F.cross_entropy(net(changed), labels)
