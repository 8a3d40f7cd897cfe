"""Our explainers in other libraries' hands."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from salience.core.classifier import Classifier
from salience.core.draws import streams
from salience.core.errors import InputError
from salience.core.explainer import Explainer
from salience.core.model import Model
from salience.core.reduction import reduce


def quantus_explain_func(method: object, *, score: str | Callable | None = None, reduction: str | None = "sum", seed: int | Iterator[int] = 0, chunk: int | None = None) -> Callable[..., np.ndarray]:
    """An explainer of ours as the ``explain_func`` of Quantus.

    Two ways to use it. Give Quantus a `Model` (it is an `nn.Module`) and images in [0, 1]: then everything is
    as elsewhere in this package. Or give it a bare network and inputs normalised for it: then maps, baselines
    and absolute noise are in those normalised units (fill and baseline ``mean`` are zero; ``black``,
    ``white`` and ``grey`` are 0, 1 and 0.5 there, which is seldom meant).

    Quantus perturbs inputs without regard to their range, so they are not required to lie in [0, 1] here.
    Quantus takes signed maps, and then applies its own ``abs`` and ``normalise``, as set in each metric.

    Args:
        method: A specification such as ``"smoothgrad:samples=20"``, an explainer, or a function.
        score: The score explained; None takes the method's own.
        reduction: How channels are reduced, to (n, 1, h, w): ``sum`` (Quantus's own convention), ``abs_sum``,
            ``abs_max``, ``l2``; None leaves maps as they are.
        seed: An int: the same draws in every call, so that a sensitivity compares maps of equal noise. Or an
            iterator, such as ``itertools.count()``: fresh draws in every call.
        chunk: Images in one pass.

    Returns:
        A function of (model, inputs, targets) that returns maps as a NumPy array: inputs (n, c, h, w),
        targets (n,).
    """
    explainer = Explainer.from_value(method)

    def explain_func(model: Any, inputs: Any, targets: Any, **kwargs: Any) -> np.ndarray:
        if set(kwargs) - {"device"}:
            raise InputError(f"quantus_explain_func takes no {', '.join(sorted(set(kwargs) - {'device'}))} from Quantus: give the options of {explainer.name} to quantus_explain_func itself.")
        images = torch.as_tensor(np.asarray(inputs), dtype=torch.float32)
        if images.ndim != 4:
            raise InputError(f"{explainer.name} explains images (n, channels, height, width), not inputs of shape {tuple(images.shape)}: use channel_first=True in Quantus.")
        classifier = _classifier(model, images)
        images = images.to(classifier.device)
        indices = torch.as_tensor(np.asarray(targets).reshape(-1).astype(np.int64), device=classifier.device)
        if len(indices) != len(images):
            raise InputError(f"{len(indices)} targets were given for {len(images)} images: give one per image.")
        chosen = classifier.named_score(score, explainer.score)
        sources = streams(seed if isinstance(seed, int) else next(seed), len(images))
        with torch.inference_mode(False), classifier.frozen():
            view = explainer.prepare(classifier.using(score=chosen, chunk=chunk or classifier.chunk, progress=None), images)
            made = explainer.attribute(view, images.clone(), indices, sources)
        maps = made.maps.detach().cpu()
        return (maps if reduction is None else reduce(maps, reduction)[:, None]).numpy()

    return explain_func


def _classifier(model: Any, images: Tensor) -> Classifier:
    """The model where it is now: Quantus moves modules by itself."""
    if isinstance(model, Classifier):
        weight = next(model.parameters(), None) if isinstance(model, Model) else None
        return model if weight is None else model.using(device=weight.device)
    if not isinstance(model, nn.Module):
        raise InputError(f"Quantus gave a model of type {type(model).__name__}: evaluate a sal.Model, or a torch.nn.Module with normalised inputs.")
    if images.shape[1] not in (1, 3):
        raise InputError(f"The images have {images.shape[1]} channels: one or three can be explained.")
    return Model(model, channels="L" if images.shape[1] == 1 else "RGB")
