"""Class activation maps."""

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
from salience.core.montecarlo import Attribution
from salience.core.options import option
from salience.core.registry import register
from salience.core.types import Images, Targets
from salience.explainers._layers import upsampled, white_box


@register("explainer", "cam", signed=True, stochastic=False, needs_gradient=True, unit="logit", cites="Zhou et al. 2016")
class CAM(Explainer):
    """The last map's channels, weighted by the linear layer's weights of the target: sum_k w_tk A_k.

    Its mean over the positions, plus the bias, is the target's logit. Enlarged bilinearly.

    Cost: one forward pass an image.

    Source: Zhou, Khosla, Lapedriza, Oliva & Torralba (2016), "Learning deep features for discriminative localization".

    Differs from the source: nothing. Only networks that end in global average pooling and one linear
    layer have such a map: that is checked in every pass, and others are refused.
    """

    relu: bool = option(False, "keep only what speaks for the target")

    explains_score = False

    def attribute(self, model: Classifier, images: Images, targets: Targets, streams: Sequence[Stream]) -> Attribution:
        """The weighted sum of the last map's channels."""
        model = white_box(model, self)
        maps, outputs = [], []
        for part in model.chunks(images, gradients=False):
            with torch.no_grad(), _End() as end:
                outputs.append(model.checked(model(images[part]), images[part]))
            if not end.is_cam(outputs[-1]):
                raise InputError(f"{model.name} does not end in global average pooling and one linear layer, so it has no class activation map: use gradcam.")
            maps.append(torch.einsum("nkhw,nk->nhw", end.features, end.weight[targets[part]])[:, None])
        made = torch.cat(maps)
        return Attribution(upsampled(made.relu() if self.relu else made, images.shape[-2:]), torch.cat(outputs))


class _End(TorchFunctionMode):
    """Remembers the last linear layer that was applied and the last map that was averaged over its positions."""

    def __init__(self) -> None:
        super().__init__()
        self.features = self.inputs = self.weight = self.outputs = torch.zeros(0)
        self.rounding = 1e-3

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Called by torch for every function."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        first: Any = args[0] if args else kwargs.get("input")
        if func is F.linear:
            self.inputs, self.outputs = first.float(), result.float()
            self.rounding = max(1e-3, 2 * torch.finfo(first.dtype).eps)
            self.weight = (args[1] if len(args) > 1 else kwargs["weight"]).detach().float()
        elif isinstance(first, Tensor) and first.ndim == 4 and isinstance(result, Tensor):
            averaged = [each for each in (first, first.permute(0, 3, 1, 2)) if result.numel() == each.shape[0] * each.shape[1] < each.numel()]
            self.features = averaged[0].detach().clone().float() if averaged else self.features
        return result

    def is_cam(self, outputs: Tensor) -> bool:
        """Whether the linear layer's inputs are the means of the map, and its outputs the network's."""
        if self.features.ndim != 4 or self.inputs.shape != self.features.shape[:2] or self.outputs.shape != outputs.shape:
            return False
        means = self.features.mean((2, 3))
        return torch.allclose(self.inputs, means, rtol=self.rounding, atol=1e-5) and torch.allclose(self.outputs, outputs, rtol=self.rounding, atol=1e-5)
