"""Zennit's composites under their own names."""

from typing import Annotated, Any

import torch
from torch import Tensor, nn

from salience.core.model import Model, logits_of
from salience.core.options import option
from salience.core.quick import inside_network
from salience.core.registry import register
from salience.core.types import Images, Outputs, Targets
from salience.explainers._peers import Arguments, Member, Peer, made_by


@register("explainer", "zennit:*", signed=True, stochastic=False, needs_gradient=True, peer=True, cites="Anders et al. 2021")
class Zennit(Peer):
    """A rule-based backward pass of zennit by the name of its composite, such as ``zennit:EpsilonPlus`` or ``zennit:EpsilonGammaBox``.

    It starts from the gradient of the score with respect to the outputs (1 at the target, for the logit), as in
    zennit's examples. Filled in: the bounds of pixel values, and zennit's canonizers for batch norm
    and torchvision's residual networks. The map is in the module's own input space: its normalisation
    has no rule.

    Cost: one forward and one backward pass, and a copy of the weights.

    Source: Anders, Neumann, Samek, Müller & Lapuschkin (2021), "Software for dataset-wide XAI: from local
    explanations to global insights with Zennit, CoRelAy, and ViRelAy".

    Differs from the source: nothing; rules see modules only, so a functional ReLU or residual sum is treated
    as its gradient (our own ``lrp`` sees those too).
    """

    member: Annotated[Any, Member] = option("EpsilonPlus", "class in zennit.composites, by name or itself")
    arguments: Annotated[Any, Arguments] = option(Arguments, "further arguments of its constructor, such as (gamma=0.5)")

    library, package, module = "zennit", "zennit", "zennit.composites"

    @classmethod
    def fits(cls, kind: type) -> bool:
        """Whether it is a composite ready for use: zennit registers those by a name."""
        return kind in cls.imported().COMPOSITES.values()

    def maps(self, model: Model, images: Images, targets: Targets) -> Tensor:
        """The relevance of the module's inputs, channels in the image's order."""
        kind = next((each.dtype for each in model.module.parameters() if each.is_floating_point()), images.dtype)
        low, high = (model.normalise(torch.full_like(images, value)).to(kind) for value in (0.0, 1.0))
        canonizers = [self.imported("zennit.torchvision").ResNetCanonizer()]
        composite = self.method(**self.call_with(made_by(self.method), {"low": low, "high": high, "canonizers": canonizers}))
        network = _OutputsOf(model.module)

        def start(outputs: Outputs) -> Tensor:
            outputs = outputs.detach().requires_grad_(True)
            return torch.autograd.grad(model.bound_score.of(outputs, targets).sum(), outputs)[0]

        attributor = self.imported("zennit.attribution").Gradient(network, composite)
        relevance = attributor(model.normalise(images).to(kind).requires_grad_(True), start)[1].float()
        return torch.empty_like(relevance).index_copy_(1, torch.tensor(model.order, device=images.device), relevance)


class _OutputsOf(nn.Module):
    """A module whose outputs are a tensor, also where they come as logits of something."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, inputs: Tensor) -> Outputs:
        with inside_network():
            return logits_of(self.module(inputs))
