"""How the map of a perturbed image is set beside that of the clean one.

A perturbation that moves pixels moves the map, and for random methods it also moves the image under the
draws: masks or noise that stay in place then differ, seen from the picture, and the comparison measures
them too. So the draws are carried along: instead of f at T(x), the network z -> f(T(z)) is explained at the
clean x. A mask drawn for x then hides the same part of the picture as before, and the map comes out in the
clean geometry.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool
from torch import Tensor

from salience.core.classifier import Classifier
from salience.core.draws import Stream
from salience.core.errors import InputError
from salience.core.explainer import Explainer, MonteCarlo
from salience.core.montecarlo import Attribution
from salience.core.perturbation import Perturbation
from salience.core.reduction import one_channel
from salience.core.types import Images, Maps, Saliency, Targets

Variant = Literal["common", "as_is", "fresh", "floor"]
"""Which two maps are compared:

- ``common``: the same draws for both, carried along by a geometric perturbation and the map moved back.
- ``as_is``: the same draws, nothing carried along, nothing moved back.
- ``fresh``: as ``common``, but the second map has draws of its own.
- ``floor``: the clean image twice, with draws of its own the second time: the noise floor of the method.
"""


@dataclass(frozen=True)
class Pair:
    """Two maps of each image, ready to be compared: all on the CPU but the perturbed images.

    Attributes:
        clean: Saliency of the clean image, scaled from 0 to 1 over the visible pixels, 0 elsewhere; all 0 if constant.
        perturbed: Saliency of the perturbed image, likewise.
        raw: Both before they were scaled.
        visible: The pixels that exist in both images; no others may be compared: see `Similarity.compare_within`.
        prediction_changed: Whether the perturbed image is predicted as another class.
        images: The perturbed images.
    """

    clean: Saliency
    perturbed: Saliency
    raw: tuple[Saliency, Saliency]
    visible: Bool[Tensor, "h w"]
    prediction_changed: Bool[Tensor, " n"]
    images: Images

    def under(self, perturbation: Perturbation) -> "Pair":
        """The same maps on the pixels that a perturbation leaves in view: the noise floor of what is compared under it.

        Raises:
            InputError: If there are none.
        """
        visible = _in_view(perturbation, self.images)
        return dataclasses.replace(self, clean=scaled(self.raw[0], visible), perturbed=scaled(self.raw[1], visible), visible=visible)


def hides(perturbation: Perturbation) -> bool:
    """Whether a perturbation moves pixels out of view, by what it does to a picture of 300 x 400."""
    return perturbation.geometric and not perturbation.visible((300, 400)).all()


def compared(
    explainer: Explainer,
    model: Classifier,
    images: Images,
    targets: Targets | None,
    streams: Sequence[Stream],
    perturbation: Perturbation,
    variant: Variant = "common",
    clean: Maps | None = None,
    changed: Images | None = None,
) -> Pair:
    """The map of each clean image and that of the perturbed one, of the same target.

    Cost: two maps an image, or one if the clean ones are given, and two forward passes.

    Args:
        explainer: Makes the maps.
        model: `Model` or `BlackBox`; the score explained is the one bound to it, else the explainer's own.
        images: (n, c, h, w) in [0, 1].
        targets: Class explained, (n,); None takes that predicted for the clean image.
        streams: Where each image takes its randomness from.
        perturbation: What is done to the images.
        variant: Which maps are compared.
        clean: The maps of the clean images from the same streams, if they are at hand.
        changed: The perturbed images, if they are at hand: those of an attack are expensive, and all variants have the same.

    Returns:
        Maps of one channel as they are, of several reduced by ``abs_sum``; then scaled per image.

    Raises:
        InputError: If the perturbation leaves no pixel in view.
    """
    view = model.using(score=model.score or model.named_score(None, explainer.score), progress=None)
    geometric = perturbation.geometric and variant in ("common", "fresh")
    visible = _in_view(perturbation, images) if geometric else torch.ones(images.shape[-2:], dtype=torch.bool)
    with torch.inference_mode(False), view.frozen():
        view = explainer.prepare(view, images)
        before = view.outputs(images).argmax(1)
        chosen = before if targets is None else targets
        if variant == "floor":
            changed = images
        elif changed is None:
            changed = perturbation.against(explainer, view, images, chosen, streams)
        after = view.outputs(changed).argmax(1)
        draws = [stream.at("fresh") for stream in streams] if variant in ("fresh", "floor") else streams
        if clean is None:
            clean = explainer.attribute(view, images, chosen, streams).maps
        if geometric:
            perturbed = carried(explainer, view, perturbation).attribute(seen_through(view, perturbation), images, chosen, draws).maps
        else:
            perturbed = explainer.attribute(view, changed, chosen, draws).maps
    first, second = (one_channel(maps.detach().float()).cpu() for maps in (clean, perturbed))
    return Pair(scaled(first, visible), scaled(second, visible), (first, second), visible, (before != after).cpu(), changed)


def _in_view(perturbation: Perturbation, images: Images) -> Bool[Tensor, "h w"]:
    """The pixels of images that exist in the perturbed ones too."""
    visible = perturbation.visible((images.shape[-2], images.shape[-1]))
    if not visible.any():
        raise InputError(f"{perturbation} leaves no pixel of an image of {images.shape[-2]} x {images.shape[-1]} in view: choose a smaller change.")
    return visible


def seen_through(model: Classifier, perturbation: Perturbation) -> Classifier:
    """A view of the same model that looks at the perturbed image: z -> f(T(z)). The model is not changed.

    What T repeats of the image's edge has no gradient: it would add up in the outermost pixels.
    """

    def forward(images: Images) -> Tensor:
        moved = perturbation.apply(images, ())
        inside = perturbation.inside((images.shape[-2], images.shape[-1])).to(images.device)
        return model._forward(torch.where(inside, moved, moved.detach()))

    return model.using(_forward=forward, forward=forward)


def carried(explainer: Explainer, model: Classifier, perturbation: Perturbation) -> Explainer:
    """The explainer of `seen_through` that gives maps in the clean geometry, its draws carried along.

    A method that draws for itself (rise, lime, gradient_shap, random) can explain any network, also z -> f(T(z)).
    One that does not may look at layers, whose maps are in the geometry of T(z): it explains f at T(z) and its map is
    moved back. Around it, methods that add noise to images or weights stay as they are. Methods of other
    libraries are treated as deterministic: their draws are not carried along.

    Args:
        explainer: Any.
        model: The model itself, with the score to explain bound to it.
        perturbation: A geometric one.
    """
    if explainer.wrapped is not None:
        return dataclasses.replace(explainer, base=carried(explainer.wrapped, model, perturbation))  # type: ignore[call-arg]  # it has a base
    draws_for_itself = isinstance(explainer, MonteCarlo) or (explainer.facts.get("seeded") and not explainer.facts.get("peer"))
    return explainer if draws_for_itself else Undone(explainer, model, perturbation)


@dataclass(frozen=True, repr=False, eq=False)
class Undone(Explainer):
    """The map of the perturbed image, moved back.

    Attributes:
        inner: Explains the perturbed image.
        plain: The model itself.
        perturbation: A geometric one.
    """

    inner: Explainer
    plain: Classifier
    perturbation: Perturbation

    def attribute(self, model: Classifier, images: Images, targets: Targets, streams: Sequence[Stream]) -> Attribution:
        """Explain T(z) by the plain model, and undo T on the map; `model` is z -> f(T(z))."""
        made = self.inner.attribute(self.plain, self.perturbation.apply(images, streams), targets, streams)
        return Attribution(self.perturbation.undo(made.maps), made.outputs, made.notes)


def scaled(saliency: Saliency, visible: Bool[Tensor, "h w"] | None = None) -> Saliency:
    """Each map from 0 to 1 over the visible pixels, 0 elsewhere; all 0 if it is constant there."""
    visible = torch.ones(saliency.shape[1:], dtype=torch.bool, device=saliency.device) if visible is None else visible
    seen = saliency[:, visible]
    low, high = (extreme[:, None, None] for extreme in (seen.amin(1), seen.amax(1)))
    return torch.where(visible & (high > low), (saliency - low) / (high - low).clamp_min(torch.finfo(saliency.dtype).tiny), 0.0)
