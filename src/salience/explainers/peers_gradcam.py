"""The CAM methods of pytorch-grad-cam under their own names."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import torch
from torch import Tensor

from salience.core.model import Model
from salience.core.options import option
from salience.core.registry import register
from salience.core.score import Score
from salience.core.types import Images, Targets
from salience.explainers._layers import Layer, find_layer
from salience.explainers._peers import Arguments, Member, Peer, accepted, made_by


@register("explainer", "gradcam:*", signed=False, stochastic=False, seeded=True, needs_gradient=True, peer=True, cites="Gildenblat et al. 2021")
class PytorchGradCAM(Peer):
    """A CAM of pytorch-grad-cam by the name of its class, such as ``gradcam:EigenCAM`` or ``gradcam:GradCAMPlusPlus``.

    The layer is found by a forward pass, in a transformer with its token grid. As that library does, each
    map is rectified and scaled to [0, 1], so its scale says nothing.

    Cost: the library's, and a copy of the weights.

    Source: Gildenblat et al. (2021), "PyTorch library for CAM methods".

    Differs from the source: activations are cloned, so that operations in place after the layer cannot
    corrupt them; nothing is printed; the user's model keeps its mode, gradients and hooks.
    """

    member: Annotated[Any, Member] = option("GradCAM", "class in pytorch_grad_cam, by name or itself")
    layer: str | None = option(None, "name of the layer; none: the last one with a map of the image")
    arguments: Annotated[Any, Arguments] = option(Arguments, "further arguments of its constructor or call, such as (eigen_smooth=true)")

    library, package, module = "gradcam", "grad-cam", "pytorch_grad_cam"
    ours = frozenset({"model", "input_tensor", "targets"})

    @classmethod
    def fits(cls, kind: type) -> bool:
        """Whether it is made from layers and called with targets."""
        return "target_layers" in accepted(made_by(kind)) and any("targets" in accepted(each) for each in _calls(kind))

    def functions(self) -> tuple[Callable, ...]:
        """The constructor and what is called."""
        return (made_by(self.method), next(each for each in _calls(self.method) if "targets" in accepted(each)))

    def maps(self, model: Model, images: Images, targets: Targets) -> Tensor:
        """The library's maps."""
        make, call = self.functions()
        layer = find_layer(model, images, self.layer)
        wanted = [partial(_score, model.bound_score, target) for target in targets]
        cam = self.method(**self.call_with(make, {"model": model, "target_layers": [layer.module], "reshape_transform": partial(_spatial, layer)}))
        if getattr(cam, "detach", True):  # it goes back to the weights as well: expensive, and in channels-last order PyTorch's way there can corrupt memory
            model.requires_grad_(False)
        begins = model.register_forward_pre_hook(_with_gradient)
        try:
            made = cam(images, wanted, **self.call_with(call, {}))
        finally:
            _forget(cam)
            begins.remove()
        return torch.as_tensor(made)[:, None].to(images.device)


def _calls(kind: Any) -> tuple[Callable, ...]:
    """Where a CAM's own arguments can be: ``__call__``, or ``forward`` behind it."""
    return tuple(each for name in ("__call__", "forward") if inspect.isfunction(each := getattr(kind, name, None)))


def _spatial(layer: Layer, values: Tensor) -> Tensor:
    """A layer's output as (n, c, h, w), safe from operations in place."""
    return layer.spatial(values).clone()


def _with_gradient(_: Model, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Images from which a graph begins."""
    return tuple(each if each.requires_grad else each.detach().requires_grad_() for each in inputs)


def _score(score: Score, target: Tensor, outputs: Tensor) -> Tensor:
    """The score of one row of outputs, or of the same target in many rows."""
    rows = outputs if outputs.ndim == 2 else outputs[None]
    scores = score.of(rows, target.expand(len(rows)))
    return scores if outputs.ndim == 2 else scores[0]


def _forget(cam: Any) -> None:
    """Drop what a CAM kept: after a failure its destructor would raise over it."""
    kept = getattr(cam, "activations_and_grads", None)
    if kept is not None:
        kept.activations, kept.gradients = [], []
