"""What a metric is: a frozen set of options with one method, `judge`, that gives one number an image."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from salience.core import registry
from salience.core.classifier import Classifier
from salience.core.draws import Seed, Stream, streams
from salience.core.errors import InputError, UndefinedError, nth
from salience.core.explainer import Explainer
from salience.core.explanation import Explanation
from salience.core.geometry import Geometry
from salience.core.inputs import Target, check_chunk, checked_images, checked_maps, checked_masks, hash_of, target_indices
from salience.core.options import Options
from salience.core.reduction import Reduction, one_channel
from salience.core.score import SCORES
from salience.core.types import Images, Maps, PerImage, Progress, Saliency, Targets

REDUCTION = "how the map's channels become one: sum, abs_sum, abs_max or l2; none: one channel as it is, several by abs_sum"
"""Help text of the option ``reduction``, which every metric of saliency has."""


@dataclass(frozen=True)
class Curve:
    """What a number was computed from: y over x, one line an image.

    Attributes:
        x: (points,), the same for all images.
        y: (n, points).
    """

    x: Float[Tensor, " points"]
    y: Float[Tensor, "n points"]


@dataclass(frozen=True)
class Judgement:
    """What a metric says of n maps.

    Attributes:
        values: One number an image.
        stderr: The Monte-Carlo error of each number, if the metric draws at random and knows it.
        curves: The curves behind the numbers, by name.
    """

    values: PerImage
    stderr: PerImage | None = None
    curves: dict[str, Curve] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """What a metric judges: some images of a model, the maps that explain them, and what else is known.

    Attributes:
        model: The classifier in evaluation mode, the metric's score bound to it.
        images: (n, c, h, w) in [0, 1].
        targets: Class explained, (n,).
        maps: Signed maps, (n, c, h, w) or (n, 1, h, w).
        streams: Where the metric takes its randomness from, one an image.
        draws: Where the maps took theirs from, if they were made with the same seed.
        masks: Where the object is, one boolean mask an image, on the CPU, in the original picture's size or the input's.
        geometry: How the input lies in the original picture, one an image.
        explainer: Makes new maps, for metrics that change the image or the model.
        score: The score that the maps explain, where they say so; None: the explainer's own.
    """

    model: Classifier
    images: Images
    targets: Targets
    maps: Maps
    streams: Sequence[Stream]
    draws: Sequence[Stream]
    masks: Sequence[Bool[Tensor, "_ _"]] | None = None
    geometry: Sequence[Geometry] | None = None
    explainer: Explainer | None = None
    score: str | None = None

    def saliency(self, reduction: Reduction | None) -> Saliency:
        """The maps with one channel: as they are if they have one, else reduced (by default ``abs_sum``)."""
        return one_channel(self.maps, reduction)

    def placed(self, image: int) -> Geometry:
        """How an image's input lies in its original picture."""
        size = (self.images.shape[-2], self.images.shape[-1])
        return self.geometry[image] if self.geometry is not None else Geometry(size, size, (0.0, 0.0, float(size[0]), float(size[1])))

    def input_masks(self) -> Bool[Tensor, "n h w"]:
        """The masks at the model's input; what lies outside the crop is lost."""
        masks = [self.placed(i).to_input(mask) if tuple(mask.shape) == self.placed(i).original else mask for i, mask in enumerate(self.masks or ())]
        return torch.stack(masks).to(self.images.device)

    def explained(self, images: Images, targets: Targets, draws: Sequence[Stream]) -> Maps:
        """New maps by the explainer, of other images, or of the model as it is now, of the score that the maps explain."""
        explainer, model = self.explainer, self.model
        if explainer is None:
            raise InputError("This metric makes new maps: give the explainer, for example explainer='gradient'.")
        view = model.using(score=model.named_score(self.score, explainer.score), progress=None)
        return explainer.attribute(view, images, targets, draws).maps.detach().float()


class Metric(Options):
    """Base of all metrics. A metric is a frozen dataclass with a docstring and `judge`."""

    kind = "metric"
    expected = "A metric is a name such as 'deletion', or a metric such as sal.Deletion(steps=28)"
    own_score: ClassVar[str] = "probability"

    def judge(self, case: Case) -> Judgement:
        """The numbers for some maps.

        Args:
            case: The model, the images and their maps.

        Returns:
            One number an image, never a mean over images.
        """
        raise NotImplementedError

    def __call__(
        self,
        model: Any,
        images: Any,
        targets: Target,
        maps: Any,
        *,
        masks: Any = None,
        explainer: object = None,
        seed: Seed = 0,
        score: str | Callable | None = None,
        chunk: int | None = None,
        progress: Progress | None = None,
    ) -> Judgement:
        """Judge maps, wherever they were made; the arguments are those of `measure`.

        Returns:
            Numbers, their errors and their curves.

        Raises:
            InputError: If something given cannot be used.
            UndefinedError: If the metric has no value for an image.
        """
        check_chunk(chunk)
        geometry = getattr(images, "geometry", None)
        images = checked_images(images, model)
        sources = streams(seed, len(images))
        made_for = explained = own_score = None
        if isinstance(maps, Explanation):
            own_score = maps.score
            _warn_of_other_images(maps, images)
            made_for, explained = maps.targets, maps.targets if targets is None else None
            explainer = _method_of(maps) if explainer is None and self.facts.get("needs_explainer") else explainer
            maps = maps.maps
        if self.facts.get("needs_masks") and masks is None:
            raise InputError(f"{self.name} compares maps with where the object is: give masks, one an image, nonzero on the object.")
        if self.facts.get("needs_explainer") and explainer is None:
            raise InputError(f"{self.name} makes new maps: give the explainer, for example explainer='gradient'.")
        if self.facts.get("needs_explainer") and own_score not in (None, *SCORES):
            raise InputError(f"{self.name} makes new maps, and {own_score}, which these maps explain, is known to your function alone: explain one of {', '.join(SCORES)}.")
        checked = checked_maps(maps, images)
        view = model.using(chunk=chunk or model.chunk, score=model.named_score(score, self.own_score), progress=progress)
        with torch.inference_mode(False), model.frozen():
            indices = (_indices(targets, view, images) if explained is None else explained).to(images.device)
            _warn_of_other_targets(made_for, indices, view)
            maker = None if explainer is None else Explainer.from_value(explainer)
            case = Case(
                maker.prepare(view, images) if maker is not None and self.facts.get("needs_explainer") else view,
                images,
                indices,
                checked,
                [source.at("metric", self.name) for source in sources],
                sources,
                None if masks is None else checked_masks(masks, images, geometry),
                geometry,
                maker,
                own_score,
            )
            found = self.judge(case)
        if not isinstance(found, Judgement) or found.values.shape != (len(images),):
            what = f"values of shape {tuple(found.values.shape)}" if isinstance(found, Judgement) else type(found).__name__
            raise InputError(f"{self.name} returned {what} for {len(images)} image(s): a metric returns a Judgement of one number an image, shape (n,).")
        bad = (~torch.isfinite(found.values)).nonzero()
        if len(bad):
            raise UndefinedError(f"{self.name} is not defined for {nth(int(bad[0]), len(images))}: it came out as {found.values[bad[0, 0]].item()}.")
        return found


def measure(
    metric: object,
    model: Any,
    images: Any,
    targets: Target = None,
    maps: Any = None,
    masks: Any = None,
    explainer: object = None,
    seed: Seed = 0,
    details: bool = False,
    score: str | Callable | None = None,
    chunk: int | None = None,
    progress: Progress | None = None,
) -> Tensor | Judgement:
    """Judge maps by a metric given as a specification or an object.

    Args:
        metric: For example ``"deletion:steps=28"``, or ``sal.Deletion(steps=28)``.
        model: `Model` or `BlackBox`.
        images: (n, c, h, w) in [0, 1]; as `load_images` returns them, they know their original pictures.
        targets: Class index or name, one for all or one each; None takes those of the explanation, else the predicted.
        maps: An `Explanation`; or a tensor or array (n, c, h, w), (n, 1, h, w) or (n, h, w). Without them the `explainer` makes them, with the same seed.
        masks: For metrics of localisation: one mask an image, a tensor or array, nonzero where the object is,
            in the size of the original picture or of the model's input; or its boxes, (4,) or (k, 4): left, top, right,
            bottom in pixels of the original picture, counted from 0; the right and bottom edges are not included.
        explainer: For metrics that change the image or the model: what makes new maps. With None, the
            method of the explanation.
        seed: Of the metric's own draws, and of the explainer's: the seed that the maps were made with.
        details: Whether to return errors and curves too.
        score: What is measured of the model; None takes the metric's own.
        chunk: Images in one pass.
        progress: Called as ``progress(done, total)``.

    Returns:
        One number an image, (n,); with `details` a `Judgement`, which has errors and curves too.

    Raises:
        InputError: If neither maps nor an explainer is given, or something given cannot be used.
        UndefinedError: If the metric has no value for an image.
    """
    chosen = Metric.from_value(metric)
    if maps is None:
        if explainer is None:
            misplaced = isinstance(targets, Explanation) or getattr(targets, "ndim", 0) > 1
            raise InputError(f"There is nothing to judge: give maps, {'which come after the targets (None: their own), ' if misplaced else ''}or the explainer that makes them.")
        maps = Explainer.from_value(explainer)(model, images, targets, seed=seed, chunk=chunk)
    found = chosen(model, images, targets, maps, masks=masks, explainer=explainer, seed=seed, score=score, chunk=chunk, progress=progress)
    return found if details else found.values


def list_metrics() -> list[str]:
    """The names of all metrics."""
    return list(registry.entries("metric"))


def _warn_of_other_images(e: Explanation, images: Images) -> None:
    """Warn if maps were made of other pixels than those they are judged on: a file of another picture, or another order."""
    made_of = e.record.get("images", {}).get("pixels", ())
    other = [place for place, (then, now) in enumerate(zip(made_of, map(hash_of, images), strict=False)) if then != now]
    if other:
        warnings.warn(f"The map of {nth(other[0], len(images))} was made of other pixels than it is judged on: another picture, order or preprocessing?", UserWarning, stacklevel=3)


def _warn_of_other_targets(made_for: Targets | None, judged: Targets, model: Classifier) -> None:
    """Warn if a map of one class is judged by another."""
    if made_for is None:
        return
    other = (made_for.cpu() != judged.cpu()).nonzero().flatten().tolist()
    if other:
        place = other[0]
        warnings.warn(
            f"The map of {nth(place, len(judged))} explains {model.label(int(made_for[place]))} but is judged by {model.label(int(judged[place]))}: leave the targets out to judge it by its own.",
            UserWarning,
            stacklevel=3,
        )


def _method_of(e: Explanation) -> str:
    """The method that made an explanation, by its specification.

    Raises:
        InputError: If it was a function, which has none.
    """
    try:
        Explainer.from_value(e.method)
    except InputError as error:
        raise InputError(f"This metric makes new maps, but these are by {e.method}, which is no method's name: give the explainer itself, explainer={e.method.partition(':')[0]}.") from error
    return e.method


def _indices(targets: Target, model: Classifier, images: Images) -> Targets:
    """Targets as indices; one forward pass of one image tells how many classes there are, one of each if none are given."""
    return target_indices(targets, model.outputs(images if targets is None else images[:1]).expand(len(images), -1), model)
