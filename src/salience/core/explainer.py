"""What an explainer is: a frozen set of options with one method, `attribute`."""

import dataclasses
import functools
import numbers
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from salience.core import registry
from salience.core.classifier import Classifier
from salience.core.draws import Seed, Stream, streams
from salience.core.errors import InputError
from salience.core.explanation import Explanation
from salience.core.inputs import Target, check_chunk, checked_images, hash_of, target_indices
from salience.core.montecarlo import DREW, Accumulator, Attribution, Done, Draws, Mean, Moments, run
from salience.core.options import Options
from salience.core.score import Score
from salience.core.types import Images, Progress, Targets
from salience.core.versions import all_versions


class Explainer(Options):
    """Base of all methods. A method is a frozen dataclass with a docstring and `attribute`."""

    kind = "explainer"
    expected = "A method is a name such as 'gradient', an explainer, or a function fn(model, images, targets) -> maps"
    own_score: ClassVar[str] = "logit"
    explains_score: ClassVar[bool] = True

    def attribute(self, model: Classifier, images: Images, targets: Targets, streams: Sequence[Stream]) -> Attribution:
        """The maps of some images: the one function that a deterministic method defines.

        Args:
            model: The classifier, with the score to explain bound to it.
            images: (n, c, h, w) in [0, 1], on the model's device.
            targets: (n,) class indices.
            streams: Where each image takes its randomness from.

        Returns:
            Maps (n, c, h, w) or (n, 1, h, w).
        """
        raise NotImplementedError

    @property
    def wrapped(self) -> "Explainer | None":
        """The method that this one wraps, its option ``base``; None if it wraps none."""
        base = getattr(self, "base", None)
        return base if isinstance(base, Explainer) else None

    def nested(self) -> Iterator["Explainer"]:
        """The method itself, the one that it wraps, the one that this wraps, and so on."""
        method: Explainer | None = self
        while method is not None:
            yield method
            method = method.wrapped

    def prepare(self, model: Classifier, images: Images) -> Classifier:
        """The model with what must be known of it before any draw: what the method, or one within it, has to find out on the images given."""
        return model if self.wrapped is None else self.wrapped.prepare(model, images)

    @property
    def score(self) -> str:
        """The score explained unless another is asked for: that of the base, if the method has one."""
        return self.own_score if self.wrapped is None else self.wrapped.score

    @property
    def heeds_score(self) -> bool:
        """Whether its maps depend on which score is explained; those of the controls, say, do not."""
        return self.explains_score if self.wrapped is None else self.wrapped.heeds_score

    def check_score(self, score: object) -> None:
        """Refuse a score that was asked for where it would change nothing.

        Raises:
            InputError: If one was, and the method, or the one that it wraps, does not explain a score.
        """
        if score is not None and not self.heeds_score:
            raise InputError(f"{self.name} does not depend on a score, so choosing one would change nothing: leave score out.")

    @classmethod
    def from_value(cls, value: object) -> "Explainer":
        """An explainer from a specification, another explainer, or a function of model, images and targets.

        Raises:
            InputError: If it is none of these.
        """
        return Custom(value) if callable(value) and not isinstance(value, Explainer | type) else super().from_value(value)

    def __call__(
        self,
        model: Any,
        images: Any,
        targets: Target = None,
        *,
        score: str | Callable | None = None,
        seed: Seed = 0,
        tolerance: float | None = None,
        chunk: int | None = None,
        progress: Progress | None = None,
    ) -> Explanation:
        """Explain what the model saw in some images; the arguments are those of `explain`.

        Returns:
            The maps with their errors, on the CPU.

        Raises:
            InputError: If something given cannot be used.
        """
        check_chunk(chunk)
        if tolerance is not None and not (isinstance(tolerance, numbers.Real) and tolerance > 0):
            raise InputError(f"tolerance must be a number above 0, not {tolerance!r}.")
        shown = images
        images = checked_images(images, model)
        sources = streams(seed, len(images))
        self.check_score(score)
        chosen = model.named_score(score, self.score)
        view = model.using(chunk=chunk or model.chunk, score=chosen, progress=None)
        with torch.inference_mode(False), model.frozen():
            images, weights = images.clone(), model.weights_hash()
            outputs = view.outputs(images)
            warn_of_probabilities(outputs, model)
            indices = target_indices(targets, outputs, model).to(images.device)
            done = self.explain_view(self.prepare(view, images).using(progress=progress), images, indices, sources, tolerance)
        if done.maps.ndim != 4 or len(done.maps) != len(images) or done.maps.shape[-2:] != images.shape[-2:]:
            raise InputError(f"{self.name} returned maps of shape {tuple(done.maps.shape)} for images {tuple(images.shape)}: a method returns one map an image, (n, c, h, w) or (n, 1, h, w).")
        if tolerance is not None and done.estimate is None and DREW in done.notes:
            raise InputError(f"{self.name} draws at random but does not know its error, so it cannot stop at a tolerance: leave tolerance out.")
        bad = (~torch.isfinite(done.maps)).flatten(1).any(1).nonzero()
        if len(bad):
            raise InputError(
                f"The map of image {int(bad[0]) + 1} by {self.name} has NaN or infinite values, though the outputs of {model.name} are finite: its gradient or a layer is not, at this image."
            )
        facts: dict[str, list] = {"seed": [[*stream.key, *stream.weights] for stream in sources], "prediction": outputs.argmax(1).tolist(), "pixels": list(map(hash_of, images))}
        if hasattr(shown, "geometry"):
            facts |= {"file": shown.names, "geometry": [dataclasses.asdict(each) for each in shown.geometry]}
        record = {
            "versions": all_versions(),
            "model": {
                "name": model.name,
                "weights": weights,
                "precision": model.precision,
                "device": str(model.device),
                "chunk": view.images_at_once(images.shape[-2:]),
                "forward_chunk": view.images_at_once(images.shape[-2:], gradients=False),
            },
            "options": self.options(),
            "tolerance": tolerance,
            "images": facts,
        }

        def explanation(done: Done, targets: Targets) -> Explanation:
            """What was done, as the explanation of some targets."""
            scored = facts | {"label": [model.label(target) for target in targets.tolist()], "score": chosen.of(outputs, targets).tolist()}
            if chosen.every is not None:
                scored["probability"] = model.as_probabilities(outputs).gather(1, targets[:, None])[:, 0].tolist()
            scored |= {key: value.tolist() for key, value in done.notes.items()}
            return self._explanation(done, targets, chosen, record | {"images": scored}, shown, again)

        def again(other: Callable[[Targets], Done], targets: Target) -> Explanation:
            """The explanation of other targets, in any form."""
            wanted = target_indices(targets, outputs, model)
            return explanation(other(wanted), wanted.to(images.device))

        return explanation(done, indices)

    def explain_view(self, model: Classifier, images: Images, targets: Targets, streams: Sequence[Stream], tolerance: float | None) -> Done:
        """The work of a call, on a prepared view of the model. Deterministic here."""
        made = self.attribute(model, images, targets, streams)
        return Done(made.maps.float(), made.outputs, made.notes)

    def _explanation(self, done: Done, targets: Targets, score: Score, record: dict[str, Any], images: Images, again: Callable[..., Explanation]) -> Explanation:
        errors = {name: None if done.estimate is None else getattr(done.estimate, name).cpu() for name in ("stderr", "df", "blocks", "counts")}
        return Explanation(
            maps=done.maps.detach().cpu(),
            samples=torch.zeros(len(done.maps), dtype=torch.int64) if done.samples is None else done.samples.cpu(),
            converged=None if done.converged is None else done.converged.cpu(),
            targets=targets.cpu(),
            method=str(self),
            score=score.name,
            record=record,
            images=images.detach().to("cpu", copy=True) if type(images) is Tensor else images,  # the user may change them later
            retarget=None if done.retarget is None else functools.partial(again, done.retarget),
            **errors,
        )


Base = Annotated[Any, Explainer]
"""The type of a field that takes an explainer, a specification of one, or a function; it holds an `Explainer`."""


class MonteCarlo(Explainer):
    """Base of methods that average over draws: they define `sampler`, and the engine does the rest."""

    def sampler(self, model: Classifier, images: Images, targets: Targets, streams: Sequence[Stream]) -> Callable[[range, Tensor], Draws]:
        """Prepare a call; return the function that makes draws.

        Args:
            model: The classifier, with the score to explain bound to it.
            images: (n, c, h, w).
            targets: (n,).
            streams: Where each image takes its randomness from.

        Returns:
            A function from the numbers of some draws and the indices (a,) of some images to
            `Draws` with values (draws, a, c, h, w).
        """
        raise NotImplementedError

    @property
    def draws(self) -> int:
        """How many draws there are at most."""
        return self.samples  # type: ignore[attr-defined]  # a field of nearly every method; others override

    def at_once(self, model: Classifier, images: Images) -> int:
        """Images that go through the network at once: more where nothing goes back through it."""
        return model.images_at_once(images.shape[-2:], gradients=self.facts.get("needs_gradient", True))

    def accumulator(self, images: Images, errors: bool) -> Accumulator:
        """What collects the draws: their mean, with its error if asked for, unless the method is about something else."""
        return Moments(len(images), self.draws) if errors else Mean(len(images))

    def sample(self, model: Classifier, images: Images, targets: Targets, streams: Sequence[Stream], tolerance: float | None = None, errors: bool = True) -> Done:
        """Make the draws."""
        draw = self.sampler(model.using(progress=None), images, targets, streams)
        return run(draw, self.accumulator(images, errors), n=len(images), samples=self.draws, at_once=self.at_once(model, images), model=model, tolerance=tolerance)

    def attribute(self, model: Classifier, images: Images, targets: Targets, streams: Sequence[Stream]) -> Attribution:
        """The average over all draws."""
        done = self.sample(model, images, targets, streams, errors=False)
        return Attribution(done.maps, notes=done.notes)

    def explain_view(self, model: Classifier, images: Images, targets: Targets, streams: Sequence[Stream], tolerance: float | None) -> Done:
        """As `Explainer.explain_view`, with errors and the stopping rule."""
        return self.sample(model, images, targets, streams, tolerance)


@dataclass(frozen=True)
class Custom(Explainer):
    """A user's function as an explainer.

    Attributes:
        fn: From model, images (n, c, h, w) and targets (n,) to maps (n, c, h, w), (n, 1, h, w) or (n, h, w).
    """

    fn: Callable

    @property
    def name(self) -> str:
        """The function's name."""
        return getattr(self.fn, "__name__", type(self.fn).__name__)

    def __str__(self) -> str:
        """The function's name: a record cannot hold the function."""
        return self.name

    __repr__ = __str__

    def attribute(self, model: Classifier, images: Images, targets: Targets, streams: Sequence[Stream]) -> Attribution:
        """Call the function and check what it returns.

        Raises:
            InputError: If it does not return one map per image.
        """
        maps = self.fn(model, images, targets)
        if isinstance(maps, Explanation):
            maps = maps.maps.to(images.device)
        try:
            maps = torch.as_tensor(maps)
        except (TypeError, ValueError, RuntimeError):
            raise InputError(f"{self.name} returned {type(maps).__name__}: it must return one map per image, a tensor or an array.") from None
        maps = maps[:, None] if maps.ndim == 3 else maps
        if maps.ndim != 4 or len(maps) != len(images) or maps.shape[-2:] != images.shape[-2:]:
            raise InputError(f"{self.name} returned shape {tuple(maps.shape)} for images {tuple(images.shape)}: it must return one map per image, of the image's height and width.")
        return Attribution((maps if model.tape is not None else maps.detach()).float())


def explain(
    method: object,
    model: Any,
    images: Any,
    targets: Target = None,
    score: str | Callable | None = None,
    seed: Seed = 0,
    tolerance: float | None = None,
    chunk: int | None = None,
    progress: Progress | None = None,
) -> Explanation:
    """Explain images by a method given as a specification, an explainer, or a function.

    Args:
        method: For example ``"rise:samples=500"``, ``sal.SmoothGrad(samples=20)``, or a function of model, images and
            targets that returns maps.
        model: `Model` or `BlackBox`.
        images: (n, c, h, w) in [0, 1], as `load_images` returns them.
        targets: Class index or name, one for all images or one each; None takes the predicted class.
        score: ``logit``, ``probability``, ``log_probability``, ``sigmoid``, or a callable of outputs
            (n, k) and targets (n,); None takes the method's own.
        seed: One int for all images (they share their draws), or one an image.
        tolerance: Stop drawing for an image once the relative error of its map is at most this.
        chunk: Images in one pass; by default from the image size. It never changes the draws.
        progress: Called as ``progress(done, total)``.

    Returns:
        The maps with their errors, on the CPU.

    Raises:
        InputError: If something given cannot be used.
    """
    return Explainer.from_value(method)(model, images, targets, score=score, seed=seed, tolerance=tolerance, chunk=chunk, progress=progress)


def list_methods() -> list[str]:
    """The names of all methods; ``captum:NAME`` and the like stand for a family."""
    return [name.replace("*", "NAME") for name in registry.entries("explainer")]


def warn_of_probabilities(outputs: Tensor, model: Classifier) -> None:
    """Warn if what should be logits looks like probabilities, which another softmax would flatten."""
    if not model.probabilities and not model.multilabel and outputs.shape[1] > 1 and outputs.min() >= 0 and ((outputs.sum(1) - 1).abs() < 1e-4).all():
        warnings.warn(
            f"The outputs of {model.name} are positive and add up to 1, as probabilities do: if it ends in a softmax, make the model with outputs='probabilities'.", UserWarning, stacklevel=3
        )
