"""What every classifier offers, white box or black: checked outputs in small chunks, scores, labels."""

import copy
import numbers
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import torch
from torch import Tensor

from salience.core.errors import InputError, unknown
from salience.core.memory import kept_memory
from salience.core.score import Score, as_score, probabilities_of
from salience.core.types import Images, Outputs, Progress, Targets

T = TypeVar("T", bound="Classifier")


class Tape:
    """Asks a model for gradients that can be differentiated again, and says for how many images the graph may be kept.

    The graph of further images is dropped, and recomputed when it is needed, which costs one more pass.

    Args:
        images: How many images' graphs fit into memory.
    """

    def __init__(self, images: int) -> None:
        self.left = images

    def keeps(self, images: int) -> bool:
        """Whether there is room for the graph of so many images; if so, it is taken."""
        self.left -= images
        return self.left >= 0


OUTPUTS = ("logits", "probabilities", "multilabel")

PIXELS_AT_ONCE = {"cpu": 12 * 224 * 224, "cuda": 128 * 224 * 224, "mps": 32 * 224 * 224}
"""Pixels in one pass in float32, forward and backward; twice as many in bfloat16, and twice as many if there is no backward pass.
More is a little faster on a CPU too (`bench/chunk_size.py`), but costs memory (`bench/memory.py`)."""

MOST_AT_ONCE = 256
"""Images in one forward pass, however small they are."""


def pair(size: Any) -> tuple[int, int] | None:
    """A size as (height, width); one number is a square."""
    if size is None:
        return None
    sides = list(size) if isinstance(size, Iterable) and not isinstance(size, str) else [size, size]
    if len(sides) != 2 or not all(isinstance(side, numbers.Real) and float(side).is_integer() and float(side) > 0 for side in sides):
        raise InputError(f"size is one positive whole number, or height and width, not {size!r}.")
    height, width = (int(float(side)) for side in sides)
    return height, width


def class_names(labels: Sequence[str] | Mapping[Any, str] | None) -> list[str] | None:
    """Class names in index order, from a list or from a dictionary by index.

    Raises:
        InputError: If they are neither.
    """
    if labels is None:
        return None
    if isinstance(labels, Mapping):
        by_index = {str(index): label for index, label in labels.items()}
        if not all(index.isdecimal() for index in by_index):
            raise InputError(f"labels by index has whole numbers from 0 as keys, not {next(index for index in by_index if not index.isdecimal())!r}.")
        labels = [by_index.get(str(index), f"class {index}") for index in range(1 + max(map(int, by_index), default=-1))]
    if isinstance(labels, str) or not isinstance(labels, Iterable):
        raise InputError(f"labels is a list of class names in index order, or a dictionary of them by index, not {type(labels).__name__}.")
    return [str(label) for label in labels]


def joined(parts: Sequence[Tensor]) -> Tensor:
    """The parts one after another; a single one is not copied."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


class Classifier:
    """The part of a model that explainers use. `Model` and `BlackBox` fill in `_forward`.

    Attributes:
        name: How records and tables call the model.
        size: Height and width of its input, or None if any will do.
        labels: Class names in index order, or None.
        mean_colour: Mean colour of its training images, (c,) in [0, 1]: the default fill and baseline.
        probabilities: Whether it returns probabilities rather than logits.
        multilabel: Whether it returns logits of classes that do not exclude each other.
        white_box: Whether gradients and layers can be had.
        chunk: Images in one pass; None takes it from `PIXELS_AT_ONCE`.
        score: The score explained in this call, if one has been bound by `using`.
        progress: Called as ``progress(done, total)`` while a long method runs.
        tape: If given, gradients can themselves be differentiated with respect to the images.
        precision: ``float32`` or ``bfloat16``.
        fit: How photographs are brought to `size`: ``crop``, ``squash`` or ``pad``.
        crop_fraction: Share of the shorter side that ``crop`` keeps.
        weight_sigma: The level of weight noise that ``weight_sigma=auto`` takes; None leaves it to `known_weight_sigma`.
        carried_weight_sigma: The weight noise at which relative accuracy drops by 5 %, if it was measured when the model was published.
    """

    name: str
    size: tuple[int, int] | None
    labels: Sequence[str] | None
    mean_colour: Tensor
    probabilities: bool
    white_box: bool
    multilabel: bool = False
    chunk: int | None = None
    score: Score | None = None
    progress: Progress | None = None
    tape: Tape | None = None
    precision: str = "float32"
    fit: str = "crop"
    crop_fraction: float = 0.875
    weight_sigma: float | None = None
    carried_weight_sigma: float | None = None
    device: torch.device = torch.device("cpu")

    def using(self: T, **changes: object) -> T:
        """A view of the same model with other settings of the call: score, chunk, progress."""
        view = copy.copy(self)
        for key, value in changes.items():
            object.__setattr__(view, key, value)
        return view

    def frozen(self) -> AbstractContextManager[None]:
        """Evaluation mode for the length of a call; the model is left as it was. Freed memory is kept meanwhile."""
        return kept_memory

    def _forward(self, images: Images) -> Any:
        raise NotImplementedError

    @property
    def channels_in(self) -> int:
        """Channels of an input image: 3, or 1 for a model of grey images."""
        return len(self.mean_colour)

    def chunks(self, images: Images, gradients: bool = True) -> Iterator[slice]:
        """Slices of a batch, each small enough for one pass, whose sizes differ by at most one image: small passes are expensive."""
        n = len(images)
        passes = -(-n // self.images_at_once(images.shape[-2:], gradients))
        return (slice(n * number // passes, n * (number + 1) // passes) for number in range(passes))

    def images_at_once(self, size: Sequence[int], gradients: bool = True) -> int:
        """How many images of a size go through the network at once, back again too or only forward."""
        if self.chunk is not None:
            return self.chunk
        budget = PIXELS_AT_ONCE.get(self.device.type, PIXELS_AT_ONCE["cpu"]) * (2 if self.precision == "bfloat16" else 1) * (1 if gradients else 2)
        return int(min(max(budget // (size[0] * size[1]), 1), MOST_AT_ONCE))

    def outputs(self, images: Images) -> Outputs:
        """What the model returns for each image in evaluation mode, without gradients, checked.

        Args:
            images: (n, c, h, w) in [0, 1].

        Returns:
            Float tensor (n, k).

        Raises:
            InputError: If the model does not return one finite row of scores per image.
        """
        with torch.no_grad(), self.frozen():
            return joined([self.checked(self._forward(images[part]), images[part]) for part in self.chunks(images, gradients=False)])

    def scores(self, images: Images) -> Outputs:
        """The bound score (by default the logit) of every class, (n, k)."""
        score = self.bound_score
        if score.every is None:
            raise InputError(f"The score {score.name} is a function of one target: it has no values for all classes.")
        return score.every(self.outputs(images))

    def target_scores(self, images: Images, targets: Targets) -> Tensor:
        """The bound score (by default the logit) of each image's target, (n,)."""
        return self.bound_score.of(self.outputs(images), targets)

    def gradient(self, images: Images, targets: Targets, score: str | Callable | Score | None = None) -> Images:
        """The gradient of the target's score with respect to the image: only a white box has one."""
        raise InputError(f"{self.name} is a black box, so it has no gradient and no layers: use rise, occlusion or lime, or give the network itself as sal.Model(module).")

    def weights_hash(self) -> str | None:
        """SHA-256 of the weights, for records; None for a black box."""
        return None

    @property
    def outputs_kind(self) -> str:
        """What it returns: one of `OUTPUTS`."""
        return "probabilities" if self.probabilities else "multilabel" if self.multilabel else "logits"

    def extra_repr(self) -> str:
        """What is printed of it: name, input, outputs and classes."""
        return (
            f"name={self.name!r}, size={self.size}, fit={self.fit!r}, outputs={self.outputs_kind!r}, labels={'None' if self.labels is None else f'({self.labels[0]!r}, ... {len(self.labels)} in all)'}"
        )

    @property
    def settings(self) -> dict[str, Any]:
        """What its results depend on besides its weights: preprocessing, and what is known of its structure."""
        return {
            "size": None if self.size is None else list(self.size),
            "fit": self.fit,
            "crop_fraction": self.crop_fraction,
            "mean_colour": self.mean_colour.tolist(),
            "outputs": self.outputs_kind,
        }

    def named_score(self, score: "str | Callable | Score | None" = None, otherwise: str = "logit") -> Score:
        """The score of that name for this model's kind of outputs; where classes do not exclude each other the probability is the sigmoid.

        Without one it is `otherwise`; the probability where that is the logit, which cannot be had.
        """
        score = score or ("probability" if self.probabilities and otherwise == "logit" else otherwise)
        if self.multilabel and score in ("probability", "log_probability"):
            if score == "log_probability":
                raise InputError(f"The classes of {self.name} do not exclude each other: use score='sigmoid' or 'logit' instead of 'log_probability'.")
            score = "sigmoid"
        return as_score(score, probabilities=self.probabilities)

    @property
    def bound_score(self) -> Score:
        """The score of this call: the one bound by `using`, else the logit or what stands for it."""
        return self.score or self.named_score()

    def as_probabilities(self, outputs: Outputs) -> Outputs:
        """Outputs as probabilities: softmax of logits, sigmoid where classes do not exclude each other."""
        if self.probabilities:
            return outputs
        return outputs.sigmoid() if self.multilabel else probabilities_of(outputs)

    def checked(self, outputs: Any, images: Images) -> Outputs:
        """The outputs, if they are a finite row of scores per image.

        Raises:
            InputError: If they are not.
        """
        if not isinstance(outputs, Tensor) or outputs.ndim != 2 or len(outputs) != len(images) or outputs.shape[1] == 0:
            shape = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
            more = "" if isinstance(outputs, Tensor) else ": wrap it in a module or a function that returns its scores alone"
            raise InputError(f"{self.name} returned {shape} for {len(images)} images: a classifier must return one row of scores per image, shape ({len(images)}, classes){more}.")
        if self.labels is not None and len(self.labels) > outputs.shape[1]:
            raise InputError(f"{self.name} has {outputs.shape[1]} classes but {len(self.labels)} names, so names and classes do not go together: give one name a class, in index order.")
        if not torch.isfinite(outputs).all():
            raise InputError(f"{self.name} returned NaN or infinite scores: check its weights, and that it takes images in [0, 1] with the given mean and std.")
        return outputs

    def label(self, index: int) -> str:
        """The name of a class, or ``class 7`` where there are no names."""
        return self.labels[index] if self.labels is not None and index < len(self.labels) else f"class {index}"

    def class_index(self, target: Any, classes: int) -> int:
        """The index of a class given by index or by name.

        Args:
            target: Index, its digits, or a label (letter case does not matter).
            classes: How many classes the model has.

        Raises:
            InputError: If there is no such class; the nearest names are offered.
        """
        target = target.item() if isinstance(target, Tensor) and target.numel() == 1 else target
        if isinstance(target, float) and target.is_integer():
            target = int(target)
        if not isinstance(target, str | numbers.Integral) or isinstance(target, bool):
            raise InputError(f"A target is the index or the name of a class, not {target!r:.40}.")
        text = str(target).strip()
        if re.fullmatch("-?[0-9]+", text):
            if not 0 <= int(text) < classes:
                raise InputError(f"Target {text} is out of range: {self.name} has classes 0 to {classes - 1}.")
            return int(text)
        if self.labels is None:
            raise InputError(f"{self.name} has no class names, so target {text!r} cannot be found: give an index from 0 to {classes - 1}.")
        found = [index for index, label in enumerate(self.labels) if label.lower() == text.lower()]
        if len(found) > 1:
            raise InputError(f"Several classes are called {text!r}: give one of the indices {', '.join(map(str, found))}.")
        if not found:
            raise unknown("class", text, self.labels)
        return found[0]
