"""Captum's methods under their own names."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from salience.core.errors import InputError
from salience.core.model import Model
from salience.core.options import option
from salience.core.registry import register
from salience.core.score import Score
from salience.core.types import Images, Outputs, Targets
from salience.explainers._layers import find_layer, upsampled
from salience.explainers._peers import Arguments, Member, Peer, accepted, made_by, required
from salience.explainers._superpixels import superpixels
from salience.explainers.occlusion import Occlusion
from salience.perturb.fills import Fill, filled

SUPPLIED = {"forward_func", "model", "layer", "inputs", "target", "baselines", "feature_mask", "sliding_window_shapes", "strides", "internal_batch_size"}
"""Parameters of Captum's methods that are filled in here, unless `arguments` say otherwise."""

REFUSED = {
    "FeaturePermutation": "it swaps pixels between the images of a batch, so a map would depend on its batch: use captum:FeatureAblation",
    "LayerFeaturePermutation": "it swaps features between the images of a batch, so a map would depend on its batch: use captum:LayerFeatureAblation",
    "ShapleyValues": "it tries every order of the superpixels, which does not end: use captum:ShapleyValueSampling",
    "NoiseTunnel": "it wraps another method: use smoothgrad:base=(captum:NAME)",
}


@register("explainer", "captum:*", signed=True, stochastic=False, seeded=True, needs_gradient=True, peer=True, cites="Kokhlikyan et al. 2020")
class Captum(Peer):
    """A method of Captum by the name of its class: ``captum:DeepLift``, or ``Captum(captum.attr.DeepLift)`` in Python.

    It explains the same score of the same `Model` as our own methods, from images in [0, 1]. Filled in where
    the method takes them: the target; `baseline` (ours is the model's mean colour, Captum's would be
    black in [0, 1] space); superpixels as features, where Captum would take single pixels; a window as ours for
    Occlusion; the layer, found by a forward pass, whose map is summed over channels and enlarged; a
    memory bound for path methods. Random methods are seeded, which Captum's are not.

    Cost: Captum's, and a copy of the weights.

    Source: Kokhlikyan et al. (2020), "Captum: a unified and generic model interpretability library for PyTorch".

    Differs from the source: nothing but the above; its faults are its own.
    """

    member: Annotated[Any, Member] = option("Saliency", "class in captum.attr, by name or itself")
    baseline: Fill = option("mean", "reference image: mean, black, white, grey or blur")
    layer: str | None = option(None, "name of the layer, for methods that take one; none: the last one with a map of the image")
    arguments: Annotated[Any, Arguments] = option(Arguments, "further arguments of its constructor or attribute(), such as (n_steps=20)")

    library, package, module = "captum", "captum", "captum.attr"
    ours = frozenset({"forward_func", "model", "inputs"})

    def __post_init__(self) -> None:
        """Check the options, and that nothing the method needs is missing."""
        super().__post_init__()
        missing = set().union(*map(required, self.functions())) - SUPPLIED - set(self.arguments.values)
        if missing:
            raise InputError(f"{self.name} needs {' and '.join(sorted(missing))}: give it as arguments=({min(missing)}=...).")

    @classmethod
    def fits(cls, kind: type) -> bool:
        """Whether it is made from a model and has ``attribute``, and can explain an image by itself."""
        first = next(iter(accepted(made_by(kind))), None)
        return callable(getattr(kind, "attribute", None)) and first in ("forward_func", "model") and kind.__name__ not in REFUSED

    def refusal(self, name: str, known: Mapping[str, type]) -> InputError:
        """Why a name cannot be used."""
        return InputError(f"captum:{name} cannot be used: {REFUSED[name]}.") if name in REFUSED else super().refusal(name, known)

    def functions(self) -> tuple[Callable, ...]:
        """The constructor and ``attribute``."""
        return (made_by(self.method), self.method.attribute)

    def maps(self, model: Model, images: Images, targets: Targets) -> Tensor:
        """Captum's map, and that of a layer enlarged to the image."""
        make, attribute = self.functions()
        taken = accepted(make) | accepted(attribute)
        layer = find_layer(model, images, self.layer) if "layer" in taken else None
        captum = self.imported()
        if layer is not None and layer.layout != "nchw" and issubclass(self.method, captum.LayerGradCam | captum.GuidedGradCam):
            raise InputError(f"{self.name} takes the second dimension of a layer for its channels, which are the last one of {layer.name!r} in {model.name}: use gradcam or gradcam:GradCAM.")
        network = ScoresOf(model, model.bound_score)
        method = self.method(network, **self.call_with(make, {} if layer is None else {"layer": layer.module}))
        one_by_one = "feature_mask" in taken or "baselines" in required(attribute)
        parts = [slice(i, i + 1) for i in range(len(images))] if one_by_one else [slice(None)]
        made = torch.cat([_tensor(method.attribute(images[part], **self.call_with(attribute, self._supplied(model, images[part], targets[part], attribute)))) for part in parts])
        if layer is None or made.shape[1:] == images.shape[1:]:
            return made.expand(len(images), *made.shape[1:])
        return upsampled(layer.spatial(made).sum(1, keepdim=True), images.shape[-2:])

    def _supplied(self, model: Model, images: Images, targets: Targets, attribute: Callable) -> dict[str, Any]:
        taken = accepted(attribute)
        baselines = filled(self.baseline, model, images).contiguous()
        found: dict[str, Any] = {"target": targets, "internal_batch_size": model.images_at_once(images.shape[-2:])}
        found["baselines"] = baselines.repeat(2, 1, 1, 1) if "baselines" in required(attribute) else baselines
        if "feature_mask" in taken:
            found["feature_mask"] = superpixels(images)[:, None]
        if "sliding_window_shapes" in taken:
            window, stride = Occlusion().geometry(images.shape[-2:])
            found |= {"sliding_window_shapes": (images.shape[1], window, window), "strides": (images.shape[1], stride, stride)}
        return found


class ScoresOf(nn.Module):
    """The scores of all classes as a network, for libraries that want one."""

    def __init__(self, model: Model, score: Score) -> None:
        super().__init__()
        self.model = model
        self.score = score

    def forward(self, images: Images) -> Outputs:
        """Images in [0, 1] to scores (n, k)."""
        return self.score.every(self.model(images)) if self.score.every is not None else self.model(images)


def _tensor(made: Any) -> Tensor:
    return made[0] if isinstance(made, tuple) else made
